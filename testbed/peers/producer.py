"""The existing system's API as far as Kafka sees it: publishes a task for every song named as an argument.

The name of the task is the song's, up to `_input.wav`. HOOK_URL is where its result goes. Prints each task's name.
"""

import os
import sys
import time

import common


def main(songs):
    producer = common.producer()
    for song in songs:
        uuid = os.path.basename(song).removesuffix("_input.wav")
        task = {
            "task_uuid": uuid,
            "audio_path": song,
            "hook_url": os.environ["HOOK_URL"],
            "timestamp": int(time.time()),
        }
        producer.send(common.TASK_TOPIC, key=uuid, value=task).get(timeout=30)
        print(uuid, flush=True)
    producer.close()


if __name__ == "__main__":
    main(sys.argv[1:])

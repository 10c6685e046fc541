"""uvr5-api's API as seen by Kafka: publishes a task for every song path in its arguments.

The task's id is the song's file name without `_input.wav`. HOOK_URL receives its webhook. Prints each task's id.
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

"""uvr5-api's uploader as seen by Kafka: reads results, prints each as a line of JSON, commits.

It exits after PEER_COUNT results, if that is set, and on SIGTERM.
"""

import json
import os
import signal

import common

log = common.logger("uploader")


class Uploader:
    def __init__(self):
        self.shutdown = False
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)
        self.left = int(os.environ.get("PEER_COUNT", "0")) or None
        self.consumer = common.consumer(common.RESULT_TOPIC, common.UPLOADER_GROUP, 300_000)

    def stop(self, signum, _frame):
        log.info("Received %s, initiating graceful shutdown...", signal.Signals(signum).name)
        self.shutdown = True

    def start(self):
        log.info("UVR Uploader started, waiting for results...")
        try:
            while not self.shutdown and self.left != 0:
                for messages in self.consumer.poll(timeout_ms=200).values():
                    for message in messages:
                        self.handle(message)
        finally:
            self.consumer.close()
            log.info("Kafka consumer closed")

    def handle(self, message):
        log.info("Received result: %s", message.value.get("task_uuid", "unknown"))
        print(json.dumps({"key": message.key, "value": message.value}), flush=True)
        self.consumer.commit()
        log.info("[%s] Offset committed successfully", message.value.get("task_uuid"))
        if self.left is not None:
            self.left -= 1


if __name__ == "__main__":
    Uploader().start()

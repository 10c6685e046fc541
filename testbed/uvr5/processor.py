"""uvr5-api's processor without the separation: both stems are copies of the song.

Takes one task at a time, publishes a result, commits. PEER_SECONDS makes each task last that long, PEER_KEEP_INPUT=1
leaves the song where it is; SIGTERM lets the running task finish.
"""

import os
import shutil
import signal
import time

import common

log = common.logger("processor")


class Processor:
    def __init__(self):
        self.shutdown = False
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)
        self.consumer = common.consumer(common.TASK_TOPIC, common.PROCESSOR_GROUP, 600_000)
        self.producer = common.producer()

    def stop(self, signum, _frame):
        log.info("Received %s, initiating graceful shutdown...", signal.Signals(signum).name)
        self.shutdown = True

    def start(self):
        log.info("UVR Processor started, waiting for tasks...")
        try:
            # uvr5-api's iterator checks the flag only when a message arrives.
            while not self.shutdown:
                for messages in self.consumer.poll(timeout_ms=200).values():
                    for message in messages:
                        self.handle(message.value)
        finally:
            self.close()

    def handle(self, task):
        log.info("Received task: %s", task.get("task_uuid", "unknown"))
        self.process(task)
        self.consumer.commit()
        log.info("[%s] Offset committed successfully", task.get("task_uuid"))

    def process(self, task):
        uuid, audio_path, hook_url = task["task_uuid"], task["audio_path"], task["hook_url"]
        try:
            if not os.path.exists(audio_path):
                raise FileNotFoundError(f"Audio file not found: {audio_path}")
            vocals, instrumental = self.separate(audio_path, uuid)
            result = {
                "task_uuid": uuid,
                "success": True,
                "vocals_path": vocals,
                "instrumental_path": instrumental,
                "hook_url": hook_url,
            }
        except OSError as error:
            log.error("[%s] Task processing failed: %s", uuid, error)
            result = {"task_uuid": uuid, "success": False, "error_message": str(error), "hook_url": hook_url}
        self.producer.send(common.RESULT_TOPIC, key=uuid, value=result).get(timeout=30)
        if os.path.exists(audio_path) and os.environ.get("PEER_KEEP_INPUT") != "1":
            os.remove(audio_path)

    def separate(self, audio_path, uuid):
        time.sleep(float(os.environ.get("PEER_SECONDS", "0")))
        os.makedirs(common.OUTPUT_DIR, exist_ok=True)
        stems = [os.path.join(common.OUTPUT_DIR, f"{uuid}_{stem}.wav") for stem in ("vocals", "instrumental")]
        for stem in stems:
            shutil.copyfile(audio_path, stem)
        return stems

    def close(self):
        self.consumer.close()
        log.info("Kafka consumer closed")
        self.producer.flush(timeout=10)
        self.producer.close()
        log.info("Kafka producer closed")
        log.info("Processor shutdown complete")


if __name__ == "__main__":
    Processor().start()

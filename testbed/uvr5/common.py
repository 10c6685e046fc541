"""Shared by the programs that stand in for uvr5-api: settings from the environment, and their Kafka clients.

Written from uvr5-api's documents, for tests and as a baseline for benchmarks; never deployed.
"""

import json
import logging
import os
import sys

from kafka import KafkaConsumer, KafkaProducer

SERVERS = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092").split(",")
TASK_TOPIC = os.environ.get("KAFKA_TASK_TOPIC", "uvr_tasks")
RESULT_TOPIC = os.environ.get("KAFKA_RESULT_TOPIC", "uvr_results")
PROCESSOR_GROUP = os.environ.get("KAFKA_PROCESSOR_GROUP_ID", "uvr_processor_group")
UPLOADER_GROUP = os.environ.get("KAFKA_UPLOADER_GROUP_ID", "uvr_uploader_group")
OUTPUT_DIR = os.environ.get("OUTPUT_DIR", "./output")
# Tests need messages published before they started, and shorter sessions; the defaults are uvr5-api's own.
OFFSET_RESET = os.environ.get("KAFKA_AUTO_OFFSET_RESET", "latest")
SESSION_TIMEOUT_MS = int(os.environ.get("KAFKA_SESSION_TIMEOUT_MS", "60000"))
HEARTBEAT_INTERVAL_MS = int(os.environ.get("KAFKA_HEARTBEAT_INTERVAL_MS", "10000"))


class JsonLines(logging.Formatter):
    """The format that the testbed reads from a worker's log."""

    def format(self, record):
        return json.dumps({"level": record.levelname, "message": record.getMessage()})


def logger(name):
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    log = logging.getLogger(name)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    return log


def consumer(topic, group, max_poll_interval_ms):
    """uvr5-api's consumer; its client's default assignor is `range`."""
    return KafkaConsumer(
        topic,
        bootstrap_servers=SERVERS,
        client_id=os.environ.get("KAFKA_CLIENT_ID", "python-peer"),
        group_id=group,
        value_deserializer=lambda m: json.loads(m.decode("utf-8")),
        key_deserializer=lambda k: k.decode("utf-8") if k else None,
        auto_offset_reset=OFFSET_RESET,
        enable_auto_commit=False,
        max_poll_records=1,
        max_poll_interval_ms=max_poll_interval_ms,
        session_timeout_ms=SESSION_TIMEOUT_MS,
        heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS,
    )


def producer():
    return KafkaProducer(
        bootstrap_servers=SERVERS,
        acks="all",
        key_serializer=lambda k: k.encode("utf-8"),
        value_serializer=lambda v: json.dumps(v).encode("utf-8"),
    )

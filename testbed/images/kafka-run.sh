#!/bin/sh
# Starts a broker with the settings in its environment, read by the same class as in the image apache/kafka: KAFKA_A_B is
# the setting a.b.
set -euf
java="/opt/java/bin/java ${KAFKA_HEAP_OPTS:--Xmx512m} -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp /opt/kafka/libs/*"
config=/opt/kafka/config
# A pod's volume outlives its container: as in that image, a directory that is formatted already is no error.
if ! output=$($java kafka.docker.KafkaDockerWrapper setup \
    --default-configs-dir /etc/kafka/docker --mounted-configs-dir /mnt/shared/config --final-configs-dir $config 2>&1); then
    case $output in
        *'is already formatted'*) ;;
        *) printf '%s\n' "$output" >&2 && exit 1 ;;
    esac
fi
exec $java -Dorg.slf4j.simpleLogger.defaultLogLevel=warn kafka.Kafka $config/server.properties

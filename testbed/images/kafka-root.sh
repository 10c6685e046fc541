#!/bin/sh
# Fills the root of an image of Kafka: this system's Java with its libraries, Kafka's jars, and a program that starts a
# broker, at the paths of the image apache/kafka.
#
# usage: kafka-root.sh DIRECTORY JARS PROGRAM
set -eu
root=$1
jars=$2
program=$3

mkdir -p "$root/opt/java" "$root/opt/kafka/config" "$root/mnt/shared/config"
cp -r "$jars" "$root/opt/kafka/libs"
install -D --mode=755 "$program" "$root/etc/kafka/docker/run"
# The broker is an unprivileged user.
chmod 777 "$root/opt/kafka/config"
chmod 1777 "$root/tmp"

java=$(readlink -f "$(command -v java)")
home=${java%/bin/java}
cd "$home"
# Its configuration is links to other directories, and some links have no target.
find -L bin/java conf lib -type f ! -name ct.sym |
    tar --create --dereference --files-from=- |
    tar --extract --directory "$root/opt/java"
for file in bin/java lib/server/libjvm.so lib/libjava.so lib/libnet.so lib/libnio.so lib/libzip.so; do
    ldd "$file"
done | sed -n 's|^[^/]*\(/[^ ]*\) (0x.*|\1|p' | sort -u | while read -r library; do
    case $library in
        "$home"/*) ;;
        *) install -D --mode=755 "$library" "$root$library" ;;
    esac
done

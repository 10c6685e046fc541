# The first process of a machine: makes its own what a node writes to, says that it is there, and takes in orphans.
# Runs in new mount, network and process namespaces: nothing here changes the system outside.
#
# $1: folder of the machine   $2: the program that stays
set -eu
folder=$1
pause=$2

# The /proc that is mounted still is the one outside: the number there is ours as others see it.
read -r pid rest </proc/self/stat
mount -t proc proc /proc

mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/log
# What is in /var/lib stays to be seen, and what is written there goes into the folder.
mkdir "$folder/written" "$folder/merging"
mount -t overlay -o "lowerdir=/var/lib,upperdir=$folder/written,workdir=$folder/merging" overlay /var/lib
keep() {
    mkdir -p "$folder/$1" "$2"
    mount --bind "$folder/$1" "$2"
}
keep containers /var/lib/containerd
keep volumes /var/lib/kubelet
keep logs /var/log/pods

# A kubelet sets these for the whole system. Here it finds that they are as it wants them, and leaves them alone.
tunable() {
    printf '%s\n' "$2" >"$folder/tunable-${1##*/}"
    mount --bind "$folder/tunable-${1##*/}" "/proc/sys/$1"
}
tunable vm/overcommit_memory 1
tunable vm/panic_on_oom 0
tunable kernel/panic 10
tunable kernel/panic_on_oops 1
tunable kernel/keys/root_maxkeys 1000000
tunable kernel/keys/root_maxbytes 25000000

# Volumes that are mounted later reach containers that run already.
mount --make-rshared /
echo 1 >/proc/sys/net/ipv4/ip_forward
ip link set lo up

echo "$pid" >"$folder/pid.new"
mv "$folder/pid.new" "$folder/pid"
exec "$pause"

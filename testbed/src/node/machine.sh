# The first process of a machine: isolates the paths that a node writes to, reports its process id, and adopts
# orphans.
# Runs in new mount, network and process namespaces: nothing here changes the system outside.
#
# $1: directory of the machine   $2: the program that stays
set -eu
directory=$1
pause=$2

# The mounted /proc is still the outer one, so it shows our process id as seen from outside.
read -r pid rest </proc/self/stat
mount -t proc proc /proc

mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/log
# The content of /var/lib stays visible, and writes to it go to the machine's directory.
mkdir "$directory/written" "$directory/merging"
mount -t overlay -o "lowerdir=/var/lib,upperdir=$directory/written,workdir=$directory/merging" overlay /var/lib
keep() {
    mkdir -p "$directory/$1" "$2"
    mount --bind "$directory/$1" "$2"
}
keep containers /var/lib/containerd
keep volumes /var/lib/kubelet
keep logs /var/log/pods

# A kubelet sets these for the complete system. Here it finds the values it wants and does not change them.
tunable() {
    printf '%s\n' "$2" >"$directory/tunable-${1##*/}"
    mount --bind "$directory/tunable-${1##*/}" "/proc/sys/$1"
}
tunable vm/overcommit_memory 1
tunable vm/panic_on_oom 0
tunable kernel/panic 10
tunable kernel/panic_on_oops 1
tunable kernel/keys/root_maxkeys 1000000
tunable kernel/keys/root_maxbytes 25000000

# Later mounts of volumes propagate into running containers.
mount --make-rshared /
echo 1 >/proc/sys/net/ipv4/ip_forward
ip link set lo up

echo "$pid" >"$directory/pid.new"
mv "$directory/pid.new" "$directory/pid"
exec "$pause"

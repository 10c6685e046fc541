# Waits until its standard input closes, which happens when our process ends, then removes a machine's control
# groups. Their processes may take a moment to die, so it retries for some seconds.
#
# $1: name of the control groups
cat >/dev/null 2>&1
tries=0
while [ "$tries" -lt 100 ]; do
    left=no
    for group in /sys/fs/cgroup/"$1" /sys/fs/cgroup/*/"$1"; do
        [ -d "$group" ] || continue
        find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null
        [ ! -d "$group" ] || left=yes
    done
    [ "$left" = yes ] || exit 0
    tries=$((tries + 1))
    sleep 0.1
done

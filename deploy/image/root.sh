#!/bin/sh
# Fills the directory that becomes the root of an image without a shell: the shared libraries that programs are linked
# with, the system trust store, the users, and for scanners the package of each file.
# Runs in a stage of each Dockerfile that is Debian or based on it; names no program.
#
# usage: root.sh DIRECTORY PROGRAM-OR-LIBRARY…
set -eu
root=$1
shift

authorities=/etc/ssl/certs/ca-certificates.crt
if [ ! -e "$authorities" ]; then
    apt-get update
    apt-get install --yes --no-install-recommends ca-certificates
fi
install -D --mode=644 "$authorities" "$root$authorities"

# Libraries and the dynamic loader keep their full paths, which Debian's loader searches by default.
for program in "$@"; do
    ldd "$program"
done >/tmp/linked
if grep 'not found' /tmp/linked; then
    echo "root.sh: this base lacks the libraries above; fix: install them in the stage 'root', or use a newer base" >&2
    exit 1
fi
libraries=$(sed -n 's|^[^/]*\(/[^ ]*\) (0x.*|\1|p' /tmp/linked | sort -u)
for library in $libraries; do
    install -D --mode=755 "$library" "$root$library"
done

# As in distroless images: one status file for each package, and its license.
mkdir -p "$root/var/lib/dpkg/status.d"
packages=$(for library in $libraries; do
    # /lib and /usr/lib are the same directory on Debian, and the package may list either path.
    dpkg-query --search "*$library"
done | cut -d: -f1 | sort -u)
for package in ca-certificates $packages; do
    dpkg-query --status "$package" >"$root/var/lib/dpkg/status.d/$package"
    licence=/usr/share/doc/$package/copyright
    if [ -e "$licence" ]; then
        install -D --mode=644 "$licence" "$root$licence"
    fi
done
install -D --mode=644 /etc/os-release "$root/etc/os-release"

cat >"$root/etc/passwd" <<'END'
root:x:0:0:root:/:/sbin/nologin
nonroot:x:65532:65532:nonroot:/:/sbin/nologin
END
printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
install -d --mode=1777 "$root/tmp"

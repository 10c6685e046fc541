#!/bin/sh
# Fills the folder that becomes the root of an image without a shell: the shared libraries that programs are linked
# with, the certificates of the usual authorities, the users, and for scanners what package each file came from.
# Runs in a stage of Dockerfile.worker and Dockerfile.operator that is Debian, or made of it; knows no program by name.
#
# usage: root.sh FOLDER PROGRAM-OR-LIBRARY…
set -eu
root=$1
shift

authorities=/etc/ssl/certs/ca-certificates.crt
if [ ! -e "$authorities" ]; then
    apt-get update
    apt-get install --yes --no-install-recommends ca-certificates
fi
install -D --mode=644 "$authorities" "$root$authorities"

# With full paths, the dynamic loader too: where Debian's loader looks without being told.
for program in "$@"; do
    ldd "$program"
done >/tmp/linked
if grep 'not found' /tmp/linked; then
    echo "root.sh: this base has no such library; fix: install it in the stage 'root', or take a newer base" >&2
    exit 1
fi
libraries=$(sed -n 's|^[^/]*\(/[^ ]*\) (0x.*|\1|p' /tmp/linked | sort -u)
for library in $libraries; do
    install -D --mode=755 "$library" "$root$library"
done

# As distroless images do: one file for each package, and the licence that goes with it.
mkdir -p "$root/var/lib/dpkg/status.d"
packages=$(for library in $libraries; do
    # Debian calls a folder /usr/lib by either name.
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

#!/usr/bin/env bash
# Unpacks the QEMU of Debian 12's backports, which is of version 10, beside the installed one, which stays what it is:
# scripts/install-qemu-backport.sh DIRECTORY
#
# Afterwards DIRECTORY/bin has qemu-system-x86_64 and qemu-img; tests that find DIRECTORY/bin first on their PATH run on
# it. Nothing outside of DIRECTORY changes, and no rights are needed. Packages are checked by Debian's signatures.
# Where the installed QEMU is as new, or the distribution is not Debian 12, there is nothing to unpack, and it says so.
set -euo pipefail

[ $# -eq 1 ] || {
    echo "usage: $0 DIRECTORY" >&2
    exit 2
}
mkdir -p "$1"
directory=$(cd "$1" && pwd)
done_file=$directory/complete
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
oldest_wanted=10

nothing_to_unpack() {
    echo "$1" >&2
    exit 0
}

[ ! -e "$done_file" ] || exit 0
installed=$(qemu-system-x86_64 --version 2>/dev/null | sed -n '1s/.*version \([0-9]*\).*/\1/p' || true)
if [ "${installed:-0}" -ge $oldest_wanted ]; then
    nothing_to_unpack "The installed QEMU is of version $installed already."
fi
release=$(. /etc/os-release && echo "${ID:-} ${VERSION_CODENAME:-}")
if [ "$release" != "debian bookworm" ] || [ "$(dpkg --print-architecture)" != amd64 ]; then
    nothing_to_unpack "Only Debian 12 on amd64 has QEMU $oldest_wanted in backports; this is $release."
fi

work=$directory/work
rm -rf "$work" "$directory/root" "$directory/bin"
mkdir -p "$work/lists/partial" "$work/archives/partial" "$directory/root" "$directory/bin"
for suite in bookworm bookworm-backports; do
    echo "deb [signed-by=$keyring] http://deb.debian.org/debian $suite main"
done >"$work/sources.list"

# With the system's list of what is installed, but with lists and archives of its own.
apt() {
    apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work" -o Dir::Cache::archives="$work/archives" \
        -o Debug::NoLocking=1 -o APT::Sandbox::User= "$@" </dev/null >&2
}
apt update
apt install --download-only --yes --no-install-recommends --target-release bookworm-backports \
    qemu-system-x86 qemu-utils
for package in "$work"/archives/*.deb; do
    dpkg-deb --extract "$package" "$directory/root"
done

# QEMU finds its firmware beside itself, but for what is installed already.
libraries=$directory/root/usr/lib/x86_64-linux-gnu:$directory/root/lib/x86_64-linux-gnu
launcher() {
    local program=$1
    shift
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%q exec %q %s"$@"\n' "$libraries" "$directory/root/usr/bin/$program" "$*" \
        >"$directory/bin/$program"
    chmod +x "$directory/bin/$program"
}
launcher qemu-system-x86_64 '-L /usr/lib/ipxe/qemu '
launcher qemu-img
"$directory/bin/qemu-img" --version >/dev/null
"$directory/bin/qemu-system-x86_64" --version | sed -n '1s/^/Unpacked: /p' >&2
rm -rf "$work"
touch "$done_file"

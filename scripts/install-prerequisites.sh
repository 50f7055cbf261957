#!/usr/bin/env bash
# Installs what the demo, the tests or the benchmarks need and this machine does not have:
# scripts/install-prerequisites.sh demo|test|bench
#
# On Debian and Ubuntu the missing packages, and no others, are installed by apt-get, with sudo where not root.
# Elsewhere, or without rights, it says which packages are missing and fails. Where nothing is missing it says nothing.
set -euo pipefail

usage() {
    echo "usage: $0 demo|test|bench" >&2
    exit 2
}
[ $# -eq 1 ] || usage
purpose=$1
case $purpose in demo | test | bench) ;; *) usage ;; esac

# Administrators' tools are not on every user's path.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
    echo "The virtual machines need the Linux kernel of an x86-64 machine; this is $(uname -s) on $(uname -m)." >&2
    exit 1
fi

distribution=other
if [ -r /etc/os-release ] && command -v apt-get >/dev/null; then
    case " $(. /etc/os-release && echo "${ID:-} ${ID_LIKE:-}") " in
    *" ubuntu "*) distribution=ubuntu ;;
    *" debian "*) distribution=debian ;;
    esac
fi
case $distribution in
ubuntu) kernel_package=linux-image-virtual ;;
debian | other) kernel_package=linux-image-cloud-amd64 ;;
esac

has_command() { command -v "$1" >/dev/null; }
has_file() { [ -e "$1" ]; }

# A kernel can boot a guest if its modules are there too. Ubuntu's can be read only by root, who runs the guests.
has_kernel() {
    local image
    for image in /boot/vmlinuz-*; do
        if [ -e "$image" ] && [ -e "/lib/modules/${image#/boot/vmlinuz-}/modules.dep" ]; then return 0; fi
    done
    return 1
}

# The guest has no libraries.
has_static_busybox() {
    has_command busybox && ! ldd "$(command -v busybox)" 2>/dev/null | grep -q '=>'
}

has_syslinux_boot_record() {
    has_file /usr/lib/syslinux/mbr/mbr.bin || has_file /usr/share/syslinux/mbr.bin ||
        has_file /usr/lib/syslinux/bios/mbr.bin
}

missing=()
need() {
    local package=$1
    shift
    "$@" || missing+=("$package")
}

look() {
    missing=()
    need gcc has_command gcc
    need make has_command make
    need libc6-dev has_file /usr/include/stdio.h
    need qemu-system-x86 has_command qemu-system-x86_64
    need qemu-utils has_command qemu-img
    need "$kernel_package" has_kernel
    need busybox-static has_static_busybox
    need e2fsprogs has_command mke2fs
    need iproute2 has_command ip
    need nftables has_command nft
    need syslinux has_command syslinux
    need syslinux-common has_syslinux_boot_record
    need mtools has_command mcopy
    need dosfstools has_command mkfs.vfat
    need fdisk has_command sfdisk
    need util-linux has_command unshare
    need cpio has_command cpio
    need kmod has_command modprobe
    need binutils has_command strip
    # Kernel modules come compressed by either, or not at all.
    need xz-utils has_command xz
    need zstd has_command zstd
    [ "$purpose" != demo ] || return 0
    # Peers to test and to compare with.
    need libnbd-bin has_command nbdcopy
    need nbdkit has_command nbdkit
    if [ "$purpose" = bench ]; then
        need rsync has_command rsync
        need virtnbdbackup has_command virtnbdbackup
        # The daemon alone, without the packages that would start one of the system's.
        need libvirt-daemon has_command libvirtd
        need libvirt-daemon-driver-qemu has_file /usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so
        need libvirt-clients has_command virsh
        return 0
    fi
    need prometheus has_command promtool
    # Put into a guest of the tests.
    need qemu-guest-agent has_command qemu-ga
}

give_up() {
    echo "$1" >&2
    echo "Install these packages (as Debian and Ubuntu name them), then try again:" >&2
    echo "    ${missing[*]}" >&2
    exit 1
}

look
[ ${#missing[@]} -gt 0 ] || exit 0
[ "$distribution" != other ] || give_up "Something is missing, and this is neither Debian nor Ubuntu."

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    has_command sudo || give_up "Something is missing, and installing it needs root or sudo."
    # Where nobody could answer, sudo must not ask.
    if [ -t 0 ]; then as_root=(sudo); else as_root=(sudo -n); fi
    "${as_root[@]}" true || give_up "Something is missing, and sudo does not let you install it."
fi

apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" </dev/null >&2
}
apt update || give_up "apt-get update failed."
# Twice: installing one package may remove another of which a newer version was there (qemu-utils of Debian's backports).
for _ in first second; do
    echo "Installing: ${missing[*]}" >&2
    apt install --yes --no-install-recommends "${missing[@]}" || give_up "apt-get install failed."
    look
    [ ${#missing[@]} -gt 0 ] || exit 0
done
give_up "Something is missing still after the installation."

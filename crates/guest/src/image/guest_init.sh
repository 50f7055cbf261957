#!/bin/sh
# First process of the guest. $1 is the device of the root file system, NAME2 of its disk.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sys /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
. @CONFIGURATION@
hostname "$HOSTNAME"

ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
    ip link set eth0 up
    [ -n "$ADDRESS" ] && ip addr add "$ADDRESS" dev eth0
    [ -n "$GATEWAY" ] && ip route add default via "$GATEWAY"
fi

acpid -c /etc/acpi -l /run/acpid.log -p /run/acpid.pid 2>/dev/null

# The first mount replays the journal, as any mount after a power cut does; what stands then must need no repair at all.
# (e2fsck's own replay would call stale free counts in the superblock, which the kernel sets right by itself, a repair.)
data=$(findfs LABEL=@DATA_LABEL@)
mount -t ext4 "$data" /data && umount /data
e2fsck -f -n "$data" >/run/e2fsck.log 2>&1
check=$?
[ $check = 0 ] || { echo "ERROR e2fsck of $data: $check"; cat /run/e2fsck.log; } >/dev/console
mount -t ext4 -o rw,errors=remount-ro "$data" /data || echo "ERROR cannot mount $data" >/dev/console

if [ -x /usr/sbin/qemu-ga ]; then
    for port in /sys/class/virtio-ports/*; do
        [ "$(cat $port/name)" = org.qemu.guest_agent.0 ] || continue
        qemu-ga -d -m virtio-serial -p "/dev/${port##*/}" -t /run -f /run/qemu-ga.pid -l /run/qemu-ga.log
    done
fi

echo "GUEST-UP $(cut -d' ' -f1 /proc/uptime) $HOSTNAME" >/dev/console
while :; do
    @WORKLOAD@ --configuration @CONFIGURATION@ --region-a "${data%2}1" --region-b "${1%2}3" --journal /data --file-system-check $check \
        >/dev/console 2>&1 &
    echo $! >/run/workload.pid
    wait $!
    [ -e /run/power-off ] && while :; do sleep 60; done
    echo "ERROR the workload ended" >/dev/console
    sleep 1
done

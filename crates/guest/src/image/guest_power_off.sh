#!/bin/sh
# An orderly end: no write is under way and the file system is clean when the power goes.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
: >/run/power-off
pid=$(cat /run/workload.pid)
kill "$pid"
tries=0
while [ -e "/proc/$pid" ] && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
umount /data || mount -o remount,ro /data
mount -o remount,ro /
sync
echo "GUEST-DOWN" >/dev/console
poweroff -f

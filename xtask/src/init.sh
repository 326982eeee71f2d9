#!/bin/busybox sh
# The first process of a VM, from the initramfs: mounts the host's root under an overlay, fetches
# the job from the host, and hands over to guest.sh inside.
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys /dev /host /rw /new
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

while read -r module parameters; do
    insmod "/modules/$module" $parameters || echo "init: cannot load $module" >/dev/console
done </modules/order

mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=512000,ro host /host
mount -t tmpfs -o mode=755 rw /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/host,upperdir=/rw/upper,workdir=/rw/work root /new

# The host's own proc, sys, dev and what runs there must not shine through.
mount -t proc proc /new/proc
mount -t sysfs sys /new/sys
mount -t devtmpfs dev /new/dev
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 pts /new/dev/pts
mount -t tmpfs -o mode=1777 shm /new/dev/shm
mount -t tmpfs -o mode=755 run /new/run
mount -t tmpfs -o mode=1777 tmp /new/tmp
mount -t bpf -o mode=700 bpf /new/sys/fs/bpf
mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
mount -t tracefs tracefs /new/sys/kernel/tracing
ifconfig lo up

# The ports come a moment after their driver: control, output, error output.
until [ -e "$1" ] && [ -e "$2" ] && [ -e "$3" ]; do
    usleep 1000
    set -- /dev/vport*p1 /dev/vport*p2 /dev/vport*p3
done
exec 3<>"$1"
export OUT_PORT="$2" ERR_PORT="$3"
echo ready >&3
read -r size <&3
mkdir /new/run/vm
head -c "$size" <&3 >/new/run/vm/job
. /new/run/vm/job

for path in $KEEP; do
    case "$path" in
    /tmp/* | /run/*)
        mkdir -p "/new$path"
        mount --bind "/host$path" "/new$path"
        ;;
    esac
done
modules=/new/lib/modules/$(uname -r)
mkdir -p "$modules"
mount --bind "/host$MODULES" "$modules"
hostname "$HOSTNAME"

cp /bin/busybox /guest.sh /new/run/vm/
exec switch_root /new /run/vm/busybox sh /run/vm/guest.sh

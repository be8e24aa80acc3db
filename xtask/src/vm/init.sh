#!/bin/busybox sh
# Process 1 of the test VM, first half: from the initial RAM disk to the host's root, read-only over 9p
# under a writable overlay. Ends as `switch_root`; the second half is guest.sh.
b=/bin/busybox

fail() {
    echo "finject-vm: $*" >/dev/console
    echo o >/proc/sysrq-trigger
    $b sleep 60
}

$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev

# A distribution's kernel has its drivers as modules; they lie here in the order of their dependencies.
for module in /modules/*.ko; do
    [ -e "$module" ] || continue
    $b insmod "$module" || fail "cannot load $module"
done

# Probing goes on while this runs where the drivers are modules.
tries=0
until $b mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro hostroot /lower 2>/tmp.err; do
    tries=$((tries + 1))
    [ $tries -lt 50 ] || fail "cannot mount the host's root over 9p: $($b cat /tmp.err)"
    $b sleep 0.1
done
$b mount -t tmpfs tmpfs /upper && $b mkdir /upper/files /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /merged ||
    fail "cannot lay an overlay over the host's root"

for directory in proc sys dev run; do
    [ -d /merged/$directory ] || $b mkdir /merged/$directory
done
$b mount -t tmpfs -o mode=755 tmpfs /merged/run
$b mkdir -p /merged/run/lock /merged/run/finject-vm
$b cp -r /bin/busybox /job/. /merged/run/finject-vm/
for directory in proc sys dev; do
    $b mount --move /$directory /merged/$directory
done
exec $b switch_root /merged /run/finject-vm/busybox sh /run/finject-vm/guest.sh

# Process 1 of the test VM, second half: runs the job and speaks with the host over three virtio ports:
# stdout and stderr (the job's), control (guest: "up", "exit N"; host: "report", "off").
# The job's streams each end with the bytes of the file `end`, for a port has no end of file of its own.
dir=/run/finject-vm
b=$dir/busybox

mount_at() {
    [ -d "$2" ] || $b mkdir -p "$2" 2>/dev/null
    $b mount -t "$1" ${3:+-o "$3"} "$1" "$2" 2>/dev/null
}
mount_at devpts /dev/pts ptmxmode=666
mount_at tmpfs /dev/shm mode=1777
mount_at mqueue /dev/mqueue
mount_at debugfs /sys/kernel/debug
mount_at tracefs /sys/kernel/tracing
mount_at securityfs /sys/kernel/security
mount_at bpf /sys/fs/bpf
mount_at cgroup2 /sys/fs/cgroup
$b ln -sf /proc/self/fd /dev/fd
$b ln -sf /proc/self/fd/0 /dev/stdin
$b ln -sf /proc/self/fd/1 /dev/stdout
$b ln -sf /proc/self/fd/2 /dev/stderr
$b ip link set lo up
$b hostname finject-vm
echo "127.0.0.1 finject-vm" >>/etc/hosts

. $dir/settings

# A distribution's kernel finds its modules and its configuration where they would be installed.
if [ -n "$kernel_tree" ]; then
    release=$($b uname -r)
    $b mkdir -p /lib/modules /boot
    $b ln -sfn "$kernel_tree/lib/modules/$release" "/lib/modules/$release"
    $b ln -sfn "$kernel_tree/boot/config-$release" "/boot/config-$release"
fi
if [ -n "$share_out" ]; then
    $b mkdir -p $dir/out
    $b mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=mmap out $dir/out ||
        echo "finject-vm: cannot mount the --out directory" >/dev/console
fi

# The device of a port; its number depends on what else the machine has, its name does not.
port() {
    for port in /sys/class/virtio-ports/*; do
        [ "$($b cat "$port/name" 2>/dev/null)" != "finject.$1" ] || echo "/dev/${port##*/}"
    done
}
tries=0
until [ -n "$(port stdout)" ] && [ -n "$(port stderr)" ] && [ -n "$(port control)" ]; do
    tries=$((tries + 1))
    if [ $tries -ge 100 ]; then
        echo "finject-vm: the ports to the host do not appear" >/dev/console
        echo o >/proc/sysrq-trigger
        $b sleep 60
    fi
    $b sleep 0.1
done
exec 9<>"$(port control)"
echo up >&9

control() {
    while read -r word <&9; do
        case $word in
            off)
                echo o >/proc/sysrq-trigger
                ;;
            report)
                # What is there, and what waits in the kernel: for a job that has run out of time.
                {
                    echo "finject-vm: out of time; the processes:"
                    for process in /proc/[0-9]*; do
                        line=$($b tr '\0' ' ' <"$process/cmdline")
                        [ -z "$line" ] || echo "  ${process#/proc/} [$($b cat "$process/wchan")] $line"
                    done
                } >/dev/console 2>/dev/null
                $b dmesg -n 7
                echo w >/proc/sysrq-trigger
                ;;
        esac
    done
}
control &

# The job writes to pipes, not to the ports: a port cannot be opened twice, as /dev/stdout would.
$b mkfifo $dir/stdout $dir/stderr
pump() {
    $b cat <$dir/"$1" &
    echo $! >$dir/"$1".pid
    wait $!
    $b cat $dir/end
}
pump stdout >"$(port stdout)" 9>&- &
stdout=$!
pump stderr >"$(port stderr)" 9>&- &
stderr=$!

$b setsid $b sh $dir/job.sh </dev/null >$dir/stdout 2>$dir/stderr 9>&- &
wait $!
status=$?

# What the job left running may hold the pipes open: it has two seconds.
{
    $b sleep 2
    kill $($b cat $dir/stdout.pid $dir/stderr.pid)
} 2>/dev/null 9>&- &
wait $stdout
wait $stderr
$b sync
echo "exit $status" >&9

# The host answers "off" once it has everything.
$b sleep 30
echo o >/proc/sysrq-trigger
$b sleep 60

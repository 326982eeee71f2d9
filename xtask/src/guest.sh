# Inside the overlay on the host's root, still as the first process: runs the job and tells its
# exit status. Descriptor 3 is the control channel.
busybox=/run/vm/busybox
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
. /run/vm/job

echo hello >&3
if [ "$CONSOLE" = 1 ]; then
    size() { "$busybox" stty -F /dev/hvc0 rows "$1" cols "$2"; }
    size "$ROWS" "$COLUMNS"
    while read -r rows columns; do size "$rows" "$columns"; done <&3 &
    "$busybox" setsid -c "$busybox" sh -c '. /run/vm/job; job' \
        </dev/hvc0 >/dev/hvc0 2>&1 3>&-
    status=$?
else
    # Pipes, not the ports themselves: a port can be opened once only, and a job may open its
    # /dev/stdout again.
    "$busybox" mkfifo /run/vm/out /run/vm/err
    "$busybox" cat </run/vm/out >/dev/vport0p2 3>&- &
    out=$!
    "$busybox" cat </run/vm/err >/dev/vport0p3 3>&- &
    err=$!
    (job) </dev/null >/run/vm/out 2>/run/vm/err 3>&-
    status=$?
    # What the job left behind would hold the pipes open. Kernel threads have no exe.
    for process in /proc/[0-9]*; do
        pid=${process#/proc/}
        case "$pid" in 1 | "$out" | "$err") continue ;; esac
        [ -e "$process/exe" ] && kill -9 "$pid" 2>/dev/null
    done
    wait "$out" "$err"
fi
echo "exit $status" >&3
# The host ends the machine now.
while :; do "$busybox" sleep 3600; done

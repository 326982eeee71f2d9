# Inside the overlay on the host's root, still as the first process: runs the job and tells its
# exit status. Descriptor 3 is the control channel.
busybox=/run/vm/busybox
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
. /run/vm/job

# The kernel patches its own code when the first socket that wants timestamps comes and when the
# last one goes, which is with each ping; emulated, a CPU in the middle of that code can crash on it
# (kernel 7.3, in netif_rx_internal). One such socket that stays spares all of it.
ping -q -i 3600 127.0.0.1 </dev/null >/dev/null 2>&1 3>&- &

if [ "$CONSOLE" = 1 ]; then
    # Held open from here on: what is typed is lost when a terminal's last user closes it.
    exec 4<>/dev/hvc0
    size() { "$busybox" stty rows "$1" cols "$2" <&4; }
    size "$ROWS" "$COLUMNS"
    echo hello >&3
    while read -r rows columns; do size "$rows" "$columns"; done <&3 &
    "$busybox" setsid -c "$busybox" sh -c '. /run/vm/job; job' <&4 >&4 2>&4 3>&- 4>&-
    status=$?
else
    echo hello >&3
    # Pipes, not the ports themselves: a port can be opened once only, and a job may open its
    # /dev/stdout again.
    "$busybox" mkfifo /run/vm/out /run/vm/err
    "$busybox" cat </run/vm/out >"$OUT_PORT" 3>&- &
    out=$!
    "$busybox" cat </run/vm/err >"$ERR_PORT" 3>&- &
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

# What the servers have in common that run in a Python environment of their own. Sourced by them.
#
# Set before: cache (a folder), venv (the environment), packages (what pip installs), state (the
# path that .pid, .url and .log are appended to), program (a part of the command line by which the
# process is known), health (the path that answers once it is up). `launch PORT` becomes the server.

install() {
    # The stamp is written last: an environment that was half made is made again.
    [ "$(cat "$venv/stamp" 2>/dev/null)" = "$packages" ] && return
    rm -rf "$venv"
    "${PYTHON:-python3}" -m venv "$venv" || {
        echo "no Python environment; on Debian: apt-get install python3-venv" >&2
        exit 1
    }
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$packages" >&2
    printf %s "$packages" >"$venv/stamp"
}

# Only a process that is this very server counts: the pid may be somebody else's by now.
alive() {
    [ -s "$state.pid" ] || return 1
    tr '\0' ' ' 2>/dev/null <"/proc/$(cat "$state.pid")/cmdline" | grep -qF "$program"
}

answers() {
    "$venv/bin/python" - "$1$health" <<'PY' 2>/dev/null
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=2)
PY
}

start() {
    install
    if alive && answers "$(cat "$state.url")"; then
        cat "$state.url"
        return
    fi
    stop
    port=$("$venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    launch "$port" >"$state.log" 2>&1 </dev/null &
    echo $! >"$state.pid"
    url=http://127.0.0.1:$port
    for _ in $(seq 600); do
        # Not `alive`: at first the process is still this script, about to become the server.
        kill -0 "$(cat "$state.pid")" 2>/dev/null || break
        if answers "$url"; then
            echo "$url" | tee "$state.url"
            return
        fi
        sleep 0.1
    done
    echo "$program did not start; its log:" >&2
    tail -20 "$state.log" >&2
    stop
    exit 1
}

stop() {
    if alive; then
        pid=$(cat "$state.pid")
        kill "$pid"
        for _ in $(seq 100); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
    fi
    rm -f "$state.pid" "$state.url"
}

case $verb in
start) start ;;
stop) stop ;;
*) usage ;;
esac

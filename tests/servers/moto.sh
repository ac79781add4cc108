#!/usr/bin/env bash
# The AWS stand-in of the tests: a moto server on the loopback.
#
#   tests/servers/moto.sh start CACHE_DIR [plain|auth]   starts it if it is not running, prints its URL
#   tests/servers/moto.sh stop  CACHE_DIR [plain|auth]   stops what start has started
#
# CACHE_DIR keeps the Python environment (made when missing), the log and the pid. In the mode
# `auth` the server can check signatures and IAM policies; it does so from the moment that
# `POST /moto-api/reset-auth` sets the number of free calls to 0.
set -euo pipefail

MOTO='moto[ec2,iam,server]==5.2.5'

usage() { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
verb=$1
mkdir -p "$2"
cache=$(cd "$2" && pwd)
mode=${3:-plain}
case $mode in plain | auth) ;; *) usage ;; esac

venv=$cache/moto-venv
state=$cache/moto-$mode
python=${PYTHON:-python3}

install() {
    # The stamp is written last: an environment that was half made is made again.
    [ "$(cat "$venv/stamp" 2>/dev/null)" = "$MOTO" ] && return
    rm -rf "$venv"
    "$python" -m venv "$venv" || {
        echo "moto.sh: no Python environment; on Debian: apt-get install python3-venv" >&2
        exit 1
    }
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$MOTO" >&2
    printf %s "$MOTO" >"$venv/stamp"
}

# Only a process that is this very server counts: the pid may be somebody else's by now.
alive() {
    [ -s "$state.pid" ] || return 1
    tr '\0' ' ' 2>/dev/null <"/proc/$(cat "$state.pid")/cmdline" | grep -q "$venv/bin/moto_server"
}

answers() {
    "$venv/bin/python" - "$1" <<'PY' 2>/dev/null
import sys, urllib.request
urllib.request.urlopen(sys.argv[1] + "/moto-api/data.json", timeout=2)
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
    [ "$mode" = auth ] && export INITIAL_NO_AUTH_ACTION_COUNT=1000000000
    nohup "$venv/bin/moto_server" -H 127.0.0.1 -p "$port" >"$state.log" 2>&1 </dev/null &
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
    echo "moto.sh: the server did not start; its log:" >&2
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

#!/usr/bin/env bash
# A real client of RDP through `skyledger console --type rdp`: on demand, for it wants FreeRDP 2 (Debian's
# freerdp2-x11, freerdp2-shadow-x11, winpr-utils), Xvfb, xsetroot and xwd (xvfb, x11-xserver-utils,
# x11-apps) besides what `./test` wants.
#
#   tests/servers/desktop.sh CACHE_DIR      CACHE_DIR as of tests/servers/kvm.sh
#
# The guest is tiny and has no desktop: its port 3389 leads on to a real RDP server beside it, so every byte
# goes from the client through the tunnel and the guest, and back. `target/debug/skyledger` is what is tried
# (PROGRAM in the environment says another).
set -euo pipefail
[ $# = 1 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
program=$(realpath "${PROGRAM:-$here/../../target/debug/skyledger}")
cache=$(cd "$1" && pwd)
host=$("$here/kvm.sh" start "$cache" desktop)
# With the host all ends that runs in it.
trap '[ $? = 0 ] || tail -n 30 "$host"/{console,client,shadow}.log >&2; "$here/kvm.sh" stop "$cache" desktop; rm -f /tmp/.X8[12]-lock /tmp/.X11-unix/X8[12]' EXIT
first=$(cat "$cache/kvm/host-desktop.pid")
first=$(tr -d ' ' <"/proc/$first/task/$first/children")
within() { nsenter --target "$first" --mount --net --pid -- "$@"; }
links() { within ip -br link | grep -c '^skr' || true; }

export SKYLEDGER_SERVER=http://127.0.0.1:7878
within "$program" serve --data "$host/data" --local-host here --libvirt "$host/socket" --token-file "$host/token" >"$host/serve.log" 2>&1 &
for _ in $(seq 300); do
    export SKYLEDGER_TOKEN=$(cat "$host/token" 2>/dev/null)
    ! within "$program" get host here -o json 2>/dev/null | grep -q '"ready"' || break
    sleep 0.1
done
made() { within "$program" create "$@" -o json -f - | sed -n 's/.*"id": *"\([^"]*\)".*/\1/p' | head -n 1; }
within python3 -m http.server --bind 127.0.0.1 --directory "$host" 7879 >/dev/null 2>&1 &
segment=$(made segment <<<'{"name": "lab", "medium": "bridge", "bridge": "lab"}')
network=$(made network <<<"{\"name\": \"front\", \"segment\": \"$segment\", \"v4\": {\"net\": \"10.9.0.0/24\", \"gateway\": \"10.9.0.1\"}}")
image=$(made image <<YAML
name: tiny
source: {url: "http://127.0.0.1:7879/image"}
sha256: $(sha256sum "$host/image" | cut -d ' ' -f 1)
format: raw
size_mib: 48
architecture: x86_64
os: linux
firmware: bios
min_disk_gib: 1
YAML
)
# Where the guest's port leads on to.
within ip address add 10.9.0.1/24 dev lab
within "$program" create server --wait -f - >/dev/null <<YAML
name: desk
spec: {vcpus: 1, memory_mib: 160}
image: $image
disks: [{size_gib: 1}]
nics: [{network: $network}]
userdata: "#!/bin/sh\n(sleep 5; exec nc -ll -p 3389 -e nc 10.9.0.1 3391) </dev/null >/dev/null 2>&1 &\n"
YAML

within Xvfb :81 -noreset -screen 0 800x600x24 >/dev/null 2>&1 &
within Xvfb :82 -noreset -screen 0 1000x800x24 >/dev/null 2>&1 &
hash=$(winpr-hash -u ann -p 'one time' -f sam)
echo "$hash" >"$host/sam"
# Both displays are there; what an earlier run has left of them was taken away by its end.
for _ in $(seq 100); do
    ! DISPLAY=:81 within xsetroot -solid '#2050a0' 2>/dev/null || break
    sleep 0.1
done
DISPLAY=:81 HOME=$host within freerdp-shadow-cli /port:3391 /bind-address:10.9.0.1 /sec:nla "/sam-file:$host/sam" >"$host/shadow.log" 2>&1 &

tunnel() {
    within "$program" console desk --type rdp >"$host/console.log" 2>&1 &
    tunnel=$!
    sleep 1
}
tunnel
client() { DISPLAY=:82 HOME=$host within timeout 60 xfreerdp /v:127.0.0.1:13389 /u:ann "/p:$1" /cert:ignore "${@:2}" </dev/null >"$host/client.log" 2>&1; }
# The guest needs a while until its port is open; each try has a ticket of its own.
for _ in $(seq 30); do
    if client 'one time' +auth-only; then break; fi
    kill -0 "$tunnel" 2>/dev/null || tunnel
    sleep 1
done
client 'one time' +auth-only && echo "the right password: let in"
code=0
client 'another' +auth-only || code=$?
echo "the wrong password: ended with $code"
# 124 is that it took too long.
[ "$code" != 0 ] && [ "$code" != 124 ] || exit 1

client 'one time' /size:800x600 &
# What the client shows of a colour of the desktop, in points. Pictures come compressed, and nearly as they were.
cat >"$host/points.py" <<'PY'
import sys
points, wanted = sys.stdin.buffer.read()[-1000 * 800 * 4 :], bytes.fromhex(sys.argv[1])
near = lambda point: all(abs(seen - part) < 8 for seen, part in zip(point, wanted))
of = {}
for at in range(0, len(points), 4):
    of[points[at : at + 3]] = of.get(points[at : at + 3], 0) + 1
print(sum(count for point, count in of.items() if near(point)))
PY
shown() { # COLOUR, as blue, green, red
    for _ in $(seq 60); do
        seen=$(DISPLAY=:82 within xwd -root -silent | python3 "$host/points.py" "$1")
        [ "$seen" -lt 100000 ] || break
        sleep 0.2
    done
    echo "the client shows $seen points of the desktop; $(links) interface on the host"
    [ "$seen" -ge 100000 ] && [ "$(links)" = 1 ]
}
shown a05020
DISPLAY=:81 within xsetroot -solid '#20a050'
shown 50a020
# The process that has it open is killed: the interface goes with it.
within pkill -KILL -f "serve --data $host/data"
for _ in $(seq 100); do
    [ "$(links)" != 0 ] || break
    sleep 0.1
done
[ "$(links)" = 0 ] || exit 1
echo "killed: nothing is left on the host"

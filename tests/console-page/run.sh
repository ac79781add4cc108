#!/usr/bin/env bash
# The page of consoles: what it reads and sends by itself, and then in a real browser before guests on a
# real QEMU. On demand, for it wants Node 20 and Chromium besides what `./test` wants.
#
#   tests/console-page/run.sh CACHE_DIR FOLDER      CACHE_DIR as of tests/servers/kvm.sh
#
# `target/debug/skyledger` is what is tried (PROGRAM in the environment says another). Pictures of the page come
# into FOLDER.
set -euo pipefail
[ $# = 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
program=$(realpath "${PROGRAM:-$here/../../target/debug/skyledger}")
mkdir -p "$2"
out=$(cd "$2" && pwd)
cache=$(cd "$1" && pwd)
node --test "$here/decoders.mjs"

host=$("$here/../servers/kvm.sh" start "$cache" console-page)
# With the host all ends that runs in it.
trap '"$here/../servers/kvm.sh" stop "$cache" console-page' EXIT

# Whoever is in the host's namespaces reaches the server and libvirt's sockets.
first=$(cat "$cache/kvm/host-console-page.pid")
first=$(tr -d ' ' <"/proc/$first/task/$first/children")
within() { nsenter --target "$first" --mount --net --pid -- "$@"; }

# A disk of one sector that shows on the screen which keys are pressed, by the BIOS alone.
printf '\x30\xe4\xcd\x16\xb4\x0e\xcd\x10\xeb\xf6' >"$host/keys.img"
truncate -s 510 "$host/keys.img"
printf '\x55\xaa' >>"$host/keys.img"
truncate -s 1M "$host/keys.img"

export SKYLEDGER_SERVER=http://127.0.0.1:7878
within "$program" serve --data "$host/data" --local-host here --libvirt "$host/socket" --token-file "$host/token" >"$host/serve.log" 2>&1 &
for _ in $(seq 300); do
    export SKYLEDGER_TOKEN=$(cat "$host/token" 2>/dev/null)
    ! within "$program" get host here -o json 2>/dev/null | grep -q '"ready"' || break
    sleep 0.1
done
image() { # NAME FILE
    within "$program" create image -o json -f - <<YAML | sed -n 's/.*"id": *"\([^"]*\)".*/\1/p' | head -n 1
name: $1
source: {url: "http://127.0.0.1:7879/$(basename "$2")"}
sha256: $(sha256sum "$2" | cut -d ' ' -f 1)
format: raw
size_mib: 48
architecture: x86_64
os: linux
firmware: bios
min_disk_gib: 1
YAML
}
within python3 -m http.server --bind 127.0.0.1 --directory "$host" 7879 >/dev/null 2>&1 &
server() { # NAME IMAGE MORE
    within "$program" create server --wait -f - >/dev/null <<YAML
name: $1
spec: {vcpus: 1, memory_mib: 160}
image: $2
disks: [{size_gib: 1}]
$3
YAML
}
server keys "$(image keys "$host/keys.img")" ""
server line "$(image line "$host/image")" 'userdata: "#!/bin/sh\n(while :; do setsid getty -n -l /bin/sh 115200 ttyS0; done) </dev/null >/dev/null 2>&1 &\n"'
within node "$here/browser.mjs" "$(command -v chromium)" "$program" "$out"
! grep -i 'ticket=\|ticket\.' "$host/serve.log" || { echo "the server's log has a ticket" >&2; exit 1; }

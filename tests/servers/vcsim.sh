#!/usr/bin/env bash
# The vCenter stand-in of the tests: govmomi's simulator behind a front of ours (tests/servers/vcsim/main.go).
#
#   tests/servers/vcsim.sh build CACHE_DIR   builds it if it is not built, prints its program's path
#
# Go and govmomi are Debian packages, installed when they are missing (as root). Status 3 when they are not to be
# had. Tests start the program themselves, each its own one.
set -euo pipefail

usage() { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# = 2 ] && [ "$1" = build ] || usage
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$2"
cache=$(cd "$2" && pwd)
program=$cache/vcsim
stamp=$(sha256sum <"$here/vcsim/main.go")
if [ -x "$program" ] && [ "$(cat "$program.stamp" 2>/dev/null)" = "$stamp" ]; then
    echo "$program"
    exit 0
fi
missing=()
command -v go >/dev/null || missing+=(golang-go)
[ -d /usr/share/gocode/src/github.com/vmware/govmomi/simulator ] || missing+=(golang-github-vmware-govmomi-dev)
if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
        echo "these packages are missing: ${missing[*]}" >&2
        exit 3
    fi
    echo "test: installing ${missing[*]}" >&2
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq --yes install --no-install-recommends \
        "${missing[@]}"; } >"$cache/apt-go.log" 2>&1 || { tail -n 3 "$cache/apt-go.log" >&2; exit 3; }
fi
echo "test: building the stand-in for vCenter" >&2
cd "$here/vcsim"
# Debian has the sources of Go's packages in a folder, and no modules.
GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$cache/go-cache GOFLAGS=-p=2 \
    go build -o "$program.new" main.go >"$cache/vcsim-build.log" 2>&1 ||
    { tail -n 20 "$cache/vcsim-build.log" >&2; exit 1; }
mv "$program.new" "$program"
printf %s "$stamp" >"$program.stamp"
echo "$program"

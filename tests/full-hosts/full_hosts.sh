#!/usr/bin/env bash
# What no other test shows, for the machine's kernel cannot do it: devices that are passed through (cells, IOMMU
# groups, virtual functions, mediated devices, USB), volumes that hosts share (lvmlockd with sanlock), and a folder
# that they share (NFS). Whole Debian systems run under QEMU without KVM, with our agent in each; the server runs
# on the loopback, and all is asked for by the command line. On demand, as root, on Debian; a run takes half an hour or more.
#
#   tests/full-hosts/full_hosts.sh [devices] [volumes] [nfs]
#
#   SKYLEDGER_CACHE      where the root file system is kept (about 1 GB); default: in cargo's target
#   SKYLEDGER_PROGRAM    the program; default: target/debug/skyledger, which is built
#   FULL_HOSTS_PATIENCE  how many seconds a host or an order may take; default: 900
#   FULL_HOSTS_KEEP      leave the hosts running when something failed, until a line comes
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
[ "$(id -u)" = 0 ] || { echo "full_hosts.sh: as root" >&2; exit 3; }
command -v mmdebstrap >/dev/null || {
    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq --yes install --no-install-recommends mmdebstrap
} >&2
target=${CARGO_TARGET_DIR:-target}
cache=$("$here/root.sh" "${SKYLEDGER_CACHE:-$target/test-servers}")
program=${SKYLEDGER_PROGRAM:-}
if [ -z "$program" ]; then
    cargo build --quiet --bin skyledger
    program=$target/debug/skyledger
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# It goes onto the hosts: without what debuggers want.
strip -o "$folder/skyledger" "$program"
PYTHONDONTWRITEBYTECODE=1 python3 "$here/run.py" "$folder/skyledger" "$cache" "$@"

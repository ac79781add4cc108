#!/usr/bin/env bash
# Whether the real cloud-init runs userdata as servers are promised, in a small Debian of its own: what comes once,
# comes once, also after another boot; what comes with every boot, comes with each. On demand, as root: it comes
# from the Debian archive, and nothing of it starts but cloud-init, in namespaces of its own.
#
#   tests/servers/cloud_init_runs.sh CACHE_DIR
set -euo pipefail
[ $# = 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")/../.." && pwd)
golden=$here/domain/src/compute/userdata/golden
mkdir -p "$1"
cache=$(cd "$1" && pwd)/cloud-init-runs
mkdir -p "$cache"
command -v mmdebstrap >/dev/null || {
    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq --yes install --no-install-recommends mmdebstrap
}
if [ ! -s "$cache/root.tar" ]; then
    mmdebstrap --quiet --variant=essential --include=cloud-init,iproute2,openssh-server,sudo bookworm "$cache/part.tar"
    mv "$cache/part.tar" "$cache/root.tar"
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# A boot, as far as cloud-init is part of it.
boots() { # ROOT
    rm -rf "$1/run/cloud-init"
    unshare --mount --pid --net --uts --ipc --fork --kill-child --propagation private \
        sh -c 'mount -t proc proc "$1/proc" && mount -t tmpfs tmpfs "$1/dev" && for node in null zero urandom random tty; do
            : >"$1/dev/$node" && mount --bind "/dev/$node" "$1/dev/$node"
        done
        exec chroot "$1" sh -c "cloud-init init --local && cloud-init init && cloud-init modules --mode=config && cloud-init modules --mode=final"' \
        sh "$1" >"$scratch/said" 2>&1 || { cat "$scratch/said" >&2; exit 1; }
}

# A server that has never been started, with this userdata.
server() { # ROOT USERDATA
    mkdir "$1"
    tar -C "$1" --exclude=./dev/* -xf "$cache/root.tar"
    seed=$1/var/lib/cloud/seed/nocloud
    mkdir -p "$seed" "$1/srv"
    cp "$golden/meta-data" "$seed/"
    cp "$golden/$2" "$seed/user-data"
    printf 'datasource_list: [NoCloud]\nnetwork: {config: disabled}\nlocale: false\n' >"$1/etc/cloud/cloud.cfg.d/99-test.cfg"
}

is() { # ROOT WHAT WANTED…
    local found wanted
    found=$(cat "$1/srv/$2" 2>/dev/null) || true
    wanted=$(printf '%s\n' "${@:3}")
    [ "$found" = "$wanted" ] || { echo "$1: $2 is [$found], and was to be [$wanted]" >&2; cat "$scratch/said" >&2; exit 1; }
}

server "$scratch/script" script
boots "$scratch/script"
is "$scratch/script" ran script
boots "$scratch/script"
is "$scratch/script" ran script
name=$(sed -n 's/.*"local-hostname": *"\([^"]*\)".*/\1/p' "$golden/meta-data")
[ "$(cat "$scratch/script/etc/hostname")" = "${name%%.*}" ] || { echo "it is called $(cat "$scratch/script/etc/hostname")" >&2; exit 1; }
key=$(sed -n 's/.*"\(ssh-[^ ]* [^ "]*\).*/\1/p' "$golden/meta-data" | head -1)
grep -rqsF "$key" "$scratch/script/home" || { echo "nobody may log in with $key" >&2; exit 1; }

server "$scratch/cloud-config" cloud-config
boots "$scratch/cloud-config"
is "$scratch/cloud-config" written "by a cloud-config"
is "$scratch/cloud-config" ran cloud-config
boots "$scratch/cloud-config"
is "$scratch/cloud-config" ran cloud-config

server "$scratch/multipart" multipart
boots "$scratch/multipart"
is "$scratch/multipart" written "by a part"
LC_ALL=C sort -o "$scratch/multipart/srv/ran" "$scratch/multipart/srv/ran"
is "$scratch/multipart" ran "every boot" first
boots "$scratch/multipart"
LC_ALL=C sort -o "$scratch/multipart/srv/ran" "$scratch/multipart/srv/ran"
is "$scratch/multipart" ran "every boot" "every boot" first
echo "cloud-init $(chroot "$scratch/script" cloud-init --version 2>&1 | sed "s/.* //") has run a script, a cloud-config and a message of several parts"

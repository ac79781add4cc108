#!/usr/bin/env bash
# Whether the real cloud-init understands what servers read at their first boot: on demand, for it comes
# from the Debian archive and PyPI. It reads the documents of the domain's tests and installs nothing
# but into CACHE_DIR.
#
#   tests/servers/cloud_init.sh CACHE_DIR
set -euo pipefail
[ $# = 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1"
cache=$(cd "$1" && pwd)/cloud-init
mkdir -p "$cache"
if [ ! -d "$cache/package/usr" ]; then
    (cd "$cache" && apt-get download -qq -o APT::Sandbox::User=root cloud-init && dpkg-deb -x cloud-init_*.deb package)
fi
[ -x "$cache/venv/bin/python" ] || python3 -m venv "$cache/venv"
"$cache/venv/bin/pip" install --quiet --disable-pip-version-check \
    configobj jinja2 jsonpatch jsonschema netifaces oauthlib pyserial pyyaml requests
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
PYTHONPATH=$cache/package/usr/lib/python3/dist-packages \
    "$cache/venv/bin/python" "$here/tests/servers/cloud_init.py" "$here/domain/src/compute/userdata/golden" "$scratch"

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

usage() { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
verb=$1
mkdir -p "$2"
cache=$(cd "$2" && pwd)
mode=${3:-plain}
case $mode in plain | auth) ;; *) usage ;; esac

packages='moto[ec2,iam,server]==5.2.5'
venv=$cache/moto-venv
state=$cache/moto-$mode
program=$venv/bin/moto_server
health=/moto-api/data.json

launch() {
    [ "$mode" = auth ] && export INITIAL_NO_AUTH_ACTION_COUNT=1000000000
    exec nohup "$program" -H 127.0.0.1 -p "$1"
}

. "$(dirname "$0")/python_server.sh"

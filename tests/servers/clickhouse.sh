#!/usr/bin/env bash
# ClickHouse for the tests: its engine, which runs inside Python (chdb), behind its HTTP interface.
#
#   tests/servers/clickhouse.sh start CACHE_DIR   starts it if it is not running, prints its URL
#   tests/servers/clickhouse.sh stop  CACHE_DIR   stops what start has started
#
# CACHE_DIR keeps the Python environment (made when missing), the log, the pid and, while it runs,
# what is in it: a start begins with nothing.
set -euo pipefail

usage() { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -eq 2 ] || usage
verb=$1
mkdir -p "$2"
cache=$(cd "$2" && pwd)
here=$(cd "$(dirname "$0")" && pwd)

packages='chdb==4.4.0'
venv=$cache/chdb-venv
state=$cache/clickhouse
program=$here/clickhouse_http.py
health=/

launch() {
    rm -rf "$state.data"
    mkdir "$state.data"
    exec nohup "$venv/bin/python" "$program" 127.0.0.1 "$1" "$state.data"
}

. "$here/python_server.sh"

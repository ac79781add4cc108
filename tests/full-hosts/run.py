"""What only a whole Linux host shows: devices that are passed through, volumes that hosts share, and an NFS server.

Run by full_hosts.sh. Every check prints one line; the exit status says whether one failed.
"""

import os
import signal
import sys

from hosts import Checks, Server, clear, scratch_folder

import devices
import nfs
import volumes

PARTS = {"devices": devices.check, "volumes": volumes.check, "nfs": nfs.check}

program, cache, *asked = sys.argv[1:]
# Told to end, it clears up as well.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
checks = Checks()
scratch = scratch_folder()
hosts = []
server = None
try:
    server = Server(program, scratch)
    for part in asked or PARTS:
        PARTS[part](checks, server, hosts, cache, scratch)
finally:
    if checks.failed() and os.environ.get("FULL_HOSTS_KEEP"):
        print(f"kept: {scratch}; hosts run until a line comes", flush=True)
        sys.stdin.readline()
    for host in hosts:
        host.kill()
    if server:
        server.stop()
    clear(scratch)
sys.exit(1 if checks.end() else 0)

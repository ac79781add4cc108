"""A folder of a real NFS server that two hosts have mounted: who may have a disk there, what a server's disk is on
its way between them, and what becomes of everything while the file server, or a host, is away."""

import json
import os
import time
import uuid

from hosts import Failed, Host, until
from volumes import expect

FOLDER = "/mnt/nas"
# How long the file server keeps what a client had that is not heard any more.
LEASE = 15
# How long the file server is away.
AWAY = 45

EXPORT = f"""
# QEMU, which is a user of its own, has to get to the files.
umask 022
mkdir -p /srv/nas /run/rpc_pipefs /proc/fs/nfsd
modprobe nfsd
mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd
mountpoint -q /run/rpc_pipefs || mount -t rpc_pipefs sunrpc /run/rpc_pipefs
echo {LEASE} >/proc/fs/nfsd/nfsv4leasetime
echo {LEASE} >/proc/fs/nfsd/nfsv4gracetime
# What it is known by to whom after a restart: clients have their locks again.
nfsdcld >/dev/null 2>&1 </dev/null
exportfs -o rw,sync,no_subtree_check,no_root_squash,fsid=0 10.99.0.0/24:/srv/nas
rpc.mountd -N 3 >/dev/null 2>&1 </dev/null
rpc.nfsd -N 3 4
cat /proc/fs/nfsd/threads /proc/fs/nfsd/versions
"""
MOUNT = f"umask 022; mkdir -p {FOLDER} && mount -t nfs4 -o vers=4.2,hard 10.99.0.3:/ {FOLDER} && stat -f -c %T {FOLDER}"
# Numbers, one a second, each on the medium before the next; the last one that is there is in a file.
WRITER = """
(i=0; while :; do i=$((i+1))
printf '%08d\\n' $i | dd of=/dev/vdb bs=512 seek=$((4096+i)) conv=sync,fsync,notrunc 2>/dev/null && echo $i >/tmp/last
sleep 1; done) >/dev/null 2>&1 </dev/null &
"""


def check(checks, server, hosts, cache, scratch):
    """All of it, on two hosts and a file server that is a third machine."""
    for host in hosts:
        host.kill()
    hosts.clear()
    port = server.port + 1
    def made(number, wires):
        return Host(cache, os.path.join(scratch, "nas"), server.program, number, wires=wires)
    # The file server has a wire to each, and joins them.
    nas = made(3, [("listen", port), ("listen", port + 1)])
    one, two = made(1, [("connect", port)]), made(2, [("connect", port + 1)])
    hosts.extend([nas, one, two])
    pair = [one, two]
    nas.start()
    time.sleep(2)
    for host in pair:
        host.start()
    if checks.that("three whole Debians come up", lambda: [host.up() for host in hosts]) is None:
        return
    storage = str(uuid.uuid4())

    def exported():
        nas.run(
            "other=$(grep -l 52:54:00:99:03:03 /sys/class/net/*/address | cut -d/ -f5); "
            "ip link add br0 type bridge; ip address del 10.99.0.3/24 dev wire; "
            "for card in wire $other; do ip link set $card master br0 up; done; "
            "ip link set br0 up; ip address add 10.99.0.3/24 dev br0"
        )
        said = nas.run(EXPORT)
        kind = one.run(MOUNT)
        one.run(f"umask 022; echo {storage} >{FOLDER}/skyledger-storage && mkdir -p {FOLDER}/disks")
        two.run(f"mkdir -p {FOLDER}")
        return expect("it is NFS, version 4.2", kind == "nfs" and "+4.2" in said, [said, kind])

    if checks.that("a kernel's NFS server exports a folder, and the first host mounts it", exported) is None:
        return

    def begin(host):
        address = f"10.99.0.{host.number}"
        host.begin_agent(
            server, f"--storage {FOLDER}", f"--migration-uri qemu+tcp://{address}/system",
            f"--migration-address tcp://{address}",
        )

    def has(host):
        row = server.json("get", "host", host.name)
        return row["status"] == "ready" and storage in (row["state"]["seen"].get("storages") or [])

    def ready():
        for host in pair:
            if server.run("get", "host", host.name)[0] != 0:
                server.json("create", "host", "--set", f"name={host.name}")
            begin(host)
        until("the first has the storage", lambda: has(one))
        server.awaited("host", two.name, "ready")
        return expect("the second has not", not has(two), storage)

    if checks.that("agents join; the first has the storage and the second, without a mount, has not", ready) is None:
        print(one.run("tail -n 20 /var/log/skyledger-agent", check=False)[1])
        return
    ids = {host.name: server.json("get", "host", host.name)["id"] for host in pair}

    def refused():
        code, out, err = server.run("create", "server", body={
            "name": "no", "spec": {"vcpus": 1, "memory_mib": 96}, "disks": [{"size_gib": 1, "storage": storage}],
            "wishes": {"only": [ids[two.name]]},
        })
        return expect("refused: no-room", code == 5 and "no-room" in out + err, [code, out + err])

    checks.that("a server with a disk there is refused on the second", refused)

    def mounted():
        two.run(MOUNT)
        two.run("kill $(cat /run/agent.pid); while kill -0 $(cat /run/agent.pid) 2>/dev/null; do sleep 0.2; done")
        begin(two)
        return until("the second has it", lambda: has(two))

    if checks.that("mounted there as well, both have it", mounted) is None:
        return

    two.bring_guest()
    digest, size_mib = one.bring_guest()
    image = server.json("create", "image", body={
        "name": "tiny-nas", "source": "upload", "sha256": digest, "format": "raw", "size_mib": size_mib,
        "architecture": "x86_64", "os": "linux", "firmware": "bios", "min_disk_gib": 1,
    })["id"]

    def told(verb, host):
        code, out, err = server.run("do", "host", verb, host.name)
        return expect(verb, code == 0, out + err)

    def launched():
        # Where it goes is not asked for, so that it may go elsewhere later.
        told("disable", two)
        row = server.json("create", "server", body={
            "name": "sailor", "image": image, "spec": {"vcpus": 1, "memory_mib": 160},
            "disks": [{"size_gib": 1, "storage": storage}, {"size_gib": 1, "storage": storage}],
        })
        server.awaited("server", "sailor", "running")
        told("enable", two)
        return row["id"]

    server_id = checks.that("a server with both disks on NFS is launched on the first", launched)
    if server_id is None:
        print(one.run("tail -n 30 /var/log/skyledger-agent", check=False)[1])
        return
    domain = f"sk-{server_id}"
    disk = server.json("get", "server", "sailor")["state"]["home"]["parts"]["disks"][1]["id"]
    file = f"{FOLDER}/disks/{disk}.qcow2"

    def bytes_there():
        said = one.in_guest(domain, (
            "dd if=/dev/urandom of=/dev/vdb bs=64k count=16 conv=fsync 2>/dev/null; "
            "dd if=/dev/vdb bs=64k count=16 2>/dev/null | sha256sum"
        ))
        digest = said.split()[0]
        read = two.run(
            f"qemu-img convert -U -f qcow2 -O raw {file} /tmp/read && head -c 1048576 /tmp/read | sha256sum; rm /tmp/read"
        )
        return expect("the same bytes on the second host", read.split()[0] == digest, [digest, read])

    checks.that("what the guest writes is read on the other host, byte for byte", bytes_there)

    def locked():
        code, said = two.run(f"qemu-img info {file}", check=False)
        return expect("its lock is known there", code != 0 and "lock" in said, said)

    checks.that("QEMU's lock of it holds on the other host", locked)

    def through(*words):
        code, out, err = server.run(*words)
        return expect("ordered", code == 0, out + err)

    def snapshot():
        through("create", "snapshot", "--wait", "--set", "name=before", "--set", f"disk={disk}")
        said = two.run(f"qemu-img snapshot -U -l {file}")
        expect("one in the file", len(said.splitlines()) == 3, said)
        through("do", "snapshot", "delete", "before", "--wait")
        said = two.run(f"qemu-img snapshot -U -l {file}")
        return expect("none in the file", not said, said) or True

    checks.that("a snapshot of a disk is taken and removed while it runs", snapshot)

    def grown():
        through("do", "disk", "grow", disk, "--set", "size_gib=2")
        until("the order is through", lambda: not server.json("get", "disk", disk).get("order"), 300)
        return until("the guest knows", lambda: one.in_guest(domain, "cat /sys/block/vdb/size") == str(2 << 21), 120)

    checks.that("a disk grows while it runs", grown)

    def runs_on():
        names = [host.run("virsh -q list --name").split() for host in pair]
        return [domain in names_of for names_of in names]

    def last(host):
        return int(host.in_guest(domain, "cat /tmp/last"))

    def whole(host):
        """Every number that the guest was told is on its disk is there, read past what it remembers."""
        count = last(host)
        said = host.in_guest(domain, (
            "echo 3 >/proc/sys/vm/drop_caches; "
            f"dd if=/dev/vdb bs=512 skip=4097 count={count} 2>/dev/null | tr -d '\\000' | sort -u | wc -l"
        ))
        return expect("no number is missing", int(said) == count, [said, count])

    checks.that("the guest begins to write, a number a second", lambda: (
        one.in_guest(domain, WRITER), until("it counts", lambda: last(one) > 2, 300)
    ))

    def moved(to):
        before = last(two if to is one else one)
        through("do", "server", "migrate", "sailor", "--set", f"to={ids[to.name]}")
        row = server.awaited("server", "sailor", "running", 1200)
        host = row["state"]["home"]["placement"]["host"]
        expect("it is there", host == ids[to.name], host)
        expect("it runs there alone", runs_on() == [to is one, to is two], runs_on())
        until("it goes on counting", lambda: last(to) > before + 2, 300)
        return whole(to)

    for to, what in [(two, "it goes live to the second over NFS, writing"), (one, "and live back to the first")]:
        if checks.that(what, lambda to=to: moved(to)) is None:
            for host in pair:
                print(host.run("tail -n 12 /var/log/skyledger-agent", check=False)[1])

    def away():
        nas.run("rpc.nfsd 0")
        began = time.monotonic()
        until("it stands still", lambda: last(one) == (time.sleep(6), last(one))[1], 120, 0.1)
        stands = last(one)
        # What has nothing to do with NFS goes on.
        server.json("create", "server", body={
            "name": "ashore", "spec": {"vcpus": 1, "memory_mib": 64}, "disks": [{"size_gib": 1}],
            "wishes": {"only": [ids[one.name]]},
        })
        server.awaited("server", "ashore", "running", 300)
        took = time.monotonic() - began
        said = one.run("tail -n 200 /var/log/skyledger-agent")
        expect("the agent says what does not answer", f"{FOLDER} does not answer" in said, said)
        until("and has not the storage", lambda: not has(one), 400)
        time.sleep(max(0, AWAY - (time.monotonic() - began)))
        expect("the guest still waits", last(one) <= stands + 1, [stands, last(one)])
        gone = time.monotonic() - began
        nas.run("rpc.nfsd -N 3 4")
        until("it goes on counting", lambda: last(one) > stands + 3, 300)
        back = time.monotonic() - began - gone
        whole(one)
        return f"away for {gone:.0f} s; a server elsewhere ran after {took:.0f} s; the guest wrote again after {back:.0f} s"

    after = checks.that("the file server is away: the guest waits, the host goes on with others, nothing is lost", away)
    if after:
        print(f"           {after}", flush=True)
    else:
        nas.run("rpc.nfsd -N 3 4", check=False)
        print(one.run("tail -n 20 /var/log/skyledger-agent", check=False)[1])
    checks.that("the first has the storage again by itself", lambda: until("it has", lambda: has(one), 400))

    def removed():
        for words in (["delete", "ashore", "--set", "stop=true"], ["purge", "ashore"]):
            until(words[0], lambda words=words: server.run("do", "server", *words)[0] == 0)
        return until("it is gone", lambda: domain == one.run("virsh -q list --all --name").strip(), 300)

    checks.that("the other server is removed", removed)

    def dead():
        one.kill()
        began = time.monotonic()
        until("the host is not heard", lambda: "unreachable" in json.dumps(
            server.json("get", "host", one.name)["state"]), 400, 5.0)
        def evacuated():
            code, out, err = server.run("do", "server", "evacuate", "sailor", "--set", "host_is_down=true")
            return expect("ordered", code == 0, out + err)
        until("evacuate", evacuated, 400, 5.0)
        server.awaited("server", "sailor", "running", 900)
        took = time.monotonic() - began
        expect("on the second", domain in two.run("virsh -q list --name").split(), None)
        # The dead one's writer is on the disk up to where it died.
        said = two.in_guest(domain, "dd if=/dev/vdb bs=512 skip=4097 count=2000 2>/dev/null | tr -d '\\000' | sort -u | wc -l")
        expect("what was written is there", int(said) > 10, said)
        return f"{took:.0f} s"

    after = checks.that("the first's power is cut; the second has its server back", dead)
    if after is None:
        print(two.run("tail -n 20 /var/log/skyledger-agent", check=False)[1])
        return
    print(f"           after {after}", flush=True)

    def back():
        one.start()
        one.up()
        one.run(MOUNT)
        begin(one)
        until("nothing of it is left there", lambda: one.run("virsh -q list --all --name") == "", 600)
        until("the first is ready", lambda: has(one), 400)
        expect("it runs once", runs_on() == [False, True], runs_on())
        status = server.json("get", "server", "sailor")["status"]
        return expect("and is running", status == "running", status)

    if checks.that("power comes back: the first has nothing of it any more, and exactly one runs", back) is None:
        raise Failed(one.run("tail -n 20 /var/log/skyledger-agent", check=False)[1])

"""A volume group that two hosts share, locked by lvmlockd with sanlock: who may have a volume, and when it changes
hands; its snapshots, by the kernel's device-mapper; and what an 802.1Q interface of the host carries."""

import json
import os
import time
import uuid

from hosts import Failed, Host, until

GROUP, LUN = "san", "/dev/disk/by-id/virtio-SANLUN1"
# sanlock gives a dead host's leases to others after that, with its own time-outs and a slow machine.
DEAD = 600


def expect(what, is_so, seen):
    """Raises with what was seen where it is not so."""
    if not is_so:
        raise Failed(f"{what}; seen: {str(seen)[-600:]}")
    return seen


def check(checks, server, hosts, cache, scratch):
    """All of it, on two hosts."""
    for host in hosts:
        host.kill()
    hosts.clear()
    san = os.path.join(scratch, "san.raw")
    with open(san, "wb") as file:
        file.truncate(9 << 30)
    for number, how in ((1, "listen"), (2, "connect")):
        wires = [(how, server.port + 1)]
        hosts.append(Host(cache, os.path.join(scratch, "pair"), server.program, number, san, wires))
    one, two = hosts
    one.start()
    time.sleep(2)
    two.start()
    if checks.that("two whole Debians come up with one LUN", lambda: (one.up(), two.up())) is None:
        return
    storage = str(uuid.uuid4())

    def group():
        # Some of it is refused until udev has seen what went before.
        def locked(host):
            code, said = host.run(f"vgchange --lockstart {GROUP} && vgs {GROUP}", check=False)
            return expect("locks begin", code == 0, said)
        one.run(f"udevadm settle; vgcreate -y --shared {GROUP} {LUN}", 600)
        until("locks begin", lambda: locked(one), 300, 5.0)
        one.run(f"vgchange --addtag skyledger-storage={storage} {GROUP}")
        return until("locks begin", lambda: locked(two), 300, 5.0)

    if checks.that("vgcreate --shared, and both lock it", group) is None:
        return

    def ready():
        # Placement knows of a bridge what an agent's first look found.
        two.run(
            "ip link add br0 type bridge; ip link set wire master br0; ip link set br0 up; ip address del "
            "10.99.0.2/24 dev wire; ip address add 10.99.0.2/24 dev br0"
        )
        rows = []
        for host in hosts:
            if server.run("get", "host", host.name)[0] != 0:
                server.json("create", "host", "--set", f"name={host.name}")
            address = f"10.99.0.{host.number}"
            host.begin_agent(
                server, f"--volume-group {GROUP}", f"--migration-uri qemu+tcp://{address}/system",
                f"--migration-address tcp://{address}",
            )
        for host in hosts:
            row = until(
                "its group is seen",
                lambda host=host: (seen := server.json("get", "host", host.name))["status"] == "ready"
                and storage in (seen["state"]["seen"].get("volume_groups") or {}) and seen,
            )
            rows.append(row["state"]["seen"]["volume_groups"][storage])
        return expect("locked by sanlock", all(row["lock"] == "sanlock" for row in rows), rows)

    if checks.that("agents join, and both say that sanlock locks the group", ready) is None:
        print(one.run("tail -n 20 /var/log/skyledger-agent", check=False)[1])
        return

    two.bring_guest()
    digest, size_mib = one.bring_guest()
    image = server.json("create", "image", body={
        "name": "tiny-shared", "source": "upload", "sha256": digest, "format": "raw", "size_mib": size_mib,
        "architecture": "x86_64", "os": "linux", "firmware": "bios", "min_disk_gib": 1,
    })["id"]
    ids = {host.name: server.json("get", "host", host.name)["id"] for host in hosts}

    def told(verb, host):
        code, out, err = server.run("do", "host", verb, host.name)
        return expect(verb, code == 0, out + err)

    def launched():
        # Where it goes is not asked for, so that it may go elsewhere later.
        told("disable", two)
        row = server.json("create", "server", body={
            "name": "roam", "image": image, "spec": {"vcpus": 1, "memory_mib": 160},
            "disks": [{"size_gib": 1, "format": "raw", "storage": storage}],
        })
        server.awaited("server", "roam", "running")
        told("enable", two)
        return row["id"]

    server_id = checks.that("a server with its root disk in the group is launched on the first", launched)
    if server_id is None:
        print(one.run("tail -n 30 /var/log/skyledger-agent", check=False)[1])
        return
    disk = server.json("get", "server", "roam")["state"]["home"]["parts"]["disks"][0]["id"]
    volume = f"{GROUP}/sk-{disk}"

    def is_active(host):
        return host.run(f"lvs --noheadings -o lv_active {volume}", check=False)[1].strip()

    def exclusive():
        expect("active on the first", is_active(one).startswith("active"), is_active(one))
        code, said = two.run(f"lvchange -aey {volume}", check=False)
        expect("the second is refused by LVM", code != 0 and "locked by other host" in said, said)
        leases = server.json("get", "disk", disk)["state"]
        return expect("the lease is the first host's", ids[one.name] in json.dumps(leases), leases)

    checks.that("its volume is active there alone, and LVM refuses it to the second", exclusive)

    def grown():
        def order():
            code, out, err = server.run("do", "disk", "grow", disk, "--set", "size_gib=2")
            return expect("ordered", code == 0, out + err)
        order()
        def size():
            return one.run(f"blockdev --getsize64 /dev/{volume}") == str(2 << 30)
        until("it is larger", size, 300)
        until("the order is through", lambda: not server.json("get", "disk", disk).get("order"), 300)
        said = one.run(f"virsh -q domblkinfo sk-{server_id} vda | head -n 1").split()[-1]
        return expect("QEMU knows", said == str(2 << 30), said)

    checks.that("a volume grows while its server runs", grown)
    domain = f"sk-{server_id}"

    def through(*words):
        """What is ordered is done as well, however long that takes here."""
        code, out, err = server.run(*words)
        expect(f"{words[:3]} is ordered", code == 0, out + err)
        named = [word.removeprefix("name=") for word in words if word.startswith("name=")]
        kind, name = words[1], words[3] if words[0] == "do" else named[0]
        ends = time.monotonic() + DEAD
        while True:
            row = server.json("get", kind, name, "--show-gone")
            out = (row[0] if isinstance(row, list) else row).get("order")
            if not out:
                return True
            if out.get("parked") or time.monotonic() > ends:
                raise Failed(f"{words[:3]} is not through: {json.dumps(out)[-600:]}")
            time.sleep(1)

    def refused(why, *words):
        code, out, err = server.run(*words)
        return expect(f"{words[:3]} is refused: {why}", code != 0 and why in out + err, [code, out + err])

    def added(name, **more):
        body = {"name": name, "server": server_id, "format": "raw", "storage": storage, **more}
        return server.json("create", "disk", body=body)["id"]

    def device(of):
        """The device that the guest has a disk as, in words of its shell: what is plugged in is behind the seed."""
        serial = of.replace("-", "")[:20]
        return f"/dev/$(grep -l {serial} /sys/block/*/serial | cut -d/ -f4)"

    def written(host):
        """Something else than before is on its second disk; what it is known by."""
        host.in_guest(domain, f"dd if=/dev/urandom of={device(data)} bs=64k count=16 conv=fsync 2>/dev/null")
        return guest_has(host, data)

    def guest_has(host, of):
        return host.in_guest(domain, (
            f"echo 3 >/proc/sys/vm/drop_caches; dd if={device(of)} bs=64k count=16 2>/dev/null | sha256sum"
        )).split()[0]

    def host_has(host, name):
        # Past what the host remembers.
        return host.run(f"dd if=/dev/{GROUP}/{name} bs=1M count=1 iflag=direct 2>/dev/null | sha256sum").split()[0]

    def snapshots(host):
        """Each snapshot of the group and whose it is, as LVM says."""
        said = host.run(f"lvs --noheadings -o lv_name,origin -S 'origin!=\"\"' {GROUP}")
        return [line.split() for line in said.splitlines()]

    def ours(host):
        """Those of our volumes that a host has active, by LVM and by device-mapper."""
        said = host.run(f"lvs --noheadings -o lv_name,lv_active -S 'lv_name=~^sks?-' {GROUP}")
        active = [line.split()[0] for line in said.splitlines() if line.split()[1:] == ["active"]]
        mapped = [line.split()[0] for line in host.run("dmsetup ls").splitlines() if "--" in line.split()[0]]
        return active, [name for name in mapped if name.startswith(f"{GROUP}-sk")]

    data, was, snap = None, {}, {}

    def taken():
        was["first"] = written(one)
        through("create", "snapshot", "--set", "name=before", "--set", f"disk={data}")
        snap["before"] = server.json("get", "snapshot", "before")["id"]
        name = f"sks-{snap['before']}"
        expect("LVM has it", snapshots(one) == [[name, f"sk-{data}"]], snapshots(one))
        was["second"] = written(one)
        expect("it is what the disk was", host_has(one, name) == was["first"] != was["second"], was)
        # More than the room that anybody would guess: every chunk of it is written once.
        one.run(f"dd if=/dev/zero of=/dev/{GROUP}/sk-{data} bs=1M seek=1 count=1023 oflag=direct conv=notrunc", 900)
        said = one.run(f"lvs --noheadings -o lv_snapshot_invalid,snap_percent {GROUP}/{name}")
        expect("it is still good", "invalid" not in said and float(said.split()[-1]) < 100, said)
        expect("and what the disk was", host_has(one, name) == was["first"], was)
        return f"{said.split()[-1]} % of its room is used when all of the disk was written"

    def begun():
        given = added("data", size_gib=1)
        server.awaited("disk", given, "attached")
        look = f"cat /sys/block/$(basename {device(given)})/size"
        until("the guest has it", lambda: one.in_guest(domain, look) == str(2 << 20), 300)
        return given

    data = checks.that("a second volume is made, and plugged in while it runs", begun)
    if data is None:
        return
    said = checks.that("a snapshot is taken while it runs, and stays what the disk was when all of it is written", taken)
    if said:
        print(f"           {said}", flush=True)
    checks.that("with a snapshot it does not grow, and does not move while it runs", lambda: (
        refused("in-use", "do", "disk", "grow", data, "--set", "size_gib=2"),
        refused("not-movable", "do", "server", "migrate", "roam", "--set", f"to={ids[two.name]}"),
    ))

    def move(what, to, status):
        def done():
            code, out, err = server.run("do", "server", "migrate", "roam", "--set", f"to={ids[to.name]}")
            expect("ordered", code == 0, out + err)
            row = server.awaited("server", "roam", status, 1200)
            host = row["state"]["home"]["placement"]["host"]
            expect("it is there", host == ids[to.name], host)
            active = [is_active(one).startswith("active"), is_active(two).startswith("active")]
            wanted = [host is to and status == "running" for host in hosts]
            expect("its volume is active where it runs, and nowhere else", active == wanted, active)
            return True
        moved = checks.that(what, done)
        if moved is None:
            for host in hosts:
                print(host.run("tail -n 12 /var/log/skyledger-agent", check=False)[1])
        return moved

    def order(verb, status):
        code, out, err = server.run("do", "server", verb, "roam")
        expect("ordered", code == 0, out + err)
        return server.awaited("server", "roam", status)

    def back():
        order("stop", "stopped")
        through("do", "snapshot", "roll-back", "before")
        snap["copy"] = added("copy", **{"from": {"snapshot": snap["before"]}})
        return server.awaited("disk", snap["copy"], "attached")

    checks.that("stopped, it goes back to the snapshot, of which a new disk is made as well", back)
    move("stopped, it goes to the second with its snapshot", two, "stopped")

    def unsnapped():
        order("start", "running")
        seen = [guest_has(two, of) for of in (data, snap["copy"])]
        expect("both are what was snapshotted", seen == [was["first"]] * 2, [seen, was])
        expect("none is active on the first", ours(one) == ([], []), ours(one))
        through("do", "disk", "detach", snap["copy"])
        through("do", "disk", "delete", snap["copy"])
        was["third"] = written(two)
        expect("and the snapshot", host_has(two, f"sks-{snap['before']}") == was["first"], was)
        through("do", "snapshot", "delete", snap["before"])
        expect("LVM has none", snapshots(two) == [], snapshots(two))
        return expect("the disk stays", guest_has(two, data) == was["third"], was)

    checks.that("it starts there, as it was at the snapshot, which is deleted while it runs", unsnapped)
    move("without one it goes live to the first", one, "running")
    move("it goes live to the second, by a lock that both share meanwhile", two, "running")
    checks.that("it stops", lambda: order("stop", "stopped"))
    move("stopped, it goes back to the first", one, "stopped")
    checks.that("it starts there", lambda: order("start", "running"))
    checks.that("a snapshot is taken of what will be a dead host's", lambda: (
        was.update(last=written(one)),
        through("create", "snapshot", "--set", "name=last", "--set", f"disk={data}"),
        snap.update(last=server.json("get", "snapshot", "last")["id"]),
    ))

    def dead():
        one.kill()
        began = time.monotonic()
        until("the host is not heard", lambda: "unreachable" in json.dumps(
            server.json("get", "host", one.name)["state"]), 400, 5.0)
        def evacuated():
            code, out, err = server.run("do", "server", "evacuate", "roam", "--set", "host_is_down=true")
            return expect("ordered", code == 0, out + err)
        until("evacuate", evacuated, 400, 5.0)
        ends = time.monotonic() + DEAD
        while time.monotonic() < ends:
            row = server.json("get", "server", "roam")
            if row["status"] == "running" and not row.get("order"):
                break
            if (row.get("order") or {}).get("parked"):
                # sanlock still waits for the dead one.
                server.run("do", "server", "retry", "roam")
            time.sleep(5)
        else:
            raise Failed(f"not had back: {json.dumps(row.get('order'))[-500:]}")
        took = time.monotonic() - began
        expect("active on the second", is_active(two).startswith("active"), is_active(two))
        expect("and its snapshot", host_has(two, f"sks-{snap['last']}") == was["last"], was)
        return f"{took:.0f} s"

    after = checks.that("the first dies; the second has its server back when sanlock lets go", dead)
    if after:
        print(f"           after {after}", flush=True)

    def alone():
        expect("nobody hears the first", one.process.poll() is not None, None)
        late = added("late", size_gib=1)
        server.awaited("disk", late, "attached", 300)
        through("do", "disk", "grow", late, "--set", "size_gib=2")
        size = two.run(f"blockdev --getsize64 /dev/{GROUP}/sk-{late}")
        expect("it is larger", size == str(2 << 30), size)
        through("do", "disk", "detach", late)
        through("do", "disk", "delete", late)
        names = two.run(f"lvs --noheadings -o lv_name {GROUP}").split()
        return expect("and gone", f"sk-{late}" not in names and f"sk-{data}" in names, names)

    checks.that("while the first is dead, a volume is made, grown and removed by the second", alone)

    def started():
        # Nobody has this one, and nobody's lock is in the way.
        through("do", "disk", "detach", data)
        one.start()
        one.up()
        def locked():
            code, said = one.run(f"vgchange --lockstart {GROUP} && vgs {GROUP}", check=False)
            return expect("locks begin", code == 0, said)
        until("locks begin", locked, 300, 5.0)
        # As a start of Debian activates what is to be; each by itself, for what another host has is refused.
        said = one.run(f"lvcreate -y -Wn -Zn -an -l 1 -n theirs {GROUP}; vgchange -aay {GROUP}", check=False)[1]
        is_so = one.run(f"lvs --noheadings -o lv_active {GROUP}/theirs")
        expect("somebody's is activated by that", is_so.split() == ["active"], [said, is_so])
        expect("and none of ours", ours(one) == ([], []), [said, ours(one)])
        one.run(f"lvremove -y {GROUP}/theirs")
        return expect("what the second has it has", ours(two)[0] == [f"sk-{disk}"], ours(two))

    checks.that("the first is started again, and activates nothing of ours", started)

    def stale():
        volume = f"{GROUP}/sk-{data}"
        two.run(f"lvchange --addtag skyledger-lease=99 {volume}")
        code, out, err = server.run("do", "disk", "attach", data, "--set", f"server={server_id}")
        expect("ordered", code == 0, out + err)
        why = until(
            "it is parked", lambda: (server.json("get", "disk", data).get("order") or {}).get("parked"), 300
        )
        expect("for its lease is over", "is over" in json.dumps(why), why)
        active = [name for host in hosts for name in ours(host)[0]]
        expect("it is active nowhere", active == [f"sk-{disk}"], active)
        two.run(f"lvchange --deltag skyledger-lease=99 {volume}")
        through("do", "disk", "retry", data)
        return expect("the disk is what it was", guest_has(two, data) == was["last"], was)

    checks.that("an order with a lease that is over is refused, and goes on when it is not", stale)
    checks.that("the last snapshot is deleted", lambda: (
        through("do", "snapshot", "delete", snap["last"]), expect("none", snapshots(two) == [], snapshots(two))
    ))
    checks.that("a segment of a VLAN has an 802.1Q interface on the host", lambda: vlan(server, two))


def vlan(server, host):
    """A server on a VLAN of a bridge that the operator made."""
    segment = server.json("create", "segment", body={
        "name": "blue", "medium": {"vlan": {"id": 7}}, "bridge": "br0",
    })["id"]
    network = server.json("create", "network", body={
        "name": "web", "segment": segment, "v4": {"net": "10.7.0.0/24"},
    })["id"]
    server.json("create", "server", body={
        "name": "tagged", "spec": {"vcpus": 1, "memory_mib": 64}, "disks": [{"size_gib": 1}],
        "nics": [{"network": network}],
        "wishes": {"only": [server.json("get", "host", host.name)["id"]]},
    })
    server.awaited("server", "tagged", "running")
    links = json.loads(host.run("ip -d -j link show type vlan"))
    expect("VLAN 7 of br0", [(one["link"], one["linkinfo"]["info_data"]["id"]) for one in links] == [("br0", 7)], links)
    code, out, err = server.run("do", "server", "delete", "tagged", "--set", "stop=true")
    expect("ordered", code == 0, out + err)
    until("purge", lambda: server.run("do", "server", "purge", "tagged")[0] == 0)
    return until("it is gone", lambda: json.loads(host.run("ip -d -j link show type vlan")) == [])

"""Devices of a host: cells, IOMMU groups, virtual functions, mediated devices and USB, given to a server."""

import json

from hosts import Failed, Host, NotTried, until

MAC, VLAN, RATE = "52:54:00:77:00:01", 77, 100


def expect(what, is_so, seen):
    """Raises with what was seen where it is not so."""
    if not is_so:
        raise Failed(f"{what}; seen: {json.dumps(seen)[-600:]}")
    return seen


def check(checks, server, hosts, cache, scratch):
    """All of it, on one host."""
    host = Host(cache, scratch, server.program, 1)
    hosts.append(host)
    host.start()
    if checks.that("a whole Debian comes up", lambda: host.up() or True) is None:
        return
    card = {}

    def functions():
        found = host.run(
            "for pci in /sys/bus/pci/devices/*/sriov_totalvfs; do dir=${pci%/*}; echo 2 >$dir/sriov_numvfs; "
            "echo ${dir##*/} $(ls $dir/net); done; udevadm settle"
        ).split()
        card["address"], card["name"] = found[0], found[1]
        # Its wire is one that segments are on.
        host.run(f"ip link add br-fast type bridge && ip link set {found[1]} master br-fast && ip link set br-fast up")
        return expect("a card with functions", len(found) == 2, found)

    checks.that("its card makes two virtual functions", functions)

    def ready():
        server.json("create", "host", "--set", f"name={host.name}")
        host.begin_agent(server)
        return server.awaited("host", host.name, "ready")

    row = checks.that("its agent joins, and the host is ready", ready)
    if row is None:
        print(host.run("tail -n 20 /var/log/skyledger-agent", check=False)[1])
        return

    def seen():
        return server.json("get", "host", host.name)["state"]["seen"]

    def cells():
        all_cells = seen()["cells"]
        pages = [cell["pages"] for cell in all_cells]
        expect("two cells, each with a core", [len(cell["cores"]) for cell in all_cells] == [1, 1], all_cells)
        return expect("96 huge pages in each", all(one[0]["count"] == 96 for one in pages), pages)

    checks.that("two cells with cores and huge pages", cells)

    def of(kind):
        return [device for device in seen()["devices"] if device["kind"] == kind]

    def functions_seen():
        found = of("vf")
        expect("two that are free", [one["availability"] for one in found] == ["free"] * 2, found)
        expect("on the wire of the card's bridge", {one.get("carrier") for one in found} == {"br-fast"}, found)
        groups = {one["iommu_group"] for one in found}
        expect("each in an IOMMU group of its own", len(groups) == 2 and None not in groups, found)
        whole = [one for one in of("nic") if one["id"] == card["address"]]
        return expect("the card itself is the host's", whole and whole[0]["availability"] == "reserved", whole)

    checks.that("virtual functions are devices, the card is kept", functions_seen)

    def mediated_seen():
        if host.run("lsmod | grep -c ^mtty", check=False)[0] != 0:
            raise NotTried("no sample of mediated devices was built")
        found = [one for one in of("mdev") if one["model"] == "mtty/mtty-1"]
        left = int(host.run("cat /sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/available_instances"))
        return expect("as many as the driver has left", len(found) == left > 1, [len(found), left])

    instances = checks.that("mediated devices that can be made are devices", mediated_seen)

    def usb_seen():
        return expect("a mouse", any(one["model"] == "0627:0001" for one in of("usb")), of("usb"))

    has_usb = checks.that("a USB device is a device", usb_seen)

    digest, size_mib = host.bring_guest()
    image = server.json("create", "image", body={
        "name": "tiny", "source": "upload", "sha256": digest, "format": "raw", "size_mib": size_mib,
        "architecture": "x86_64", "os": "linux", "firmware": "bios", "min_disk_gib": 1,
    })["id"]
    asks = [{"kind": "vf", "function": {"mac": MAC, "vlan": VLAN, "egress_mbit_s": RATE}}]
    if instances is not None:
        asks.append({"kind": "mdev", "model": "mtty/mtty-1"})
    if has_usb is not None:
        asks.append({"kind": "usb", "model": "0627:0001"})

    def launched():
        row = server.json("create", "server", body={
            "name": "pass", "image": image, "disks": [{"size_gib": 1}],
            "spec": {
                "vcpus": 1, "memory_mib": 160, "page_kib": 2048, "numa": "strict",
                "pinning": {"type": "cores", "data": {}}, "devices": asks,
            },
        })
        server.awaited("server", "pass", "running")
        return row["id"]

    server_id = checks.that("a server with devices, huge pages and a core of its own is launched", launched)
    if server_id is None:
        print(host.run("tail -n 30 /var/log/skyledger-agent", check=False)[1])
        return
    domain = f"sk-{server_id}"

    def held():
        return server.json("get", "server", "pass")["state"]["home"]["placement"]["holding"]

    def function_set():
        said = json.loads(host.run(f"ip -d -j link show dev {card['name']}"))[0]["vfinfo_list"]
        one = [vf for vf in said if vf.get("address", vf.get("mac")) == MAC]
        expect("one function with that address", len(one) == 1, said)
        vlan = one[0].get("vlan_list", [{}])[0].get("vlan")
        expect("its VLAN and rate", (vlan, one[0]["rate"]["max_tx"]) == (VLAN, RATE), one)
        read_back = server.json("get", "server", "pass")["state"]["observation"]["seen"]["functions"]
        wanted = {"mac": MAC, "vlan": VLAN, "egress_mbit_s": RATE}
        return expect("what the host read back", list(read_back.values()) == [wanted], read_back)

    checks.that("the card has the function's address, VLAN and rate, and the ledger says so", function_set)

    def function():
        return [device for device in held()["devices"] if device.count(":") == 2 and "mdev" not in device][0]

    def bound():
        driver = host.run(f"basename $(readlink /sys/bus/pci/devices/{function()}/driver)")
        return expect("vfio-pci has it", driver == "vfio-pci", driver)

    checks.that("the function is bound to vfio-pci", bound)

    def cell_of():
        holding = held()
        cell, cpu = holding["cells"][0]["cell"], holding["pins"][0]["cpu"]
        pid = host.run("pgrep -f qemu-system.*sk- | head -n 1")
        maps = host.run(f"grep -m1 huge /proc/{pid}/numa_maps")
        pages = [word for word in maps.split() if word.startswith("N")]
        expect("80 huge pages of its cell", f"N{cell}=80" in maps, maps)
        affinity = host.run(
            f"for task in /proc/{pid}/task/*; do grep -q '^CPU 0/' $task/comm && "
            "grep Cpus_allowed_list $task/status; done; true"
        ).split()[-1]
        expect("its virtual CPU on that CPU", affinity == str(cpu), [affinity, cpu])
        return pages

    checks.that("its memory is huge pages of its cell, its CPU is pinned", cell_of)

    def made():
        if instances is None:
            raise NotTried("no sample of mediated devices was built")
        count = int(host.run("ls /sys/bus/mdev/devices | wc -l"))
        left = int(host.run("cat /sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/available_instances"))
        return expect("one made, one fewer left", (count, left) == (1, len(instances_before) - 1), [count, left])

    instances_before = [one for one in of("mdev") if one["model"] == "mtty/mtty-1"]
    checks.that("the mediated device was made for it", made)

    def never_twice():
        code, out, err = server.run("create", "server", body={
            "name": "second", "spec": {"vcpus": 1, "memory_mib": 96, "devices": [{"kind": "vf", "count": 2}]},
            "disks": [{"size_gib": 1}],
        })
        return expect("refused: no-room", code == 5 and "no-room" in out + err, [code, out + err])

    checks.that("a second server that wants both functions is refused", never_twice)

    def inside():
        devices = host.in_guest(
            domain, "cat /sys/bus/pci/devices/*/vendor /sys/bus/pci/devices/*/device /sys/class/net/*/address"
        )
        expect("a function of the card (8086:10ca)", "0x10ca" in devices, devices)
        return devices

    guest = checks.that("the guest has the function on its PCI bus", inside)
    if guest is not None:
        checks.that("the guest's driver reads the address that was set", lambda: expect("that address", MAC in guest, guest))
        checks.that("the guest has the mediated device (4348:3253)", lambda: (
            expect("a card with serial ports", "0x4348" in guest, guest)
        ))
        checks.that("the guest has the USB device", lambda: expect(
            "a mouse", "0627" in (seen_usb := host.in_guest(domain, "cat /sys/bus/usb/devices/*/idVendor")), seen_usb
        ))

    def stopped():
        code, out, err = server.run("do", "server", "stop", "pass")
        expect("ordered", code == 0, out + err)
        server.awaited("server", "pass", "stopped")
        driver = host.run(f"basename $(readlink /sys/bus/pci/devices/{function()}/driver)")
        return expect("the host's driver has it again", driver == "igbvf", driver)

    checks.that("stopped, the function goes back to the host's driver", stopped)

    def again():
        code, out, err = server.run("do", "server", "start", "pass")
        expect("ordered", code == 0, out + err)
        return server.awaited("server", "pass", "running")

    checks.that("it is started again with what it had", again)

    def removed():
        for words in (["delete", "pass", "--set", "stop=true"], ["purge", "pass"]):
            # The removal waits until the stop is through.
            until(words[0], lambda words=words: server.run("do", "server", *words)[0] == 0)
        until("it is gone", lambda: host.run("virsh -q list --all --name") == "")
        # Its devices are given back after libvirt has forgotten it, and then what was written down of it.
        files = "ls -A /sys/bus/mdev/devices /var/lib/skyledger-agent/servers /var/lib/skyledger-agent/disks"
        entry = lambda line: line and not line.endswith(":")
        until("nothing of it", lambda: not any(map(entry, host.run(files).splitlines())), 60)
        said = json.loads(host.run(f"ip -d -j link show dev {card['name']}"))[0]["vfinfo_list"]
        clean = all(vf["rate"]["max_tx"] == 0 and vf.get("vlan_list", [{}])[0].get("vlan", 0) == 0 for vf in said)
        return expect("functions as they were", clean, said)

    checks.that("removed, nothing of it is left and the function is as it was", removed)

    def given_again():
        row = server.json("create", "server", "--dry-run", body={
            "name": "second", "spec": {"vcpus": 1, "memory_mib": 96, "devices": [{"kind": "vf", "count": 2}]},
            "disks": [{"size_gib": 1}],
        })
        return expect("a plan", row, row)

    checks.that("both functions may be given again", given_again)
    direct(checks, server, host, card, image)
    whole_group(checks, server, host, image, of)
    disk_of_its_own(checks, server, host, image, of)


def whole_group(checks, server, host, image, of):
    """One of the two functions of a card: the other is of its IOMMU group, and nobody's meanwhile."""
    made = {}

    def drivers():
        links = (f"readlink /sys/bus/pci/devices/{address}/driver || echo none" for address in made["card"])
        return [line.split("/")[-1] for line in host.run("; ".join(links)).splitlines()]

    def free():
        found = [one for one in of("nic") if one["model"] == "8086:10d3"]
        made["card"] = [one["id"] for one in found]
        groups = {one["iommu_group"] for one in found}
        expect("two that are free, in one group", len(found) == 2 and len(groups) == 1, found)
        expect("free", {one["availability"] for one in found} == {"free"}, found)
        return expect("the host's driver has both", drivers() == ["e1000e"] * 2, drivers())

    if checks.that("two functions of a card are one IOMMU group", free) is None:
        return

    def launched():
        row = server.json("create", "server", body={
            "name": "group", "image": image, "disks": [{"size_gib": 1}],
            "spec": {"vcpus": 1, "memory_mib": 160, "devices": [{"kind": "nic", "model": "8086:10d3"}]},
        })
        server.awaited("server", "group", "running")
        holding = server.json("get", "server", "group")["state"]["home"]["placement"]["holding"]
        both = holding["devices"] + holding["devices_with"]
        expect("the other goes with it", sorted(both) == sorted(made["card"]), holding)
        expect("VFIO has both", drivers() == ["vfio-pci"] * 2, drivers())
        return row["id"]

    if checks.that("a server gets one, and the other is taken from the host's driver", launched) is None:
        print(host.run("tail -n 30 /var/log/skyledger-agent", check=False)[1])
        return

    def back():
        return until("the host's driver has both again", lambda: drivers() == ["e1000e"] * 2, 60) or True

    def stopped():
        code, out, err = server.run("do", "server", "stop", "group")
        expect("ordered", code == 0, out + err)
        server.awaited("server", "group", "stopped")
        return back()

    checks.that("stopped, both go back", stopped)

    def ended():
        code, out, err = server.run("do", "server", "start", "group")
        expect("ordered", code == 0, out + err)
        server.awaited("server", "group", "running")
        expect("VFIO has both", drivers() == ["vfio-pci"] * 2, drivers())
        host.run("kill -9 $(pgrep -f qemu-system.*sk- | head -n 1)")
        return back()

    checks.that("started again and ended by itself, both go back", ended)

    def removed():
        for words in (["delete", "group", "--set", "stop=true"], ["purge", "group"]):
            until(words[0], lambda words=words: server.run("do", "server", *words)[0] == 0)
        until("it is gone", lambda: host.run("ls -A /var/lib/skyledger-agent/servers") == "", 120)
        return expect("the host's driver has both", drivers() == ["e1000e"] * 2, drivers())

    checks.that("removed, nothing is left of it", removed)


def disk_of_its_own(checks, server, host, image, of):
    """An NVMe disk of the host: what the server writes on it is there when the host has it again."""
    made = {}

    def driver():
        return host.run(f"basename $(readlink /sys/bus/pci/devices/{made['device']}/driver)", check=False)[1].strip()

    def free():
        found = of("nvme")
        expect("one that is free", [one["availability"] for one in found] == ["free"], found)
        made["device"] = found[0]["id"]
        return expect("the host's driver has it", driver() == "nvme", driver())

    if checks.that("an NVMe disk is a device", free) is None:
        return

    def launched():
        row = server.json("create", "server", body={
            "name": "nvme", "image": image, "disks": [{"size_gib": 1}],
            "spec": {"vcpus": 1, "memory_mib": 160, "devices": [{"kind": "nvme"}]},
        })
        server.awaited("server", "nvme", "running")
        expect("VFIO has it", driver() == "vfio-pci", driver())
        made["id"] = row["id"]
        return row["id"]

    if checks.that("a server with an NVMe disk is launched", launched) is None:
        print(host.run("tail -n 30 /var/log/skyledger-agent", check=False)[1])
        return

    def written():
        there = "for try in $(seq 100); do [ -b /dev/nvme0n1 ] && break; sleep 1; done"
        write = "echo written-inside | dd of=/dev/nvme0n1 conv=fsync 2>/dev/null"
        said = host.in_guest(f"sk-{made['id']}", f"{there}; {write}; head -c 14 /dev/nvme0n1")
        return expect("what was written", "written-inside" in said, said)

    checks.that("the guest writes on it", written)

    def back():
        code, out, err = server.run("do", "server", "stop", "nvme")
        expect("ordered", code == 0, out + err)
        server.awaited("server", "nvme", "stopped")
        until("the host's driver has it again", lambda: driver() == "nvme", 60)
        read = "for try in $(seq 30); do [ -b /dev/nvme0n1 ] && break; sleep 1; done; head -c 14 /dev/nvme0n1"
        said = host.run(read)
        return expect("the host reads that", said == "written-inside", said)

    checks.that("stopped, the host has it again, with what the guest wrote", back)

    def removed():
        for words in (["delete", "nvme"], ["purge", "nvme"]):
            until(words[0], lambda words=words: server.run("do", "server", *words)[0] == 0)
        until("it is gone", lambda: host.run("ls -A /var/lib/skyledger-agent/servers") == "", 120)
        return expect("the host's driver has it", driver() == "nvme", driver())

    checks.that("removed, it is the host's", removed)


def direct(checks, server, host, card, image):
    """An interface that is a virtual function, with an address of a network on a VLAN."""
    made = {}

    def launched():
        segment = server.json("create", "segment", body={
            "name": "fast", "medium": {"vlan": {"id": 78}}, "bridge": "br-fast",
        })["id"]
        network = made["network"] = server.json("create", "network", body={
            "name": "fast", "segment": segment, "v4": {"net": "10.78.0.0/24", "step": "up"},
        })["id"]
        row = server.json("create", "server", body={
            "name": "direct", "image": image, "disks": [{"size_gib": 1}],
            "nics": [{"network": network, "vnic_type": "direct", "bandwidth": {"egress_kbit_s": 50_000}}],
            "spec": {"vcpus": 1, "memory_mib": 160},
        })
        server.awaited("server", "direct", "running")
        made["id"] = row["id"]
        return row["id"]

    if checks.that("a server whose interface is a virtual function is launched", launched) is None:
        print(host.run("tail -n 30 /var/log/skyledger-agent", check=False)[1])
        return

    def function_set():
        nic = server.json("get", "server", "direct")["state"]["home"]["parts"]["nics"][0]
        made["address"], made["mac"] = nic["addresses"][0], nic["mac"]
        said = json.loads(host.run(f"ip -d -j link show dev {card['name']}"))[0]["vfinfo_list"]
        one = [vf for vf in said if vf.get("address", vf.get("mac")) == nic["mac"]]
        expect("one function with the interface's address", len(one) == 1, said)
        is_set = (one[0].get("vlan_list", [{}])[0].get("vlan"), one[0]["rate"]["max_tx"], one[0]["spoofchk"])
        expect("the segment's VLAN, the rate, no other address", is_set == (78, 50, True), one)
        taps = host.run("ls /sys/class/net")
        return expect("no interface of the host for it", "sk" not in taps, taps)

    checks.that("the card has its VLAN and rate, and checks its address", function_set)

    def refused():
        code, out, err = server.run("create", "server", body={
            "name": "no", "disks": [{"size_gib": 1}], "spec": {"vcpus": 1, "memory_mib": 160},
            "nics": [{"network": made["network"], "vnic_type": "direct", "quota": {"egress_bytes": 1_000}}],
        })
        return expect("refused: not-enforceable", code == 3 and "not-enforceable" in out + err, [code, out + err])

    checks.that("a quota of such an interface is refused", refused)

    def inside():
        # Its agent answers before it has done what its seed says.
        seeded = "for try in $(seq 100); do [ -e /run/seeded ] && break; sleep 1; done; ip address"
        said = host.in_guest(f"sk-{made['id']}", seeded)
        return expect("the network's address on that card", made["address"] in said and made["mac"] in said, said)

    checks.that("the guest has the network's address on the function", inside)

    def changed():
        nic = server.json("get", "server", "direct")["state"]["home"]["parts"]["nics"][0]
        server.json("do", "server", "change-nic", "direct", body={
            "nic": nic["id"], "bandwidth": {"egress_kbit_s": 70_000},
        })

        def rate():
            said = json.loads(host.run(f"ip -d -j link show dev {card['name']}"))[0]["vfinfo_list"]
            return [vf["rate"]["max_tx"] for vf in said if vf.get("address", vf.get("mac")) == nic["mac"]] == [70]

        until("the card has the other rate", rate)

        def read_back():
            seen = server.json("get", "server", "direct")["state"]["observation"]["seen"]
            return [one["egress_mbit_s"] for one in seen["functions"].values()] == [70]

        until("the ledger says so", read_back, 60)
        return server.awaited("server", "direct", "running")["id"]

    checks.that("its rate is changed while it runs", changed)

    def removed():
        for words in (["delete", "direct", "--set", "stop=true"], ["purge", "direct"]):
            until(words[0], lambda words=words: server.run("do", "server", *words)[0] == 0)
        until("it is gone", lambda: host.run("ls -A /var/lib/skyledger-agent/servers") == "", 120)
        said = json.loads(host.run(f"ip -d -j link show dev {card['name']}"))[0]["vfinfo_list"]
        clean = all(vf["rate"]["max_tx"] == 0 and vf.get("vlan_list", [{}])[0].get("vlan", 0) == 0 for vf in said)
        return expect("functions as they were", clean, said)

    checks.that("removed, the function is as it was", removed)

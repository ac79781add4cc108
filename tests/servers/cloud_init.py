"""What the real cloud-init makes of the documents of a seed: run by cloud_init.sh.

Reads the golden documents of `domain/src/compute/userdata/golden` by cloud-init's NoCloud source, has
its own code render the network for netplan, and compares with what the domain's tests meant.
"""

import json
import logging
import os
import sys
import tempfile

golden, scratch = sys.argv[1], sys.argv[2]

from cloudinit import helpers, settings, user_data
from cloudinit.net import network_state, netplan
from cloudinit.sources import DataSourceNoCloud as nocloud

logging.disable(logging.CRITICAL)
# Only the seed counts, and nothing of this machine: no firmware's strings, no disks.
nocloud.dmi.read_dmi_data = lambda _: None
nocloud.util.find_devs_with = lambda *_a, **_k: []

seed = os.path.join(scratch, "seed", "nocloud")
os.makedirs(seed, exist_ok=True)
userdata = "#!/bin/sh\necho done\n"
for name in ("meta-data", "network-config", "vendor-data"):
    with open(os.path.join(golden, name), encoding="utf-8") as document:
        text = document.read()
    with open(os.path.join(seed, name), "w", encoding="utf-8") as copy:
        copy.write(text)
with open(os.path.join(seed, "user-data"), "w", encoding="utf-8") as copy:
    copy.write(userdata)

paths = helpers.Paths({"cloud_dir": scratch, "run_dir": scratch})
paths.seed_dir = os.path.join(scratch, "seed")
source = nocloud.DataSourceNoCloud(settings.CFG_BUILTIN, None, paths)
assert source.get_data(), "no seed was found"

meant = json.load(open(os.path.join(golden, "meta-data"), encoding="utf-8"))
assert source.get_instance_id() == meant["instance-id"], source.get_instance_id()
name = source.get_hostname()
name = getattr(name, "hostname", name)
assert name == meant["local-hostname"], name
assert source.get_public_ssh_keys() == meant["public-keys"], source.get_public_ssh_keys()
raw = source.get_userdata_raw()
raw = raw.decode() if isinstance(raw, bytes) else raw
assert raw == userdata, raw
parts = list(user_data.UserDataProcessor(paths).process(raw).walk())
kinds = [part.get_content_type() for part in parts if not part.is_multipart()]
assert kinds == ["text/x-shellscript"], kinds

# That interfaces are set up at every boot, as it asks itself then.
from cloudinit import stages, util
from cloudinit.event import EventScope, EventType

raw = source.get_vendordata_raw()
raw = raw.decode() if isinstance(raw, bytes) else raw
config = util.mergemanydict([util.load_yaml(raw), settings.CFG_BUILTIN])
for cfg, wanted in ((config, True), (settings.CFG_BUILTIN, False)):
    enabled = stages.update_event_enabled(source, cfg, EventType.BOOT, EventScope.NETWORK)
    assert enabled == wanted, (cfg.get("updates"), enabled)

# Its own reading of the network, and what it would hand to netplan.
config = source.network_config
assert config["version"] == 2, config
meant = json.load(open(os.path.join(golden, "network-config"), encoding="utf-8"))
state = network_state.parse_net_config_data(config)
seen = {iface.get("mac_address"): iface for iface in state.iter_interfaces()}
for nic in meant["ethernets"].values():
    mac = nic["match"]["macaddress"]
    iface = seen[mac]
    subnets = iface["subnets"]
    static = [
        "{}/{}".format(subnet["address"], subnet["prefix"])
        for subnet in subnets
        if subnet["type"].startswith("static")
    ]
    assert static == nic.get("addresses", []), (mac, static)
    dhcp = {subnet["type"] for subnet in subnets if subnet["type"].startswith("dhcp")}
    assert bool(dhcp & {"dhcp", "dhcp4"}) == nic["dhcp4"], (mac, dhcp)
    assert bool(dhcp & {"dhcp6"}) == nic["dhcp6"], (mac, dhcp)
    assert iface.get("mtu") == nic.get("mtu"), (mac, iface.get("mtu"))
rendered = netplan.Renderer({})._render_content(state)
for nic in meant["ethernets"].values():
    for address in nic.get("addresses", []) + [route["via"] for route in nic.get("routes", [])]:
        assert address in rendered, (address, rendered)
print("cloud-init", __import__("cloudinit.version", fromlist=["x"]).version_string(), "reads all of it")

//! Parts of a server, worked out of what was asked for and found.

use chrono::DateTime;
use serde_json::{Value, json};

use super::*;
use crate::network::{net, segment};

const SERVER: Uuid = Uuid::from_u128(1);

fn launch(more: Value) -> Launch {
    let mut body = json!({"name": "Web Ärmel_1", "spec": {"vcpus": 2, "memory_mib": 512}});
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    serde_json::from_value(body).unwrap()
}

fn image() -> Definition {
    Definition {
        name: "debian-13".into(),
        project: None,
        source: Source::Upload,
        sha256: "0a".repeat(32),
        format: image::Format::Qcow2,
        size_mib: 400,
        architecture: Architecture::X86_64,
        os: Os::Linux,
        firmware: Firmware::Uefi,
        min_disk_gib: 3,
        found: None,
    }
}

fn segment() -> Segment {
    Segment::default().evolve(segment::Event::Defined {
        name: "blue".into(),
        project: None,
        medium: Medium::Bridge,
        bridge: "br0".into(),
        mtu: 1_400,
    })
}

fn network(v4: Option<&str>, v6: Option<&str>) -> Network {
    let subnet = |net: &str, gateway: &str| json!({"net": net, "gateway": gateway, "step": "up"});
    let definition = json!({
        "id": Uuid::from_u128(7), "name": "front", "segment": Uuid::from_u128(8),
        "v4": v4.map(|net| subnet(net, "10.0.0.1")), "v6": v6.map(|net| subnet(net, "2001:db8::1")),
        "dns_servers": ["10.0.0.1"], "domain": "example.com",
    });
    let definition = serde_json::from_value(definition).unwrap();
    Network::default().evolve(net::Event::Defined(definition))
}

fn joined(network: Network) -> Joined {
    Joined { network, segment: segment(), others: Vec::new() }
}

fn work_out(more: Value, found: Found) -> Result<Parts, &'static str> {
    let parts = Parts::work_out(SERVER, &launch(more), found, DateTime::UNIX_EPOCH);
    parts.map_err(|refusal| refusal.code.code)
}

#[test]
fn a_root_disk_is_as_large_as_its_image_needs() {
    let found = || Found { image: Some((Uuid::from_u128(9), image())), ..Found::default() };
    let parts = work_out(json!({}), found()).unwrap();
    assert_eq!(parts.disks.len(), 1);
    assert_eq!((parts.disks[0].size_gib, parts.disks[0].from_image), (3, true));
    assert_eq!(parts.firmware, Some(Firmware::Uefi));
    assert_eq!(parts.image.unwrap().id, Uuid::from_u128(9));
    let two = json!({"disks": [{"size_gib": 10}, {"size_gib": 1, "format": "raw"}]});
    let parts = work_out(two, found()).unwrap();
    let disks: Vec<_> = parts.disks.iter().map(|disk| (disk.size_gib, disk.from_image)).collect();
    assert_eq!(disks, [(10, true), (1, false)]);
    assert_ne!(parts.disks[0].id, parts.disks[1].id);
    for odd in [
        json!({"disks": [{"size_gib": 2}]}),
        json!({"disks": [{"size_gib": 3}, {"size_gib": 0}]}),
        json!({"disks": [{"size_gib": 65_537}]}),
        json!({"spec": {"vcpus": 1, "memory_mib": 64, "architecture": "aarch64"}}),
    ] {
        assert_eq!(work_out(odd.clone(), found()), Err("invalid-field"), "{odd}");
    }
    let bios = json!({
        "firmware": "bios", "spec": {"vcpus": 1, "memory_mib": 64, "architecture": "aarch64"},
    });
    assert_eq!(work_out(bios, Found::default()), Err("invalid-field"));
}

#[test]
fn interfaces_get_addresses_of_each_family_and_none_twice() {
    let ask = json!({"nics": [{"network": Uuid::from_u128(7)}, {"network": Uuid::from_u128(7)}]});
    let one = || joined(network(Some("10.0.0.0/29"), Some("2001:db8::/64")));
    let found = || Found { networks: vec![one(), one()], ..Found::default() };
    let parts = work_out(ask.clone(), found()).unwrap();
    let shown = |nic: &Nic| nic.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&parts.nics[0]), ["10.0.0.2/29", "2001:db8::2/64"]);
    assert_eq!(shown(&parts.nics[1]), ["10.0.0.3/29", "2001:db8::3/64"]);
    let nic = &parts.nics[0];
    assert_eq!((nic.bridge.as_str(), nic.mtu), ("br0", 1_400));
    assert_eq!(nic.gateways, ["10.0.0.1", "2001:db8::1"].map(|one| one.parse::<IpAddr>().unwrap()));
    assert_ne!(nic.mac, parts.nics[1].mac);
    assert_eq!(parts, work_out(ask, found()).unwrap(), "it follows from the server's id");

    let seed = parts.seed(SERVER, "Web Ärmel_1", None).unwrap();
    assert!(seed.meta_data.contains("\"web-rmel-1\""), "{}", seed.meta_data);
    assert!(seed.network_config.contains("10.0.0.2/29"), "{}", seed.network_config);
    assert!(seed.network_config.contains(&nic.mac.to_string()), "{}", seed.network_config);

    let bodies: Vec<_> = parts.give().map(|companion| companion.body).collect();
    assert_eq!(bodies[0]["v4"]["data"]["address"], "10.0.0.2");
    assert_eq!(bodies[1]["v6"]["data"]["address"], "2001:db8::3");
}

#[test]
fn a_hardware_address_is_one_interface_s_on_a_segment() {
    let mac: Mac = "52:54:00:aa:00:01".parse().unwrap();
    let given = |mac: Mac, holder: u128| {
        let addresses = vec!["10.0.0.5".parse().unwrap()];
        let event =
            net::Event::Given { holder: Uuid::from_u128(holder), addresses, mac: Some(mac) };
        network(Some("10.0.0.0/29"), None).evolve(event)
    };
    let beside = |mac: Mac| Found {
        networks: vec![Joined {
            others: vec![given(mac, 40)],
            ..joined(network(Some("10.0.0.0/29"), None))
        }],
        ..Found::default()
    };
    let ask = |mac: Option<Mac>| json!({"nics": [{"network": Uuid::from_u128(7), "mac": mac}]});
    let launch = launch(ask(Some(mac)));
    let no = Parts::work_out(SERVER, &launch, beside(mac), DateTime::UNIX_EPOCH).unwrap_err();
    assert_eq!(no.code.code, "address-taken");
    let detail =
        "nics[0]: 52:54:00:aa:00:01: an interface in another network of its segment has it";
    assert_eq!(no.detail, detail);
    let other = beside("52:54:00:aa:00:02".parse().unwrap());
    assert_eq!(work_out(ask(Some(mac)), other).unwrap().nics[0].mac, mac);
    // Who asks for none gets another one than somebody has asked for.
    let first = work_out(ask(None), beside(mac)).unwrap().nics[0].mac;
    assert_eq!(first, Mac::of(part_id(SERVER, "nic", 0)));
    let second = work_out(ask(None), beside(first)).unwrap().nics[0].mac;
    assert_ne!(second, first);
    let here = Found { networks: vec![joined(given(first, 40))], ..Found::default() };
    assert_eq!(work_out(ask(None), here).unwrap().nics[0].mac, second);
}

#[test]
fn what_a_host_tells_by_dhcp_is_not_in_the_seed() {
    let mut network = network(Some("10.0.0.0/29"), Some("2001:db8::/64"));
    let change = json!({"dhcp": true, "lease_s": 600});
    network = network.evolve(net::Event::Changed(serde_json::from_value(change).unwrap()));
    let found = Found { networks: vec![joined(network)], ..Found::default() };
    let parts = work_out(json!({"nics": [{"network": Uuid::from_u128(7)}]}), found).unwrap();
    assert_eq!(parts.nics[0].lease_s, Some(600));
    let seed = parts.seed(SERVER, "web", None).unwrap();
    let config: Value = serde_json::from_str(&seed.network_config).unwrap();
    let nic = &config["ethernets"]["nic0"];
    assert_eq!((&nic["dhcp4"], &nic["dhcp6"]), (&json!(true), &json!(true)));
    assert_eq!((&nic["addresses"], &nic["nameservers"]), (&Value::Null, &Value::Null));
    // The only route is that of IPv6, which nobody tells.
    let route = json!([{"to": "::/0", "via": "2001:db8::1", "metric": 100, "on-link": true}]);
    assert_eq!(nic["routes"], route);
}

#[test]
fn what_a_network_cannot_give_is_refused_with_its_interface() {
    let ask = |more: Value| {
        let mut nic = json!({"network": Uuid::from_u128(7)});
        if let (Value::Object(nic), Value::Object(more)) = (&mut nic, more) {
            nic.extend(more);
        }
        json!({"nics": [nic]})
    };
    let found = |network: Network| Found { networks: vec![joined(network)], ..Found::default() };
    let v4 = || network(Some("10.0.0.0/29"), None);
    let named = |address: &str| json!({"type": "named", "data": {"address": address}});
    let parts = work_out(ask(json!({"v4": named("10.0.0.5")})), found(v4())).unwrap();
    assert_eq!(parts.nics[0].addresses[0].to_string(), "10.0.0.5/29");
    for (more, code) in [
        (json!({"v4": named("10.0.1.5")}), "address-not-given"),
        (json!({"v6": {"type": "any", "data": {}}}), "address-not-given"),
    ] {
        assert_eq!(work_out(ask(more), found(v4())), Err(code));
    }
    let retired = v4().evolve(net::Event::Retired {});
    assert_eq!(work_out(ask(json!({})), found(retired)), Err("invalid-field"));
    let cloud = Network::default();
    assert_eq!(work_out(ask(json!({})), found(cloud)), Err("invalid-field"));
    let lost = Joined { network: v4(), ..Joined::default() };
    let lost = Found { networks: vec![lost], ..Found::default() };
    assert_eq!(work_out(ask(json!({})), lost), Err("invalid-field"));
}

#[test]
fn a_host_name_is_made_of_any_name() {
    for (name, host) in
        [("db", "db"), ("Db 1", "db-1"), ("--", "server-000000000000"), ("a.b_", "a-b")]
    {
        assert_eq!(hostname(name, SERVER), host);
    }
    assert_eq!(hostname(&"x".repeat(100), SERVER).len(), 63);
}

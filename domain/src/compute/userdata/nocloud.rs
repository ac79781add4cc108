//! What a server finds on its seed disk: the documents of cloud-init's NoCloud source.
//!
//! Four files: `meta-data` says who it is, `network-config` (version 2) how its interfaces are set
//! up, `user-data` what its owner wants done, `vendor-data` that its interfaces are set up at every
//! boot: its addresses may be others by then. Written as JSON, which is YAML that leaves nothing to
//! its rules. Equal input gives equal bytes.

use core::net::IpAddr;
use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::Serialize;

use super::Userdata;
use crate::{
    kernel::{Refusal, codes},
    network::mac::Mac,
};

/// Least and most MTU in bytes: what IPv4 needs (RFC 791), what 16 bits hold.
const MTU: std::ops::RangeInclusive<u32> = 576..=65_535;
/// Least MTU in bytes of a link with IPv6 (RFC 8200 §5).
const MTU_IPV6: u32 = 1_280;
/// Between the metrics of two interfaces' default routes: the first interface's comes first.
const METRIC_STEP: u32 = 100;
/// What is done of this at every boot, and not at the first alone. Its owner's word comes before it.
const VENDOR_DATA: &str = "#cloud-config\n\
    {\"updates\": {\"network\": {\"when\": [\"boot-new-instance\", \"boot\"]}}}\n";

/// A server at its first boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstBoot<'a> {
    /// Its instance id: userdata runs once for each. A server that is rebuilt gets another.
    pub instance: &'a str,
    /// Its name, alone or with a domain.
    pub hostname: &'a str,
    /// Public SSH keys of who may log in, one line each.
    pub keys: &'a [String],
    /// Its interfaces. Of several with a gateway the first is preferred.
    pub interfaces: &'a [Interface],
    /// What its owner wants done.
    pub userdata: Option<&'a Userdata>,
}

/// How one interface is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its hardware address: names of interfaces depend on the system.
    pub mac: Mac,
    /// Its addresses with the length of their subnet's prefix, IPv4 and IPv6.
    pub addresses: Vec<IpNet>,
    /// Where other networks are reached; one for each family at most.
    pub gateways: Vec<IpAddr>,
    /// Whether it asks for an IPv4 address (DHCPv4).
    pub dhcp4: bool,
    /// Whether it asks for an IPv6 address and listens to routers (DHCPv6 and RA).
    pub dhcp6: bool,
    /// Name servers.
    pub nameservers: Vec<IpAddr>,
    /// Domains that are tried with a short name.
    pub search: Vec<String>,
    /// Largest packet in bytes; the system's own default when it is none.
    pub mtu: Option<u32>,
}

/// The files of a seed disk.
#[derive(Clone, PartialEq, Eq)]
pub struct Documents {
    /// `meta-data`.
    pub meta_data: String,
    /// `network-config`.
    pub network_config: String,
    /// `user-data`. It is there also when nobody wants anything: without it there is no seed.
    pub user_data: String,
    /// `vendor-data`: the same for every server.
    pub vendor_data: &'static str,
}

impl Documents {
    /// Every file by its name, sorted.
    pub fn files(&self) -> [(&'static str, &str); 4] {
        [
            ("meta-data", &self.meta_data),
            ("network-config", &self.network_config),
            ("user-data", &self.user_data),
            ("vendor-data", self.vendor_data),
        ]
    }
}

/// Writes the documents.
///
/// # Errors
/// `invalid-field`: a name, a key or an interface is not valid; the detail names the field.
pub fn documents(server: &FirstBoot<'_>) -> Result<Documents, Refusal> {
    check_instance(server.instance)?;
    check_name("hostname", server.hostname)?;
    for (at, key) in server.keys.iter().enumerate() {
        check_key(key).map_err(|why| invalid(&format!("keys[{at}]"), why))?;
    }
    let mut ethernets = BTreeMap::new();
    for (at, interface) in server.interfaces.iter().enumerate() {
        check_interface(interface)
            .map_err(|(field, why)| invalid(&format!("interfaces[{at}].{field}"), &why))?;
        if server.interfaces[..at].iter().any(|other| other.mac == interface.mac) {
            let why = format!("{} is another interface's", interface.mac);
            return Err(invalid(&format!("interfaces[{at}].mac"), &why));
        }
        ethernets.insert(format!("nic{at}"), Ethernet::new(interface, at));
    }
    let meta = MetaData {
        instance_id: server.instance,
        local_hostname: server.hostname,
        public_keys: server.keys,
    };
    let user_data =
        server.userdata.map_or_else(|| "#cloud-config\n".to_owned(), Userdata::delivered);
    Ok(Documents {
        meta_data: json(&meta),
        network_config: json(&NetworkConfig { version: 2, ethernets }),
        user_data,
        vendor_data: VENDOR_DATA,
    })
}

/// The metric of an interface's default routes: of several interfaces the first, 0, comes first.
pub fn metric(at: usize) -> u32 {
    METRIC_STEP.saturating_mul(u32::try_from(at).unwrap_or(u32::MAX).saturating_add(1))
}

fn json(document: &impl Serialize) -> String {
    // Maps with text as keys, lists, text and numbers: nothing that JSON cannot say.
    let mut text = serde_json::to_string_pretty(document).unwrap_or_default();
    text.push('\n');
    text
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct MetaData<'a> {
    instance_id: &'a str,
    local_hostname: &'a str,
    public_keys: &'a [String],
}

#[derive(Serialize)]
struct NetworkConfig {
    version: u8,
    ethernets: BTreeMap<String, Ethernet>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Ethernet {
    #[serde(rename = "match")]
    matching: Match,
    dhcp4: bool,
    dhcp6: bool,
    accept_ra: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
    #[serde(skip_serializing_if = "Nameservers::is_empty")]
    nameservers: Nameservers,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
}

#[derive(Serialize)]
struct Match {
    macaddress: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Route {
    // `default` would be nicer, and is unknown to older systems.
    to: &'static str,
    via: IpAddr,
    metric: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    on_link: bool,
}

#[derive(Serialize)]
struct Nameservers {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<IpAddr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    search: Vec<String>,
}

impl Nameservers {
    fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.search.is_empty()
    }
}

impl Ethernet {
    fn new(interface: &Interface, at: usize) -> Self {
        let route = |via: &IpAddr| Route {
            to: if via.is_ipv4() { "0.0.0.0/0" } else { "::/0" },
            via: *via,
            metric: metric(at),
            on_link: !near(interface, *via),
        };
        Self {
            matching: Match { macaddress: interface.mac.to_string() },
            dhcp4: interface.dhcp4,
            dhcp6: interface.dhcp6,
            accept_ra: interface.dhcp6,
            addresses: interface.addresses.iter().map(ToString::to_string).collect(),
            routes: interface.gateways.iter().map(route).collect(),
            nameservers: Nameservers {
                addresses: interface.nameservers.clone(),
                search: interface.search.clone(),
            },
            mtu: interface.mtu,
        }
    }
}

/// Whether the address is reached without a router: in a subnet, or local to the link.
fn near(interface: &Interface, address: IpAddr) -> bool {
    let local = matches!(address, IpAddr::V6(six) if six.is_unicast_link_local());
    local || interface.addresses.iter().any(|subnet| subnet.contains(&address))
}

fn invalid(field: &str, why: &str) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, format!("{field}: {why}"))
}

fn check_instance(instance: &str) -> Result<(), Refusal> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if instance.is_empty() || instance.len() > 64 || !instance.chars().all(plain) {
        return Err(invalid("instance", "1 to 64 letters, digits, hyphens, dots or underscores"));
    }
    Ok(())
}

/// Checks a host's or a domain's name (RFC 1123 §2.1).
fn check_name(field: &str, name: &str) -> Result<(), Refusal> {
    let label = |label: &str| {
        let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        let why = "letters, digits and hyphens, up to 63 between dots and 253 in all";
        return Err(invalid(field, why));
    }
    Ok(())
}

fn check_key(key: &str) -> Result<(), &'static str> {
    let breaks = |c: char| c.is_control() || "\u{2028}\u{2029}\u{feff}\u{fffe}\u{ffff}".contains(c);
    if key.chars().any(breaks) {
        return Err("a key is one line");
    }
    if key.len() > 16_384 {
        return Err("a key has 16384 bytes at most");
    }
    // Options before the type are allowed in a file of keys, and would let a key do less or more.
    let mut words = key.split(' ');
    let kind = words.next().unwrap_or_default();
    let known = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-sha2-"];
    let body = words.next().unwrap_or_default();
    if !known.iter().any(|known| kind.starts_with(known)) || !body.starts_with("AAAA") {
        return Err("no public SSH key: a type such as ssh-ed25519, its body, a comment");
    }
    Ok(())
}

fn check_interface(interface: &Interface) -> Result<(), (&'static str, String)> {
    for (at, address) in interface.addresses.iter().enumerate() {
        let no = |why: &str| Err(("addresses", format!("{address}: {why}")));
        if interface.addresses[..at].iter().any(|other| other.addr() == address.addr()) {
            return no("it is there twice");
        }
        let ip = address.addr();
        if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
            return no("it is not the address of an interface");
        }
        // A /31 and a /32 have neither name nor broadcast (RFC 3021).
        if let IpNet::V4(net) = address
            && net.prefix_len() < 31
            && (net.addr() == net.network() || net.addr() == net.broadcast())
        {
            return no("it is the subnet's own, or for all in it");
        }
    }
    for (at, gateway) in interface.gateways.iter().enumerate() {
        let no = |why: &str| Err(("gateways", format!("{gateway}: {why}")));
        let same = |other: &IpAddr| other.is_ipv4() == gateway.is_ipv4();
        if interface.gateways[..at].iter().any(same) {
            return no("it is the second of its family");
        }
        let asks = if gateway.is_ipv4() { interface.dhcp4 } else { interface.dhcp6 };
        if !asks && !interface.addresses.iter().any(|address| same(&address.addr())) {
            return no("the interface has no address of its family");
        }
        if interface.addresses.iter().any(|address| address.addr() == *gateway) {
            return no("it is the interface's own address");
        }
    }
    for domain in &interface.search {
        check_name("search", domain).map_err(|why| ("search", format!("{domain:?}: {why}")))?;
    }
    if let Some(mtu) = interface.mtu {
        let six = interface.dhcp6 || interface.addresses.iter().any(|net| net.addr().is_ipv6());
        let least = if six { MTU_IPV6 } else { *MTU.start() };
        if !MTU.contains(&mtu) || mtu < least {
            return Err(("mtu", format!("{mtu} bytes: {least} to {} are possible", MTU.end())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::userdata::System;

    fn interface() -> Interface {
        Interface {
            mac: Mac::ours(1),
            addresses: vec!["192.0.2.9/24".parse().unwrap(), "2001:db8::9/64".parse().unwrap()],
            gateways: vec!["192.0.2.1".parse().unwrap(), "fe80::1".parse().unwrap()],
            dhcp4: false,
            dhcp6: false,
            nameservers: vec!["192.0.2.53".parse().unwrap()],
            search: vec!["example.org".to_owned()],
            mtu: Some(1_450),
        }
    }

    fn key() -> String {
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8 josé@laptop".to_owned()
    }

    fn write(interfaces: &[Interface]) -> Result<Documents, String> {
        let (keys, userdata) = ([key()], Userdata::read("#!/bin/sh\n".to_owned(), System::Linux));
        let server = FirstBoot {
            instance: "i-0199-1",
            hostname: "web-1",
            keys: &keys,
            interfaces,
            userdata: userdata.as_ref().ok(),
        };
        documents(&server).map_err(|refusal| refusal.detail)
    }

    #[test]
    fn a_server_is_told_who_it_is_and_where() {
        let second = Interface {
            mac: Mac::ours(2),
            addresses: vec!["198.51.100.7/32".parse().unwrap()],
            gateways: vec!["198.51.100.1".parse().unwrap()],
            nameservers: vec![],
            search: vec![],
            mtu: None,
            ..interface()
        };
        let third = Interface { mac: Mac::ours(3), dhcp4: true, dhcp6: true, ..second.clone() };
        let third = Interface { addresses: vec![], gateways: vec![], ..third };
        let documents = write(&[interface(), second, third]).unwrap();
        assert_eq!(documents.meta_data, include_str!("golden/meta-data"));
        assert_eq!(documents.network_config, include_str!("golden/network-config"));
        assert_eq!(documents.user_data, "#!/bin/sh\n");
        assert_eq!(documents.vendor_data, include_str!("golden/vendor-data"));
    }

    #[test]
    fn without_userdata_there_is_a_seed_still() {
        let server = FirstBoot {
            instance: "i-1",
            hostname: "a",
            keys: &[],
            interfaces: &[],
            userdata: None,
        };
        assert_eq!(documents(&server).unwrap().user_data, "#cloud-config\n");
    }

    #[test]
    fn what_is_not_valid_is_named() {
        let change = |change: fn(&mut Interface)| {
            let mut interface = interface();
            change(&mut interface);
            write(&[interface]).map_or_else(|why| why, |_| "none".to_owned())
        };
        for (is, why) in [
            (
                change(|it| it.addresses[0] = "192.0.2.255/24".parse().unwrap()),
                "addresses: 192.0.2.255/24: it is the subnet's own, or for all in it",
            ),
            (
                change(|it| it.addresses[1] = "ff02::1/64".parse().unwrap()),
                "addresses: ff02::1/64: it is not the address of an interface",
            ),
            (
                change(|it| it.addresses[1] = "192.0.2.9/25".parse().unwrap()),
                "addresses: 192.0.2.9/25: it is there twice",
            ),
            (
                change(|it| it.gateways[1] = "192.0.2.2".parse().unwrap()),
                "gateways: 192.0.2.2: it is the second of its family",
            ),
            (
                change(|it| it.addresses.truncate(1)),
                "gateways: fe80::1: the interface has no address of its family",
            ),
            (
                change(|it| it.gateways[0] = "192.0.2.9".parse().unwrap()),
                "gateways: 192.0.2.9: it is the interface's own address",
            ),
            (change(|it| it.mtu = Some(1_279)), "mtu: 1279 bytes: 1280 to 65535 are possible"),
            (
                change(|it| it.search = vec!["a b".to_owned()]),
                "search: \"a b\": search: letters, digits and hyphens, up to 63 between dots and \
                 253 in all",
            ),
        ] {
            assert_eq!(is, format!("interfaces[0].{why}"));
        }
        let twice = write(&[interface(), interface()]).map(|_| ()).unwrap_err();
        assert_eq!(twice, "interfaces[1].mac: 52:54:00:00:00:01 is another interface's");
    }

    #[test]
    fn names_and_keys_are_one_line_of_what_they_are() {
        for (key, good) in [
            (key().as_str(), true),
            ("ecdsa-sha2-nistp256 AAAAE2Vj", true),
            ("command=\"sh\" ssh-ed25519 AAAAC3", false),
            ("ssh-ed25519 AAAAC3\nssh-ed25519 AAAAC4", false),
            ("ssh-ed25519 AAAAC3 a\u{85}b", false),
            ("ssh-ed25519", false),
            ("", false),
        ] {
            assert_eq!(check_key(key).is_ok(), good, "{key:?}");
        }
        for (name, good) in [
            ("web-1", true),
            ("web-1.example.org", true),
            ("-web", false),
            ("web-", false),
            ("web..org", false),
            ("wéb", false),
            ("", false),
            (&"a".repeat(64), false),
        ] {
            assert_eq!(check_name("hostname", name).is_ok(), good, "{name}");
        }
        assert!(check_instance("i 1").is_err() && check_instance("").is_err());
    }
}

//! What a host tells its own servers about themselves when they ask: DHCPv4 (RFC 2131), DHCPv6 (RFC 8415)
//! and router advertisements (RFC 4861).
//!
//! ```text
//!   server ─► tap ─► rules: to everybody on the bridge, and past no other port of it ─► this
//!   server ◄─ tap ◄─ bridge ◄─ one frame to the server's hardware address ◄──────────── this
//! ```
//!
//! There is no pool. An interface of a server is told the addresses that the log has given it, and nobody
//! else is told anything: who it is is its hardware address, which the rules against spoofing have looked
//! at. So every host answers its own servers alone, and what one is told does not depend on which host it
//! is on: all hosts answer under one name.
//!
//! Frames are taken from the bridge and sent into it as they are. The host needs no address there, and its
//! bridges have none.
//!
//! **IPv6.** An advertisement says that addresses are had by DHCPv6 (M), which prefix is on the link, who
//! answers questions for names, and how large packets may be. It names no router: that is the router's to
//! say, and its servers' seed has its address. Nobody makes up an address (SLAAC): the rules would let it
//! send nothing.

pub mod frame;
pub mod listen;
pub mod router;
pub mod v4;
pub mod v6;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use domain::network::mac::Mac;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use self::frame::Asked;

/// The hardware address that answers come from: locally administered, and the same on every host.
pub const OURS: [u8; 6] = [0x02, b's', b'k', b'd', b'h', b'c'];
/// The IPv6 address that answers come from.
pub const OURS_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, b's' as u16, b'k' as u16, 0x67);

/// What an interface is told when it asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Its hardware address.
    pub mac: Mac,
    /// Its addresses, with the length of their subnet's prefix. Of each family the first is told, and any
    /// of them confirmed.
    pub addresses: Vec<IpNet>,
    /// Where other networks are reached; at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Who answers questions for names.
    pub dns_servers: Vec<IpAddr>,
    /// The DNS domain; none when empty.
    pub domain: String,
    /// Its server's name.
    pub hostname: String,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// How long an address is good for, in seconds.
    pub lease_s: u32,
}

impl Told {
    fn v4(&self) -> impl Iterator<Item = Ipv4Net> {
        self.addresses.iter().filter_map(|net| match net {
            IpNet::V4(net) => Some(*net),
            IpNet::V6(_) => None,
        })
    }

    fn v6(&self) -> impl Iterator<Item = Ipv6Net> {
        self.addresses.iter().filter_map(|net| match net {
            IpNet::V6(net) => Some(*net),
            IpNet::V4(_) => None,
        })
    }

    fn gateway_v4(&self) -> Option<Ipv4Addr> {
        self.gateways.iter().find_map(|gateway| match gateway {
            IpAddr::V4(gateway) => Some(*gateway),
            IpAddr::V6(_) => None,
        })
    }

    fn dns_v4(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.dns_servers.iter().filter_map(|server| match server {
            IpAddr::V4(server) => Some(*server),
            IpAddr::V6(_) => None,
        })
    }

    fn dns_v6(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.dns_servers.iter().filter_map(|server| match server {
            IpAddr::V6(server) => Some(*server),
            IpAddr::V4(_) => None,
        })
    }

    /// When an address is to be asked for again, and when of anybody: half and seven eighths of its time.
    fn renew_s(&self) -> (u32, u32) {
        (self.lease_s / 2, self.lease_s - self.lease_s / 8)
    }

    /// The frame that answers one; none when it is no question, or not this interface's.
    pub fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let (from, asked) = frame::read(frame)?;
        if from != self.mac.bytes() {
            return None;
        }
        let to = self.mac.bytes();
        match asked {
            Asked::V4 { body } => {
                let (body, source, target) = v4::answer(self, body)?;
                Some(frame::v4(to, (source, target), &body))
            }
            Asked::V6 { source, body } => Some(frame::v6(to, source, &v6::answer(self, body)?)),
            Asked::Routers { source } => {
                let target = if source.is_unspecified() { router::EVERYBODY } else { source };
                Some(frame::icmpv6(to, target, router::advertisement(self)?))
            }
        }
    }
}

/// A DNS name as it is on the wire (RFC 1035 §3.1); empty for one that is none.
fn labels(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let Ok(length @ 1..=63) = u8::try_from(label.len()) else { return Vec::new() };
        wire.push(length);
        wire.extend(label.bytes());
    }
    if wire.is_empty() {
        return wire;
    }
    wire.push(0);
    wire
}

/// Text or numbers of an option, cut at what its length can say.
fn short(bytes: &[u8]) -> (u8, &[u8]) {
    let length = bytes.len().min(usize::from(u8::MAX));
    (length as u8, &bytes[..length])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn told() -> Told {
        Told {
            mac: "52:54:00:00:00:0a".parse().unwrap(),
            addresses: vec!["10.0.0.10/24".parse().unwrap(), "2001:db8::a/64".parse().unwrap()],
            gateways: vec!["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            dns_servers: vec!["10.0.0.2".parse().unwrap(), "2001:db8::2".parse().unwrap()],
            domain: "blue.example.com".to_owned(),
            hostname: "web-1".to_owned(),
            mtu: 1_400,
            lease_s: 3_600,
        }
    }

    #[test]
    fn names_are_labels_on_the_wire() {
        assert_eq!(labels("ab.c"), b"\x02ab\x01c\x00");
        assert_eq!(labels(""), b"");
        assert_eq!(labels(&"a".repeat(64)), b"");
    }

    #[test]
    fn nonsense_is_answered_by_nobody() {
        let told = told();
        for length in 0..400 {
            for byte in [0, 1, 0x45, 0x60, 0x86, 0xdd, 0xff] {
                assert_eq!(told.answer(&vec![byte; length]), None);
            }
        }
    }
}

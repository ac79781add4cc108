//! Router advertisements (RFC 4861, DNS as in RFC 8106): of one that is no router.
//!
//! What they say holds for good, so that nothing has to be said again: a network's prefix does not change
//! under its servers.

use std::net::Ipv6Addr;

use super::{Told, labels};

/// All that listen on a link.
pub const EVERYBODY: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const ADVERTISEMENT: u8 = 134;
/// Addresses and all else are had by DHCPv6.
const MANAGED_AND_OTHER: u8 = 0xc0;
/// The prefix is on the link; nobody makes addresses of it.
const ON_LINK: u8 = 0x80;
const FOR_EVER: [u8; 4] = [0xff; 4];

/// What an interface is told; none when it has no IPv6 address.
pub fn advertisement(told: &Told) -> Option<Vec<u8>> {
    told.v6().next()?;
    // No sum yet, no limit of hops, no router for any time, and nothing about neighbours.
    let mut body = vec![ADVERTISEMENT, 0, 0, 0, 0, MANAGED_AND_OTHER, 0, 0];
    body.extend([0; 8]);
    let mut nets: Vec<_> = told.v6().map(|net| net.trunc()).collect();
    nets.sort_unstable();
    nets.dedup();
    for net in nets {
        body.extend([3, 4, net.prefix_len(), ON_LINK]);
        body.extend(FOR_EVER);
        body.extend(FOR_EVER);
        body.extend([0; 4]);
        body.extend(net.network().octets());
    }
    body.extend([5, 1, 0, 0]);
    body.extend(told.mtu.to_be_bytes());
    let servers: Vec<u8> = told.dns_v6().flat_map(|server| server.octets()).collect();
    if !servers.is_empty() {
        body.extend([25, (servers.len() / 8 + 1) as u8, 0, 0]);
        body.extend(FOR_EVER);
        body.extend(servers);
    }
    let mut domain = labels(&told.domain);
    if !domain.is_empty() {
        domain.resize(domain.len().next_multiple_of(8), 0);
        body.extend([31, (domain.len() / 8 + 1) as u8, 0, 0]);
        body.extend(FOR_EVER);
        body.extend(domain);
    }
    Some(body)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::told, *};

    #[test]
    fn an_advertisement_names_the_prefix_and_no_router() {
        let body = advertisement(&told()).unwrap();
        assert_eq!(body[..8], [134, 0, 0, 0, 0, 0xc0, 0, 0], "no router");
        assert_eq!(body[16..20], [3, 4, 64, 0x80], "on the link, and no address is made of it");
        assert_eq!(body[32..48], "2001:db8::".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(body[48..56], [5, 1, 0, 0, 0, 0, 5, 120]);
        assert_eq!(body[56..58], [25, 3]);
        assert_eq!(body[64..80], "2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(body[80..82], [31, 4]);
        assert_eq!(&body[88..106], b"\x04blue\x07example\x03com\x00");
        assert_eq!(body.len(), 112);
        let four = Told { addresses: vec!["10.0.0.10/24".parse().unwrap()], ..told() };
        assert_eq!(advertisement(&four), None);
    }
}

//! Frames with a question in them, and frames with an answer.
//!
//! A guest may leave the sums of what it sends to its interface, which is memory of the host: those of UDP
//! and ICMPv6 are not looked at. Answers have all of theirs.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{OURS, OURS_V6};

/// Length of an Ethernet header, and what follows: its types.
const ETHERNET: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Length of an IPv6 header.
const HEADER_V6: usize = 40;
/// Numbers of protocols.
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// Ports: of servers and clients of DHCPv4 and DHCPv6.
const PORTS_V4: (u16, u16) = (67, 68);
const PORTS_V6: (u16, u16) = (547, 546);
/// The ICMPv6 message that asks who routes.
const SOLICITATION: u8 = 133;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// Something of DHCPv4.
    V4 {
        /// The message.
        body: &'a [u8],
    },
    /// Something of DHCPv6.
    V6 {
        /// Who asks: an address of the link.
        source: Ipv6Addr,
        /// The message.
        body: &'a [u8],
    },
    /// Who routes.
    Routers {
        /// Who asks; unspecified when it has no address.
        source: Ipv6Addr,
    },
}

fn two(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The body of a UDP packet between these ports.
fn udp(packet: &[u8], (to, from): (u16, u16)) -> Option<&[u8]> {
    if two(packet, 0)? != from || two(packet, 2)? != to {
        return None;
    }
    packet.get(8..usize::from(two(packet, 4)?))
}

/// Which hardware address asks what; none when the frame asks nothing.
pub fn read(frame: &[u8]) -> Option<([u8; 6], Asked<'_>)> {
    let from: [u8; 6] = frame.get(6..12)?.try_into().ok()?;
    let packet = frame.get(ETHERNET..)?;
    let kind = frame.get(12..ETHERNET)?;
    if kind == IPV4 {
        let first = *packet.first()?;
        let (version, header) = (first >> 4, usize::from(first & 0x0f) * 4);
        // Neither does more follow, nor is it from a later place.
        let whole = two(packet, 6)? << 2 == 0;
        if version != 4 || header < 20 || !whole || *packet.get(9)? != UDP {
            return None;
        }
        let body = udp(packet.get(header..usize::from(two(packet, 2)?))?, PORTS_V4)?;
        return Some((from, Asked::V4 { body }));
    }
    if kind != IPV6 || packet.first()? >> 4 != 6 {
        return None;
    }
    let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
    let source = Ipv6Addr::from(source);
    let length = usize::from(two(packet, 4)?);
    let body = packet.get(HEADER_V6..HEADER_V6 + length)?;
    match *packet.get(6)? {
        UDP if source.is_unicast_link_local() => {
            Some((from, Asked::V6 { source, body: udp(body, PORTS_V6)? }))
        }
        // Its hops say that it comes from the link itself.
        ICMPV6 if *body.first()? == SOLICITATION && body.len() >= 8 && *packet.get(7)? == 255 => {
            Some((from, Asked::Routers { source }))
        }
        _ => None,
    }
}

/// The sum of the Internet's protocols (RFC 1071).
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or_default();
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
        }
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A sum of zero is written as its other form: zero says that there is none.
fn udp_sum(parts: &[&[u8]]) -> [u8; 2] {
    match sum(parts) {
        0 => [0xff, 0xff],
        sum => sum.to_be_bytes(),
    }
}

fn ethernet(to: [u8; 6], kind: [u8; 2]) -> Vec<u8> {
    [&to[..], &OURS, &kind].concat()
}

fn udp_packet((from, to): (u16, u16), body: &[u8]) -> Vec<u8> {
    let length = (body.len() + 8) as u16;
    let head = [from, to, length, 0].map(u16::to_be_bytes).concat();
    [&head, body].concat()
}

/// A frame with an answer of DHCPv4.
pub fn v4(to: [u8; 6], (source, target): (Ipv4Addr, Ipv4Addr), body: &[u8]) -> Vec<u8> {
    let mut packet = udp_packet(PORTS_V4, body);
    let length = packet.len() as u16;
    let ends = [source.octets(), target.octets()].concat();
    let pseudo = [&ends[..], &[0, UDP], &length.to_be_bytes()].concat();
    let check = udp_sum(&[&pseudo, &packet]);
    packet[6..8].copy_from_slice(&check);
    let mut header = vec![0x45, 0x10];
    header.extend((length + 20).to_be_bytes());
    header.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
    header.extend(ends);
    let check = sum(&[&header]).to_be_bytes();
    header[10..12].copy_from_slice(&check);
    [ethernet(to, IPV4), header, packet].concat()
}

fn header_v6(protocol: u8, length: usize, target: Ipv6Addr) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend((length as u16).to_be_bytes());
    header.extend([protocol, 255]);
    header.extend(OURS_V6.octets());
    header.extend(target.octets());
    header
}

fn pseudo_v6(protocol: u8, length: usize, target: Ipv6Addr) -> Vec<u8> {
    let length = (length as u32).to_be_bytes();
    [&OURS_V6.octets()[..], &target.octets(), &length, &[0, 0, 0, protocol]].concat()
}

/// A frame with an answer of DHCPv6.
pub fn v6(to: [u8; 6], target: Ipv6Addr, body: &[u8]) -> Vec<u8> {
    let mut packet = udp_packet(PORTS_V6, body);
    let pseudo = pseudo_v6(UDP, packet.len(), target);
    let check = udp_sum(&[&pseudo, &packet]);
    packet[6..8].copy_from_slice(&check);
    [ethernet(to, IPV6), header_v6(UDP, packet.len(), target), packet].concat()
}

/// A frame with a message of ICMPv6, whose sum is at its usual place.
pub fn icmpv6(to: [u8; 6], target: Ipv6Addr, mut body: Vec<u8>) -> Vec<u8> {
    let pseudo = pseudo_v6(ICMPV6, body.len(), target);
    let check = sum(&[&pseudo, &body]).to_be_bytes();
    body[2..4].copy_from_slice(&check);
    [ethernet(to, IPV6), header_v6(ICMPV6, body.len(), target), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_internet() {
        // The example of RFC 1071 §3.
        assert_eq!(!sum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), 0xddf2);
        let ends = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 10));
        let frame = v4([1; 6], ends, b"odd");
        assert_eq!(sum(&[&frame[14..34]]), 0, "with its sum a header comes to nothing");
        let pseudo = [&frame[26..34], &[0, 17, 0, 11]].concat();
        assert_eq!(sum(&[&pseudo, &frame[34..]]), 0);
        let frame = icmpv6([1; 6], Ipv6Addr::LOCALHOST, vec![134, 0, 0, 0, 1, 2, 3]);
        let pseudo = [&frame[22..54], &[0, 0, 0, 7, 0, 0, 0, 58]].concat();
        assert_eq!(sum(&[&pseudo, &frame[54..]]), 0);
    }

    #[test]
    fn fragments_other_ports_and_cut_frames_ask_nothing() {
        let ask = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut packet = udp_packet((68, 67), b"body");
            let mut frame = [[2; 6], [3; 6]].concat();
            frame.extend(IPV4);
            frame.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, UDP, 0, 0]);
            frame.extend([0, 0, 0, 0, 255, 255, 255, 255]);
            frame.append(&mut packet);
            change(&mut frame);
            read(&frame).map(|(from, asked)| (from, format!("{asked:?}")))
        };
        let body = format!("{:?}", Asked::V4 { body: b"body" });
        assert_eq!(ask(&|_| {}), Some(([3; 6], body.clone())));
        assert_eq!(ask(&|frame| frame.extend([0; 20])), Some(([3; 6], body)), "filled up");
        assert_eq!(ask(&|frame| frame[20] = 0x20), None, "more follows");
        assert_eq!(ask(&|frame| frame[37] = 53), None);
        assert_eq!(ask(&|frame| frame[23] = 6), None);
        assert_eq!(ask(&|frame| frame[17] = 99), None, "longer than it is");
        assert_eq!(ask(&|frame| frame[39] = 99), None, "longer than it is");
        assert_eq!(ask(&|frame| frame[39] = 3), None, "shorter than its header");
        for length in 0..46 {
            assert_eq!(ask(&|frame| frame.truncate(length)), None);
        }
    }
}

//! How a port of a guest is reached from its host: by a short-lived interface of ours on the guest's bridge.
//!
//! ```text
//!   agent ─ stdin, stdout ─► process in a network namespace of its own ─ eth0 ═ veth ═ bridge ═ tap ─► guest
//! ```
//!
//! The host has no address in networks of its servers, and two of those may have the same addresses. So a
//! process of its own is in a namespace of its own, with one interface, which the agent plugs into the
//! guest's bridge; there it is a neighbour of the guest's like any other, and the guest's rules let it in
//! or do not. It is of as long a life as its standard input: whatever becomes of the agent, the process
//! ends, and with it its namespace and the interface go. Nothing is left that would have to be looked for.
//!
//! With IPv4 it has an address that the guest's network has lent for it; with IPv6 the link-local one of its
//! hardware address.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV6, TcpStream},
    sync::mpsc,
    time::Duration,
};

use rustix::net::{AddressFamily, SocketType, netdevice};

/// The interface's name in its namespace.
pub const LINK: &str = "eth0";
/// What the process says first: it is in its namespace.
pub const HERE: &[u8] = b"here\n";
/// What it says when it has reached the port; bytes of the port follow.
pub const OPEN: &[u8] = b"open\n";
/// How long the port may take to answer, whichever of the guest's addresses it does at.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an address is tried before the next one is tried, too: a guest is not to see two that connect.
const HEAD_START: Duration = Duration::from_secs(1);
/// How much is read at once, in bytes.
const PIECE_BYTES: usize = 16 << 10;

/// A hardware address: locally administered, of one station. It follows from the address that is lent, for the
/// same one may be lent again at once, and the guest still knows where that was; without one from a random id.
pub fn hardware(id: u128, lent: Option<Ipv4Addr>) -> [u8; 6] {
    if let Some(lent) = lent {
        let [a, b, c, d] = lent.octets();
        return [0x02, 0x5b, a, b, c, d];
    }
    let bytes = id.to_be_bytes();
    [0x02, bytes[11], bytes[12], bytes[13], bytes[14], bytes[15]]
}

/// The hardware address of the interface's other end, which is on the bridge. A bridge has the lowest address of
/// its ports for its own, and everybody on it would have to learn another one when this end comes and when
/// it goes: so it is a high one, as those of taps are, and higher than theirs.
pub fn on_the_bridge(mac: [u8; 6]) -> [u8; 6] {
    let [_, _, a, b, c, d] = mac;
    [0xfe, 0xff, a, b, c, d]
}

/// A hardware address in words.
pub fn words(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The link-local address that follows from a hardware address (RFC 4291, appendix A).
pub fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let mut bytes = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 0];
    bytes[8..11].copy_from_slice(&mac[..3]);
    bytes[8] ^= 2;
    bytes[13..].copy_from_slice(&mac[3..]);
    bytes.into()
}

/// What `ip -batch` is to do in the namespace: these guest's addresses are reached over its interface. The
/// addresses of the guest are on the link, whatever its subnet is.
pub fn batch(mac: [u8; 6], mtu: u32, lent: Option<Ipv4Addr>, guest: &[IpAddr]) -> String {
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("link set {LINK} mtu {mtu}"),
        format!("link set {LINK} addrgenmode none"),
        format!("link set {LINK} up"),
        // Nobody else has it: it follows from chance, or from an address that one alone has.
        format!("address add {}/64 dev {LINK} nodad", link_local(mac)),
    ];
    lines.extend(lent.map(|lent| format!("address add {lent}/32 dev {LINK}")));
    for to in guest {
        match (to, lent) {
            (IpAddr::V4(to), Some(lent)) => {
                lines.push(format!("route add {to}/32 dev {LINK} src {lent}"));
            }
            (IpAddr::V6(to), _) if !to.is_unicast_link_local() => {
                lines.push(format!("route add {to}/128 dev {LINK}"));
            }
            _ => {}
        }
    }
    lines.join("\n") + "\n"
}

/// The process: says that it is here, waits for a byte, reaches the port at one of these addresses, and
/// carries bytes between that and its standard input and output until either ends.
///
/// # Errors
/// Nobody hears it.
pub fn carry(guest: &[IpAddr], port: u16) -> io::Result<()> {
    let said = |words: &[u8]| io::stdout().write_all(words).and_then(|()| io::stdout().flush());
    said(HERE)?;
    io::stdin().read_exact(&mut [0])?;
    let stream = match first(guest, port) {
        Ok(stream) => stream,
        Err(why) => return said(format!("{why}\n").as_bytes()),
    };
    said(OPEN)?;
    let _ = stream.set_nodelay(true);
    let (to_guest, from_guest) = (stream.try_clone()?, stream);
    let (ends, ended) = mpsc::channel();
    let also = ends.clone();
    std::thread::spawn(move || {
        let _ = pass(&mut io::stdin(), &mut &to_guest);
        let _ = to_guest.shutdown(Shutdown::Both);
        ends.send(())
    });
    std::thread::spawn(move || {
        let _ = pass(&mut &from_guest, &mut io::stdout());
        also.send(())
    });
    // What still goes on ends with this process.
    let _ = ended.recv();
    Ok(())
}

fn pass(from: &mut impl io::Read, to: &mut impl io::Write) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let bytes = from.read(&mut piece)?;
        if bytes == 0 {
            return Ok(());
        }
        to.write_all(&piece[..bytes])?;
        to.flush()?;
    }
}

/// The first address that answers; otherwise what the last one said.
fn first(guest: &[IpAddr], port: u16) -> Result<TcpStream, String> {
    let scope = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None)
        .and_then(|any| netdevice::name_to_index(&any, LINK))
        .map_err(|fault| format!("{LINK}: {fault}"))?;
    let (send, answers) = mpsc::channel();
    let mut said = Vec::new();
    for to in guest {
        let address = match to {
            IpAddr::V4(_) => SocketAddr::new(*to, port),
            IpAddr::V6(to) => {
                let scope = if to.is_unicast_link_local() { scope } else { 0 };
                SocketAddrV6::new(*to, port, 0, scope).into()
            }
        };
        let (answer, to) = (send.clone(), *to);
        std::thread::spawn(move || {
            let stream = TcpStream::connect_timeout(&address, PATIENCE);
            answer.send(stream.map_err(|fault| format!("{to}: {fault}")))
        });
        match answers.recv_timeout(HEAD_START) {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(why)) => said.push(why),
            Err(_) => {}
        }
    }
    drop(send);
    for answer in answers {
        match answer {
            Ok(stream) => return Ok(stream),
            Err(why) => said.push(why),
        }
    }
    said.sort();
    Err(said.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_s_addresses_are_on_the_link() {
        let mac = hardware(0x0199_aaaa_bbbb_cccc_dddd_0102_0304_0506, None);
        assert_eq!(mac, [0x02, 0x02, 0x03, 0x04, 0x05, 0x06]);
        assert_eq!(link_local(mac).to_string(), "fe80::2:3ff:fe04:506");
        // The example of RFC 4291.
        let example = [0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde];
        assert_eq!(link_local(example).to_string(), "fe80::3656:78ff:fe9a:bcde");
        let guest = ["10.0.0.9", "2001:db8::9", "fe80::9"].map(|one| one.parse().unwrap());
        let lent = Some(Ipv4Addr::new(10, 0, 0, 200));
        assert_eq!(hardware(1, lent), hardware(2, lent), "a guest remembers where that was");
        let expected = "link set lo up\n\
            link set eth0 mtu 1400\n\
            link set eth0 addrgenmode none\n\
            link set eth0 up\n\
            address add fe80::2:3ff:fe04:506/64 dev eth0 nodad\n\
            address add 10.0.0.200/32 dev eth0\n\
            route add 10.0.0.9/32 dev eth0 src 10.0.0.200\n\
            route add 2001:db8::9/128 dev eth0\n";
        assert_eq!(batch(mac, 1_400, lent, &guest), expected);
        assert!(!batch(mac, 1_400, None, &guest).contains("10.0.0"), "no address was lent");
    }
}

//! DHCPv4 (RFC 2131), options of RFC 2132 and classless routes (RFC 3442).
//!
//! The server is called by the gateway's address, where there is one: a client that renews its address asks
//! it of the gateway, and the host's rules turn that to here.

use std::net::Ipv4Addr;

use super::{Told, short};

/// Lengths of the fixed part and of the shortest message that is sent.
const FIXED: usize = 236;
const LENGTH_MIN: usize = 300;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Called by this where there is no gateway.
const NOBODY: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);

/// Kinds of messages.
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
const INFORM: u8 = 8;

/// Options.
const PAD: u8 = 0;
const MASK: u8 = 1;
const ROUTER: u8 = 3;
const DNS: u8 = 6;
const HOSTNAME: u8 = 12;
const DOMAIN: u8 = 15;
const MTU: u8 = 26;
const REQUESTED: u8 = 50;
const LEASE: u8 = 51;
const KIND: u8 = 53;
const SERVER: u8 = 54;
const WANTED: u8 = 55;
const RENEW: u8 = 58;
const REBIND: u8 = 59;
const CLIENT: u8 = 61;
const ROUTES: u8 = 121;
const END: u8 = 255;

/// The options of a message; the first of each counts.
struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    fn find(&self, wanted: u8) -> Option<&'a [u8]> {
        let mut rest = self.0;
        loop {
            match *rest {
                [PAD, ref after @ ..] => rest = after,
                [END, ..] | [] => return None,
                [kind, length, ref after @ ..] => {
                    let (body, after) = after.split_at_checked(usize::from(length))?;
                    if kind == wanted {
                        return Some(body);
                    }
                    rest = after;
                }
                [_] => return None,
            }
        }
    }

    fn address(&self, wanted: u8) -> Option<Ipv4Addr> {
        let four: [u8; 4] = self.find(wanted)?.try_into().ok()?;
        Some(Ipv4Addr::from(four))
    }
}

fn put(options: &mut Vec<u8>, kind: u8, body: &[u8]) {
    let (length, body) = short(body);
    if length > 0 {
        options.extend([kind, length]);
        options.extend(body);
    }
}

/// What is answered, from which address and to which; none when nothing is.
pub fn answer(told: &Told, asked: &[u8]) -> Option<(Vec<u8>, Ipv4Addr, Ipv4Addr)> {
    let own = told.v4().next()?;
    let server = told.gateway_v4().unwrap_or(NOBODY);
    // A question of a client on Ethernet, and not one that a relay has brought.
    let is_question = asked.get(..3)? == [1, 1, 6];
    let relay = asked.get(24..28)?;
    let hardware = asked.get(28..34)?;
    if !is_question || relay != [0; 4] || hardware != told.mac.bytes() {
        return None;
    }
    if asked.get(FIXED..FIXED + 4)? != COOKIE {
        return None;
    }
    let options = Options(asked.get(FIXED + 4..)?);
    let has: [u8; 4] = asked.get(12..16)?.try_into().ok()?;
    let has = Ipv4Addr::from(has);
    let kind = match *options.find(KIND)? {
        [DISCOVER] => OFFER,
        [REQUEST] => {
            if options.address(SERVER).is_some_and(|other| other != server) {
                return None;
            }
            let asks = options.address(REQUESTED).unwrap_or(has);
            if asks.is_unspecified() {
                return None;
            }
            if told.v4().any(|net| net.addr() == asks) { ACK } else { NAK }
        }
        // It has its address, and asks for the rest.
        [INFORM] => ACK,
        _ => return None,
    };
    let asks = options.address(REQUESTED).unwrap_or(has);
    let given = told.v4().find(|net| net.addr() == asks).unwrap_or(own);
    let is_inform = options.find(KIND)? == [INFORM];

    let mut body = vec![0; FIXED];
    body[..3].copy_from_slice(&[2, 1, 6]);
    body[4..8].copy_from_slice(asked.get(4..8)?);
    body[10..12].copy_from_slice(asked.get(10..12)?);
    body[28..34].copy_from_slice(hardware);
    if kind != NAK {
        body[12..16].copy_from_slice(&has.octets());
        if !is_inform {
            body[16..20].copy_from_slice(&given.addr().octets());
        }
    }
    body.extend(COOKIE);
    put(&mut body, KIND, &[kind]);
    put(&mut body, SERVER, &server.octets());
    if let Some(client) = options.find(CLIENT) {
        put(&mut body, CLIENT, client);
    }
    if kind != NAK {
        if !is_inform {
            let (renew, rebind) = told.renew_s();
            put(&mut body, LEASE, &told.lease_s.to_be_bytes());
            put(&mut body, RENEW, &renew.to_be_bytes());
            put(&mut body, REBIND, &rebind.to_be_bytes());
        }
        put(&mut body, MASK, &given.netmask().octets());
        if let Some(gateway) = told.gateway_v4() {
            put(&mut body, ROUTER, &gateway.octets());
            // Who asks for routes does not look at the router.
            if options.find(WANTED).is_some_and(|wanted| wanted.contains(&ROUTES)) {
                put(&mut body, ROUTES, &[&[0][..], &gateway.octets()].concat());
            }
        }
        let dns: Vec<u8> = told.dns_v4().flat_map(|server| server.octets()).collect();
        put(&mut body, DNS, &dns);
        put(&mut body, HOSTNAME, told.hostname.as_bytes());
        put(&mut body, DOMAIN, told.domain.as_bytes());
        let mtu = u16::try_from(told.mtu).unwrap_or(u16::MAX);
        put(&mut body, MTU, &mtu.to_be_bytes());
    }
    body.push(END);
    body.resize(body.len().max(LENGTH_MIN), 0);

    let wants_all = asked.get(10)? & 0x80 != 0;
    let target = match kind {
        NAK => Ipv4Addr::BROADCAST,
        _ if !has.is_unspecified() => has,
        _ if wants_all => Ipv4Addr::BROADCAST,
        _ => given.addr(),
    };
    Some((body, server, target))
}

#[cfg(test)]
mod tests {
    use super::{super::tests::told, *};

    fn ask(kind: u8, has: [u8; 4], options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut asked = vec![0; FIXED];
        asked[..3].copy_from_slice(&[1, 1, 6]);
        asked[4..8].copy_from_slice(b"4321");
        asked[12..16].copy_from_slice(&has);
        asked[28..34].copy_from_slice(&told().mac.bytes());
        asked.extend(COOKIE);
        put(&mut asked, KIND, &[kind]);
        for (kind, body) in options {
            put(&mut asked, *kind, body);
        }
        asked.push(END);
        asked
    }

    fn says(asked: &[u8]) -> Option<(u8, Ipv4Addr, Ipv4Addr)> {
        let (body, _, target) = answer(&told(), asked)?;
        let kind = Options(&body[FIXED + 4..]).find(KIND).unwrap()[0];
        Some((kind, <[u8; 4]>::try_from(&body[16..20]).unwrap().into(), target))
    }

    const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
    const NONE: [u8; 4] = [0; 4];

    #[test]
    fn an_interface_is_told_exactly_what_is_its_own() {
        let (body, source, target) =
            answer(&told(), &ask(DISCOVER, NONE, &[(WANTED, &[1, 121])])).unwrap();
        assert_eq!((source, target), (Ipv4Addr::new(10, 0, 0, 1), OWN));
        assert_eq!((&body[..4], &body[4..8]), (&[2, 1, 6, 0][..], &b"4321"[..]));
        let options = Options(&body[FIXED + 4..]);
        let expected: [(u8, &[u8]); 14] = [
            (KIND, &[OFFER]),
            (SERVER, &[10, 0, 0, 1]),
            (LEASE, &[0, 0, 14, 16]),
            (RENEW, &[0, 0, 7, 8]),
            (REBIND, &[0, 0, 12, 78]),
            (MASK, &[255, 255, 255, 0]),
            (ROUTER, &[10, 0, 0, 1]),
            (ROUTES, &[0, 10, 0, 0, 1]),
            (DNS, &[10, 0, 0, 2]),
            (HOSTNAME, b"web-1"),
            (DOMAIN, b"blue.example.com"),
            (MTU, &[5, 120]),
            (KIND, &[OFFER]),
            (SERVER, &[10, 0, 0, 1]),
        ];
        for (kind, body) in expected {
            assert_eq!(options.find(kind), Some(body), "{kind}");
        }
        let alone = Told { gateways: vec![], dns_servers: vec![], domain: String::new(), ..told() };
        let (body, source, _) = answer(&alone, &ask(DISCOVER, NONE, &[(WANTED, &[121])])).unwrap();
        assert_eq!(source, NOBODY);
        for kind in [ROUTER, ROUTES, DNS, DOMAIN] {
            assert_eq!(Options(&body[FIXED + 4..]).find(kind), None, "{kind}");
        }
    }

    #[test]
    fn another_address_is_refused_and_another_s_question_left_alone() {
        let own = OWN.octets();
        assert_eq!(says(&ask(REQUEST, NONE, &[(REQUESTED, &own)])), Some((ACK, OWN, OWN)));
        assert_eq!(says(&ask(REQUEST, own, &[])), Some((ACK, OWN, OWN)), "renewed");
        let wrong = [10, 0, 0, 11];
        let nothing = Ipv4Addr::UNSPECIFIED;
        let no = Some((NAK, nothing, Ipv4Addr::BROADCAST));
        assert_eq!(says(&ask(REQUEST, NONE, &[(REQUESTED, &wrong)])), no);
        assert_eq!(says(&ask(REQUEST, wrong, &[])), no);
        assert_eq!(says(&ask(REQUEST, NONE, &[])), None);
        assert_eq!(says(&ask(REQUEST, NONE, &[(REQUESTED, &own), (SERVER, &[10, 0, 0, 9])])), None);
        assert_eq!(says(&ask(INFORM, own, &[])), Some((ACK, nothing, OWN)));
        for kind in [0, OFFER, 4, ACK, NAK, 7, 9] {
            assert_eq!(says(&ask(kind, own, &[])), None, "{kind}");
        }
        let mut other = ask(DISCOVER, NONE, &[]);
        other[33] += 1;
        assert_eq!(says(&other), None, "another hardware address");
        let mut relayed = ask(DISCOVER, NONE, &[]);
        relayed[24] = 10;
        assert_eq!(says(&relayed), None);
        let mut all = ask(DISCOVER, NONE, &[]);
        all[10] = 0x80;
        assert_eq!(says(&all), Some((OFFER, OWN, Ipv4Addr::BROADCAST)));
        let six = Told { addresses: vec!["2001:db8::a/64".parse().unwrap()], ..told() };
        assert_eq!(answer(&six, &ask(DISCOVER, NONE, &[])), None);
    }

    #[test]
    fn a_message_that_is_cut_anywhere_is_left_alone_or_answered() {
        let whole = ask(REQUEST, NONE, &[(REQUESTED, &OWN.octets()), (CLIENT, b"me")]);
        for length in 0..whole.len() {
            let _ = answer(&told(), &whole[..length]);
        }
        let (body, ..) = answer(&told(), &whole).unwrap();
        assert_eq!(Options(&body[FIXED + 4..]).find(CLIENT), Some(&b"me"[..]));
    }
}

//! DHCPv6 (RFC 8415), with names as in RFC 3646 and RFC 4704.

use std::net::Ipv6Addr;

use super::{OURS, Told, labels};

/// Kinds of messages.
const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const CONFIRM: u8 = 4;
const RENEW: u8 = 5;
const REBIND: u8 = 6;
const REPLY: u8 = 7;
const RELEASE: u8 = 8;
const DECLINE: u8 = 9;
const INFORMATION: u8 = 11;

/// Options.
const CLIENT: u16 = 1;
const SERVER: u16 = 2;
const ADDRESSES: u16 = 3;
const PASSING: u16 = 4;
const ADDRESS: u16 = 5;
const WANTED: u16 = 6;
const STATUS: u16 = 13;
const RAPID: u16 = 14;
const DNS: u16 = 23;
const DOMAINS: u16 = 24;
const PREFIXES: u16 = 25;
const NAME: u16 = 39;

/// What became of something.
const SUCCESS: u16 = 0;
const NO_ADDRESS: u16 = 2;
const NOT_ON_LINK: u16 = 4;
const NO_PREFIX: u16 = 6;

/// Options one after the other; what is cut is not there.
fn options(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (head, after) = rest.split_at_checked(4)?;
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (body, after) = after.split_at_checked(length)?;
        rest = after;
        Some((kind, body))
    })
}

fn put(out: &mut Vec<u8>, kind: u16, body: &[u8]) {
    // Bodies are made here, and short.
    let Ok(length) = u16::try_from(body.len()) else { return };
    out.extend(kind.to_be_bytes());
    out.extend(length.to_be_bytes());
    out.extend(body);
}

fn status(out: &mut Vec<u8>, status: u16) {
    put(out, STATUS, &status.to_be_bytes());
}

/// The server's name: by its hardware address (DUID-LL).
fn server() -> Vec<u8> {
    [&[0, 3, 0, 1][..], &OURS].concat()
}

fn address(body: &[u8]) -> Option<Ipv6Addr> {
    let bytes: [u8; 16] = body.get(..16)?.try_into().ok()?;
    Some(Ipv6Addr::from(bytes))
}

/// The addresses that a client has in all that it names.
fn named(body: &[u8]) -> impl Iterator<Item = Ipv6Addr> {
    let all = options(body).filter(|(kind, _)| *kind == ADDRESSES);
    all.flat_map(|(_, body)| named_in(body))
}

fn named_in(association: &[u8]) -> impl Iterator<Item = Ipv6Addr> {
    let inner = options(association.get(12..).unwrap_or_default());
    inner.filter(|(kind, _)| *kind == ADDRESS).filter_map(|(_, body)| address(body))
}

/// An address, for so long.
fn put_address(out: &mut Vec<u8>, address: Ipv6Addr, seconds: u32) {
    let seconds = seconds.to_be_bytes();
    put(out, ADDRESS, &[&address.octets()[..], &seconds, &seconds].concat());
}

/// What one association is answered; the first has the addresses, and any other none.
fn associate(told: &Told, association: &[u8], first: bool) -> Option<Vec<u8>> {
    let mut out = association.get(..4)?.to_vec();
    if !first {
        out.extend([0; 8]);
        status(&mut out, NO_ADDRESS);
        return Some(out);
    }
    let own = told.v6().next()?.addr();
    let (renew, rebind) = told.renew_s();
    out.extend(renew.to_be_bytes());
    out.extend(rebind.to_be_bytes());
    put_address(&mut out, own, told.lease_s);
    // What it has and may not have is over.
    for other in named_in(association).filter(|other| *other != own) {
        let is_own = told.v6().any(|net| net.addr() == other);
        put_address(&mut out, other, if is_own { told.lease_s } else { 0 });
    }
    Some(out)
}

/// What is answered; none when nothing is.
pub fn answer(told: &Told, asked: &[u8]) -> Option<Vec<u8>> {
    told.v6().next()?;
    let (head, body) = asked.split_at_checked(4)?;
    let find = |wanted: u16| options(body).find(|(kind, _)| *kind == wanted).map(|(_, body)| body);
    let (client, names) = (find(CLIENT), find(SERVER));
    let ours = server();
    let is_named = names == Some(&ours[..]);
    let kind = match head[0] {
        SOLICIT | CONFIRM | REBIND if names.is_some() => return None,
        REQUEST | RENEW | RELEASE | DECLINE if !is_named => return None,
        INFORMATION if names.is_some() && !is_named => return None,
        SOLICIT if find(RAPID).is_none() => ADVERTISE,
        SOLICIT | REQUEST | CONFIRM | RENEW | REBIND | RELEASE | DECLINE | INFORMATION => REPLY,
        _ => return None,
    };
    if client.is_none() && head[0] != INFORMATION {
        return None;
    }
    let mut out = vec![kind, head[1], head[2], head[3]];
    put(&mut out, SERVER, &ours);
    if let Some(client) = client {
        put(&mut out, CLIENT, client);
    }
    match head[0] {
        CONFIRM => {
            let mut all = named(body).peekable();
            all.peek()?;
            let are_on_link = all.all(|one| told.v6().any(|net| net.contains(&one)));
            status(&mut out, if are_on_link { SUCCESS } else { NOT_ON_LINK });
            return Some(out);
        }
        RELEASE | DECLINE => {
            status(&mut out, SUCCESS);
            return Some(out);
        }
        INFORMATION => {}
        _ => {
            let mut first = true;
            for (kind, body) in options(body) {
                match kind {
                    ADDRESSES => {
                        put(&mut out, ADDRESSES, &associate(told, body, first)?);
                        first = false;
                    }
                    PASSING => {
                        let mut none = body.get(..4)?.to_vec();
                        status(&mut none, NO_ADDRESS);
                        put(&mut out, PASSING, &none);
                    }
                    PREFIXES => {
                        let mut none = [body.get(..4)?, &[0; 8]].concat();
                        status(&mut none, NO_PREFIX);
                        put(&mut out, PREFIXES, &none);
                    }
                    _ => {}
                }
            }
            if head[0] == SOLICIT && kind == REPLY {
                put(&mut out, RAPID, &[]);
            }
        }
    }
    let dns: Vec<u8> = told.dns_v6().flat_map(|server| server.octets()).collect();
    if !dns.is_empty() {
        put(&mut out, DNS, &dns);
    }
    let domain = labels(&told.domain);
    if !domain.is_empty() {
        put(&mut out, DOMAINS, &domain);
    }
    let wants_name =
        find(WANTED).is_some_and(|wanted| wanted.chunks(2).any(|one| one == NAME.to_be_bytes()));
    if wants_name || find(NAME).is_some() {
        let name = match told.domain.as_str() {
            "" => told.hostname.clone(),
            domain => format!("{}.{domain}", told.hostname),
        };
        // Whoever has the name writes it into DNS, and not its host.
        put(&mut out, NAME, &[&[0x04][..], &labels(&name)].concat());
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::told, *};

    const ME: (u16, &[u8]) = (CLIENT, b"\x00\x03\x00\x01me");

    fn ask(kind: u8, all: &[(u16, &[u8])]) -> Vec<u8> {
        let mut asked = vec![kind, 1, 2, 3];
        for (kind, body) in all {
            put(&mut asked, *kind, body);
        }
        asked
    }

    fn association(number: u8, addresses: &[&str]) -> Vec<u8> {
        let mut body = vec![0, 0, 0, number];
        body.extend([0; 8]);
        for address in addresses {
            put_address(&mut body, address.parse().unwrap(), 60);
        }
        body
    }

    /// The kind of an answer, its addresses with their time, and its options.
    #[expect(clippy::type_complexity, reason = "a test's own")]
    fn says(asked: &[u8]) -> Option<(u8, Vec<(Ipv6Addr, u32)>, Vec<(u16, Vec<u8>)>)> {
        let said = answer(&told(), asked)?;
        assert_eq!(said[1..4], [1, 2, 3]);
        let all: Vec<_> = options(&said[4..]).map(|(kind, body)| (kind, body.to_vec())).collect();
        let inner = all.iter().filter(|(kind, _)| *kind == ADDRESSES);
        let addresses = inner.flat_map(|(_, body)| {
            let inner = options(&body[12..]).filter(|(kind, _)| *kind == ADDRESS);
            let inner = inner.map(|(_, body)| {
                let seconds = u32::from_be_bytes(body[20..24].try_into().unwrap());
                (address(body).unwrap(), seconds)
            });
            inner.collect::<Vec<_>>()
        });
        Some((said[0], addresses.collect(), all))
    }

    fn own() -> Vec<(Ipv6Addr, u32)> {
        vec![("2001:db8::a".parse().unwrap(), 3_600)]
    }

    #[test]
    fn an_interface_is_told_exactly_its_address_and_who_knows_names() {
        let asked = ask(SOLICIT, &[ME, (ADDRESSES, &association(7, &[])), (WANTED, &[0, 39])]);
        let (kind, addresses, all) = says(&asked).unwrap();
        assert_eq!((kind, addresses), (ADVERTISE, own()));
        let find = |wanted: u16| {
            all.iter().find(|(kind, _)| *kind == wanted).map(|(_, body)| body.clone())
        };
        assert_eq!(find(CLIENT), Some(ME.1.to_vec()));
        assert_eq!(find(SERVER), Some(server()));
        assert_eq!(find(DNS), Some("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets().to_vec()));
        assert_eq!(find(DOMAINS), Some(b"\x04blue\x07example\x03com\x00".to_vec()));
        assert_eq!(find(NAME), Some(b"\x04\x05web-1\x04blue\x07example\x03com\x00".to_vec()));
        let association = find(ADDRESSES).unwrap();
        assert_eq!(association[..12], [0, 0, 0, 7, 0, 0, 7, 8, 0, 0, 12, 78]);
    }

    #[test]
    fn each_question_has_its_answer_and_only_where_this_server_is_asked() {
        let (ours, other) = (server(), [9; 10]);
        let (mine, none) = (association(1, &["2001:db8::a"]), association(1, &[]));
        let me = (ADDRESSES, &mine[..]);
        let says = |kind, all: &[_]| says(&ask(kind, all)).map(|(kind, all, _)| (kind, all));
        let own = || Some((REPLY, own()));
        assert_eq!(says(SOLICIT, &[ME, (RAPID, &[]), (ADDRESSES, &none)]), own());
        assert_eq!(says(REQUEST, &[ME, (SERVER, &ours), me]), own());
        assert_eq!(says(RENEW, &[ME, (SERVER, &ours), me]), own());
        assert_eq!(says(REBIND, &[ME, me]), own());
        assert_eq!(says(REQUEST, &[ME, (SERVER, &other), me]), None);
        assert_eq!(says(RENEW, &[ME, me]), None);
        assert_eq!(says(SOLICIT, &[ME, (SERVER, &ours), me]), None);
        assert_eq!(says(SOLICIT, &[me]), None, "nobody asks");
        let wrong = association(1, &["2001:db8::b"]);
        let over = vec![self::own()[0], ("2001:db8::b".parse().unwrap(), 0)];
        assert_eq!(
            says(RENEW, &[ME, (SERVER, &ours), (ADDRESSES, &wrong)]),
            Some((REPLY, over)),
            "what it may not have is over"
        );
        let both = [ME, (ADDRESSES, &none[..]), (ADDRESSES, &none[..])];
        assert_eq!(says(SOLICIT, &both), Some((ADVERTISE, self::own())), "it has one address");
        assert_eq!(says(INFORMATION, &[]), Some((REPLY, vec![])));
        for kind in [0, ADVERTISE, REPLY, 10, 12, 13] {
            assert_eq!(says(kind, &[ME, me]), None, "{kind}");
        }
    }

    #[test]
    fn what_became_of_it_is_said() {
        let status = |kind, all: &[_]| {
            let (_, _, all) = says(&ask(kind, all))?;
            let found = all.into_iter().find(|(kind, _)| *kind == STATUS)?;
            Some(u16::from_be_bytes(found.1.try_into().unwrap()))
        };
        let (here, there) = (association(1, &["2001:db8::a"]), association(1, &["2001:db9::a"]));
        let ours = server();
        assert_eq!(status(CONFIRM, &[ME, (ADDRESSES, &here)]), Some(SUCCESS));
        assert_eq!(status(CONFIRM, &[ME, (ADDRESSES, &there)]), Some(NOT_ON_LINK));
        assert_eq!(status(RELEASE, &[ME, (SERVER, &ours)]), Some(SUCCESS));
    }

    #[test]
    fn a_message_that_is_cut_anywhere_is_left_alone_or_answered() {
        let mine = association(1, &["2001:db8::a"]);
        let whole = ask(RENEW, &[ME, (SERVER, &server()), (ADDRESSES, &mine), (PREFIXES, &mine)]);
        for length in 0..whole.len() {
            let _ = answer(&told(), &whole[..length]);
        }
        assert!(answer(&told(), &whole).is_some());
        let four = Told { addresses: vec!["10.0.0.10/24".parse().unwrap()], ..told() };
        assert_eq!(answer(&four, &whole), None);
    }
}

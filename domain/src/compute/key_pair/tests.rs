//! Keys of `ssh-keygen`, keys that are none, and the life of a key pair.

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::DateTime;

use super::*;

/// What `ssh-keygen -l` said of keys that `ssh-keygen` made, and the keys: bits, fingerprint, line.
const SAMPLES: &str = include_str!("samples.txt");

fn samples() -> impl Iterator<Item = (u32, &'static str, &'static str)> {
    SAMPLES.lines().map(|line| {
        let mut words = line.splitn(3, ' ');
        let mut next = || words.next().unwrap();
        (next().parse().unwrap(), next(), next())
    })
}

fn line(algorithm: &str, bits: u32) -> &'static str {
    let fits = |sample: &(u32, &str, &str)| sample.0 == bits && sample.2.starts_with(algorithm);
    samples().find(fits).unwrap().2
}

fn refusal(line: &str) -> String {
    let refusal = line.parse::<PublicKey>().unwrap_err();
    assert_eq!(refusal.code.code, "invalid-field");
    refusal.detail
}

/// A key of this wire format.
fn of(algorithm: &str, parts: &[&[u8]]) -> String {
    let mut blob = Vec::new();
    for part in [algorithm.as_bytes()].iter().chain(parts) {
        blob.extend((part.len() as u32).to_be_bytes());
        blob.extend(*part);
    }
    format!("{algorithm} {}", BASE64_STANDARD.encode(blob))
}

#[test]
fn keys_are_read_as_openssh_reads_them() {
    let mut read = 0;
    for (bits, fingerprint, line) in samples().filter(|(bits, ..)| *bits != 1_024) {
        for text in [line.to_owned(), format!("{line}\n"), format!("{line}\r\n")] {
            let key: PublicKey = text.parse().unwrap();
            assert_eq!(
                (key.bits, key.fingerprint.as_str(), key.line.as_str()),
                (bits, fingerprint, line)
            );
        }
        let bare = line.rsplit_once(' ').unwrap().0;
        assert_eq!(bare.parse::<PublicKey>().unwrap().line, bare);
        read += 1;
    }
    assert_eq!(read, 5);
}

#[test]
fn an_rsa_key_that_is_too_short_is_refused() {
    let detail = refusal(line("ssh-rsa", 1_024));
    assert_eq!(detail, "public_key: an RSA key has 2048 to 16384 bits, this has 1024");
}

#[test]
fn a_private_key_is_refused_and_not_repeated() {
    let detail = refusal("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END");
    assert_eq!(detail, "public_key: this is the private half; it stays with whoever made it");
    let blob = format!("ssh-ed25519 {}", "c2VjcmV0".repeat(4));
    assert!(!refusal(&blob).contains("c2VjcmV0"));
}

#[test]
fn nothing_but_a_key_is_let_in() {
    let good = line("ssh-ed25519", 256);
    let key = good.split(' ').nth(1).unwrap();
    for odd in [
        String::new(),
        "ssh-ed25519".to_owned(),
        // Options would let somebody run something.
        format!("command=\"id\" {good}"),
        format!("{good}\n{good}"),
        format!("{good}\t"),
        format!("{good}{}", "a".repeat(256)),
        format!("ssh-ed25519  {key}"),
        format!("ssh-rsa {key}"),
        format!("ssh-dss {key}"),
        format!("ssh-ed25519 {}", &key[4..]),
        format!("ssh-ed25519 {key}="),
        of("ssh-ed25519", &[&[7; 31]]),
        of("ssh-ed25519", &[&[7; 32], &[7]]),
        of("ssh-dss", &[&[7; 32]]),
        of("sk-ssh-ed25519@openssh.com", &[&[7; 32], b"ssh:"]),
        of("ecdsa-sha2-nistp256", &[b"nistp256", &[3; 33]]),
        of("ecdsa-sha2-nistp256", &[b"nistp384", &[4; 65]]),
        of("ecdsa-sha2-nistp256", &[b"nistp256", &[2; 65]]),
        of("ecdsa-sha2-nistp256", &[b"nistp256", &[]]),
    ] {
        refusal(&odd);
    }
}

#[test]
fn an_rsa_key_is_two_odd_numbers_in_as_few_bytes_as_they_take() {
    let modulus = |first: &[u8]| [first, &[0x81; 255]].concat();
    let (good, even) = (modulus(&[0, 0x81]), [vec![0x7f; 299], vec![2]].concat());
    let read =
        |exponent: &[u8], modulus: &[u8]| of("ssh-rsa", &[exponent, modulus]).parse::<PublicKey>();
    assert_eq!(read(&[1, 0, 1], &good).unwrap().bits, 2_048);
    assert_eq!(read(&[3], &modulus(&[1, 0x81])).unwrap().bits, 2_049);
    for (exponent, modulus) in [
        (&[1, 0, 1][..], modulus(&[0x81])),   // Below zero.
        (&[1, 0, 1], modulus(&[0, 0, 0x81])), // A zero too many.
        (&[1, 0, 1], modulus(&[0, 0x7f])),    // The same.
        (&[1, 0, 1], even),
        (&[1, 0, 1], vec![]),
        (&[1], good.clone()),
        (&[2], good.clone()),
        (&[0], good.clone()),
        (&[], good.clone()),
    ] {
        assert!(read(exponent, &modulus).is_err(), "{exponent:?} {modulus:?}");
    }
}

fn check(given: &[Event], when: Command, then: Result<&[Event], &str>) {
    let state = given.iter().cloned().fold(KeyPair::default(), Decider::evolve);
    let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
    let got = state.decide(when, &stamp);
    assert_eq!(got.as_deref().map_err(|no| no.code.code), then);
}

#[test]
fn a_key_is_replaced_only_after_it_was_retired() {
    let (one, other) = (line("ssh-ed25519", 256), line("ssh-rsa", 2_048));
    let define = |name: &str, line: &str| Command::Define {
        name: name.into(),
        project: None,
        public_key: line.into(),
    };
    let defined = |line: &str| Event::Defined {
        name: "ann".into(),
        project: None,
        key: line.parse().unwrap(),
    };
    check(&[], Command::Retire {}, Err("not-found"));
    check(&[], define("ann", one), Ok(&[defined(one)]));
    check(&[defined(one)], define("ann", one), Ok(&[]));
    check(&[defined(one)], define("ann", other), Err("already-exists"));
    check(&[defined(one)], define("bob", one), Err("invalid-field"));
    let retired = [defined(one), Event::Retired {}];
    check(&retired, Command::Retire {}, Ok(&[]));
    check(&retired, define("ann", other), Ok(&[defined(other)]));
    let claims = KeyPair::default().claims(&[defined(one)]);
    assert_eq!(claims, ["key-pair/-/ann"]);
}

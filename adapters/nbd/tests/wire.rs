//! A server that says what it should not, and one that says what it may. That a whole disk goes over it is shown on
//! `qemu-nbd`, in the tests of backups.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{io::ErrorKind, time::Duration};

use adapters_nbd::{Export, Wire, in_time};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const REQUEST_BYTES: usize = 28;

/// What a server says to begin with.
fn greeting() -> Vec<u8> {
    let mut out = 0x4e42_444d_4147_4943_u64.to_be_bytes().to_vec();
    out.extend(0x4948_4156_454f_5054_u64.to_be_bytes());
    out.extend(3_u16.to_be_bytes());
    out
}

fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut out = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
    for word in [option, kind, data.len() as u32] {
        out.extend(word.to_be_bytes());
    }
    out.extend(data);
    out
}

fn chunk(flags: u16, kind: u16, cookie: u64, data: &[u8]) -> Vec<u8> {
    let mut out = 0x668e_33ef_u32.to_be_bytes().to_vec();
    out.extend(flags.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(cookie.to_be_bytes());
    out.extend((data.len() as u32).to_be_bytes());
    out.extend(data);
    out
}

fn at(offset: u64, data: &[u8]) -> Vec<u8> {
    [&offset.to_be_bytes(), data].concat()
}

/// A wire that has shaken hands, and the other end, which has read nothing but that.
async fn wire() -> (Wire<DuplexStream>, DuplexStream) {
    let (ours, mut other) = duplex(1 << 16);
    other.write_all(&greeting()).await.unwrap();
    let wire = Wire::begin(ours).await.unwrap();
    assert_eq!(other.read_u32().await.unwrap(), 3);
    (wire, other)
}

/// What a read of 8 bytes from 16 on comes to when this is the answer.
async fn read(answer: &[Vec<u8>]) -> std::io::Result<Vec<u8>> {
    let (mut wire, mut other) = wire().await;
    other.write_all(&answer.concat()).await.unwrap();
    let read = wire.read(16, 8).await;
    let mut request = [0; REQUEST_BYTES];
    other.read_exact(&mut request).await.unwrap();
    assert_eq!(request[6..8], [0, 0]);
    assert_eq!(request[16..], [&16_u64.to_be_bytes()[..], &8_u32.to_be_bytes()].concat());
    read
}

#[tokio::test]
async fn what_does_not_speak_the_protocol_is_not_spoken_to() {
    for (place, value) in [(0, 0x48), (8, 0x48), (17, 0)] {
        let (ours, mut other) = duplex(1 << 10);
        let mut said = greeting();
        said[place] = value;
        other.write_all(&said).await.unwrap();
        let error = Wire::begin(ours).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{place}");
    }
}

#[tokio::test]
async fn an_export_says_how_large_it_is_and_what_it_can_do() {
    let (mut wire, mut other) = wire().await;
    let info =
        [&[0, 0][..], &(5_u64 << 30).to_be_bytes(), &(1_u16 | 1 << 6).to_be_bytes()].concat();
    other.write_all(&option_reply(7, 3, &info)).await.unwrap();
    other.write_all(&option_reply(7, 1, &[])).await.unwrap();
    assert_eq!(wire.go("d").await.unwrap(), Export { bytes: 5 << 30, has_zeroes: true });

    // Without a size it is not used, and what is refused says why.
    other.write_all(&option_reply(7, 1, &[])).await.unwrap();
    assert!(wire.go("d").await.unwrap_err().to_string().contains("how large"));
    other.write_all(&option_reply(7, 1 << 31 | 6, b"no such export")).await.unwrap();
    assert!(wire.go("d").await.unwrap_err().to_string().contains("no such export"));
}

#[tokio::test]
async fn contexts_are_found_by_their_names_and_may_be_missing() {
    let (mut wire, mut other) = wire().await;
    let told = [&7_u32.to_be_bytes()[..], b"base:allocation"].concat();
    other.write_all(&option_reply(10, 4, &told)).await.unwrap();
    other.write_all(&option_reply(10, 1, &[])).await.unwrap();
    let ids = wire.contexts("", &["qemu:dirty-bitmap:b", "base:allocation"]).await.unwrap();
    assert_eq!(ids, [None, Some(7)]);
}

#[tokio::test]
async fn pieces_of_a_read_come_in_any_order_and_holes_are_zeros() {
    let pieces = [
        chunk(0, 1, 1, &at(20, b"abc")),
        chunk(0, 2, 1, &at(23, &1_u32.to_be_bytes())),
        chunk(1, 1, 1, &at(16, b"wxyz")),
    ];
    assert_eq!(read(&pieces).await.unwrap(), b"wxyzabc\0");
}

#[tokio::test]
async fn what_was_not_asked_for_is_not_taken() {
    for (what, answer) in [
        ("another place", chunk(1, 1, 1, &at(15, b"12345678"))),
        ("another place", chunk(1, 1, 1, &at(17, b"12345678"))),
        ("another place", chunk(1, 1, 1, &at(u64::MAX, b"12345678"))),
        ("longer than", chunk(1, 1, 1, &at(16, b"123456789"))),
        ("another request", chunk(1, 1, 2, &at(16, b"12345678"))),
        ("less came", chunk(1, 1, 1, &at(16, b"1234567"))),
        ("cut off", chunk(1, 1, 1, &[0; 4])),
        ("is none", vec![0; 20]),
    ] {
        let error = read(&[answer]).await.unwrap_err().to_string();
        assert!(error.contains(what), "{what}: {error}");
    }
}

#[tokio::test]
async fn a_refusal_keeps_its_reason_and_nothing_is_asked_after_it() {
    let no_space = [&28_u32.to_be_bytes()[..], &5_u16.to_be_bytes(), b"full!"].concat();
    let (mut wire, mut other) = wire().await;
    other.write_all(&chunk(1, 1 << 15 | 1, 1, &no_space)).await.unwrap();
    let error = wire.write(0, b"x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(error.to_string().contains("full!"), "{error}");

    let mut request = [0; REQUEST_BYTES + 1];
    other.read_exact(&mut request).await.unwrap();
    let error = wire.flush().await.unwrap_err();
    assert!(error.to_string().contains("broken off"), "{error}");
    drop(wire);
    let mut rest = Vec::new();
    other.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty(), "{rest:?}");
}

#[tokio::test]
async fn a_stretch_is_told_of_by_each_context_as_far_as_it_likes() {
    let (mut wire, mut other) = wire().await;
    let words =
        |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
    other.write_all(&chunk(0, 5, 1, &words(&[7, 4096, 3, 512, 0]))).await.unwrap();
    other.write_all(&chunk(1, 5, 1, &words(&[8, 4096, 1]))).await.unwrap();
    let told = wire.status(0, 8192).await.unwrap();
    assert_eq!(told, [(7, vec![(4096, 3), (512, 0)]), (8, vec![(4096, 1)])]);
}

#[tokio::test]
async fn who_does_not_answer_is_given_up() {
    let nothing = std::future::pending::<std::io::Result<()>>();
    let error = in_time(Duration::from_millis(1), nothing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

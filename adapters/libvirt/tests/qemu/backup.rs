//! A running server's disk is backed up, into a stand-in for S3, and comes back.

use std::{path::Path, sync::Arc, time::SystemTime};

use adapters_backup::{
    Asked, Store,
    chunk::{BYTES_MIN, Seal},
    nbd::{self, Offer},
    objects::s3::{Bucket, Keys, S3},
    target::RawFile,
};
use adapters_clouds::testing::Hand;
use adapters_libvirt::{Code, Offered, Pull, State, description::Source};
use uuid::Uuid;

use crate::host::{Guest, Host, PATIENCE};

const DISK: Uuid = Uuid::from_u128(0xd15c);

async fn store() -> Store {
    let url = std::env::var("SKYLEDGER_TEST_AWS").expect("SKYLEDGER_TEST_AWS: run ./test");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let name = format!("running-{now}");
    let made = Hand::new(&url).object("PUT", &name, Vec::new()).await.unwrap();
    assert_eq!(made.status, 200, "{made:?}");
    let bucket =
        Bucket { endpoint: Some(url), region: "us-east-1".into(), name, prefix: String::new() };
    let keys = Keys { access_key_id: "AKIASKYLEDGERTEST00".into(), secret_access_key: "x".into() };
    Store::new(Arc::new(S3::new(bucket, keys).unwrap()), Seal::with(&[5; 32]))
}

fn asked(backup: u128, parent: Option<u128>) -> Asked {
    Asked {
        backup: Uuid::from_u128(backup),
        disk: DISK,
        parent: parent.map(Uuid::from_u128),
        checkpoint: None,
        taken_at: chrono::DateTime::UNIX_EPOCH,
        chunk_bytes: BYTES_MIN,
    }
}

fn pull(host: &Host, since: Option<&str>, checkpoint: &str) -> Pull {
    let path = |name: &str| host.disks.path().join(name).display().to_string();
    Pull {
        socket: path("backup.socket"),
        disks: vec![Offered { target: "vda".into(), scratch: path("scratch") }],
        left_out: Vec::new(),
        since: since.map(str::to_owned),
        checkpoint: Some(checkpoint.to_owned()),
    }
}

/// What a counter says that the guest writes into a sector.
fn counter(disk: &[u8], at_mib: usize) -> u64 {
    let text = std::str::from_utf8(&disk[at_mib << 20..][..8]).unwrap();
    text.parse().unwrap()
}

async fn count(guest: &Guest<'_>) -> u64 {
    guest
        .run("dd if=/dev/vda bs=512 skip=65536 count=1 iflag=direct 2>/dev/null | head -c 8")
        .await
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_running_disk_is_backed_up_as_it_was_at_a_moment_and_then_what_has_changed() {
    let Some(host) = Host::of_tests().await else { return };
    let store = store().await;
    let server = host.server("backed-up");
    let mut guest = host.define(&server).await;
    guest.start("usual").await;
    guest.run("dd if=/dev/urandom of=/dev/vda bs=64k count=48 conv=fsync 2>/dev/null").await;
    // Forever: a number into one sector, and when it is there into another.
    let write = |at: u32| {
        format!("printf %08d $n | dd of=/dev/vda bs=512 seek={at} conv=sync,fsync 2>/dev/null")
    };
    let forever = format!(
        "(n=0; while [ ! -e /run/enough ]; do n=$((n+1)); {}; {}; done; touch /run/ended) \
         >/dev/null 2>&1 &",
        write(65_536),
        write(98_304)
    );
    guest.run(&forever).await;
    guest
        .becomes(
            "test -e /dev/vda && dd if=/dev/vda bs=512 skip=98304 count=1 2>/dev/null | head -c 1",
            "0",
        )
        .await;
    let (libvirt, domain) = (&guest.libvirt, &guest.domain);
    assert_eq!(libvirt.backup(domain).await.unwrap(), None);

    let first = pull(&host, None, "one");
    libvirt.begin_backup(domain, &first).await.unwrap();
    let going = libvirt.backup(domain).await.unwrap().unwrap();
    assert!(going.contains(&first.socket), "{going}");
    // It goes on writing, and the moment stays.
    let at_first = count(&guest).await;
    let began = std::time::Instant::now();
    while count(&guest).await <= at_first {
        assert!(began.elapsed() < PATIENCE, "the guest does not write");
    }
    let socket = Path::new(&first.socket);
    let offer = Offer { socket, export: "vda", bitmap: None };
    let disk = nbd::Disk::connect(offer).await.unwrap();
    let full = store.take(&asked(1, None), &disk).await.unwrap();
    disk.close().await.unwrap();
    libvirt.end_backup(domain, PATIENCE).await.unwrap();
    assert_eq!(libvirt.backup(domain).await.unwrap(), None);
    assert_eq!(full.size_bytes, 64 << 20);
    assert!(full.read_bytes < 8 << 20, "what is empty is not read: {}", full.read_bytes);
    assert_eq!(libvirt.checkpoints(domain).await.unwrap(), ["one"]);
    assert_eq!(guest.state().await, State::Running);

    let back = host.disks.path().join("first.raw");
    let into = RawFile::create(&back, full.size_bytes).await.unwrap();
    store.restore((DISK, full.backup), Some(&full.digest()), &into).await.unwrap();
    let bytes = std::fs::read(&back).unwrap();
    let (one, two) = (counter(&bytes, 32), counter(&bytes, 48));
    assert!(one == two || one == two + 1, "no moment is {one} and {two}");
    assert!(one <= at_first, "{one} was written after {at_first}");

    guest.run("touch /run/enough").await;
    guest.becomes("ls /run/ended", "/run/ended").await;
    guest
        .run("dd if=/dev/urandom of=/dev/vda bs=64k seek=100 count=2 conv=fsync 2>/dev/null")
        .await;
    let second = pull(&host, Some("one"), "two");
    libvirt.begin_backup(domain, &second).await.unwrap();
    let bitmap = Pull::bitmap("vda");
    let offer = Offer { bitmap: Some(&bitmap), ..offer };
    let disk = nbd::Disk::connect(offer).await.unwrap();
    let more = store.take(&asked(2, Some(1)), &disk).await.unwrap();
    disk.close().await.unwrap();
    libvirt.end_backup(domain, PATIENCE).await.unwrap();
    // Two chunks and the two counters, in steps of the bitmap.
    assert!(
        more.read_bytes <= 6 * u64::from(BYTES_MIN),
        "{} of {}",
        more.read_bytes,
        full.read_bytes
    );
    assert_eq!(libvirt.checkpoints(domain).await.unwrap(), ["one", "two"]);
    libvirt.delete_checkpoint(domain, "one").await.unwrap();
    assert_eq!(libvirt.checkpoints(domain).await.unwrap(), ["two"]);
    let gone = libvirt.delete_checkpoint(domain, "one").await.unwrap_err();
    assert!(gone.is(Code::NO_CHECKPOINT), "{gone}");
    let since = libvirt.begin_backup(domain, &pull(&host, Some("one"), "three")).await.unwrap_err();
    assert!(since.code().is_some(), "{since}");
    assert_eq!(libvirt.backup(domain).await.unwrap(), None);

    libvirt.destroy(domain).await.unwrap();
    guest.told(5).await;
    let back = host.disks.path().join("second.raw");
    let into = RawFile::create(&back, more.size_bytes).await.unwrap();
    store.restore((DISK, more.backup), Some(&more.digest()), &into).await.unwrap();
    let Some(Source::File(path)) = &server.disks[0].source else { panic!("{server:?}") };
    let words = ["qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, back.to_str().unwrap()];
    Host::runs(&words);
}

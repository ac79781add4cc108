//! The client against a real libvirt daemon with QEMU, which emulates tiny guests that have the real
//! agent; `virsh` is the second opinion.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::{Duration, Instant};

use adapters_libvirt::{
    Affects, Code, Leave, Limit, Limits, Shutdown, State,
    description::{Description, Source},
};

#[path = "qemu/backup.rs"]
mod backup;
#[path = "qemu/host.rs"]
mod host;

use host::{Host, PATIENCE, nic};

/// What libvirt picks by itself: the board's version, the host's end of the wire.
fn as_asked(mut read: Description) -> Description {
    assert!(read.machine.as_deref().is_some_and(|machine| machine.contains("q35")), "{read:?}");
    read.machine = Some("q35".to_owned());
    for nic in &mut read.nics {
        nic.port = None;
    }
    read
}

#[tokio::test]
async fn a_server_is_started_held_asked_to_stop_and_turned_off() {
    let Some(host) = Host::of_tests().await else { return };
    let server = host.server("starts");
    let mut guest = host.define(&server).await;
    assert_eq!(guest.told(0).await, 0, "defined");
    assert_eq!(as_asked(guest.described(Affects::Config).await), server);
    guest.start("usual").await;
    assert_eq!(guest.told(2).await, 0, "started");
    assert_eq!(as_asked(guest.described(Affects::Live).await), server);
    assert_eq!(host.virsh(&["domstate", "starts"]), "running");
    let again = guest.libvirt.start(&guest.domain, false).await.unwrap_err();
    assert!(again.is(Code::OPERATION_INVALID) && again.is_answer(), "{again}");

    guest.ping().await.unwrap();
    assert_eq!(guest.run("cat /sys/class/net/eth0/address").await, "52:54:00:00:00:01");
    assert_eq!(
        guest.run("cat /sys/block/vda/size /sys/block/vda/serial").await,
        "131072\nserial-vda"
    );

    guest.libvirt.suspend(&guest.domain).await.unwrap();
    guest.told(3).await;
    assert_eq!(guest.state().await, State::Paused);
    let deaf =
        guest.libvirt.agent(&guest.domain, r#"{"execute": "guest-ping"}"#, Duration::from_secs(1));
    let deaf = deaf.await.unwrap_err();
    assert!(deaf.code().is_some(), "{deaf}");
    guest.libvirt.resume(&guest.domain).await.unwrap();
    assert_eq!(guest.state().await, State::Running);

    guest.libvirt.shutdown(&guest.domain, Shutdown::PowerButton).await.unwrap();
    assert_eq!(guest.told(5).await, 0, "it has shut down");
    assert_eq!(guest.state().await, State::Off);
    assert_eq!(host.virsh(&["domstate", "starts"]), "shut off");

    guest.start("usual").await;
    guest.libvirt.shutdown(&guest.domain, Shutdown::Agent).await.unwrap();
    assert_eq!(guest.told(5).await, 0, "it has shut down");

    let paused = guest.libvirt.start(&guest.domain, true).await.unwrap();
    assert_eq!(guest.state().await, State::Paused);
    guest.libvirt.destroy(&paused).await.unwrap();
    assert_eq!(guest.told(5).await, 1, "its power was taken away");
    let again = guest.libvirt.destroy(&guest.domain).await.unwrap_err();
    assert!(again.is(Code::OPERATION_INVALID), "{again}");
    guest.libvirt.undefine(&guest.domain, Leave::default()).await.unwrap();
    assert!(guest.libvirt.domain(server.uuid).await.unwrap_err().is(Code::NO_DOMAIN));
}

#[tokio::test]
async fn disks_and_cards_come_and_go_while_a_guest_runs() {
    let Some(host) = Host::of_tests().await else { return };
    let server = host.server("changes");
    let mut guest = host.define(&server).await;
    guest.start("usual").await;
    let disk = host.disk("vdb", 32);
    guest.libvirt.attach(&guest.domain, &disk.xml(), Affects::Both).await.unwrap();
    guest.becomes("cat /sys/block/vdb/serial", "serial-vdb").await;
    let twice = guest.libvirt.attach(&guest.domain, &disk.xml(), Affects::Live).await.unwrap_err();
    assert!(twice.code().is_some(), "{twice}");
    guest.run("echo kept | dd of=/dev/vdb conv=fsync").await;

    // It grows under the guest's eyes, and keeps what is on it.
    guest.libvirt.resize_disk(&guest.domain, "vdb", 48 << 20).await.unwrap();
    guest.becomes("cat /sys/block/vdb/size", &(48_u64 << 11).to_string()).await;
    assert_eq!(guest.run("head -n 1 /dev/vdb").await, "kept");
    let said = host.virsh(&["domblkinfo", "changes", "vdb"]);
    assert!(said.contains(&(48 << 20).to_string()), "{said}");

    let card = nic("52:54:00:00:00:02");
    guest.libvirt.attach(&guest.domain, &card.xml(), Affects::Live).await.unwrap();
    guest.becomes("cat /sys/class/net/eth1/address", &card.mac).await;
    let described = as_asked(guest.described(Affects::Live).await);
    assert_eq!(described.disks, [server.disks[0].clone(), disk.clone()]);
    assert_eq!(described.nics, [server.nics[0].clone(), card.clone()]);
    let described = guest.described(Affects::Config).await;
    assert_eq!((described.disks.len(), described.nics.len()), (2, 1));

    guest.libvirt.detach(&guest.domain, &card.xml(), Affects::Live).await.unwrap();
    guest.libvirt.detach(&guest.domain, &disk.xml(), Affects::Both).await.unwrap();
    guest.becomes("ls /sys/block | grep vd; ls /sys/class/net | grep eth", "vda\neth0").await;
    let began = Instant::now();
    loop {
        let live = guest.described(Affects::Live).await;
        if (live.disks.len(), live.nics.len()) == (1, 1) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{live:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(as_asked(guest.described(Affects::Config).await), server);
    let missing =
        guest.libvirt.detach(&guest.domain, &disk.xml(), Affects::Live).await.unwrap_err();
    assert!(missing.is(Code::DEVICE_MISSING) || missing.is(Code::OPERATION_FAILED), "{missing:?}");
}

#[tokio::test]
async fn a_disk_is_throttled_while_a_guest_writes() {
    let Some(host) = Host::of_tests().await else { return };
    let mut guest = host.define(&host.server("slow")).await;
    guest.start("usual").await;
    assert_eq!(
        guest.libvirt.limits(&guest.domain, "vda", Affects::Live).await.unwrap(),
        Limits::new()
    );
    let limits: Limits = [(Limit::WriteBytes, 1 << 20), (Limit::ReadOperations, 500)].into();
    guest.libvirt.set_limits(&guest.domain, "vda", &limits, Affects::Both).await.unwrap();
    for of in [Affects::Live, Affects::Config] {
        assert_eq!(guest.libvirt.limits(&guest.domain, "vda", of).await.unwrap(), limits);
    }
    assert_eq!(guest.described(Affects::Config).await.disks[0].limits, limits);
    let said = host.virsh(&["blkdeviotune", "slow", "vda", "--live"]);
    assert!(said.lines().any(|line| line == "write_bytes_sec: 1048576"), "{said}");

    let write = "dd if=/dev/zero of=/dev/vda bs=64k count=48 oflag=direct 2>&1 | tail -n 1";
    let began = Instant::now();
    guest.run(write).await;
    // Three MiB at one a second, of which some come at once.
    assert!(began.elapsed() > Duration::from_millis(1_500), "{:?}", began.elapsed());

    // A burst, then none of it any more.
    let burst: Limits = [
        (Limit::WriteBytes, 1 << 20),
        (Limit::WriteBytesBurst, 64 << 20),
        (Limit::WriteBytesBurstSeconds, 5),
    ]
    .into();
    guest.libvirt.set_limits(&guest.domain, "vda", &burst, Affects::Live).await.unwrap();
    assert_eq!(guest.libvirt.limits(&guest.domain, "vda", Affects::Live).await.unwrap(), burst);
    guest.libvirt.set_limits(&guest.domain, "vda", &Limits::new(), Affects::Both).await.unwrap();
    for of in [Affects::Live, Affects::Config] {
        let limits = guest.libvirt.limits(&guest.domain, "vda", of).await.unwrap();
        assert_eq!(limits, Limits::new(), "{of:?}");
    }
}

#[tokio::test]
async fn a_server_is_rescued_with_its_disk_and_started_as_before() {
    let Some(host) = Host::of_tests().await else { return };
    let mut server = host.server("rescued");
    server.disks[0].boot = Some(1);
    let mut guest = host.define(&server).await;
    guest.start("usual").await;
    guest.run("echo broken | dd of=/dev/vda conv=fsync").await;
    guest.libvirt.destroy(&guest.domain).await.unwrap();
    guest.told(5).await;

    let rescued = server.rescued(host.kernel("rescue"));
    guest.domain = guest.libvirt.run(&rescued.xml()).await.unwrap();
    guest.told(2).await;
    guest.reach().await;
    assert_eq!(guest.run("sed 's/.*guest=//' /proc/cmdline").await, "rescue");
    assert_eq!(guest.run("head -n 1 /dev/vda").await, "broken");
    guest.run("echo repaired | dd of=/dev/vda conv=fsync").await;
    assert_eq!(as_asked(guest.described(Affects::Live).await), rescued);
    assert_eq!(as_asked(guest.described(Affects::Config).await), server, "what is defined stays");
    guest.libvirt.shutdown(&guest.domain, Shutdown::Agent).await.unwrap();
    guest.told(5).await;

    guest.start("usual").await;
    assert_eq!(guest.run("head -n 1 /dev/vda").await, "repaired");
    let Some(Source::File(path)) = &server.disks[0].source else { panic!("{server:?}") };
    let said = host.virsh(&["domblklist", "rescued"]);
    assert!(said.contains(path.as_str()), "{said}");
}

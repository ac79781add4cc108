//! What is done with a server that is there, as its guest and its host see it.

use adapters_kvm::driver::{Side, Step};
use commands::ports::DriverFault;
use domain::compute::server::{Order, Power};
use serde_json::json;

use crate::host::{CHPASSWD, End, Guest, Host, Launch, PASSWORD, Stopper, seen};

const BOOT: &str = "cat /proc/sys/kernel/random/boot_id";

fn userdata() -> String {
    format!("#!/bin/sh\ncat >/bin/chpasswd <<'END'\n{CHPASSWD}END\nchmod +x /bin/chpasswd\n")
}

/// The same server of another size, as the log has it once that is confirmed.
fn resized(server: &Launch, vcpus: u32, memory_mib: u64) -> (Launch, Order) {
    let mut state = serde_json::to_value(&server.state).unwrap();
    state["home"]["spec"]["vcpus"] = json!(vcpus);
    state["home"]["spec"]["memory_mib"] = json!(memory_mib);
    let holding = &mut state["home"]["placement"]["holding"];
    holding["vcpus"] = json!(vcpus);
    holding["memory_mib"] = json!(memory_mib);
    let placement = serde_json::from_value(state["home"]["placement"].clone()).unwrap();
    let mut after = server.clone();
    after.state = serde_json::from_value(state).unwrap();
    (after, Order::Resize { vcpus, memory_mib, flavour: None, placement })
}

#[tokio::test]
async fn a_server_is_held_sized_otherwise_and_given_passwords() {
    let Some(host) = Host::of_tests().await else { return };
    let mut driver = host.driver().await;
    let server = host.launch(22, "lab", &userdata());
    server.done(&driver, 1, Order::Launch {}).await;
    let guest = Guest::ready(&host, server.id).await;
    let boot = guest.run(BOOT).await;

    let points = [(End::Dies, Side::Before), (End::Fails, Side::Before), (End::Dies, Side::After)];
    for (number, order, step, power) in [
        (2, Order::Suspend {}, Step::Suspend, Power::Suspended),
        (3, Order::Resume {}, Step::Resume, Power::Running),
    ] {
        drop(driver);
        for (end, side) in points {
            host.cut(end, (step, side), &server.order(number, &order)).await;
        }
        driver = host.driver().await;
        assert_eq!(server.done(&driver, number, order).await.power, power);
        assert_eq!(driver.powers().await.unwrap()[&server.id].power, power);
    }
    let guest = Guest::ready(&host, server.id).await;
    assert_eq!(guest.run(BOOT).await, boot, "it went on");

    let set = Order::SetPassword { user: "root".into(), password: "sealed".into() };
    assert_eq!(server.done(&driver, 4, set).await.power, Power::Running);
    guest.becomes("cat /run/passwords", &format!("root:{PASSWORD}")).await;

    // One that is held and is to stop loses its power: it hears nothing.
    server.done(&driver, 5, Order::Suspend {}).await;
    assert_eq!(server.done(&driver, 6, Order::Stop {}).await.power, Power::Stopped);
    let (larger, resize) = resized(&server, 2, 128);
    let machine = server.done(&driver, 7, resize).await;
    assert_eq!((machine.power, machine.shape.as_str()), (Power::Stopped, "2x128"));
    // Given up instead: what the log says is what it is started with.
    let machine = server.done(&driver, 8, Order::Start {}).await;
    assert_eq!(machine.shape, "1x96");
    server.done(&driver, 9, Order::Suspend {}).await;
    server.done(&driver, 10, Order::Stop {}).await;
    let machine = larger.done(&driver, 11, Order::Start {}).await;
    assert_eq!((machine.power, machine.shape.as_str()), (Power::Running, "2x128"));
    let guest = Guest::ready(&host, server.id).await;
    assert_eq!(guest.run("nproc").await, "2");
    // This boot has no program that takes passwords: the guest says so, and what it says is told.
    let set = Order::SetPassword { user: "root".into(), password: "sealed".into() };
    let fault = driver.carry_out(&larger.order(12, &set)).await.unwrap_err();
    assert!(matches!(fault, DriverFault::Rejected(_)), "{fault}");
    let told = fault.to_string();
    assert!(told.contains("no password of root") && !told.contains(PASSWORD), "{told}");
    server.removed(&driver, 13).await;
}

/// The same server, launched with room to grow.
fn with_room(server: &Launch, vcpus_max: u32, memory_max_mib: u64) -> Launch {
    let mut state = serde_json::to_value(&server.state).unwrap();
    state["home"]["spec"]["vcpus_max"] = json!(vcpus_max);
    state["home"]["spec"]["memory_max_mib"] = json!(memory_max_mib);
    let mut with_room = server.clone();
    with_room.state = serde_json::from_value(state).unwrap();
    with_room
}

#[tokio::test]
async fn a_server_that_runs_grows_and_its_guest_uses_what_was_added() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    let server = with_room(&host.launch(24, "sk-test-24", "#!/bin/sh\n"), 3, 512);
    server.done(&driver, 1, Order::Launch {}).await;
    let guest = Guest::ready(&host, server.id).await;
    let boot = guest.run(BOOT).await;
    let memory = async || {
        let told = guest.run("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo").await;
        told.parse::<u64>().unwrap() >> 10
    };
    assert_eq!(guest.run("nproc").await, "1");
    let at_first = memory().await;

    // Cut off before and after, it goes on from what is there.
    let (larger, resize) = resized(&server, 2, 96 + 128);
    drop(driver);
    for end in [End::Dies, End::Fails] {
        for side in [Side::Before, Side::After] {
            host.cut(end, (Step::Grow, side), &server.order(2, &resize)).await;
        }
    }
    let driver = host.driver().await;
    for _ in 0..2 {
        let machine = server.done(&driver, 2, resize.clone()).await;
        assert_eq!((machine.power, machine.shape.as_str()), (Power::Running, "2x224"));
    }
    assert_eq!(guest.run("nproc").await, "2");
    let now = memory().await;
    assert!((at_first + 100..=at_first + 128).contains(&now), "{at_first} MiB, then {now}");
    assert_eq!(guest.run(BOOT).await, boot, "it was not started again");
    // Once more, from what it has come to have; and then it starts with all of it.
    let (largest, resize) = resized(&larger, 3, 96 + 256);
    assert_eq!(larger.done(&driver, 3, resize).await.shape, "3x352");
    assert_eq!(guest.run("nproc").await, "3");
    largest.done(&driver, 4, Order::Stop {}).await;
    assert_eq!(largest.done(&driver, 5, Order::Start {}).await.shape, "3x352");
    let guest = Guest::ready(&host, server.id).await;
    assert_eq!(guest.run("nproc").await, "3");
    server.removed(&driver, 6).await;
}

#[tokio::test]
async fn a_server_is_rescued_from_memory_with_its_disks_and_comes_back_from_them() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    let server = host.launch(23, "sk-test-23", "#!/bin/sh\necho kept >/state/kept\n");
    server.done(&driver, 1, Order::Launch {}).await;
    let guest = Guest::ready(&host, server.id).await;
    let boot = guest.run(BOOT).await;
    let census = driver.census().await.unwrap();

    let system = host.rescue_system();
    let mut missing = system.clone();
    missing.initramfs.push_str(".not-there");
    let rescue = |system| Order::Rescue { system, password: "sealed".into() };
    let fault = driver.carry_out(&server.order(2, &rescue(missing))).await.unwrap_err();
    assert!(matches!(fault, DriverFault::Rejected(_)), "{fault}");
    assert!(fault.to_string().contains("nothing was stopped"), "{fault}");
    assert_eq!(guest.run(BOOT).await, boot);
    // What the runner orders when that is given up.
    assert_eq!(
        server.done(&driver, 3, Order::LeaveRescue { start: true }).await.power,
        Power::Running
    );
    assert_eq!(guest.run(BOOT).await, boot, "it never stopped");

    let machine = server.done(&driver, 4, rescue(system.clone())).await;
    assert_eq!((machine.power, machine.disks.len()), (Power::Running, 2));
    let guest = Guest::up(&host, server.id).await;
    assert!(guest.run("cat /proc/cmdline").await.ends_with("guest=rescue"));
    assert_eq!(guest.run("cat /run/passwords").await, format!("root:{PASSWORD}"));
    guest.becomes("cat /state/kept", "kept").await;
    assert_eq!(driver.census().await.unwrap(), census, "as much of it as before, and no more");
    // The same order again is the same rescue.
    server.done(&driver, 4, rescue(system.clone())).await;
    assert_eq!(Guest::up(&host, server.id).await.domain.id, guest.domain.id);

    server.done(&driver, 5, Order::LeaveRescue { start: true }).await;
    let guest = Guest::ready(&host, server.id).await;
    assert!(guest.run("cat /proc/cmdline").await.contains("guest=disk"));
    // Stopped in the midst of a rescue, and one that was stopped before.
    server.done(&driver, 6, rescue(system.clone())).await;
    let mut brief = host;
    brief.stop_patience = std::time::Duration::from_millis(100);
    drop(driver);
    let driver = brief.driver().await;
    assert_eq!(server.done(&driver, 7, Order::Stop {}).await.power, Power::Stopped);
    server.done(&driver, 8, rescue(system)).await;
    let machine = server.done(&driver, 9, Order::LeaveRescue { start: false }).await;
    assert_eq!(machine.power, Power::Stopped);
    server.done(&driver, 10, Order::Start {}).await;
    let guest = Guest::ready(&brief, server.id).await;
    assert!(guest.run("cat /proc/cmdline").await.contains("guest=disk"), "from its disks");
    server.removed(&driver, 11).await;
}

#[tokio::test]
async fn a_rescue_that_ends_anywhere_is_one_rescue() {
    let Some(host) = Host::of_tests().await else { return };
    let server = host.launch(24, "lab", "#!/bin/sh\n");
    let driver = host.driver().await;
    server.done(&driver, 1, Order::Launch {}).await;
    drop(driver);
    let rescue = Order::Rescue { system: host.rescue_system(), password: "sealed".into() };
    let steps = [Step::Stop, Step::Network, Step::Rescue, Step::Password];
    let points = steps.iter().flat_map(|step| [(*step, Side::Before), (*step, Side::After)]);
    let mut number = 1;
    for (at, point) in points.enumerate() {
        let end = if at % 2 == 0 { End::Dies } else { End::Fails };
        number += 1;
        let task = server.order(number, &rescue);
        let stopper = Stopper::new(end, point);
        let driver = host.driver_with(stopper.clone()).await;
        tokio::select! {
            done = driver.carry_out(&task) => assert!(end == End::Fails && done.is_err(), "{point:?}"),
            () = stopper.stopped.notified() => {}
        }
        assert!(stopper.was_hit(), "{point:?}");
        drop(driver);
        let driver = host.driver().await;
        let report = driver.carry_out(&task).await.unwrap();
        assert_eq!(seen(report, number).power, Power::Running, "{point:?}");
        let guest = Guest::up(&host, server.id).await;
        assert!(guest.run("cat /proc/cmdline").await.ends_with("guest=rescue"), "{point:?}");
        let passwords = guest.run("sort -u /run/passwords").await;
        assert_eq!(passwords, format!("root:{PASSWORD}"), "{point:?}");
        let census = driver.census().await.unwrap();
        assert_eq!(census.processes.values().sum::<usize>(), 1, "{point:?}");
        number += 1;
        server.done(&driver, number, Order::LeaveRescue { start: true }).await;
    }
    let driver = host.driver().await;
    server.removed(&driver, number + 1).await;
}

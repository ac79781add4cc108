//! Every step of every order fails once, and the agent dies once before it and once after it: the same
//! order, carried out again by another agent, ends as if nothing had been.

use std::time::Duration;

use adapters_kvm::driver::{Census, Side, Step};
use domain::compute::server::{Order, Power};

use crate::host::{End, Host, Launch, Stopper, seen};

const LAUNCH: &[Step] =
    &[Step::Image, Step::Disks, Step::Seed, Step::Network, Step::Define, Step::Start];
const REMOVE: &[Step] = &[Step::Stop, Step::Undefine, Step::Clear, Step::Unplug];
const REBOOT: &[Step] = &[Step::Note, Step::Stop, Step::Network, Step::Define, Step::Start];

/// Where an order may end in this way: a step that fails is one that was not done.
fn points(steps: &[Step], end: End) -> Vec<(Step, Side)> {
    let sides: &[Side] = match end {
        End::Dies => &[Side::Before, Side::After],
        End::Fails => &[Side::Before],
    };
    steps.iter().flat_map(|step| sides.iter().map(|side| (*step, *side))).collect()
}

/// Carries an order out by an agent that is stopped at a point, and then by another.
async fn twice(
    host: &Host,
    server: &Launch,
    number: u64,
    order: Order,
    end: End,
    at: (Step, Side),
) {
    let stopper = Stopper::new(end, at);
    let driver = host.driver_with(stopper.clone()).await;
    let task = server.order(number, &order);
    match end {
        End::Fails => {
            let fault = driver.carry_out(&task).await.unwrap_err();
            assert!(fault.to_string().contains(&format!("{:?}", at.0)), "{fault}");
        }
        End::Dies => tokio::select! {
            done = driver.carry_out(&task) => panic!("{at:?} was not reached: {done:?}"),
            () = stopper.stopped.notified() => {}
        },
    }
    assert!(stopper.was_hit());
    drop(driver);
    let driver = host.driver().await;
    let report = driver.carry_out(&task).await.unwrap();
    if order == (Order::Remove {}) {
        assert_eq!(driver.census().await.unwrap(), Census::default(), "{end:?} {at:?}");
        return;
    }
    assert_eq!(seen(report, number).power, Power::Running, "{end:?} {at:?}");
    let census = driver.census().await.unwrap();
    assert_eq!(census.servers, [(server.id, Power::Running)].into(), "{end:?} {at:?}");
    assert_eq!(census.processes, [(format!("sk-{}", server.id), 1)].into(), "{end:?} {at:?}");
    let counts =
        (census.disks.len(), census.seeds.len(), census.records.len(), census.interfaces.len());
    assert_eq!(counts, (2, 1, 1, 1), "{end:?} {at:?}: {census:?}");
    assert_eq!(census.guarded, census.interfaces, "{end:?} {at:?}");
    assert_eq!(census.bridges, ["sk-test-20".to_owned()].into(), "{end:?} {at:?}");
}

#[tokio::test]
async fn a_launch_and_a_removal_that_end_anywhere_are_done_once() {
    let Some(host) = Host::of_tests().await else { return };
    let server = host.launch(20, "sk-test-20", "#!/bin/sh\n");
    for end in [End::Dies, End::Fails] {
        let removals = points(REMOVE, end);
        for (at, launch) in points(LAUNCH, end).into_iter().enumerate() {
            twice(&host, &server, 1, Order::Launch {}, end, launch).await;
            let removal = removals[at % removals.len()];
            twice(&host, &server, 2, Order::Remove {}, end, removal).await;
        }
    }
}

#[tokio::test]
async fn a_restart_that_ends_anywhere_is_one_restart() {
    let Some(mut host) = Host::of_tests().await else { return };
    // Nobody waits for a guest here.
    host.stop_patience = Duration::from_millis(100);
    let server = host.launch(20, "sk-test-20", "#!/bin/sh\n");
    let driver = host.driver().await;
    server.done(&driver, 1, Order::Launch {}).await;
    drop(driver);
    let libvirt = host.connect().await;
    let machine = async || libvirt.domain(server.id).await.unwrap().id.unwrap();
    let mut number = 1;
    for end in [End::Dies, End::Fails] {
        for at in points(REBOOT, end) {
            let before = machine().await;
            number += 1;
            twice(&host, &server, number, Order::Reboot {}, end, at).await;
            // libvirt counts the machines that it starts.
            assert_eq!(machine().await, before + 1, "{end:?} {at:?}");
        }
    }
    let driver = host.driver().await;
    server.removed(&driver, number + 1).await;
}

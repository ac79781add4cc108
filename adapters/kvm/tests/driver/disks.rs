//! Disks that a server gets and loses while it runs, as its guest sees them; every step of it dies once and
//! fails once.

use adapters_kvm::driver::{Census, KvmHost, Side, Step};
use commands::ports::HostTask;
use domain::{
    compute::{
        disk::{Actual, Disk, Limits, Order},
        server::Order as ServerOrder,
    },
    kernel::{Decider as _, OrderKey, StreamId},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::host::{End, Guest, Host, Launch};

pub(crate) const ID: Uuid = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0d15_0001);

/// A disk as its stream has it, and the server that it is for.
pub(crate) struct Lab<'a> {
    server: &'a Launch,
    disk: Disk,
}

impl<'a> Lab<'a> {
    pub(crate) fn of(server: &'a Launch) -> Self {
        let creation = json!({
            "name": "data", "server": server.id, "size_gib": 1, "format": "qcow2",
            "found": {"id": ID, "host": Uuid::from_u128(7)},
        });
        let disk = Disk::default();
        Self { server, disk }.then("creation-ordered", creation)
    }

    /// After one more fact.
    fn then(mut self, event: &str, data: Value) -> Self {
        let event = serde_json::from_value(json!({"type": event, "data": data})).unwrap();
        self.disk = self.disk.evolve(event);
        self
    }

    fn task(&self, order: &Order) -> HostTask {
        let number = self.disk.order().map_or(1, |out| out.number);
        HostTask {
            key: OrderKey { stream: StreamId::new("disk", ID), number },
            order: serde_json::to_value(order).unwrap(),
            state: self.server.state.clone(),
            subject: serde_json::to_value(&self.disk).unwrap(),
            userdata: None,
            password: None,
            stores: std::collections::BTreeMap::new(),
            leases: std::collections::BTreeMap::new(),
        }
    }

    /// Carries its order out, twice, and says what is seen of it then.
    pub(crate) async fn done(self, driver: &KvmHost) -> (Self, Actual) {
        let out = self.disk.order().unwrap();
        let task = self.task(&out.order);
        let report = driver.carry_out(&task).await.unwrap();
        let again = driver.carry_out(&task).await.unwrap();
        assert_eq!((report.verb, again.verb), ("confirm", "confirm"));
        let seen: Actual = serde_json::from_value(again.body["seen"].clone()).unwrap();
        let confirmed = json!({"number": out.number, "seen": seen});
        (self.then("confirmed", confirmed), seen)
    }
}

#[tokio::test]
async fn a_disk_comes_grows_is_throttled_and_goes_while_the_guest_runs() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    let server = host.launch(24, "lab", "#!/bin/sh\n");
    server.done(&driver, 1, ServerOrder::Launch {}).await;
    let guest = Guest::ready(&host, server.id).await;
    let serial = &ID.simple().to_string()[..20];
    let find = format!("grep -l {serial} /sys/block/*/serial | cut -d/ -f4");

    let (lab, actual) = Lab::of(&server).done(&driver).await;
    assert_eq!((actual.size_bytes, actual.limits), (1 << 30, Some(Limits::default())));
    guest.becomes(&find, "vdd").await;
    guest.run("echo kept | dd of=/dev/vdd conv=fsync").await;

    let (lab, actual) = lab.then("growth-ordered", json!({"size_gib": 2})).done(&driver).await;
    assert_eq!(actual.size_bytes, 2 << 30);
    guest.becomes("cat /sys/block/vdd/size", &(2_u64 << 21).to_string()).await;
    assert_eq!(guest.run("head -n 1 /dev/vdd").await, "kept");

    let limits = json!({
        "write_bytes": {"rate": 1_048_576, "burst": 4_194_304, "burst_seconds": 3},
        "read_operations": {"rate": 500},
    });
    let (lab, actual) = lab.then("throttle-ordered", json!({"limits": limits})).done(&driver).await;
    assert_eq!(serde_json::to_value(actual.limits).unwrap(), limits, "as QEMU says");

    // What a server is started with is its own list, which has the disk by now.
    let mut state = serde_json::to_value(&server.state).unwrap();
    let disk = json!({"id": ID, "size_gib": 2, "format": "qcow2", "limits": limits});
    state["home"]["parts"]["disks"].as_array_mut().unwrap().push(disk);
    let mut with = server.clone();
    with.state = serde_json::from_value(state).unwrap();
    with.done(&driver, 2, ServerOrder::Stop {}).await;
    with.done(&driver, 3, ServerOrder::Start {}).await;
    let guest = Guest::ready(&host, server.id).await;
    guest.becomes(&find, "vdc").await;
    assert_eq!(guest.run("head -n 1 /dev/vdc").await, "kept");
    let (lab, actual) = lab.then("throttle-ordered", json!({"limits": limits})).done(&driver).await;
    assert_eq!(
        serde_json::to_value(actual.limits).unwrap(),
        limits,
        "also when it was started anew"
    );

    let (lab, actual) = lab.then("detach-ordered", json!({})).done(&driver).await;
    assert_eq!(actual.limits, None);
    guest.becomes(&find, "").await;
    // It grows also when nobody has it, and is had again.
    let (lab, actual) = lab.then("growth-ordered", json!({"size_gib": 3})).done(&driver).await;
    assert_eq!(actual.size_bytes, 3 << 30);
    let attach = json!({"server": server.id});
    let (lab, _) = lab.then("attach-ordered", attach).done(&driver).await;
    guest.becomes(&find, "vdc").await;
    assert_eq!(guest.run("head -n 1 /dev/vdc").await, "kept");

    let (lab, _) = lab.then("detach-ordered", json!({})).done(&driver).await;
    let lab = lab.then("removal-ordered", json!({}));
    for _ in 0..2 {
        let report = driver.carry_out(&lab.task(&Order::Remove {})).await.unwrap();
        assert_eq!(report.verb, "confirm-removal");
    }
    server.removed(&driver, 4).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
}

#[tokio::test]
async fn an_order_of_a_disk_that_ends_anywhere_is_done_once() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    let server = host.launch(25, "lab", "#!/bin/sh\n");
    server.done(&driver, 1, ServerOrder::Launch {}).await;
    let guest = Guest::ready(&host, server.id).await;
    drop(driver);
    let serial = &ID.simple().to_string()[..20];
    let find = format!("grep -l {serial} /sys/block/*/serial | wc -l");
    let create = [Step::Disks, Step::DiskPlug, Step::DiskLimits];
    let made = Lab::of(&server)
        .then("confirmed", json!({"number": 1, "seen": {"size_bytes": 0, "taken_bytes": 0}}));
    let grown = made.then("growth-ordered", json!({"size_gib": 2}));
    for (end, side) in
        [(End::Dies, Side::Before), (End::Dies, Side::After), (End::Fails, Side::Before)]
    {
        let cut = async |lab: &Lab<'_>, order: Order, step: Step| {
            let task = lab.task(&order);
            host.cut(end, (step, side), &task).await;
            let driver = host.driver().await;
            driver.carry_out(&task).await.unwrap();
            let census = driver.census().await.unwrap();
            let there = usize::from(order != Order::Remove {});
            assert_eq!(census.disks.len(), 2 + there, "{end:?} {side:?} {step:?}: {census:?}");
            guest.becomes(&find, &there.to_string()).await;
        };
        for step in create {
            cut(&Lab::of(&server), Order::Create {}, step).await;
            if step == create[0] {
                cut(&grown, Order::Grow {}, Step::DiskGrow).await;
            }
            let clear = if step == create[2] { Step::Clear } else { Step::DiskUnplug };
            cut(&grown, Order::Remove {}, clear).await;
        }
    }
    let driver = host.driver().await;
    server.removed(&driver, 2).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
}

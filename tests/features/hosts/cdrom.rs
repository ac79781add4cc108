//! A server's drive: a disc is in it from the launch, is changed, goes along and stays until it is taken
//! out, whatever fails on the way.

use std::sync::Arc;

use adapters_sim::{HostFault, HostStep};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Mortal, code, rebuild::image_with};
use crate::world::{World, small};

struct Lab {
    world: World,
    hosts: [Uuid; 2],
    discs: [Uuid; 2],
    server: Uuid,
}

/// This disc, in a host's drive and in the log.
fn both(digits: &str) -> (Option<String>, Option<String>) {
    let digest = Some(digits.repeat(32));
    (digest.clone(), digest)
}

impl Lab {
    async fn new() -> Self {
        let world = World::empty(small());
        let hosts =
            [world.host("kvm-1", 1, 4, 4_096).await, world.host("kvm-2", 1, 4, 4_096).await];
        let disc = async |digits| image_with(&world, digits, json!({"format": "iso"})).await;
        let discs = [disc("1a").await, disc("1b").await];
        let body = json!({
            "name": "web", "spec": {"vcpus": 1, "memory_mib": 256}, "cdrom": discs[0],
            "disks": [{"size_gib": 4}], "wishes": {"only": [hosts[0]]},
        });
        let server = world.send("server", None, "launch", body).await.unwrap().id;
        world.settle().await;
        Self { world, hosts, discs, server }
    }

    async fn ask(&self, body: Value) -> &'static str {
        code(self.world.send("server", self.server, "change-cdrom", body).await)
    }

    async fn order(&self, image: Option<Uuid>) {
        let body = json!({"image": image});
        self.world.send("server", self.server, "change-cdrom", body).await.unwrap();
    }

    /// The digest of the disc that a host has in its drive, and the one that the log says.
    async fn has(&self, host: usize) -> (Option<String>, Option<String>) {
        let real = self.world.hosts.census(self.hosts[host])[&self.server].cdrom.clone();
        let home = self.world.server(self.server).await.home.unwrap();
        (real, home.parts.disc().map(|disc| disc.sha256.clone()))
    }

    async fn does(&self, verb: &str) {
        self.world.through("server", self.server, verb, json!({})).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disc_is_there_from_the_launch_is_changed_and_taken_out_and_the_drive_stays() {
    let lab = Lab::new().await;
    assert_eq!(lab.has(0).await, both("1a"));
    lab.order(Some(lab.discs[1])).await;
    assert_eq!(lab.world.row(lab.server).await["status"], "changing-cdrom");
    lab.world.settle().await;
    assert_eq!(lab.world.row(lab.server).await["status"], "running", "as it was before");
    assert_eq!(lab.has(0).await, both("1b"));
    let before = lab.world.log.head().await.unwrap().position;
    lab.order(Some(lab.discs[1])).await;
    assert_eq!(lab.world.log.head().await.unwrap().position, before, "it is in there already");
    lab.order(None).await;
    lab.world.settle().await;
    assert_eq!(lab.has(0).await, (None, None));
    // It is empty, and there: a disc can be put in while the server runs.
    lab.order(Some(lab.discs[0])).await;
    lab.world.settle().await;
    assert_eq!(lab.has(0).await, both("1a"));
    assert_eq!(
        lab.world.hosts.census(lab.hosts[0])[&lab.server].boots,
        1,
        "it was never restarted"
    );
    let order = json!({"order": ["cdrom", "disk"]});
    lab.does("stop").await;
    lab.world.through("server", lab.server, "set-boot-order", order).await;
    lab.world.same_as_census(lab.hosts[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disc_is_where_its_server_goes_and_a_host_that_it_left_has_none() {
    let lab = Lab::new().await;
    for host in lab.hosts {
        lab.world.takes_running(host).await;
    }
    lab.order(Some(lab.discs[1])).await;
    lab.world.settle().await;
    for (from, to) in [(0, 1), (1, 0)] {
        let body = json!({"to": lab.hosts[to]});
        lab.world.through("server", lab.server, "migrate", body).await;
        assert_eq!(lab.has(to).await, both("1b"));
        assert!(!lab.world.hosts.census(lab.hosts[from]).contains_key(&lab.server));
        // Once while it runs, once while it does not.
        lab.does("stop").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disc_that_cannot_be_changed_is_as_it_was_and_each_failure_is_done_again() {
    let lab = Lab::new().await;
    lab.world.hosts.break_next(HostStep::Cdrom, HostFault::Transient);
    lab.world.hosts.break_next(HostStep::Cdrom, HostFault::AnswerLost);
    lab.order(Some(lab.discs[1])).await;
    let mortal = Arc::new(Mortal::default());
    lab.world.settle_with(Some(mortal.clone())).await;
    assert_eq!((mortal.deaths(), lab.world.hosts.hit().len()), (3, 2));
    assert_eq!(lab.has(0).await, both("1b"));
    // A guest that holds the disc fast.
    lab.world.hosts.break_next(HostStep::Cdrom, HostFault::Rejected("the tray is locked".into()));
    lab.order(None).await;
    lab.world.settle().await;
    assert_eq!(lab.world.row(lab.server).await["status"], "parked");
    lab.world.send("server", lab.server, "abandon", json!({})).await.unwrap();
    lab.world.settle().await;
    assert_eq!(lab.has(0).await, both("1b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_disc_and_who_has_no_drive_is_refused_and_leaves_nothing() {
    let lab = Lab::new().await;
    let with = async |digits: &str, other: Value| image_with(&lab.world, digits, other).await;
    let disk = with("2a", json!({})).await;
    let arm = json!({"format": "iso", "architecture": "aarch64", "firmware": "uefi"});
    let arm = with("2b", arm).await;
    let gone = with("2c", json!({"format": "iso"})).await;
    lab.world.send("image", gone, "retire", json!({})).await.unwrap();
    let plain = lab.world.launch("plain", 1, 64).await.unwrap();
    lab.world.settle().await;
    let before = lab.world.log.head().await.unwrap().position;
    for (body, why) in [
        (json!({"image": disk}), "invalid-field"),
        (json!({"image": arm}), "invalid-field"),
        (json!({"image": gone}), "invalid-field"),
        (json!({"image": Uuid::from_u128(9)}), "invalid-field"),
        (json!({"image": lab.discs[1], "found": {}}), "invalid-field"),
        (json!({"image": "debian"}), "malformed-command"),
    ] {
        assert_eq!(lab.ask(body.clone()).await, why, "{body}");
    }
    for (field, id, why) in [("image", lab.discs[0], "a disc"), ("cdrom", disk, "no disc")] {
        let body = json!({"name": "other", "spec": {"vcpus": 1, "memory_mib": 64}, (field): id});
        let no = lab.world.send("server", None, "launch", body).await.unwrap_err();
        assert!(no.to_string().contains(why), "{no}");
    }
    let cdrom = json!({"order": ["cdrom"]});
    let stopped =
        async |verb: &str, body: Value| code(lab.world.send("server", plain, verb, body).await);
    let put = json!({"image": lab.discs[0]});
    assert_eq!(
        stopped("change-cdrom", put.clone()).await,
        "wrong-state",
        "it runs without a drive"
    );
    assert_eq!(lab.world.log.head().await.unwrap().position, before);
    // Nothing is taken out of what is not there, and that is no news.
    lab.world.send("server", plain, "change-cdrom", json!({})).await.unwrap();
    lab.world.through("server", plain, "stop", json!({})).await;
    assert_eq!(stopped("set-boot-order", cdrom.clone()).await, "invalid-field", "it has no drive");
    lab.world.through("server", plain, "change-cdrom", put).await;
    lab.world.through("server", plain, "set-boot-order", cdrom).await;
    lab.world.through("server", plain, "start", json!({})).await;
    lab.world.through("server", plain, "change-cdrom", json!({})).await;
}

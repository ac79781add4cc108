//! A server's root disk is made from an image again: what it is and has besides stays, whatever fails on the
//! way.

use std::sync::Arc;

use adapters_sim::{HostFault, HostStep};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Mortal, code};
use crate::world::{World, small};

/// An image for servers on hosts of ours, told by two hexadecimal digits.
pub(super) async fn image(world: &World, digits: &str) -> Uuid {
    image_with(world, digits, json!({})).await
}

pub(super) async fn image_with(world: &World, digits: &str, other: Value) -> Uuid {
    let mut body = json!({
        "name": format!("image-{digits}"), "source": "upload", "sha256": digits.repeat(32),
        "format": "qcow2", "size_mib": 400, "architecture": "x86_64", "os": "linux",
        "firmware": "bios", "min_disk_gib": 1,
    });
    body.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
    world.send("image", None, "define", body).await.unwrap().id
}

struct Lab {
    world: World,
    host: Uuid,
    image: Uuid,
    server: Uuid,
}

impl Lab {
    async fn new() -> Self {
        let world = World::empty(small());
        let host = world.host("kvm-1", 1, 4, 4_096).await;
        let image = image(&world, "0a").await;
        let segment = json!({"name": "blue", "medium": "bridge", "bridge": "br0"});
        let segment = world.send("segment", None, "define", segment).await.unwrap().id;
        let network = json!({"name": "front", "segment": segment, "v4": {"net": "10.0.0.0/24"}});
        let network = world.send("network", None, "define", network).await.unwrap().id;
        let body = json!({
            "name": "web", "spec": {"vcpus": 1, "memory_mib": 256}, "image": image,
            "disks": [{"size_gib": 4}, {"size_gib": 1}], "nics": [{"network": network}],
        });
        let server = world.send("server", None, "launch", body).await.unwrap().id;
        world.settle().await;
        Self { world, host, image, server }
    }

    async fn ask(&self, body: Value) -> &'static str {
        code(self.world.send("server", self.server, "rebuild", body).await)
    }

    async fn order(&self, body: Value) {
        self.world.send("server", self.server, "rebuild", body).await.unwrap();
    }

    /// The digests of the images of its disks, the root disk's first.
    async fn disks(&self) -> Vec<Option<String>> {
        let home = self.world.server(self.server).await.home.unwrap();
        let real = self.world.hosts.disks(self.host);
        home.parts.disks.iter().map(|disk| real[&disk.id].1.clone()).collect()
    }

    async fn status(&self) -> String {
        self.world.row(self.server).await["status"].as_str().unwrap().to_owned()
    }
}

fn made_from(digits: &str) -> Vec<Option<String>> {
    vec![Some(digits.repeat(32)), None]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_is_and_has_besides_its_root_disk_stays() {
    let lab = Lab::new().await;
    let before = lab.world.server(lab.server).await.home.unwrap();
    let other = image(&lab.world, "0b").await;
    lab.order(json!({"image": other, "stop": true})).await;
    assert_eq!(lab.status().await, "rebuilding");
    lab.world.settle().await;
    assert_eq!(lab.status().await, "running", "as it was before");
    assert_eq!(lab.disks().await, made_from("0b"));
    assert_eq!(lab.world.hosts.census(lab.host)[&lab.server].boots, 2);
    let after = lab.world.server(lab.server).await.home.unwrap();
    assert_eq!(after.parts.image.as_ref().unwrap().id, other);
    assert_eq!((&after.parts.nics, &after.placement), (&before.parts.nics, &before.placement));
    let ids = |home: &domain::compute::server::home::Home| -> Vec<Uuid> {
        home.parts.disks.iter().map(|disk| disk.id).collect()
    };
    assert_eq!(ids(&after), ids(&before));
    lab.world.same_as_census(lab.host).await;
    // A stopped one stays stopped. With none named it is the image that it has now.
    lab.world.send("server", lab.server, "stop", json!({})).await.unwrap();
    lab.world.settle().await;
    lab.order(json!({"image": lab.image})).await;
    lab.world.settle().await;
    lab.order(json!({})).await;
    lab.world.settle().await;
    assert_eq!((lab.status().await.as_str(), lab.disks().await), ("stopped", made_from("0a")));
    assert_eq!(lab.world.hosts.census(lab.host)[&lab.server].boots, 2);
    // What nobody needs any more can be retired, and the server still be made of it again.
    lab.world.send("image", lab.image, "retire", json!({})).await.unwrap();
    assert_eq!(lab.ask(json!({"image": lab.image})).await, "invalid-field");
    lab.order(json!({})).await;
    lab.world.settle().await;
    lab.world.send("server", lab.server, "start", json!({})).await.unwrap();
    lab.world.settle().await;
    lab.world.same_as_census(lab.host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_of_a_rebuild_fails_loses_its_answer_and_dies_once() {
    let lab = Lab::new().await;
    for (digits, step) in
        [("1a", HostStep::Stop), ("1b", HostStep::Rebuild), ("1c", HostStep::Start)]
    {
        lab.world.hosts.break_next(step, HostFault::Transient);
        lab.world.hosts.break_next(step, HostFault::AnswerLost);
        let image = image(&lab.world, digits).await;
        let boots = lab.world.hosts.census(lab.host)[&lab.server].boots;
        lab.order(json!({"image": image, "stop": true})).await;
        let mortal = Arc::new(Mortal::default());
        lab.world.settle_with(Some(mortal.clone())).await;
        assert_eq!(mortal.deaths(), 3, "{step:?}");
        assert_eq!(
            (lab.status().await.as_str(), lab.disks().await),
            ("running", made_from(digits))
        );
        let now = lab.world.hosts.census(lab.host)[&lab.server].boots;
        assert_eq!(now, boots + 1, "{step:?}: it was started once");
        lab.world.same_as_census(lab.host).await;
    }
    assert_eq!(lab.world.hosts.hit().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_is_given_up_leaves_a_stopped_server_with_a_whole_disk() {
    let lab = Lab::new().await;
    let other = image(&lab.world, "0b").await;
    for (step, digits) in [(HostStep::Rebuild, "0a"), (HostStep::Start, "0b")] {
        lab.world.hosts.break_next(step, HostFault::Rejected("no".to_owned()));
        lab.order(json!({"image": other, "stop": true})).await;
        lab.world.settle().await;
        assert_eq!(lab.status().await, "parked");
        lab.world.send("server", lab.server, "abandon", json!({})).await.unwrap();
        lab.world.settle().await;
        assert_eq!(
            (lab.status().await.as_str(), lab.disks().await),
            ("stopped", made_from(digits))
        );
        lab.world.send("server", lab.server, "start", json!({})).await.unwrap();
        lab.world.settle().await;
        lab.world.same_as_census(lab.host).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_rebuilt_is_refused_and_leaves_nothing() {
    let lab = Lab::new().await;
    let with = async |digits: &str, other: Value| image_with(&lab.world, digits, other).await;
    let arm = with("0c", json!({"architecture": "aarch64", "firmware": "uefi"})).await;
    let uefi = with("0d", json!({"firmware": "uefi"})).await;
    let windows = with("0e", json!({"os": "windows"})).await;
    let large = with("0f", json!({"min_disk_gib": 5})).await;
    let blank = lab.world.launch("blank", 1, 64).await.unwrap();
    lab.world.settle().await;
    let before = lab.world.log.head().await.unwrap().position;
    assert_eq!(lab.ask(json!({})).await, "wrong-state", "it runs");
    for (body, why) in [
        (json!({"stop": true, "image": Uuid::from_u128(9)}), "invalid-field"),
        (json!({"stop": true, "image": arm}), "invalid-field"),
        (json!({"stop": true, "image": uefi}), "invalid-field"),
        (json!({"stop": true, "image": windows}), "invalid-field"),
        (json!({"stop": true, "image": large}), "invalid-field"),
        (json!({"stop": true, "found": {}}), "invalid-field"),
        (json!({"stop": true, "image": "debian"}), "malformed-command"),
        (json!({"stop": "yes"}), "malformed-command"),
    ] {
        assert_eq!(lab.ask(body.clone()).await, why, "{body}");
    }
    // One that was made from none has none of its own.
    let none = lab.world.send("server", blank, "rebuild", json!({"stop": true})).await;
    assert_eq!(code(none), "invalid-field");
    assert_eq!(lab.world.log.head().await.unwrap().position, before);
    let named = json!({"stop": true, "image": lab.image});
    lab.world.send("server", blank, "rebuild", named).await.unwrap();
    lab.world.settle().await;
    assert!(lab.world.server(blank).await.home.unwrap().parts.disks[0].from_image);
    lab.world.send("server", lab.server, "suspend", json!({})).await.unwrap();
    lab.world.settle().await;
    assert_eq!(lab.ask(json!({"stop": true})).await, "wrong-state");
}

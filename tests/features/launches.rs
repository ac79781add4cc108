//! What a server of ours is launched with: image, disks, interfaces with addresses, keys, userdata. All of
//! it is there or nothing is.

use commands::submit::SubmitFault;
use domain::kernel::{Principal, Reach, Role};
use futures::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{World, small};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKBnABWcH+rkaw2uU18cddw8UywdsKHqvb7Cn+9pEwVI ann";

/// What a project has for its servers.
struct Lab {
    world: World,
    host: Uuid,
    image: Uuid,
    network: Uuid,
    key_pair: Uuid,
}

fn code<T: std::fmt::Debug>(result: Result<T, SubmitFault>) -> &'static str {
    match result {
        Err(SubmitFault::Refused(refusal)) => refusal.code.code,
        other => panic!("not refused: {other:?}"),
    }
}

impl Lab {
    async fn of(net: &str) -> Self {
        let world = World::empty(small());
        let host = world.host("kvm-1", 1, 64, 65_536).await;
        let begin = async |kind: &str, body: Value| {
            world.send(kind, None, "define", body).await.unwrap().id
        };
        let image = begin("image", Self::definition(&"0a".repeat(32), None)).await;
        let segment = json!({"name": "blue", "medium": "bridge", "bridge": "br0"});
        let segment = begin("segment", segment).await;
        let v4 = json!({"net": net, "gateway": null, "step": "up", "cooldown_s": 0});
        let network =
            begin("network", json!({"name": "front", "segment": segment, "v4": v4})).await;
        let key_pair = begin("key-pair", json!({"name": "ann", "public_key": KEY})).await;
        Self { world, host, image, network, key_pair }
    }

    fn definition(sha256: &str, project: Option<Uuid>) -> Value {
        json!({
            "name": "debian-13", "project": project, "sha256": sha256, "format": "qcow2",
            "source": {"url": "https://images.example.com/debian-13.qcow2"}, "size_mib": 400,
            "architecture": "x86_64", "os": "linux", "firmware": "bios", "min_disk_gib": 3,
        })
    }

    fn body(&self, name: &str) -> Value {
        json!({
            "name": name, "spec": {"vcpus": 1, "memory_mib": 256}, "image": self.image,
            "disks": [{"size_gib": 4}, {"size_gib": 1, "format": "raw"}],
            "nics": [{"network": self.network}], "key_pairs": [self.key_pair],
            "userdata": "#!/bin/sh\necho secret-marker\n",
        })
    }

    async fn launch(&self, body: Value) -> Result<Uuid, SubmitFault> {
        Ok(self.world.send("server", None, "launch", body).await?.id)
    }

    async fn free(&self) -> Value {
        self.world.row(self.network).await["state"]["own"]["addresses"]["v4"]["counts"]["free"]
            .clone()
    }

    async fn purge(&self, id: Uuid) {
        for verb in ["stop", "delete", "purge"] {
            self.world.send("server", id, verb, json!({})).await.unwrap();
            self.world.settle().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_has_what_it_was_launched_with_and_gives_it_all_back() {
    let lab = Lab::of("10.0.0.0/29").await;
    assert_eq!(lab.free().await, 6);
    let id = lab.launch(lab.body("Web 1")).await.unwrap();
    lab.world.settle().await;
    let row = lab.world.row(id).await;
    assert_eq!(row["status"], "running");
    let seen = &row["state"]["observation"]["seen"];
    assert_eq!(seen["addresses"], json!(["10.0.0.1/29"]));
    assert_eq!(seen["image"], lab.image.to_string());
    assert_eq!(lab.free().await, 5);

    let parts = lab.world.server(id).await.home.unwrap().parts;
    let disks = lab.world.hosts.disks(lab.host);
    assert_eq!(disks[&parts.disks[0].id], (4, Some("0a".repeat(32))), "made from the image");
    assert_eq!(disks[&parts.disks[1].id], (1, None), "nothing is on it");
    let real = lab.world.hosts.census(lab.host)[&id].clone();
    let macs: Vec<_> = real.nics.iter().map(|nic| nic.seen.mac).collect();
    assert_eq!(macs, [parts.nics[0].mac]);
    let seed = |name: &str| real.seed.iter().find(|(file, _)| file == name).unwrap().1.clone();
    assert!(seed("user-data").contains("secret-marker"), "the host has it in clear");
    assert!(seed("meta-data").contains("web-1") && seed("meta-data").contains(KEY));
    assert!(seed("network-config").contains("10.0.0.1/29"));

    // It may hold passwords: nowhere in the log is it in clear.
    let records = lab.world.ledger.ports.log.read(0, 1_000).await.unwrap();
    let clear = records.iter().filter(|record| {
        let data = String::from_utf8_lossy(record.data());
        data.contains("secret-marker") || data.contains("c2VjcmV0LW1hcmtlcg")
    });
    assert_eq!(clear.count(), 0);
    assert_eq!(code(lab.world.send("network", lab.network, "retire", json!({})).await), "in-use");

    lab.world.same_as_census(lab.host).await;
    lab.purge(id).await;
    assert_eq!(lab.free().await, 6);
    lab.world.same_as_census(lab.host).await;
    assert!(lab.world.hosts.disks(lab.host).is_empty());
    lab.world.send("network", lab.network, "retire", json!({})).await.unwrap();
}

/// Two ledgers on one store, as two server processes are.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_launches_into_the_last_addresses_are_as_many_as_there_are() {
    let lab = Lab::of("10.0.0.0/28").await;
    let other = commands::ledger::Ledger::new(lab.world.ledger.ports.clone());
    let launches = (0..64).map(|at| {
        let ledger = if at % 2 == 0 { &lab.world.ledger } else { &other };
        let body = json!({
            "name": format!("s{at}"), "spec": {"vcpus": 1, "memory_mib": 64},
            "nics": [{"network": lab.network}],
        });
        ledger.submit(World::submission("server", None, "launch", body))
    });
    let results = join_all(launches).await;
    let there: Vec<Uuid> =
        results.iter().filter_map(|one| one.as_ref().ok().map(|done| done.id)).collect();
    assert_eq!(there.len(), 14, "as many as a /28 has");
    for refused in results.into_iter().filter(Result::is_err) {
        assert_eq!(code(refused), "no-address-free");
    }
    let mut addresses = std::collections::BTreeSet::new();
    for id in &there {
        let parts = lab.world.server(*id).await.home.unwrap().parts;
        assert!(addresses.insert(parts.nics[0].addresses.clone()), "each its own");
    }
    lab.world.settle().await;
    lab.world.same_as_census(lab.host).await;
    // What one gives back, another gets.
    lab.purge(there[0]).await;
    let body = json!({
        "name": "last", "spec": {"vcpus": 1, "memory_mib": 64}, "nics": [{"network": lab.network}],
    });
    lab.launch(body.clone()).await.unwrap();
    assert_eq!(code(lab.launch(body).await), "no-address-free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_cannot_have_what_it_asks_for_leaves_nothing() {
    let lab = Lab::of("10.0.0.0/29").await;
    let with = |field: &str, value: Value| {
        let mut body = lab.body("web");
        body[field] = value;
        body
    };
    let nobody = Uuid::from_u128(99);
    let named = |address: &str| {
        json!([{
            "network": lab.network, "v4": {"type": "named", "data": {"address": address}},
        }])
    };
    let bad = [
        (with("image", json!(nobody)), "invalid-field"),
        (with("disks", json!([{"size_gib": 2}])), "invalid-field"),
        (with("disks", json!(vec![json!({"size_gib": 4}); 27])), "invalid-field"),
        (with("nics", json!([{"network": nobody}])), "invalid-field"),
        (with("nics", json!(vec![json!({"network": lab.network}); 17])), "invalid-field"),
        (with("nics", json!(vec![json!({"network": lab.network}); 7])), "no-address-free"),
        (with("nics", named("10.0.1.1")), "address-not-given"),
        (with("key_pairs", json!([nobody])), "invalid-field"),
        (with("userdata", json!("hello")), "userdata-invalid"),
        (with("userdata", json!("[powershell]\nx")), "userdata-invalid"),
        (with("parts", json!({})), "invalid-field"),
        (with("firmware", json!("fax")), "malformed-command"),
    ];
    for (body, refused) in bad {
        assert_eq!(code(lab.launch(body.clone()).await), refused, "{body}");
    }
    lab.world.send("image", lab.image, "retire", json!({})).await.unwrap();
    assert_eq!(code(lab.launch(lab.body("web")).await), "invalid-field");
    assert_eq!(lab.free().await, 6);
    assert!(lab.world.rows("server").await.is_empty());
    lab.world.same_as_census(lab.host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_launches_from_what_is_its_own_and_from_images_of_the_estate() {
    let lab = Lab::of("10.0.0.0/29").await;
    let project = |name: &str| lab.world.send("project", None, "create", json!({"name": name}));
    let (shop, bank) = (project("shop").await.unwrap().id, project("bank").await.unwrap().id);
    let theirs = Lab::definition(&"0b".repeat(32), Some(bank));
    let theirs = lab.world.send("image", None, "define", theirs).await.unwrap().id;
    let launch = async |image: Uuid, nics: Value| {
        let body = json!({
            "name": "web", "spec": {"vcpus": 1, "memory_mib": 64}, "project": shop,
            "image": image, "nics": nics,
        });
        let mut submission = World::submission("server", None, "launch", body);
        submission.principal = Principal {
            name: "token:ann".into(),
            role: Role::Operator,
            reach: Reach::Projects(vec![shop]),
        };
        lab.world.ledger.submit(submission).await
    };
    launch(lab.image, json!([])).await.unwrap();
    // Of what is another's it is said only that there is none.
    let refused = launch(theirs, json!([])).await;
    let Err(SubmitFault::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.detail, format!("image: there is no image {theirs} for it"));
    assert_eq!(code(launch(lab.image, json!([{"network": lab.network}])).await), "invalid-field");
    // A network that the project is given is its own.
    lab.world.send("network", lab.network, "assign", json!({"project": shop})).await.unwrap();
    launch(lab.image, json!([{"network": lab.network}])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_shows_the_addresses_and_is_stale_when_they_are_gone() {
    let lab = Lab::of("10.0.0.0/29").await;
    let body = json!({
        "name": "web", "spec": {"vcpus": 1, "memory_mib": 64}, "nics": [{"network": lab.network}],
    });
    let mut submission = World::submission("server", None, "launch", body.clone());
    let plan = lab.world.ledger.plan(&submission).await.unwrap();
    let nic = &plan.events[0].data["launch"]["parts"]["nics"][0];
    assert_eq!(nic["addresses"], json!(["10.0.0.1/29"]));
    assert!(plan.touches.contains(&format!("network/{}", lab.network)), "{:?}", plan.touches);

    lab.launch(body.clone()).await.unwrap();
    submission.plan_id = Some(plan.plan_id);
    let late = lab.world.ledger.submit(submission.clone()).await;
    let Err(SubmitFault::Stale(moved)) = late else { panic!("{late:?}") };
    assert!(moved.iter().any(|one| one.kind == "network"), "{moved:?}");

    // Done as it was planned it is what the plan said, to the letter.
    submission.plan_id = None;
    let plan = lab.world.ledger.plan(&submission).await.unwrap();
    submission.plan_id = Some(plan.plan_id);
    let done = lab.world.ledger.submit(submission).await.unwrap();
    assert_eq!(done.events, plan.events);
}

//! All disks of a server backed up at one moment, and a server made from that, whatever fails on the way.

use std::sync::Arc;

use adapters_sim::{HostFault, HostStep};
use domain::compute::server::{boot::BootDevice, parts::Parts};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    backups::{URL, detail, elsewhere},
    hosts::{Mortal, code},
    world::{World, small},
};

impl World {
    /// A server that runs, with two disks on which something is written.
    async fn with_two_disks(&self) -> (Uuid, [Uuid; 2]) {
        let (web, root) = self.with_data("web", "system 1").await;
        let body = json!({"name": "data", "server": web, "size_gib": 2});
        let data = self.send("disk", None, "create", body).await.unwrap().id;
        self.settle().await;
        self.hosts.write(data, "data 1");
        (web, [root, data])
    }

    async fn set(&self, server: Uuid, store: Uuid) -> Result<Uuid, commands::submit::SubmitFault> {
        let body = json!({"name": "monday", "server": server, "store": store});
        Ok(self.send("backup-set", None, "create", body).await?.id)
    }

    async fn members(&self, set: Uuid) -> Vec<(Uuid, Uuid)> {
        let members = self.row(set).await["state"]["source"]["members"].clone();
        let id = |one: &Value, field: &str| one[field].as_str().unwrap().parse().unwrap();
        let members = members.as_array().unwrap().iter();
        members.map(|one| (id(one, "disk"), id(one, "backup"))).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_disks_of_a_server_are_backed_up_at_one_moment_and_a_server_is_made_from_them() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    let store = world.store("vault").await;
    let (web, disks) = world.with_two_disks().await;
    let set = world.set(web, store).await.unwrap();
    assert_eq!(world.status(set).await, "taking");
    for disk in disks {
        let grow = world.send("disk", disk, "grow", json!({"size_gib": 3})).await;
        assert_eq!(code(grow), "in-use");
    }
    let retire = world.send("backup-store", store, "retire", json!({})).await;
    assert!(detail(retire).contains("is being made there"));
    let body = json!({
        "name": "again", "spec": {"vcpus": 1, "memory_mib": 64}, "backup_set": set,
    });
    assert_eq!(code(world.send("server", None, "launch", body.clone()).await), "wrong-state");
    world.settle().await;
    let row = world.row(set).await;
    assert_eq!(
        (&row["status"], &row["state"]["taken"]["quiesced"]),
        (&json!("available"), &json!(true))
    );
    let members = world.members(set).await;
    assert_eq!(members.iter().map(|one| one.0).collect::<Vec<_>>(), disks);
    for (at, (disk, backup)) in members.iter().enumerate() {
        let row = world.row(*backup).await;
        assert_eq!(row["status"], "available");
        assert!(row["name"].as_str().unwrap().starts_with("monday "), "{row}");
        assert_eq!(row["state"]["disk"], disk.to_string());
        let there = world.hosts.backups(URL)[backup].content.clone();
        assert_eq!(there, ["system 1", "data 1"][at]);
        // Nothing holds the disk any more.
        world.send("disk", *disk, "grow", json!({"size_gib": 3})).await.unwrap();
    }
    world.settle().await;
    // Each is a backup like any other, for itself and to be made on.
    world.through("backup", members[0].1, "verify", json!({})).await;
    let on = world.back_up(disks[0], store, Some(members[0].1)).await.unwrap();
    world.settle().await;
    assert_eq!(world.status(on).await, "available");

    for disk in disks {
        world.hosts.write(disk, "lost");
    }
    let again = world.send("server", None, "launch", body.clone()).await.unwrap().id;
    assert_eq!(code(world.send("backup-set", set, "delete", json!({})).await), "in-use");
    world.settle().await;
    let made = world.server(again).await.home.unwrap().parts.disks;
    let sizes: Vec<_> = made.iter().map(|disk| disk.size_gib).collect();
    let contents: Vec<_> = made.iter().map(|disk| world.hosts.content(disk.id)).collect();
    assert_eq!((sizes, contents), (vec![1, 2], vec!["system 1".to_owned(), "data 1".to_owned()]));
    world.same_as_census(host).await;
    let mut both = body.clone();
    both["disks"] = json!([{"size_gib": 1}]);
    assert!(detail(world.send("server", None, "launch", both).await).contains("leave disks"));

    // One was deleted by itself: the set's deletion has the other.
    world.through("backup", members[1].1, "delete", json!({})).await;
    assert_eq!(code(world.send("server", None, "launch", body).await), "wrong-state");
    world.through("backup-set", set, "delete", json!({})).await;
    assert_eq!(world.status(set).await, "gone");
    assert_eq!(world.hosts.backups(URL).into_keys().collect::<Vec<_>>(), [on]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_there_whole_or_not_at_all_whatever_fails_or_dies() {
    let world = World::empty(small());
    world.host("kvm-1", 1, 4, 4_096).await;
    let store = world.store("vault").await;
    let (web, disks) = world.with_two_disks().await;
    for fault in [HostFault::Transient, HostFault::AnswerLost] {
        world.hosts.break_next(HostStep::BackUp, fault);
        let mortal = Arc::new(Mortal::default());
        let set = world.set(web, store).await.unwrap();
        world.settle_with(Some(mortal.clone())).await;
        assert!(mortal.deaths() >= 3, "{}", mortal.deaths());
        assert_eq!(world.status(set).await, "available");
        assert_eq!(world.hosts.backups(URL).len(), 2);
        world.through("backup-set", set, "delete", json!({})).await;
        assert!(world.hosts.backups(URL).is_empty());
    }
    // One that is given up leaves nothing, and lets the disks go.
    world.hosts.break_next(HostStep::BackUp, HostFault::Rejected("no room".into()));
    let set = world.set(web, store).await.unwrap();
    world.settle().await;
    assert_eq!(world.status(set).await, "parked");
    assert_eq!(code(world.set(web, store).await), "in-use");
    let mortal = Arc::new(Mortal::default());
    world.send("backup-set", set, "abandon", json!({})).await.unwrap();
    world.settle_with(Some(mortal.clone())).await;
    assert!(mortal.deaths() >= 6, "{}", mortal.deaths());
    assert_eq!((world.status(set).await.as_str(), world.hosts.backups(URL).len()), ("gone", 0));
    for disk in disks {
        world.send("disk", disk, "grow", json!({"size_gib": 5})).await.unwrap();
    }
    world.settle().await;
    // Parked, it goes on.
    world.hosts.break_next(HostStep::BackUp, HostFault::Rejected("no room".into()));
    let set = world.set(web, store).await.unwrap();
    world.settle().await;
    world.through("backup-set", set, "retry", json!({})).await;
    assert_eq!(world.status(set).await, "available");
    // What is no server of ours has none.
    let none = world.set(Uuid::from_u128(4), store).await;
    assert!(detail(none).contains("there is no server"));
}

impl World {
    async fn network_of(&self, net: &str) -> Uuid {
        let segment = json!({"name": "blue", "medium": "bridge", "bridge": "br0"});
        let segment = self.send("segment", None, "define", segment).await.unwrap().id;
        let body = json!({"name": "front", "segment": segment, "v4": {"net": net, "step": "up"}});
        self.send("network", None, "define", body).await.unwrap().id
    }

    async fn parts(&self, server: Uuid) -> Parts {
        self.server(server).await.home.unwrap().parts
    }

    /// A server that has something of everything, and a set of it.
    async fn whole(&self, store: Uuid) -> (Uuid, Uuid) {
        let network = self.network_of("10.0.0.0/24").await;
        let rule = json!({
            "direction": "ingress", "protocol": "tcp", "ports": "443", "peer": {"cidr": "0.0.0.0/0"},
        });
        let group = json!({"spec": {"name": "web", "rules": [rule]}});
        let group = self.send("security-group", None, "declare", group).await.unwrap().id;
        let key = json!({"name": "ann", "public_key": KEY});
        let key = self.send("key-pair", None, "define", key).await.unwrap().id;
        let body = json!({
            "name": "web", "spec": {"vcpus": 1, "vcpus_max": 2, "memory_mib": 64},
            "firmware": "uefi", "hardware": {"disks": "sata", "nics": "e1000e"},
            "tags": {"team": "shop"}, "protected": true, "key_pairs": [key],
            "boot_order": ["network", "disk"],
            "userdata": "#!/bin/sh\necho a-secret-of-the-guest\n",
            "disks": [
                {"size_gib": 1, "limits": {"read_operations": {"rate": 100}}},
                {"size_gib": 2, "format": "raw"},
            ],
            "nics": [{
                "network": network, "v4": {"type": "named", "data": {"address": "10.0.0.77"}},
                "mac": "52:54:00:aa:00:01", "bandwidth": {"egress_kbit_s": 4_000},
                "quota": {"egress_bytes": 1_000}, "security_groups": [group],
            }],
        });
        let web = self.send("server", None, "launch", body).await.unwrap().id;
        self.settle().await;
        for (at, disk) in self.parts(web).await.disks.iter().enumerate() {
            self.hosts.write(disk.id, ["system", "data"][at]);
        }
        let set = self.set(web, store).await.unwrap();
        self.settle().await;
        assert_eq!(self.status(set).await, "available");
        (web, set)
    }

    async fn again_from(&self, set: Uuid, more: Value) -> Uuid {
        let mut body = json!({"backup_set": set});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let id = self.send("server", None, "launch", body).await.unwrap().id;
        self.settle().await;
        assert_eq!(self.row(id).await["status"], "running");
        id
    }
}

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKBnABWcH+rkaw2uU18cddw8UywdsKHqvb7Cn+9pEwVI ann";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_made_from_a_set_is_what_the_first_one_was() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 8, 8_192).await;
    let store = world.store("vault").await;
    let (web, set) = world.whole(store).await;
    let first = world.server(web).await.home.unwrap();
    // No secret is in the record, and none in the store.
    let described = world.hosts.described(URL)[&set].to_string();
    let recorded = world.row(set).await.to_string();
    for text in [&described, &recorded] {
        assert!(text.contains("10.0.0.77") && text.contains("ssh-ed25519"), "{text}");
        assert!(!text.contains("a-secret-of-the-guest") && !text.contains("userdata"), "{text}");
    }

    // Beside the first one: what that still has is another's, and the rest is the same.
    let second = world.again_from(set, json!({"name": "copy", "protected": false})).await;
    let home = world.server(second).await.home.unwrap();
    let (was, is) = (&first.parts.nics[0], &home.parts.nics[0]);
    assert_ne!((was.mac, &was.addresses), (is.mac, &is.addresses));
    assert_eq!((&home.name, home.protected), (&"copy".to_owned(), false), "what is said counts");
    assert_eq!((home.spec, home.tags), (first.spec.clone(), first.tags.clone()));
    assert_eq!(home.boot_order, [BootDevice::Network, BootDevice::Disk]);
    assert_eq!(
        (home.parts.firmware, home.parts.hardware, &home.parts.keys),
        (first.parts.firmware, first.parts.hardware, &first.parts.keys)
    );
    let of = |parts: &Parts| {
        let of =
            |disk: &domain::compute::server::parts::Disk| (disk.size_gib, disk.format, disk.limits);
        parts.disks.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(of(&home.parts), of(&first.parts));

    // The first one is lost: the next has all that was its.
    world.send("server", web, "unprotect", json!({})).await.unwrap();
    for verb in ["stop", "delete", "purge"] {
        world.through("server", web, verb, json!({})).await;
    }
    let third = world.again_from(set, json!({})).await;
    let home = world.server(third).await.home.unwrap();
    let (was, is) = (&first.parts.nics[0], &home.parts.nics[0]);
    assert_eq!((was.mac, &was.addresses, was.network), (is.mac, &is.addresses, is.network));
    assert_eq!((was.bandwidth, was.quota), (is.bandwidth, is.quota));
    assert_eq!(was.rules(&first.parts.groups), is.rules(&home.parts.groups));
    assert!(was.rules(&first.parts.groups).is_some());
    assert_eq!((&home.name, home.protected, home.userdata), (&first.name, true, None));
    let contents = home.parts.disks.iter().map(|disk| world.hosts.content(disk.id));
    assert_eq!(contents.collect::<Vec<_>>(), ["system", "data"]);
    // Without interfaces, and for nobody to log in, when that is said.
    let bare = world.again_from(set, json!({"nics": [], "key_pairs": [], "tags": {}})).await;
    let home = world.server(bare).await.home.unwrap();
    assert!(home.parts.nics.is_empty() && home.parts.keys.is_empty() && home.tags.is_empty());
    assert_eq!(
        home.boot_order,
        [BootDevice::Disk],
        "nothing is started from what it does not have"
    );
    world.same_as_census(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_installation_finds_sets_and_has_the_whole_server() {
    let here = World::empty(small());
    here.host("kvm-1", 1, 8, 8_192).await;
    let store = here.store("vault").await;
    let (web, set) = here.whole(store).await;
    let half = here.set(web, store).await.unwrap();
    here.settle().await;
    let members = here.members(half).await;
    here.through("backup", members[0].1, "delete", json!({})).await;

    let there = elsewhere(&here);
    there.host("kvm-9", 1, 8, 8_192).await;
    let store = there.store("same place").await;
    there.hosts.break_next(HostStep::StoreList, HostFault::Transient);
    there.through("backup-store", store, "import", json!({})).await;
    let sum = there.row(store).await["state"]["last_import"][1].clone();
    assert_eq!((&sum["new"], &sum["new_sets"]), (&json!(3), &json!(1)), "{sum}");
    assert_eq!(sum["unreadable"], json!([format!("set {half}")]), "one that is not whole is named");
    let (ours, theirs) = (here.row(set).await, there.row(set).await);
    assert_eq!(theirs["status"], "available");
    for field in ["name", "server", "taken", "taken_at"] {
        assert_eq!(theirs["state"][field], ours["state"][field], "{field}");
    }
    assert_eq!(theirs["state"]["source"]["blueprint"], ours["state"]["source"]["blueprint"]);
    there.through("backup-store", store, "import", json!({})).await;
    assert_eq!(there.row(store).await["state"]["last_import"][1]["new_sets"], Value::Null);

    // Its network is not there: that is said, and nothing is left of it.
    let body = json!({"backup_set": set});
    let position = there.log.head().await.unwrap().position;
    let refused = there.send("server", None, "launch", body.clone()).await;
    let told = detail(refused);
    assert!(told.contains("10.0.0.77/24") && told.contains("say nics"), "{told}");
    assert_eq!(there.log.head().await.unwrap().position, position);
    // A network of the same addresses is, and its security group is not.
    let network = there.network_of("10.0.0.0/16").await;
    let told = detail(there.send("server", None, "launch", body).await);
    assert!(told.contains("security_groups: there is no security-group"), "{told}");
    let named = json!({"address": "10.0.0.77"});
    let nic = json!({"network": network, "v4": {"type": "named", "data": named}});
    let again = there.again_from(set, json!({"nics": [nic], "protected": false})).await;
    let (home, was) =
        (there.server(again).await.home.unwrap(), here.server(web).await.home.unwrap());
    assert_eq!((home.spec, home.tags, home.name), (was.spec, was.tags, was.name));
    assert_eq!(home.parts.keys, was.parts.keys);
    let contents = home.parts.disks.iter().map(|disk| there.hosts.content(disk.id));
    assert_eq!(contents.collect::<Vec<_>>(), ["system", "data"]);
    // What one of them deletes is gone for both.
    for verb in ["stop", "delete", "purge"] {
        there.through("server", again, verb, json!({})).await;
    }
    there.through("backup-set", set, "delete", json!({})).await;
    assert_eq!(there.status(set).await, "gone");
    assert_eq!(there.hosts.described(URL).into_keys().collect::<Vec<_>>(), [half]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_says_of_a_set_is_there_as_long_as_the_set_whatever_fails_or_dies() {
    let world = World::empty(small());
    world.host("kvm-1", 1, 8, 8_192).await;
    let store = world.store("vault").await;
    let (web, _) = world.with_two_disks().await;
    for fault in [HostFault::Transient, HostFault::AnswerLost] {
        for step in [HostStep::StoreDescribe, HostStep::StoreForgetSet] {
            world.hosts.break_next(step, fault.clone());
        }
        let mortal = Arc::new(Mortal::default());
        let set = world.set(web, store).await.unwrap();
        world.settle_with(Some(mortal.clone())).await;
        assert!(mortal.deaths() >= 6, "{}", mortal.deaths());
        assert_eq!(world.status(set).await, "available");
        assert_eq!(world.hosts.described(URL).into_keys().collect::<Vec<_>>(), [set]);
        world.send("backup-set", set, "delete", json!({})).await.unwrap();
        assert_eq!(world.status(set).await, "removing");
        let body = json!({"backup_set": set});
        assert_eq!(code(world.send("server", None, "launch", body).await), "wrong-state");
        world.settle_with(Some(Arc::new(Mortal::default()))).await;
        assert_eq!(world.status(set).await, "gone");
        assert!(world.hosts.described(URL).is_empty() && world.hosts.backups(URL).is_empty());
    }
    let hit = world.hosts.hit();
    for step in [HostStep::StoreDescribe, HostStep::StoreForgetSet] {
        assert_eq!(hit.iter().filter(|(at, _)| *at == step).count(), 2, "{step:?}");
    }
    // Where the store does not take it, the set is there all the same: it can be given up or gone on with.
    let no = || HostFault::Rejected("no room".into());
    world.hosts.break_next(HostStep::StoreDescribe, no());
    let set = world.set(web, store).await.unwrap();
    world.settle().await;
    assert_eq!(world.status(set).await, "parked");
    let again = world.again_from(set, json!({"name": "again"})).await;
    assert_eq!(world.parts(again).await.disks.len(), 2);
    world.through("backup-set", set, "retry", json!({})).await;
    assert!(world.hosts.described(URL).contains_key(&set));
    world.hosts.break_next(HostStep::StoreDescribe, no());
    let set = world.set(web, store).await.unwrap();
    world.settle().await;
    world.through("backup-set", set, "abandon", json!({})).await;
    assert_eq!(world.status(set).await, "available");
    assert!(!world.hosts.described(URL).contains_key(&set));
}

//! What is said of a launch before it is sent: where it goes, why not elsewhere, how many more. What is said is
//! what launches get.

use std::collections::BTreeMap;

use commands::{
    placements::{Answer, Bound},
    submit::SubmitFault,
};
use domain::{
    compute::placement::{HostId, Placement},
    kernel::{Principal, Reach, Refusal, Role},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::volume_group::GROUP;
use crate::world::{World, small};

impl World {
    async fn asked(&self, who: &Principal, body: Value) -> Result<Answer, SubmitFault> {
        let before = self.log.head().await.unwrap().position;
        let question = self.ledger.placement_question(who, body).await?;
        assert_eq!(question.position, before);
        let answer = question.answer(None, 1_000).unwrap();
        // One host says of itself what it says among all.
        for said in &answer.hosts {
            let alone = question.answer(Some(said.verdict.host), 1_000).unwrap();
            assert_eq!(alone.hosts.len(), 1);
            assert_eq!(alone.hosts[0].verdict, said.verdict);
            assert_eq!(alone.hosts[0].room, said.room);
        }
        assert_eq!(self.log.head().await.unwrap().position, before, "nothing is written by it");
        Ok(answer)
    }

    /// Launches until nothing more fits; what each got, and why the next one got nothing.
    async fn launched(&self, body: &Value) -> (Vec<Placement>, Refusal) {
        let mut got = Vec::new();
        loop {
            match self.send("server", None, "launch", body.clone()).await {
                Ok(done) => {
                    let home = self.server(done.id).await.home.unwrap();
                    got.push(*home.placement);
                }
                Err(SubmitFault::Refused(refusal)) => return (got, refusal),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn bound(what: &'static str, of: Option<String>, count: u64) -> Bound {
    Bound { what, of, count }
}

/// What each host that has no place says first.
fn firsts(answer: &Answer) -> BTreeMap<HostId, String> {
    let no = answer.hosts.iter().filter(|said| said.verdict.score.is_none());
    no.map(|said| (said.verdict.host, said.verdict.reasons[0].to_string())).collect()
}

/// The counts of every kind of request are those of launches, and so is where the first one goes and why no other
/// host has it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_a_launch_is_what_launches_get() {
    let group = Uuid::from_u128(0x6209);
    let apart = |hard: bool| json!([{"group": group, "relation": "apart", "hard": hard}]);
    let together = json!([{"group": group, "relation": "together", "hard": true}]);
    let spec = |vcpus: u32, memory_mib: u64| json!({"vcpus": vcpus, "memory_mib": memory_mib});
    let shaped = |more: Value| {
        let mut spec = spec(2, 1_000);
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let cases: [(&str, Value); 9] = [
        ("shared", json!({"spec": spec(1, 700)})),
        ("strict", json!({"spec": shaped(json!({"numa": "strict"}))})),
        (
            "its own cores",
            json!({"spec": shaped(json!({"pinning": {"type": "cores", "data": {}}}))}),
        ),
        (
            "best effort",
            json!({"spec": json!({
                "vcpus": 2, "memory_mib": 5_000, "numa": "best-effort", "cells_max": 1,
            })}),
        ),
        (
            "named CPUs",
            json!({"spec": shaped(json!({"pinning": {"type": "manual", "data": {"cpus": [0, 1]}}}))}),
        ),
        ("apart", json!({"spec": spec(1, 700), "wishes": {"affinities": apart(true)}})),
        ("rather apart", json!({"spec": spec(1, 700), "wishes": {"affinities": apart(false)}})),
        ("together", json!({"spec": spec(1, 700), "wishes": {"affinities": together}})),
        ("tagged", json!({"spec": spec(1, 700), "wishes": {"tags_required": ["fast"]}})),
    ];
    let mut counts = BTreeMap::new();
    for (what, mut body) in cases {
        body["name"] = json!("one");
        let world = World::empty(small());
        world.host("kvm-1", 2, 4, 4_096).await;
        world.host("kvm-2", 1, 4, 4_096).await;
        world.host("kvm-3", 1, 4, 4_096).await;
        let away = world.host("kvm-4", 1, 4, 4_096).await;
        world.send("host", away, "disable", json!({})).await.unwrap();
        let said = world.asked(&World::admin(), body.clone()).await.unwrap();
        let (got, refusal) = world.launched(&body).await;
        assert_eq!((said.count, said.limited), (got.len() as u64, false), "{what}");
        assert_eq!(said.bounds, [bound("hosts", None, said.count)], "{what}");
        counts.insert(what, said.count);
        assert_eq!(said.hosts.len(), 4);
        match (&said.placed, got.first()) {
            (Ok(placed), Some(first)) => {
                let mut holding = placed.holding.clone();
                holding.server = first.holding.server;
                assert_eq!((placed.host, &holding), (first.host, &first.holding), "{what}");
                assert_eq!(placed.irregular, first.irregular, "{what}");
                assert_eq!(placed.rejected, first.rejected, "{what}");
                let told = &first.rejected.hosts;
                let told = told.iter().map(|one| (one.host, one.reason.to_string())).collect();
                assert_eq!(firsts(&said), told, "{what}");
                let chosen = said.hosts.iter().find(|one| one.verdict.host == first.host).unwrap();
                assert_eq!(chosen.verdict.holding.as_ref(), Some(&placed.holding), "{what}");
            }
            (Err(refused), None) => assert_eq!(refused, &refusal, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        // When all is taken each host says what the refusal of a launch says.
        let after = world.asked(&World::admin(), body.clone()).await.unwrap();
        assert_eq!(after.count, 0, "{what}");
        assert_eq!(after.placed.unwrap_err().detail, refusal.detail, "{what}");
        assert_eq!(after.hosts.iter().map(|said| said.room).collect::<Vec<_>>(), [Some(0); 4]);
        assert_eq!(got.iter().any(|one| one.irregular), what == "best effort", "{what}");
    }
    assert_eq!((counts["apart"], counts["tagged"]), (3, 0), "{counts:?}");
    assert_eq!(counts["rather apart"], counts["shared"]);
    assert!((4..counts["shared"]).contains(&counts["together"]), "on one of three: {counts:?}");
    assert!(counts.iter().all(|(what, count)| *what == "tagged" || *count > 0), "{counts:?}");
}

/// What keeps the number of servers down besides hosts.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_and_volume_groups_bound_how_many_more_there_can_be() {
    let world = World::empty(small());
    world.with_group("kvm-1").await;
    let segment = json!({"name": "blue", "medium": "bridge", "bridge": "br0"});
    let segment = world.send("segment", None, "define", segment).await.unwrap().id;
    let v4 = json!({"net": "10.0.0.0/29", "gateway": null, "step": "up", "cooldown_s": 3_600});
    let network = json!({"name": "front", "segment": segment, "v4": v4});
    let network = world.send("network", None, "define", network).await.unwrap().id;
    let admin = World::admin();
    let spec = json!({"vcpus": 1, "memory_mib": 64});
    let two = json!([{"network": network}, {"network": network}]);
    let body = json!({"name": "two", "spec": spec, "nics": two});
    let said = world.asked(&admin, body.clone()).await.unwrap();
    let of_network = |count| bound("network", Some(network.to_string()), count);
    assert_eq!((said.count, said.limited), (3, false), "two of six addresses each");
    assert_eq!(said.bounds[0], of_network(3));
    let (got, refusal) = world.launched(&body).await;
    assert_eq!((got.len(), refusal.code.code), (3, "no-address-free"));
    // What a launch is refused with whatever the host is what is said.
    match world.asked(&admin, body).await {
        Err(SubmitFault::Refused(said)) => assert_eq!(said, refusal),
        other => panic!("{other:?}"),
    }

    let disk = |gib: u64| json!([{"size_gib": gib, "format": "raw", "storage": GROUP}]);
    let body = json!({"name": "large", "spec": spec, "disks": disk(15)});
    let said = world.asked(&admin, body.clone()).await.unwrap();
    let of_group = bound("volume-group", Some(GROUP.to_string()), said.count);
    assert!(said.bounds.contains(&of_group), "{said:?}");
    let (got, refusal) = world.launched(&body).await;
    assert_eq!((got.len() as u64, refusal.code.code), (said.count, "no-room"));
    assert_eq!(said.count, 3);

    // A name that there is but once.
    let named =
        json!([{"network": network, "v4": {"type": "named", "data": {"address": "10.0.0.1"}}}]);
    let body = json!({"name": "named", "spec": spec, "nics": named});
    match world.asked(&admin, body).await {
        Err(SubmitFault::Refused(said)) => assert_eq!(said.code.code, "address-taken"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sees_no_hosts_is_told_what_a_launch_would_tell_them() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 1_024).await;
    let project = world.send("project", None, "create", json!({"name": "shop"})).await;
    let project = project.unwrap().id;
    let reach = Reach::Projects(vec![project]);
    let operator = Principal { name: "token:shop".into(), role: Role::Operator, reach };
    let body = |memory_mib: u64| {
        let spec = json!({"vcpus": 1, "memory_mib": memory_mib});
        json!({"name": "one", "project": project, "spec": spec})
    };
    let said = world.asked(&operator, body(256)).await.unwrap();
    assert_eq!(said.count, 4);
    assert!(said.hosts.is_empty());
    assert_eq!(said.placed.unwrap().host.uuid(), host, "as a plan of the launch says");
    let said = world.asked(&operator, body(2_048)).await.unwrap();
    let mut launch = World::submission("server", None, "launch", body(2_048));
    launch.principal = operator.clone();
    let Err(SubmitFault::Refused(refusal)) = world.ledger.submit(launch).await else { panic!() };
    assert_eq!(said.placed.unwrap_err(), refusal);
    assert_eq!(refusal.detail, "1 hosts: memory 1");
    let question = world.ledger.placement_question(&operator, body(256)).await.unwrap();
    assert!(!question.knows(HostId::new(host)));
    // What is not theirs to launch is not theirs to ask about.
    let estates = json!({"name": "one", "spec": {"vcpus": 1, "memory_mib": 1}});
    let viewer = Principal { role: Role::Viewer, ..operator.clone() };
    for (who, body, code) in [
        (&operator, estates, "out-of-reach"),
        (&viewer, body(1), "role-too-low"),
        (&operator, body(0), "invalid-field"),
    ] {
        match world.asked(who, body).await {
            Err(SubmitFault::Refused(refusal)) => assert_eq!(refusal.code.code, code),
            other => panic!("{other:?}"),
        }
    }
}

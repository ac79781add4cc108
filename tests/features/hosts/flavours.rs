//! Servers that are launched by a flavour: what it says is recorded, whatever becomes of it.

use commands::submit::SubmitFault;
use domain::kernel::{Principal, Reach, Refusal, Role};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{World, small};

fn refusal<T: std::fmt::Debug>(result: Result<T, SubmitFault>) -> Refusal {
    match result {
        Err(SubmitFault::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

impl World {
    async fn flavour(&self, name: &str, project: Option<Uuid>, spec: Value) -> Uuid {
        let body = json!({"name": name, "project": project, "spec": spec});
        self.send("flavour", None, "define", body).await.unwrap().id
    }

    /// Its machine, and the flavour that it is of.
    async fn shape(&self, id: Uuid) -> (u32, u64, Option<Uuid>) {
        let home = self.server(id).await.home.unwrap();
        (home.spec.vcpus, home.spec.memory_mib, home.flavour)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_what_its_flavour_said_when_it_was_launched_and_becomes_another_by_a_resize() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 8, 8_192).await;
    let little = world.flavour("little", None, json!({"vcpus": 1, "memory_mib": 512})).await;
    let large = world.flavour("large", None, json!({"vcpus": 2, "memory_mib": 1_024})).await;
    let strict = json!({"vcpus": 2, "memory_mib": 1_024, "numa": "strict"});
    let strict = world.flavour("strict", None, strict).await;

    // What is asked before is of the same machine.
    let body = json!({"name": "web", "flavour": little});
    let question = world.ledger.placement_question(&World::admin(), body.clone()).await.unwrap();
    let said = question.answer(None, 100).unwrap();
    assert_eq!(said.count, 16, "512 MiB each");
    let id = world.send("server", None, "launch", body).await.unwrap().id;
    assert_eq!(world.shape(id).await, (1, 512, Some(little)));
    let launched = world.history("server", id).await.remove(0);
    let data: Value = serde_json::from_slice(launched.data()).unwrap();
    let launch = &data["launch"];
    assert_eq!(launch["flavour"], little.to_string(), "which one it was");
    assert_eq!(launch["spec"]["memory_mib"], 512, "and what that says");
    world.settle().await;
    assert_eq!(world.hosts.census(host)[&id].memory_mib, 512);

    // Nothing is launched with it any more, and nothing becomes of what was.
    world.send("flavour", little, "retire", json!({})).await.unwrap();
    assert_eq!(world.shape(id).await, (1, 512, Some(little)));
    world.send("server", id, "stop", json!({})).await.unwrap();
    world.settle().await;
    let resize = async |body: Value| world.send("server", id, "resize", body).await;
    for (body, why) in [
        (json!({"flavour": little}), "flavour: little is retired"),
        (json!({"flavour": strict}), "flavour: is another machine by numa"),
        (json!({"flavour": large, "vcpus": 2}), "leave vcpus and memory_mib out"),
        (json!({"flavour": Uuid::from_u128(7)}), "flavour: there is no flavour"),
    ] {
        let refused = refusal(resize(body).await);
        assert_eq!(refused.code.code, "invalid-field");
        assert!(refused.detail.contains(why), "{refused}");
    }
    assert_eq!(world.row(id).await["order"], Value::Null);
    resize(json!({"flavour": large})).await.unwrap();
    assert_eq!(world.shape(id).await, (1, 512, Some(little)), "until it is done");
    world.settle().await;
    assert_eq!(world.shape(id).await, (2, 1_024, Some(large)));
    assert!(resize(json!({"flavour": large})).await.unwrap().events.is_empty());
    // A size of its own is of no flavour.
    resize(json!({"memory_mib": 2_048})).await.unwrap();
    world.settle().await;
    assert_eq!(world.shape(id).await, (2, 2_048, None));
    world.same_as_census(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_says_one_machine_and_of_a_flavour_that_it_may_have() {
    let world = World::empty(small());
    world.host("kvm-1", 1, 8, 8_192).await;
    let project = async |name: &str| {
        world.send("project", None, "create", json!({"name": name})).await.unwrap().id
    };
    let (shop, lab) = (project("shop").await, project("lab").await);
    let spec = json!({"vcpus": 1, "memory_mib": 64});
    let everybodys = world.flavour("small", None, spec.clone()).await;
    let shops = world.flavour("small", Some(shop), spec.clone()).await;
    let labs = world.flavour("small", Some(lab), spec.clone()).await;
    let retired = world.flavour("old", Some(shop), spec.clone()).await;
    world.send("flavour", retired, "retire", json!({})).await.unwrap();
    let again = json!({"name": "small", "spec": {"vcpus": 2, "memory_mib": 64}});
    let again = world.send("flavour", None, "define", again).await;
    assert_eq!(refusal(again).code.code, "already-claimed", "a name is one flavour's");

    let reach = Reach::Projects(vec![shop]);
    let operator = Principal { name: "token:shop".into(), role: Role::Operator, reach };
    let launch = async |more: Value| {
        let mut body = json!({"name": "web", "project": shop});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut submission = World::submission("server", None, "launch", body);
        submission.principal = operator.clone();
        world.ledger.submit(submission).await
    };
    let before = world.log.head().await.unwrap().position;
    for (more, why) in [
        (json!({}), "spec: says what machine it is, or a flavour does"),
        (json!({"spec": null}), "spec: says what machine it is, or a flavour does"),
        (json!({"flavour": shops, "spec": spec}), "leave spec out"),
        (json!({"flavour": Uuid::from_u128(7)}), "flavour: there is no flavour"),
        (json!({"flavour": labs}), "flavour: there is no flavour"),
        (json!({"flavour": retired}), "flavour: old is retired"),
    ] {
        let refused = refusal(launch(more).await);
        assert_eq!(refused.code.code, "invalid-field", "{refused}");
        assert!(refused.detail.contains(why), "{refused}");
    }
    let unread = refusal(launch(json!({"flavour": "small"})).await);
    assert_eq!(unread.code.code, "malformed-command", "{unread}");
    assert_eq!(world.log.head().await.unwrap().position, before, "nothing is left of it");
    for flavour in [everybodys, shops] {
        let id = launch(json!({"flavour": flavour})).await.unwrap().id;
        assert_eq!(world.shape(id).await, (1, 64, Some(flavour)));
    }
}

//! Orders of a server.

use std::collections::BTreeMap;

use adapters_clouds::testing::{Fate, Proxy};
use serde_json::{Value, json};

use crate::world::{World, new_id, stand_in, word};

fn order(name: &str) -> Value {
    match name {
        "set-tags" => json!({"type": name, "data": {"tags": {"team": "shop", "old": null}}}),
        name => json!({"type": name, "data": {}}),
    }
}

/// Calls that change something, by name.
fn changes(proxy: &Proxy) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for call in proxy.calls() {
        if !call.action.starts_with("Describe") {
            *counted.entry(call.action).or_default() += 1;
        }
    }
    counted
}

async fn prepared(world: &World, name: &str) -> String {
    let id = world.server().await;
    if name == "start" {
        world.hand("StopInstances", &[("InstanceId.1", &id)]).await;
    }
    let tag = [("ResourceId.1", id.as_str()), ("Tag.1.Key", "old"), ("Tag.1.Value", "1")];
    world.hand("CreateTags", &tag).await;
    id
}

#[tokio::test]
async fn each_order_done_twice_is_done_once() {
    for (name, calls, power) in [
        ("reboot", &["CreateTags", "RebootInstances"][..], "running"),
        ("set-tags", &["CreateTags", "DeleteTags"], "running"),
        ("start", &["StartInstances"], "running"),
        ("stop", &["StopInstances"], "stopped"),
    ] {
        let proxy = Proxy::start(&stand_in()).await.unwrap();
        let world = World::through("ca-central-1", proxy.url());
        let id = prepared(&world, name).await;
        let task = world.task("server", new_id(), &id, order(name));
        for _ in 0..2 {
            let report = world.carry_out(&task).await.unwrap();
            assert_eq!(report["verb"], "confirm");
            assert_eq!(report["body"]["seen"]["power"], power, "{name}");
        }
        let counted = changes(&proxy);
        assert!(counted.keys().eq(calls) && counted.values().all(|n| *n == 1), "{counted:?}");
        let seen = world.find("server", &id).await.unwrap().unwrap().seen;
        let tags = if name == "set-tags" { json!({"team": "shop"}) } else { json!({"old": "1"}) };
        assert_eq!(seen["tags"], tags, "{name}");
    }
}

#[tokio::test]
async fn the_next_restart_is_another_one() {
    let proxy = Proxy::start(&stand_in()).await.unwrap();
    let world = World::through("ca-central-1", proxy.url());
    let id = prepared(&world, "reboot").await;
    let mut task = world.task("server", new_id(), &id, order("reboot"));
    world.carry_out(&task).await.unwrap();
    task.key.number = 2;
    world.carry_out(&task).await.unwrap();
    assert_eq!(changes(&proxy)["RebootInstances"], 2);
}

#[tokio::test]
async fn whatever_breaks_at_any_call_the_next_try_completes_the_order() {
    for name in ["reboot", "set-tags", "start", "stop"] {
        for fate in [Fate::DropBefore, Fate::DropAfter, Fate::throttle(1)] {
            let mut broken = 0;
            for nth in 1.. {
                let proxy = Proxy::start(&stand_in()).await.unwrap();
                let world = World::through("ca-central-1", proxy.url());
                let id = prepared(&world, name).await;
                let task = world.task("server", new_id(), &id, order(name));
                proxy.script_nth(nth, fate.clone());
                let first = world.carry_out(&task).await;
                if proxy.broken() == 0 {
                    break;
                }
                assert!(matches!(word(&first.unwrap_err()), "transient" | "throttled"));
                broken += 1;
                let report = world.carry_out(&task).await.unwrap();
                let seen = &report["body"]["seen"];
                assert_eq!(seen["power"], if name == "stop" { "stopped" } else { "running" });
                let counted = changes(&proxy);
                // Between a restart and its mark lies the one moment that makes it happen twice.
                let most = if name == "reboot" && fate == Fate::DropAfter { 2 } else { 1 };
                for (call, times) in counted {
                    let again = usize::from(fate != Fate::DropAfter);
                    assert!(times <= most + again, "{name}: {call} {times} times at call {nth}");
                }
            }
            assert!(broken >= 2, "{name}: {fate:?} was hit {broken} times");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_not_found() {
    let world = World::new("ca-central-1");
    let id = world.server().await;
    world.hand("TerminateInstances", &[("InstanceId.1", &id)]).await;
    for id in [id.as_str(), "i-0123456789abcdef0"] {
        let task = world.task("server", new_id(), id, order("start"));
        assert_eq!(word(&world.carry_out(&task).await.unwrap_err()), "not found");
    }
}

#[test]
fn tags_that_aws_keeps_are_named_before_anything_is_written() {
    let world = World::new("ca-central-1");
    for (tags, expected) in [
        (json!({"aws:x": "1"}), "tags.aws:x: AWS keeps"),
        (json!({"AWS:x": null}), "tags.AWS:x: AWS keeps"),
        (json!({"x": "y".repeat(257)}), "at most 256 characters"),
    ] {
        let order = json!({"type": "set-tags", "data": {"tags": tags}});
        let why = world.check("server", &order).unwrap_err();
        assert!(why.contains(expected), "{why}");
    }
    assert_eq!(world.check("server", &order("set-tags")), Ok(()));
}

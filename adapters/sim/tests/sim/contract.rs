//! What every driver promises: twice is once, what is not there is said to be not there, and a
//! sighting equals what was made.

use std::collections::BTreeMap;

use commands::ports::{DriverFault, Intent, Provider};
use domain::mapping::Order;
use serde_json::json;

use crate::{ACCOUNT, Bench, REGION, STREAM, access, group_task, seen, spec, task};

#[tokio::test]
async fn a_wrong_secret_and_an_unknown_account_are_denied() {
    let bench = Bench::new(20);
    for wrong in [access(ACCOUNT, "guess"), access("acc-2", "s3cret")] {
        let got = bench.cloud.identity(&wrong).await;
        assert!(matches!(got, Err(DriverFault::Denied(_))), "{got:?}");
        let got = bench.cloud.list(&wrong, Some(REGION), "server", None).await;
        assert!(matches!(got, Err(DriverFault::Denied(_))), "{got:?}");
    }
    let identity = bench.cloud.identity(&bench.access).await.unwrap();
    assert_eq!(identity.external_account, ACCOUNT);
}

#[test]
fn a_credential_is_an_account_and_a_secret() {
    let cloud = Bench::new(0).cloud;
    assert!(cloud.check_credential(&json!({"account": "a", "secret": "b"})).is_empty());
    for (wrong, complaints) in [
        (json!("a"), 1),
        (json!({"account": "a"}), 1),
        (json!({"account": "", "secret": 1}), 2),
        (json!({"account": "a", "secret": "b", "region": "c"}), 1),
    ] {
        assert_eq!(cloud.check_credential(&wrong).len(), complaints, "{wrong}");
    }
}

#[tokio::test]
async fn a_group_created_twice_is_there_once_and_as_it_was_wanted() {
    let bench = Bench::new(20);
    let wanted = spec(
        "web",
        &[json!({"ports": "443"}), json!({"ports": "22", "action": "deny", "priority": 5})],
    );
    let create = group_task(1, "", &Order::Create { spec: wanted.clone() });
    let first = bench.carry_out(&create).await.unwrap();
    let second = bench.carry_out(&create).await.unwrap();
    assert_eq!(first, second);
    assert_eq!((first.verb, &seen(&first)), ("link", &wanted));
    let id = first.body["external_id"].as_str().unwrap();
    let found =
        bench.cloud.find(&bench.access, Some(REGION), "security-group", id).await.unwrap().unwrap();
    assert_eq!(found.seen, serde_json::to_value(&wanted).unwrap());
    assert_eq!(found.ours, Some(STREAM));
    let listed = bench.all("security-group").await.unwrap();
    let ours = listed.iter().flat_map(|page| &page.sightings).filter(|one| one.ours.is_some());
    assert_eq!(ours.collect::<Vec<_>>(), [&found]);
    // A later attempt, under another number, finds it too.
    let later = bench.carry_out(&group_task(2, "", &Order::Create { spec: wanted })).await.unwrap();
    assert_eq!(later.body["external_id"], id);
}

#[tokio::test]
async fn an_order_of_what_is_not_there_says_so() {
    let bench = Bench::new(20);
    let one = spec("web", &[]);
    let apply = group_task(1, "sg-none", &Order::Apply { from: one.clone(), to: one });
    assert!(matches!(bench.carry_out(&apply).await, Err(DriverFault::NotFound(_))));
    let start = task("server", 1, "i-none", json!({"type": "start", "data": {}}));
    assert!(matches!(bench.carry_out(&start).await, Err(DriverFault::NotFound(_))));
    for kind in ["disk", "network", "region", "security-group", "server", "vpc", "zone"] {
        let found = bench.cloud.find(&bench.access, Some(REGION), kind, "x-none").await.unwrap();
        assert_eq!(found, None, "{kind}");
    }
    let elsewhere = bench.cloud.list(&bench.access, Some("sim-mars-1"), "vpc", None).await;
    assert!(matches!(elsewhere, Err(DriverFault::NotFound(_))));
    let unknown = bench.cloud.list(&bench.access, Some(REGION), "bucket", None).await;
    assert!(matches!(unknown, Err(DriverFault::Rejected(_))));
}

#[tokio::test]
async fn a_group_is_deleted_once_and_not_while_it_guards_a_server() {
    let bench = Bench::new(60);
    let id = bench.group(&spec("old", &[]));
    let delete = group_task(1, &id, &Order::Delete {});
    for _ in 0..2 {
        assert_eq!(bench.carry_out(&delete).await.unwrap().verb, "confirm-deleted");
    }
    let used = group_task(1, &bench.first("security-group"), &Order::Delete {});
    assert!(matches!(bench.carry_out(&used).await, Err(DriverFault::Rejected(_))));
}

#[tokio::test]
async fn an_apply_removes_only_what_the_order_had_seen() {
    let bench = Bench::new(0);
    let from = spec("web", &[json!({"ports": "22"}), json!({"ports": "80", "description": "old"})]);
    let id = bench.group(&from);
    let console = bench.cloud.console(ACCOUNT, "mallory");
    let foreign = crate::rule(&json!({"ports": "9999"}));
    console.add_rule(REGION, &id, &foreign).unwrap();
    console.set_tag(REGION, "security-group", &id, "theirs", Some("1")).unwrap();
    let mut to =
        spec("front", &[json!({"ports": "80", "description": "new"}), json!({"ports": "443"})]);
    to.tags = [("env".to_owned(), "prod".to_owned())].into();
    let apply = group_task(1, &id, &Order::Apply { from, to: to.clone() });
    let mut after = to;
    after.rules.push(foreign);
    after.rules.sort();
    after.tags.insert("theirs".into(), "1".into());
    for _ in 0..2 {
        assert_eq!(seen(&bench.carry_out(&apply).await.unwrap()), after);
    }
}

#[tokio::test]
async fn a_server_is_switched_and_tagged_and_restarts_once_an_order() {
    let bench = Bench::new(60);
    let id = bench.first("server");
    let console = bench.cloud.console(ACCOUNT, "test");
    console.set_power(REGION, &id, domain::compute::server::Power::Running).unwrap();
    for (number, order, power) in [
        (1, "stop", "stopped"),
        (2, "start", "running"),
        (3, "reboot", "running"),
        (4, "reboot", "running"),
    ] {
        let order = task("server", number, &id, json!({"type": order, "data": {}}));
        for _ in 0..2 {
            let report = bench.carry_out(&order).await.unwrap();
            assert_eq!((report.verb, &report.body["seen"]["power"]), ("confirm", &json!(power)));
        }
    }
    assert_eq!(console.reboots(REGION, &id).unwrap(), 2);
    let tags = json!({"type": "set-tags", "data": {"tags": {"owner": "ann", "team": null}}});
    let report = bench.carry_out(&task("server", 5, &id, tags)).await.unwrap();
    assert_eq!(report.body["seen"]["tags"]["owner"], "ann");
    assert_eq!(report.body["seen"]["tags"].get("team"), None);
}

#[tokio::test]
async fn a_server_takes_its_time_and_starts_only_once_it_has_stopped() {
    let bench = Bench::new(60);
    bench.cloud.set_boot_time(std::time::Duration::from_secs(30)).unwrap();
    let id = bench.first("server");
    let console = bench.cloud.console(ACCOUNT, "test");
    console.set_power(REGION, &id, domain::compute::server::Power::Running).unwrap();
    let stop = task("server", 1, &id, json!({"type": "stop", "data": {}}));
    let start = task("server", 2, &id, json!({"type": "start", "data": {}}));
    assert_eq!(bench.carry_out(&stop).await.unwrap().body["seen"]["power"], "stopping");
    assert!(matches!(bench.carry_out(&start).await, Err(DriverFault::Transient(_))));
    bench.clock.advance(std::time::Duration::from_secs(30));
    assert_eq!(bench.carry_out(&start).await.unwrap().body["seen"]["power"], "starting");
    bench.clock.advance(std::time::Duration::from_secs(30));
    let found = bench.cloud.find(&bench.access, Some(REGION), "server", &id).await.unwrap();
    assert_eq!(found.unwrap().seen["power"], "running");
}

#[tokio::test]
async fn the_plan_names_the_calls_that_are_then_made() {
    let bench = Bench::new(0);
    let from = spec("web", &[json!({"ports": "22"}), json!({"ports": "80"})]);
    let to = spec("web", &[json!({"ports": "80"}), json!({"ports": "443"})]);
    let id = bench.group(&from);
    for planned in [
        group_task(1, &id, &Order::Apply { from: from.clone(), to: to.clone() }),
        group_task(2, "", &Order::Create { spec: to }),
        group_task(3, &id, &Order::Delete {}),
    ] {
        let plan: Vec<_> = bench.cloud.calls(&planned).into_iter().map(|call| call.call).collect();
        bench.cloud.clear_trace();
        bench.carry_out(&planned).await.unwrap();
        let writes = bench.cloud.trace().into_iter().filter(|one| one.seen.op.writes());
        let made: Vec<_> = writes.map(|one| format!("sim:{}", one.seen.op.name())).collect();
        assert_eq!(plan, made);
    }
}

#[test]
fn limits_are_named_before_anything_is_written() {
    let cloud = Bench::new(0).cloud;
    let check = |wanted: &serde_json::Value, seen: Option<&serde_json::Value>| {
        let order = json!({"type": "apply", "data": {"from": seen, "to": wanted}});
        cloud.check_order(&Intent {
            kind: "security-group",
            order: &order,
            external_account: "",
            settings: &serde_json::Map::new(),
            tags: &BTreeMap::new(),
        })
    };
    let json = |rules: &[serde_json::Value]| serde_json::to_value(spec("web", rules)).unwrap();
    let many = |ports: std::ops::Range<u16>| -> Vec<_> {
        ports.map(|port| json!({"ports": port.to_string()})).collect()
    };
    assert_eq!(check(&json(&many(0..200)), None), Ok(()));
    assert!(check(&json(&many(0..201)), None).unwrap_err().contains("at most 200"));
    // The ones being replaced need room too.
    assert!(check(&json(&many(0..150)), Some(&json(&many(100..250)))).is_err());
    assert!(check(&json(&[json!({"priority": 0})]), None).unwrap_err().contains("1 to 1000"));
    assert!(check(&json(&[json!({"priority": 1001})]), None).is_err());
    assert_eq!(check(&json(&[json!({"priority": 1000})]), None), Ok(()));
    let lists = json!({"peer": {"prefix_list": "pl-1"}});
    assert!(check(&json(&[lists]), None).unwrap_err().contains("prefix lists"));
    let name = "n".repeat(129);
    assert!(
        check(&serde_json::to_value(spec(&name, &[])).unwrap(), None).unwrap_err().contains("128")
    );
}

#[test]
fn the_table_is_sorted_and_knows_only_kinds_there_are() {
    assert!(adapters_sim::TABLE.is_sorted_by_key(|support| support.kind));
    for support in adapters_sim::TABLE {
        assert!(domain::kinds::by_name(support.kind).is_some(), "{}", support.kind);
        assert!(support.orders.is_sorted());
    }
}

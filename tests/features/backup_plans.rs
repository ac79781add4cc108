//! Backup plans: backups by the clock, what stays of them, what failed and was missed, and that nothing is
//! done twice whatever dies.

use std::{sync::Arc, time::Duration};

use adapters_sim::{HostFault, HostStep};
use commands::{backup_plans::backup_id, ports::Clock, submit::Submission};
use domain::{
    kernel::{Principal, Reach, Role},
    kinds,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    backups::{URL, detail},
    hosts::{Mortal, code},
    world::{World, small},
};

impl World {
    async fn plan(&self, terms: Value) -> Uuid {
        let body = json!({"name": "nightly", "terms": terms});
        self.send("backup-plan", None, "define", body).await.unwrap().id
    }

    /// Goes on to the next time of a plan, and to so many days after it.
    async fn wait_for_plan(&self, plan: Uuid, days: u64) {
        let next = self.row(plan).await["state"]["next"].clone();
        let next: chrono::DateTime<chrono::Utc> = next.as_str().unwrap().parse().unwrap();
        let left = (next - self.clock.now()).to_std().unwrap();
        self.clock.advance(left + Duration::from_mins(1) + Duration::from_hours(24 * days));
    }

    /// Lets a plan run by the clock, once.
    async fn run_plan(&self, plan: Uuid) -> Value {
        self.caught_up().await;
        assert_eq!(self.ledger.order_due_backups().await.unwrap(), 1);
        self.caught_up().await;
        assert_eq!(self.ledger.order_due_backups().await.unwrap(), 0, "once");
        self.settle().await;
        self.last_run(plan).await
    }

    async fn last_run(&self, plan: Uuid) -> Value {
        self.row(plan).await["state"]["last_run"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_backs_up_by_the_clock_and_deletes_what_no_rule_keeps() {
    let world = World::empty(small());
    world.host("kvm-1", 1, 4, 4_096).await;
    let store = world.store("vault").await;
    let (web, disk) = world.with_data("web", "first").await;
    // One that a person made is nobody else's to delete.
    let own = world.back_up(disk, store, None).await.unwrap();
    world.settle().await;
    let terms = json!({
        "servers": [web], "store": store, "times": {"hours": [2]}, "full_every": 3,
        "keep": {"last": 2},
    });
    let plan = world.plan(terms).await;
    world.caught_up().await;
    assert_eq!(world.ledger.order_due_backups().await.unwrap(), 0, "it is not time");
    let (mut full, mut made) = (Vec::new(), Vec::new());
    for day in 0..5 {
        world.hosts.write(disk, &format!("day {day}"));
        world.wait_for_plan(plan, 0).await;
        let last = world.run_plan(plan).await;
        assert_eq!((&last["missed"], &last["problems"]), (&json!(0), &json!(0)), "{last}");
        let ran = &last["results"][0];
        assert_eq!((ran["subject"].as_str(), &ran["left"]), (Some(&*disk.to_string()), &json!(0)));
        assert_eq!(ran["kept"], if day == 0 { 1 } else { 2 });
        full.push(ran["full"].as_bool().unwrap());
        made.push(ran["backup"].as_str().unwrap().parse::<Uuid>().unwrap());
    }
    assert_eq!(full, [true, false, false, true, false], "each third reads all");
    let there: Vec<Uuid> = world.hosts.backups(URL).into_keys().collect();
    let mut kept = vec![own, made[3], made[4]];
    kept.sort_unstable();
    assert_eq!(there, kept);
    let row = world.row(made[4]).await;
    assert_eq!(row["state"]["parent"], made[3].to_string());
    assert!(row["name"].as_str().unwrap().starts_with("nightly 2"), "{row}");
    let history = world.history("backup", made[0]).await;
    assert!(history.iter().all(|one| one.header().actor.starts_with("system:")));

    // No backup needs another: one that is left alone is whole.
    world.through("backup", made[3], "delete", json!({})).await;
    let body = json!({"name": "copy", "server": web, "from": {"backup": made[4]}});
    let copy = world.send("disk", None, "create", body).await.unwrap().id;
    world.settle().await;
    assert_eq!(world.hosts.content(copy), "day 4");

    // Nobody was there for three days: one run, which says what was missed. The disk that the server has
    // got is backed up with it, and all of it is read.
    world.wait_for_plan(plan, 2).await;
    let last = world.run_plan(plan).await;
    assert_eq!(last["missed"], 2);
    let results = last["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    let of = |disk: Uuid| {
        results.iter().find(|ran| ran["subject"] == disk.to_string().as_str()).unwrap()
    };
    assert_eq!((&of(disk)["full"], &of(copy)["full"]), (&json!(false), &json!(true)));

    // Whoever made it, a plan deletes nothing that is in use: it goes with the next run.
    let oldest = made[4];
    let body = json!({"name": "again", "server": web, "from": {"backup": oldest}});
    world.send("disk", None, "create", body).await.unwrap();
    world.send("backup-plan", plan, "run", json!({})).await.unwrap();
    world.settle().await;
    assert_eq!(world.status(plan).await, "active");
    world.through("backup-plan", plan, "run", json!({})).await;
    assert_eq!(world.status(oldest).await, "gone");
    assert_eq!(world.status(own).await, "available");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_dies_anywhere_makes_each_backup_once() {
    let world = World::empty(small());
    world.host("kvm-1", 1, 4, 4_096).await;
    let store = world.store("vault").await;
    let (web, disk) = world.with_data("web", "first").await;
    let (_, other) = world.with_data("db", "other").await;
    let terms = json!({
        "servers": [web], "disks": [other], "store": store, "times": {"hours": [2]},
        "keep": {"last": 1},
    });
    let plan = world.plan(terms).await;
    for run in 1..=3_usize {
        let mortal = Arc::new(Mortal::default());
        world.send("backup-plan", plan, "run", json!({})).await.unwrap();
        world.settle_with(Some(mortal.clone())).await;
        // The run, two backups that are made, and two of the time before that are removed.
        assert!(mortal.deaths() >= if run == 1 { 9 } else { 15 }, "{}", mortal.deaths());
        let last = world.last_run(plan).await;
        assert_eq!(last["problems"], 0, "{last}");
        assert_eq!(world.rows("backup").await.len(), run * 2, "one of each disk");
        assert_eq!(world.hosts.backups(URL).len(), 2, "the last of each disk");
    }
    // It died between the first disk and the second: the first one's is found, and made no second time.
    let order = world.send("backup-plan", plan, "run", json!({})).await.unwrap().order.unwrap();
    let id = backup_id(plan, order.number, disk);
    let body = json!({"name": "half", "disk": disk, "store": store, "plan": plan});
    let kind = kinds::by_name("backup").unwrap();
    let half = Submission::new(Principal::system("backup-plan"), kind, id, "create", body);
    world.ledger.submit(half).await.unwrap();
    world.settle().await;
    assert_eq!(world.rows("backup").await.len(), 8);
    let last = world.last_run(plan).await;
    let results = last["results"].as_array().unwrap();
    assert_eq!(results.iter().filter(|ran| ran["backup"] == id.to_string().as_str()).count(), 1);
    assert_eq!(last["problems"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_shown_costs_nothing_that_is_there_and_is_made_good_by_the_next_run() {
    let world = World::empty(small());
    world.host("kvm-1", 1, 4, 4_096).await;
    let store = world.store("vault").await;
    let (web, disk) = world.with_data("web", "first").await;
    let terms = json!({
        "servers": [web], "store": store, "times": {"hours": [2]}, "keep": {"days": 1},
    });
    let plan = world.plan(terms).await;
    world.through("backup-plan", plan, "run", json!({})).await;
    let first = world.last_run(plan).await["results"][0]["backup"].clone();

    world.wait_for_plan(plan, 3).await;
    world.hosts.break_next(HostStep::BackUp, HostFault::Rejected("no bucket".to_owned()));
    let last = world.run_plan(plan).await;
    let ran = &last["results"][0];
    assert!(ran["problem"].as_str().unwrap().contains("no bucket"), "{last}");
    assert_eq!((&last["problems"], &ran["deleted"]), (&json!(1), &Value::Null));
    assert_eq!(world.status(plan).await, "failing");
    let first: Uuid = first.as_str().unwrap().parse().unwrap();
    assert_eq!(world.status(first).await, "available", "it is too old, and all that there is");
    let broken: Uuid = ran["backup"].as_str().unwrap().parse().unwrap();
    assert_eq!(world.status(broken).await, "parked", "for a person to look at");

    // The next run gives it up, which its disk is free by, and makes its own.
    world.wait_for_plan(plan, 0).await;
    let last = world.run_plan(plan).await;
    assert_eq!(last["problems"], 0, "{last}");
    assert_eq!(world.status(plan).await, "active");
    assert_eq!(
        (world.status(broken).await, world.status(first).await),
        ("gone".into(), "gone".into())
    );
    assert_eq!(world.hosts.backups(URL).len(), 1);

    // Something else works on the disk for longer than a run waits.
    world.hosts.break_next(HostStep::BackUp, HostFault::Rejected("no bucket".to_owned()));
    let own = world.back_up(disk, store, None).await.unwrap();
    world.settle().await;
    world.send("backup-plan", plan, "run", json!({})).await.unwrap();
    world.clock.advance(Duration::from_mins(31));
    world.settle().await;
    let last = world.last_run(plan).await;
    assert!(last["results"][0]["problem"].as_str().unwrap().contains(&own.to_string()), "{last}");
    assert_eq!(world.status(own).await, "parked", "a person's is left to the person");
    world.through("backup", own, "abandon", json!({})).await;

    // A server that is gone is told, time after time.
    for verb in ["stop", "delete", "purge"] {
        world.through("server", web, verb, json!({})).await;
    }
    world.through("backup-plan", plan, "run", json!({})).await;
    let last = world.last_run(plan).await;
    assert_eq!(last["results"][0]["problem"], "the server is gone");
    assert_eq!(last["results"][0]["subject"], web.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_rests_while_it_is_paused_and_is_refused_what_it_may_not_have() {
    let world = World::empty(small());
    world.host("kvm-1", 1, 4, 4_096).await;
    let store = world.store("vault").await;
    let (web, disk) = world.with_data("web", "first").await;
    let terms = |disks: Value, store: Uuid| json!({"disks": disks, "store": store, "times": {"hours": [2]}, "keep": {"last": 1}});
    let plan = world.plan(terms(json!([disk]), store)).await;
    world.through("backup-plan", plan, "pause", json!({})).await;
    assert!(world.row(plan).await["state"]["next"].is_null());
    world.clock.advance(Duration::from_hours(48));
    world.caught_up().await;
    assert_eq!(world.ledger.order_due_backups().await.unwrap(), 0);
    world.through("backup-plan", plan, "resume", json!({})).await;
    assert_eq!(world.ledger.order_due_backups().await.unwrap(), 0, "what was is not made up for");
    world.wait_for_plan(plan, 0).await;
    world.caught_up().await;
    // Of several processes that look, one orders it.
    let other = commands::ledger::Ledger::new(world.ledger.ports.clone());
    let (one, two) = tokio::join!(world.ledger.order_due_backups(), other.order_due_backups());
    assert_eq!(one.unwrap() + two.unwrap(), 1);
    world.settle().await;
    assert_eq!(world.last_run(plan).await["missed"], 0);
    world.through("backup-plan", plan, "retire", json!({})).await;
    assert_eq!(world.status(plan).await, "retired");
    assert_eq!(world.hosts.backups(URL).len(), 1, "what was made stays");
    assert_eq!(code(world.send("backup-plan", plan, "run", json!({})).await), "wrong-state");

    let before = world.log.head().await.unwrap().position;
    for (terms, why) in [
        (terms(json!([Uuid::nil()]), store), "there is no disk"),
        (terms(json!([disk]), Uuid::nil()), "there is no backup-store"),
        (
            json!({"servers": [disk], "store": store, "times": {"hours": [2]}, "keep": {"last": 1}}),
            "there is no server",
        ),
    ] {
        let body = json!({"name": "x", "terms": terms});
        let refused = world.send("backup-plan", None, "define", body.clone()).await;
        assert!(detail(refused).contains(why), "{body}");
    }
    // What a plan made it deletes: nobody else says that of a backup.
    let body = json!({"name": "x", "disk": disk, "store": store, "plan": plan});
    let refused = world.send("backup", None, "create", body).await;
    assert!(detail(refused).contains("a backup plan's to say"));
    assert_eq!(world.log.head().await.unwrap().position, before);

    // One of a project is about what is the project's.
    let project = world.send("project", None, "create", json!({"name": "shop"})).await.unwrap().id;
    let body = json!({"name": "x", "project": project, "terms": terms(json!([disk]), store)});
    let refused = world.send("backup-plan", None, "define", body.clone()).await;
    assert!(detail(refused).contains("of another project"));
    let mut theirs = World::submission("backup-plan", None, "define", body.clone());
    let reach = Reach::Projects(vec![project]);
    theirs.principal = Principal { name: "token:ops".into(), role: Role::Operator, reach };
    assert_eq!(code(world.ledger.submit(theirs).await), "out-of-reach");
    for (kind, id) in [("server", web), ("disk", disk)] {
        world.send(kind, id, "assign", json!({"project": project})).await.unwrap();
    }
    let plan = world.send("backup-plan", None, "define", body).await.unwrap().id;
    world.through("backup-plan", plan, "run", json!({})).await;
    assert_eq!(world.status(plan).await, "active");
    world.send("disk", disk, "assign", json!({"project": null})).await.unwrap();
    world.through("backup-plan", plan, "run", json!({})).await;
    let last = world.last_run(plan).await;
    assert_eq!(last["results"][0]["problem"], "the disk is of another project than the plan");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_takes_whole_servers_and_deletes_sets_that_no_rule_keeps() {
    let world = World::empty(small());
    world.host("kvm-1", 1, 4, 4_096).await;
    let store = world.store("vault").await;
    let (web, root) = world.with_data("web", "first").await;
    let body = json!({"name": "data", "server": web, "size_gib": 2});
    world.send("disk", None, "create", body).await.unwrap();
    world.settle().await;
    // One that a person made is nobody else's to delete.
    let body = json!({"name": "own", "server": web, "store": store});
    let own = world.send("backup-set", None, "create", body).await.unwrap().id;
    world.settle().await;
    let terms = json!({
        "servers": [web], "whole_servers": true, "store": store, "times": {"hours": [2]},
        "keep": {"last": 2},
    });
    let plan = world.plan(terms.clone()).await;
    let mut made = Vec::new();
    for day in 0..4 {
        world.hosts.write(root, &format!("day {day}"));
        world.wait_for_plan(plan, 0).await;
        let last = world.run_plan(plan).await;
        assert_eq!(last["problems"], 0, "{last}");
        let results = last["results"].as_array().unwrap();
        assert_eq!(results.len(), 1, "{last}");
        let ran = &results[0];
        assert_eq!((ran["subject"].as_str(), &ran["left"]), (Some(&*web.to_string()), &json!(0)));
        assert_eq!((&ran["backup"], &ran["full"]), (&Value::Null, &json!(true)));
        assert_eq!(ran["kept"], if day == 0 { 1 } else { 2 });
        made.push(ran["set"].as_str().unwrap().parse::<Uuid>().unwrap());
    }
    assert_eq!(made[3], backup_id(plan, 4, web));
    let mut kept = vec![own, made[2], made[3]];
    kept.sort_unstable();
    assert_eq!(world.hosts.described(URL).into_keys().collect::<Vec<_>>(), kept);
    assert_eq!(world.hosts.backups(URL).len(), 6, "two disks of each");
    for (set, status) in [(made[0], "gone"), (made[1], "gone"), (made[3], "available")] {
        assert_eq!(world.status(set).await, status);
    }
    let row = world.row(made[3]).await;
    assert!(row["name"].as_str().unwrap().starts_with("nightly 2"), "{row}");
    assert_eq!(row["state"]["plan"], plan.to_string());

    // Whatever dies in a run, it makes one set.
    world.wait_for_plan(plan, 0).await;
    world.caught_up().await;
    assert_eq!(world.ledger.order_due_backups().await.unwrap(), 1);
    let mortal = Arc::new(Mortal::default());
    world.settle_with(Some(mortal.clone())).await;
    assert!(mortal.deaths() >= 6, "{}", mortal.deaths());
    assert_eq!(world.last_run(plan).await["results"][0]["problem"], Value::Null);
    assert_eq!(world.hosts.described(URL).len(), 3);

    // One that keeps failing is said, and given up by the next run.
    world.hosts.break_next(HostStep::BackUp, HostFault::Rejected("no room".into()));
    world.wait_for_plan(plan, 0).await;
    let last = world.run_plan(plan).await;
    assert_eq!((world.status(plan).await, &last["problems"]), ("failing".to_owned(), &json!(1)));
    assert!(last["results"][0]["problem"].as_str().unwrap().contains("no room"), "{last}");
    world.wait_for_plan(plan, 0).await;
    let last = world.run_plan(plan).await;
    assert_eq!(last["problems"], 0, "{last}");
    assert_eq!((world.hosts.described(URL).len(), world.hosts.backups(URL).len()), (3, 6));

    let mut none = terms;
    none["servers"] = json!([]);
    none["disks"] = json!([root]);
    let refused =
        world.send("backup-plan", None, "define", json!({"name": "x", "terms": none})).await;
    assert!(detail(refused).contains("whole_servers"));
    let body = json!({"name": "x", "server": web, "store": store, "plan": plan});
    let refused = world.send("backup-set", None, "create", body).await;
    assert!(detail(refused).contains("a backup plan's to say"));
    for verb in ["stop", "delete", "purge"] {
        world.through("server", web, verb, json!({})).await;
    }
    world.wait_for_plan(plan, 0).await;
    let last = world.run_plan(plan).await;
    assert_eq!(last["results"][0]["problem"], "the server is gone");
}

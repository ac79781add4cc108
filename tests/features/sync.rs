//! Sync: what is seen becomes inventory, and absence is believed only with evidence.

use std::time::Duration;

use adapters_sim::{Fault, Matching, Op, Population};
use commands::{
    observe::GUARD_COUNT,
    ports::{Append, Query, Views},
};
use serde_json::{Value, json};

use crate::world::{SECRET, World, id_of, small};

pub(crate) fn scope<'a>(scopes: &'a [Value], kind: &str, region: &str) -> &'a Value {
    scopes
        .iter()
        .find(|scope| scope["kind"] == kind && scope["region"] == region)
        .unwrap_or_else(|| panic!("no scope {kind} in {region}"))
}

pub(crate) fn sum(scopes: &[Value], count: &str) -> u64 {
    scopes.iter().filter_map(|scope| scope[count].as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_look_at_an_unchanged_cloud_writes_nothing_about_resources() {
    let world = World::synced(Population { seed: 1, regions: 3, resources: 400 }).await;
    let before = world.log.head().await.unwrap().position;
    let scopes = world.sync(json!({})).await;
    assert!(scopes.iter().all(|scope| scope["complete"] == true), "{scopes:?}");
    assert!(sum(&scopes, "listed") > 400, "{scopes:?}");
    assert_eq!(world.resource_events_after(before).await, vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listed_thing_is_in_the_inventory_once() {
    let world = World::synced(small()).await;
    let scopes = world.sync(json!({})).await;
    let mut listed = 0;
    for kind in ["disk", "network", "region", "security-group", "server", "vpc", "zone"] {
        listed += world.rows(kind).await.len() as u64;
    }
    assert_eq!(listed, sum(&scopes, "listed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_answers_403_loses_nothing_and_is_named() {
    let world = World::synced(small()).await;
    let region = "sim-north-1";
    let denied =
        world.sim.faults().inject(Matching::op(Op::List).region(region).always(), Fault::Denied);
    let scopes = world.sync(json!({})).await;
    assert!(denied.hits() > 0);
    assert_eq!(sum(&scopes, "vanished"), 0);
    let scope = scope(&scopes, "server", region);
    assert_eq!(scope["complete"], false);
    assert!(scope["fault"].is_string());
    // The picture says how old it is, by region and kind.
    world.caught_up().await;
    let query = Query::all().with("region", region).with("kind", "server");
    let fresh = world.views.list("freshness", &query).await.unwrap().rows.remove(0).body;
    assert_eq!(fresh["complete"], false);
    assert!(fresh["complete_at"].as_i64().unwrap() < fresh["looked_at"].as_i64().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_page_concludes_nothing() {
    let world = World::synced(small()).await;
    world.sim.set_page_size(5);
    let cut = world.sim.faults().inject(
        Matching::op(Op::List).kind("server").region("sim-north-1").nth(2).always(),
        Fault::CutPage,
    );
    let scopes = world.sync(json!({})).await;
    assert!(cut.hits() > 0);
    assert_eq!(sum(&scopes, "vanished"), 0);
    assert_eq!(scope(&scopes, "server", "sim-north-1")["complete"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_lies_about_its_end_is_found_out_by_asking_for_each_thing() {
    let world = World::synced(small()).await;
    let cut = world
        .sim
        .faults()
        .inject(Matching::op(Op::List).kind("vpc").region("sim-north-1"), Fault::CutPageSilently);
    let scopes = world.sync(json!({})).await;
    assert_eq!(cut.hits(), 1);
    assert_eq!(sum(&scopes, "vanished"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_vanishes_with_evidence_and_comes_back_under_its_id() {
    let world = World::synced(small()).await;
    let server = world.rows("server").await.remove(0).body;
    let (id, external_id) = (id_of(&server), server["external_id"].as_str().unwrap().to_owned());
    let region = server["region"].as_str().unwrap();
    let console = world.sim.console("acme", "mallory");
    console.delete(region, "server", &external_id).unwrap();
    let scopes = world.sync(json!({})).await;
    assert_eq!(sum(&scopes, "vanished"), 1);
    let gone = world.row(id).await;
    assert_eq!(gone["status"], "gone");
    let evidence = &gone["state"]["observation"]["gone"]["complete-listing"];
    assert!(evidence["listed"].as_u64().unwrap() > 0, "{gone}");

    console.resurrect(region, "server", &external_id).unwrap();
    world.sync(json!({})).await;
    let back = world.external("server", &external_id).await;
    assert_eq!(id_of(&back), id);
    assert_ne!(back["status"], "gone");
    assert_eq!(world.history("server", id).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_deletions_waits_for_a_person() {
    let world = World::synced(Population { seed: 3, regions: 1, resources: 80 }).await;
    let disks = world.rows("disk").await;
    assert!(disks.len() as u64 > GUARD_COUNT, "{}", disks.len());
    let console = world.sim.console("acme", "mallory");
    for disk in &disks {
        let text = |name: &str| disk.body[name].as_str().unwrap();
        console.delete(text("region"), "disk", text("external_id")).unwrap();
    }
    let scopes = world.sync(json!({})).await;
    assert_eq!(sum(&scopes, "vanished"), 0);
    assert_eq!(sum(&scopes, "withheld"), disks.len() as u64);
    let scopes = world.sync(json!({"approve_deletions": true})).await;
    assert_eq!(sum(&scopes, "vanished"), disks.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_writes_one_event_that_names_its_fields() {
    let world = World::synced(small()).await;
    let server = world.rows("server").await.remove(0).body;
    let external_id = server["external_id"].as_str().unwrap();
    let region = server["region"].as_str().unwrap();
    let console = world.sim.console("acme", "mallory");
    console.rename(region, "server", external_id, "renamed-by-hand").unwrap();
    let before = world.log.head().await.unwrap().position;
    world.sync(json!({})).await;
    let events = world.resource_events_after(before).await;
    assert_eq!(events.len(), 1, "{events:?}");
    let data: Value = serde_json::from_slice(events[0].data()).unwrap();
    let fields: Vec<_> =
        data["fields"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(fields.iter().all(|field| field.starts_with("name") || field.starts_with("tags")));
    assert_eq!(world.row(id_of(&server)).await["name"], "renamed-by-hand");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_account_is_looked_at_to_its_end_and_more_slowly() {
    let world = World::empty(small());
    world.connect("acme", SECRET).await;
    let throttled =
        world.sim.faults().inject(Matching::op(Op::List).times(3), Fault::Throttled(None));
    let scopes = world.sync(json!({})).await;
    assert_eq!(throttled.hits(), 3);
    assert!(scopes.iter().all(|scope| scope["complete"] == true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_of_another_account_is_refused_and_the_old_one_stays() {
    let world = World::synced(small()).await;
    world.sim.populate("other", "another-secret", small()).unwrap();
    let body = json!({"credential": {"account": "other", "secret": "another-secret"}});
    world.send("cloud-account", world.account, "update-credential", body).await.unwrap();
    world.settle().await;
    let row = world.row(world.account).await;
    assert_eq!(row["status"], "connected");
    assert_eq!(row["state"]["external_account"], "acme");
    let last = world.history("cloud-account", world.account).await.pop().unwrap();
    assert_eq!(last.event_type(), "credential-refused");
    // And it still works.
    let scopes = world.sync(json!({})).await;
    assert!(scopes.iter().all(|scope| scope["complete"] == true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_denied_and_never_shown() {
    let world = World::empty(small());
    world.connect("acme", "not-the-secret").await;
    assert_eq!(world.row(world.account).await["status"], "denied");
    for record in world.log.read(0, 1_000).await.unwrap() {
        let text = String::from_utf8_lossy(record.frame()).into_owned();
        assert!(!text.contains("not-the-secret"), "{record:?}");
    }
}

/// How fresh the picture of a kind in a region is.
async fn freshness(world: &World, kind: &str, region: &str) -> Value {
    world.caught_up().await;
    let query = Query::all().with("region", region).with("kind", kind);
    world.views.list("freshness", &query).await.unwrap().rows.remove(0).body
}

#[tokio::test(flavor = "multi_thread")]
async fn regions_that_cannot_be_listed_make_an_incomplete_run_and_no_parked_account() {
    let world = World::synced(small()).await;
    for fault in [Fault::Denied, Fault::Transient] {
        let before = freshness(&world, "server", "sim-north-1").await;
        assert_eq!(before["complete"], true);
        let faults = world.sim.faults();
        let struck = faults.inject(Matching::op(Op::ListRegions).always(), fault);
        let scopes = world.sync(json!({})).await;
        assert!(struck.hits() > 0);
        faults.clear();
        let server = scope(&scopes, "server", "sim-north-1");
        assert_eq!(server["complete"], false);
        assert!(server["fault"].as_str().unwrap().contains("regions cannot be listed"));
        assert_eq!(sum(&scopes, "vanished"), 0);
        assert_eq!(world.row(world.account).await["status"], "connected");
        let stale = freshness(&world, "server", "sim-north-1").await;
        assert_eq!(stale["complete"], false);
        assert_eq!(stale["complete_at"], before["complete_at"]);
        assert!(stale["looked_at"].as_i64() > before["looked_at"].as_i64());
        let query = Query::all().with("complete", false);
        assert!(world.views.count("sync_runs", &query, 9).await.unwrap() > 0);
        let scopes = world.sync(json!({})).await;
        assert!(scopes.iter().all(|scope| scope["complete"] == true), "{scopes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_run_says_too_that_the_regions_cannot_be_listed() {
    let world = World::empty(small());
    world.connect("acme", SECRET).await;
    let struck = world.sim.faults().inject(Matching::op(Op::ListRegions).always(), Fault::Denied);
    let scopes = world.sync(json!({})).await;
    assert!(struck.hits() > 0);
    let server = scopes.iter().find(|scope| scope["kind"] == "server").unwrap();
    assert_eq!((&server["region"], &server["complete"]), (&Value::Null, &json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_taken_away_is_stale_and_nothing_in_it_vanishes() {
    let world = World::synced(small()).await;
    let region = "sim-north-1";
    let before = freshness(&world, "server", region).await;
    let console = world.sim.console("acme", "root");
    console.set_region(region, false).unwrap();
    let scopes = world.sync(json!({})).await;
    let server = scope(&scopes, "server", region);
    assert_eq!((&server["complete"], &server["vanished"]), (&json!(false), &json!(0)));
    let stale = freshness(&world, "server", region).await;
    assert_eq!(stale["complete"], false);
    assert_eq!(stale["complete_at"], before["complete_at"]);
    assert!(stale["fault"].as_str().unwrap().contains(region));
    let query = Query::all().with("region", region).with("kind", "server").with("gone", false);
    assert!(world.views.count("inventory", &query, 9).await.unwrap() > 0);
    console.set_region(region, true).unwrap();
    let scopes = world.sync(json!({})).await;
    assert!(scopes.iter().all(|scope| scope["complete"] == true), "{scopes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_what_is_not_there_is_refused() {
    let world = World::empty(small());
    world.connect("acme", SECRET).await;
    let sync = |body: Value| world.send("cloud-account", world.account, "sync", body);
    let refused = sync(json!({"kinds": ["servers"]})).await.unwrap_err();
    assert!(refused.to_string().contains("no `servers`"), "{refused}");
    // Nobody knows the regions yet: the run itself says what is wrong.
    let scopes = world.sync(json!({"regions": ["typo"], "kinds": ["vpc"]})).await;
    assert_eq!(scope(&scopes, "vpc", "typo")["complete"], false);
    world.sync(json!({})).await;
    let refused = sync(json!({"regions": ["sim-north-1", "typo"]})).await.unwrap_err();
    assert!(refused.to_string().contains("`typo`"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sighting_that_cannot_be_recorded_leaves_the_others_as_they_were_seen() {
    let world = World::synced(small()).await;
    let rows = world.rows("server").await;
    let here: Vec<_> = rows.iter().filter(|row| row.body["region"] == "sim-north-1").collect();
    let external_id = |at: usize| here[at].body["external_id"].as_str().unwrap();
    let console = world.sim.console("acme", "mallory");
    let (huge, gone) = ("x".repeat(Append::DATA_BYTES_MAX), external_id(2));
    console.rename("sim-north-1", "server", external_id(0), &huge).unwrap();
    console.rename("sim-north-1", "server", external_id(1), "renamed").unwrap();
    console.delete("sim-north-1", "server", gone).unwrap();
    let scopes = world.sync(json!({})).await;
    let servers = scope(&scopes, "server", "sim-north-1");
    assert_eq!((&servers["changed"], &servers["vanished"]), (&json!(1), &json!(1)), "{servers}");
    assert_eq!(servers["complete"], false, "the picture lacks something");
    let fault = servers["fault"].as_str().unwrap();
    assert!(fault.starts_with("1 could not be recorded") && fault.contains(external_id(0)));
    assert_eq!(world.external("server", external_id(1)).await["name"], "renamed");
    assert_eq!(world.external("server", gone).await["status"], "gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_verification_slows_the_account_down_too() {
    let world = World::empty(small());
    let throttled =
        world.sim.faults().inject(Matching::op(Op::Whoami).times(3), Fault::Throttled(None));
    world.connect("acme", SECRET).await;
    assert_eq!(throttled.hits(), 3);
    assert_eq!(world.row(world.account).await["status"], "connected");
    // Doubled twice from 50 ms, and a tenth off for the call that went well.
    assert_eq!(world.ledger.paces.pause(world.account), Duration::from_millis(180));
}

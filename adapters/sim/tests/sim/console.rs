//! What happens behind Skyledger's back, and how it is seen.

use adapters_sim::Body;
use commands::ports::Provider;
use serde_json::json;

use crate::{ACCOUNT, Bench, REGION, rule};

#[tokio::test]
async fn a_change_shows_with_the_name_of_who_made_it() {
    let bench = Bench::new(60);
    let id = bench.first("security-group");
    let find = || bench.cloud.find(&bench.access, Some(REGION), "security-group", &id);
    let before = find().await.unwrap().unwrap();
    assert_eq!(before.actor, None);
    let console = bench.cloud.console(ACCOUNT, "user/mallory");
    let open = rule(&json!({"ports": "3389", "peer": {"cidr": "0.0.0.0/0"}}));
    console.add_rule(REGION, &id, &open).unwrap();
    let after = find().await.unwrap().unwrap();
    assert_eq!(after.actor.as_deref(), Some("user/mallory"));
    assert!(console.group(REGION, &id).unwrap().rules.contains(&open));
    console.remove_rule(REGION, &id, &open).unwrap();
    assert_eq!(find().await.unwrap().unwrap().seen, before.seen);
}

#[tokio::test]
async fn what_was_deleted_can_come_back_under_its_id() {
    let bench = Bench::new(60);
    let console = bench.cloud.console(ACCOUNT, "user/ann");
    for kind in ["disk", "network", "security-group", "server", "vpc"] {
        let id = bench.first(kind);
        console.rename(REGION, kind, &id, "other").unwrap();
        let before = bench.cloud.find(&bench.access, Some(REGION), kind, &id).await.unwrap();
        assert_eq!(before.as_ref().unwrap().seen["name"], "other");
        console.delete(REGION, kind, &id).unwrap();
        assert_eq!(bench.cloud.find(&bench.access, Some(REGION), kind, &id).await.unwrap(), None);
        let left = bench.all(kind).await.unwrap();
        assert!(left.iter().flat_map(|page| &page.sightings).all(|one| one.external_id != id));
        assert!(console.delete(REGION, kind, &id).is_err());
        console.resurrect(REGION, kind, &id).unwrap();
        assert_eq!(bench.cloud.find(&bench.access, Some(REGION), kind, &id).await.unwrap(), before);
    }
}

#[tokio::test]
async fn what_is_made_gets_a_new_id_and_is_listed_last() {
    let bench = Bench::new(60);
    let console = bench.cloud.console(ACCOUNT, "user/ann");
    let server = console.server(REGION, &bench.first("server")).unwrap();
    let made = console.create(REGION, Body::Server(server.clone())).unwrap();
    let again = console.create(REGION, Body::Server(server)).unwrap();
    assert_ne!(made, again);
    let pages = bench.all("server").await.unwrap();
    let ids: Vec<_> =
        pages.iter().flat_map(|page| &page.sightings).map(|one| &one.external_id).collect();
    assert_eq!(ids[ids.len() - 2..], [&made, &again]);
    assert!(ids.is_sorted());
}

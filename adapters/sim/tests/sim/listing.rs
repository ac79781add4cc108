//! Pages, and what the population looks like on them.

use std::collections::BTreeSet;

use adapters_sim::SimCloud;
use commands::ports::{DriverFault, Provider};
use domain::{
    cloud::{Vpc, Zone},
    compute::{disk::SeenDisk, server::Machine},
    mapping::Spec,
    network::{SeenNetwork, security_group::SecurityGroup},
};

use crate::{ACCOUNT, Bench, REGION};

const KINDS: [&str; 6] = ["disk", "network", "security-group", "server", "vpc", "zone"];

#[tokio::test]
async fn pages_together_hold_everything_once_whatever_their_size() {
    let bench = Bench::new(300);
    for kind in KINDS {
        bench.cloud.set_page_size(SimCloud::PAGE_SIZE);
        let whole = bench.all(kind).await.unwrap();
        assert_eq!(whole.len(), 1);
        for size in [1, 7, whole[0].sightings.len(), 100] {
            bench.cloud.set_page_size(size);
            let pages = bench.all(kind).await.unwrap();
            let items: Vec<_> = pages.iter().flat_map(|page| page.sightings.clone()).collect();
            assert_eq!(items, whole[0].sightings, "{kind} by {size}");
            assert_eq!(pages.len(), items.len().div_ceil(size), "{kind} by {size}");
        }
    }
}

#[tokio::test]
async fn regions_are_listed_once_for_the_account() {
    let bench = Bench::new(0);
    bench.cloud.set_page_size(2);
    let first = bench.cloud.list(&bench.access, None, "region", None).await.unwrap();
    let rest =
        bench.cloud.list(&bench.access, None, "region", first.next.as_deref()).await.unwrap();
    let names: Vec<_> =
        first.sightings.iter().chain(&rest.sightings).map(|one| one.external_id.clone()).collect();
    assert_eq!(names, bench.cloud.regions(&bench.access).await.unwrap());
    assert!(first.sightings.iter().all(|one| one.region.is_none()));
    assert_eq!((names.len(), rest.next), (3, None));
}

#[tokio::test]
async fn what_is_seen_reads_as_its_kind_and_is_normalised() {
    let bench = Bench::new(300);
    for kind in KINDS {
        for one in bench.all(kind).await.unwrap().into_iter().flat_map(|page| page.sightings) {
            let seen = one.seen.clone();
            match kind {
                "disk" => drop(serde_json::from_value::<SeenDisk>(seen).unwrap()),
                "network" => drop(serde_json::from_value::<SeenNetwork>(seen).unwrap()),
                "server" => {
                    let server: Machine = serde_json::from_value(seen).unwrap();
                    assert!(server.disks.is_sorted() && server.addresses.is_sorted());
                }
                "vpc" => drop(serde_json::from_value::<Vpc>(seen).unwrap()),
                "zone" => drop(serde_json::from_value::<Zone>(seen).unwrap()),
                _ => {
                    let group: SecurityGroup = serde_json::from_value(seen).unwrap();
                    assert_eq!(group, group.clone().normalise());
                    group.check().unwrap();
                }
            }
            let found =
                bench.cloud.find(&bench.access, one.region.as_deref(), kind, &one.external_id);
            assert_eq!(found.await.unwrap(), Some(one));
        }
    }
}

#[tokio::test]
async fn the_same_seed_gives_the_same_cloud_and_regions_share_no_ids() {
    let (one, two) = (Bench::new(300), Bench::new(300));
    assert_eq!(one.all("server").await.unwrap(), two.all("server").await.unwrap());
    let console = one.cloud.console(ACCOUNT, "test");
    let mut ids = BTreeSet::new();
    for region in one.cloud.regions(&one.access).await.unwrap() {
        for kind in KINDS {
            for id in console.ids(&region, kind).unwrap() {
                assert!(ids.insert(id.clone()), "{id} is there twice");
            }
        }
    }
    assert_eq!(ids.len(), 300 + 9);
}

#[tokio::test]
async fn a_page_token_of_another_listing_is_refused() {
    let bench = Bench::new(60);
    for token in ["", "7", "i-0", &bench.first("disk")] {
        let got = bench.cloud.list(&bench.access, Some(REGION), "server", Some(token)).await;
        assert!(matches!(got, Err(DriverFault::Rejected(_))), "{token}: {got:?}");
    }
}

#[tokio::test]
async fn a_page_goes_on_after_what_was_deleted_meanwhile() {
    let bench = Bench::new(300);
    bench.cloud.set_page_size(3);
    let first = bench.cloud.list(&bench.access, Some(REGION), "server", None).await.unwrap();
    let last = first.next.clone().unwrap();
    bench.cloud.console(ACCOUNT, "test").delete(REGION, "server", &last).unwrap();
    let second =
        bench.cloud.list(&bench.access, Some(REGION), "server", Some(&last)).await.unwrap();
    assert!(second.sightings[0].external_id > last);
    assert_eq!(second.sightings.len(), 3);
}

#[tokio::test]
async fn of_a_million_resources_each_is_listed_once() {
    let bench = Bench::new(1_000_000);
    let mut listed = 0;
    for kind in KINDS {
        let mut last = String::new();
        for page in bench.all(kind).await.unwrap() {
            for one in page.sightings {
                assert!(one.external_id > last, "{} comes after {last}", one.external_id);
                last = one.external_id;
                listed += 1;
            }
        }
    }
    // The first of three regions, with its three zones.
    assert_eq!(listed, 333_334 + 3);
}

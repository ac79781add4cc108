//! Identity, regions, listings and direct gets.

use std::collections::BTreeSet;

use adapters_clouds::{
    aws::{Aws, TABLE},
    http_client::HttpClient,
    testing::{Fate, Proxy},
};
use commands::ports::{Provider, Sighting};
use serde_json::json;

use crate::world::{ACCOUNT, SECRET, World, access, access_as, all_pages, stand_in, word};

#[tokio::test]
async fn an_account_is_known_by_its_number_and_its_principal() {
    let identity = Aws::new().identity(&access(&stand_in())).await.unwrap();
    assert_eq!(identity.external_account, ACCOUNT);
    assert!(identity.principal.starts_with("arn:aws:"), "{}", identity.principal);
}

#[tokio::test]
async fn a_role_is_taken_on_once_and_speaks_for_the_account() {
    let proxy = Proxy::start(&stand_in()).await.unwrap();
    let access = access_as(
        proxy.url(),
        json!({
            "access_key_id": "AKIASKYLEDGERTEST00",
            "secret_access_key": SECRET,
            "role_arn": "arn:aws:iam::210987654321:role/skyledger",
            "external_id": "tenant-7",
        }),
    );
    let aws = Aws::new();
    let identity = aws.identity(&access).await.unwrap();
    assert_eq!(identity.external_account, "210987654321");
    assert!(identity.principal.contains(":assumed-role/skyledger/"), "{}", identity.principal);
    aws.identity(&access).await.unwrap();
    let calls: Vec<String> = proxy.calls().into_iter().map(|call| call.action).collect();
    assert_eq!(calls, ["AssumeRole", "GetCallerIdentity", "GetCallerIdentity"]);
    assert_eq!(proxy.calls()[0].form["ExternalId"], "tenant-7");
}

#[tokio::test]
async fn regions_are_listed_sorted_and_are_a_kind_of_their_own() {
    let (aws, access) = (Aws::new(), access(&stand_in()));
    let regions = aws.regions(&access).await.unwrap();
    assert!(regions.is_sorted() && regions.contains(&"eu-central-1".to_owned()), "{regions:?}");
    let (seen, _) = all_pages(&aws, &access, None, "region").await.unwrap();
    let mut names: Vec<String> = seen.iter().map(|one| one.external_id.clone()).collect();
    names.sort();
    assert_eq!(names, regions);
    assert!(seen.iter().all(|one| one.region.is_none()));
    let found = aws.find(&access, None, "region", "eu-central-1").await.unwrap().unwrap();
    assert_eq!(found.seen, json!({"name": "eu-central-1"}));
    assert_eq!(aws.find(&access, None, "region", "xx-nowhere-1").await.unwrap(), None);
}

#[tokio::test]
async fn every_kind_of_the_table_is_listed_found_by_id_and_seen_the_same_twice() {
    let world = World::new("eu-west-2");
    world.server().await;
    for support in TABLE.iter().filter(|support| support.listed) {
        let region = support.regional.then_some(world.region);
        let (all, _) = all_pages(&world.aws, &world.access, region, support.kind).await.unwrap();
        assert!(!all.is_empty(), "{}", support.kind);
        let (mut again, _) =
            all_pages(&world.aws, &world.access, region, support.kind).await.unwrap();
        // Other tests do not touch this region, so nothing may differ but the order.
        again.sort_by(|a, b| a.external_id.cmp(&b.external_id));
        let mut sorted = all.clone();
        sorted.sort_by(|a, b| a.external_id.cmp(&b.external_id));
        assert_eq!(sorted, again, "{}", support.kind);
        let one = &all[0];
        assert_eq!(one.region.as_deref(), region);
        let found = world.aws.find(&world.access, region, support.kind, &one.external_id).await;
        assert_eq!(found.unwrap().as_ref(), Some(one), "{}", support.kind);
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_to_be_not_there() {
    let world = World::new("eu-west-2");
    for (kind, id) in [
        ("disk", "vol-0123456789abcdef0"),
        ("network", "subnet-0123456789abcdef0"),
        ("security-group", "sg-0123456789abcdef0"),
        ("server", "i-0123456789abcdef0"),
        ("vpc", "vpc-0123456789abcdef0"),
        ("zone", "eu-west-2z"),
    ] {
        assert_eq!(world.find(kind, id).await.unwrap(), None, "{kind}");
    }
}

#[tokio::test]
async fn a_server_is_seen_with_what_it_hangs_in_and_what_hangs_on_it() {
    let world = World::new("eu-west-3");
    let id = world.server().await;
    let tag =
        |key, value| [("ResourceId.1", id.as_str()), ("Tag.1.Key", key), ("Tag.1.Value", value)];
    world.hand("CreateTags", &tag("Name", "web 1 + 2 / ü")).await;
    world.hand("CreateTags", &tag("skyledger:order", "server/x/1")).await;
    let seen = world.find("server", &id).await.unwrap().unwrap().seen;
    assert_eq!(seen["name"], "web 1 + 2 / ü");
    assert_eq!(seen["power"], "running");
    assert_eq!(seen["tags"], json!({"Name": "web 1 + 2 / ü"}));
    let of = |kind: &'static str, field: &str| (kind, seen[field].as_str().unwrap().to_owned());
    for (kind, id) in [
        of("vpc", "vpc"),
        of("network", "network"),
        of("zone", "zone"),
        ("disk", seen["disks"][0].as_str().unwrap().to_owned()),
        ("security-group", seen["security_groups"][0].as_str().unwrap().to_owned()),
    ] {
        assert!(world.find(kind, &id).await.unwrap().is_some(), "{kind} {id}");
    }
    let disk = world.find("disk", seen["disks"][0].as_str().unwrap()).await.unwrap().unwrap();
    assert_eq!(disk.seen["server"], json!(id));
    assert_eq!(disk.seen["state"], "attached");
}

#[tokio::test]
async fn a_terminated_server_counts_as_not_there() {
    let world = World::new("eu-west-3");
    let id = world.server().await;
    world.hand("TerminateInstances", &[("InstanceId.1", &id)]).await;
    assert_eq!(world.find("server", &id).await.unwrap(), None);
    let all = world.list("server").await.unwrap();
    assert!(all.iter().all(|server| server.external_id != id));
}

#[tokio::test]
async fn a_listing_of_more_than_a_page_has_every_server_once() {
    // The stand-in cuts its pages by reservations, so there are eleven of ten servers.
    let world = World::new("ap-southeast-1");
    for _ in world.list("server").await.unwrap().len() / 10..11 {
        let fields = [("ImageId", "ami-12345678"), ("MinCount", "10"), ("MaxCount", "10")];
        world.hand("RunInstances", &fields).await;
    }
    let region = Some(world.region);
    let (all, pages) = all_pages(&world.aws, &world.access, region, "server").await.unwrap();
    assert_eq!((all.len(), pages), (110, 1));
    let small = Aws::with(HttpClient::new(), 5);
    let (same, pages) = all_pages(&small, &world.access, region, "server").await.unwrap();
    assert_eq!((same.len(), pages), (110, 3));
    let ids = |all: &[Sighting]| -> BTreeSet<String> {
        all.iter().map(|server| server.external_id.clone()).collect()
    };
    assert_eq!(ids(&same), ids(&all));
    assert_eq!(ids(&same).len(), 110);
}

/// Every listing that AWS gives in pages, with what is around its items and an item's name.
const PAGED: &[(&str, &str, &str, &str)] = &[
    ("disk", "DescribeVolumes", "volumeSet", "<volumeId>ID</volumeId><size>1</size>"),
    (
        "network",
        "DescribeSubnets",
        "subnetSet",
        "<subnetId>ID</subnetId><vpcId>vpc-1</vpcId><cidrBlock>10.0.0.0/24</cidrBlock>",
    ),
    (
        "security-group",
        "DescribeSecurityGroups",
        "securityGroupInfo",
        "<groupId>ID</groupId><groupName>web</groupName>",
    ),
    (
        "server",
        "DescribeInstances",
        "reservationSet",
        "<instancesSet><item><instanceId>ID</instanceId><instanceType>t</instanceType>\
         <instanceState><name>running</name></instanceState></item></instancesSet>",
    ),
    ("vpc", "DescribeVpcs", "vpcSet", "<vpcId>ID</vpcId><cidrBlock>10.0.0.0/16</cidrBlock>"),
];

/// A page of the listing with one thing on it. The stand-in cuts no pages but those of servers.
fn page(action: &str, set: &str, item: &str, id: &str, next: Option<&str>) -> Fate {
    let item = item.replace("ID", id);
    let next = next.map(|next| format!("<nextToken>{next}</nextToken>")).unwrap_or_default();
    let body =
        format!("<{action}Response><{set}><item>{item}</item></{set}>{next}</{action}Response>");
    Fate::Answer { status: 200, retry_after: None, body }
}

#[tokio::test]
async fn every_kind_that_comes_in_pages_is_walked_to_the_last_one() {
    let kinds: Vec<&str> = PAGED.iter().map(|(kind, ..)| *kind).collect();
    let proxy = Proxy::start(&stand_in()).await.unwrap();
    let world = World::through("ap-northeast-2", proxy.url());
    for &(kind, action, set, item) in PAGED {
        let before = proxy.calls().len();
        proxy.script(move |call| match call.form.get("NextToken").map(String::as_str) {
            None => page(action, set, item, "one", Some("p+2/=")),
            Some("p+2/=") => page(action, set, item, "two", Some("p3")),
            Some(_) => page(action, set, item, "three", None),
        });
        let all = world.list(kind).await.unwrap();
        let ids: Vec<&str> = all.iter().map(|one| one.external_id.as_str()).collect();
        assert_eq!(ids, ["one", "two", "three"], "{kind}");
        let calls = proxy.calls();
        let asked: Vec<_> = calls[before..]
            .iter()
            .map(|call| {
                assert_eq!(call.action, action);
                assert_eq!(call.form["MaxResults"], "1000");
                call.form.get("NextToken").map(String::as_str)
            })
            .collect();
        assert_eq!(asked, [None, Some("p+2/="), Some("p3")], "{kind}");
    }
    // What is left comes whole: AWS has no pages for regions and zones.
    let rest: Vec<&str> = TABLE
        .iter()
        .filter(|support| support.listed && !kinds.contains(&support.kind))
        .map(|support| support.kind)
        .collect();
    assert_eq!(rest, ["region", "zone"]);
}

#[tokio::test]
async fn a_break_at_a_later_page_is_a_fault_and_never_a_shorter_listing() {
    let proxy = Proxy::start(&stand_in()).await.unwrap();
    let world = World::through("ap-northeast-2", proxy.url());
    for &(kind, action, set, item) in PAGED {
        for (fate, expected) in [
            (Fate::CutAnswer, "transient"),
            (Fate::DropBefore, "transient"),
            (Fate::refuse(403, "UnauthorizedOperation"), "denied"),
            (Fate::refuse(400, "InvalidNextToken"), "rejected"),
            (Fate::refuse(503, "RequestLimitExceeded"), "throttled"),
            (Fate::Answer { status: 200, retry_after: None, body: String::new() }, "unexpected"),
        ] {
            let second = fate.clone();
            proxy.script(move |call| match call.form.get("NextToken") {
                None => page(action, set, item, "one", Some("p2")),
                Some(_) => second.clone(),
            });
            let before = proxy.broken();
            let fault = world.list(kind).await.expect_err(expected);
            assert_eq!(word(&fault), expected, "{kind}: {fate:?}: {fault}");
            assert_eq!(proxy.broken() - before, 2, "{kind}: the second page was asked for");
        }
    }
}

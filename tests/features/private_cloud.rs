//! What servers on hosts of our own need: segments, networks with addresses, key pairs, images.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use commands::{plan::Fact, submit::SubmitFault};
use domain::kernel::{Principal, Reach, Role};
use futures::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{World, small};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKBnABWcH+rkaw2uU18cddw8UywdsKHqvb7Cn+9pEwVI ann";

/// Begins one, and gives its id.
async fn begin(world: &World, kind: &str, body: Value) -> Uuid {
    let verb = if kind == "project" { "create" } else { "define" };
    world.send(kind, None, verb, body).await.unwrap().id
}

/// The code of the rule that said no.
fn code<T: std::fmt::Debug>(result: Result<T, SubmitFault>) -> &'static str {
    match result {
        Err(SubmitFault::Refused(refusal)) => refusal.code.code,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_segment_is_defined_changed_and_retired() {
    let world = World::empty(small());
    let body = json!({"name": "blue", "medium": {"vlan": {"id": 7}}, "bridge": "br0"});
    let id = begin(&world, "segment", body).await;
    world.send("segment", id, "change", json!({"mtu": 9_000})).await.unwrap();
    let row = world.row(id).await;
    assert_eq!((&row["name"], &row["status"]), (&json!("blue"), &json!("defined")));
    assert_eq!(row["state"]["mtu"], 9_000, "{row}");
    let odd = world.send("segment", id, "change", json!({"medium": {"vlan": {"id": 4_095}}})).await;
    assert_eq!(code(odd), "invalid-field");
    world.send("segment", id, "retire", json!({})).await.unwrap();
    assert_eq!(world.row(id).await["status"], "retired");
}

/// A network of a subnet, on a segment, and its definition's answer.
fn network(segment: Uuid, net: &str, more: Value) -> Value {
    let mut subnet = json!({"net": net});
    subnet.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let family = if net.contains(':') { "v6" } else { "v4" };
    json!({"name": net, "segment": segment, family: subnet})
}

async fn segment(world: &World) -> Uuid {
    let body = json!({"name": "blue", "medium": "bridge", "bridge": "br0"});
    begin(world, "segment", body).await
}

/// Skyledger's own part that launches servers asks for addresses.
async fn system(
    world: &World,
    id: Uuid,
    verb: &str,
    body: Value,
) -> Result<Vec<IpAddr>, SubmitFault> {
    let mut submission = World::submission("network", id, verb, body);
    submission.principal = Principal::system("launch");
    let outcome = world.ledger.submit(submission).await?;
    let addresses = |fact: &Fact| fact.data["addresses"].as_array().unwrap().clone();
    let addresses = outcome.events.iter().flat_map(addresses);
    Ok(addresses.map(|one| one.as_str().unwrap().parse().unwrap()).collect())
}

async fn give(world: &World, id: Uuid, holder: u128) -> Result<Vec<IpAddr>, SubmitFault> {
    let any = json!({"type": "any", "data": {}});
    system(world, id, "give", json!({"holder": Uuid::from_u128(holder), "v4": any})).await
}

async fn counts(world: &World, id: Uuid) -> Value {
    world.row(id).await["state"]["own"]["addresses"]["v4"]["counts"].clone()
}

#[tokio::test]
async fn networks_of_one_segment_never_overlap_and_keep_it_from_being_retired() {
    let world = World::empty(small());
    let blue = segment(&world).await;
    let one = begin(&world, "network", network(blue, "10.0.0.0/24", json!({}))).await;
    assert_eq!(world.row(one).await["parent"], json!(blue.to_string()));
    let same = world.send("network", None, "define", network(blue, "10.0.0.0/25", json!({}))).await;
    assert_eq!(code(same), "invalid-field");
    // What was refused left nothing behind, and another segment is another matter.
    let other = segment(&world).await;
    begin(&world, "network", network(other, "10.0.0.0/25", json!({}))).await;
    let two = begin(&world, "network", network(blue, "10.0.1.0/24", json!({}))).await;
    let wider = json!({"v4": {"net": "10.0.0.0/23"}});
    assert_eq!(code(world.send("network", one, "change", wider.clone()).await), "invalid-field");
    assert_eq!(code(world.send("segment", blue, "retire", json!({})).await), "in-use");
    world.send("network", two, "retire", json!({})).await.unwrap();
    world.send("network", one, "change", wider).await.unwrap();
    let nets = &world.row(blue).await["state"]["networks"];
    assert_eq!(*nets, json!({one.to_string(): ["10.0.0.0/23"]}));
    world.send("network", one, "retire", json!({})).await.unwrap();
    world.send("segment", blue, "retire", json!({})).await.unwrap();
    let late = world.send("network", None, "define", network(blue, "10.9.0.0/24", json!({}))).await;
    assert_eq!(code(late), "invalid-field");
    let nowhere = network(Uuid::from_u128(9), "10.9.0.0/24", json!({}));
    assert_eq!(code(world.send("network", None, "define", nowhere).await), "invalid-field");
}

#[tokio::test]
async fn of_many_networks_that_want_one_subnet_at_once_one_gets_it() {
    let world = World::empty(small());
    let blue = segment(&world).await;
    let define = |n: u32| {
        let body = network(blue, &format!("10.0.{}.0/24", n % 4), json!({}));
        world.send("network", None, "define", body)
    };
    let defined = join_all((0..16).map(define)).await;
    assert_eq!(defined.iter().filter(|one| one.is_ok()).count(), 4);
    defined
        .into_iter()
        .filter(Result::is_err)
        .for_each(|one| assert_eq!(code(one), "invalid-field"));
    let nets = world.row(blue).await["state"]["networks"].clone();
    assert_eq!(nets.as_object().unwrap().len(), 4, "{nets}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_who_ask_for_the_last_addresses_at_once_as_many_get_one_as_there_are() {
    for step in ["down", "random", "up"] {
        let world = World::empty(small());
        let blue = segment(&world).await;
        let more = json!({"gateway": "10.0.0.1", "step": step, "cooldown_s": 3_600});
        let id = begin(&world, "network", network(blue, "10.0.0.0/28", more)).await;
        // Thirteen may be given. Ten are, and of these four rest again.
        let mut taken = BTreeSet::new();
        for holder in 0..10 {
            assert!(taken.insert((give(&world, id, holder).await.unwrap()[0], holder)));
        }
        for holder in 0..4 {
            let holder = json!({"holder": Uuid::from_u128(holder)});
            let back = system(&world, id, "release", holder).await.unwrap()[0];
            taken.retain(|(address, _)| *address != back);
        }
        let free = json!({"usable": 13, "free": 7, "cooling": 4, "taken": 6});
        assert_eq!(counts(&world, id).await, free);
        let asked = join_all((100..164).map(|holder| give(&world, id, holder))).await;
        let (mut got, mut none) = (0, 0);
        for (holder, one) in (100..).zip(asked) {
            match one {
                Ok(addresses) => {
                    let fresh = taken.iter().all(|(known, _)| *known != addresses[0]);
                    assert!(fresh, "{step}: {} twice", addresses[0]);
                    taken.insert((addresses[0], holder));
                    got += 1;
                }
                refused => {
                    assert_eq!(code(refused), "no-address-free", "{step}");
                    none += 1;
                }
            }
        }
        assert_eq!((got, none, taken.len()), (7, 57, 13), "{step}");
        // Who has which is what the stream says.
        let row = world.row(id).await;
        let said = row["state"]["own"]["addresses"]["v4"]["taken"].as_object().unwrap();
        let told: BTreeMap<String, String> = taken
            .iter()
            .map(|(address, holder)| (address.to_string(), Uuid::from_u128(*holder).to_string()))
            .collect();
        assert_eq!(json!(said), json!(told), "{step}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_who_ask_at_once_where_there_is_room_all_get_one_of_their_own() {
    let world = World::empty(small());
    let blue = segment(&world).await;
    let more = json!({"gateway": "10.0.0.1", "step": "up"});
    let id = begin(&world, "network", network(blue, "10.0.0.0/24", more)).await;
    let asked = join_all((0..64).map(|holder| give(&world, id, holder))).await;
    let got: BTreeSet<IpAddr> = asked.into_iter().map(|one| one.unwrap()[0]).collect();
    assert_eq!(got.len(), 64);
    // Nobody who lost a race was sent further than need be.
    assert_eq!(got.last(), Some(&"10.0.0.65".parse().unwrap()));
}

#[tokio::test]
async fn addresses_of_both_families_are_given_reserved_and_taken_back() {
    let world = World::empty(small());
    let blue = segment(&world).await;
    let body = json!({
        "name": "dual", "segment": blue, "dns_servers": ["10.0.0.2"], "domain": "example.com",
        "v4": {"net": "10.0.0.0/24", "step": "up"}, "v6": {"net": "2001:db8::/64", "step": "random"},
    });
    let id = begin(&world, "network", body).await;
    let range = json!({"first": "10.0.0.1", "last": "10.0.0.9"});
    let reserve = json!({"range": range, "note": "printers"});
    world.send("network", id, "reserve", reserve).await.unwrap();
    let any = json!({"type": "any", "data": {}});
    let both = json!({"holder": Uuid::from_u128(1), "v4": any, "v6": any});
    let given = system(&world, id, "give", both.clone()).await.unwrap();
    assert_eq!(given[0], "10.0.0.10".parse::<IpAddr>().unwrap());
    // Drawn at random out of 2⁶⁴: not one of the first.
    let IpAddr::V6(drawn) = given[1] else { panic!("{given:?}") };
    assert!(u128::from(drawn) & 0xffff_ffff_ffff_ffff > 1 << 32, "{drawn}");
    assert_eq!(system(&world, id, "give", both).await.unwrap(), Vec::<IpAddr>::new());
    let by_a_person = json!({"holder": Uuid::from_u128(2), "v4": any});
    assert_eq!(code(world.send("network", id, "give", by_a_person).await), "unknown-command");
    assert_eq!(code(world.send("network", id, "retire", json!({})).await), "in-use");
    let back = json!({"holder": Uuid::from_u128(1)});
    assert_eq!(system(&world, id, "release", back).await.unwrap(), given);
    world.send("network", id, "retire", json!({})).await.unwrap();
    assert_eq!(world.row(id).await["status"], "retired");
}

#[tokio::test]
async fn a_project_of_its_own_defines_networks_on_its_own_segments_alone() {
    let world = World::empty(small());
    let shop = begin(&world, "project", json!({"name": "shop"})).await;
    let estates = segment(&world).await;
    let body = json!({"name": "own", "project": shop, "medium": "bridge", "bridge": "br1"});
    let own = begin(&world, "segment", body).await;
    let reach = Reach::Projects(vec![shop]);
    let ann = Principal { name: "token:ann".into(), role: Role::Admin, reach };
    let define = async |segment: Uuid| {
        let mut body = network(segment, "10.0.0.0/24", json!({}));
        body["project"] = json!(shop);
        let mut submission = World::submission("network", None, "define", body);
        submission.principal = ann.clone();
        world.ledger.submit(submission).await
    };
    assert_eq!(code(define(estates).await), "out-of-reach");
    assert_eq!(code(define(Uuid::from_u128(9)).await), "out-of-reach");
    define(own).await.unwrap();
}

#[tokio::test]
async fn a_name_of_a_key_pair_and_a_digest_of_an_image_are_taken_once_in_a_project() {
    let world = World::empty(small());
    let (shop, lab) = (json!({"name": "shop"}), json!({"name": "lab"}));
    let (shop, lab) = (begin(&world, "project", shop).await, begin(&world, "project", lab).await);
    let key = |project: Uuid| json!({"name": "ann", "project": project, "public_key": KEY});
    let first = begin(&world, "key-pair", key(shop)).await;
    assert_eq!(code(world.send("key-pair", None, "define", key(shop)).await), "already-claimed");
    begin(&world, "key-pair", key(lab)).await;
    let row = world.row(first).await;
    let fingerprint = "SHA256:llQIFVSyxjKsD8pcUvL9x+IST2prr2aS76S2ueZBJWg";
    assert_eq!(row["state"]["key"]["fingerprint"], fingerprint, "{row}");
    // Its name is its own for ever, and it may come back.
    world.send("key-pair", first, "retire", json!({})).await.unwrap();
    assert_eq!(code(world.send("key-pair", None, "define", key(shop)).await), "already-claimed");
    world.send("key-pair", first, "define", key(shop)).await.unwrap();
    assert_eq!(world.row(first).await["status"], "defined");

    let image = |project: Uuid| {
        json!({
            "name": "debian-13", "project": project, "sha256": "5d".repeat(32), "size_mib": 400,
            "source": {"url": "https://images.example.com/debian-13.qcow2"}, "format": "qcow2",
            "architecture": "x86_64", "os": "linux", "firmware": "uefi", "min_disk_gib": 3,
        })
    };
    let first = begin(&world, "image", image(shop)).await;
    assert_eq!(code(world.send("image", None, "define", image(shop)).await), "already-claimed");
    begin(&world, "image", image(lab)).await;
    world.send("image", first, "retire", json!({})).await.unwrap();
    assert_eq!(world.row(first).await["status"], "retired");
}

#[tokio::test]
async fn who_reaches_one_project_defines_there_and_nowhere_else() {
    let world = World::empty(small());
    let shop = begin(&world, "project", json!({"name": "shop"})).await;
    let lab = begin(&world, "project", json!({"name": "lab"})).await;
    let ann = Principal {
        name: "token:ann".into(),
        role: Role::Operator,
        reach: Reach::Projects(vec![shop]),
    };
    let define = async |project: Option<Uuid>| {
        let body = json!({"name": "ann", "project": project, "public_key": KEY});
        let mut submission = World::submission("key-pair", None, "define", body);
        submission.principal = ann.clone();
        world.ledger.submit(submission).await
    };
    assert_eq!(code(define(Some(lab)).await), "out-of-reach");
    assert_eq!(code(define(None).await), "out-of-reach");
    define(Some(shop)).await.unwrap();
}

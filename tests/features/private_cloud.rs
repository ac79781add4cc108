//! What servers on hosts of our own need: segments, key pairs, images.

use commands::submit::SubmitFault;
use domain::kernel::{Principal, Reach, Role};
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

//! Looks and orders get in each other's way: a look at every step of an order, and pages that are
//! read before an order's report and written after it. What is true in the end is what is there.

use std::pin::pin;

use adapters_sim::{Fault, Injected, Matching, Op};
use commands::run_orders::Runner;
use domain::tenancy::cloud_account::Scope;
use serde_json::json;
use uuid::Uuid;

use crate::{
    mapping::{REGION, a_vpc, declared, in_cloud, ports, rule},
    world::{World, group, small},
};

const GROUP: &str = "security-group";

/// Lets the order that is out be carried out, and looks after its n-th change of the cloud; false
/// when it has not so many.
async fn looked_after(world: &World, n: u64) -> bool {
    let step = world.sim.faults().inject(Matching::write().nth(n), Fault::HangAfter);
    world.caught_up().await;
    let runner = Runner::new(world.ledger.clone(), 1);
    let mut pass = pin!(runner.pass());
    let reached = tokio::select! {
        died = &mut pass => { died.unwrap(); false }
        () = step.reached() => true,
    };
    if reached {
        complete(&world.look(&[GROUP]).await);
        step.release();
        pass.await.unwrap();
    }
    world.sim.faults().clear();
    world.settle().await;
    reached
}

fn complete(scopes: &[Scope]) {
    assert!(scopes.iter().all(|scope| scope.complete && scope.fault.is_none()), "{scopes:?}");
}

/// Linked to the one group that was made for it, with these ports, and nothing was taken for
/// somebody else's.
async fn is_whole(world: &World, id: Uuid, wanted: &[u16], groups: usize) {
    complete(&world.look(&[GROUP]).await);
    let row = world.row(id).await;
    assert_eq!(row["status"], "linked", "{row}");
    assert_eq!(ports(&in_cloud(world, id).await), wanted);
    let made = world.sim.console("acme", "auditor").groups_made_for(REGION, &id.to_string());
    assert_eq!(made.unwrap(), [row["external_id"].as_str().unwrap()]);
    let there = world.rows(GROUP).await;
    let there = there.iter().filter(|row| row.body["gone"] != true).count();
    assert_eq!(there, groups, "each group is known once");
    let history = world.history(GROUP, id).await;
    assert!(history.iter().all(|one| one.event_type() != "drifted"), "{history:?}");
}

async fn half_made(world: &World) -> Uuid {
    let quota = Fault::Rejected("quota of rules reached".into());
    let rejected = world.sim.faults().inject(Matching::op(Op::AddRule), quota);
    let id = declared(world, &[80]).await;
    assert_eq!(rejected.hits(), 1);
    assert_eq!(world.row(id).await["status"], "parked");
    world.send(GROUP, id, "abandon", json!({})).await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_made_group_is_nobody_else_s_and_goes_with_its_mapping() {
    let world = World::synced(small()).await;
    let groups = world.rows(GROUP).await.len();
    let id = half_made(&world).await;
    complete(&world.look(&[GROUP]).await);
    assert_eq!(world.rows(GROUP).await.len(), groups + 1, "it was not discovered as another");
    world.send(GROUP, id, "retire", json!({})).await.unwrap();
    complete(&world.look(&[GROUP]).await);
    world.settle().await;
    assert_eq!(world.row(id).await["status"], "retired");
    let made = world.sim.console("acme", "auditor").groups_made_for(REGION, &id.to_string());
    assert_eq!(made.unwrap(), Vec::<String>::new());
    assert_eq!(world.rows(GROUP).await.len(), groups + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_from_before_a_half_made_group_was_deleted_discovers_nothing() {
    let world = World::synced(small()).await;
    let groups = world.rows(GROUP).await.len();
    let id = half_made(&world).await;
    let page = slow_page(&world, GROUP);
    let kinds = [GROUP];
    let (scopes, ()) = tokio::join!(world.look(&kinds), async {
        page.reached().await;
        world.send(GROUP, id, "retire", json!({})).await.unwrap();
        world.settle().await;
        page.release();
    });
    complete(&scopes);
    assert_eq!(world.row(id).await["status"], "retired");
    assert_eq!(world.rows(GROUP).await.len(), groups + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_made_group_is_completed_when_it_is_declared_again() {
    let world = World::synced(small()).await;
    let groups = world.rows(GROUP).await.len();
    let id = half_made(&world).await;
    complete(&world.look(&[GROUP]).await);
    let vpc = a_vpc(&world).await;
    let body = json!({"spec": group("web", &vpc, &[80])});
    world.send(GROUP, id, "declare", body).await.unwrap();
    world.settle().await;
    is_whole(&world, id, &[80], groups + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_every_step_of_a_creation_changes_nothing() {
    let world = World::synced(small()).await;
    let vpc = a_vpc(&world).await;
    let mut groups = world.rows(GROUP).await.len();
    let mut looked = 0;
    for n in 1.. {
        let spec = group(&format!("web-{n}"), &vpc, &[80, 443]);
        let body = json!({"account": world.account, "region": REGION, "spec": spec});
        let id = world.send(GROUP, None, "declare", body).await.unwrap().id;
        groups += 1;
        let there = Box::pin(looked_after(&world, n)).await;
        is_whole(&world, id, &[80, 443], groups).await;
        if !there {
            break;
        }
        looked += 1;
    }
    assert_eq!(looked, 3, "after the group, and after each rule");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_every_step_of_making_a_vanished_group_again_changes_nothing() {
    let world = World::synced(small()).await;
    let id = declared(&world, &[80, 443]).await;
    let console = world.sim.console("acme", "mallory");
    let groups = world.rows(GROUP).await.len();
    let mut looked = 0;
    for n in 1.. {
        let external_id = world.row(id).await["external_id"].as_str().unwrap().to_owned();
        console.delete(REGION, GROUP, &external_id).unwrap();
        complete(&world.look(&[GROUP]).await);
        assert_eq!(world.row(id).await["status"], "vanished");
        world.send(GROUP, id, "reapply", json!({})).await.unwrap();
        let there = Box::pin(looked_after(&world, n)).await;
        is_whole(&world, id, &[80, 443], groups).await;
        if !there {
            break;
        }
        looked += 1;
    }
    assert_eq!(looked, 3, "after the group, and after each rule");
}

#[tokio::test(flavor = "multi_thread")]
async fn making_a_vanished_group_again_can_be_given_up_half_way_and_wished_again() {
    let world = World::synced(small()).await;
    let id = declared(&world, &[80]).await;
    let groups = world.rows(GROUP).await.len();
    let external_id = world.row(id).await["external_id"].as_str().unwrap().to_owned();
    world.sim.console("acme", "mallory").delete(REGION, GROUP, &external_id).unwrap();
    complete(&world.look(&[GROUP]).await);
    let quota = Fault::Rejected("quota of rules reached".into());
    let rejected = world.sim.faults().inject(Matching::op(Op::AddRule), quota);
    world.send(GROUP, id, "reapply", json!({})).await.unwrap();
    world.settle().await;
    assert_eq!(rejected.hits(), 1);
    complete(&world.look(&[GROUP]).await);
    world.send(GROUP, id, "abandon", json!({})).await.unwrap();
    complete(&world.look(&[GROUP]).await);
    world.send(GROUP, id, "reapply", json!({})).await.unwrap();
    world.settle().await;
    is_whole(&world, id, &[80], groups).await;
}

/// A page of this kind that is read now and comes when it is released.
fn slow_page(world: &World, kind: &str) -> Injected {
    let page = Matching::op(Op::List).kind(kind).region(REGION);
    world.sim.faults().inject(page, Fault::HangAfter)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_from_before_an_order_says_nothing_after_it() {
    let world = World::synced(small()).await;
    let rows = world.rows("server").await;
    let fits = |row: &&commands::ports::Row| {
        row.body["region"] == REGION && row.body["status"] == "running"
    };
    let row = rows.iter().find(fits).unwrap();
    let id: Uuid = row.key.parse().unwrap();
    let external_id = row.body["external_id"].as_str().unwrap();
    // The page has news, and is older than the order.
    world.sim.console("acme", "ann").rename(REGION, "server", external_id, "renamed").unwrap();
    let page = slow_page(&world, "server");
    let kinds = ["server"];
    let (scopes, ()) = tokio::join!(world.look(&kinds), async {
        page.reached().await;
        world.send("server", id, "stop", json!({})).await.unwrap();
        world.settle().await;
        page.release();
    });
    complete(&scopes);
    assert_eq!(world.row(id).await["status"], "stopped");
    let last = world.history("server", id).await.pop().unwrap();
    assert_eq!(last.event_type(), "confirmed", "the page was from before");
    complete(&world.look(&kinds).await);
    assert_eq!(world.row(id).await["status"], "stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_from_the_midst_of_an_order_says_nothing_after_it() {
    let world = World::synced(small()).await;
    let groups = world.rows(GROUP).await.len();
    let vpc = a_vpc(&world).await;
    let id = world.ledger.ports.ids.new_id();
    let wishes = [
        json!({"account": world.account, "region": REGION, "spec": group("web", &vpc, &[80, 443])}),
        json!({"spec": group("web", &vpc, &[22, 53])}),
    ];
    for (wish, wanted) in wishes.into_iter().zip([[80, 443], [22, 53]]) {
        world.send(GROUP, id, "declare", wish).await.unwrap();
        world.caught_up().await;
        // One rule is there, the other not yet, and the page shows it so.
        let step = world.sim.faults().inject(Matching::op(Op::AddRule), Fault::HangAfter);
        let page = slow_page(&world, GROUP);
        let runner = Runner::new(world.ledger.clone(), 1);
        let kinds = [GROUP];
        let (died, scopes) = tokio::join!(runner.pass(), async {
            step.reached().await;
            let (scopes, ()) = tokio::join!(world.look(&kinds), async {
                page.reached().await;
                step.release();
                while world.row(id).await["status"] != "linked" {
                    let head = world.log.head().await.unwrap().position;
                    world.log.appended(head).await;
                }
                page.release();
            });
            scopes
        });
        assert!(!died.unwrap());
        complete(&scopes);
        is_whole(&world, id, &wanted, groups + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_did_is_seen_at_the_next_look() {
    let world = World::synced(small()).await;
    let id = declared(&world, &[80]).await;
    let external_id = world.row(id).await["external_id"].as_str().unwrap().to_owned();
    let page = slow_page(&world, GROUP);
    let kinds = [GROUP];
    tokio::join!(world.look(&kinds), async {
        page.reached().await;
        let console = world.sim.console("acme", "mallory");
        console.add_rule(REGION, &external_id, &rule(22)).unwrap();
        page.release();
    });
    assert_eq!(world.row(id).await["status"], "linked");
    complete(&world.look(&kinds).await);
    assert_eq!(world.row(id).await["status"], "drifted");
}

//! Step 9: SIGKILL in the middle of an order.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Memory, Stage, Teller, Told, Untrue, command, ensure, rule};
use crate::{client::Client, columns::plain};

/// Rules of the group whose creation is interrupted.
const RULES: usize = 6;
/// Longest wait for the middle of the order, and for its end.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long the first rule may take.
const FIRST_RULE: Duration = Duration::from_millis(1_500);

pub(super) async fn in_the_middle(
    stage: &mut impl Stage,
    memory: &mut Memory,
    teller: &mut Teller,
) -> Told {
    teller.step("Kill the server in the middle of an order")?;
    stage.hold(true).await?;
    let ports = ["80", "8080", "8081", "8082", "8083", "9000"];
    let rules: Vec<_> = ports.iter().map(|port| rule(port, "10.0.0.0/8", "")).collect();
    let body = json!({"account": memory.account, "region": memory.place.region, "spec": {
        "name": "demo-crash", "description": "Survives a crash", "vpc": memory.vpc,
        "rules": rules,
    }});
    let declare = command("security-groups", None, "declare", body, None);
    let outcome = memory.client.submit(&declare).await?.body;
    let (id, acknowledged) = (plain(&outcome["id"]), outcome["position"].as_u64());
    ensure(!outcome["order"].is_null(), "its order is out")?;
    teller.say(&format!(
        "A group with {RULES} rules is declared while the cloud is slow. Its creation takes \
         several calls; we wait until the cloud has a part of it."
    ))?;
    let until = Instant::now() + PATIENCE;
    let mut begun = None;
    let (external, done) = loop {
        let found = stage.counterparts(&id).await?;
        if let Some((external, done)) = found.into_iter().next() {
            // Some rules make a better middle; a cloud that holds them all back has none to show.
            if done > 0 || begun.get_or_insert_with(Instant::now).elapsed() > FIRST_RULE {
                break (external, done);
            }
        }
        ensure(Instant::now() < until, "the order did not begin")?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    stage.kill().await?;
    let after = stage.counterparts(&id).await?;
    let [(same, left)] = after.as_slice() else {
        return Err(Untrue(format!("after the kill the cloud has {} of it", after.len())));
    };
    ensure(*same == external && *left < RULES, format!("{left} rules: the order was through"))?;
    teller.checked(&format!(
        "SIGKILL while the cloud had {external} with {} of {RULES} rules",
        done.max(*left)
    ))?;

    stage.hold(false).await?;
    let running = stage.start().await?;
    memory.client = Client::new(&running.url, Some(&running.token))?;
    let head = memory.head().await?;
    ensure(
        acknowledged.is_some_and(|position| position <= head),
        "what was acknowledged is logged",
    )?;
    let until = Instant::now() + PATIENCE;
    let row = loop {
        let row = memory.get("security-groups", &id).await?;
        if row["status"] == "linked" {
            break row;
        }
        ensure(row["order"]["parked"].is_null(), plain(&row["order"]["parked"]))?;
        ensure(Instant::now() < until, format!("after the restart it stays {}", row["status"]))?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let made = stage.counterparts(&id).await?;
    ensure(
        made == [(external.clone(), RULES)],
        format!("the cloud has {made:?}, not one group with {RULES} rules"),
    )?;
    ensure(row["external_id"] == external.as_str(), "it is linked to the very group")?;
    let path = format!("/v1/security-groups/{id}/history");
    let history = memory.client.list(&path, &[], None, |_| {}).await?.rows;
    let types: Vec<String> = history.iter().map(|event| plain(&event["type"])).collect();
    ensure(types == ["declared", "linked"], format!("its events are {}", types.join(", ")))?;
    teller.checked(&format!(
        "restarted (process {}): the order was found in the log and finished; one counterpart, \
         {RULES} rules, `declared` and `linked` once each",
        running.pid
    ))
}

//! Steps 4 to 6: a security group is declared, drifts, and is answered for.

use serde_json::{Value, json};

use super::{Meddling, Memory, Stage, Teller, Told, command, ensure, rule};
use crate::{columns::plain, show};

/// The group of the story, with a tag that changes (a description cannot, at some providers).
pub(super) fn wanted(memory: &Memory, release: &str) -> Value {
    json!({"account": memory.account, "region": memory.place.region, "spec": {
        "name": "demo-web",
        "description": "Front door of the shop",
        "vpc": memory.vpc,
        "rules": [rule("443", "0.0.0.0/0", "the shop"), rule("22", "10.0.0.0/8", "operators")],
        "tags": {"release": release},
    }})
}

pub(super) async fn declare(memory: &mut Memory, teller: &mut Teller) -> Told {
    teller.step("Declare a security group: first the plan, then the deed")?;
    teller.typed("declare sg -f web.yaml --dry-run")?;
    let body = wanted(memory, "1");
    let before = memory.head().await?;
    let mut order = command("security-groups", None, "declare", body, Some(super::WAIT));
    let plan = memory.client.plan(&order).await?;
    let calls: Vec<Vec<String>> = plan["calls"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|call| vec![plain(&call["call"]), plain(&call["effect"])])
        .collect();
    ensure(!calls.is_empty(), "the plan names the calls it would make")?;
    teller.table(show::grid(&["call", "effect"], calls, teller.style()))?;
    ensure(memory.head().await? == before, "a plan writes nothing")?;
    teller.checked("a plan: events, calls and fields, and nothing written")?;
    order.plan_id = Some(plain(&plan["plan_id"]));
    teller.typed("declare sg -f web.yaml --plan-id … --wait")?;
    let outcome = memory.client.submit(&order).await?.body;
    memory.group = plain(&outcome["id"]);
    ensure(outcome["id"] == plan["id"], "what was planned is what was made")?;
    ensure(outcome["status"] == "linked", format!("it is {}", outcome["status"]))?;
    let row = memory.get("security-groups", &memory.group).await?;
    memory.external = plain(&row["external_id"]);
    ensure(row["drifted"] == false && !memory.external.is_empty(), "it has its counterpart")?;
    memory.calm = memory.head().await?;
    teller.checked(&format!(
        "demo-web is linked to {}, one to one; the log stands at {}",
        memory.external, memory.calm
    ))
}

async fn mapping(memory: &Memory) -> Told<Value> {
    memory.get("security-groups", &memory.group).await
}

pub(super) async fn drift(
    stage: &mut impl Stage,
    memory: &mut Memory,
    teller: &mut Teller,
) -> Told {
    teller.step("Somebody changes it behind our back")?;
    let who = match memory.place.meddler.as_str() {
        "" => "Somebody".to_owned(),
        name => name.to_owned(),
    };
    teller.say(&format!(
        "{who} opens SSH to the world in the cloud's own console, and closes the shop."
    ))?;
    let meddling = Meddling::Rules {
        add: vec![rule("22", "0.0.0.0/0", "just for a moment")],
        remove: vec![rule("443", "0.0.0.0/0", "the shop")],
    };
    stage.meddle(&memory.external, meddling).await?;
    teller.typed("sync demo --kind sg --wait; describe sg demo-web")?;
    memory.look().await?;
    let row = mapping(memory).await?;
    ensure(row["status"] == "drifted", format!("it is {}, not drifted", row["status"]))?;
    let fields = row["drift"].as_array().map_or(0, Vec::len);
    Teller::block(&show::drift(&row, teller.style()))?;
    ensure(fields == 2, format!("{fields} fields drifted, not 2"))?;
    ensure(
        memory.place.meddler.is_empty() || row["state"]["seen_by"] == memory.place.meddler.as_str(),
        format!("seen_by is {}", row["state"]["seen_by"]),
    )?;
    memory.drifted = memory.head().await?;
    teller.checked("drift is an event, field by field; nothing is put right silently")
}

pub(super) async fn answer(
    stage: &mut impl Stage,
    memory: &mut Memory,
    teller: &mut Teller,
) -> Told {
    teller.step("Answer the drift: reapply one, accept the next")?;
    teller.typed("reapply sg demo-web --wait")?;
    memory
        .send("security-groups", Some(&memory.group), "reapply", json!({"keep_foreign": false}))
        .await?;
    memory.look().await?;
    let row = mapping(memory).await?;
    ensure(row["status"] == "linked", format!("after reapply it is {}", row["status"]))?;
    let rules = |of: &Value| of["rules"].as_array().map_or(0, Vec::len);
    ensure(rules(&row["state"]["seen"]) == 2, "the cloud has the two rules that are wanted")?;
    teller.checked("reapplied: the cloud is as it was declared, the added rule is gone")?;

    let good = rule("8443", "10.0.0.0/8", "health checks");
    let meddling = Meddling::Rules { add: vec![good], remove: vec![] };
    stage.meddle(&memory.external, meddling).await?;
    memory.look().await?;
    let row = mapping(memory).await?;
    ensure(row["status"] == "drifted", format!("it is {}, not drifted", row["status"]))?;
    Teller::block(&show::drift(&row, teller.style()))?;
    teller.typed("accept sg demo-web")?;
    memory.send("security-groups", Some(&memory.group), "accept", json!({})).await?;
    let row = mapping(memory).await?;
    ensure(row["status"] == "linked", format!("after accept it is {}", row["status"]))?;
    ensure(rules(&row["state"]["wanted"]) == 3, "what was seen is wanted now")?;
    teller.checked("accepted: the new rule is wanted from now on")
}

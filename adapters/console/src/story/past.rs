//! Steps 7 and 8: a plan that is overtaken, and the past.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::CellAlignment;
use serde_json::{Value, json};

use super::{Memory, Teller, Told, Untrue, cloud, command, ensure};
use crate::{columns::plain, show};

pub(super) async fn stale_plan(memory: &Memory, teller: &mut Teller) -> Told {
    teller.step("A plan that is overtaken")?;
    teller.say(
        "Two people work on demo-web. One plans; before the plan is applied, the other is done.",
    )?;
    let spec = |memory: &Memory, text: &str| json!({"spec": cloud::wanted(memory, text)["spec"]});
    let id = Some(memory.group.as_str());
    let planned = spec(memory, "2-planned-on-monday");
    let mut late = command("security-groups", id, "declare", planned, None);
    let plan = memory.client.plan(&late).await?;
    let other = spec(memory, "2");
    memory.send("security-groups", id, "declare", other).await?;
    let before = memory.head().await?;
    late.plan_id = Some(plain(&plan["plan_id"]));
    teller.typed("declare sg demo-web -f monday.yaml --plan-id …")?;
    let Err(fault) = memory.client.submit(&late).await else {
        return Err(Untrue("a stale plan was applied".to_owned()));
    };
    let problem = fault.problem().ok_or_else(|| Untrue(fault.to_string()))?;
    teller.quote(&problem.to_string())?;
    ensure(problem.status == 412, format!("the answer is {}, not 412", problem.status))?;
    ensure(!problem.moved().is_empty(), "the answer names what has moved")?;
    ensure(memory.head().await? == before, "a stale plan writes nothing")?;
    teller.checked("412: the answer names what has moved, and nothing was written")
}

/// The account's inventory by kind, now or at a position.
async fn by_kind(memory: &Memory, at: Option<u64>) -> Told<BTreeMap<String, u64>> {
    let mut query = vec![("filter", format!("account = {}", memory.account))];
    query.extend(at.map(|at| ("at", at.to_string())));
    let rows = memory.client.list("/v1/inventory", &query, None, |_| {}).await?.rows;
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(plain(&row["kind"])).or_default() += 1;
    }
    Ok(counts)
}

/// The inventory before anything was declared, beside what it is now.
async fn inventory(memory: &Memory, teller: &Teller) -> Told {
    teller.typed(&format!("get inventory --at {} / now", memory.looked))?;
    let before = by_kind(memory, Some(memory.looked)).await?;
    let mut expected = before.clone();
    *expected.entry("security-group".to_owned()).or_default() += 1;
    let now = by_kind(memory, None).await?;
    ensure(now == expected, "since the first look there is one security group more, nothing else")?;
    let lines = now.iter().map(|(kind, count)| {
        let was = before.get(kind).copied().unwrap_or_default();
        vec![kind.clone(), was.to_string(), count.to_string()]
    });
    let headings = ["kind", &format!("at {}", memory.looked), "now"];
    let mut table = show::grid(&headings, lines.collect(), teller.style());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    teller.table(table)?;
    let none = by_kind(memory, Some(1)).await?;
    ensure(none.is_empty(), "before the first look there was nothing")
}

pub(super) async fn time_travel(memory: &Memory, teller: &mut Teller) -> Told {
    teller.step("The past is a query")?;
    inventory(memory, teller).await?;
    let path = format!("/v1/security-groups/{}", memory.group);
    teller.typed(&format!("get sg demo-web --at {} / --at {}", memory.calm, memory.drifted))?;
    let mut rows = Vec::new();
    for (at, status) in [(memory.calm, "linked"), (memory.drifted, "drifted")] {
        let row = memory.client.get(&path, &[("at", at.to_string())]).await?.body;
        ensure(row["status"] == status, format!("at {at} it was {}", row["status"]))?;
        rows.push(vec![
            at.to_string(),
            plain(&row["status"]),
            row["state"]["seen"]["rules"].as_array().map_or(0, Vec::len).to_string(),
            plain(&row["updated_by"]),
        ]);
    }
    let headings = ["at position", "status", "rules in the cloud", "last event by"];
    teller.table(show::grid(&headings, rows, teller.style()))?;
    teller.checked("the whole estate as it was at any position or time")?;

    teller.typed(&format!("diff --from {} --to {} sg", memory.calm, memory.drifted))?;
    let query = [
        ("from", memory.calm.to_string()),
        ("to", memory.drifted.to_string()),
        ("filter", "kind = security-group".to_owned()),
    ];
    let changes = memory.client.list("/v1/diff", &query, None, |_| {}).await?.rows;
    ensure(changes.len() == 1, format!("{} security groups differ, not 1", changes.len()))?;
    Teller::block(show::changes(&changes, teller.style()).trim_end())?;
    teller.checked("a diff between two moments, field by field")?;

    teller.typed("why sg demo-web state.wanted.tags.release")?;
    let query = [("field", "state.wanted.tags.release".to_owned())];
    let why = memory.client.get(&format!("{path}/why"), &query).await?.body;
    ensure(why["value"] == "2", format!("why says {}", why["value"]))?;
    Teller::block(&show::why(&why, teller.now(), teller.style()))?;
    let history = memory.client.list(&format!("{path}/history"), &[], None, |_| {}).await?.rows;
    let types: Vec<&str> = history.iter().filter_map(|one| one["type"].as_str()).collect();
    let told = ["declared", "linked", "drifted", "reapply-ordered", "applied", "accepted"];
    let all = told.iter().all(|one| types.contains(one));
    ensure(all, format!("the history is {}", types.join(", ")))?;
    teller.table(show::history(&history, teller.now(), teller.style()))?;
    let actors = history.iter().map(|one: &Value| plain(&one["actor"]));
    let actors: BTreeSet<String> = actors.collect();
    teller.checked(&format!(
        "who did what, and when: {} events by {}",
        history.len(),
        actors.into_iter().collect::<Vec<_>>().join(", ")
    ))
}

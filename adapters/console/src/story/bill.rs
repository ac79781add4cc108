//! Step 10: a bill comes in, is placed, explained, closed and restated.

use serde_json::{Value, json};

use super::{Memory, Teller, Told, Untrue, ensure};
use crate::{columns::plain, costs};

pub(super) const HEADING: &str = "BilledCost,EffectiveCost,ListCost,ContractedCost,BillingAccountId,\
    BillingCurrency,BillingPeriodStart,BillingPeriodEnd,ChargeCategory,ChargePeriodStart,\
    ChargePeriodEnd,ServiceName,ResourceId,Tags\n";

fn line(billed: &str, category: &str, service: &str, resource: &str, env: &str) -> String {
    format!(
        "{billed},{billed},{billed},{billed},acme,EUR,2026-10-01T00:00:00Z,2026-11-01T00:00:00Z,\
         {category},2026-10-07T00:00:00Z,2026-10-08T00:00:00Z,{service},{resource},\
         \"{{\"\"env\"\": \"\"{env}\"\"}}\"\n"
    )
}

/// Sends a file as `bill import` does.
pub(super) async fn import(
    memory: &Memory,
    data: &std::path::Path,
    name: &str,
    text: &str,
    reason: Option<&str>,
) -> Result<Value, Untrue> {
    let path = data.join(name);
    std::fs::write(&path, text)?;
    let mut query = vec![("source", name.to_owned())];
    query.extend(reason.map(|reason| ("reason", reason.to_owned())));
    let file = tokio::fs::File::open(&path).await?;
    let answer = memory.client.upload("/v1/bill-imports", &query, file, |_| {}).await?.body;
    std::fs::remove_file(&path)?;
    Ok(answer)
}

async fn total(memory: &Memory, at: Option<u64>) -> Told<String> {
    let query: Vec<_> = at.iter().map(|at| ("at", at.to_string())).collect();
    let answer = memory.client.get("/v1/costs", &query).await?.body;
    Ok(plain(&answer["totals"]["EUR"]["amount"]))
}

pub(super) fn shown(
    teller: &Teller,
    show: fn(&mut dyn std::io::Write, &Value, crate::style::Style) -> std::io::Result<()>,
    answer: &Value,
) -> Told {
    let mut text = Vec::new();
    show(&mut text, answer, teller.style())?;
    Teller::block(String::from_utf8_lossy(&text).trim_end())
}

pub(super) async fn from_file_to_number(
    data: &std::path::Path,
    memory: &Memory,
    teller: &mut Teller,
) -> Told {
    teller.step("Costs that explain themselves")?;
    let bill = [
        HEADING.to_owned(),
        line("412.50", "Usage", "Compute", "i-web-1", "prod"),
        line("97.123456789012", "Usage", "Compute", "i-lab-1", "test"),
        line("60.01", "Usage", "Network", "vpn-1", ""),
        line("-20", "Credit", "Compute", "", "prod"),
    ]
    .concat();
    teller.typed("bill import october.csv")?;
    let imported = import(memory, data, "october.csv", &bill, None).await?;
    shown(teller, costs::imported, &imported)?;
    let id = plain(&imported["bills"][0]["id"]);
    let again = import(memory, data, "october.csv", &bill, None).await?;
    ensure(again["bills"][0]["repeated"] == true, "the same file again changes nothing")?;
    ensure(total(memory, None).await? == "549.633456789012", "no digit is lost")?;
    teller.checked("a bill of four lines, sent twice and counted once, to the twelfth decimal")?;

    teller.typed("costs --filter 'service = Compute' --explain")?;
    let filter = [("filter", "service = Compute".to_owned()), ("page_size", "3".to_owned())];
    let explained = memory.client.get("/v1/costs:explain", &filter).await?.body;
    shown(teller, costs::explained, &explained)?;
    let lines = explained["lines"].as_array().map_or(0, Vec::len);
    ensure(lines == 3, format!("{lines} lines explain the number, not 3"))?;
    let event = &explained["parts"][0]["event"]["type"];
    ensure(event == "lines-imported", format!("the number leads to {event}"))?;
    teller
        .checked("a number leads back to its lines, their file, and the event that brought them")?;

    let attribution = |name: &str, centre: &str, dimension: &str, value: &str| {
        let conditions = json!([{"dimension": dimension, "values": [value]}]);
        json!({"name": name, "centre": centre, "conditions": conditions})
    };
    let rules = json!({"name": "costs", "rules": {
        "attribution": [
            attribution("network", "network", "service", "Network"),
            attribution("prod", "shop", "tags.env", "prod"),
            attribution("test", "lab", "tags.env", "test"),
        ],
        "shared": [{"name": "by cost", "pool": "network",
                    "method": {"proportional": {"fallback": "even"}}}],
    }});
    teller.typed("create rule-set -f rules.yaml; allocate costs --draft")?;
    let made = memory.send("rule-sets", None, "define", rules).await?;
    let set = plain(&made["id"]);
    let query = [("rule_set", set.clone()), ("draft", "true".to_owned())];
    let draft = memory.client.get("/v1/allocations", &query).await?.body;
    shown(teller, costs::allocated, &draft)?;
    memory.send("rule-sets", Some(&set), "publish", json!({})).await?;
    let counts = memory.client.get("/v1/allocations", &query[..1]).await?.body;
    let after = |answer: &Value| {
        let items = answer["items"].as_array().cloned().unwrap_or_default();
        let items = items.iter().map(|item| (plain(&item["centre"]), plain(&item["after"])));
        items.collect::<std::collections::BTreeMap<_, _>>()
    };
    let published = after(&counts);
    ensure(
        after(&draft).into_iter().all(|(centre, sum)| {
            published.get(&centre).map_or(sum == "0", |counted| *counted == sum)
        }),
        "what is published gives what the draft said",
    )?;
    let spent = published.get("network").map(String::as_str);
    ensure(spent == Some("0"), format!("the pool keeps {spent:?}"))?;
    teller.checked("rules tried as a draft, published as one event, nothing lost in the split")?;

    teller.typed("do bill close … --set invoiced.EUR=549.63")?;
    let close = |total: &str| json!({"invoiced": {"EUR": total}});
    let body = close("549.63");
    let command = super::command("bills", Some(&id), "close", body, None);
    let Err(fault) = memory.client.submit(&command).await else {
        return Err(Untrue("a bill that differs from its invoice was closed".to_owned()));
    };
    let problem = fault.problem().ok_or_else(|| Untrue(fault.to_string()))?;
    teller.quote(&problem.to_string())?;
    let closed = memory.send("bills", Some(&id), "close", close("549.633456789012")).await?;
    let position = closed["position"].as_u64();
    let late = [HEADING.to_owned(), line("5", "Usage", "Support", "", "prod")].concat();
    teller.typed("bill import late.csv --reason 'the support fee came late'")?;
    import(memory, data, "late.csv", &late, Some("the support fee came late")).await?;
    let (now, then) = (total(memory, None).await?, total(memory, position).await?);
    ensure(now == "554.633456789012", format!("with the late line it is {now}"))?;
    ensure(then == "549.633456789012", format!("as it was closed it is {then}"))?;
    let bill = memory.get("bills", &id).await?;
    let versions = bill["state"]["versions"].as_array().map_or(0, Vec::len);
    ensure(versions == 2, format!("the bill has {versions} versions, not 2"))?;
    teller.checked(&format!(
        "the closed month is as it was ({then}), the late line is its second version ({now})"
    ))
}

//! Step 11: two years of bills, what comes next, and what changes when a plan is known.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{
    Memory, Teller, Told, Untrue,
    bill::{HEADING, import, shown},
    ensure,
};
use crate::{columns::plain, forecasts};

/// Months before October 2026.
const MONTHS: u32 = 24;

/// How many servers ran in a month, or will.
fn servers(at: u32) -> u32 {
    [9, 12, 11, 15, 14, 18, 13, 10, 16, 12][(at * 3 % 10) as usize] + at / 6
}

/// The month so many months after October 2024, and the first day after it.
fn month(at: u32) -> (String, String) {
    let name = |at: u32| format!("{}-{:02}", 2024 + (at + 9) / 12, (at + 9) % 12 + 1);
    (name(at), name(at + 1))
}

/// Servers at 27.50 each and a little more or less, and a network that is paid by the day.
fn bills() -> String {
    let mut bills = HEADING.to_owned();
    for at in 0..MONTHS {
        let (own, next) = month(at);
        let odd = at * 37 % 11;
        let days = [31, 30, 31, 31, 28, 31, 30, 31, 30, 31, 31, 30][(at % 12) as usize];
        for (service, cents) in
            [("Compute", servers(at) * 2_750 + odd * 130), ("Network", days * 194)]
        {
            let cost = format!("{}.{:02}", cents / 100, cents % 100);
            let _ = writeln!(
                bills,
                "{cost},{cost},{cost},{cost},acme,EUR,{own}-01T00:00:00Z,{next}-01T00:00:00Z,Usage,\
                 {own}-07T00:00:00Z,{own}-08T00:00:00Z,{service},,"
            );
        }
    }
    bills
}

/// The driver's values, past and planned: eighteen in the October that came in before, and in
/// December there are to be forty.
fn counts() -> Value {
    let count = |at: u32| match at {
        24 => 18,
        26 => 40,
        _ => servers(at),
    };
    (0..MONTHS + 4)
        .map(|at| (month(at).0, json!(count(at))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

async fn ask(memory: &Memory) -> Result<Value, Untrue> {
    let query = [
        ("filter", "billing_account = acme".to_owned()),
        ("group_by", "service".to_owned()),
        ("look_back", "3".to_owned()),
    ];
    Ok(memory.client.get("/v1/forecasts", &query).await?.body)
}

/// A model's WAPE for a service.
fn error(answer: &Value, service: &str, model: &str) -> f64 {
    let scores = &of(answer, service)["scores"];
    let mut scores = scores.as_array().into_iter().flatten();
    let score = scores.find(|score| score["model"] == model);
    score.and_then(|score| score["wape"].as_f64()).unwrap_or(f64::NAN)
}

fn of<'a>(answer: &'a Value, service: &str) -> &'a Value {
    let mut items = answer["items"].as_array().into_iter().flatten();
    items.find(|item| item["group"]["service"] == service).unwrap_or(&Value::Null)
}

pub(super) async fn what_comes_next(
    data: &std::path::Path,
    memory: &Memory,
    teller: &mut Teller,
) -> Told {
    teller.step("What comes next, and how far to trust it")?;
    let months = import(memory, data, "2024-2026.csv", &bills(), None).await?;
    let count = months["bills"].as_array().map_or(0, Vec::len);
    ensure(count == MONTHS as usize, format!("{count} months came in, not {MONTHS}"))?;
    teller.typed("forecast --by service --filter 'billing_account = acme' --look-back 3")?;
    let without = ask(memory).await?;
    shown(teller, forecasts::table, &without)?;
    let total = &without["totals"]["EUR"];
    for place in 0..3 {
        // Four decimals each: exact as whole numbers of them.
        let units = |value: &Value| -> i128 {
            let text = plain(&value["points"][place]["value"]);
            let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
            format!("{whole}{part:0<4}").parse().unwrap_or_default()
        };
        let items = without["items"].as_array().into_iter().flatten();
        let parts: i128 = items.map(units).sum();
        ensure(parts == units(total), format!("parts come to {parts}, not to {}", units(total)))?;
    }
    let scores = total["scores"].as_array().map_or(0, Vec::len);
    ensure(scores >= 4, format!("{scores} models were tried"))?;
    teller.checked("three months, whose parts add up, with limits, beside the naive forecasts")?;

    teller.say("Somebody plans forty servers for December. One knows how many there were, too.")?;
    teller.typed("create driver -f servers.yaml; forecast --by service …")?;
    let driver = json!({
        "name": "servers", "unit": "servers", "values": counts(), "scope": {"service": ["Compute"]},
    });
    memory.send("drivers", None, "define", driver).await?;
    let with = ask(memory).await?;
    shown(teller, forecasts::table, &with)?;
    let model = plain(&of(&with, "Compute")["model"]);
    ensure(model == "regression", format!("it follows {model}"))?;
    let (ours, naive) = (error(&with, "Compute", "regression"), error(&with, "Compute", "naive"));
    ensure(
        ours < 0.05 && naive > 0.1,
        format!("the regression's error is {ours}, that of naive {naive}"),
    )?;
    ensure(with["inputs"] != without["inputs"], "a driver is an input")?;
    let again = ask(memory).await?;
    ensure(again == with, "the same inputs give the same forecast")?;
    teller.checked("a plan is followed, its effect estimated, and the same inputs say the same")
}

//! A cost that should not be: found by what the days before lead to expect, explained, and cleared
//! when the bill is put right.

use std::fmt::Write as _;

use serde_json::json;

use super::{
    Memory, Teller, Told, Untrue,
    bill::{HEADING, import, shown},
    ensure,
};
use crate::{columns::plain, costs, watch};

/// The day that is out of its range.
const DAY: &str = "2026-09-16";

/// Two months of a shop that costs less at weekends; on one day something ran that should not.
fn bill(amount_of_the_day: u32) -> String {
    let mut file = HEADING.to_owned();
    for (month, next, days) in [("2026-08", "2026-09", 31), ("2026-09", "2026-10", 30)] {
        for day in 1..=days {
            // The first of August 2026 is a Saturday, that of September a Tuesday.
            let weekend = if month == "2026-08" { day % 7 < 3 && day % 7 > 0 } else { day % 7 > 4 };
            let usual = if weekend { 60 } else { 100 + day % 4 };
            let date = format!("{month}-{day:02}");
            let amount = if date == DAY { amount_of_the_day } else { usual };
            let _ = writeln!(
                file,
                "{amount},{amount},{amount},{amount},shop,EUR,{month}-01T00:00:00Z,\
                 {next}-01T00:00:00Z,Usage,{date}T00:00:00Z,{date}T23:00:00Z,Compute,i-shop,"
            );
        }
    }
    file
}

pub(super) async fn anomaly(data: &std::path::Path, memory: &Memory, teller: &mut Teller) -> Told {
    teller.step("A cost that should not be")?;
    teller.typed("create anomaly-rule -f services.yaml; bill import autumn.csv")?;
    let detector = json!({"statistical": {"sensitivity": "medium", "minimum": "20"}});
    let ours = json!([{"dimension": "billing_account", "values": ["shop"]}]);
    let watched = json!({"group_by": ["service"], "conditions": ours, "detector": detector});
    let rule = json!({"name": "services", "watch": watched});
    memory.send("anomaly-rules", None, "define", rule).await?;
    let imported = import(memory, data, "autumn.csv", &bill(240), None).await?;
    shown(teller, costs::imported, &imported)?;
    let found = imported["anomalies"]["reported"].as_array().cloned().unwrap_or_default();
    let [id] = found.as_slice() else {
        return Err(Untrue(format!("{} anomalies were found, not one", found.len())));
    };
    let id = plain(id);
    let anomaly = memory.get("anomalies", &id).await?;
    let finding = &anomaly["state"]["finding"];
    ensure(finding["period"] == DAY, format!("it was found on {}", finding["period"]))?;
    teller.checked(&format!(
        "{} cost {} on {DAY}; by the days before it, {} were expected and {} at most",
        plain(&finding["group"]["service"]),
        plain(&finding["amount"]),
        costs::amount(&plain(&finding["expected"]["middle"])),
        costs::amount(&plain(&finding["expected"]["high"])),
    ))?;

    teller.typed("do anomaly explain … --set 'text=a load test'; detect")?;
    memory.send("anomalies", Some(&id), "explain", json!({"text": "a load test"})).await?;
    let again = memory.client.perform("/v1/anomaly-detections", &[]).await?.body;
    shown(teller, watch::detected, &again)?;
    ensure(again["unchanged"] == 1, "what is known is not found a second time")?;

    teller.typed("bill import autumn-again.csv --replace")?;
    let path = data.join("autumn-again.csv");
    std::fs::write(&path, bill(102))?;
    let query = [("manner", "replace".to_owned())];
    let file = tokio::fs::File::open(&path).await?;
    let corrected = memory.client.upload("/v1/bill-imports", &query, file, |_| {}).await?.body;
    std::fs::remove_file(&path)?;
    let cleared = &corrected["anomalies"]["cleared"];
    ensure(*cleared == json!([id]), format!("the corrected bill has cleared {cleared}"))?;
    let history = memory.client.get(&format!("/v1/anomalies/{id}/history"), &[]).await?.body;
    let events = history["items"].as_array().cloned().unwrap_or_default();
    let events: Vec<String> = events.iter().map(|event| plain(&event["type"])).collect();
    teller.checked(&format!(
        "the provider corrects its bill: the anomaly is cleared, its history stays ({})",
        events.join(", ")
    ))
}

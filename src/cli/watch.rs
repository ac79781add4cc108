//! Costs that are watched: anomalies, budgets, reports, and the numbers by which they are judged.

use std::{io::Write, path::Path};

use adapters_console::{
    client::Client, exit::Exit, format, names::resolve, style::Style, watch as show,
};

use super::{
    Failure,
    grammar::{Budgets, Hints, Kpis, Output, Report},
};
use crate::connection::Connection;

pub(super) async fn detect(output: &Output, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let answer = client.perform("/v1/anomaly-detections", &[]).await?.body;
    let (out, style) = (&mut std::io::stdout().lock(), Style::stdout());
    if output.output.is_for_people() {
        show::detected(out, &answer, style)?;
    } else {
        format::document(out, output.output, &answer)?;
    }
    Ok(Exit::Ok)
}

pub(super) async fn budgets(budgets: &Budgets, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let (out, style) = (&mut std::io::stdout().lock(), Style::stdout());
    if budgets.evaluate {
        let answer = client.perform("/v1/budget-evaluations", &[]).await?.body;
        if budgets.output.output.is_for_people() {
            show::evaluated(out, &answer, style)?;
        }
    }
    let at = budgets.at.moment()?;
    let query: Vec<_> = at.into_iter().map(|at| ("at", at)).collect();
    let answer = client.get("/v1/budgets:status", &query).await?.body;
    if budgets.output.output.is_for_people() {
        show::budgets(out, &answer, budgets.all, style)?;
    } else {
        format::document(out, budgets.output.output, &answer)?;
    }
    Ok(Exit::Ok)
}

pub(super) async fn hints(hints: &Hints, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let mut query = vec![("page_size", hints.limit.clamp(1, 1000).to_string())];
    for (name, number) in [
        ("commitment_days", hints.commitment_days),
        ("idle_network_mib", hints.idle_network_mib),
        ("idle_percent", hints.idle_percent),
        ("measured_days", hints.measured_days),
        ("measured_percent", hints.measured_percent),
        ("oversized_percent", hints.oversized_percent),
        ("snapshot_days", hints.snapshot_days),
        ("stopped_days", hints.stopped_days),
        ("unattached_days", hints.unattached_days),
        ("unused_percent", hints.unused_percent),
    ] {
        query.extend(number.map(|number| (name, number.to_string())));
    }
    query.extend(hints.at.moment()?.map(|at| ("at", at)));
    let answer = client.get("/v1/hints", &query).await?.body;
    let (out, style) = (&mut std::io::stdout().lock(), Style::stdout());
    match hints.output.output {
        output if output.is_for_people() => show::hints(out, &answer, style)?,
        format::Format::Csv => show::hints_csv(out, &answer)?,
        output => format::document(out, output, &answer)?,
    }
    Ok(Exit::Ok)
}

pub(super) async fn kpis(kpis: &Kpis, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let at = kpis.at.moment()?;
    let rules = match &kpis.rules {
        Some(name) => Some(resolve(&client, "rule-set", "rule-sets", name, at.as_deref()).await?),
        None => None,
    };
    let from = kpis.month.clone().or_else(|| kpis.from_month.clone());
    let to = kpis.month.clone().or_else(|| kpis.to_month.clone());
    let query: Vec<_> = [
        ("from_month", from),
        ("to_month", to),
        ("filter", kpis.filter.clone()),
        ("tag_keys", kpis.tag_keys.clone()),
        ("driver", kpis.driver.clone()),
        ("quantity", kpis.quantity.clone()),
        ("rule_set", rules),
        ("at", at),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect();
    let answer = client.get("/v1/kpis", &query).await?.body;
    let (out, style) = (&mut std::io::stdout().lock(), Style::stdout());
    if kpis.output.output.is_for_people() {
        show::kpis(out, &answer, style)?;
    } else {
        format::document(out, kpis.output.output, &answer)?;
    }
    Ok(Exit::Ok)
}

fn write(to: Option<&Path>, bytes: &[u8]) -> Result<Exit, Failure> {
    match to {
        None => std::io::stdout().lock().write_all(bytes)?,
        Some(path) => std::fs::write(path, bytes)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?,
    }
    Ok(Exit::Ok)
}

/// A small file as a whole.
async fn fetched(
    client: &Client,
    path: &str,
    query: &[(&str, String)],
) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let take = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    let taken = client.download(path, query, take).await?;
    taken.map_err(|error| Failure::usage(error.to_string()))?;
    Ok(bytes)
}

pub(super) async fn report(command: Report, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    match command {
        Report::Answer { report, format, to, at } => {
            let at = at.moment()?;
            let id = resolve(&client, "report", "reports", &report, at.as_deref()).await?;
            let query = [("format", format), ("at", at)];
            let query = query.into_iter().filter_map(|(name, value)| Some((name, value?)));
            let query: Vec<_> = query.collect();
            let path = format!("/v1/reports/{id}/answer");
            write(to.as_deref(), &fetched(&client, &path, &query).await?)
        }
        Report::Fetch { report, digest, to } => {
            let id = resolve(&client, "report", "reports", &report, None).await?;
            let digest = match digest {
                Some(digest) => digest,
                None => {
                    let body = client.get(&format!("/v1/reports/{id}"), &[]).await?.body;
                    let runs = body["state"]["runs"].as_array().and_then(|runs| runs.last());
                    let last = runs.and_then(|run| run["digest"].as_str());
                    let none = || Failure::new(Exit::NotFound, format!("{report} was never run"));
                    last.ok_or_else(none)?.to_owned()
                }
            };
            let path = format!("/v1/reports/{id}/runs/{digest}");
            write(to.as_deref(), &fetched(&client, &path, &[]).await?)
        }
        Report::Run { report, output } => {
            let id = resolve(&client, "report", "reports", &report, None).await?;
            let answer = client.perform(&format!("/v1/reports/{id}/runs"), &[]).await?.body;
            let (out, run) = (&mut std::io::stdout().lock(), &answer["run"]);
            if output.output.is_for_people() {
                show::ran(out, run, Style::stdout())?;
            } else {
                format::document(out, output.output, &answer)?;
            }
            Ok(Exit::Ok)
        }
    }
}

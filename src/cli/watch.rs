//! Costs that are watched: anomalies, budgets, and the numbers by which they are judged.

use adapters_console::{exit::Exit, format, names::resolve, style::Style, watch as show};

use super::{
    Failure,
    grammar::{Budgets, Kpis, Output},
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

//! Steps 1 to 3: a server, an account, what is in it.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

use super::{Memory, Stage, Teller, Told, Untrue, ensure};
use crate::{client::Client, columns::plain, names::quoted, show};

pub(super) async fn server_and_account(
    stage: &mut impl Stage,
    teller: &mut Teller,
) -> Told<Memory> {
    teller.step("A server on an empty ledger")?;
    let running = stage.start().await?;
    teller.say(&format!(
        "One process ({}), one data folder ({}), nothing else installed.",
        running.pid,
        stage.data().display()
    ))?;
    let client = Client::new(&running.url, Some(&running.token))?;
    let projects = client.list("/v1/projects", &[], None, |_| {}).await?.rows;
    ensure(projects.len() == 1, "a new ledger has the project `default`")?;
    let project = plain(&projects[0]["id"]);
    teller.checked(&format!(
        "ready on {}, with the project `default` and an admin token",
        running.url
    ))?;

    let place = stage.place();
    teller.step("Connect a cloud account")?;
    teller.say(&format!(
        "{}. The credential is sealed before it comes near an event; who it belongs to is asked \
         of the cloud.",
        place.what
    ))?;
    teller.typed("create account -f account.yaml --wait")?;
    let mut memory = Memory {
        client,
        place: place.clone(),
        account: String::new(),
        group: String::new(),
        external: String::new(),
        vpc: None,
        looked: 0,
        calm: 0,
        drifted: 0,
    };
    let connect = json!({"name": "demo", "provider": place.provider, "project": project,
                         "endpoint": place.endpoint, "credential": place.credential});
    let outcome = memory.send("cloud-accounts", None, "connect", connect).await?;
    memory.account = plain(&outcome["id"]);
    let account = memory.get("cloud-accounts", &memory.account).await?;
    ensure(account["status"] == "connected", format!("the account is {}", account["status"]))?;
    let whole = account.to_string();
    let secret = place.credential.as_object().and_then(|all| all.values().next_back());
    let secret = secret.and_then(Value::as_str).unwrap_or("?");
    ensure(!whole.contains(&quoted(secret)), "an answer shows the credential")?;
    teller.checked(&format!(
        "connected as {}; no answer shows the credential",
        plain(&account["state"]["external_account"])
    ))?;

    teller.step("See everything that is in it")?;
    teller.typed("sync demo --wait")?;
    let outcome = memory.send("cloud-accounts", Some(&memory.account), "sync", json!({})).await?;
    let first = outcome["position"].as_u64().unwrap_or_default();
    memory.looked = first;
    let runs = memory.client.list("/v1/sync-runs", &[], None, |_| {}).await?.rows;
    let run = runs.first().ok_or_else(|| Untrue("there is no sync run".to_owned()))?;
    ensure(run["complete"] == true, "the look was not complete")?;
    let count = |of: &Value, name: &str| of[name].as_u64().unwrap_or_default();
    ensure(
        count(run, "listed") > 0 && count(run, "listed") == count(run, "discovered"),
        "everything that was listed is new",
    )?;
    let query = [("filter", format!("account = {}", memory.account))];
    let rows = memory.client.list("/v1/inventory", &query, None, |_| {}).await?.rows;
    ensure(rows.len() as u64 == count(run, "discovered"), "the inventory has what was discovered")?;
    teller.table(by_kind_and_region(&rows, teller))?;
    teller.checked(&format!(
        "{} resources discovered, every page of every region; {first} events",
        rows.len()
    ))?;
    let again = memory.send("cloud-accounts", Some(&memory.account), "sync", json!({})).await?;
    let events = again["position"].as_u64().unwrap_or_default().saturating_sub(first);
    ensure(
        events == 2,
        format!("an unchanged cloud made {events} events, not the look's own two"),
    )?;
    teller.checked("looked again: nothing had changed, and no resource got an event")?;
    memory.vpc = rows
        .iter()
        .find(|row| row["kind"] == "vpc" && row["region"] == memory.place.region.as_str())
        .map(|row| plain(&row["external_id"]));
    Ok(memory)
}

fn by_kind_and_region(rows: &[Value], teller: &Teller) -> Table {
    let mut counts: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let mut regions: Vec<String> = Vec::new();
    for row in rows {
        let region = plain(&row["region"]);
        if !region.is_empty() && !regions.contains(&region) {
            regions.push(region.clone());
        }
        *counts.entry(plain(&row["kind"])).or_default().entry(region).or_default() += 1;
    }
    regions.sort();
    // An account with many regions: the fullest ones are shown.
    let total = |region: &String| counts.values().filter_map(|of| of.get(region)).sum::<u64>();
    regions.sort_by_key(|region| std::cmp::Reverse(total(region)));
    regions.truncate(4);
    let mut headings = vec!["kind"];
    headings.extend(regions.iter().map(String::as_str));
    headings.push("all");
    let lines = counts.iter().map(|(kind, of)| {
        let mut line = vec![kind.clone()];
        line.extend(regions.iter().map(|region| of.get(region).copied().unwrap_or(0).to_string()));
        line.push(of.values().sum::<u64>().to_string());
        line
    });
    let mut table = show::grid(&headings, lines.collect(), teller.style());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

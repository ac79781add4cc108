//! Commands that read.

use std::io::Write;

use adapters_console::{
    client::Client, columns::plain, exit::Exit, format, hosts, names::resolve, show, sources,
    style::Style, time,
};
use chrono::Utc;
use serde_json::Value;

use super::{
    Failure, command,
    grammar::{
        At, Describe, Devices, Diff, Drain, Events, Get, History, List, Machines, Placements,
        SourceMachines, Why,
    },
    subject::Subject,
};
use crate::connection::Connection;

impl At {
    /// As the server takes it.
    pub(super) fn moment(&self) -> Result<Option<String>, Failure> {
        self.at.as_deref().map(|text| moment("--at", text)).transpose()
    }
}

fn moment(flag: &str, text: &str) -> Result<String, Failure> {
    time::moment(text, Utc::now()).map_err(|wrong| Failure::usage(format!("{flag}: {wrong}")))
}

/// The id that is meant, from `KIND/ID` or `KIND ID`.
pub(super) async fn id_of(
    client: &Client,
    subject: &Subject,
    id: Option<&str>,
    at: Option<&str>,
) -> Result<String, Failure> {
    let meant = match (subject.id.as_deref(), id) {
        (Some(_), Some(_)) => {
            return Err(Failure::usage(format!(
                "give the id once: {0}/ID or {0} ID",
                subject.singular()
            )));
        }
        (Some(id), None) | (None, Some(id)) => id,
        (None, None) => {
            return Err(Failure::usage(format!(
                "which {}? Give an id or name",
                subject.singular()
            )));
        }
    };
    Ok(resolve(client, subject.singular(), &subject.plural, meant, at).await?)
}

pub(super) async fn get(get: Get, connection: &Connection) -> Result<Exit, Failure> {
    if get.id.is_none() && get.subject.id.is_none() {
        return rows(&get.subject.plural, get.list, connection).await;
    }
    if get.subject.kind.is_none() {
        return Err(Failure::usage(format!(
            "{} is a view: its rows have no ids",
            get.subject.plural
        )));
    }
    let client = connection.client()?;
    let at = get.list.at.moment()?;
    let id = id_of(&client, &get.subject, get.id.as_deref(), at.as_deref()).await?;
    let query: Vec<_> = at.iter().map(|at| ("at", at.clone())).collect();
    let path = format!("/v1/{}/{id}", get.subject.plural);
    let row = client.get(&path, &query).await?.body;
    let (out, style) = (&mut std::io::stdout().lock(), Style::stdout());
    match get.list.output.output {
        format::Format::Json | format::Format::Yaml => {
            format::document(out, get.list.output.output, &row)?;
        }
        format => {
            let far = show::progress(&row["progress"]).filter(|_| format.is_for_people());
            format::rows(out, format, &get.subject.plural, &[row], Utc::now(), style)?;
            if let Some(far) = far {
                writeln!(out, "{}", style.cyan(&far))?;
            }
        }
    }
    Ok(Exit::Ok)
}

pub(super) async fn view(name: &str, list: List, connection: &Connection) -> Result<Exit, Failure> {
    rows(name, list, connection).await
}

/// Rows of a kind or view.
pub(super) async fn rows(
    plural: &str,
    list: List,
    connection: &Connection,
) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let at = list.at.moment()?;
    let mut query = Vec::new();
    for (name, value) in [("filter", &list.filter), ("order_by", &list.order_by), ("at", &at)] {
        query.extend(value.as_ref().map(|value| (name, value.clone())));
    }
    if list.show_gone {
        query.push(("show_gone", "true".to_owned()));
    }
    let limit = (!list.all).then_some(list.limit as usize);
    let progress = adapters_console::progress::Progress::count(&format!("reading {plural}"));
    let found = client
        .list(&format!("/v1/{plural}"), &query, limit, |count| progress.at(count as u64))
        .await?;
    progress.done();
    let (style, people) = (Style::stdout(), list.output.output.is_for_people());
    let out = &mut std::io::stdout().lock();
    if people && let Some(at) = &at {
        let position = found.position.map(|at| format!(" (position {at})")).unwrap_or_default();
        writeln!(out, "{}", style.bold(&format!("{plural} at {at}{position}")))?;
    }
    if people && found.rows.is_empty() {
        let what = if list.filter.is_some() { " that match" } else { "" };
        eprintln!("no {plural}{what}");
        return Ok(Exit::Ok);
    }
    format::rows(out, list.output.output, plural, &found.rows, Utc::now(), style)?;
    if found.more {
        eprintln!("there are more than {}: use --all or --limit", found.rows.len());
    }
    Ok(Exit::Ok)
}

pub(super) async fn describe(one: Describe, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let at = one.at.moment()?;
    let id = id_of(&client, &one.subject, one.id.as_deref(), at.as_deref()).await?;
    let query: Vec<_> = at.iter().map(|at| ("at", at.clone())).collect();
    let row = client.get(&format!("/v1/{}/{id}", one.subject.plural), &query).await?.body;
    let out = &mut std::io::stdout().lock();
    if let Some(at) = &at {
        writeln!(out, "{}", Style::stdout().bold(&format!("as it was at {at}")))?;
    }
    writeln!(out, "{}", show::resource(&one.subject.plural, &row, Utc::now(), Style::stdout()))?;
    Ok(Exit::Ok)
}

pub(super) async fn history(one: History, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let at = one.at.moment()?;
    let id = id_of(&client, &one.subject, one.id.as_deref(), at.as_deref()).await?;
    let query: Vec<_> = at.iter().map(|at| ("at", at.clone())).collect();
    let path = format!("/v1/{}/{id}/history", one.subject.plural);
    let found = client.list(&path, &query, None, |_| {}).await?;
    let out = &mut std::io::stdout().lock();
    match one.output.output {
        format if format.is_for_people() => {
            let table = show::history(&found.rows, Utc::now(), Style::stdout());
            writeln!(out, "{}", table.trim_fmt())?;
        }
        format => {
            format::rows(out, format, "events", &found.rows, Utc::now(), Style::stdout())?;
        }
    }
    Ok(Exit::Ok)
}

pub(super) async fn why(one: Why, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let at = one.at.moment()?;
    let id = id_of(&client, &one.subject, Some(&one.id), at.as_deref()).await?;
    let mut query = vec![("field", one.field.clone())];
    query.extend(at.map(|at| ("at", at)));
    let path = format!("/v1/{}/{id}/why", one.subject.plural);
    let answer = client.get(&path, &query).await?.body;
    let out = &mut std::io::stdout().lock();
    if one.output.output.is_for_people() {
        writeln!(out, "{}", show::why(&answer, Utc::now(), Style::stdout()))?;
    } else {
        format::document(out, one.output.output, &answer)?;
    }
    Ok(Exit::Ok)
}

pub(super) async fn diff(diff: Diff, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let mut query = vec![("from", moment("--from", &diff.from)?)];
    if let Some(to) = &diff.to {
        query.push(("to", moment("--to", to)?));
    }
    let mut filter = diff.filter.clone();
    match diff.subject {
        Some(Subject { kind: Some(kind), .. }) => {
            let only = format!("kind = {}", kind.name);
            filter = Some(filter.map_or(only.clone(), |filter| format!("{filter} AND {only}")));
        }
        Some(Subject { kind: None, plural, .. }) => query.push(("view", plural)),
        None => {}
    }
    query.extend(filter.map(|filter| ("filter", filter)));
    let found = client.list("/v1/diff", &query, None, |_| {}).await?;
    let out = &mut std::io::stdout().lock();
    if !diff.output.output.is_for_people() {
        format::document(out, diff.output.output, &Value::Array(found.rows))?;
    } else if found.rows.is_empty() {
        eprintln!("nothing differs");
    } else {
        write!(out, "{}", show::changes(&found.rows, Style::stdout()))?;
    }
    Ok(Exit::Ok)
}

pub(super) async fn events(events: Events, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let mut query = Vec::new();
    if let Some(kind) = events.kind.as_ref().and_then(|subject| subject.kind) {
        query.push(("kind", kind.name.to_owned()));
    }
    query.extend(events.event_type.iter().map(|one| ("type", one.clone())));
    query.extend(events.actor.iter().map(|one| ("actor", one.clone())));
    let (style, format) = (Style::stdout(), events.output.output);
    if events.follow {
        query.extend(events.progress.then(|| ("progress", "true".to_owned())));
        let follow = |event: &Value| {
            let mut out = std::io::stdout().lock();
            if format.is_for_people() {
                writeln!(out, "{}", show::event_line(event, style))
            } else {
                writeln!(out, "{event}")
            }
            .and_then(|()| out.flush())
        };
        client.follow("/v1/audit/events:watch", &query, events.after, follow).await?;
        return Ok(Exit::Ok);
    }
    // The newest ones, unless a beginning is named; oldest first either way.
    match events.after {
        Some(after) => query.push(("from", after.to_string())),
        None => query.push(("newest_first", "true".to_owned())),
    }
    let limit = Some(events.limit as usize);
    let mut found = client.list("/v1/audit/events", &query, limit, |_| {}).await?;
    found.rows.truncate(events.limit as usize);
    if events.after.is_none() {
        found.rows.sort_by_key(|event| event["position"].as_u64());
    }
    let out = &mut std::io::stdout().lock();
    format::rows(out, format, "events", &found.rows, Utc::now(), style)?;
    Ok(Exit::Ok)
}

/// A document for people: `name  value`, one a line.
pub(super) fn pairs(value: &Value, names: &[&str]) -> String {
    let width = names.iter().map(|name| name.len()).max().unwrap_or_default();
    names
        .iter()
        .filter(|name| !value[**name].is_null())
        .map(|name| {
            format!("{:width$}  {}", name.replace('_', " "), plain(&value[*name]).trim_end())
        })
        .collect::<Vec<_>>()
        .join("\n")
}

pub(super) async fn machines(
    machines: &Machines,
    connection: &Connection,
) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let id = resolve(&client, "host", "hosts", &machines.host, None).await?;
    let answer = client.get(&format!("/v1/hosts/{id}/machines"), &[]).await?.body;
    let out = &mut std::io::stdout().lock();
    if machines.output.output.is_for_people() {
        hosts::machines(out, &answer, Style::stdout())?;
    } else {
        format::document(out, machines.output.output, &answer)?;
    }
    Ok(Exit::Ok)
}

pub(super) async fn devices(devices: &Devices, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let id = resolve(&client, "host", "hosts", &devices.host, None).await?;
    let answer = client.get(&format!("/v1/hosts/{id}/devices"), &[]).await?.body;
    let out = &mut std::io::stdout().lock();
    if devices.output.output.is_for_people() {
        hosts::devices(out, &answer, Style::stdout())?;
    } else {
        format::document(out, devices.output.output, &answer)?;
    }
    Ok(Exit::Ok)
}

pub(super) async fn source_machines(
    sources: &SourceMachines,
    connection: &Connection,
) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let id = resolve(&client, "cloud-account", "cloud-accounts", &sources.account, None).await?;
    let answer = client.get(&format!("/v1/cloud-accounts/{id}/machines"), &[]).await?.body;
    let out = &mut std::io::stdout().lock();
    if sources.output.output.is_for_people() {
        sources::machines(out, &answer, Style::stdout())?;
    } else {
        format::document(out, sources.output.output, &answer)?;
    }
    Ok(Exit::Ok)
}

pub(super) async fn drain(drain: &Drain, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let id = resolve(&client, "host", "hosts", &drain.host, None).await?;
    let answer = client.get(&format!("/v1/hosts/{id}/leaving"), &[]).await?.body;
    let out = &mut std::io::stdout().lock();
    if drain.output.output.is_for_people() {
        hosts::drain(out, &answer, Style::stdout())?;
    } else {
        format::document(out, drain.output.output, &answer)?;
    }
    Ok(Exit::Ok)
}

pub(super) async fn placements(
    placements: &Placements,
    connection: &Connection,
) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let mut query = Vec::new();
    if let Some(host) = &placements.host {
        query.push(("host", resolve(&client, "host", "hosts", host, None).await?));
    }
    if let Some(most) = placements.count_to {
        query.push(("count_to", most.to_string()));
    }
    let body = command::read_named(&client, &placements.body).await?;
    let answer = client.ask("/v1/placements", &query, &body).await?.body;
    let out = &mut std::io::stdout().lock();
    if placements.output.output.is_for_people() {
        hosts::placements(out, &answer, Style::stdout())?;
    } else {
        format::document(out, placements.output.output, &answer)?;
    }
    Ok(Exit::Ok)
}

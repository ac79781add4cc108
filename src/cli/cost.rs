//! Bills in, costs out.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use adapters_console::{
    costs as show, exit::Exit, format, input, names::resolve, progress::Progress, style::Style,
};

use commands::pull::ENDINGS;

use super::{
    Failure,
    grammar::{Allocate, Bill, Costs, ExportBills, ImportBill, Months, ReconcileBills, Span},
    pull,
};
use crate::connection::Connection;

impl Span {
    fn query(&self) -> Vec<(&'static str, String)> {
        let from = self.month.clone().or_else(|| self.from_month.clone());
        let to = self.month.clone().or_else(|| self.to_month.clone());
        let months = [("from_month", from), ("to_month", to)];
        months.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

impl Months {
    fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = self.span.query();
        query.push(("basis", self.basis.clone()));
        query
    }
}

pub(super) async fn bill(command: Bill, connection: &Connection) -> Result<Exit, Failure> {
    match command {
        Bill::Export(export) => export_bills(export, connection).await,
        Bill::Import(import) => import_bill(import, connection).await,
        Bill::Reconcile(reconcile) => reconcile_bills(reconcile, connection).await,
    }
}

async fn export_bills(export: ExportBills, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let at = export.at.moment()?;
    let mut query = export.months.query();
    query.push(("version", export.focus));
    if let Some(rules) = &export.rules {
        let id = resolve(&client, "rule-set", "rule-sets", rules, at.as_deref()).await?;
        query.push(("rule_set", id));
    }
    if export.draft {
        query.push(("draft", "true".to_owned()));
    }
    query.extend(at.map(|at| ("at", at)));
    let name = export.file.as_ref().map_or("standard output".into(), |file| file.to_string_lossy());
    let cannot = |error| Failure::usage(format!("{name}: {error}"));
    let progress = Progress::count("exporting");
    let mut written = 0;
    let mut out: Box<dyn Write> = match &export.file {
        Some(file) => Box::new(std::fs::File::create(file).map_err(cannot)?),
        None => Box::new(std::io::stdout().lock()),
    };
    let take = |piece: &[u8]| {
        written += piece.len() as u64;
        progress.at(written);
        out.write_all(piece)
    };
    let taken = client.download("/v1/bill-exports", &query, take).await?;
    taken.and_then(|()| out.flush()).map_err(cannot)?;
    progress.done();
    Ok(Exit::Ok)
}

async fn reconcile_bills(
    reconcile: ReconcileBills,
    connection: &Connection,
) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let mut query = reconcile.span.query();
    query.extend(reconcile.at.moment()?.map(|at| ("at", at)));
    let answer = client.get("/v1/bill-reconciliations", &query).await?.body;
    let (out, style) = (&mut std::io::stdout().lock(), Style::stdout());
    if reconcile.output.output.is_for_people() {
        show::reconciled(out, &answer, style)?;
    } else {
        format::document(out, reconcile.output.output, &answer)?;
    }
    Ok(Exit::Ok)
}

/// The files that are named, each with what it is called, and the bills of the folders that are and
/// of those in them, by name.
fn files(named: &[PathBuf]) -> Result<Vec<(PathBuf, String)>, Failure> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            files.push((path.clone(), name));
            continue;
        }
        let mut found = Vec::new();
        let mut folders = vec![path.clone()];
        while let Some(folder) = folders.pop() {
            let cannot = |error| Failure::usage(format!("{}: {error}", folder.display()));
            for entry in std::fs::read_dir(&folder).map_err(cannot)? {
                let entry = entry.map_err(cannot)?;
                let name = entry.file_name().to_string_lossy().to_lowercase();
                // Links to folders are not followed: they may lead in a circle.
                if entry.file_type().map_err(cannot)?.is_dir() {
                    folders.push(entry.path());
                } else if entry.path().is_file() && ENDINGS.iter().any(|end| name.ends_with(end)) {
                    found.push(entry.path());
                }
            }
        }
        if found.is_empty() {
            let what = ENDINGS.join(", ");
            return Err(Failure::usage(format!("{} has no {what}", path.display())));
        }
        found.sort_unstable();
        files.extend(found.into_iter().map(|file| {
            let name = file.strip_prefix(path).unwrap_or(&file).to_string_lossy().into_owned();
            (file, name)
        }));
    }
    Ok(files)
}

/// A mapping of the caller's own as JSON: what a file of TOML, YAML or JSON says.
fn own_mapping(path: &Path) -> Result<String, Failure> {
    let shown = path.display();
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("toml")) {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
        let mapping: serde_json::Value =
            toml::from_str(&text).map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
        return Ok(mapping.to_string());
    }
    let mapping = input::file(path).map_err(|fault| Failure::usage(fault.to_string()))?;
    Ok(serde_json::Value::Object(mapping).to_string())
}

async fn import_bill(import: ImportBill, connection: &Connection) -> Result<Exit, Failure> {
    let mapping = match &import.mapping_file {
        Some(path) => Some(own_mapping(path)?),
        None => import.mapping.clone(),
    };
    if import.files.iter().any(|path| pull::is_bucket(path)) {
        return pull::import(&import, mapping, connection).await;
    }
    let client = connection.client()?;
    for (path, name) in &files(&import.files)? {
        let cannot = |error| Failure::usage(format!("{}: {error}", path.display()));
        let file = tokio::fs::File::open(path).await.map_err(cannot)?;
        let length = file.metadata().await.map_err(cannot)?.len();
        let mut query = vec![("source", name.clone())];
        query.extend(mapping.clone().map(|mapping| ("mapping", mapping)));
        query.extend(import.reason.clone().map(|reason| ("reason", reason)));
        query.extend(import.repeats.clone().map(|repeats| ("repeats", repeats)));
        if import.replace {
            query.push(("manner", "replace".to_owned()));
        }
        if import.strict {
            query.push(("strict", "true".to_owned()));
        }
        let progress = Progress::bar(name, length);
        let sent = progress.clone();
        let upload = client.upload("/v1/bill-imports", &query, file, move |bytes| sent.at(bytes));
        let answer = upload.await?.body;
        progress.done();
        let (out, style) = (&mut std::io::stdout().lock(), Style::stdout());
        if import.output.output.is_for_people() {
            show::imported(out, &answer, style)?;
        } else {
            format::document(out, import.output.output, &answer)?;
        }
    }
    Ok(Exit::Ok)
}

pub(super) async fn costs(costs: Costs, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let at = costs.at.moment()?;
    let mut query = costs.months.query();
    query.push(("page_size", costs.limit.to_string()));
    for (name, kind, kinds, named) in [
        ("rule_set", "rule-set", "rule-sets", costs.rules),
        ("organisation", "organisation", "organisations", costs.organisation),
    ] {
        if let Some(named) = named {
            query.push((name, resolve(&client, kind, kinds, &named, at.as_deref()).await?));
        }
    }
    let digits = costs.digits.map(|digits| digits.to_string());
    for (name, value) in [
        ("filter", costs.filter),
        ("group_by", costs.by),
        ("compare", costs.compare),
        ("currency", costs.currency),
        ("digits", digits),
        ("at", at),
    ] {
        query.extend(value.map(|value| (name, value)));
    }
    for (name, yes) in
        [("allocated", costs.allocated), ("draft", costs.draft), ("repriced", costs.repriced)]
    {
        query.extend(yes.then(|| (name, "true".to_owned())));
    }
    let path = if costs.explain { "/v1/costs:explain" } else { "/v1/costs" };
    let answer = client.get(path, &query).await?.body;
    let (out, style) = (&mut std::io::stdout().lock(), Style::stdout());
    match costs.output.output {
        output if !output.is_for_people() => format::document(out, output, &answer)?,
        _ if costs.explain => show::explained(out, &answer, style)?,
        _ => show::table(out, &answer, style)?,
    }
    Ok(Exit::Ok)
}

pub(super) async fn allocate(allocate: Allocate, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let at = allocate.at.moment()?;
    let id = resolve(&client, "rule-set", "rule-sets", &allocate.rules, at.as_deref()).await?;
    let mut query = allocate.months.query();
    query.push(("rule_set", id));
    query.extend(at.map(|at| ("at", at)));
    if allocate.draft {
        query.push(("draft", "true".to_owned()));
    }
    let answer = if allocate.create_projects {
        client.run("/v1/allocations", &query).await?.body
    } else {
        client.get("/v1/allocations", &query).await?.body
    };
    let (out, style) = (&mut std::io::stdout().lock(), Style::stdout());
    if allocate.output.output.is_for_people() {
        show::allocated(out, &answer, style)?;
    } else {
        format::document(out, allocate.output.output, &answer)?;
    }
    Ok(Exit::Ok)
}

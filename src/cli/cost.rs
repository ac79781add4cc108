//! Bills in, costs out.

use std::path::PathBuf;

use adapters_console::{costs as show, exit::Exit, format, names::resolve, style::Style};

use super::{
    Failure,
    grammar::{Allocate, Bill, Costs, ImportBill, Months},
};
use crate::connection::Connection;

impl Months {
    fn query(&self) -> Vec<(&'static str, String)> {
        let from = self.month.clone().or_else(|| self.from_month.clone());
        let to = self.month.clone().or_else(|| self.to_month.clone());
        let months = [("from_month", from), ("to_month", to)];
        let months = months.into_iter().filter_map(|(name, value)| Some((name, value?)));
        months.chain([("basis", self.basis.clone())]).collect()
    }
}

pub(super) async fn bill(command: Bill, connection: &Connection) -> Result<Exit, Failure> {
    match command {
        Bill::Import(import) => import_bill(import, connection).await,
    }
}

/// What a folder's files are called that are taken for bills.
const ENDINGS: [&str; 3] = [".csv", ".csv.gz", ".csv.zst"];

/// The files that are named, and the bills of the folders that are, by name.
fn files(named: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let cannot = |error| Failure::usage(format!("{}: {error}", path.display()));
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let name = entry.file_name().to_string_lossy().to_lowercase();
            if entry.path().is_file() && ENDINGS.iter().any(|ending| name.ends_with(ending)) {
                found.push(entry.path());
            }
        }
        if found.is_empty() {
            let what = ENDINGS.join(", ");
            return Err(Failure::usage(format!("{} has no {what}", path.display())));
        }
        found.sort_unstable();
        files.append(&mut found);
    }
    Ok(files)
}

async fn import_bill(import: ImportBill, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    for path in &files(&import.files)? {
        let cannot = |error| Failure::usage(format!("{}: {error}", path.display()));
        let file = tokio::fs::File::open(path).await.map_err(cannot)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let mut query = vec![("source", name.clone())];
        query.extend(import.mapping.clone().map(|mapping| ("mapping", mapping)));
        query.extend(import.reason.clone().map(|reason| ("reason", reason)));
        if import.replace {
            query.push(("manner", "replace".to_owned()));
        }
        if import.strict {
            query.push(("strict", "true".to_owned()));
        }
        let answer = client.upload("/v1/bill-imports", &query, file).await?.body;
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
    for (name, value) in [("filter", costs.filter), ("group_by", costs.by), ("at", at)] {
        query.extend(value.map(|value| (name, value)));
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
    let answer = client.get("/v1/allocations", &query).await?.body;
    let (out, style) = (&mut std::io::stdout().lock(), Style::stdout());
    if allocate.output.output.is_for_people() {
        show::allocated(out, &answer, style)?;
    } else {
        format::document(out, allocate.output.output, &answer)?;
    }
    Ok(Exit::Ok)
}

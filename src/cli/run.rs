//! Runs that make bill lines.

use adapters_console::{costs as show, exit::Exit, format, names::resolve, style::Style};

use super::{
    Failure,
    grammar::{ImportUsage, RunMonths},
};
use crate::connection::Connection;

/// A run of the server's by its path.
pub(super) async fn run(
    path: &str,
    asked: RunMonths,
    connection: &Connection,
) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let mut query = vec![("from_month", asked.month)];
    let to = asked.to_month.map(|month| ("to_month", month));
    query.extend(to.into_iter().chain(asked.reason.map(|reason| ("reason", reason))));
    if asked.dry_run {
        query.push(("validate_only", "true".to_owned()));
    }
    let answer = client.run(path, &query).await?.body;
    let (out, style) = (&mut std::io::stdout().lock(), Style::stdout());
    if asked.output.output.is_for_people() {
        show::renewed(out, &answer, style)?;
    } else {
        format::document(out, asked.output.output, &answer)?;
    }
    Ok(Exit::Ok)
}

pub(super) async fn import_usage(
    import: ImportUsage,
    connection: &Connection,
) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let cluster = match &import.cluster {
        Some(name) => Some(resolve(&client, "cluster", "clusters", name, None).await?),
        None => None,
    };
    for path in &import.files {
        let cannot = |error| Failure::usage(format!("{}: {error}", path.display()));
        let file = tokio::fs::File::open(path).await.map_err(cannot)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let mut query: Vec<_> = cluster.iter().map(|id| ("cluster", id.clone())).collect();
        query.extend(cluster.iter().map(|_| ("source", name.clone())));
        query.extend(import.label.clone().map(|label| ("label", label)));
        query.extend(import.step_s.map(|step| ("step_s", step.to_string())));
        query.extend(import.reason.clone().map(|reason| ("reason", reason)));
        if import.dry_run {
            query.push(("validate_only", "true".to_owned()));
        }
        let answer = client.upload("/v1/usage-imports", &query, file, |_| {}).await?.body;
        let (out, style) = (&mut std::io::stdout().lock(), Style::stdout());
        if import.output.output.is_for_people() && import.servers {
            show::measured(out, &name, &answer, style)?;
        } else if import.output.output.is_for_people() {
            show::renewed(out, &answer, style)?;
        } else {
            format::document(out, import.output.output, &answer)?;
        }
    }
    Ok(Exit::Ok)
}

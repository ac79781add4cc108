//! Runs that make bill lines.

use adapters_console::{costs as show, exit::Exit, format, style::Style};

use super::{Failure, grammar::Amortise};
use crate::connection::Connection;

pub(super) async fn amortise(amortise: Amortise, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let mut query = vec![("from_month", amortise.month)];
    let to = amortise.to_month.map(|month| ("to_month", month));
    query.extend(to.into_iter().chain(amortise.reason.map(|reason| ("reason", reason))));
    if amortise.dry_run {
        query.push(("validate_only", "true".to_owned()));
    }
    let answer = client.run("/v1/amortisations", &query).await?.body;
    let (out, style) = (&mut std::io::stdout().lock(), Style::stdout());
    if amortise.output.output.is_for_people() {
        show::renewed(out, &answer, style)?;
    } else {
        format::document(out, amortise.output.output, &answer)?;
    }
    Ok(Exit::Ok)
}

//! Every resource of a kind, as it was.

use domain::{kernel::Decider, log::Position};
use uuid::Uuid;

use crate::{
    ledger::Ledger,
    ports::{LogFault, Query, Row, ViewFault},
};

/// A row's id and state.
pub(crate) fn state<T: Decider>(row: &Row) -> Result<(Uuid, T), ViewFault> {
    let id = row.body["id"].as_str().and_then(|id| id.parse().ok());
    let state = serde_json::from_value(row.body["state"].clone());
    match (id, state) {
        (Some(id), Ok(state)) => Ok((id, state)),
        (_, read) => {
            let why = read.err().map(|error| format!(": {error}")).unwrap_or_default();
            let what = format!("the row of {} {} does not read{why}", T::KIND, row.key);
            Err(ViewFault::Store(LogFault::Unexpected(what)))
        }
    }
}

impl Ledger {
    /// Every row of the inventory that a query asks for, whatever its limit, and the position all of
    /// them are of.
    ///
    /// # Errors
    /// When the inventory cannot be read.
    pub async fn rows(&self, mut query: Query) -> Result<(Vec<Row>, Position), ViewFault> {
        query.limit = Query::LIMIT_MAX;
        let mut rows = Vec::new();
        loop {
            let page = self.ports.views.list("inventory", &query).await?;
            rows.extend(page.rows);
            match page.next {
                Some(next) => query.token = Some(next),
                None => return Ok((rows, page.position)),
            }
        }
    }

    /// Every resource of a kind, those that are gone among them, in the order of ids, as they were at
    /// a position.
    pub async fn states<T: Decider>(
        &self,
        at: Option<Position>,
    ) -> Result<(Vec<(Uuid, T)>, Position), ViewFault> {
        let mut query = Query::all().with("kind", T::KIND);
        query.at = at;
        let (rows, position) = self.rows(query).await?;
        let mut states = rows.iter().map(state).collect::<Result<Vec<_>, _>>()?;
        states.sort_by_key(|(id, _)| *id);
        Ok((states, position))
    }
}

//! Which moment a reader asks for, and waiting until views have seen it.

use std::time::Duration;

use domain::log::Position;

use crate::{
    call::Call,
    params::{number, time},
    problem::Problem,
    routes::{AT, MIN_POSITION},
};

/// How long a reader waits for views to catch up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

impl Call {
    /// The position that `at` names, with views that have seen it; none is now.
    pub(crate) async fn at(&self) -> Result<Option<Position>, Problem> {
        self.seen_min_position().await?;
        let Some(text) = self.params.text(&AT) else { return Ok(None) };
        let at = self.position(AT.name, text).await?;
        self.seen(at).await?;
        Ok(Some(at))
    }

    /// The position of a time or position that a parameter gives. Nothing is known of the future.
    pub(crate) async fn position(&self, name: &str, text: &str) -> Result<Position, Problem> {
        let log = &self.service.ledger.ports.log;
        if let Some(position) = number(text) {
            self.logged(name, position).await?;
            return Ok(position);
        }
        let Some(time) = time(text) else {
            return Err(Problem::parameter(name, "is a time as in RFC 3339, or a position"));
        };
        if time > self.service.ledger.now() {
            return Err(Problem::parameter(name, "lies in the future"));
        }
        Ok(log.position_at(time).await?)
    }

    /// A position must be one that the log has.
    pub(crate) async fn logged(&self, name: &str, position: Position) -> Result<(), Problem> {
        let head = self.service.ledger.ports.log.head().await?.position;
        if position > head {
            let what = format!("position {position} is not in the log, which ends at {head}");
            return Err(Problem::parameter(name, what));
        }
        Ok(())
    }

    /// Waits for views to see what the caller has written.
    pub(crate) async fn seen_min_position(&self) -> Result<(), Problem> {
        let Some(wanted) = self.params.number(&MIN_POSITION) else { return Ok(()) };
        self.logged(MIN_POSITION.name, wanted).await?;
        self.seen(wanted).await
    }

    pub(crate) async fn seen(&self, position: Position) -> Result<(), Problem> {
        Ok(self.service.ledger.ports.views.reach_position(position, PATIENCE).await?)
    }
}

//! Machines that somebody else runs, and that can be moved to hosts of ours.

use async_trait::async_trait;
use domain::compute::move_in::machine::SourceMachine;

use super::{Access, DriverFault};

/// Those of one account. Moving one is orders of a move-in, which its provider carries out as all others.
#[async_trait]
pub trait Machines: Send + Sync {
    /// All of them.
    async fn list(&self, access: &Access) -> Result<Vec<SourceMachine>, DriverFault>;
    /// One of them; none only when the provider says that it is not there.
    async fn machine(
        &self,
        access: &Access,
        id: &str,
    ) -> Result<Option<SourceMachine>, DriverFault>;
}

//! Stand-ins for tests: a world in memory, and the contracts every store keeps.
//!
//! - [`MemoryLog`], [`MemoryLeases`]: the ports in memory, as simple as can be, so that a store
//!   that differs from them is wrong.
//! - [`TestClock`], [`SequentialIds`], [`TestVault`]: time, ids and secrets that are the same in
//!   every run.
//! - [`NoBackups`], [`NoBills`]: for a world without backups, or without costs.
//! - [`CountingPace`]: whether a provider asks before every call.
//! - [`contract`]: one suite for [`crate::ports::EventLog`] and one for [`crate::ports::Leases`],
//!   run by memory, SQLite and PostgreSQL alike.
//!
//! Nothing here is for a server: it is a module and not a crate so that the crates of the stores
//! reach it without a circle.

mod backups;
mod bills;
mod clock;
pub mod contract;
mod leases;
mod log;
mod pace;
mod vault;

pub use backups::NoBackups;
pub use bills::NoBills;
pub use clock::{SequentialIds, TestClock};
pub use leases::MemoryLeases;
pub use log::MemoryLog;
pub use pace::CountingPace;
pub use vault::TestVault;

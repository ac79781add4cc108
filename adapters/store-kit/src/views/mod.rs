//! The engine of views: what both stores share.
//!
//! - [`Engine`]: answers queries and keeps the views up to date; implements
//!   [`commands::ports::Views`].
//! - [`ViewStore`]: what a store does for it.
//! - [`Table`]: how a view lies in a table, and its indexes.

mod build;
mod digest;
mod engine;
mod feed;
mod fold;
mod list;
mod plan;
mod project;
mod queries;
mod shards;
mod sql;
mod store;
#[cfg(feature = "suite")]
pub mod suite;
mod table;
mod verify;

pub use engine::{Engine, Running, ViewStatus};
pub use fold::Version;
pub use sql::{Dialect, Sql, SqlValue};
pub use store::{Batch, Checkpoint, Registered, Snapshot, ViewStore};
pub use table::{Index, LIVE, Table, TableColumn, Tier};

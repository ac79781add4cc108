//! Read models. A view is a pure fold of records into rows; storing rows, their validity and the
//! checkpoint is the store's business, and nothing here knows SQL, time or asynchrony.
//!
//! - [`view`]: what a view is.
//! - [`views`]: LIST 2, every view and lens.
#![warn(missing_docs)]

mod inventory;
mod lenses;
mod sync_runs;
pub mod view;
pub mod views;

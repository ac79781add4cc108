//! A command to the log, an order to a driver.
//!
//! - [`ports`]: every trait the outside implements.
//! - [`submit`]: the one handler of every command of every kind.
//! - [`run_orders`]: the one runner: states with an order → driver → command.
//! - [`observe`]: the one observer: sightings → commands.
//! - [`gather`]: what must be known before a command can be decided.
//! - [`allocate`]: whose costs are, by rules.
//! - [`bills`]: bills in, costs out.
//! - [`testing`]: a log in memory and other stand-ins, for tests.
//! - [`transfer`]: a whole log out and in again with its proof, and proofs for auditors.
#![warn(missing_docs)]

pub mod allocate;
pub mod bills;
pub mod gather;
pub mod ledger;
pub mod observe;
pub mod pace;
pub mod plan;
pub mod ports;
pub mod run_orders;
pub mod submit;
pub mod testing;
pub mod transfer;

//! A cloud in memory, seen from its caller's side, with delays and faults on demand: the provider
//! `sim` of tests, benchmarks and the demo.
//!
//! The map: [`SimCloud`] is the cloud and implements [`commands::ports::Provider`]; [`Population`]
//! says what an account holds before anybody touches it; [`Console`] is somebody who works in it
//! behind Skyledger's back; [`Faults`] breaks its calls and [`SimCloud::trace`] says what really
//! happened; [`Packet`] and [`allows`] say what a security group does. Inside, every call of the
//! drivers (`security_group`, `server`) is a function of `api`, each passes one gate (`cloud`), and
//! works on plain data (`world`), which may lie on a file (`file`).
//!
//! Beside the cloud, [`SimHosts`] are hosts of our own in memory, for [`commands::ports::Hosts`].
//!
//! A credential is `{"account": "…", "secret": "…"}`, with the account's id as it was given to
//! [`SimCloud::populate`].
#![warn(missing_docs)]

mod api;
mod cloud;
mod console;
mod fault;
mod file;
mod host;
mod host_console;
mod limits;
mod packet;
mod population;
mod provider;
mod security_group;
mod server;
mod world;

pub use cloud::{Rate, SimCloud};
pub use console::Console;
pub use fault::{Fault, Faults, Injected, Matching, Op, Outcome, Seen, Traced};
pub use host::{HostFault, HostStep, SimBackup, SimHosts, SimLocal, SimNic, SimServer, WRONG_KEY};
pub use packet::{Packet, allows};
pub use population::Population;
pub use provider::TABLE;
pub use world::Body;

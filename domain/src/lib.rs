//! Decisions and facts. Everything here is a pure function of its arguments: no clock, no
//! randomness, no I/O, no asynchrony, no float money. What a rule needs to know is looked up before
//! and comes in with the command.
//!
//! The map:
//!
//! - [`kernel`]: what every kind shares: deciders, ids, refusals, orders, roles.
//! - [`log`]: the record, its hash, the Merkle tree over records and what an auditor can prove.
//! - [`kinds`]: LIST 1, everything that exists.
//! - [`mapping`]: the life of configuration with exactly one counterpart in one cloud.
//! - [`observation`]: the life of what is only seen in a cloud.
//! - [`cloud`]: regions, zones, VPCs.
//! - [`compute`]: servers and disks; where servers go.
//! - [`finops`]: the arithmetic of costs.
//! - [`network`]: networks, their addresses and security groups.
//! - [`tenancy`]: projects, cloud accounts, tokens.
#![warn(missing_docs)]

pub mod cloud;
pub mod compute;
pub mod finops;
pub mod kernel;
pub mod kinds;
pub mod log;
pub mod mapping;
pub mod network;
pub mod observation;
pub mod tenancy;

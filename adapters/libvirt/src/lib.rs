//! The libvirt daemon of a host, spoken to over its own socket: no C library is needed to build or
//! to start, errors come as codes, and events are pushed.
//!
//! The map: [`Connection`] is one socket on which any number of calls wait at once, each with a
//! deadline; `xdr` and `message` are the wire (RFC 4506, and libvirt's frames around it); `domain`
//! and `host` have a method for each procedure that is used, `backup` those of backups and
//! `inventory` those of domains that somebody else defined; [`description`] is what a domain is
//! defined by, to and from XML. libvirt calls its protocol its own
//! affair, and has never given a procedure another number: what is said here is checked against a
//! real daemon, with `virsh` as the second opinion.
//!
//! Nothing here decides: what is to be done, and whether it was done already, is for the callers.
#![warn(missing_docs)]

mod backup;
mod connection;
pub mod description;
mod domain;
mod fault;
mod host;
mod inventory;
mod message;
mod migrate;
mod xdr;

pub use backup::{Offered, Pull};
pub use connection::{Connection, Events, Options};
pub use domain::{
    Affects, Domain, Leave, Lifecycle, Limit, Limits, Ran, Reason, Shutdown, State, Value,
};
pub use fault::{Code, Fault};
pub use host::{Node, Version};
pub use migrate::Destination;

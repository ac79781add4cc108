//! What a KVM host is asked to do, done with the host's own tools.
//!
//! The map: [`driver`] carries out the orders of servers, on libvirt and with the rest; [`tool`] runs
//! one of the host's tools with a deadline; [`observe`] reads what the host is; [`storage`] is where
//! disks lie, and [`network`] what servers are connected to; [`check`] looks whether a machine has all of
//! that. Every change is read back: that a tool
//! ended well is no proof that it did anything. Nothing here decides: what is to be is decided in the
//! log.
#![warn(missing_docs)]

pub mod check;
pub mod driver;
pub mod network;
pub mod observe;
pub mod storage;
pub mod tool;

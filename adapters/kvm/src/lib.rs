//! What a KVM host is asked to do, done with the host's own tools.
//!
//! The map: [`tool`] runs one of them with a deadline; [`observe`] reads what the host is;
//! [`storage`] is where disks lie, and [`network`] what servers are connected to. Every change is read back: that a tool ended well is no proof that
//! it did anything. Nothing here decides: what is to be is decided in the log.
#![warn(missing_docs)]

pub mod network;
pub mod observe;
pub mod storage;
pub mod tool;

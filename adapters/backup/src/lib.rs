//! Backups of disks in an object store that speaks S3.
//!
//! ```text
//!   source ──► chunks ──► what is there already? ── no ──► compressed, sealed, sent
//!                │                                              │
//!                └──────────────────► manifest, last ◄──────────┘
//! ```
//!
//! The map: [`Store`] has the verbs, a file each (`take`, `restore`, `collect`); [`source`] is what a
//! disk is read from, [`nbd`] how a disk is read and written that QEMU has, [`target`] what is
//! written back; [`manifest`] is what a backup is, [`chunk`] what its pieces are; [`objects`] is the
//! store, [`objects::s3`] over the network; [`port`] is what the rest of Skyledger knows of it. Files of images lie
//! beside the backups: `images`; and what sets of backups consist of: `sets`.
//!
//! A backup is a *manifest* and *chunks*. A chunk is named by its content, so what is there already is
//! not sent again, whichever disk it came from, and is verified when it comes back. Chunks of zeroes
//! are nowhere. The manifest is written when all its chunks are there: a backup is there whole or not
//! at all. It lists all its chunks, also when it was made on another: no backup needs another one to
//! be restored.
#![warn(missing_docs)]

pub mod chunk;
mod collect;
mod fault;
mod images;
pub mod manifest;
pub mod nbd;
pub mod objects;
pub mod port;
mod qcow2;
mod restore;
mod sets;
pub mod source;
mod store;
mod take;
pub mod target;

pub use collect::Collected;
pub use fault::Fault;
pub use store::Store;
pub use take::{Asked, random_id};

//! Public clouds: thin clients and what they have of each kind.
//!
//! A provider is one folder with a `TABLE` and one entry of [`PROVIDERS`]. [`http_client`] is what
//! they share; [`testing`] is a proxy that breaks calls on demand, for the tests of this crate and
//! of others.
#![warn(missing_docs)]

pub mod aws;
pub mod cloudpods;
pub mod http_client;
pub mod testing;
mod tls;
pub mod vmware;

use std::sync::Arc;

use commands::ports::{Provider, Support};

/// One entry of [`PROVIDERS`].
#[derive(Clone, Copy)]
pub struct Entry {
    /// As in accounts.
    pub name: &'static str,
    /// What it has, sorted by kind.
    pub table: &'static [Support],
    /// Makes it, without talking to anybody.
    pub make: fn() -> Arc<dyn Provider>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Entry").field(&self.name).finish()
    }
}

/// LIST 3: every provider that is a public cloud, sorted by name.
pub static PROVIDERS: &[Entry] = &[
    Entry { name: "aws", table: aws::TABLE, make: || Arc::new(aws::Aws::new()) },
    // Entry { name: "azure", table: azure::TABLE, make: || Arc::new(azure::Azure::new()) },
    Entry {
        name: "cloudpods",
        table: cloudpods::TABLE,
        make: || Arc::new(cloudpods::Cloudpods::new()),
    },
    Entry { name: "vmware", table: vmware::TABLE, make: || Arc::new(vmware::Vmware::new()) },
];

/// All of them, ready to be called.
pub fn providers() -> Vec<Arc<dyn Provider>> {
    PROVIDERS.iter().map(|entry| (entry.make)()).collect()
}

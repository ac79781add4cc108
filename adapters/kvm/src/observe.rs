//! What a host is: read from the kernel's own files, never changed.
//!
//! Reading and thinking are apart: [`topology::read`] and [`devices::read`] give what the kernel
//! says, and what follows from that for placement is a function of it. Everything is read from a
//! [`Tree`], so that a test's host is a folder.

pub mod devices;
pub mod mediated;
mod representor;
pub mod topology;
pub mod tree;
pub mod vgpu;

use std::{collections::BTreeMap, io};

use domain::compute::placement::{Architecture, Cell, Device};
pub use tree::Tree;

/// What a host is, as far as placement asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its instruction set.
    pub architecture: Architecture,
    /// Its cells, sorted by id. What is reserved of them is not the kernel's to say: 0.
    pub cells: Vec<Cell>,
    /// Huge pages that somebody has, our servers among them, by cell and size in KiB.
    pub taken: BTreeMap<(u32, u32), u64>,
    /// What it can pass through, sorted by id.
    pub devices: Vec<Device>,
}

/// Looks at a host.
///
/// # Errors
/// When a file that is there cannot be read, or says what the kernel never says.
pub fn look(tree: &Tree, kept: &devices::Kept) -> Result<Observed, ObserveFault> {
    let topology = topology::read(tree)?;
    let architecture = topology.architecture()?;
    let cells = topology.cells();
    let devices = devices::read(tree)?.placeable(&cells, kept);
    Ok(Observed { architecture, cells, taken: topology.taken(), devices })
}

/// The kernel's files do not say what a host is.
#[derive(Debug, thiserror::Error)]
pub enum ObserveFault {
    /// A file that is there cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file says something else than the kernel does.
    #[error("{path} says `{text}`, which does not read")]
    Nonsense {
        /// Which.
        path: String,
        /// What it says.
        text: String,
    },
}

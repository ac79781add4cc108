//! What a host is, as its daemon tells it.

use std::fmt;

use crate::{
    connection::Connection,
    fault::Fault,
    message::Program,
    xdr::{Reader, Writer},
};

const GET_VERSION: i32 = 4;
const NODE_GET_INFO: i32 = 6;
const GET_CAPABILITIES: i32 = 7;
const GET_HOSTNAME: i32 = 59;
const GET_LIB_VERSION: i32 = 157;
const GET_DOMAIN_CAPABILITIES: i32 = 342;

/// A version, such as 11.3.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.0 / 1_000_000, self.0 / 1_000 % 1_000, self.0 % 1_000)
    }
}

/// A host's processors and memory, all cells together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The processor's architecture, such as `x86_64`.
    pub model: String,
    /// Memory, in KiB.
    pub memory_kib: u64,
    /// Logical processors that are on.
    pub cpus: u32,
    /// NUMA cells; 1 where there is none.
    pub cells: u32,
    /// Sockets of a cell.
    pub sockets: u32,
    /// Cores of a socket.
    pub cores: u32,
    /// Threads of a core.
    pub threads: u32,
}

impl Connection {
    async fn ask(&self, procedure: i32) -> Result<Vec<u8>, Fault> {
        self.call(Program::REMOTE, procedure, Writer::default()).await
    }

    /// The host's name.
    pub async fn hostname(&self) -> Result<String, Fault> {
        Reader::new(&self.ask(GET_HOSTNAME).await?).text()
    }

    /// The daemon's version.
    pub async fn version(&self) -> Result<Version, Fault> {
        Reader::new(&self.ask(GET_LIB_VERSION).await?).hyper().map(Version)
    }

    /// The version of what runs the guests, such as QEMU's.
    pub async fn hypervisor_version(&self) -> Result<Version, Fault> {
        Reader::new(&self.ask(GET_VERSION).await?).hyper().map(Version)
    }

    /// Cells, processors, caches, page sizes and what guests there may be: XML.
    pub async fn capabilities(&self) -> Result<String, Fault> {
        Reader::new(&self.ask(GET_CAPABILITIES).await?).text()
    }

    /// What a domain of this kind of virtualisation (`kvm`, `qemu`) may have: XML. That it can be
    /// told does not say that such a domain starts.
    pub async fn domain_capabilities(&self, virtualisation: &str) -> Result<String, Fault> {
        let none = |writer: Writer| writer.optional("nothing", None);
        let arguments = none(none(none(Writer::default())));
        let arguments = arguments.optional("the virtualisation", Some(virtualisation)).uint(0);
        let answer = self.call(Program::REMOTE, GET_DOMAIN_CAPABILITIES, arguments).await?;
        Reader::new(&answer).text()
    }

    /// Processors and memory.
    pub async fn node(&self) -> Result<Node, Fault> {
        let answer = self.ask(NODE_GET_INFO).await?;
        let mut reader = Reader::new(&answer);
        let model = reader.characters(32)?;
        let memory_kib = reader.hyper()?;
        let [mut cpus, mut cells, mut sockets, mut cores, mut threads] = [0; 5];
        let mut megahertz = 0;
        let slots = [&mut cpus, &mut megahertz, &mut cells, &mut sockets, &mut cores, &mut threads];
        for slot in slots {
            *slot = reader.uint()?;
        }
        Ok(Node { model, memory_kib, cpus, cells, sockets, cores, threads })
    }
}

//! Domains that somebody else defined: which there are, how large their disks are, and their definitions as
//! a whole, to be defined again.

use crate::{
    connection::Connection,
    domain::Domain,
    fault::Fault,
    message::Program,
    xdr::{Reader, Writer},
};

const GET_XML: i32 = 14;
const GET_BLOCK_INFO: i32 = 194;
const LIST: i32 = 273;
const DEFINE: i32 = 350;

impl Connection {
    /// Domains that are defined, whether they run or not: those that only run are left out.
    pub async fn defined(&self) -> Result<Vec<Domain>, Fault> {
        /// `VIR_CONNECT_LIST_DOMAINS_PERSISTENT`.
        const PERSISTENT: u32 = 4;
        let arguments = Writer::default().int(1).uint(PERSISTENT);
        let answer = self.call(Program::REMOTE, LIST, arguments).await?;
        Reader::new(&answer).list(Domain::read)
    }

    /// How much a domain sees of a disk, which is called by its target or its path, in bytes.
    pub async fn capacity(&self, domain: &Domain, disk: &str) -> Result<u64, Fault> {
        let arguments = Writer::default().domain(domain).text("the disk", disk).uint(0);
        let answer = self.call(Program::REMOTE, GET_BLOCK_INFO, arguments).await?;
        let mut reader = Reader::new(&answer);
        let _allocated = reader.hyper()?;
        reader.hyper()
    }

    /// The XML of what is started next, with passwords: such as can be defined again.
    pub async fn definition(&self, domain: &Domain) -> Result<String, Fault> {
        /// `VIR_DOMAIN_XML_SECURE` and `VIR_DOMAIN_XML_INACTIVE`.
        const WHOLE: u32 = 1 | 2;
        Reader::new(&self.flagged(GET_XML, domain, WHOLE).await?).text()
    }

    /// Changes what is started next, whatever libvirt's schema says of it: it is somebody else's.
    pub async fn redefine(&self, xml: &str) -> Result<Domain, Fault> {
        let arguments = Writer::default().text("the domain's XML", xml).uint(0);
        let answer = self.call(Program::REMOTE, DEFINE, arguments).await?;
        Domain::read(&mut Reader::new(&answer))
    }
}

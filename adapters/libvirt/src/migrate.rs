//! A domain that runs goes to another host: its daemon speaks to the other's, and one call is all of it.
//!
//! When the call comes back the domain runs there and is off here, or it is as it was. Who asked may go
//! away meanwhile: the daemons go on.

use std::time::Duration;

use crate::{
    connection::Connection,
    domain::Domain,
    fault::Fault,
    message::Program,
    xdr::{Reader, Writer},
};

const GET_XML: i32 = 14;
const GET_JOB_INFO: i32 = 163;
const PERFORM: i32 = 305;
/// `VIR_TYPED_PARAM_ULLONG`.
const ULONG: i32 = 4;
/// `VIR_TYPED_PARAM_STRING`.
const TEXT: i32 = 7;

/// Where a domain goes, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The daemon there, as the one here reaches it: `qemu+tls://kvm-2/system`.
    pub daemon: String,
    /// Where its memory is sent to, such as `tcp://10.0.0.5`; as the daemon there says when it is none.
    pub memory: Option<String>,
    /// Its XML there. What the guest sees of it is as here.
    pub xml: String,
    /// Fastest that it is sent, in MiB/s; as fast as it goes when it is none.
    pub mib_per_second: Option<u64>,
    /// Disks that are copied, by what the guest calls them: what is there of them is as large and empty.
    /// All others are the same there.
    pub copied: Vec<String>,
}

impl Connection {
    /// The XML of a domain that runs, as another host can take it.
    pub async fn migratable_xml(&self, domain: &Domain) -> Result<String, Fault> {
        /// `VIR_DOMAIN_XML_SECURE`, `VIR_DOMAIN_XML_MIGRATABLE`.
        const FLAGS: u32 = 1 | 8;
        Reader::new(&self.flagged(GET_XML, domain, FLAGS).await?).text()
    }

    /// Whether something goes on with a domain in the background, such as a migration.
    pub async fn has_job(&self, domain: &Domain) -> Result<bool, Fault> {
        let arguments = Writer::default().domain(domain);
        let answer = self.call(Program::REMOTE, GET_JOB_INFO, arguments).await?;
        // 0 is none; 3 to 5 are ways in which one has ended.
        Ok(matches!(Reader::new(&answer).int()?, 1 | 2))
    }

    /// How far what goes on with a domain in the background is: bytes that are through, and all of them as far as
    /// they are known by now. None when nothing goes on.
    pub async fn job(&self, domain: &Domain) -> Result<Option<(u64, u64)>, Fault> {
        let arguments = Writer::default().domain(domain);
        let answer = self.call(Program::REMOTE, GET_JOB_INFO, arguments).await?;
        let mut reader = Reader::new(&answer);
        let goes_on = matches!(reader.int()?, 1 | 2);
        // Since when, and for how long still.
        let (_, _) = (reader.hyper()?, reader.hyper()?);
        let (total, done) = (reader.hyper()?, reader.hyper()?);
        Ok(goes_on.then_some((done, total)))
    }

    /// Lets a domain that runs go to another host, whose disks are the same or are copied. It is defined there by
    /// nobody yet, and stays defined here.
    ///
    /// # Errors
    /// The daemon's own: as a rule the domain runs here as before. Its state tells.
    pub async fn migrate(
        &self,
        domain: &Domain,
        to: &Destination,
        patience: Duration,
    ) -> Result<(), Fault> {
        const LIVE: u32 = 1;
        const PEER_TO_PEER: u32 = 2;
        const NON_SHARED_DISK: u32 = 1 << 6;
        /// That the files are the same is known to who calls; the daemon knows of a few file systems alone.
        const UNSAFE: u32 = 1 << 9;
        const ABORT_ON_ERROR: u32 = 1 << 12;
        /// One that writes faster than can be sent is slowed down.
        const AUTO_CONVERGE: u32 = 1 << 13;
        let disks = to.copied.iter().map(|disk| ("migrate_disks", disk));
        let texts = std::iter::once(("destination_xml", &to.xml));
        let texts = texts.chain(to.memory.iter().map(|memory| ("migrate_uri", memory)));
        let texts: Vec<_> = texts.chain(disks).collect();
        let given = (texts.len() + usize::from(to.mib_per_second.is_some())) as u32;
        let arguments = Writer::default().domain(domain);
        let mut arguments = arguments.optional("the daemon", Some(&to.daemon)).uint(given);
        for (name, value) in texts {
            arguments = arguments.text("a parameter", name).int(TEXT).text("its value", value);
        }
        if let Some(rate) = to.mib_per_second {
            arguments = arguments.text("a parameter", "bandwidth").int(ULONG).hyper(rate);
        }
        let mut flags = LIVE | PEER_TO_PEER | UNSAFE | ABORT_ON_ERROR | AUTO_CONVERGE;
        if !to.copied.is_empty() {
            flags |= NON_SHARED_DISK;
        }
        let arguments = arguments.opaque("the cookie", &[]).uint(flags);
        self.call_within(patience, Program::REMOTE, PERFORM, arguments).await.map(drop)
    }
}

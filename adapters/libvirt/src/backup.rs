//! A running domain's disks as they were at a moment, and what has changed since: backups that are
//! pulled, and checkpoints.
//!
//! While a backup goes on, libvirt offers the disks by NBD on a socket, as they were when it began; what
//! the guest overwrites meanwhile is kept in a scratch file beside. A checkpoint that begins with it
//! marks the moment: a later backup that is made on it is offered a bitmap of what has changed since.

use std::{fmt::Write as _, time::Duration};

use crate::{
    connection::Connection,
    domain::Domain,
    fault::{Code, Fault},
    message::Program,
    xdr::{Reader, Writer},
};

const LIST_CHECKPOINTS: i32 = 413;
const DELETE_CHECKPOINT: i32 = 417;
const BEGIN: i32 = 421;
const GET_XML: i32 = 422;

/// How often it is looked whether a backup has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A disk that is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Which: its target, such as `vda`. It is the export's name as well.
    pub target: String,
    /// Where what the guest overwrites is kept; an absolute path, nothing has the name.
    pub scratch: String,
}

/// A backup to be: all disks that are not named are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// Where the disks are offered; an absolute path, nothing has the name.
    pub socket: String,
    /// The disks.
    pub disks: Vec<Offered>,
    /// The disks of the domain that are left out, by target.
    pub left_out: Vec<String>,
    /// The checkpoint since which changes are told; none tells of none.
    pub since: Option<String>,
    /// The checkpoint that begins with it; none begins.
    pub checkpoint: Option<String>,
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}

impl Pull {
    /// The name of the bitmap that a disk's changes are told in, as NBD has it.
    pub fn bitmap(target: &str) -> String {
        format!("backup-{target}")
    }

    /// What libvirt is told.
    pub fn xml(&self) -> String {
        let mut xml = String::from("<domainbackup mode='pull'>");
        if let Some(since) = &self.since {
            let _ = write!(xml, "<incremental>{}</incremental>", escaped(since));
        }
        let _ = write!(xml, "<server transport='unix' socket='{}'/><disks>", escaped(&self.socket));
        for Offered { target, scratch } in &self.disks {
            let (target, scratch) = (escaped(target), escaped(scratch));
            let _ =
                write!(xml, "<disk name='{target}' backup='yes' type='file' exportname='{target}'");
            if self.since.is_some() {
                let _ = write!(xml, " exportbitmap='{}'", Self::bitmap(&target));
            }
            let _ = write!(xml, "><scratch file='{scratch}'/></disk>");
        }
        for target in &self.left_out {
            let _ = write!(xml, "<disk name='{}' backup='no'/>", escaped(target));
        }
        xml.push_str("</disks></domainbackup>");
        xml
    }

    /// What libvirt is told of the checkpoint.
    pub fn checkpoint_xml(&self) -> Option<String> {
        let name = escaped(self.checkpoint.as_ref()?);
        let mut xml = format!("<domaincheckpoint><name>{name}</name><disks>");
        for disk in &self.disks {
            let _ = write!(xml, "<disk name='{}' checkpoint='bitmap'/>", escaped(&disk.target));
        }
        for target in &self.left_out {
            let _ = write!(xml, "<disk name='{}' checkpoint='no'/>", escaped(target));
        }
        xml.push_str("</disks></domaincheckpoint>");
        Some(xml)
    }
}

impl Connection {
    /// Begins a backup: its disks are offered until [`Connection::end_backup`] or the domain's end.
    /// While one goes on, another waits and comes to nothing.
    pub async fn begin_backup(&self, domain: &Domain, pull: &Pull) -> Result<(), Fault> {
        let arguments = Writer::default().domain(domain);
        let arguments = arguments.text("the backup's XML", &pull.xml());
        let checkpoint = pull.checkpoint_xml();
        let arguments = arguments.optional("the checkpoint's XML", checkpoint.as_deref()).uint(0);
        self.call(Program::REMOTE, BEGIN, arguments).await.map(drop)
    }

    /// The XML of the backup that goes on; none when none does.
    pub async fn backup(&self, domain: &Domain) -> Result<Option<String>, Fault> {
        match self.flagged(GET_XML, domain, 0).await {
            Ok(answer) => Reader::new(&answer).text().map(Some),
            Err(fault) if fault.is(Code::NO_BACKUP) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Ends a backup, and waits until its disks are offered no more: libvirt has ended it a moment after
    /// it has answered. That none goes on is the same end.
    pub async fn end_backup(&self, domain: &Domain, patience: Duration) -> Result<(), Fault> {
        let ending = async {
            let mut is_told = false;
            while self.backup(domain).await?.is_some() {
                if !is_told {
                    match self.abort_job(domain).await {
                        Ok(()) => is_told = true,
                        // It ended between the two.
                        Err(fault) if fault.is(Code::OPERATION_INVALID) => {}
                        Err(fault) => return Err(fault),
                    }
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Ok(())
        };
        tokio::time::timeout(patience, ending).await.map_err(|_| Fault::Late(patience))?
    }

    /// The names of a domain's checkpoints, each before those that were made on it.
    pub async fn checkpoints(&self, domain: &Domain) -> Result<Vec<String>, Fault> {
        /// `VIR_DOMAIN_CHECKPOINT_LIST_TOPOLOGICAL`.
        const PARENTS_FIRST: u32 = 2;
        let arguments = Writer::default().domain(domain).int(1).uint(PARENTS_FIRST);
        let answer = self.call(Program::REMOTE, LIST_CHECKPOINTS, arguments).await?;
        Reader::new(&answer).list(|reader| {
            let name = reader.text()?;
            Domain::read(reader)?;
            Ok(name)
        })
    }

    /// Removes a checkpoint of a domain that runs. What has changed since it counts as changed since the
    /// one before.
    pub async fn delete_checkpoint(&self, domain: &Domain, name: &str) -> Result<(), Fault> {
        self.drop_checkpoint(domain, name, 0).await
    }

    /// Lets libvirt forget a checkpoint, and leaves the disks as they are.
    pub async fn forget_checkpoint(&self, domain: &Domain, name: &str) -> Result<(), Fault> {
        /// `VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY`.
        const METADATA_ONLY: u32 = 2;
        self.drop_checkpoint(domain, name, METADATA_ONLY).await
    }

    async fn drop_checkpoint(&self, domain: &Domain, name: &str, flags: u32) -> Result<(), Fault> {
        let arguments = Writer::default().text("the checkpoint's name", name);
        let arguments = arguments.domain(domain).uint(flags);
        self.call(Program::REMOTE, DELETE_CHECKPOINT, arguments).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_says_which_disks_it_is_of_and_since_when() {
        let mut pull = Pull {
            socket: "/run/a'b".into(),
            disks: vec![Offered { target: "vda".into(), scratch: "/s/vda".into() }],
            left_out: vec!["vdb".into()],
            since: None,
            checkpoint: None,
        };
        assert_eq!(
            pull.xml(),
            "<domainbackup mode='pull'><server transport='unix' socket='/run/a&apos;b'/><disks>\
             <disk name='vda' backup='yes' type='file' exportname='vda'><scratch file='/s/vda'/>\
             </disk><disk name='vdb' backup='no'/></disks></domainbackup>"
        );
        assert_eq!(pull.checkpoint_xml(), None);
        (pull.since, pull.checkpoint) = (Some("one".into()), Some("two".into()));
        assert!(pull.xml().contains("<incremental>one</incremental>"));
        assert!(pull.xml().contains("exportbitmap='backup-vda'"));
        assert_eq!(
            pull.checkpoint_xml().unwrap(),
            "<domaincheckpoint><name>two</name><disks><disk name='vda' checkpoint='bitmap'/>\
             <disk name='vdb' checkpoint='no'/></disks></domaincheckpoint>"
        );
    }
}

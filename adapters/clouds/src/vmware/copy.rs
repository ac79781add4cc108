//! A machine's data on its way to a host of ours: read in stretches from files of a datastore, and written there.
//!
//! What is read is a disk's own file while the machine writes another one, its snapshot's: so it stands still. Of what
//! was read too long ago nothing is written ([`Fresh`]).

use std::net::SocketAddr;

use commands::{ports::DriverFault, progress};
use domain::compute::move_in::{Landing, LandingDisk};
use futures::{StreamExt, stream};

use super::{
    inventory::{Disk, Stores, data},
    nbd,
    session::{Fresh, Session},
};

/// How much is read at once. An answer has to be there before it is too old to be written.
const STRETCH: u64 = 4 << 20;
/// How many stretches are on their way at once.
const AHEAD: usize = 4;

/// A stretch of a disk: where it begins, and how long it is.
pub(super) type Area = (u64, u64);

/// The disks on the host that are written.
pub(super) struct Landed {
    disks: Vec<(u32, nbd::Disk)>,
}

fn lost(error: std::io::Error) -> DriverFault {
    DriverFault::Transient(format!("the host that it goes to does not take it: {error}"))
}

impl Landed {
    /// Connects to all of them.
    pub(super) async fn open(landing: &Landing) -> Result<Self, DriverFault> {
        let at = SocketAddr::new(landing.address, landing.port);
        let mut disks = Vec::new();
        for LandingDisk { index, name } in &landing.disks {
            let disk = nbd::Disk::connect(at, name).await.map_err(|error| {
                DriverFault::Transient(format!(
                    "the host that it goes to cannot be reached from here at {at}: {error}"
                ))
            })?;
            disks.push((*index, disk));
        }
        Ok(Self { disks })
    }

    /// Writes these areas of a disk; how many bytes it were.
    pub(super) async fn fill(
        &mut self,
        session: &Session<'_>,
        disk: &Disk,
        stores: &Stores,
        areas: Vec<Area>,
    ) -> Result<u64, DriverFault> {
        let found = self.disks.iter_mut().find(|(key, _)| *key == disk.key);
        let (_, to) = found.ok_or_else(|| {
            DriverFault::Rejected(format!("disk {} is not one that is moved", disk.key))
        })?;
        if to.export.bytes < disk.bytes {
            let why = format!("disk {} has grown since the move was begun: go back", disk.key);
            return Err(DriverFault::Rejected(why));
        }
        let path = data(disk, stores)?;
        let path = path.as_str();
        let pieces = areas.into_iter().flat_map(|(at, length)| {
            let steps = 0..length.div_ceil(STRETCH);
            steps.map(move |step| {
                let begin = step * STRETCH;
                (at + begin, STRETCH.min(length - begin))
            })
        });
        let read = |(at, length): Area| async move {
            let since = Fresh::now();
            let bytes = session.stretch(path, at, length as usize).await?;
            Ok::<_, DriverFault>((at, bytes, since))
        };
        let read = stream::iter(pieces).map(read).buffered(AHEAD);
        futures::pin_mut!(read);
        let mut written = 0;
        while let Some(piece) = read.next().await {
            let (at, bytes, since) = piece?;
            since.check()?;
            to.write(at, &bytes).await.map_err(lost)?;
            progress::add(bytes.len() as u64);
            written += bytes.len() as u64;
        }
        Ok(written)
    }

    /// All of it is on its disks, also when the host goes down.
    pub(super) async fn flush(&mut self) -> Result<(), DriverFault> {
        for (_, disk) in &mut self.disks {
            disk.flush().await.map_err(lost)?;
        }
        Ok(())
    }

    /// Is done with them.
    pub(super) async fn close(self) {
        for (_, disk) in self.disks {
            // The other end sees the connection end as well.
            let _ = disk.close().await;
        }
    }
}

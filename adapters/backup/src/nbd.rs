//! A disk that QEMU has, over the NBD protocol on a socket of this machine: `qemu-nbd` offers one that
//! no server uses, and libvirt one of a running server as it was at a moment.
//!
//! A server can tell two things without a read: where nothing but zeroes is, and what has changed
//! (`base:allocation` and a dirty bitmap).

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use adapters_nbd::{PATIENCE, Wire, in_time, odd};
use async_trait::async_trait;
use tokio::{net::UnixStream, sync::Mutex};

use crate::{
    fault::Fault,
    source::{Piece, Source},
    target::Target,
};

/// How much of a disk is asked about at once.
const STATUS_BYTES: u64 = 1 << 30;

const ALLOCATION: &str = "base:allocation";
const IS_ZERO: u32 = 2;
const IS_DIRTY: u32 = 1;

/// Where a disk is offered.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// The socket.
    pub socket: &'a Path,
    /// The name of the export; may be empty.
    pub export: &'a str,
    /// The bitmap that tells what has changed since the parent, as QEMU calls it; none when nothing
    /// does.
    pub bitmap: Option<&'a str>,
}

/// A stretch of a disk that is one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    /// Where it ends, in bytes from the disk's beginning.
    end: u64,
    is: bool,
}

/// Stretches of a whole disk, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Map(Vec<Extent>);

impl Map {
    fn add(&mut self, length: u64, is: bool, size: u64) {
        let end = self.end().saturating_add(length).min(size);
        match self.0.last_mut() {
            Some(last) if last.is == is => last.end = end,
            _ => self.0.push(Extent { end, is }),
        }
    }

    fn end(&self) -> u64 {
        self.0.last().map_or(0, |last| last.end)
    }

    /// Whether all of this stretch is so.
    fn all(&self, at: u64, length: usize) -> bool {
        let end = at + length as u64;
        let first = self.0.partition_point(|extent| extent.end <= at);
        let here = self.0.get(first);
        here.is_some_and(|extent| extent.is && extent.end >= end)
    }
}

/// A connection to a disk. The server sees it end when it is dropped.
#[derive(Debug)]
pub struct Disk {
    wire: Mutex<Wire<UnixStream>>,
    size_bytes: u64,
    zero: Map,
    /// What has not changed since the parent; none when nobody knows.
    same: Option<Map>,
}

impl Disk {
    /// Connects, and asks where the disk is empty and what has changed.
    ///
    /// # Errors
    /// Nothing is offered there, or not with this bitmap.
    pub async fn connect(offer: Offer<'_>) -> Result<Self, Fault> {
        let what = || format!("cannot use the disk offered at {}", offer.socket.display());
        in_time(PATIENCE, Self::begin(offer)).await.map_err(Fault::disk(what()))
    }

    async fn begin(offer: Offer<'_>) -> io::Result<Self> {
        let mut wire = Wire::begin(UnixStream::connect(offer.socket).await?).await?;
        wire.structured().await?;
        let bitmap = offer.bitmap.map(|bitmap| format!("qemu:dirty-bitmap:{bitmap}"));
        let asked: Vec<&str> = std::iter::once(ALLOCATION).chain(bitmap.as_deref()).collect();
        let ids = wire.contexts(offer.export, &asked).await?;
        let (allocation_id, bitmap_id) = (ids[0], ids.get(1).copied().flatten());
        if let Some(bitmap) = bitmap.filter(|_| bitmap_id.is_none()) {
            return Err(io::Error::new(ErrorKind::NotFound, format!("there is no {bitmap}")));
        }
        let size_bytes = wire.go(offer.export).await?.bytes;
        let mut disk = Self {
            wire: Mutex::new(wire),
            size_bytes,
            zero: Map::default(),
            same: bitmap_id.map(|_| Map::default()),
        };
        if let Some(allocation_id) = allocation_id {
            disk.look(allocation_id, bitmap_id).await?;
        } else if bitmap_id.is_some() {
            return Err(odd("it does not say where it is empty"));
        }
        Ok(disk)
    }

    async fn look(&mut self, allocation_id: u32, bitmap_id: Option<u32>) -> io::Result<()> {
        let wire = self.wire.get_mut();
        let size = self.size_bytes;
        let mut at = 0;
        while at < size {
            let length = (size - at).min(STATUS_BYTES) as u32;
            let told = wire.status(at, length).await?;
            // As far as all of them tell.
            let wanted = std::iter::once(allocation_id).chain(bitmap_id);
            let mut far = u64::from(length);
            for id in wanted {
                let of = told.iter().filter(|(one, _)| *one == id).flat_map(|(_, pairs)| pairs);
                far = far.min(of.map(|(length, _)| u64::from(*length)).sum());
            }
            if far == 0 {
                return Err(odd("it does not say how a part of it is"));
            }
            for (id, pairs) in &told {
                let mut left = far;
                for (length, flags) in pairs {
                    let length = u64::from(*length).min(left);
                    left -= length;
                    if length == 0 {
                    } else if *id == allocation_id {
                        self.zero.add(length, flags & IS_ZERO != 0, size);
                    } else if let Some(same) = self.same.as_mut().filter(|_| bitmap_id == Some(*id))
                    {
                        same.add(length, flags & IS_DIRTY == 0, size);
                    }
                }
            }
            at += far;
        }
        Ok(())
    }

    /// How much of it would be read, in bytes: what is neither empty nor known to be the same.
    pub fn to_read_bytes(&self, chunk_bytes: u32) -> u64 {
        let step = u64::from(chunk_bytes);
        let needed = (0..self.size_bytes.div_ceil(step)).filter_map(|at| {
            let begin = at * step;
            let length = step.min(self.size_bytes - begin);
            let skip = self.zero.all(begin, length as usize)
                || self.same.as_ref().is_some_and(|same| same.all(begin, length as usize));
            (!skip).then_some(length)
        });
        needed.sum()
    }

    async fn with<T>(
        &self,
        what: &str,
        work: impl AsyncFnOnce(&mut Wire<UnixStream>) -> io::Result<T>,
    ) -> Result<T, Fault> {
        let done = work(&mut *self.wire.lock().await).await;
        done.map_err(Fault::disk(format!("cannot {what} a disk that QEMU has")))
    }

    /// Says goodbye; without it the server sees the socket end.
    ///
    /// # Errors
    /// It cannot be said.
    pub async fn close(self) -> Result<(), Fault> {
        self.with("leave", async |wire| wire.leave().await).await
    }
}

#[async_trait]
impl Source for Disk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    async fn piece(&self, at: u64, length: usize, may_be_same: bool) -> Result<Piece, Fault> {
        if self.zero.all(at, length) {
            return Ok(Piece::Zero);
        }
        if may_be_same && self.same.as_ref().is_some_and(|same| same.all(at, length)) {
            return Ok(Piece::Same);
        }
        self.with("read", async |wire| wire.read(at, length).await).await.map(Piece::Data)
    }
}

#[async_trait]
impl Target for Disk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    async fn write(&self, at: u64, bytes: Vec<u8>) -> Result<(), Fault> {
        self.with("write", async |wire| wire.write(at, &bytes).await).await
    }

    async fn flush(&self) -> Result<(), Fault> {
        self.with("flush", async |wire| wire.flush().await).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_one_way_when_all_of_it_is() {
        let mut map = Map::default();
        for (length, is) in [(10, true), (5, true), (5, false), (20, true)] {
            map.add(length, is, 35);
        }
        assert_eq!(map.0.len(), 3);
        assert_eq!(map.end(), 35);
        assert!(map.all(0, 15) && map.all(20, 15) && map.all(34, 1));
        assert!(!map.all(14, 2) && !map.all(15, 1) && !map.all(20, 16) && !map.all(40, 1));
    }
}

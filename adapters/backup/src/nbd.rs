//! A disk that QEMU has, over the NBD protocol on a socket of this machine: `qemu-nbd` offers one that
//! no server uses, and libvirt one of a running server as it was at a moment.
//!
//! Only what is needed of the protocol is here: one connection, one request at a time, structured
//! replies, and the two things a server can tell without a read, where nothing but zeroes is and what
//! has changed (`base:allocation` and a dirty bitmap).

use std::{
    io::{self, ErrorKind},
    path::Path,
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::Mutex,
    time::timeout,
};

use crate::{
    fault::Fault,
    source::{Piece, Source},
    target::Target,
};

/// How long one request may take: 16 MiB of a disk that is busy.
const PATIENCE: Duration = Duration::from_mins(2);
/// Longest answer to anything but a read, in bytes: the extents of one request.
const ANSWER_MAX: usize = 16 << 20;
/// How much of a disk is asked about at once.
const STATUS_BYTES: u64 = 1 << 30;

const GREETING: u64 = 0x4e42_444d_4147_4943;
const OPTION: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE: u32 = 0x6744_6698;
const STRUCTURED: u32 = 0x668e_33ef;

const OPT_GO: u32 = 7;
const OPT_STRUCTURED: u32 = 8;
const OPT_META: u32 = 10;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_META: u32 = 4;
const REP_ERROR: u32 = 1 << 31;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const STATUS: u16 = 7;

const CHUNK_DATA: u16 = 1;
const CHUNK_HOLE: u16 = 2;
const CHUNK_STATUS: u16 = 5;
const CHUNK_ERROR: u16 = 1 << 15;

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
    wire: Mutex<Wire>,
    size_bytes: u64,
    zero: Map,
    /// What has not changed since the parent; none when nobody knows.
    same: Option<Map>,
}

#[derive(Debug)]
struct Wire {
    stream: UnixStream,
    cookie: u64,
    /// A request that was broken off leaves the wire in the midst of a reply.
    broken: bool,
}

fn odd(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.into())
}

fn be32(bytes: &[u8], at: usize) -> io::Result<u32> {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map(u32::from_be_bytes).ok_or_else(|| odd("an answer is cut off"))
}

fn be64(bytes: &[u8], at: usize) -> io::Result<u64> {
    Ok(u64::from(be32(bytes, at)?) << 32 | u64::from(be32(bytes, at + 4)?))
}

impl Wire {
    async fn option(&mut self, option: u32, data: &[u8]) -> io::Result<Vec<(u32, Vec<u8>)>> {
        let mut out = OPTION.to_be_bytes().to_vec();
        out.extend(option.to_be_bytes());
        out.extend((data.len() as u32).to_be_bytes());
        out.extend(data);
        self.stream.write_all(&out).await?;
        let mut replies = Vec::new();
        loop {
            let magic = self.stream.read_u64().await?;
            let to = self.stream.read_u32().await?;
            let kind = self.stream.read_u32().await?;
            let length = self.stream.read_u32().await? as usize;
            if magic != OPTION_REPLY || to != option || length > ANSWER_MAX {
                return Err(odd("a reply to another option"));
            }
            let mut data = vec![0; length];
            self.stream.read_exact(&mut data).await?;
            if kind & REP_ERROR != 0 {
                let said = String::from_utf8_lossy(&data);
                return Err(odd(format!("option {option} is refused ({kind:#x}): {said}")));
            }
            if kind == REP_ACK {
                return Ok(replies);
            }
            replies.push((kind, data));
        }
    }

    async fn ask(&mut self, kind: u16, at: u64, length: u32, data: &[u8]) -> io::Result<()> {
        self.cookie += 1;
        let mut out = Vec::with_capacity(28 + data.len());
        out.extend(REQUEST.to_be_bytes());
        out.extend(0_u16.to_be_bytes());
        out.extend(kind.to_be_bytes());
        out.extend(self.cookie.to_be_bytes());
        out.extend(at.to_be_bytes());
        out.extend(length.to_be_bytes());
        out.extend(data);
        self.stream.write_all(&out).await
    }

    /// One piece of a reply; none after the last.
    async fn reply(&mut self, most: usize) -> io::Result<(bool, u16, Vec<u8>)> {
        let magic = self.stream.read_u32().await?;
        if magic == SIMPLE {
            let error = self.stream.read_u32().await?;
            self.cookie_comes_back().await?;
            return if error == 0 { Ok((true, 0, Vec::new())) } else { Err(refused(error, "")) };
        }
        if magic != STRUCTURED {
            return Err(odd("a reply that is none"));
        }
        let flags = self.stream.read_u16().await?;
        let kind = self.stream.read_u16().await?;
        self.cookie_comes_back().await?;
        let length = self.stream.read_u32().await? as usize;
        if length > most {
            return Err(odd("a reply is longer than was asked for"));
        }
        let mut data = vec![0; length];
        self.stream.read_exact(&mut data).await?;
        if kind & CHUNK_ERROR != 0 {
            let said = data.get(6..).unwrap_or_default();
            return Err(refused(be32(&data, 0)?, &String::from_utf8_lossy(said)));
        }
        Ok((flags & 1 != 0, kind, data))
    }

    async fn cookie_comes_back(&mut self) -> io::Result<()> {
        let cookie = self.stream.read_u64().await?;
        if cookie == self.cookie { Ok(()) } else { Err(odd("a reply to another request")) }
    }

    async fn read(&mut self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        self.ask(READ, at, length as u32, &[]).await?;
        let mut bytes = vec![0; length];
        let mut come = 0;
        loop {
            let (last, kind, data) = self.reply(length + 8).await?;
            match kind {
                CHUNK_DATA => {
                    let (begin, data) = (be64(&data, 0)?, &data[8..]);
                    let begin = begin.checked_sub(at).ok_or_else(|| odd("another place"))? as usize;
                    let place = bytes.get_mut(begin..begin + data.len());
                    place.ok_or_else(|| odd("another place"))?.copy_from_slice(data);
                    come += data.len();
                }
                CHUNK_HOLE => come += be32(&data, 8)? as usize,
                _ => {}
            }
            if last {
                break;
            }
        }
        if come == length { Ok(bytes) } else { Err(odd("less came than was asked for")) }
    }

    /// What these contexts say of a stretch; each says as much as it likes.
    async fn status(&mut self, at: u64, length: u32) -> io::Result<Vec<(u32, Vec<(u32, u32)>)>> {
        self.ask(STATUS, at, length, &[]).await?;
        let mut told = Vec::new();
        loop {
            let (last, kind, data) = self.reply(ANSWER_MAX).await?;
            if kind == CHUNK_STATUS {
                let pairs = data.get(4..).unwrap_or_default().chunks_exact(8);
                let pairs = pairs.map(|pair| Ok((be32(pair, 0)?, be32(pair, 4)?)));
                told.push((be32(&data, 0)?, pairs.collect::<io::Result<Vec<_>>>()?));
            }
            if last {
                return Ok(told);
            }
        }
    }

    async fn done(&mut self) -> io::Result<()> {
        while !self.reply(ANSWER_MAX).await?.0 {}
        Ok(())
    }
}

fn refused(error: u32, said: &str) -> io::Error {
    let why = io::Error::from_raw_os_error(error.cast_signed());
    if said.is_empty() { why } else { io::Error::new(why.kind(), format!("{why}: {said}")) }
}

fn name(text: &str) -> Vec<u8> {
    let mut out = (text.len() as u32).to_be_bytes().to_vec();
    out.extend(text.as_bytes());
    out
}

impl Disk {
    /// Connects, and asks where the disk is empty and what has changed.
    ///
    /// # Errors
    /// Nothing is offered there, or not with this bitmap.
    pub async fn connect(offer: Offer<'_>) -> Result<Self, Fault> {
        let what = || format!("cannot use the disk offered at {}", offer.socket.display());
        let done = timeout(PATIENCE, Self::begin(offer)).await;
        let late = || io::Error::new(ErrorKind::TimedOut, "no answer in time");
        done.unwrap_or_else(|_| Err(late())).map_err(Fault::disk(what()))
    }

    async fn begin(offer: Offer<'_>) -> io::Result<Self> {
        let mut stream = UnixStream::connect(offer.socket).await?;
        if (stream.read_u64().await?, stream.read_u64().await?) != (GREETING, OPTION) {
            return Err(odd("it does not speak NBD as it is today"));
        }
        // Fixed newstyle, and no padding: the server is asked for what it offers of these.
        let offered = stream.read_u16().await?;
        if offered & 1 == 0 {
            return Err(odd("it does not speak NBD as it is today"));
        }
        stream.write_u32(u32::from(offered & 3)).await?;
        let mut wire = Wire { stream, cookie: 0, broken: false };
        wire.option(OPT_STRUCTURED, &[]).await?;
        let bitmap = offer.bitmap.map(|bitmap| format!("qemu:dirty-bitmap:{bitmap}"));
        let mut asked = name(offer.export);
        asked.extend((1 + u32::from(bitmap.is_some())).to_be_bytes());
        asked.extend(name(ALLOCATION));
        asked.extend(bitmap.iter().flat_map(|bitmap| name(bitmap)));
        let (mut allocation_id, mut bitmap_id) = (None, None);
        for (kind, data) in wire.option(OPT_META, &asked).await? {
            if kind == REP_META {
                let id = be32(&data, 0)?;
                let name = data.get(4..).unwrap_or_default();
                if name == ALLOCATION.as_bytes() {
                    allocation_id = Some(id);
                } else if bitmap.as_ref().is_some_and(|bitmap| name == bitmap.as_bytes()) {
                    bitmap_id = Some(id);
                }
            }
        }
        if let Some(bitmap) = bitmap.filter(|_| bitmap_id.is_none()) {
            return Err(io::Error::new(ErrorKind::NotFound, format!("there is no {bitmap}")));
        }
        let mut go = name(offer.export);
        go.extend(0_u16.to_be_bytes());
        let mut export = None;
        for (kind, data) in wire.option(OPT_GO, &go).await? {
            if kind == REP_INFO && data.len() >= 12 && data[..2] == [0, 0] {
                export = Some((be64(&data, 2)?, u16::from_be_bytes([data[10], data[11]])));
            }
        }
        let (size_bytes, _flags) = export.ok_or_else(|| odd("it does not say how large it is"))?;
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
        work: impl AsyncFnOnce(&mut Wire) -> io::Result<T>,
    ) -> Result<T, Fault> {
        let mut wire = self.wire.lock().await;
        let done = if std::mem::replace(&mut wire.broken, true) {
            Err(odd("an earlier request was broken off"))
        } else {
            let late = || io::Error::new(ErrorKind::TimedOut, "no answer in time");
            timeout(PATIENCE, work(&mut wire)).await.unwrap_or_else(|_| Err(late()))
        };
        wire.broken = done.is_err();
        done.map_err(Fault::disk(format!("cannot {what} a disk that QEMU has")))
    }

    /// Says goodbye; without it the server sees the socket end.
    ///
    /// # Errors
    /// It cannot be said.
    pub async fn close(self) -> Result<(), Fault> {
        self.with("leave", async |wire| {
            wire.ask(DISCONNECT, 0, 0, &[]).await?;
            wire.stream.shutdown().await
        })
        .await
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
        self.with("write", async |wire| {
            wire.ask(WRITE, at, bytes.len() as u32, &bytes).await?;
            wire.done().await
        })
        .await
    }

    async fn flush(&self) -> Result<(), Fault> {
        self.with("flush", async |wire| {
            wire.ask(FLUSH, 0, 0, &[]).await?;
            wire.done().await
        })
        .await
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

//! The client's side of the NBD protocol (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>), over
//! whatever carries bytes: a socket of this machine, or a connection to another one.
//!
//! Only what disks need here: fixed newstyle, one connection, one request at a time, and of the extensions structured
//! replies, block status and writing zeros. Nothing here waits for ever: a request has [`PATIENCE`].

use std::{
    io::{self, ErrorKind},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// How long one request may take: 16 MiB of a disk that is busy, or all of it written out.
pub const PATIENCE: Duration = Duration::from_mins(2);
/// Longest answer to anything but a read, in bytes: the extents of one request.
const ANSWER_MAX: usize = 16 << 20;

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
const FLAG_ZEROES: u16 = 1 << 6;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const ZEROES: u16 = 6;
const STATUS: u16 = 7;

const CHUNK_DATA: u16 = 1;
const CHUNK_HOLE: u16 = 2;
const CHUNK_STATUS: u16 = 5;
const CHUNK_ERROR: u16 = 1 << 15;

/// What a server says of a disk before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    /// How large it is.
    pub bytes: u64,
    /// Whether zeros need not be sent ([`Wire::zeroes`]).
    pub has_zeroes: bool,
}

/// Something is not as the protocol says.
pub fn odd(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.into())
}

/// Work that is given up after a time.
///
/// # Errors
/// The work's own, or [`ErrorKind::TimedOut`].
pub async fn in_time<T>(
    patience: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let late = || io::Error::new(ErrorKind::TimedOut, "no answer in time");
    timeout(patience, work).await.unwrap_or_else(|_| Err(late()))
}

fn be32(bytes: &[u8], at: usize) -> io::Result<u32> {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map(u32::from_be_bytes).ok_or_else(|| odd("an answer is cut off"))
}

fn be64(bytes: &[u8], at: usize) -> io::Result<u64> {
    Ok(u64::from(be32(bytes, at)?) << 32 | u64::from(be32(bytes, at + 4)?))
}

fn refused(error: u32, said: &str) -> io::Error {
    let why = io::Error::from_raw_os_error(error.cast_signed());
    if said.is_empty() { why } else { io::Error::new(why.kind(), format!("{why}: {said}")) }
}

fn text(of: &str) -> Vec<u8> {
    let mut out = (of.len() as u32).to_be_bytes().to_vec();
    out.extend(of.as_bytes());
    out
}

/// What one context says of a stretch: the context's id, and lengths in bytes with their flags.
pub type Told = (u32, Vec<(u32, u32)>);

/// A connection to a server, and to a disk of its own when [`Self::go`] has been answered.
#[derive(Debug)]
pub struct Wire<S> {
    stream: S,
    cookie: u64,
    /// A request that was broken off leaves the wire in the midst of a reply.
    broken: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Shakes hands.
    ///
    /// # Errors
    /// The other end does not speak the fixed newstyle of NBD.
    pub async fn begin(mut stream: S) -> io::Result<Self> {
        let other = || odd("it does not speak NBD as it is today");
        if (stream.read_u64().await?, stream.read_u64().await?) != (GREETING, OPTION) {
            return Err(other());
        }
        // Fixed newstyle, and no padding: the server is asked for what it offers of these.
        let offered = stream.read_u16().await?;
        if offered & 1 == 0 {
            return Err(other());
        }
        stream.write_u32(u32::from(offered & 3)).await?;
        Ok(Self { stream, cookie: 0, broken: false })
    }

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

    /// Asks for structured replies. [`Self::read`] and [`Self::status`] take no others.
    ///
    /// # Errors
    /// The server has none.
    pub async fn structured(&mut self) -> io::Result<()> {
        self.option(OPT_STRUCTURED, &[]).await.map(drop)
    }

    /// Asks to be told of these contexts by [`Self::status`]; the ids of those that the export has, in their order.
    ///
    /// # Errors
    /// The server tells of no contexts, or of none of this export.
    pub async fn contexts(&mut self, name: &str, asked: &[&str]) -> io::Result<Vec<Option<u32>>> {
        let mut data = text(name);
        data.extend((asked.len() as u32).to_be_bytes());
        data.extend(asked.iter().flat_map(|context| text(context)));
        let mut ids = vec![None; asked.len()];
        for (kind, data) in self.option(OPT_META, &data).await? {
            if kind == REP_META {
                let id = be32(&data, 0)?;
                let of = &data[4..];
                let place = asked.iter().position(|context| context.as_bytes() == of);
                if let Some(place) = place {
                    ids[place] = Some(id);
                }
            }
        }
        Ok(ids)
    }

    /// Begins to use the export of this name, which may be empty.
    ///
    /// # Errors
    /// There is none, or it does not say how large it is.
    pub async fn go(&mut self, name: &str) -> io::Result<Export> {
        let mut data = text(name);
        data.extend(0_u16.to_be_bytes());
        let mut export = None;
        for (kind, data) in self.option(OPT_GO, &data).await? {
            if kind == REP_INFO && data.len() >= 12 && data[..2] == [0, 0] {
                let flags = u16::from_be_bytes([data[10], data[11]]);
                export =
                    Some(Export { bytes: be64(&data, 2)?, has_zeroes: flags & FLAG_ZEROES != 0 });
            }
        }
        export.ok_or_else(|| odd("it does not say how large it is"))
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

    /// One piece of a reply: whether it is the last, its kind and its data.
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

    /// A request in its time, on a wire on which every earlier one was answered to its end.
    async fn request<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Self) -> io::Result<T>,
    ) -> io::Result<T> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(odd("an earlier request was broken off"));
        }
        let done = in_time(PATIENCE, work(self)).await;
        self.broken = done.is_err();
        done
    }

    async fn done(&mut self, kind: u16, at: u64, length: u32, data: &[u8]) -> io::Result<()> {
        self.request(async |wire| {
            wire.ask(kind, at, length, data).await?;
            while !wire.reply(ANSWER_MAX).await?.0 {}
            Ok(())
        })
        .await
    }

    /// These bytes of the disk, by structured replies.
    ///
    /// # Errors
    /// The server says no, what comes is not what was asked for, or nothing comes in time.
    pub async fn read(&mut self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        self.request(async |wire| wire.pieces(at, length).await).await
    }

    async fn pieces(&mut self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        self.ask(READ, at, length as u32, &[]).await?;
        let mut bytes = vec![0; length];
        let mut come = 0;
        loop {
            let (last, kind, data) = self.reply(length + 8).await?;
            match kind {
                CHUNK_DATA => {
                    let (begin, data) = (be64(&data, 0)?, &data[8..]);
                    let begin = begin.checked_sub(at).ok_or_else(|| odd("another place"))? as usize;
                    let place = bytes.get_mut(begin..begin.saturating_add(data.len()));
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

    /// What each context of [`Self::contexts`] says of a stretch, from its beginning; each says as much as it likes.
    ///
    /// # Errors
    /// The server says no, or nothing comes in time.
    pub async fn status(&mut self, at: u64, length: u32) -> io::Result<Vec<Told>> {
        self.request(async |wire| {
            wire.ask(STATUS, at, length, &[]).await?;
            let mut told = Vec::new();
            loop {
                let (last, kind, data) = wire.reply(ANSWER_MAX).await?;
                if kind == CHUNK_STATUS {
                    let pairs = data.get(4..).unwrap_or_default().chunks_exact(8);
                    let pairs = pairs.map(|pair| Ok((be32(pair, 0)?, be32(pair, 4)?)));
                    told.push((be32(&data, 0)?, pairs.collect::<io::Result<Vec<_>>>()?));
                }
                if last {
                    return Ok(told);
                }
            }
        })
        .await
    }

    /// These bytes are there from now on.
    ///
    /// # Errors
    /// The server says no, or does not answer in time.
    pub async fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.done(WRITE, at, bytes.len() as u32, bytes).await
    }

    /// As many zeros are there from now on; of an export that [`Export::has_zeroes`].
    ///
    /// # Errors
    /// The server says no, or does not answer in time.
    pub async fn zeroes(&mut self, at: u64, length: u32) -> io::Result<()> {
        self.done(ZEROES, at, length, &[]).await
    }

    /// All that was written is on the disk, also when its machine goes down.
    ///
    /// # Errors
    /// The server says no, or does not answer in time.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.done(FLUSH, 0, 0, &[]).await
    }

    /// Says goodbye; without it the server sees the connection end.
    ///
    /// # Errors
    /// It cannot be said.
    pub async fn leave(&mut self) -> io::Result<()> {
        self.request(async |wire| {
            wire.ask(DISCONNECT, 0, 0, &[]).await?;
            wire.stream.shutdown().await
        })
        .await
    }
}

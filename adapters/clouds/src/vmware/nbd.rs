//! A disk on a host of ours that is written over NBD: one connection, one request at a time, and only what writing
//! takes.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long one request may take: 4 MiB to a disk that is busy, or all of it written out.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long it may take to be let in. Nobody else is: the kernel there drops what comes from elsewhere.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer to an option.
const ANSWER_MAX: usize = 64 << 10;

const GREETING: u64 = 0x4e42_444d_4147_4943;
const OPTION: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE: u32 = 0x6744_6698;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERROR: u32 = 1 << 31;
const FLAG_ZEROES: u16 = 1 << 6;

const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const ZEROES: u16 = 6;

/// A connection to a disk.
#[derive(Debug)]
pub(super) struct Disk {
    stream: TcpStream,
    cookie: u64,
    /// How large it is.
    pub(super) bytes: u64,
    /// Whether zeros need not be sent.
    has_zeroes: bool,
}

fn odd(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.into())
}

async fn in_time<T>(
    patience: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let late = || io::Error::new(ErrorKind::TimedOut, "no answer in time");
    timeout(patience, work).await.unwrap_or_else(|_| Err(late()))
}

impl Disk {
    /// Connects to the disk of this name.
    pub(super) async fn connect(at: SocketAddr, name: &str) -> io::Result<Self> {
        in_time(CONNECT_PATIENCE, Self::begin(at, name)).await
    }

    async fn begin(at: SocketAddr, name: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        if (stream.read_u64().await?, stream.read_u64().await?) != (GREETING, OPTION) {
            return Err(odd("it does not speak NBD as it is today"));
        }
        let offered = stream.read_u16().await?;
        if offered & 1 == 0 {
            return Err(odd("it does not speak NBD as it is today"));
        }
        stream.write_u32(u32::from(offered & 3)).await?;
        let mut out = OPTION.to_be_bytes().to_vec();
        out.extend(OPT_GO.to_be_bytes());
        out.extend((name.len() as u32 + 6).to_be_bytes());
        out.extend((name.len() as u32).to_be_bytes());
        out.extend(name.as_bytes());
        out.extend(0_u16.to_be_bytes());
        stream.write_all(&out).await?;
        let mut found = None;
        loop {
            let magic = stream.read_u64().await?;
            let to = stream.read_u32().await?;
            let kind = stream.read_u32().await?;
            let length = stream.read_u32().await? as usize;
            if magic != OPTION_REPLY || to != OPT_GO || length > ANSWER_MAX {
                return Err(odd("a reply to another option"));
            }
            let mut data = vec![0; length];
            stream.read_exact(&mut data).await?;
            if kind & REP_ERROR != 0 {
                let said = String::from_utf8_lossy(&data).into_owned();
                return Err(io::Error::new(ErrorKind::NotFound, format!("no disk {name}: {said}")));
            }
            if kind == REP_INFO && data.len() >= 12 && data[..2] == [0, 0] {
                let mut size = [0; 8];
                size.copy_from_slice(&data[2..10]);
                found = Some((u64::from_be_bytes(size), u16::from_be_bytes([data[10], data[11]])));
            }
            if kind == REP_ACK {
                break;
            }
        }
        let (bytes, flags) = found.ok_or_else(|| odd("it does not say how large it is"))?;
        Ok(Self { stream, cookie: 0, bytes, has_zeroes: flags & FLAG_ZEROES != 0 })
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

    async fn done(&mut self, kind: u16, at: u64, length: u32, data: &[u8]) -> io::Result<()> {
        let request = async {
            self.ask(kind, at, length, data).await?;
            let (magic, error) = (self.stream.read_u32().await?, self.stream.read_u32().await?);
            if magic != SIMPLE || self.stream.read_u64().await? != self.cookie {
                return Err(odd("a reply to another request"));
            }
            if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error.cast_signed())) }
        };
        in_time(PATIENCE, request).await
    }

    /// These bytes are there.
    pub(super) async fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u32;
        if self.has_zeroes && bytes.iter().all(|byte| *byte == 0) {
            return self.done(ZEROES, at, length, &[]).await;
        }
        self.done(WRITE, at, length, bytes).await
    }

    /// All of it is on the disk, also when the host goes down.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.done(FLUSH, 0, 0, &[]).await
    }

    /// Says goodbye.
    pub(super) async fn close(mut self) -> io::Result<()> {
        in_time(CONNECT_PATIENCE, self.ask(DISCONNECT, 0, 0, &[])).await
    }
}

//! Disks in memory that are written over NBD, as a host of ours offers them to who copies a machine there.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

const GREETING: u64 = 0x4e42_444d_4147_4943;
const OPTION: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE: u32 = 0x6744_6698;
/// Its size is known; it can be flushed, and filled with zeros.
const FLAGS: u16 = 1 | 1 << 2 | 1 << 6;
const IO_ERROR: u32 = 5;
const REQUEST_MAX: u32 = 32 << 20;

#[derive(Default)]
struct State {
    disks: BTreeMap<String, Vec<u8>>,
    /// Requests that are done before one fails; none when none does.
    fails_after: Option<u32>,
    flushes: u32,
}

/// Whether requests wait.
type Held = watch::Sender<bool>;

/// Disks that are offered; no more when it is dropped.
pub struct Shelf {
    at: SocketAddr,
    state: Arc<Mutex<State>>,
    held: Arc<Held>,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    /// Without disks.
    ///
    /// # Errors
    /// When no port of the loopback is to be had.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let at = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::default()));
        let held = Arc::new(Held::new(false));
        let (shared, waits) = (Arc::clone(&state), Arc::clone(&held));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (shared, waits) = (Arc::clone(&shared), waits.subscribe());
                tokio::spawn(async move {
                    // A connection that ends is what some tests are for.
                    let _ = serve(client, &shared, waits).await;
                });
            }
        });
        Ok(Self { at, state, held, task })
    }

    /// Where it listens.
    pub fn at(&self) -> SocketAddr {
        self.at
    }

    /// A disk full of this byte, in place of one of the same name.
    pub fn put(&self, name: &str, bytes: usize, of: u8) {
        lock(&self.state).disks.insert(name.to_owned(), vec![of; bytes]);
    }

    /// All of a disk.
    pub fn read(&self, name: &str) -> Vec<u8> {
        lock(&self.state).disks.get(name).cloned().unwrap_or_default()
    }

    /// After so many requests one fails, once.
    pub fn fail_after(&self, requests: u32) {
        lock(&self.state).fails_after = Some(requests);
    }

    /// Whether a failure is still to come.
    pub fn is_to_fail(&self) -> bool {
        lock(&self.state).fails_after.is_some()
    }

    /// What is asked for waits from now on, or does not any more.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// How often somebody waited until all was written out.
    pub fn flushes(&self) -> u32 {
        lock(&self.state).flushes
    }
}

fn odd(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// The disk that a client asks for.
async fn greet(client: &mut TcpStream, state: &Mutex<State>) -> io::Result<String> {
    client.write_u64(GREETING).await?;
    client.write_u64(OPTION).await?;
    client.write_u16(3).await?;
    client.read_u32().await?;
    loop {
        if client.read_u64().await? != OPTION {
            return Err(odd("no option"));
        }
        let (option, length) = (client.read_u32().await?, client.read_u32().await?);
        let mut data = vec![0; length.min(4_096) as usize];
        client.read_exact(&mut data).await?;
        let mut reply = async |kind: u32, data: &[u8]| {
            let mut out = OPTION_REPLY.to_be_bytes().to_vec();
            out.extend(option.to_be_bytes());
            out.extend(kind.to_be_bytes());
            out.extend((data.len() as u32).to_be_bytes());
            out.extend(data);
            client.write_all(&out).await
        };
        if option != 7 {
            reply(1 << 31 | 1, b"").await?;
            continue;
        }
        let end = data.len().saturating_sub(2);
        let name = data.get(4..end).unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        let Some(size) = lock(state).disks.get(&name).map(Vec::len) else {
            reply(1 << 31 | 6, b"there is no such disk").await?;
            continue;
        };
        let mut info = 0_u16.to_be_bytes().to_vec();
        info.extend((size as u64).to_be_bytes());
        info.extend(FLAGS.to_be_bytes());
        reply(3, &info).await?;
        reply(1, b"").await?;
        return Ok(name);
    }
}

async fn serve(
    mut client: TcpStream,
    state: &Mutex<State>,
    mut held: watch::Receiver<bool>,
) -> io::Result<()> {
    let name = greet(&mut client, state).await?;
    loop {
        if client.read_u32().await? != REQUEST {
            return Err(odd("no request"));
        }
        let (_, kind) = (client.read_u16().await?, client.read_u16().await?);
        let (cookie, at) = (client.read_u64().await?, client.read_u64().await?);
        let length = client.read_u32().await?;
        if length > REQUEST_MAX {
            return Err(odd("too much at once"));
        }
        let mut data = vec![0; if kind == 1 { length as usize } else { 0 }];
        client.read_exact(&mut data).await?;
        if kind == 2 {
            return Ok(());
        }
        // Nobody holds it any more when the shelf is gone.
        let _ = held.wait_for(|held| !held).await;
        let error = done(&mut lock(state), &name, (kind, at as usize, length as usize), &data);
        client.write_u32(SIMPLE).await?;
        client.write_u32(error).await?;
        client.write_u64(cookie).await?;
    }
}

fn done(
    state: &mut State,
    name: &str,
    (kind, at, length): (u16, usize, usize),
    data: &[u8],
) -> u32 {
    match &mut state.fails_after {
        Some(0) => {
            state.fails_after = None;
            return IO_ERROR;
        }
        Some(left) => *left -= 1,
        None => {}
    }
    let place = state.disks.get_mut(name).and_then(|disk| disk.get_mut(at..at + length));
    match (kind, place) {
        (1, Some(place)) => place.copy_from_slice(data),
        (6, Some(place)) => place.fill(0),
        (3, _) => state.flushes += 1,
        _ => return IO_ERROR,
    }
    0
}

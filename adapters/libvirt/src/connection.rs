//! One socket, any number of calls at once. Whoever calls waits for the reply with its serial
//! number; what the daemon says of itself goes to whoever listens.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex as AsyncMutex, OnceCell, mpsc, oneshot},
    task::AbortHandle,
    time::timeout,
};

use crate::{
    domain::Lifecycle,
    fault::Fault,
    message::{FRAME_MAX, HEAD, Header, Kind, Program, refusal},
    xdr::{Reader, Writer},
};

/// Events that wait to be read; beyond them the reader has to look for itself.
const EVENTS: usize = 4_096;

/// How many times the usual patience the start of a machine has.
const SLOW: u32 = 10;

const OPEN: i32 = 1;
const CLOSE: i32 = 2;
const AUTH_LIST: i32 = 66;
const REGISTER_EVENT: i32 = 316;
const LIFECYCLE: i32 = 318;
const LIFECYCLE_EVENT: i32 = 0;
const PING: i32 = 1;
const PONG: i32 = 2;

/// Where a daemon is, and how long it may take.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its socket, such as `/run/libvirt/libvirt-sock`.
    pub socket: PathBuf,
    /// Which driver: `qemu:///system`, `test:///default`.
    pub uri: String,
    /// How long a call may take that says nothing else.
    pub patience: Duration,
}

impl Options {
    /// The daemon of this machine, with QEMU.
    pub fn system() -> Self {
        Self {
            socket: PathBuf::from("/run/libvirt/libvirt-sock"),
            uri: "qemu:///system".to_owned(),
            patience: Duration::from_secs(30),
        }
    }
}

type Reply = Result<Vec<u8>, Fault>;

/// What both sides of a connection share.
#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    replies: HashMap<u32, oneshot::Sender<Reply>>,
    listener: Option<mpsc::Sender<Lifecycle>>,
    /// Events that nobody had room for.
    missed: bool,
    /// Why there will be no more replies.
    ended: Option<String>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to a daemon. It ends when it is dropped.
#[derive(Debug)]
pub struct Connection {
    shared: Arc<Shared>,
    writer: Arc<AsyncMutex<OwnedWriteHalf>>,
    serial: AtomicU32,
    patience: Duration,
    reading: AbortHandle,
    /// Set once the daemon has checked a description.
    pub(crate) has_schema: OnceCell<()>,
}

/// What happens to domains, as the daemon tells it.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Lifecycle>,
    shared: Arc<Shared>,
}

impl Events {
    /// The next event; none once the connection has ended.
    pub async fn next(&mut self) -> Option<Lifecycle> {
        self.events.recv().await
    }

    /// Whether events were lost since this was last asked, because nobody had read those before:
    /// then all domains are to be looked at.
    pub fn missed(&self) -> bool {
        std::mem::take(&mut self.shared.waiting().missed)
    }
}

/// Takes a call's place in the waiting list away when nobody waits any more.
struct Place<'a> {
    shared: &'a Shared,
    serial: u32,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.waiting().replies.remove(&self.serial);
    }
}

impl Connection {
    /// Connects, and opens the driver.
    pub async fn open(options: &Options) -> Result<Self, Fault> {
        let stream = connect(&options.socket, options.patience).await?;
        let (read, write) = stream.into_split();
        let shared = Arc::new(Shared::default());
        let writer = Arc::new(AsyncMutex::new(write));
        let reading = tokio::spawn(run(read, Arc::clone(&writer), Arc::clone(&shared)));
        let connection = Self {
            shared,
            writer,
            serial: AtomicU32::new(0),
            patience: options.patience,
            reading: reading.abort_handle(),
            has_schema: OnceCell::new(),
        };
        let kinds = connection.call(Program::REMOTE, AUTH_LIST, Writer::default()).await?;
        let kinds = Reader::new(&kinds).list(Reader::int)?;
        if let Some(kind) = kinds.into_iter().find(|kind| *kind != 0) {
            return Err(Fault::Authentication(kind));
        }
        let arguments = Writer::default().optional("the URI", Some(&options.uri)).uint(0);
        connection.call(Program::REMOTE, OPEN, arguments).await?;
        Ok(connection)
    }

    /// Whether there will be no more answers: the daemon is gone, or what it said did not read.
    pub fn is_over(&self) -> bool {
        self.shared.waiting().ended.is_some()
    }

    /// Says goodbye; without it the daemon sees the socket end.
    pub async fn close(self) -> Result<(), Fault> {
        self.call(Program::REMOTE, CLOSE, Writer::default()).await.map(drop)
    }

    /// Listens to what happens to domains. There is one listener; the one before hears no more.
    pub async fn events(&self) -> Result<Events, Fault> {
        let (sender, events) = mpsc::channel(EVENTS);
        self.shared.waiting().listener = Some(sender);
        let arguments = Writer::default().int(LIFECYCLE_EVENT).uint(0);
        self.call(Program::REMOTE, REGISTER_EVENT, arguments).await?;
        Ok(Events { events, shared: Arc::clone(&self.shared) })
    }

    /// One call, with the usual patience.
    pub(crate) async fn call(
        &self,
        program: Program,
        procedure: i32,
        arguments: Writer,
    ) -> Result<Vec<u8>, Fault> {
        self.call_within(self.patience, program, procedure, arguments).await
    }

    /// A call that starts a machine, and waits for much on a slow host: memory that is given, devices that
    /// are reset, images that are looked at.
    pub(crate) async fn call_slow(
        &self,
        procedure: i32,
        arguments: Writer,
    ) -> Result<Vec<u8>, Fault> {
        let patience = self.patience * SLOW;
        self.call_within(patience, Program::REMOTE, procedure, arguments).await
    }

    /// One call. When its time is over nobody knows whether it was carried out, and its reply is
    /// thrown away if it comes.
    pub(crate) async fn call_within(
        &self,
        patience: Duration,
        program: Program,
        procedure: i32,
        arguments: Writer,
    ) -> Result<Vec<u8>, Fault> {
        let said = arguments.finish()?;
        let serial = self.serial.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let (sender, reply) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting();
            if let Some(why) = &waiting.ended {
                return Err(Fault::Closed(why.clone()));
            }
            waiting.replies.insert(serial, sender);
        }
        let _place = Place { shared: &self.shared, serial };
        let header = Header { program, procedure, kind: Kind::Call, serial, failed: false };
        let frame = header.frame(&said);
        // A frame that is half sent would make all that follow unreadable: whoever gives up waiting
        // leaves the sending to itself.
        let writer = Arc::clone(&self.writer);
        let sending = async move { writer.lock().await.write_all(&frame).await };
        let sent = tokio::spawn(sending);
        let answered = async {
            sent.await.map_err(|fault| Fault::Closed(fault.to_string()))??;
            let gone = |_| Fault::Closed("the daemon is gone".to_owned());
            reply.await.map_err(gone)?
        };
        timeout(patience, answered).await.map_err(|_| Fault::Late(patience))?
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reading.abort();
        end(&self.shared, "it was closed here");
    }
}

async fn connect(socket: &Path, patience: Duration) -> Result<UnixStream, Fault> {
    let unreachable =
        |reason: String| Fault::Unreachable { socket: socket.display().to_string(), reason };
    let connecting = timeout(patience, UnixStream::connect(socket)).await;
    let stream = connecting.map_err(|_| unreachable("no answer in time".to_owned()))?;
    stream.map_err(|error| unreachable(error.to_string()))
}

fn end(shared: &Shared, why: &str) {
    let mut waiting = shared.waiting();
    waiting.listener = None;
    let why = waiting.ended.get_or_insert_with(|| why.to_owned()).clone();
    for (_, reply) in waiting.replies.drain() {
        let _ = reply.send(Err(Fault::Closed(why.clone())));
    }
}

/// Reads frames until the socket ends.
async fn run(read: OwnedReadHalf, writer: Arc<AsyncMutex<OwnedWriteHalf>>, shared: Arc<Shared>) {
    let why = match frames(read, &writer, &shared).await {
        Ok(()) => String::new(),
        Err(Fault::Closed(why)) => why,
        Err(fault) => fault.to_string(),
    };
    end(&shared, &why);
}

async fn frames(
    mut read: OwnedReadHalf,
    writer: &AsyncMutex<OwnedWriteHalf>,
    shared: &Shared,
) -> Result<(), Fault> {
    loop {
        let length = read.read_u32().await? as usize;
        if !(HEAD..=FRAME_MAX).contains(&length) {
            return Err(Fault::Malformed("a frame has an impossible length"));
        }
        let mut frame = vec![0; length - 4];
        read.read_exact(&mut frame).await?;
        let (header, said) = Header::read(&frame)?;
        match header {
            Header { program: Program::KEEPALIVE, procedure: PING, .. } => {
                let pong = Header { procedure: PONG, ..header };
                writer.lock().await.write_all(&pong.frame(&[])).await?;
            }
            Header { kind: Kind::Reply, serial, failed, .. } => {
                // Nobody waits for it when its caller has given up.
                if let Some(reply) = shared.waiting().replies.remove(&serial) {
                    let _ = reply.send(if failed { Err(refusal(said)) } else { Ok(said.to_vec()) });
                }
            }
            Header { kind: Kind::Event, procedure: LIFECYCLE, .. } => tell(shared, said)?,
            _ => tracing::debug!(?header, "a frame of libvirt that nobody asked for"),
        }
    }
}

fn tell(shared: &Shared, said: &[u8]) -> Result<(), Fault> {
    let mut reader = Reader::new(said);
    let _callback = reader.int()?;
    let event = Lifecycle::read(&mut reader)?;
    let mut waiting = shared.waiting();
    let told = waiting.listener.as_ref().map(|listener| listener.try_send(event));
    if let Some(Err(mpsc::error::TrySendError::Full(_))) = told {
        waiting.missed = true;
    }
    Ok(())
}

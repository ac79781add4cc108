//! A proxy before PostgreSQL that understands as much of its protocol as it takes to cut a
//! connection around its `COMMIT`: before the server gets it, or after the server has done it and
//! before the client is told.

use std::{
    collections::HashSet,
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Where a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The server never gets it, and undoes what came before.
    BeforeCommit = 1,
    /// The server has done it; its answer is lost.
    AfterCommit = 2,
}

#[derive(Default)]
struct State {
    /// The next cut, as its number; 0 is none.
    armed: AtomicU8,
    cuts: [AtomicU64; 3],
}

impl State {
    /// Whether this is the cut that was ordered; it happens once.
    fn strikes(&self, cut: Cut) -> bool {
        let (armed, none) = (cut as u8, 0);
        self.armed.compare_exchange(armed, none, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn count(&self, cut: Cut) {
        self.cuts[cut as usize].fetch_add(1, Ordering::SeqCst);
    }
}

pub(crate) struct Cutter {
    /// The server's URL, by way of the cutter.
    pub(crate) url: String,
    state: Arc<State>,
}

impl Cutter {
    /// Listens before the server of this URL.
    pub(crate) async fn start(url: &str) -> Self {
        let (user, place) = url.rsplit_once('@').unwrap();
        let (server, database) = place.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let (shared, server) = (state.clone(), server.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (state, server) = (shared.clone(), server.clone());
                tokio::spawn(async move {
                    // Whichever side ends, or is cut, takes the other with it.
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    // Message by message: nothing waits to be sent together with what follows.
                    let (Ok(()), Ok(())) = (client.set_nodelay(true), server.set_nodelay(true))
                    else {
                        return;
                    };
                    let (client, server) = (client.into_split(), server.into_split());
                    tokio::select! {
                        _ = upwards(client.0, server.1, &state) => {}
                        _ = downwards(server.0, client.1, &state) => {}
                    }
                });
            }
        });
        Self { url: format!("{user}@{here}/{database}"), state }
    }

    /// Orders the next cut.
    pub(crate) fn arm(&self, cut: Cut) {
        self.state.armed.store(cut as u8, Ordering::SeqCst);
    }

    /// How often it was made.
    pub(crate) fn cuts(&self, cut: Cut) -> u64 {
        self.state.cuts[cut as usize].load(Ordering::SeqCst)
    }
}

/// One message with its tag and its length.
async fn message(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let tag = from.read_u8().await?;
    let length = from.read_u32().await?;
    let mut message = vec![tag];
    message.extend(length.to_be_bytes());
    message.resize(length as usize + 1, 0);
    from.read_exact(&mut message[5..]).await?;
    Ok(message)
}

/// The texts at the start of a message, each ended by a zero.
fn texts(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    message[5..].split(|byte| *byte == 0)
}

async fn upwards(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    state: &State,
) -> io::Result<()> {
    // The first message has no tag.
    let length = client.read_u32().await?;
    let mut first = length.to_be_bytes().to_vec();
    first.resize(length as usize, 0);
    client.read_exact(&mut first[4..]).await?;
    server.write_all(&first).await?;
    let mut commits: HashSet<Vec<u8>> = HashSet::new();
    loop {
        let message = message(&mut client).await?;
        match message[0] {
            // Parse: a statement's name, and its text.
            b'P' => {
                let mut texts = texts(&message);
                if let (Some(name), Some(b"COMMIT")) = (texts.next(), texts.next()) {
                    commits.insert(name.to_owned());
                }
            }
            // Bind: a portal's name, and its statement's.
            b'B' => {
                let commit = texts(&message).nth(1).is_some_and(|name| commits.contains(name));
                if commit && state.strikes(Cut::BeforeCommit) {
                    state.count(Cut::BeforeCommit);
                    return Ok(());
                }
            }
            _ => {}
        }
        server.write_all(&message).await?;
    }
}

async fn downwards(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    state: &State,
) -> io::Result<()> {
    loop {
        let message = message(&mut server).await?;
        // CommandComplete, with what was completed.
        if message[0] == b'C'
            && texts(&message).next() == Some(b"COMMIT")
            && state.strikes(Cut::AfterCommit)
        {
            state.count(Cut::AfterCommit);
            return Ok(());
        }
        client.write_all(&message).await?;
    }
}

//! A server's serial line in this terminal, and its screen for a viewer on this machine.

use std::{
    io::{self, IsTerminal, Read, Write},
    net::SocketAddr,
};

use futures::{SinkExt, StreamExt};
use reqwest::Upgraded;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

/// A console as it comes from the server.
pub type Socket = WebSocketStream<Upgraded>;

/// Control and `]`: leaves the console. Terminals of other consoles have the same.
pub const LEAVE: u8 = 0x1d;
/// How much is read at once, in bytes.
const PIECE_BYTES: usize = 16 << 10;

/// The terminal hands on every key as it is, for as long as this lives.
struct Raw(Option<Termios>);

impl Raw {
    fn begin() -> io::Result<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// What is typed, up to what leaves.
fn typed() -> mpsc::Receiver<Vec<u8>> {
    let (send, typed) = mpsc::channel(16);
    // A thread of its own: the end of the program does not wait for another key.
    std::thread::spawn(move || {
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(bytes @ 1..) = io::stdin().read(&mut piece) {
            let piece = &piece[..bytes];
            let leaves = piece.iter().position(|byte| *byte == LEAVE);
            let piece = &piece[..leaves.unwrap_or(bytes)];
            if send.blocking_send(piece.to_vec()).is_err() || leaves.is_some() {
                return;
            }
        }
    });
    typed
}

/// Shows a serial line until whoever looks leaves it, or it is closed; says why it was, where that was
/// told.
///
/// # Errors
/// The terminal cannot be used.
pub async fn serial(mut socket: Socket) -> io::Result<Option<String>> {
    let raw = Raw::begin()?;
    let mut typed = typed();
    loop {
        tokio::select! {
            piece = typed.recv() => match piece {
                Some(piece) if piece.is_empty() => {}
                Some(piece) => {
                    if socket.send(Message::binary(piece)).await.is_err() {
                        return Ok(None);
                    }
                }
                None => {
                    let _ = socket.close(None).await;
                    drop(raw);
                    return Ok(None);
                }
            },
            message = socket.next() => match message {
                Some(Ok(Message::Binary(piece))) => {
                    let mut out = io::stdout().lock();
                    out.write_all(&piece)?;
                    out.flush()?;
                }
                Some(Ok(Message::Close(frame))) => {
                    return Ok(frame.map(|frame| frame.reason.to_string()));
                }
                Some(Ok(_)) => {}
                None | Some(Err(_)) => return Ok(None),
            },
        }
    }
}

/// Carries a screen to a viewer that has connected, until either ends.
pub async fn screen(mut socket: Socket, viewer: TcpStream) -> Option<String> {
    let (mut read, mut write) = viewer.into_split();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        tokio::select! {
            bytes = read.read(&mut piece) => match bytes {
                Ok(bytes @ 1..) => {
                    socket.send(Message::binary(piece[..bytes].to_vec())).await.ok()?;
                }
                _ => {
                    let _ = socket.close(None).await;
                    return None;
                }
            },
            message = socket.next() => match message {
                Some(Ok(Message::Binary(piece))) => write.write_all(&piece).await.ok()?,
                Some(Ok(Message::Close(frame))) => {
                    return frame.map(|frame| frame.reason.to_string());
                }
                Some(Ok(_)) => {}
                None | Some(Err(_)) => return None,
            },
        }
    }
}

/// Where a viewer is to connect to.
pub fn address_for_viewers(address: SocketAddr) -> String {
    format!("a viewer connects to {address}; Ctrl-C ends it")
}

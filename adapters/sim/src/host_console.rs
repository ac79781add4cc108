//! Consoles of servers in memory: a serial line that asks who logs in and repeats what is typed, a screen
//! of one point, and a port that repeats what comes.

use commands::ports::Pipe;
use domain::compute::server::console::ConsoleKind;
use futures::{SinkExt, StreamExt};

/// What a serial line says first.
const LOGIN: &[u8] = b"\r\nsimulated login: ";
/// What a screen says, in turn (RFC 6143 §7.1, §7.3): its version; one kind of security, none; that this
/// is well; its size and how points are made up, with its name.
const SCREEN: [&[u8]; 4] = [
    b"RFB 003.008\n",
    &[1, 1],
    &[0, 0, 0, 0],
    &[
        0, 1, 0, 1, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0, 0, 0, 0, 9, b's',
        b'i', b'm', b'u', b'l', b'a', b't', b'e', b'd',
    ],
];

/// The other end of a console, until the server stops.
pub(crate) fn open(kind: ConsoleKind, stops: impl Future<Output = ()> + Send + 'static) -> Pipe {
    let (mut ours, theirs) = Pipe::pair();
    tokio::spawn(async move {
        let serve = async {
            match kind {
                ConsoleKind::Rdp | ConsoleKind::Serial => {
                    if kind == ConsoleKind::Serial {
                        let _ = ours.out.send(LOGIN.to_vec()).await;
                    }
                    while let Some(piece) = ours.into.next().await {
                        if ours.out.send(piece).await.is_err() {
                            break;
                        }
                    }
                }
                ConsoleKind::Vnc => {
                    for says in SCREEN {
                        let _ = ours.out.send(says.to_vec()).await;
                        if ours.into.next().await.is_none() {
                            return;
                        }
                    }
                    while ours.into.next().await.is_some() {}
                }
            }
        };
        tokio::select! {
            () = serve => {}
            () = stops => {}
        }
    });
    theirs
}

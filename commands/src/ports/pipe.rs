//! Bytes that go both ways between two parts, in pieces, as a console's do.

use futures::{
    FutureExt, Sink, SinkExt, Stream, StreamExt,
    channel::mpsc::{Receiver, Sender, channel},
    pin_mut, select,
};

/// Pieces that wait on their way: whoever sends more waits, too.
const PIECES_MAX: usize = 16;
/// Largest piece, in bytes. What is larger is cut by whoever sends it.
pub const PIECE_BYTES_MAX: usize = 64 << 10;

/// One end of it. Dropping it ends the other.
#[derive(Debug)]
pub struct Pipe {
    /// To the other end.
    pub out: Sender<Vec<u8>>,
    /// From the other end.
    pub into: Receiver<Vec<u8>>,
}

impl Pipe {
    /// Both ends.
    pub fn pair() -> (Self, Self) {
        let ((there, here), (back, away)) = (channel(PIECES_MAX), channel(PIECES_MAX));
        (Self { out: there, into: away }, Self { out: back, into: here })
    }

    /// Carries pieces between this end and something else until either of them ends.
    pub async fn carry<E>(
        self,
        sink: impl Sink<Vec<u8>, Error = E>,
        stream: impl Stream<Item = Result<Vec<u8>, E>>,
    ) {
        let Self { mut out, mut into } = self;
        pin_mut!(sink, stream);
        let there = async {
            while let Some(Ok(piece)) = stream.next().await {
                if out.send(piece).await.is_err() {
                    break;
                }
            }
        };
        let back = async {
            while let Some(piece) = into.next().await {
                if sink.send(piece).await.is_err() {
                    break;
                }
            }
            let _ = sink.close().await;
        };
        let (there, back) = (there.fuse(), back.fuse());
        pin_mut!(there, back);
        select! {
            () = there => {}
            () = back => {}
        }
    }
}

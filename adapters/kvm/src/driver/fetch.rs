//! Images that come by HTTP.

use std::{
    io,
    pin::Pin,
    sync::Once,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use commands::progress;
use futures::{Stream, StreamExt as _, stream::BoxStream};
use reqwest::Client;
use tokio::io::{AsyncRead, ReadBuf};

use crate::storage::cache::Source;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long nothing may come. How long all of it takes depends on how much it is.
const SILENCE: Duration = Duration::from_mins(1);

/// An image at an address.
#[derive(Clone, Debug)]
pub(super) struct Address(pub(super) String);

/// It did not come.
#[derive(Debug, thiserror::Error)]
#[error("{at}")]
struct Failed {
    /// The address, as far as its path.
    at: String,
    source: reqwest::Error,
}

#[async_trait]
impl Source for Address {
    async fn open(&self) -> io::Result<Box<dyn AsyncRead + Send + Unpin>> {
        static ONCE: Once = Once::new();
        // Whoever installed one before has installed the same.
        ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let client = Client::builder().connect_timeout(CONNECT).read_timeout(SILENCE).build();
        let answer = client.map_err(io::Error::other)?.get(&self.0).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status);
        // Who does not say how long it is, is waited for without a word.
        let bytes = answer.as_ref().ok().and_then(reqwest::Response::content_length);
        progress::expect(bytes.unwrap_or(0));
        // What comes after the path may open it to whoever reads this.
        let at = self.0.split('?').next().unwrap_or_default().to_owned();
        let fault = move |error: reqwest::Error| {
            io::Error::other(Failed { at: at.clone(), source: error.without_url() })
        };
        let chunks = answer.map_err(&fault)?.bytes_stream();
        let chunks = chunks.map(move |chunk| chunk.map(Vec::from).map_err(&fault)).boxed();
        Ok(Box::new(Body { chunks, chunk: Vec::new(), read: 0 }))
    }
}

/// What comes, as a reader.
struct Body {
    chunks: BoxStream<'static, io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    /// How much of the chunk was read.
    read: usize,
}

impl AsyncRead for Body {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.read == self.chunk.len() {
            match ready!(Pin::new(&mut self.chunks).poll_next(context)) {
                None => return Poll::Ready(Ok(())),
                Some(chunk) => (self.chunk, self.read) = (chunk?, 0),
            }
            progress::add(self.chunk.len() as u64);
        }
        let count = into.remaining().min(self.chunk.len() - self.read);
        into.put_slice(&self.chunk[self.read..self.read + count]);
        self.read += count;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;

//! Where an export is written to and read from.

use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};

use async_trait::async_trait;
use domain::log::EXPORT_LINE_BYTES_MAX;

/// Takes an export, chunk by chunk. A slow sink slows the export; nothing piles up.
#[async_trait]
pub trait Sink: Send {
    /// Takes some whole lines.
    async fn write(&mut self, chunk: Vec<u8>) -> io::Result<()>;
}

/// Gives an export, line by line, as often as asked.
#[async_trait]
pub trait Source: Send {
    /// The next line without its line feed; none at the end. A line that is longer than
    /// [`EXPORT_LINE_BYTES_MAX`] may be cut there: it is refused anyway.
    async fn line(&mut self) -> io::Result<Option<Vec<u8>>>;
    /// Back to the first line.
    async fn rewind(&mut self) -> io::Result<()>;
}

/// Any writer as a sink. It blocks: for files on the command line, not inside a server.
#[derive(Debug)]
pub struct Writer<W>(pub W);

#[async_trait]
impl<W: Write + Send> Sink for Writer<W> {
    async fn write(&mut self, chunk: Vec<u8>) -> io::Result<()> {
        self.0.write_all(&chunk)
    }
}

/// Any reader that can go back as a source. It blocks, as [`Writer`] does.
#[derive(Debug)]
pub struct Lines<R>(pub R);

#[async_trait]
impl<R: BufRead + Seek + Send> Source for Lines<R> {
    async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let limit = EXPORT_LINE_BYTES_MAX as u64 + 1;
        if (&mut self.0).take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        line.pop_if(|last| *last == b'\n');
        Ok(Some(line))
    }

    async fn rewind(&mut self) -> io::Result<()> {
        self.0.seek(SeekFrom::Start(0)).map(|_| ())
    }
}

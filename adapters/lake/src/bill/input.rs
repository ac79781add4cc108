//! The bytes of a bill: unpacked, bounded, and with a fence at the end.

use std::{
    io::{self, BufReader, Chain, Cursor, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// The longest line of a bill: some 300 times the longest that was seen. A quote left open makes
/// a line of the rest of the file, which must not end up in memory.
pub(super) const LINE_BYTES: u64 = 16 << 20;

/// The last line of what the parser gets. When it does not come as a line, a quote is open.
pub(super) const FENCE: &str = "\u{1}end of bill\u{1}";

/// How many bytes were handed out since the last line was taken.
pub(super) type Taken = Arc<AtomicU64>;

/// The plain text of a file that may be packed, told by its first bytes.
pub(super) fn unpacked<'a>(
    mut source: impl Read + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut start = Vec::new();
    source.by_ref().take(4).read_to_end(&mut start)?;
    let gzip = start.starts_with(&[0x1f, 0x8b]);
    let zstd = start == [0x28, 0xb5, 0x2f, 0xfd];
    let whole: Chain<_, _> = Cursor::new(start).chain(source);
    Ok(match (gzip, zstd) {
        (true, _) => {
            Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(1 << 16, whole)))
        }
        (_, true) => Box::new(zstd::Decoder::new(whole)?),
        _ => Box::new(whole),
    })
}

/// Hands on what it reads, then the fence.
pub(super) struct Fenced<R> {
    inner: R,
    taken: Taken,
    fence: Option<Cursor<Vec<u8>>>,
}

impl<R> Fenced<R> {
    pub(super) fn new(inner: R, taken: Taken) -> Self {
        Self { inner, taken, fence: None }
    }
}

impl<R: Read> Read for Fenced<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken.load(Relaxed) > LINE_BYTES {
            let why = format!("a line has more than {LINE_BYTES} bytes: is a quote left open?");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        if let Some(fence) = &mut self.fence {
            return fence.read(out);
        }
        let read = self.inner.read(out)?;
        self.taken.fetch_add(read as u64, Relaxed);
        if read == 0 && !out.is_empty() {
            let fence = Cursor::new(format!("\n{FENCE}").into_bytes());
            return self.fence.insert(fence).read(out);
        }
        Ok(read)
    }
}

//! Writing a segment.

use std::{
    fs::{File, Permissions, TryLockError},
    io::{self, BufWriter, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use domain::finops::{amount::Amount, line::Line};
use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, Int64Type},
    errors::ParquetError,
    file::{
        properties::{EnabledStatistics, WriterProperties},
        writer::SerializedFileWriter,
    },
};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::{
    LakeFault, PART, Segment,
    columns::{COLUMNS, Column, Kind, schema},
    hex,
};

/// Lines of a row group: enough for dictionaries to pay, few enough to hold, and to read one of.
const GROUP_ROWS: usize = 16_384;
/// Lines of a page: what is unpacked where one line is read.
const PAGE_ROWS: usize = 4_096;
/// Bytes of texts after which a row group ends before that.
const GROUP_BYTES: usize = 64 << 20;
/// The longest text of a line, for a page to fit: twice what a line of a bill may be.
const TEXT_BYTES: usize = 32 << 20;
/// The largest amount of 38 digits.
const LARGEST: u128 = 10_u128.pow(38) - 1;

/// Writes one segment, line by line. Dropped, it leaves nothing.
pub struct SegmentWriter {
    folder: PathBuf,
    file: SerializedFileWriter<Part>,
    held: Vec<Held>,
    held_rows: usize,
    held_bytes: usize,
    rows: u64,
}

/// One column of the lines that are not in a row group yet.
enum Held {
    Numbers(Vec<i64>),
    Money(Vec<Amount>),
    Texts { bytes: Vec<u8>, ends: Vec<usize> },
}

/// The file that will be a segment, hashed as it grows.
pub(crate) struct Part {
    file: BufWriter<NamedTempFile>,
    sha: Sha256,
    bytes: u64,
}

/// A file that has checksums of its own.
pub(crate) struct PlainPart(Part);

impl PlainPart {
    pub(crate) fn new(folder: &Path) -> io::Result<Self> {
        Part::new(folder).map(Self)
    }

    /// Names it. It is not made durable: whoever reads it compares its checksums.
    pub(crate) fn keep_as(self, path: &Path) -> io::Result<()> {
        let part = self.0.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        part.persist(path).map(drop).map_err(|fault| fault.error)
    }
}

impl Write for PlainPart {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.file.flush()
    }
}

impl SegmentWriter {
    pub(super) fn new(folder: &Path) -> Result<Self, LakeFault> {
        let file = Part::new(folder)
            .map_err(|source| LakeFault::Folder { folder: folder.to_owned(), source })?;
        // Nothing in here may tell when, where or by which build it was written: that would be
        // another digest for the same lines.
        let mut properties = WriterProperties::builder()
            .set_created_by("skyledger lake 2".to_owned())
            .set_compression(Compression::ZSTD(
                ZstdLevel::try_new(1).map_err(LakeFault::Unwritten)?,
            ))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_data_page_row_count_limit(PAGE_ROWS)
            .set_offset_index_disabled(true);
        for column in COLUMNS.iter().filter(|column| column.differs()) {
            properties = properties.set_column_dictionary_enabled(column.name.into(), false);
        }
        let properties = properties.build();
        let schema = schema().map_err(LakeFault::Unwritten)?;
        let file = SerializedFileWriter::new(file, schema, Arc::new(properties))
            .map_err(LakeFault::Unwritten)?;
        let held = COLUMNS.iter().map(Held::of).collect();
        Ok(Self { folder: folder.to_owned(), file, held, held_rows: 0, held_bytes: 0, rows: 0 })
    }

    /// Adds a line. One that is refused is not in the segment.
    pub fn push(&mut self, line: &Line) -> Result<(), LakeFault> {
        if let Some(column) = COLUMNS.iter().find(|column| !column.holds(line)) {
            return Err(LakeFault::OutOfRange { line: line.number, column: column.name });
        }
        for (column, held) in COLUMNS.iter().zip(&mut self.held) {
            self.held_bytes += held.push(column, line);
        }
        self.held_rows += 1;
        self.rows += 1;
        if self.held_rows >= GROUP_ROWS || self.held_bytes >= GROUP_BYTES {
            self.group().map_err(LakeFault::Unwritten)?;
        }
        Ok(())
    }

    /// Makes it durable under its digest.
    pub fn finish(mut self) -> Result<Segment, LakeFault> {
        self.group().map_err(LakeFault::Unwritten)?;
        let (rows, folder) = (self.rows, self.folder);
        let part = self.file.into_inner().map_err(LakeFault::Unwritten)?;
        let kept = part.keep(&folder);
        let (digest, bytes) = kept.map_err(|source| LakeFault::Folder { folder, source })?;
        Ok(Segment { digest, rows, bytes })
    }

    /// Writes what is held as a row group.
    fn group(&mut self) -> Result<(), ParquetError> {
        if self.held_rows == 0 {
            return Ok(());
        }
        let mut group = self.file.next_row_group()?;
        for (column, held) in COLUMNS.iter().zip(&mut self.held) {
            let Some(mut out) = group.next_column()? else {
                return Err(ParquetError::General("the schema lacks a column".to_owned()));
            };
            match held {
                Held::Numbers(numbers) => {
                    out.typed::<Int64Type>().write_batch(numbers, None, None)?;
                    numbers.clear();
                }
                Held::Money(amounts) => {
                    let amounts: Vec<_> = amounts.drain(..).map(decimal).collect();
                    out.typed::<FixedLenByteArrayType>().write_batch(&amounts, None, None)?;
                }
                Held::Texts { bytes, ends } => {
                    let (texts, present) = texts(std::mem::take(bytes), ends, column.optional());
                    out.typed::<ByteArrayType>().write_batch(&texts, present.as_deref(), None)?;
                    ends.clear();
                }
            }
            out.close()?;
        }
        group.close()?;
        (self.held_rows, self.held_bytes) = (0, 0);
        Ok(())
    }
}

impl std::fmt::Debug for SegmentWriter {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("SegmentWriter")
            .field("folder", &self.folder)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl Column {
    /// Whether many of a row group's lines have a value of their own, so that a dictionary is only
    /// work: when it is made, and where one line is read.
    fn differs(&self) -> bool {
        matches!(self.kind, Kind::Number(..) | Kind::Money(..) | Kind::Json(..))
            || ["ConsumedQuantity", "ResourceId"].contains(&self.name)
    }

    /// Whether what it takes from the line comes out again as it was.
    fn holds(&self, line: &Line) -> bool {
        match self.kind {
            Kind::Number(get, _) => i64::try_from(get(line)).is_ok(),
            Kind::Money(get, _) => get(line).0.unsigned_abs() <= LARGEST,
            Kind::Moment(get, _) => get(line).timestamp_subsec_nanos() % 1000 == 0,
            Kind::Word(..) => true,
            Kind::Text(get, _) => get(line).len() <= TEXT_BYTES,
            Kind::Json(get, _) => {
                get(line).iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
                    <= TEXT_BYTES
            }
        }
    }
}

impl Held {
    fn of(column: &Column) -> Self {
        match column.kind {
            Kind::Number(..) | Kind::Moment(..) => Self::Numbers(Vec::new()),
            Kind::Money(..) => Self::Money(Vec::new()),
            Kind::Word(..) | Kind::Text(..) | Kind::Json(..) => {
                Self::Texts { bytes: Vec::new(), ends: Vec::new() }
            }
        }
    }

    /// Takes the column's part of the line, and says how many bytes of text that was.
    fn push(&mut self, column: &Column, line: &Line) -> usize {
        match (self, &column.kind) {
            (Self::Numbers(numbers), Kind::Number(get, _)) => {
                numbers.push(get(line).cast_signed());
                0
            }
            (Self::Numbers(numbers), Kind::Moment(get, _)) => {
                numbers.push(get(line).timestamp_micros());
                0
            }
            (Self::Money(amounts), Kind::Money(get, _)) => {
                amounts.push(get(line));
                0
            }
            (Self::Texts { bytes, ends }, kind) => {
                let before = bytes.len();
                match kind {
                    Kind::Word(get, _) | Kind::Text(get, _) => {
                        bytes.extend_from_slice(get(line).as_bytes());
                    }
                    Kind::Json(get, _) if !get(line).is_empty() => {
                        serde_json::to_writer(&mut *bytes, get(line))
                            .expect("texts are JSON, and memory takes them");
                    }
                    _ => {}
                }
                ends.push(bytes.len());
                bytes.len() - before
            }
            _ => unreachable!("a column is held as its kind is"),
        }
    }
}

/// Big-endian two's complement, as Parquet has it.
fn decimal(amount: Amount) -> FixedLenByteArray {
    ByteArray::from(Bytes::copy_from_slice(&amount.0.to_be_bytes())).into()
}

/// The texts of a column that may have nulls, and which lines have one.
fn texts(bytes: Vec<u8>, ends: &[usize], optional: bool) -> (Vec<ByteArray>, Option<Vec<i16>>) {
    let bytes = Bytes::from(bytes);
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let spans = starts.zip(ends.iter().copied());
    let present = optional.then(|| spans.clone().map(|(start, end)| i16::from(start < end)));
    let texts = spans
        .filter(|(start, end)| !optional || start < end)
        .map(|(start, end)| ByteArray::from(bytes.slice(start..end)))
        .collect();
    (texts, present.map(Iterator::collect))
}

impl Part {
    /// Begins a part and locks it, so that nobody who opens the folder takes it for a leftover.
    pub(crate) fn new(folder: &Path) -> io::Result<Self> {
        loop {
            let part =
                tempfile::Builder::new().prefix(PART.0).suffix(PART.1).tempfile_in(folder)?;
            match part.as_file().try_lock() {
                Ok(()) => {}
                // Somebody sweeps and was quicker.
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(fault)) => return Err(fault),
            }
            if part.as_file().metadata()?.nlink() > 0 {
                return Ok(Self { file: BufWriter::new(part), sha: Sha256::new(), bytes: 0 });
            }
        }
    }

    /// Writes its digest behind what it has, and names it so. It is not made durable: whoever reads
    /// it compares the digest.
    pub(crate) fn keep_with_digest(mut self, path: &Path) -> io::Result<()> {
        let digest = self.sha.clone().finalize();
        self.file.write_all(&digest)?;
        let part = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        part.persist(path).map(drop).map_err(|fault| fault.error)
    }

    /// Syncs it, names it by its digest and syncs the name.
    fn keep(self, folder: &Path) -> io::Result<(String, u64)> {
        let part = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let digest = hex(self.sha);
        part.as_file().set_permissions(Permissions::from_mode(0o444))?;
        part.as_file().sync_all()?;
        part.persist(folder.join(format!("{digest}.parquet"))).map_err(|fault| fault.error)?;
        File::open(folder)?.sync_all()?;
        Ok((digest, self.bytes))
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.sha.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

//! Reading a segment, a batch of lines at a time.

use std::{fs::File, ops::Range, os::unix::fs::FileExt, sync::Arc, vec};

use bytes::{Buf, Bytes};
use chrono::DateTime;
use domain::finops::{
    amount::{Amount, Currency},
    line::Line,
};
use parquet::{
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{ByteArray, ByteArrayType, DataType, FixedLenByteArrayType},
    errors::ParquetError,
    file::{
        metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData},
        properties::ReaderProperties,
        reader::{ChunkReader, FileReader, Length, RowGroupReader, SerializedFileReader},
        serialized_reader::SerializedRowGroupReader,
    },
};

use super::{
    LakeFault,
    columns::{COLUMNS, Column, Kind, blank, schema},
};

/// Lines that are in memory at once.
const BATCH: usize = 2048;

/// The lines of a segment. Ends after the first fault.
pub struct Lines {
    digest: String,
    file: SerializedFileReader<File>,
    next_group: usize,
    /// Of the group that is being read.
    columns: Vec<ColumnReader>,
    left: usize,
    batch: vec::IntoIter<Line>,
    failed: bool,
}

/// Why a batch cannot be read, in words.
type Reason = String;

impl Lines {
    pub(super) fn new(file: File, digest: &str) -> Result<Self, LakeFault> {
        let damaged = |reason| LakeFault::Damaged { digest: digest.to_owned(), reason };
        let file = SerializedFileReader::new(file).map_err(|fault| damaged(fault.to_string()))?;
        let expected = schema().map_err(LakeFault::Unwritten)?;
        if file.metadata().file_metadata().schema() != expected.as_ref() {
            return Err(damaged("its columns are not those of a segment".to_owned()));
        }
        Ok(Self {
            digest: digest.to_owned(),
            file,
            next_group: 0,
            columns: Vec::new(),
            left: 0,
            batch: Vec::new().into_iter(),
            failed: false,
        })
    }

    /// The next lines; none at the end.
    fn read(&mut self) -> Result<Vec<Line>, Reason> {
        while self.left == 0 {
            if self.next_group == self.file.num_row_groups() {
                return Ok(Vec::new());
            }
            let group = self.file.get_row_group(self.next_group).map_err(text)?;
            self.left = usize::try_from(group.metadata().num_rows()).map_err(text)?;
            self.columns = (0..COLUMNS.len())
                .map(|column| group.get_column_reader(column))
                .collect::<Result<_, _>>()
                .map_err(text)?;
            self.next_group += 1;
        }
        let rows = self.left.min(BATCH);
        // Every column is filled in below, the currency's among them.
        let mut lines = vec![blank(Currency::none()); rows];
        for (column, reader) in COLUMNS.iter().zip(&mut self.columns) {
            column
                .fill(&mut lines, reader)
                .map_err(|reason| format!("{}: {reason}", column.name))?;
        }
        self.left -= rows;
        Ok(lines)
    }
}

/// What is where in a segment.
pub(super) fn layout(file: File, digest: &str) -> Result<ParquetMetaData, LakeFault> {
    Ok(Lines::new(file, digest)?.file.metadata().clone())
}

/// The rows of each row group.
pub(crate) fn spans(layout: &ParquetMetaData) -> impl Iterator<Item = Range<u64>> {
    let mut start = 0;
    layout.row_groups().iter().map(move |group| {
        let span = start..start + group.num_rows().unsigned_abs();
        start = span.end;
        span
    })
}

/// The bytes of a row group, read in one go: its pages are many and small.
struct Window {
    start: u64,
    bytes: Bytes,
}

impl Window {
    fn read(file: &File, group: &RowGroupMetaData) -> Result<Self, Reason> {
        let ranges = || group.columns().iter().map(ColumnChunkMetaData::byte_range);
        let start = ranges().map(|(start, _)| start).min().unwrap_or_default();
        let end = ranges().map(|(start, length)| start + length).max().unwrap_or_default();
        let mut bytes = vec![0; usize::try_from(end - start).map_err(text)?];
        file.read_exact_at(&mut bytes, start).map_err(text)?;
        Ok(Self { start, bytes: bytes.into() })
    }

    fn from(&self, start: u64, length: Option<usize>) -> Result<Bytes, ParquetError> {
        let beyond = || ParquetError::EOF("a page is outside of its row group".to_owned());
        let start = start.checked_sub(self.start).and_then(|start| usize::try_from(start).ok());
        let start = start.filter(|start| *start <= self.bytes.len()).ok_or_else(beyond)?;
        let end = length.map_or(Some(self.bytes.len()), |length| start.checked_add(length));
        let end = end.filter(|end| *end <= self.bytes.len()).ok_or_else(beyond)?;
        Ok(self.bytes.slice(start..end))
    }
}

impl Length for Window {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Window {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.from(start, None)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.from(start, Some(length))
    }
}

/// Some lines of row groups, by their places in these, which are sorted.
pub(super) fn rows(
    file: &File,
    layout: &ParquetMetaData,
    digest: &str,
    groups: &[(usize, Vec<usize>)],
) -> Result<Vec<Line>, LakeFault> {
    let properties = Arc::new(ReaderProperties::builder().build());
    let read = |(at, places): &(usize, Vec<usize>)| {
        let group = layout.row_group(*at);
        let window = Window::read(file, group)?;
        let pages = layout.page_index_for_row_group(*at);
        let group =
            SerializedRowGroupReader::new(Arc::new(window), group, pages, Arc::clone(&properties));
        let group = group.map_err(text)?;
        let mut lines = vec![blank(Currency::none()); places.len()];
        for (at, column) in COLUMNS.iter().enumerate() {
            let mut reader = group.get_column_reader(at).map_err(text)?;
            let mut next = 0;
            for (line, place) in lines.iter_mut().zip(places) {
                skip(&mut reader, place - next)?;
                column
                    .fill(std::slice::from_mut(line), &mut reader)
                    .map_err(|reason| format!("{}: {reason}", column.name))?;
                next = place + 1;
            }
        }
        Ok(lines)
    };
    let lines = groups.iter().map(read).collect::<Result<Vec<Vec<Line>>, Reason>>();
    lines
        .map(|lines| lines.into_iter().flatten().collect())
        .map_err(|reason| LakeFault::Damaged { digest: digest.to_owned(), reason })
}

fn skip(reader: &mut ColumnReader, rows: usize) -> Result<(), Reason> {
    let skipped = match reader {
        ColumnReader::Int64ColumnReader(reader) => reader.skip_records(rows),
        ColumnReader::FixedLenByteArrayColumnReader(reader) => reader.skip_records(rows),
        ColumnReader::ByteArrayColumnReader(reader) => reader.skip_records(rows),
        _ => return Err("another type than its own".to_owned()),
    };
    match skipped.map_err(text)? {
        all if all == rows => Ok(()),
        some => Err(format!("{some} lines for {rows}")),
    }
}

impl Iterator for Lines {
    type Item = Result<Line, LakeFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.batch.len() == 0 && !self.failed {
            match self.read() {
                Ok(lines) => self.batch = lines.into_iter(),
                Err(reason) => {
                    self.failed = true;
                    return Some(Err(LakeFault::Damaged { digest: self.digest.clone(), reason }));
                }
            }
        }
        self.batch.next().map(Ok)
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Lines").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Column {
    /// Puts the column's next values into the lines.
    fn fill(&self, lines: &mut [Line], reader: &mut ColumnReader) -> Result<(), Reason> {
        let rows = lines.len();
        match (reader, &self.kind) {
            (ColumnReader::Int64ColumnReader(reader), Kind::Number(_, put)) => {
                for (line, value) in lines.iter_mut().zip(all(reader, rows)?) {
                    put(line, u64::try_from(value).map_err(text)?);
                }
            }
            (ColumnReader::Int64ColumnReader(reader), Kind::Moment(_, put)) => {
                for (line, value) in lines.iter_mut().zip(all(reader, rows)?) {
                    let moment = DateTime::from_timestamp_micros(value);
                    put(line, moment.ok_or("no moment has that many microseconds")?);
                }
            }
            (ColumnReader::FixedLenByteArrayColumnReader(reader), Kind::Money(_, slot)) => {
                let values = all::<FixedLenByteArrayType>(reader, rows)?;
                for (line, value) in lines.iter_mut().zip(values) {
                    let bytes = value.data().try_into().map_err(text)?;
                    *slot(line) = Amount(i128::from_be_bytes(bytes));
                }
            }
            (ColumnReader::ByteArrayColumnReader(reader), kind) => {
                let texts = if self.optional() {
                    some(reader, rows)?
                } else {
                    all::<ByteArrayType>(reader, rows)?
                };
                for (line, value) in lines.iter_mut().zip(&texts) {
                    let value = std::str::from_utf8(value.data()).map_err(text)?;
                    match kind {
                        Kind::Word(_, put) => {
                            put(line, value).ok_or_else(|| format!("{value:?} is no such word"))?;
                        }
                        Kind::Text(_, slot) => slot(line).push_str(value),
                        Kind::Json(_, slot) if !value.is_empty() => {
                            *slot(line) = serde_json::from_str(value).map_err(text)?;
                        }
                        _ => {}
                    }
                }
            }
            _ => return Err("another type than its own".to_owned()),
        }
        Ok(())
    }
}

/// As many values as there are lines, none of them null.
fn all<T: DataType>(reader: &mut ColumnReaderImpl<T>, rows: usize) -> Result<Vec<T::T>, Reason> {
    let mut values = Vec::with_capacity(rows);
    let (read, _, _) = reader.read_records(rows, None, None, &mut values).map_err(text)?;
    if read != rows || values.len() != rows {
        return Err(format!("{read} values for {rows} lines"));
    }
    Ok(values)
}

/// As many texts as there are lines, the null ones empty.
fn some(
    reader: &mut ColumnReaderImpl<ByteArrayType>,
    rows: usize,
) -> Result<Vec<ByteArray>, Reason> {
    let (mut values, mut present) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    let (read, _, _) =
        reader.read_records(rows, Some(&mut present), None, &mut values).map_err(text)?;
    let there = present.iter().filter(|level| **level == 1).count();
    if read != rows || present.len() != rows || values.len() != there {
        return Err(format!("{read} values for {rows} lines"));
    }
    let mut values = values.into_iter();
    let of = |level: i16| if level == 1 { values.next() } else { None };
    Ok(present
        .into_iter()
        .map(of)
        .map(|text| text.unwrap_or_else(|| Bytes::new().into()))
        .collect())
}

fn text(fault: impl std::fmt::Display) -> Reason {
    fault.to_string()
}

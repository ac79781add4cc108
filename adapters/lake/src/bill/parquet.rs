//! The rows of a Parquet file, each as the texts that a CSV of the same bill would have.
//!
//! Row groups are read one after the other and each in batches, so that memory holds a page of
//! every column and no more. Amounts are exact whatever holds them; a floating point number is
//! taken as its shortest decimal, which is what was written into it. Maps, lists and groups become
//! JSON.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use csv::StringRecord;
use parquet::{
    basic::{ConvertedType, LogicalType, Repetition, TimeUnit, Type as Physical},
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::DataType,
    file::reader::{FileReader, SerializedFileReader},
    record::{
        Field,
        reader::{ReaderIter, TreeBuilder},
    },
    schema::types::{SchemaDescriptor, Type, TypePtr},
};
use serde_json::Value;

/// How a Parquet file begins and ends.
pub(super) const MAGIC: &[u8; 4] = b"PAR1";
/// Rows that are in memory at once.
const BATCH: usize = 1024;
/// Most columns of a file: some ten times what bills have.
const COLUMNS_MAX: usize = 2_000;

/// Why a file cannot be read, in words.
type Reason = String;

/// The rows of a file. Ends after the first fault.
pub(super) struct Rows {
    file: SerializedFileReader<File>,
    columns: Vec<Place>,
    /// Leaves of columns that are no plain values, as a schema of their own.
    nested: Option<Arc<SchemaDescriptor>>,
    next_group: usize,
    /// Of the group that is being read.
    readers: Vec<ColumnReader>,
    trees: Option<ReaderIter>,
    left: usize,
    /// Column by column, what has been read and not been handed out.
    batch: Vec<Texts>,
    held: usize,
    next: usize,
    number: u64,
}

/// Where a column's values come from.
enum Place {
    /// From this leaf.
    Plain { leaf: usize, kind: Kind },
    /// From the trees, in order.
    Nested,
}

/// What a plain value says.
#[derive(Clone, Copy)]
enum Kind {
    Raw,
    Decimal(usize),
    Date,
    Moment { unit: TimeUnit, zoned: bool },
    Unsigned,
    Uuid,
}

/// Texts of one column, one after the other; what is null is empty.
#[derive(Default)]
struct Texts {
    bytes: String,
    ends: Vec<usize>,
}

impl Texts {
    fn get(&self, row: usize) -> &str {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[start..self.ends[row]]
    }

    fn end(&mut self) {
        self.ends.push(self.bytes.len());
    }
}

impl Rows {
    /// Puts what comes into a file without a name, which goes when it is closed, and opens it.
    pub(super) fn spooled(mut source: impl Read, folder: &Path) -> io::Result<Self> {
        let mut file = tempfile::tempfile_in(folder)?;
        io::copy(&mut source, &mut file)?;
        file.flush()?;
        file.rewind()?;
        let read = catch_unwind(AssertUnwindSafe(|| Self::new(file)));
        let read = read.unwrap_or_else(|_| Err("its footer is damaged".to_owned()));
        read.map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))
    }

    fn new(file: File) -> Result<Self, Reason> {
        let file = SerializedFileReader::new(file).map_err(text)?;
        let schema = file.metadata().file_metadata().schema_descr_ptr();
        let fields = schema.root_schema().get_fields();
        if fields.len() > COLUMNS_MAX {
            return Err(format!("it has more than {COLUMNS_MAX} columns"));
        }
        let (mut columns, mut nested, mut leaf) = (Vec::new(), Vec::new(), 0);
        for field in fields {
            let plain =
                field.is_primitive() && field.get_basic_info().repetition() != Repetition::REPEATED;
            if plain {
                columns.push(Place::Plain { leaf, kind: Kind::of(field) });
                leaf += 1;
            } else {
                columns.push(Place::Nested);
                nested.push(TypePtr::clone(field));
                leaf += leaves(field);
            }
        }
        let nested = match nested.len() {
            0 => None,
            _ => {
                let root = Type::group_type_builder("nested").with_fields(nested).build();
                Some(Arc::new(SchemaDescriptor::new(Arc::new(root.map_err(text)?))))
            }
        };
        let batch = columns.iter().map(|_| Texts::default()).collect();
        Ok(Self {
            file,
            columns,
            nested,
            next_group: 0,
            readers: Vec::new(),
            trees: None,
            left: 0,
            batch,
            held: 0,
            next: 0,
            // As if a heading were line 1.
            number: 1,
        })
    }

    /// The names of the columns, in the order of the file.
    pub(super) fn heading(&self) -> Vec<String> {
        let schema = self.file.metadata().file_metadata().schema();
        schema.get_fields().iter().map(|field| field.name().to_owned()).collect()
    }

    /// Which columns hold floating point numbers.
    pub(super) fn floating(&self) -> Vec<usize> {
        let schema = self.file.metadata().file_metadata().schema();
        let floats = |field: &TypePtr| {
            field.is_primitive()
                && matches!(field.get_physical_type(), Physical::FLOAT | Physical::DOUBLE)
        };
        let fields = schema.get_fields().iter().enumerate();
        fields.filter(|(_, field)| floats(field)).map(|(place, _)| place).collect()
    }

    /// Puts the next row into the record and gives its number; none is the end.
    pub(super) fn next(&mut self, record: &mut StringRecord) -> Option<Result<u64, Reason>> {
        if self.next == self.held {
            // A decoder that meets damage may panic: that is one more way to say so.
            let filled = catch_unwind(AssertUnwindSafe(|| self.fill()));
            match filled.unwrap_or_else(|_| Err("a page of it is damaged".to_owned())) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(reason) => return Some(Err(reason)),
            }
        }
        record.clear();
        for texts in &self.batch {
            record.push_field(texts.get(self.next));
        }
        self.next += 1;
        self.number += 1;
        Some(Ok(self.number))
    }

    /// Reads the next batch; false at the end.
    fn fill(&mut self) -> Result<bool, Reason> {
        while self.left == 0 {
            if self.next_group == self.file.num_row_groups() {
                return Ok(false);
            }
            let group = self.file.get_row_group(self.next_group).map_err(text)?;
            self.left = usize::try_from(group.metadata().num_rows()).map_err(text)?;
            let plain = self.columns.iter().filter_map(|place| match place {
                Place::Plain { leaf, .. } => Some(*leaf),
                Place::Nested => None,
            });
            let readers = plain.map(|leaf| group.get_column_reader(leaf));
            self.readers = readers.collect::<Result<_, _>>().map_err(text)?;
            let tree = |schema: &Arc<SchemaDescriptor>| {
                TreeBuilder::new().as_iter(Arc::clone(schema), group.as_ref())
            };
            self.trees = self.nested.as_ref().map(tree).transpose().map_err(text)?;
            self.next_group += 1;
        }
        let rows = self.left.min(BATCH);
        for texts in &mut self.batch {
            texts.bytes.clear();
            texts.ends.clear();
        }
        let mut readers = self.readers.iter_mut();
        for (place, texts) in self.columns.iter().zip(&mut self.batch) {
            if let Place::Plain { kind, .. } = place
                && let Some(reader) = readers.next()
            {
                kind.read(reader, rows, texts)?;
            }
        }
        if let Some(trees) = &mut self.trees {
            for _ in 0..rows {
                let row = trees.next().ok_or("it has fewer rows than it says")?.map_err(text)?;
                let mut fields = row.into_columns().into_iter();
                // Nested columns are in the order of the file in both.
                for (place, texts) in self.columns.iter().zip(&mut self.batch) {
                    if matches!(place, Place::Nested) {
                        match fields.next() {
                            None | Some((_, Field::Null)) => {}
                            Some((_, field)) => texts.bytes.push_str(&json(field).to_string()),
                        }
                        texts.end();
                    }
                }
            }
        }
        self.left -= rows;
        (self.held, self.next) = (rows, 0);
        Ok(true)
    }
}

/// How many leaves are under it.
fn leaves(field: &Type) -> usize {
    if field.is_primitive() {
        1
    } else {
        field.get_fields().iter().map(|field| leaves(field)).sum()
    }
}

impl Kind {
    fn of(field: &Type) -> Self {
        let info = field.get_basic_info();
        match (info.logical_type_ref(), info.converted_type()) {
            (Some(LogicalType::Decimal { .. }), _) | (_, ConvertedType::DECIMAL) => {
                Self::Decimal(usize::try_from(field.get_scale()).unwrap_or_default())
            }
            (Some(LogicalType::Date), _) | (_, ConvertedType::DATE) => Self::Date,
            (Some(LogicalType::Timestamp(of)), _) => {
                Self::Moment { unit: of.unit, zoned: of.is_adjusted_to_u_t_c }
            }
            (_, ConvertedType::TIMESTAMP_MILLIS) => {
                Self::Moment { unit: TimeUnit::MILLIS, zoned: true }
            }
            (_, ConvertedType::TIMESTAMP_MICROS) => {
                Self::Moment { unit: TimeUnit::MICROS, zoned: true }
            }
            (Some(LogicalType::Uuid), _) => Self::Uuid,
            (
                _,
                ConvertedType::UINT_8
                | ConvertedType::UINT_16
                | ConvertedType::UINT_32
                | ConvertedType::UINT_64,
            ) => Self::Unsigned,
            _ => Self::Raw,
        }
    }

    /// Reads so many values of a column as texts.
    fn read(self, reader: &mut ColumnReader, rows: usize, out: &mut Texts) -> Result<(), Reason> {
        match reader {
            ColumnReader::BoolColumnReader(reader) => values(reader, rows, out, |value, out| {
                out.push_str(if value { "true" } else { "false" });
                Ok(())
            }),
            ColumnReader::Int32ColumnReader(reader) => values(reader, rows, out, |value, out| {
                self.whole(i64::from(value), i64::from(value.cast_unsigned()), out)
            }),
            ColumnReader::Int64ColumnReader(reader) => {
                values(reader, rows, out, |value, out| match self {
                    Self::Unsigned => written(out, format_args!("{}", value.cast_unsigned())),
                    kind => kind.whole(value, value, out),
                })
            }
            ColumnReader::Int96ColumnReader(reader) => values(reader, rows, out, |value, out| {
                // A Julian day, and the nanoseconds of it.
                let [low, high, day] = *value.data() else { return Ok(()) };
                let nanos = i64::from(low) | (i64::from(high) << 32);
                let moment = (i64::from(day) - 2_440_588)
                    .checked_mul(86_400)
                    .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
                    .and_then(|day| day.checked_add_signed(TimeDelta::nanoseconds(nanos)));
                time(moment, false, out)
            }),
            ColumnReader::FloatColumnReader(reader) => {
                values(reader, rows, out, |value, out| written(out, format_args!("{value}")))
            }
            ColumnReader::DoubleColumnReader(reader) => {
                values(reader, rows, out, |value, out| written(out, format_args!("{value}")))
            }
            ColumnReader::ByteArrayColumnReader(reader) => {
                values(reader, rows, out, |value, out| self.bytes(value.data(), out))
            }
            ColumnReader::FixedLenByteArrayColumnReader(reader) => {
                values(reader, rows, out, |value, out| self.bytes(value.data(), out))
            }
        }
    }

    fn whole(self, value: i64, unsigned: i64, out: &mut String) -> Result<(), Reason> {
        match self {
            Self::Decimal(scale) => {
                decimal(i128::from(value), scale, out);
                Ok(())
            }
            Self::Date => {
                let first = NaiveDate::default();
                match TimeDelta::try_days(value).and_then(|days| first.checked_add_signed(days)) {
                    Some(day) => written(out, format_args!("{day}")),
                    None => written(out, format_args!("day {value}")),
                }
            }
            Self::Moment { unit, zoned } => {
                let moment = match unit {
                    TimeUnit::MILLIS => DateTime::from_timestamp_millis(value),
                    TimeUnit::MICROS => DateTime::from_timestamp_micros(value),
                    TimeUnit::NANOS => Some(DateTime::from_timestamp_nanos(value)),
                };
                time(moment, zoned, out)
            }
            Self::Unsigned => written(out, format_args!("{unsigned}")),
            Self::Raw | Self::Uuid => written(out, format_args!("{value}")),
        }
    }

    fn bytes(self, bytes: &[u8], out: &mut String) -> Result<(), Reason> {
        match self {
            Self::Decimal(scale) => match i128_of(bytes) {
                Some(value) => decimal(value, scale, out),
                None => out.push_str("more than 38 digits"),
            },
            Self::Uuid => {
                for (place, byte) in bytes.iter().enumerate() {
                    if [4, 6, 8, 10].contains(&place) {
                        out.push('-');
                    }
                    written(out, format_args!("{byte:02x}"))?;
                }
            }
            _ => out.push_str(std::str::from_utf8(bytes).map_err(text)?),
        }
        Ok(())
    }
}

/// Big-endian two's complement of any length that fits.
fn i128_of(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let spare = bytes.len().saturating_sub(16);
    let (spare, bytes) = bytes.split_at(spare);
    let mut wide = [fill; 16];
    wide[16 - bytes.len()..].copy_from_slice(bytes);
    let value = i128::from_be_bytes(wide);
    (spare.iter().all(|byte| *byte == fill) && (value < 0) == negative).then_some(value)
}

fn decimal(value: i128, scale: usize, out: &mut String) {
    if value < 0 {
        out.push('-');
    }
    let digits = value.unsigned_abs().to_string();
    if scale == 0 {
        out.push_str(&digits);
        return;
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    out.push_str(whole);
    out.push('.');
    out.push_str(part);
}

fn time(moment: Option<DateTime<Utc>>, zoned: bool, out: &mut String) -> Result<(), Reason> {
    match moment {
        None => written(out, format_args!("beyond time")),
        Some(moment) => {
            let zone = if zoned { "Z" } else { "" };
            written(out, format_args!("{}{zone}", moment.format("%Y-%m-%dT%H:%M:%S%.f")))
        }
    }
}

fn written(out: &mut String, what: std::fmt::Arguments<'_>) -> Result<(), Reason> {
    std::fmt::Write::write_fmt(out, what).map_err(text)
}

/// Reads so many rows of a column of plain values.
fn values<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    rows: usize,
    out: &mut Texts,
    mut write: impl FnMut(T::T, &mut String) -> Result<(), Reason>,
) -> Result<(), Reason> {
    let (mut values, mut levels) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    let mut read = 0;
    while read < rows {
        let (more, _, _) =
            reader.read_records(rows - read, Some(&mut levels), None, &mut values).map_err(text)?;
        if more == 0 {
            return Err("it has fewer rows than it says".to_owned());
        }
        read += more;
    }
    // A column that is always there has no levels.
    let all = levels.is_empty();
    let mut values = values.into_iter();
    for row in 0..rows {
        if all || levels.get(row).is_some_and(|level| *level > 0) {
            let value = values.next().ok_or("it has fewer values than it says")?;
            write(value, &mut out.bytes)?;
        }
        out.end();
    }
    Ok(())
}

fn json(field: Field) -> Value {
    let shown = |number: &dyn std::fmt::Display| Value::String(number.to_string());
    match field {
        Field::Null => Value::Null,
        Field::Bool(yes) => Value::Bool(yes),
        Field::Byte(number) => number.into(),
        Field::Short(number) => number.into(),
        Field::Int(number) => number.into(),
        Field::Long(number) => number.into(),
        Field::UByte(number) => number.into(),
        Field::UShort(number) => number.into(),
        Field::UInt(number) => number.into(),
        Field::ULong(number) => number.into(),
        Field::Float(number) => shown(&number),
        Field::Double(number) => shown(&number),
        Field::Str(text) => Value::String(text),
        Field::Bytes(bytes) => String::from_utf8_lossy(bytes.data()).into_owned().into(),
        Field::Group(row) => {
            row.into_columns().into_iter().map(|(name, field)| (name, json(field))).collect()
        }
        Field::ListInternal(list) => list.elements().iter().cloned().map(json).collect(),
        Field::MapInternal(map) => {
            let entries = map.entries().iter().map(|(key, value)| {
                let key = match json(key.clone()) {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                (key, json(value.clone()))
            });
            entries.collect()
        }
        other => shown(&other),
    }
}

fn text(fault: impl std::fmt::Display) -> Reason {
    fault.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_of_any_width_are_exact() {
        let shown = |bytes: &[u8], scale| {
            let mut out = String::new();
            Kind::Decimal(scale).bytes(bytes, &mut out).unwrap();
            out
        };
        assert_eq!(shown(&[0xff], 2), "-0.01");
        assert_eq!(shown(&[0x01, 0x00], 0), "256");
        assert_eq!(shown(&[0; 20], 3), "0.000");
        assert_eq!(shown(&[0xff; 20], 1), "-0.1");
        assert_eq!(
            shown(&i128::MIN.to_be_bytes(), 12),
            "-170141183460469231731687303.715884105728"
        );
        let mut wide = [0; 17];
        wide[0] = 1;
        assert_eq!(shown(&wide, 0), "more than 38 digits");
        let mut wide = [0; 17];
        wide[1] = 0x80;
        assert_eq!(shown(&wide, 0), "more than 38 digits");
        assert_eq!(shown(&[], 2), "0.00");
    }

    #[test]
    fn days_and_moments_read_as_a_bill_writes_them() {
        let shown = |kind: Kind, value| {
            let mut out = String::new();
            kind.whole(value, value, &mut out).unwrap();
            out
        };
        assert_eq!(shown(Kind::Date, 20_728), "2026-10-02");
        let moment = |unit, zoned| Kind::Moment { unit, zoned };
        assert_eq!(shown(moment(TimeUnit::MILLIS, true), 1_500), "1970-01-01T00:00:01.500Z");
        assert_eq!(shown(moment(TimeUnit::MICROS, false), 1), "1970-01-01T00:00:00.000001");
        assert_eq!(shown(moment(TimeUnit::NANOS, true), 1), "1970-01-01T00:00:00.000000001Z");
        assert_eq!(shown(moment(TimeUnit::MILLIS, true), i64::MAX), "beyond time");
        assert_eq!(shown(Kind::Date, i64::MAX), "day 9223372036854775807");
    }
}

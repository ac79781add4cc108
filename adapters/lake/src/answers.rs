//! Answers to reports: CSV, JSON and Parquet, and a folder of those that are kept, named by the
//! hash of their bytes.

use std::{fs, io, io::Write, path::PathBuf, sync::Arc};

use bytes::Bytes;
use commands::ports::{AnswerFault, AnswerTable, Answers, Holds, Value};
use domain::{finops::report::Format, kernel::canonical_value};
use parquet::{
    basic::{Compression, LogicalType, Repetition, Type as Physical, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, FixedLenByteArrayType, Int64Type},
    errors::ParquetError,
    file::{
        properties::{EnabledStatistics, WriterProperties},
        writer::SerializedFileWriter,
    },
    schema::types::Type,
};
use serde_json::{Map, json};
use sha2::{Digest, Sha256};

use crate::segment::hex;

/// A folder of answers.
#[derive(Clone, Debug)]
pub struct AnswerFolder {
    folder: PathBuf,
}

impl AnswerFolder {
    /// Opens the folder, and makes it when it is missing.
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    fn fault(&self, fault: &impl std::fmt::Display) -> AnswerFault {
        AnswerFault(format!("the folder {} cannot be used: {fault}", self.folder.display()))
    }
}

fn csv(table: &AnswerTable) -> Result<Vec<u8>, csv::Error> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(table.columns.iter().map(|(name, _)| name))?;
    for row in &table.rows {
        out.write_record(row.iter().map(|value| match value {
            Value::Amount(amount) => amount.to_string(),
            Value::Count(count) => count.to_string(),
            Value::Nothing => String::new(),
            Value::Text(text) => text.clone(),
        }))?;
    }
    out.into_inner().map_err(|fault| io::Error::other(fault.to_string()).into())
}

fn document(table: &AnswerTable) -> Vec<u8> {
    let rows = table.rows.iter().map(|row| {
        let names = table.columns.iter().map(|(name, _)| name.clone());
        names.zip(row.iter().map(|value| json!(value))).collect::<Map<_, _>>()
    });
    let columns = table.columns.iter().map(|(name, _)| name);
    let mut bytes = canonical_value(&json!({
        "columns": columns.collect::<Vec<_>>(),
        "rows": rows.collect::<Vec<_>>(),
    }));
    bytes.push(b'\n');
    bytes
}

fn parquet(table: &AnswerTable) -> Result<Vec<u8>, ParquetError> {
    let fields = table.columns.iter().map(|(name, holds)| {
        let field = match holds {
            Holds::Amounts => Type::primitive_type_builder(name, Physical::FIXED_LEN_BYTE_ARRAY)
                .with_length(16)
                .with_precision(38)
                .with_scale(12)
                .with_logical_type(Some(LogicalType::decimal(12, 38))),
            Holds::Counts => Type::primitive_type_builder(name, Physical::INT64),
            Holds::Texts => Type::primitive_type_builder(name, Physical::BYTE_ARRAY)
                .with_logical_type(Some(LogicalType::String)),
        };
        Ok(Arc::new(field.with_repetition(Repetition::OPTIONAL).build()?))
    });
    let fields = fields.collect::<Result<Vec<_>, ParquetError>>()?;
    let schema = Type::group_type_builder("answer").with_fields(fields).build()?;
    let properties = WriterProperties::builder()
        .set_created_by("skyledger lake 1".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .build();
    let mut file = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties))?;
    let mut group = file.next_row_group()?;
    for (at, (_, holds)) in table.columns.iter().enumerate() {
        let Some(mut out) = group.next_column()? else {
            return Err(ParquetError::General("the schema lacks a column".to_owned()));
        };
        let values = || table.rows.iter().map(|row| &row[at]);
        let present: Vec<i16> = values().map(|value| i16::from(*value != Value::Nothing)).collect();
        match holds {
            Holds::Amounts => {
                let bytes = values().filter_map(|value| match value {
                    Value::Amount(amount) => Some(
                        ByteArray::from(Bytes::copy_from_slice(&amount.0.to_be_bytes())).into(),
                    ),
                    _ => None,
                });
                let bytes: Vec<_> = bytes.collect();
                out.typed::<FixedLenByteArrayType>().write_batch(&bytes, Some(&present), None)?;
            }
            Holds::Counts => {
                let counts = values().filter_map(|value| match value {
                    Value::Count(count) => Some(count.cast_signed()),
                    _ => None,
                });
                let counts: Vec<i64> = counts.collect();
                out.typed::<Int64Type>().write_batch(&counts, Some(&present), None)?;
            }
            Holds::Texts => {
                let texts = values().filter_map(|value| match value {
                    Value::Text(text) => Some(ByteArray::from(text.as_str())),
                    _ => None,
                });
                let texts: Vec<_> = texts.collect();
                out.typed::<ByteArrayType>().write_batch(&texts, Some(&present), None)?;
            }
        }
        out.close()?;
    }
    group.close()?;
    file.into_inner()
}

impl Answers for AnswerFolder {
    fn write(&self, table: &AnswerTable, format: Format) -> Result<Vec<u8>, AnswerFault> {
        match format {
            Format::Csv => csv(table).map_err(|fault| AnswerFault(fault.to_string())),
            Format::Json => Ok(document(table)),
            Format::Parquet => parquet(table).map_err(|fault| AnswerFault(fault.to_string())),
        }
    }

    fn keep(&self, bytes: &[u8]) -> Result<String, AnswerFault> {
        let digest = hex(Sha256::new_with_prefix(bytes));
        let path = self.folder.join(&digest);
        if path.exists() {
            return Ok(digest);
        }
        let written = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|fault| fault.error)?;
            fs::File::open(&self.folder)?.sync_all()
        };
        written().map_err(|fault| self.fault(&fault))?;
        Ok(digest)
    }

    fn kept(&self, digest: &str) -> Result<Option<Vec<u8>>, AnswerFault> {
        if digest.len() != 64 || !digest.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let bytes = match fs::read(self.folder.join(digest)) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|fault| self.fault(&fault))?,
        };
        if hex(Sha256::new_with_prefix(&bytes)) != digest {
            return Err(AnswerFault(format!("the answer {digest} is not what was kept")));
        }
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use domain::finops::amount::Amount;
    use parquet::{
        file::reader::{FileReader, SerializedFileReader},
        record::RowAccessor,
    };

    use super::*;

    fn table() -> AnswerTable {
        let column = |name: &str, holds| (name.to_owned(), holds);
        AnswerTable {
            columns: vec![
                column("service", Holds::Texts),
                column("amount", Holds::Amounts),
                column("lines", Holds::Counts),
            ],
            rows: vec![
                vec![
                    Value::Text("a, \"b\"".into()),
                    Value::Amount(Amount(-1_500_000_000_001)),
                    Value::Count(2),
                ],
                vec![Value::Nothing, Value::Amount(Amount(0)), Value::Count(0)],
            ],
        }
    }

    #[test]
    fn a_table_is_written_without_losing_a_digit() {
        let folder = tempfile::tempdir().unwrap();
        let answers = AnswerFolder::open(folder.path()).unwrap();
        let text = |format| String::from_utf8(answers.write(&table(), format).unwrap()).unwrap();
        assert_eq!(
            text(Format::Csv),
            "service,amount,lines\n\"a, \"\"b\"\"\",-1.500000000001,2\n,0,0\n"
        );
        assert_eq!(
            text(Format::Json),
            "{\"columns\":[\"service\",\"amount\",\"lines\"],\"rows\":[\
             {\"amount\":\"-1.500000000001\",\"lines\":2,\"service\":\"a, \\\"b\\\"\"},\
             {\"amount\":\"0\",\"lines\":0,\"service\":null}]}\n"
        );
        let bytes = answers.write(&table(), Format::Parquet).unwrap();
        assert_eq!(bytes, answers.write(&table(), Format::Parquet).unwrap());
        let file = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
        let rows: Vec<_> = file.get_row_iter(None).unwrap().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].get_string(0).unwrap(), "a, \"b\"");
        let amount = rows[0].get_decimal(1).unwrap().data().to_vec();
        assert_eq!(i128::from_be_bytes(amount.try_into().unwrap()), -1_500_000_000_001);
        assert_eq!(rows[1].get_long(2).unwrap(), 0);
    }

    #[test]
    fn what_is_kept_is_found_by_its_digest_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let answers = AnswerFolder::open(folder.path()).unwrap();
        let digest = answers.keep(b"an answer").unwrap();
        assert_eq!(answers.keep(b"an answer").unwrap(), digest);
        assert_eq!(answers.kept(&digest).unwrap().as_deref(), Some(&b"an answer"[..]));
        assert_eq!(answers.kept(&"0".repeat(64)).unwrap(), None);
        assert_eq!(answers.kept("../answer").unwrap(), None);
        fs::write(folder.path().join(&digest), "another").unwrap();
        assert!(answers.kept(&digest).is_err());
    }
}

//! A bill in Parquet, whatever holds its values, is the bill in CSV.

use std::{io::Write, sync::Arc};

use bytes::Bytes;
use parquet::{
    basic::{Compression, GzipLevel, ZstdLevel},
    column::writer::ColumnWriter,
    data_type::{ByteArray, Int96},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};

use super::{BadLine, Bill, BillFault, Rule, read};
use domain::finops::line::Line;

/// A column of a test's file.
enum Column {
    Bytes(Vec<Vec<u8>>),
    Days(Vec<i32>),
    Doubles(Vec<f64>),
    Int96(Vec<(u64, u32)>),
    Longs(Vec<i64>),
    /// Texts, null where they are empty.
    Texts(Vec<&'static str>),
    /// Maps of at least one entry each.
    Maps(Vec<Vec<(&'static str, &'static str)>>),
}

const SCHEMA: &str = "message bill {
    required fixed_len_byte_array(9) BilledCost (DECIMAL(20, 3));
    optional binary BillingAccountId (UTF8);
    required binary BillingCurrency (UTF8);
    required int32 BillingPeriodStart (DATE);
    optional binary ChargeCategory (UTF8);
    required int96 ChargePeriodEnd;
    required int64 ChargePeriodStart (TIMESTAMP(MILLIS, true));
    required int32 ContractedCost (DECIMAL(9, 2));
    required binary EffectiveCost (DECIMAL(38, 4));
    required double ListCost;
    optional binary ServiceName (UTF8);
    required group Tags (MAP) {
        repeated group key_value { required binary key (UTF8); optional binary value (UTF8); }
    }
}";

/// The beginning of 2026-10-01 and so many hours, in milliseconds.
fn hour(hours: i64) -> i64 {
    1_790_812_800_000 + hours * 3_600_000
}

fn columns() -> Vec<Column> {
    let nine = |value: i128| value.to_be_bytes()[7..].to_vec();
    vec![
        Column::Bytes(vec![nine(1_500), nine(-2), nine(0)]),
        Column::Texts(vec!["a-1", "a-1", ""]),
        Column::Bytes(vec![b"USD".to_vec(), b"USD".to_vec(), b"EUR".to_vec()]),
        Column::Days(vec![20_727; 3]),
        Column::Texts(vec!["Usage", "Credit", ""]),
        Column::Int96(vec![(3_600_000_000_000, 2_461_315); 3]),
        Column::Longs(vec![hour(0), hour(0), hour(0) + 1]),
        Column::Days(vec![200, -1, 0]),
        Column::Bytes(vec![vec![0x30, 0xd4], vec![0xff], vec![]]),
        Column::Doubles(vec![0.1, 3e-7, 0.0]),
        Column::Texts(vec!["Compute", "Storage, \"cold\"", ""]),
        Column::Maps(vec![
            vec![("env", "prod"), ("team", "ä")],
            vec![("env", "")],
            vec![("a", "b")],
        ]),
    ]
}

fn file(compression: Compression, group_rows: usize) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut out = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let columns = columns();
    for start in (0..3).step_by(group_rows) {
        let rows = start..(start + group_rows).min(3);
        let mut group = out.next_row_group().unwrap();
        for column in &columns {
            for part in 0..if matches!(column, Column::Maps(_)) { 2 } else { 1 } {
                let mut writer = group.next_column().unwrap().unwrap();
                column.write(writer.untyped(), rows.clone(), part);
                writer.close().unwrap();
            }
        }
        group.close().unwrap();
    }
    out.into_inner().unwrap()
}

fn array(bytes: &[u8]) -> ByteArray {
    Bytes::copy_from_slice(bytes).into()
}

impl Column {
    fn write(&self, out: &mut ColumnWriter<'_>, rows: std::ops::Range<usize>, part: usize) {
        match (out, self) {
            (ColumnWriter::FixedLenByteArrayColumnWriter(out), Self::Bytes(values)) => {
                let values: Vec<_> = values[rows].iter().map(|one| array(one).into()).collect();
                out.write_batch(&values, None, None).unwrap();
            }
            (ColumnWriter::ByteArrayColumnWriter(out), Self::Bytes(values)) => {
                let values: Vec<_> = values[rows].iter().map(|one| array(one)).collect();
                out.write_batch(&values, None, None).unwrap();
            }
            (ColumnWriter::ByteArrayColumnWriter(out), Self::Texts(values)) => {
                let levels: Vec<i16> =
                    values[rows.clone()].iter().map(|text| i16::from(!text.is_empty())).collect();
                let there = values[rows].iter().filter(|text| !text.is_empty());
                let values: Vec<_> = there.map(|text| array(text.as_bytes())).collect();
                out.write_batch(&values, Some(&levels), None).unwrap();
            }
            (ColumnWriter::ByteArrayColumnWriter(out), Self::Maps(maps)) => {
                let (mut values, mut present, mut further) = (vec![], vec![], vec![]);
                for map in &maps[rows] {
                    for (place, (key, value)) in map.iter().enumerate() {
                        let text = if part == 0 { key } else { value };
                        let null = part == 1 && text.is_empty();
                        if !null {
                            values.push(array(text.as_bytes()));
                        }
                        present.push(1 + i16::from(part == 1 && !null));
                        further.push(i16::from(place > 0));
                    }
                }
                out.write_batch(&values, Some(&present), Some(&further)).unwrap();
            }
            (ColumnWriter::Int32ColumnWriter(out), Self::Days(values)) => {
                out.write_batch(&values[rows], None, None).unwrap();
            }
            (ColumnWriter::Int64ColumnWriter(out), Self::Longs(values)) => {
                out.write_batch(&values[rows], None, None).unwrap();
            }
            (ColumnWriter::DoubleColumnWriter(out), Self::Doubles(values)) => {
                out.write_batch(&values[rows], None, None).unwrap();
            }
            (ColumnWriter::Int96ColumnWriter(out), Self::Int96(values)) => {
                let values: Vec<_> = values[rows]
                    .iter()
                    .map(|(nanos, day)| {
                        let mut value = Int96::new();
                        value.set_data(*nanos as u32, (nanos >> 32) as u32, *day);
                        value
                    })
                    .collect();
                out.write_batch(&values, None, None).unwrap();
            }
            _ => panic!("the schema and the columns differ"),
        }
    }
}

/// Good lines, bad ones, findings, and why the rest is not there.
type Taken = (Vec<Line>, Vec<BadLine>, Vec<(Rule, u64, u64)>, Option<String>);

fn taken(bytes: &[u8]) -> Taken {
    let mut bill: Bill<'_> = read(bytes, None).unwrap();
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for line in &mut bill {
        match line {
            Ok(line) => good.push(line),
            Err(line) => bad.push(line),
        }
    }
    let findings = bill.findings();
    let findings = findings.iter().map(|found| (found.rule, found.count, found.first)).collect();
    (good, bad, findings, bill.cut_short().map(str::to_owned))
}

#[test]
fn a_bill_in_parquet_is_the_bill_in_csv() {
    let csv = "BilledCost,BillingAccountId,BillingCurrency,BillingPeriodStart,ChargeCategory,\
        ChargePeriodEnd,ChargePeriodStart,ContractedCost,EffectiveCost,ListCost,ServiceName,Tags\n\
        1.500,a-1,USD,2026-10-01,Usage,2026-10-01T01:00:00,2026-10-01T00:00:00Z,2.00,1.2500,0.1,\
        Compute,\"{\"\"env\"\":\"\"prod\"\",\"\"team\"\":\"\"ä\"\"}\"\n\
        -0.002,a-1,USD,2026-10-01,Credit,2026-10-01T01:00:00,2026-10-01T00:00:00Z,-0.01,-0.0001,\
        0.0000003,\"Storage, \"\"cold\"\"\",\"{\"\"env\"\":null}\"\n\
        0.000,,EUR,2026-10-01,,2026-10-01T01:00:00,2026-10-01T00:00:00.001Z,0.00,0.0000,0,,\
        \"{\"\"a\"\":\"\"b\"\"}\"\n";
    let (good, bad, mut findings, _) = taken(csv.as_bytes());
    assert_eq!((good.len(), bad.len()), (2, 1));
    assert_eq!((bad[0].line, &*bad[0].column), (4, "BillingAccountId"));
    // The one thing that differs: the list price was a floating point number.
    findings.push((Rule::CostFloating, 2, 2));
    findings.sort_unstable();
    let gzip = Compression::GZIP(GzipLevel::default());
    let zstd = Compression::ZSTD(ZstdLevel::default());
    for codec in [Compression::UNCOMPRESSED, Compression::SNAPPY, gzip, zstd] {
        for group_rows in [1, 2, 3] {
            let parquet = taken(&file(codec, group_rows));
            let expected = (good.clone(), bad.clone(), findings.clone(), None);
            assert_eq!(parquet, expected, "{codec:?}, {group_rows} rows a group");
        }
    }
}

#[test]
fn parquet_may_be_packed_as_a_whole_and_must_be_whole() {
    let plain = file(Compression::SNAPPY, 3);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&plain).unwrap();
    assert_eq!(taken(&packed.finish().unwrap()), taken(&plain));
    for cut in [4, 8, 100, plain.len() - 1] {
        let Err(fault) = read(&plain[..cut], None) else { panic!("cut at {cut}") };
        assert!(matches!(fault, BillFault::Unreadable(_)), "{fault}");
    }
}

#[test]
fn damage_anywhere_ends_the_reading_and_never_the_server() {
    let whole = file(Compression::UNCOMPRESSED, 2);
    for place in (4..whole.len()).step_by(13) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x41;
        if let Ok(bill) = read(damaged.as_slice(), None) {
            assert!(bill.take(10).count() <= 4, "byte {place}");
        }
    }
}

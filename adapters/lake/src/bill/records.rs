//! The rows of a file as texts, whatever holds them: CSV or Parquet.

use std::{
    io::{Cursor, Read},
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use csv::{ErrorKind, ReaderBuilder, StringRecord, Terminator};

use super::{
    input::{FENCE, Fenced, Taken, unpacked},
    parquet::{MAGIC, Rows},
    reader::{BadLine, BillFault},
};

/// Letters of a value that a bad line shows.
const SHOWN: usize = 80;

/// Why the last line of a file may not end.
const OPEN: &str = "a quote is opened here and never closed: the rest of the file is in it";

/// The rows of a file.
pub(super) struct Records<'a> {
    heading: Vec<String>,
    rows: Of<'a>,
    ended: bool,
    cut_short: Option<String>,
}

/// What the rows are in.
enum Of<'a> {
    Csv { csv: csv::Reader<Fenced<Box<dyn Read + Send + 'a>>>, taken: Taken },
    Parquet(Box<Rows>),
}

impl<'a> Records<'a> {
    /// Opens a file; one of Parquet is put into the folder first, for it is read from its end.
    pub(super) fn open(
        source: impl Read + Send + 'a,
        folder: &Path,
    ) -> Result<Records<'a>, BillFault> {
        let mut source = unpacked(source).map_err(BillFault::Unreadable)?;
        let mut start = Vec::new();
        source.by_ref().take(4).read_to_end(&mut start).map_err(BillFault::Unreadable)?;
        let parquet = start == MAGIC;
        let source = Cursor::new(start).chain(source);
        if parquet {
            let rows = Rows::spooled(source, folder).map_err(BillFault::Unreadable)?;
            let (heading, rows) = (rows.heading(), Of::Parquet(Box::new(rows)));
            return Ok(Self { heading, rows, ended: false, cut_short: None });
        }
        let taken = Taken::default();
        let source: Box<dyn Read + Send + 'a> = Box::new(source);
        let mut csv = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            // The parser's own idea of CR LF counts its lines wrong.
            .terminator(Terminator::Any(b'\n'))
            .buffer_capacity(1 << 16)
            .from_reader(Fenced::new(source, Arc::clone(&taken)));
        let mut heading = StringRecord::new();
        csv.read_record(&mut heading).map_err(|fault| match fault.into_kind() {
            ErrorKind::Io(fault) => BillFault::Unreadable(fault),
            ErrorKind::Utf8 { err, .. } => BillFault::NoHeading(err.to_string()),
            _ => BillFault::NoHeading("it is no CSV".to_owned()),
        })?;
        taken.store(0, Relaxed);
        if heading.iter().next_back().is_none_or(|last| last.ends_with(FENCE)) {
            return Err(BillFault::NoHeading("it ends before its first line does".to_owned()));
        }
        let mut heading: Vec<_> = heading.iter().map(str::to_owned).collect();
        if let Some(last) = heading.last_mut()
            && last.ends_with('\r')
        {
            last.pop();
        }
        Ok(Self { heading, rows: Of::Csv { csv, taken }, ended: false, cut_short: None })
    }

    /// The names of the columns.
    pub(super) fn heading(&self) -> &[String] {
        &self.heading
    }

    /// Which columns hold floating point numbers.
    pub(super) fn floating(&self) -> Vec<usize> {
        match &self.rows {
            Of::Csv { .. } => Vec::new(),
            Of::Parquet(rows) => rows.floating(),
        }
    }

    /// Why the rest of the file could not be read.
    pub(super) fn cut_short(&self) -> Option<&str> {
        self.cut_short.as_deref()
    }

    /// Takes the next row apart: its number and how many line breaks are in it. None is the end.
    pub(super) fn next(
        &mut self,
        record: &mut StringRecord,
    ) -> Option<Result<(u64, u64), BadLine>> {
        loop {
            if self.ended {
                return None;
            }
            if let Of::Parquet(rows) = &mut self.rows {
                return match rows.next(record)? {
                    Ok(number) => Some(Ok((number, 0))),
                    Err(reason) => Some(Err(self.cut(0, reason))),
                };
            }
            match self.split(record)? {
                // An empty line, of those that end in CR LF.
                Err(_) if record.len() == 1 && &record[0] == "\r" => {}
                row => return Some(row),
            }
        }
    }

    fn cut(&mut self, line: u64, reason: String) -> BadLine {
        self.ended = true;
        self.cut_short = Some(reason.clone());
        BadLine { line, column: String::new(), value: String::new(), reason, billed: None }
    }

    fn split(&mut self, record: &mut StringRecord) -> Option<Result<(u64, u64), BadLine>> {
        let Of::Csv { csv, taken } = &mut self.rows else { return None };
        let before = csv.position().line();
        let read = csv.read_record(record);
        taken.store(0, Relaxed);
        let broken = |line, value: &str, reason| BadLine {
            line,
            column: String::new(),
            value: shortened(value),
            reason,
            billed: None,
        };
        let after = csv.position().line();
        match read {
            Ok(true) => {}
            Ok(false) => return Some(Err(self.cut(before, OPEN.to_owned()))),
            Err(fault) => {
                let line = fault.position().map_or(before, csv::Position::line);
                return Some(Err(match fault.into_kind() {
                    ErrorKind::Utf8 { err, .. } => {
                        let (place, from) = (err.field(), err.valid_up_to());
                        let column = self.heading.get(place).cloned().unwrap_or_default();
                        let reason = format!("is not UTF-8 from its byte {from} on");
                        BadLine { column, ..broken(line, "", reason) }
                    }
                    ErrorKind::Io(fault) => self.cut(line, fault.to_string()),
                    _ => broken(line, "", "is no CSV".to_owned()),
                }));
            }
        }
        let breaks = record.as_slice().bytes().filter(|byte| *byte == b'\n').count() as u64;
        // The record's own position is that of the empty lines before it.
        let line = after.saturating_sub(breaks + 1);
        let (fields, wanted) = (record.len(), self.heading.len());
        let last = record.get(fields - 1).unwrap_or_default();
        if last == FENCE && fields == 1 {
            self.ended = true;
            return None;
        }
        if last.ends_with(FENCE) {
            // Nothing ends this one.
            return Some(Err(self.cut(line + 1, OPEN.to_owned())));
        }
        if fields != wanted {
            let reason = match breaks {
                0 => format!("has {fields} fields where the heading has {wanted}"),
                breaks => format!(
                    "has {fields} fields where the heading has {wanted}, over {} lines of the \
                     file: is a quote left open?",
                    breaks + 1
                ),
            };
            let first = record.get(0).unwrap_or_default();
            return Some(Err(broken(line, first, reason)));
        }
        Some(Ok((line, breaks)))
    }
}

/// As much of a text as is shown.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

//! Where no bills and no answers are kept.

use std::io::Read;

use domain::finops::{line::Line, report::Format};

use crate::ports::{
    AnswerFault, AnswerTable, Answers, BillFault, BillStore, Lines, Part, ReadBill, Reading,
    Repeats,
};

/// Takes no bill and has no lines.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBills;

impl BillStore for NoBills {
    fn read(&self, _: &mut (dyn Read + Send), _: &Reading) -> Result<ReadBill, BillFault> {
        Err(BillFault::Unavailable("no bills are kept here".to_owned()))
    }

    fn write(&self, _: &mut dyn Iterator<Item = Line>) -> Result<Vec<Part>, BillFault> {
        Err(BillFault::Unavailable("no bills are kept here".to_owned()))
    }

    fn empty(&self) -> Result<String, BillFault> {
        Err(BillFault::Unavailable("no bills are kept here".to_owned()))
    }

    fn repeats(&self, _: &str, _: &[&str]) -> Result<Repeats, BillFault> {
        Err(BillFault::Unavailable("no bills are kept here".to_owned()))
    }

    fn rest(&self, _: &str, _: &[&str]) -> Result<Option<Part>, BillFault> {
        Err(BillFault::Unavailable("no bills are kept here".to_owned()))
    }

    fn lines(&self, digest: &str) -> Result<Lines, BillFault> {
        let reason = "no bills are kept here".to_owned();
        Err(BillFault::Damaged { digest: digest.to_owned(), reason })
    }
}

impl Answers for NoBills {
    fn write(&self, _: &AnswerTable, _: Format) -> Result<Vec<u8>, AnswerFault> {
        Err(AnswerFault("no answers are written here".to_owned()))
    }

    fn keep(&self, _: &[u8]) -> Result<String, AnswerFault> {
        Err(AnswerFault("no answers are kept here".to_owned()))
    }

    fn kept(&self, _: &str) -> Result<Option<Vec<u8>>, AnswerFault> {
        Ok(None)
    }
}

//! Where no bills are kept.

use std::io::Read;

use domain::finops::line::Line;

use crate::ports::{BillFault, BillStore, Lines, Part, ReadBill, Reading, Repeats};

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

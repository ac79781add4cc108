//! Reading bills.

mod finding;
mod input;
mod mapping;
mod parquet;
mod plan;
mod reader;
mod records;
mod statement;
mod value;

pub use finding::{Finding, Rule};
pub use mapping::{Mapping, MappingFault, Source, Term};
pub use reader::{BadLine, Bill, BillFault, Opened, open, read};
pub use statement::{DataSet, Stated};

#[cfg(test)]
mod parquet_tests;
#[cfg(test)]
mod tests;

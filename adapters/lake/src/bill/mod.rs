//! Reading bills.

mod finding;
mod input;
mod mapping;
mod plan;
mod reader;
mod value;

pub use finding::{Finding, Rule};
pub use mapping::{Mapping, MappingFault, Source, Term};
pub use reader::{BadLine, Bill, BillFault, read};

#[cfg(test)]
mod tests;

//! Reading bills.

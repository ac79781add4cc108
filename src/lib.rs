//! skyledger

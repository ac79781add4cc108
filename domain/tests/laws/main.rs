//! What holds for every kind, whatever happens to it; and one golden sample of every event that
//! was ever written.
#![expect(clippy::unwrap_used, reason = "all of this is tests")]

mod deciders;
mod golden;
mod groups;
mod pool;
mod samples;

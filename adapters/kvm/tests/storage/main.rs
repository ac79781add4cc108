//! Storage of a host with its real tools, in folders of the test's own.

mod crash;
mod directory;

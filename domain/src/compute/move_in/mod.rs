//! Machines that others run elsewhere, on their way to hosts of ours.

pub mod machine;

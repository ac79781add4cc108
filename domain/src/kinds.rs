//! LIST 1: every kind.

use crate::kernel::Kind;

/// Every kind, sorted by name.
pub static KINDS: &[Kind] = &[];

/// The kind of this name.
pub fn by_name(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// The kind with this plural.
pub fn by_plural(plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.plural == plural)
}

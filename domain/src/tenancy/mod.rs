//! Who owns, who asks, and with which credentials we reach the clouds.

pub mod cloud_account;
pub mod domain;
pub mod organisation;
pub mod project;
pub mod token;

use std::collections::BTreeMap;

use crate::kernel::{Refusal, codes};

/// The rule for names that people give: 1…100 characters, no control characters, no white space
/// at the ends.
pub(crate) fn check_name(name: &str) -> Result<(), Refusal> {
    let length = name.chars().count();
    if !(1..=100).contains(&length) || name.trim() != name || name.chars().any(char::is_control) {
        return Err(Refusal::new(
            &codes::INVALID_FIELD,
            "name: needs 1 to 100 characters, without white space at its ends",
        ));
    }
    Ok(())
}

/// The rule for changes of tags: 1…50 of them, a name of 1…128 characters that is not Skyledger's
/// own, a value of at most 256; null takes one away.
pub(crate) fn check_tags(tags: &BTreeMap<String, Option<String>>) -> Result<(), Refusal> {
    let no = |why: &str| Err(Refusal::new(&codes::INVALID_FIELD, format!("tags: {why}")));
    if tags.is_empty() || tags.len() > 50 {
        return no("needs 1 to 50 tags");
    }
    for (name, value) in tags {
        if name.is_empty() || name.chars().count() > 128 {
            return no("a name needs 1 to 128 characters");
        }
        if name.starts_with("skyledger:") {
            return no("names that begin with `skyledger:` are Skyledger's own");
        }
        if value.as_ref().is_some_and(|value| value.chars().count() > 256) {
            return no("a value has at most 256 characters");
        }
    }
    Ok(())
}

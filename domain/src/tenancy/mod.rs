//! Who owns, who asks, and with which credentials we reach the clouds.

pub mod cloud_account;
pub mod project;
pub mod token;

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

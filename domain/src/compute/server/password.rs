//! A password of somebody inside a server, set through its guest agent. It is sealed before it comes near
//! a command: events hold the envelope only.

use super::{Event, Power, Server};
use crate::kernel::{Refusal, codes};

/// Longest name of a user, in characters: what Linux and Windows both take is shorter.
const USER_CHARS_MAX: usize = 64;
/// Shortest and longest password, in characters.
const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=128;

/// Who is meant when nobody is named.
pub(super) fn root() -> String {
    "root".to_owned()
}

/// Whether a password can be set at all, asked while it is still in clear.
///
/// # Errors
/// `invalid-field`.
pub fn check_password(password: &str) -> Result<(), Refusal> {
    let long = PASSWORD_CHARS.contains(&password.chars().count());
    if long && !password.chars().any(char::is_control) {
        return Ok(());
    }
    let detail = "password: has 8 to 128 characters, and none that controls";
    Err(Refusal::new(&codes::INVALID_FIELD, detail))
}

impl Server {
    pub(super) fn set_password(
        &self,
        user: String,
        sealed: Option<String>,
    ) -> Result<Vec<Event>, Refusal> {
        self.ours("set-password")?;
        if self.free("set-password")?.power != Power::Running {
            let detail = "its guest agent sets it: start the server first";
            return Err(Refusal::new(&codes::WRONG_STATE, detail));
        }
        let fits = |char: char| char.is_ascii_alphanumeric() || "._-".contains(char);
        let named = !user.is_empty() && user.len() <= USER_CHARS_MAX && !user.starts_with('-');
        if !named || !user.chars().all(fits) {
            let detail =
                "user: has 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`, that last not first";
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        let password = sealed
            .ok_or_else(|| Refusal::new(&codes::INVALID_FIELD, "password: nobody sealed it"))?;
        Ok(vec![Event::PasswordOrdered { user, password }])
    }
}

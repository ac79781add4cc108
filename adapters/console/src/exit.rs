//! Exit codes: what a script may rely on.

/// Why the program ends, as its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// The world failed: the server cannot be reached, a disk is full, an order was parked.
    Fault = 1,
    /// The command line, the configuration or the body does not read.
    Usage = 2,
    /// A rule, or the token's role or reach, said no.
    Refused = 3,
    /// There is no such thing.
    NotFound = 4,
    /// Something else got in between: a stale plan, another revision, a conflict.
    Stale = 5,
    /// A digest, a signature or a proof does not hold.
    Unverified = 6,
    /// The command is in the log; its order was not done within `--wait`.
    TimedOut = 7,
}

impl Exit {
    /// Every code with its meaning, for help and documents.
    pub const ALL: &[(Self, &str)] = &[
        (Self::Ok, "done"),
        (Self::Fault, "the world failed: server unreachable, disk full, order parked"),
        (Self::Usage, "the command line, the configuration or the body does not read"),
        (Self::Refused, "a rule, or the token's role or reach, said no"),
        (Self::NotFound, "there is no such thing"),
        (Self::Stale, "something got in between: stale plan, other revision, conflict"),
        (Self::Unverified, "a digest, a signature or a proof does not hold"),
        (Self::TimedOut, "logged, but its order was not done within --wait"),
    ];

    /// What an HTTP status means to whoever sent the request.
    pub fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Ok,
            400 | 413 | 415 => Self::Usage,
            401 | 403 | 422 => Self::Refused,
            404 => Self::NotFound,
            409 | 412 => Self::Stale,
            _ => Self::Fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_listed_in_order_and_never_renumbered() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|(code, _)| *code as u8).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_status_becomes_the_code_that_scripts_branch_on() {
        let check = |status, exit| assert_eq!(Exit::of_status(status), exit, "{status}");
        check(200, Exit::Ok);
        check(400, Exit::Usage);
        check(403, Exit::Refused);
        check(404, Exit::NotFound);
        check(409, Exit::Stale);
        check(412, Exit::Stale);
        check(422, Exit::Refused);
        check(503, Exit::Fault);
    }
}

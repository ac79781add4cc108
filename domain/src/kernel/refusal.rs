//! A rule's no. An answer for the caller, never a fault of the world.

use std::fmt;

/// A stable code, its page in `docs/refusals.md`, and the HTTP status it becomes.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// Stable, kebab case, never used for anything else again.
    pub code: &'static str,
    /// HTTP status (RFC 9110): 400 malformed, 403 not allowed, 404 not there, 409 conflict with
    /// the present state, 412 stale, 422 refused by a rule.
    pub status: u16,
    /// What happened, in a few words.
    pub title: &'static str,
    /// What to do.
    pub advice: &'static str,
}

/// The rule's no, with the obstacle and its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which rule.
    pub code: &'static Code,
    /// The obstacle, in lower case and without a full stop.
    pub detail: String,
}

impl Refusal {
    /// Refuses.
    pub fn new(code: &'static Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }

    /// Refuses a command that this state does not know.
    pub fn wrong_state(verb: &str, status: &str) -> Self {
        Self::new(&codes::WRONG_STATE, format!("{verb} is not possible while it is {status}"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Refusal {}

macro_rules! codes {
    ($($(#[doc = $advice:literal])+ $name:ident = $code:literal $status:literal $title:literal;)+) => {
        /// Every code, as a constant.
        pub mod codes {
            use super::Code;
            $($(#[doc = $advice])+ pub static $name: Code = Code {
                code: $code, status: $status, title: $title, advice: concat!($($advice),+),
            };)+
        }
        /// Every code there is, sorted: the source of `docs/refusals.md`.
        pub static REFUSALS: &[&Code] = &[$(&codes::$name),+];
    };
}

// Sorted by code. The doc comment is the advice: what the caller should do.
codes! {
    /// Connect the account, or wait until it is verified and not paused.
    ACCOUNT_NOT_READY = "account-not-ready" 409 "the cloud account cannot be used now";
    /// Ask for an address of the network's ranges, or for any.
    ADDRESS_NOT_GIVEN = "address-not-given" 422 "the network does not give this address";
    /// Ask for another address, or for any; or release this one first.
    ADDRESS_TAKEN = "address-taken" 409 "the address is somebody else's";
    /// Another Skyledger resource already stands for this counterpart. Look it up by its external id.
    ALREADY_CLAIMED = "already-claimed" 409 "the counterpart is already mapped";
    /// Use another id, or leave the id out and let the server mint one.
    ALREADY_EXISTS = "already-exists" 409 "this id is already in use";
    /// Give a `reason`: the lines then become a further version of the month.
    BILL_CLOSED = "bill-closed" 409 "the month is closed";
    /// Import what is missing, or close with `accept_difference` when the invoice is wrong.
    BILL_DIFFERS = "bill-differs" 422 "the lines do not come to the invoice's total";
    /// Import with `repeats=skip` when the file repeats what came before, or with `repeats=count`
    /// when its lines only look the same.
    BILL_REPEATS = "bill-repeats" 409 "the bill has lines of this file already";
    /// Wait until who has it open has left it, or ask them to.
    CONSOLE_IN_USE = "console-in-use" 409 "others have the console open";
    /// Ask for another ticket with `open-console`: each opens one console of one server, once, within a
    /// minute.
    CONSOLE_TICKET = "console-ticket" 403 "the ticket opens nothing";
    /// Send the credential of the same account, or connect the other account as a new one.
    CREDENTIAL_OTHER_ACCOUNT = "credential-other-account" 422 "the credential belongs to another account";
    /// Only the newest 31 days of a server take numbers: send them as the days go by.
    DAY_SETTLED = "day-settled" 409 "the day is too long ago";
    /// Join again: nothing may be done in an epoch in which servers of the host were had back elsewhere.
    HOST_FENCED = "host-fenced" 409 "the host was taken to be dead";
    /// Remove what is named in the detail, or what uses it, first.
    IN_USE = "in-use" 409 "something still uses this";
    /// Change the field named in the detail.
    INVALID_FIELD = "invalid-field" 422 "a field breaks a rule";
    /// Look at the host's machines again, and adopt it as it is now.
    MACHINE_CHANGED = "machine-changed" 409 "the machine is not as it was looked at";
    /// Compare the body with the schema of the command in `/openapi.json`.
    MALFORMED_COMMAND = "malformed-command" 400 "the body does not read as this command";
    /// Release an address, widen the network's ranges, or use another network.
    NO_ADDRESS_FREE = "no-address-free" 409 "every address is taken";
    /// Only what is drifted, muted or has a counterpart can be answered; read the resource first.
    NO_DRIFT = "no-drift" 409 "there is no drift to answer";
    /// Define the exchange rate named in the detail, or ask in the currency of the bills.
    NO_EXCHANGE_RATE = "no-exchange-rate" 422 "there is no exchange rate for these costs";
    /// Have an administrator name a kernel and an initramfs for this architecture under `rescue` in the
    /// settings of its host.
    NO_RESCUE_SYSTEM = "no-rescue-system" 409 "its host has no rescue system for it";
    /// Ask for less, free some of what is named in the detail, or add a host.
    NO_ROOM = "no-room" 409 "no host has room for this";
    /// See to what is named in the detail, or look at the host's machines for all that is in the way.
    NOT_ADOPTABLE = "not-adoptable" 422 "something is in the way of having the machine as a server";
    /// Leave out what is named in the detail, or use an interface that its host makes.
    NOT_ENFORCEABLE = "not-enforceable" 422 "nothing could enforce this";
    /// Check the id; add `at` if it was there at another time.
    NOT_FOUND = "not-found" 404 "there is no such resource";
    /// See to what is named in the detail: disks that lie on one host alone keep a server there.
    NOT_MOVABLE = "not-movable" 422 "something keeps the server on its host";
    /// See to what is named in the detail, or look at the account's machines for all that is in the way.
    NOT_MOVABLE_IN = "not-movable-in" 422 "something is in the way of moving the machine here";
    /// Look at the resource: its order is done, or still being worked on.
    NOTHING_PARKED = "nothing-parked" 409 "no order is parked";
    /// Wait until it is done (`Prefer: wait=30`) and send the command again.
    ORDER_OUTSTANDING = "order-outstanding" 409 "an order of this resource is still out";
    /// Send `retry` to go on with it, or `abandon` to give it up, then send the command again.
    ORDER_PARKED = "order-parked" 409 "an order of this resource is parked";
    /// Ask for a token whose projects include this one.
    OUT_OF_REACH = "out-of-reach" 403 "this token does not reach the project";
    /// Change the specification so that it stays within the provider's limit named in the detail.
    PROVIDER_LIMIT = "provider-limit" 422 "the provider does not allow this";
    /// End the rate with `end-rate`, and set another that begins then.
    RATE_IN_EFFECT = "rate-in-effect" 409 "only what has not begun can be changed";
    /// End the re-pricing with `end`, and define another one that begins then.
    REPRICING_IN_EFFECT = "repricing-in-effect" 409 "a re-pricing that has begun cannot be changed";
    /// Ask for a token with a higher role.
    ROLE_TOO_LOW = "role-too-low" 403 "this token's role does not allow it";
    /// Keep one of the rules named in the detail, with the description that is to be.
    RULE_AMBIGUOUS = "rule-ambiguous" 422 "one security group rule has several descriptions";
    /// Correct the rule named in the detail.
    RULE_INVALID = "rule-invalid" 422 "a security group rule is not valid";
    /// Correct the rule of costs named in the detail.
    RULES_INVALID = "rules-invalid" 422 "the rules of costs are not valid";
    /// Stop: another agent works for this host now. Join again only if this one is to take over.
    STALE_EPOCH = "stale-epoch" 409 "the agent was replaced by another";
    /// Use one of the commands named in the detail.
    UNKNOWN_COMMAND = "unknown-command" 404 "this kind has no such command";
    /// Use an account of a provider that has it: see `docs/capabilities.md`.
    UNSUPPORTED = "unsupported" 422 "the provider does not support this";
    /// Change the userdata as the detail says; it runs once, so look at it well.
    USERDATA_INVALID = "userdata-invalid" 422 "the server would not understand this userdata";
    /// Compare the file with what the image says of it, and correct the one or the other; nothing of the file was kept.
    WRONG_FILE = "wrong-file" 422 "the file is not what the image says";
    /// Read the resource and choose a command that fits its status.
    WRONG_STATE = "wrong-state" 409 "the resource's status does not allow this";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_their_pages_complete() {
        let mut seen = std::collections::BTreeSet::new();
        for code in REFUSALS {
            assert!(seen.insert(code.code), "{} is listed twice", code.code);
            assert!((400..500).contains(&code.status), "{}", code.code);
            assert!(code.advice.trim().ends_with('.'), "{} says what to do", code.code);
        }
    }
}

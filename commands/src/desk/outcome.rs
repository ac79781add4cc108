//! What became of a task, as it travels from an agent.

use std::time::Duration;

use domain::kernel::{Caller, OrderKey, Refusal, codes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ports::{DriverFault, Report};

/// With what the names of those verbs begin that report an order: an agent can send no others.
const REPORTS: &str = "confirm";
/// Longest text of a fault, in bytes: what a tool says may be pages.
const TEXT_BYTES_MAX: usize = 8_192;

/// What became of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "TaskOutcome")]
pub enum Outcome {
    /// It was not done.
    Fault(OutcomeFault),
    /// It was done.
    Report {
        /// The verb that reports it.
        verb: String,
        /// Its body.
        body: Value,
    },
}

/// Why a task was not done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "TaskFault")]
pub enum OutcomeFault {
    /// Nothing is known of it.
    Away(String),
    /// It is not allowed.
    Denied(String),
    /// What it is about is not there.
    NotFound(String),
    /// The host says no for good.
    Rejected(String),
    /// Too much at once.
    Throttled {
        /// Not before so many milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// May go away by itself.
    Transient(String),
    /// Makes no sense.
    Unexpected(String),
}

impl From<&Result<Report, DriverFault>> for Outcome {
    fn from(result: &Result<Report, DriverFault>) -> Self {
        use OutcomeFault as F;
        let fault = match result {
            Ok(report) => {
                let (verb, body) = (report.verb.to_owned(), report.body.clone());
                return Self::Report { verb, body };
            }
            Err(DriverFault::Away(why)) => F::Away(cut(why)),
            Err(DriverFault::Denied(why)) => F::Denied(cut(why)),
            Err(DriverFault::NotFound(why)) => F::NotFound(cut(why)),
            Err(DriverFault::Rejected(why)) => F::Rejected(cut(why)),
            Err(DriverFault::Throttled { retry_after }) => F::Throttled {
                retry_after_ms: retry_after.map(|one| one.as_millis().min(3_600_000) as u64),
            },
            Err(DriverFault::Transient(why)) => F::Transient(cut(why)),
            Err(DriverFault::Unexpected(why)) => F::Unexpected(cut(why)),
        };
        Self::Fault(fault)
    }
}

impl Outcome {
    /// As a driver's word.
    ///
    /// # Errors
    /// `invalid-field`: no report of this order's kind.
    pub(super) fn read(self, key: &OrderKey) -> Result<Result<Report, DriverFault>, Refusal> {
        use OutcomeFault as F;
        let fault = match self {
            Self::Report { verb, body } => {
                let kind = domain::kinds::by_name(&key.stream.kind);
                let verb = kind
                    .and_then(|kind| kind.verb(&verb))
                    .filter(|verb| verb.caller == Caller::System && verb.name.starts_with(REPORTS));
                let verb = verb.ok_or_else(|| {
                    let detail = format!("verb: reports no order of a {}", key.stream.kind);
                    Refusal::new(&codes::INVALID_FIELD, detail)
                })?;
                return Ok(Ok(Report { verb: verb.name, body }));
            }
            Self::Fault(fault) => fault,
        };
        Ok(Err(match fault {
            F::Away(why) => DriverFault::Away(cut(&why)),
            F::Denied(why) => DriverFault::Denied(cut(&why)),
            F::NotFound(why) => DriverFault::NotFound(cut(&why)),
            F::Rejected(why) => DriverFault::Rejected(cut(&why)),
            F::Throttled { retry_after_ms } => DriverFault::Throttled {
                retry_after: retry_after_ms.map(|ms| Duration::from_millis(ms.min(3_600_000))),
            },
            F::Transient(why) => DriverFault::Transient(cut(&why)),
            F::Unexpected(why) => DriverFault::Unexpected(cut(&why)),
        }))
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use domain::kernel::StreamId;
    use serde_json::json;

    use super::*;

    fn key() -> OrderKey {
        OrderKey { stream: StreamId::new("server", "x"), number: 1 }
    }

    #[test]
    fn a_driver_s_word_is_the_same_after_its_way() {
        let faults = [
            DriverFault::Away("a".into()),
            DriverFault::Denied("d".into()),
            DriverFault::NotFound("n".into()),
            DriverFault::Rejected("r".into()),
            DriverFault::Throttled { retry_after: Some(Duration::from_millis(5)) },
            DriverFault::Transient("t".into()),
            DriverFault::Unexpected("ü".repeat(TEXT_BYTES_MAX)),
        ];
        for fault in faults {
            let text = serde_json::to_string(&Outcome::from(&Err(fault.clone()))).unwrap();
            let read: Outcome = serde_json::from_str(&text).unwrap();
            let back = read.read(&key()).unwrap().unwrap_err();
            let whole = format!("{fault:?}");
            assert_eq!(format!("{back:?}")[..6], whole[..6]);
            assert!(back.to_string().len() <= TEXT_BYTES_MAX + 20);
        }
        let report = Report { verb: "confirm", body: json!({"number": 1}) };
        let text = serde_json::to_string(&Outcome::from(&Ok(report.clone()))).unwrap();
        let read: Outcome = serde_json::from_str(&text).unwrap();
        assert_eq!(read.read(&key()).unwrap().unwrap(), report);
    }

    #[test]
    fn an_agent_reports_orders_and_sends_nothing_else() {
        for verb in ["park", "vanish", "observe", "launch", "confirmation", ""] {
            let sent = Outcome::Report { verb: verb.to_owned(), body: json!({}) };
            assert_eq!(sent.read(&key()).unwrap_err().code.code, "invalid-field", "{verb}");
        }
        let elsewhere = OrderKey { stream: StreamId::new("nothing", "x"), number: 1 };
        let sent = Outcome::Report { verb: "confirm".to_owned(), body: json!({}) };
        assert!(sent.read(&elsewhere).is_err());
    }
}

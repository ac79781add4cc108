//! What AWS answers when it says no, as the faults that the runner knows.

use commands::ports::DriverFault;
use quick_xml::{Reader, events::Event};

use crate::http_client::Answer;

/// Longest message that is kept: some carry a whole encoded policy decision.
const MESSAGE_CHARS_MAX: usize = 400;

/// A failed call: AWS's own code where there was one, and what it means here.
#[derive(Debug)]
pub(super) struct CallFault {
    /// For instance `InvalidPermission.Duplicate`.
    pub(super) code: Option<String>,
    /// What to tell.
    pub(super) fault: DriverFault,
}

impl CallFault {
    /// Whether AWS answered with this code.
    pub(super) fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

impl From<DriverFault> for CallFault {
    fn from(fault: DriverFault) -> Self {
        Self { code: None, fault }
    }
}

impl From<CallFault> for DriverFault {
    fn from(call: CallFault) -> Self {
        call.fault
    }
}

/// Reads an answer whose status is not 2xx.
pub(super) fn of_answer(action: &str, answer: &Answer) -> CallFault {
    let Some((code, message)) = read(&answer.body) else {
        let status = answer.status;
        let text = format!("{action}: status {status} without an error that reads");
        let fault = match status {
            401 | 403 => DriverFault::Denied(text),
            429 => DriverFault::Throttled { retry_after: answer.retry_after },
            500..=599 => DriverFault::Transient(text),
            _ => DriverFault::Unexpected(text),
        };
        return fault.into();
    };
    let text = format!("{action}: {code}: {message}");
    let fault = match class(&code, answer.status) {
        Class::Throttled => DriverFault::Throttled { retry_after: answer.retry_after },
        Class::Denied => DriverFault::Denied(text),
        Class::NotFound => DriverFault::NotFound(text),
        Class::Transient => DriverFault::Transient(text),
        Class::Rejected => DriverFault::Rejected(text),
    };
    CallFault { code: Some(code), fault }
}

enum Class {
    Throttled,
    Denied,
    NotFound,
    Transient,
    Rejected,
}

/// The code says more than the status: a full request bucket is 400 at one service and 503 at
/// another.
fn class(code: &str, status: u16) -> Class {
    match code {
        "BandwidthLimitExceeded"
        | "EC2ThrottledException"
        | "PriorRequestNotComplete"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "SlowDown"
        | "ThrottledException"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequestsException" => Class::Throttled,
        "AccessDenied"
        | "AccessDeniedException"
        | "AuthFailure"
        | "Blocked"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "NotAuthorized"
        | "OptInRequired"
        | "PendingVerification"
        | "RequestExpired"
        | "SignatureDoesNotMatch"
        | "UnauthorizedOperation"
        | "UnrecognizedClientException" => Class::Denied,
        // Nothing is wrong with what was asked: the next try may come through.
        "ConcurrentTagAccess"
        | "IncorrectInstanceState"
        | "InsufficientInstanceCapacity"
        | "InternalError"
        | "InternalFailure"
        | "RequestTimeout"
        | "ServiceUnavailable"
        | "Unavailable" => Class::Transient,
        "NoSuchBucket" | "NoSuchEntity" | "NoSuchKey" => Class::NotFound,
        code if code.ends_with("NotFound") || code.ends_with("NotFoundException") => {
            Class::NotFound
        }
        _ if status == 429 => Class::Throttled,
        _ if matches!(status, 401 | 403) => Class::Denied,
        _ if status >= 500 => Class::Transient,
        _ => Class::Rejected,
    }
}

/// Code and message of the first `Error` of EC2's, STS's or S3's answer.
fn read(body: &[u8]) -> Option<(String, String)> {
    let mut reader = Reader::from_str(std::str::from_utf8(body).ok()?);
    let (mut inside, mut field) = (false, None);
    let (mut code, mut message) = (String::new(), String::new());
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) => match tag.local_name().as_ref() {
                "Error" => inside = true,
                "Code" if inside => field = Some(true),
                "Message" if inside => field = Some(false),
                _ => field = None,
            },
            Event::Text(text) => add(&mut code, &mut message, field, &text),
            Event::CData(text) => add(&mut code, &mut message, field, &text),
            Event::GeneralRef(reference) => {
                let resolved = match reference.resolve_char_ref() {
                    Ok(Some(character)) => character.to_string(),
                    _ => quick_xml::escape::resolve_predefined_entity(&reference)?.to_owned(),
                };
                add(&mut code, &mut message, field, &resolved);
            }
            Event::End(tag) if tag.local_name().as_ref() == "Error" => break,
            Event::End(_) => field = None,
            Event::Eof => break,
            _ => {}
        }
    }
    let one_line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let message = one_line.chars().take(MESSAGE_CHARS_MAX).collect();
    let code = code.trim().to_owned();
    (!code.is_empty()).then_some((code, message))
}

fn add(code: &mut String, message: &mut String, field: Option<bool>, text: &str) {
    match field {
        Some(true) => code.push_str(text),
        Some(false) => message.push_str(text),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn fault(status: u16, body: &str) -> String {
        let answer = Answer {
            status,
            retry_after: Some(Duration::from_secs(7)),
            token: None,
            cookie: None,
            body: body.as_bytes().to_vec(),
        };
        format!("{:?}", of_answer("DescribeVpcs", &answer).fault)
    }

    fn ec2(status: u16, code: &str) -> String {
        fault(
            status,
            &format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error>\
                 <Code>{code}</Code><Message>The &quot;thing&quot;\n is &#60;so&#62;.</Message>\
                 </Error></Errors><RequestID>ea966190</RequestID></Response>"
            ),
        )
    }

    #[test]
    fn a_code_says_more_than_its_status() {
        let text = "DescribeVpcs";
        let check = |status, code: &str, kind: &str| {
            let message = format!("{kind}(\"{text}: {code}: The \\\"thing\\\" is <so>.\")");
            assert_eq!(ec2(status, code), message);
        };
        check(403, "UnauthorizedOperation", "Denied");
        check(401, "AuthFailure", "Denied");
        check(400, "RequestExpired", "Denied");
        check(400, "InvalidInstanceID.NotFound", "NotFound");
        check(400, "InvalidGroup.NotFound", "NotFound");
        check(400, "InvalidInstanceID.Malformed", "Rejected");
        check(400, "InvalidPermission.Duplicate", "Rejected");
        check(400, "DependencyViolation", "Rejected");
        check(400, "RulesPerSecurityGroupLimitExceeded", "Rejected");
        check(400, "InvalidParameterValue", "Rejected");
        check(500, "InternalError", "Transient");
        check(503, "Unavailable", "Transient");
        check(500, "SomethingNew", "Transient");
    }

    #[test]
    fn throttling_is_known_by_its_code_and_says_how_long_to_wait() {
        let throttled = "Throttled { retry_after: Some(7s) }";
        assert_eq!(ec2(503, "RequestLimitExceeded"), throttled);
        assert_eq!(ec2(503, "SlowDown"), throttled);
        assert_eq!(ec2(400, "Throttling"), throttled);
        assert_eq!(fault(429, "slow down"), throttled);
    }

    #[test]
    fn the_other_shape_of_an_error_reads_too() {
        let body = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error>\
                    <Type>Sender</Type><Code>InvalidClientTokenId</Code>\
                    <Message><![CDATA[The token is invalid.]]></Message></Error>\
                    <RequestId>1</RequestId></ErrorResponse>";
        assert_eq!(
            fault(403, body),
            "Denied(\"DescribeVpcs: InvalidClientTokenId: The token is invalid.\")"
        );
    }

    #[test]
    fn a_page_that_is_no_error_counts_by_its_status() {
        let page = "<!doctype html><title>Gateway</title><h1>Bad</h1>";
        assert!(fault(502, page).starts_with("Transient"));
        assert!(fault(403, page).starts_with("Denied"));
        assert!(fault(404, page).starts_with("Unexpected"));
        assert!(fault(400, "<Response><Errors>").starts_with("Unexpected"));
    }
}

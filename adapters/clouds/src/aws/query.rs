//! One signed call of the EC2 / STS Query protocol: a form goes out, XML comes back.

use std::{fmt::Write, time::SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use commands::ports::{DriverFault, Pace};
use quick_xml::{Reader, events::Event};
use serde::de::DeserializeOwned;

use super::{
    credential::Keys,
    endpoint::{self, Service},
    fault::{self, CallFault},
};
use crate::http_client::HttpClient;

const CONTENT_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// The fields of a call, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Adds a field.
    pub(super) fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// With one more field.
    pub(super) fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.add(name, value);
        self
    }

    /// As it goes over the wire. A space is `+` (the form's own spelling): what checks a signature
    /// after decoding the form, as some stand-ins do, writes it so.
    pub(super) fn encode(&self) -> String {
        let mut out = String::new();
        for (name, value) in &self.0 {
            if !out.is_empty() {
                out.push('&');
            }
            encode(name, &mut out);
            out.push('=');
            encode(value, &mut out);
        }
        out
    }
}

/// The name of a document's outermost element.
pub(super) fn root(xml: &str) -> Option<String> {
    let mut reader = Reader::from_str(xml);
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) | Event::Empty(tag) => {
                return Some(tag.local_name().as_ref().to_owned());
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
}

/// What makes calls in the name of one credential.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) http: &'a HttpClient,
    pub(super) keys: Keys,
    pub(super) endpoint: Option<&'a str>,
    /// The region that answers what belongs to no region.
    pub(super) home: String,
    pub(super) pace: &'a dyn Pace,
}

impl Session<'_> {
    /// One call of EC2 in a region.
    pub(super) async fn ec2<T: DeserializeOwned>(
        &self,
        region: &str,
        action: &str,
        form: Form,
    ) -> Result<T, CallFault> {
        self.call(Service::Ec2, region, action, form).await
    }

    /// One call, at the account's pace.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        service: Service,
        region: &str,
        action: &str,
        form: Form,
    ) -> Result<T, CallFault> {
        self.pace.ticket().await;
        let done = self.call_now(service, region, action, form).await;
        self.pace.learn(done.as_ref().err().map(|call| &call.fault));
        done
    }

    async fn call_now<T: DeserializeOwned>(
        &self,
        service: Service,
        region: &str,
        action: &str,
        form: Form,
    ) -> Result<T, CallFault> {
        if !endpoint::is_region(region) {
            return Err(DriverFault::Rejected(format!("`{region}` is no region of AWS")).into());
        }
        let mut fields = Form::default().with("Action", action).with("Version", service.version());
        fields.0.extend(form.0);
        let url = endpoint::url(self.endpoint, service, region);
        let request = signed(&self.keys, service, region, &url, fields.encode())?;
        let answer = self.http.send(request).await.map_err(|fault| match fault {
            DriverFault::Transient(why) => DriverFault::Transient(format!("{action}: {why}")),
            other => other,
        })?;
        if !(200..300).contains(&answer.status) {
            return Err(self.redacted(fault::of_answer(action, &answer)));
        }
        let body = std::str::from_utf8(&answer.body)
            .map_err(|_| DriverFault::Unexpected(format!("{action}: the answer is not UTF-8")))?;
        // Serde takes any root. Another page, a login form say, must never read as an answer in
        // which everything is missing.
        if root(body).as_deref() != Some(&format!("{action}Response")) {
            return Err(DriverFault::Unexpected(format!(
                "{action}: the answer is none to this call"
            ))
            .into());
        }
        quick_xml::de::from_str(body).map_err(|error| {
            DriverFault::Unexpected(format!("{action}: the answer does not read: {error}")).into()
        })
    }

    /// Without our secrets.
    pub(super) fn redacted(&self, call: CallFault) -> CallFault {
        let clean = |text: String| self.keys.redact(&text);
        let fault = match call.fault {
            DriverFault::Away(text) => DriverFault::Away(clean(text)),
            DriverFault::Transient(text) => DriverFault::Transient(clean(text)),
            DriverFault::Denied(text) => DriverFault::Denied(clean(text)),
            DriverFault::NotFound(text) => DriverFault::NotFound(clean(text)),
            DriverFault::Rejected(text) => DriverFault::Rejected(clean(text)),
            DriverFault::Unexpected(text) => DriverFault::Unexpected(clean(text)),
            throttled @ DriverFault::Throttled { .. } => throttled,
        };
        CallFault { fault, ..call }
    }
}

/// Signs the bytes that will be sent (AWS Signature Version 4).
fn signed(
    keys: &Keys,
    service: Service,
    region: &str,
    url: &str,
    body: String,
) -> Result<http::Request<Vec<u8>>, DriverFault> {
    let request = http::Request::post(url)
        .header(http::header::CONTENT_TYPE, CONTENT_TYPE)
        .body(body.into_bytes())
        .map_err(|error| cannot(&error))?;
    let (scope, settings) = ((service, region), SigningSettings::default());
    sign_request(keys, scope, settings, SystemTime::now(), request)
}

fn cannot(why: &dyn std::error::Error) -> DriverFault {
    DriverFault::Unexpected(format!("the call cannot be signed: {why}"))
}

/// Signs a request, its content type if it has one, and its body for a service in a region.
pub(super) fn sign_request(
    keys: &Keys,
    (service, region): (Service, &str),
    settings: SigningSettings,
    time: SystemTime,
    mut request: http::Request<Vec<u8>>,
) -> Result<http::Request<Vec<u8>>, DriverFault> {
    let identity = Credentials::new(
        &keys.access_key_id,
        &keys.secret_access_key,
        keys.session_token.clone(),
        None,
        "skyledger",
    )
    .into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service.name())
        .time(time)
        .settings(settings)
        .build()
        .map_err(|error| cannot(&error))?
        .into();
    let url = request.uri().to_string();
    let headers = request
        .headers()
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let body = SignableBody::Bytes(request.body());
    let signable = SignableRequest::new(request.method().as_str(), url, headers, body)
        .map_err(|error| cannot(&error))?;
    let (instructions, _) = sign(signable, &params).map_err(|error| cannot(&error))?.into_parts();
    instructions.apply_to_request_http1x(&mut request);
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_goes_out_as_a_plus_and_everything_else_by_its_bytes() {
        let form = Form::default().with("Tag.1.Value", "a b+c/é~*").with("N", "");
        assert_eq!(form.encode(), "Tag.1.Value=a+b%2Bc%2F%C3%A9~%2A&N=");
    }

    #[test]
    fn a_signature_names_its_scope_and_carries_the_token() {
        let keys = Keys {
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: "secret".into(),
            session_token: Some("token".into()),
        };
        let request =
            signed(&keys, Service::Ec2, "eu-west-1", "http://127.0.0.1:1/", "A=1".into()).unwrap();
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        let authorization = header("authorization");
        assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"));
        assert!(authorization.contains("/eu-west-1/ec2/aws4_request"));
        assert!(authorization.contains("SignedHeaders=content-type;host;x-amz-date;"));
        assert_eq!(header("x-amz-security-token"), "token");
        assert_eq!(header("content-type"), CONTENT_TYPE);
    }
}

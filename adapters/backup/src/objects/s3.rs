//! S3, and what speaks as it does.
//!
//! The bucket is named in the path, which every such store takes. A call that may come to something
//! when it is made again is made again a few times, which harms nothing: each puts the same thing in
//! the same place. Bodies are signed, so the store takes no other bytes than were sent.

pub mod uploads;

use std::{
    error::Error,
    fmt::{self, Write as _},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::Method;
use reqwest::{Certificate, Client, redirect};
use serde::Deserialize;

use super::{Listed, Objects};
use crate::fault::Fault;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a whole answer: 16 MiB over a line of 2 Mbit/s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// Largest answer that is read: a manifest of the largest disk.
const BODY_BYTES_MAX: u64 = 512 << 20;
/// Objects of one page: the most that S3 gives.
const PAGE_SIZE: u32 = 1_000;
/// How often one call is made, and how long it waits after its first failure; then twice as long.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);
/// Longest part of a store's own words that is shown.
const SAID_MAX: usize = 300;

/// Which bucket, where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Where the store is, such as `https://s3.example.com:9000`; none is AWS.
    pub endpoint: Option<String>,
    /// The region that calls are signed for.
    pub region: String,
    /// Its name.
    pub name: String,
    /// What all keys begin with, such as `skyledger/`; may be empty.
    pub prefix: String,
}

/// Who asks.
#[derive(Clone)]
pub struct Keys {
    /// The key's id.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: String,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.access_key_id).finish()
    }
}

/// A bucket over the network.
#[derive(Debug)]
pub struct S3 {
    http: Client,
    bucket: Bucket,
    keys: Keys,
    pause: Duration,
    page_size: u32,
}

/// One call to be.
struct Call<'a> {
    action: &'static str,
    method: Method,
    key: &'a str,
    query: Vec<(&'static str, String)>,
    header: Option<(&'static str, String)>,
    body: Bytes,
}

impl<'a> Call<'a> {
    fn new(action: &'static str, method: Method, key: &'a str) -> Self {
        Self { action, method, key, query: Vec::new(), header: None, body: Bytes::new() }
    }
}

struct Answer {
    bytes: u64,
    /// The store's name for what it has.
    tag: Option<String>,
    body: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    is_truncated: bool,
    #[serde(default)]
    next_continuation_token: Option<String>,
    #[serde(default)]
    contents: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    key: String,
    size: u64,
    last_modified: DateTime<Utc>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Refused {
    code: String,
    message: String,
}

fn encode(text: &str, keep: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric()
            || b"-._~".contains(&byte)
            || keep.as_bytes().contains(&byte)
        {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// The name of a document's outermost element.
fn root(body: &str) -> &str {
    let body = body.trim_start();
    let body = body.split_once("?>").map_or(body, |(_, rest)| rest).trim_start();
    let name = body.strip_prefix('<').unwrap_or_default();
    name.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default()
}

impl S3 {
    /// A bucket; nobody is asked yet.
    ///
    /// # Errors
    /// When this machine cannot make a client.
    pub fn new(bucket: Bucket, keys: Keys) -> Result<Self, Fault> {
        // A second installation is refused, and that is fine: there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .user_agent(concat!("skyledger/", env!("CARGO_PKG_VERSION")));
        // Without TLS no root certificates are needed, which a machine may not have.
        if bucket.endpoint.as_ref().is_some_and(|url| url.starts_with("http:")) {
            builder = builder.tls_certs_only(std::iter::empty::<Certificate>());
        }
        let http = builder.build().map_err(|error| Fault::Unexpected {
            what: "the HTTP client cannot be made".to_owned(),
            why: chain(&error),
        })?;
        Ok(Self { http, bucket, keys, pause: PAUSE, page_size: PAGE_SIZE })
    }

    /// With another pause after a call's first failure.
    #[must_use]
    pub fn with_pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// With so many objects on a page of a listing.
    #[must_use]
    pub fn with_page_size(mut self, page_size: u32) -> Self {
        self.page_size = page_size;
        self
    }

    fn url(&self, call: &Call<'_>) -> String {
        let mut url = match &self.bucket.endpoint {
            Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
            None => format!("https://s3.{}.amazonaws.com", self.bucket.region),
        };
        url.push('/');
        encode(&self.bucket.name, "", &mut url);
        if !call.key.is_empty() {
            url.push('/');
            encode(&self.bucket.prefix, "/", &mut url);
            encode(call.key, "/", &mut url);
        }
        for (place, (name, value)) in call.query.iter().enumerate() {
            url.push(if place == 0 { '?' } else { '&' });
            encode(name, "", &mut url);
            url.push('=');
            encode(value, "", &mut url);
        }
        url
    }

    fn signed(&self, call: &Call<'_>) -> Result<http::Request<Bytes>, Fault> {
        let cannot = |error: &dyn fmt::Display| Fault::Unexpected {
            what: call.action.to_owned(),
            why: format!("this cannot be asked for: {error}"),
        };
        let mut request = http::Request::builder().method(call.method.clone()).uri(self.url(call));
        if let Some((name, value)) = &call.header {
            request = request.header(*name, value);
        }
        let mut request = request.body(call.body.clone()).map_err(|error| cannot(&error))?;
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        let (id, secret) = (&self.keys.access_key_id, &self.keys.secret_access_key);
        let identity = Credentials::new(id, secret, None, None, "skyledger").into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.bucket.region)
            .name("s3")
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .map_err(|error| cannot(&error))?
            .into();
        let url = request.uri().to_string();
        let headers = request.headers().iter();
        let headers =
            headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let body = SignableBody::Bytes(request.body());
        let signable = SignableRequest::new(request.method().as_str(), url, headers, body)
            .map_err(|error| cannot(&error))?;
        let (instructions, _) =
            sign(signable, &params).map_err(|error| cannot(&error))?.into_parts();
        instructions.apply_to_request_http1x(&mut request);
        Ok(request)
    }

    /// One call, again when it may come to something; none when what it names is not there.
    async fn call(&self, call: Call<'_>) -> Result<Option<Answer>, Fault> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.once(&call).await {
                Err(fault) if fault.is_transient() && tries < TRIES => {
                    tracing::debug!(%fault, tries, "a call to the backup store is made again");
                    tokio::time::sleep(self.pause * 2_u32.pow(tries - 1)).await;
                }
                done => return done,
            }
        }
    }

    async fn once(&self, call: &Call<'_>) -> Result<Option<Answer>, Fault> {
        let what = || format!("{} {}", call.action, call.key).trim_end().to_owned();
        let unreachable = |why: String| Fault::Unreachable { what: what(), why };
        let broken = |error: reqwest::Error| {
            let why = if error.is_timeout() {
                "no answer in time".to_owned()
            } else {
                chain(&error.without_url())
            };
            unreachable(why)
        };
        let (parts, body) = self.signed(call)?.into_parts();
        let request = self.http.request(parts.method, parts.uri.to_string()).headers(parts.headers);
        let mut response = request.body(body).send().await.map_err(broken)?;
        let status = response.status().as_u16();
        let header = response.headers().get(http::header::CONTENT_LENGTH);
        let bytes = header.and_then(|value| value.to_str().ok()?.parse().ok());
        let header = response.headers().get(http::header::ETAG);
        let tag = header.and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let mut body = Vec::new();
        if call.method != Method::HEAD {
            while let Some(piece) = response.chunk().await.map_err(broken)? {
                body.extend_from_slice(&piece);
                if body.len() as u64 > BODY_BYTES_MAX {
                    let why = format!("the answer is larger than {BODY_BYTES_MAX} bytes");
                    return Err(Fault::Unexpected { what: what(), why });
                }
            }
        }
        if (200..300).contains(&status) {
            let bytes = bytes.unwrap_or(body.len() as u64);
            return Ok(Some(Answer { bytes, tag, body }));
        }
        let text = String::from_utf8_lossy(&body);
        let Refused { code, message } = quick_xml::de::from_str(&text).unwrap_or_default();
        let mut why = format!("{status} {code} {message}").trim_end().to_owned();
        why.truncate(why.floor_char_boundary(SAID_MAX));
        Err(match (status, code.as_str()) {
            // An answer without a body, to HEAD, says nothing of which.
            (404, "NoSuchKey" | "" | "NotFound") => return Ok(None),
            (401 | 403, _) => Fault::Denied { what: what(), why },
            (404, "NoSuchBucket") => Fault::Denied { what: what(), why },
            (408 | 429 | 500.., _) | (_, "RequestTimeout" | "SlowDown") => unreachable(why),
            _ => Fault::Unexpected { what: what(), why },
        })
    }
}

#[async_trait]
impl Objects for S3 {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), Fault> {
        let call = Call { body: bytes, ..Call::new("PutObject", Method::PUT, key) };
        let what = format!("PutObject {key}");
        let nowhere =
            || Fault::Unexpected { what, why: "the store has no place for it".to_owned() };
        self.call(call).await?.ok_or_else(nowhere).map(drop)
    }

    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<bool, Fault> {
        let header = Some(("if-none-match", "*".to_owned()));
        let call = Call { body: bytes, header, ..Call::new("PutObject", Method::PUT, key) };
        match self.call(call).await {
            Ok(_) => Ok(true),
            Err(Fault::Unexpected { why, .. }) if why.starts_with("412") => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, Fault> {
        let answer = self.call(Call::new("GetObject", Method::GET, key)).await?;
        Ok(answer.map(|answer| answer.body.into()))
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, Fault> {
        let answer = self.call(Call::new("HeadObject", Method::HEAD, key)).await?;
        Ok(answer.map(|answer| answer.bytes))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Fault> {
        const ACTION: &str = "ListObjectsV2";
        let odd = |why: &str| Fault::Unexpected { what: ACTION.to_owned(), why: why.to_owned() };
        let whole = format!("{}{prefix}", self.bucket.prefix);
        let (mut listed, mut next) = (Vec::new(), None::<String>);
        loop {
            let mut query =
                vec![("list-type", "2".to_owned()), ("max-keys", self.page_size.to_string())];
            query.push(("prefix", whole.clone()));
            query.extend(next.take().map(|token| ("continuation-token", token)));
            // A signature has them in their order.
            query.sort_unstable();
            let call = Call { query, ..Call::new(ACTION, Method::GET, "") };
            let answer = self.call(call).await?.ok_or_else(|| odd("there is no such bucket"))?;
            let body = std::str::from_utf8(&answer.body).map_err(|_| odd("it is not UTF-8"))?;
            // Another page must never read as an empty bucket: what is not listed is not needed.
            if root(body) != "ListBucketResult" {
                return Err(odd("the answer is none to this call"));
            }
            let page: Page = quick_xml::de::from_str(body)
                .map_err(|error| odd(&format!("the answer does not read: {error}")))?;
            for Entry { key, size: bytes, last_modified: modified } in page.contents {
                let key = key.strip_prefix(&self.bucket.prefix).unwrap_or(&key).to_owned();
                listed.push(Listed { key, bytes, modified });
            }
            match (page.is_truncated, page.next_continuation_token) {
                (false, _) => return Ok(listed),
                (true, Some(token)) => next = Some(token),
                (true, None) => return Err(odd("there is more, and no word of where")),
            }
        }
    }

    async fn delete(&self, key: &str) -> Result<(), Fault> {
        self.call(Call::new("DeleteObject", Method::DELETE, key)).await.map(drop)
    }
}

/// An error and what it came from, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_out_by_its_bytes_below_the_prefix() {
        let bucket = Bucket {
            endpoint: Some("http://127.0.0.1:9000/".into()),
            region: "eu-central-1".into(),
            name: "b".into(),
            prefix: "a b/".into(),
        };
        let keys = Keys { access_key_id: "id".into(), secret_access_key: "secret".into() };
        assert!(!format!("{keys:?}").contains("secret"));
        let s3 = S3::new(bucket, keys).unwrap();
        let call = Call::new("GetObject", Method::GET, "chunks/ä");
        assert_eq!(s3.url(&call), "http://127.0.0.1:9000/b/a%20b/chunks/%C3%A4");
        let query = vec![("prefix", "a/+".to_owned())];
        let call = Call { query, ..Call::new("ListObjectsV2", Method::GET, "") };
        assert_eq!(s3.url(&call), "http://127.0.0.1:9000/b?prefix=a%2F%2B");
    }

    #[test]
    fn the_outermost_element_is_found_behind_the_declaration() {
        assert_eq!(root("<?xml version=\"1.0\"?>\n<Copy xmlns=\"a\">"), "Copy");
        assert_eq!(root("<Error/>"), "Error");
        assert_eq!(root("nothing"), "");
    }
}

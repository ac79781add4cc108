//! Objects that are too large for one call: put in parts, and there when all of them are.
//!
//! An upload has an id of its own. Until it is completed nothing of it is seen under its key, and two of
//! one key do not meet. What is neither completed nor broken off stays, and costs room, until somebody
//! looks for it: [`S3::uploads`].

use std::{fmt::Write as _, time::Duration};

use aws_sigv4::http_request::{SignatureLocation, UriPathNormalizationMode};

use super::{
    Bytes, Call, Credentials, DateTime, Deserialize, Fault, Method, PayloadChecksumKind,
    PercentEncodingMode, S3, SignableBody, SignableRequest, SigningSettings, SystemTime, Utc, root,
    sign, v4,
};
use crate::objects::Objects;

/// How large a part is, but for the last: at least 5 MiB, and a store takes 10,000 of them.
pub const PART_BYTES: usize = 16 << 20;

/// An upload that is neither completed nor broken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The key that the object will have.
    pub key: String,
    /// The upload's own id.
    pub id: String,
    /// When it was begun, by the store's clock.
    pub begun: DateTime<Utc>,
}

/// A part that the store has: its number, from 1, and the store's name for what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    number: usize,
    tag: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Begun {
    upload_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    is_truncated: bool,
    #[serde(default)]
    next_key_marker: Option<String>,
    #[serde(default)]
    next_upload_id_marker: Option<String>,
    #[serde(default)]
    upload: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    key: String,
    upload_id: String,
    initiated: DateTime<Utc>,
}

fn odd(what: &str, why: impl Into<String>) -> Fault {
    Fault::Unexpected { what: what.to_owned(), why: why.into() }
}

/// A document that this call is answered with, and no other.
fn read<'de, T: Deserialize<'de>>(what: &str, wanted: &str, body: &'de [u8]) -> Result<T, Fault> {
    let body = std::str::from_utf8(body).map_err(|_| odd(what, "it is not UTF-8"))?;
    if root(body) != wanted {
        return Err(odd(what, "the answer is none to this call"));
    }
    let read = quick_xml::de::from_str(body);
    read.map_err(|error| odd(what, format!("the answer does not read: {error}")))
}

impl S3 {
    /// Begins to put an object in parts; gives the upload's id.
    ///
    /// # Errors
    /// The store's.
    pub async fn begin(&self, key: &str) -> Result<String, Fault> {
        const ACTION: &str = "CreateMultipartUpload";
        let query = vec![("uploads", String::new())];
        let call = Call { query, ..Call::new(ACTION, Method::POST, key) };
        let answer =
            self.call(call).await?.ok_or_else(|| odd(ACTION, "there is no such bucket"))?;
        let begun: Begun = read(ACTION, "InitiateMultipartUploadResult", &answer.body)?;
        Ok(begun.upload_id)
    }

    /// Puts a part; numbers begin with 1.
    ///
    /// # Errors
    /// The store's; also when the upload was broken off meanwhile.
    pub async fn put_part(
        &self,
        key: &str,
        upload: &str,
        number: usize,
        bytes: Bytes,
    ) -> Result<Part, Fault> {
        const ACTION: &str = "UploadPart";
        let query = vec![("partNumber", number.to_string()), ("uploadId", upload.to_owned())];
        let call = Call { query, body: bytes, ..Call::new(ACTION, Method::PUT, key) };
        let answer =
            self.call(call).await?.ok_or_else(|| odd(ACTION, "there is no such upload"))?;
        let tag = answer.tag.ok_or_else(|| odd(ACTION, "the part has no tag"))?;
        Ok(Part { number, tag })
    }

    /// Makes the object of its parts.
    ///
    /// # Errors
    /// The store's. The object may be there all the same.
    pub async fn complete(&self, key: &str, upload: &str, parts: &[Part]) -> Result<(), Fault> {
        const ACTION: &str = "CompleteMultipartUpload";
        let mut body = "<CompleteMultipartUpload>".to_owned();
        for Part { number, tag } in parts {
            let tag = quick_xml::escape::escape(tag.as_str());
            let _ =
                write!(body, "<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>");
        }
        body.push_str("</CompleteMultipartUpload>");
        let query = vec![("uploadId", upload.to_owned())];
        let call = Call { query, body: body.into(), ..Call::new(ACTION, Method::POST, key) };
        let answer =
            self.call(call).await?.ok_or_else(|| odd(ACTION, "there is no such upload"))?;
        // The store may say only in the body that it could not.
        let said = String::from_utf8_lossy(&answer.body);
        match root(&said) {
            "CompleteMultipartUploadResult" => Ok(()),
            _ => Err(odd(ACTION, said.chars().take(300).collect::<String>())),
        }
    }

    /// Breaks an upload off: its parts are gone. That there is none is the same end.
    ///
    /// # Errors
    /// The store's.
    pub async fn abort(&self, key: &str, upload: &str) -> Result<(), Fault> {
        let query = vec![("uploadId", upload.to_owned())];
        let call = Call { query, ..Call::new("AbortMultipartUpload", Method::DELETE, key) };
        match self.call(call).await {
            Ok(_) => Ok(()),
            Err(Fault::Unexpected { why, .. }) if why.starts_with("404 NoSuchUpload") => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// The uploads of keys that begin so, that are neither completed nor broken off.
    ///
    /// # Errors
    /// The store's.
    pub async fn uploads(&self, prefix: &str) -> Result<Vec<Upload>, Fault> {
        const ACTION: &str = "ListMultipartUploads";
        let (mut found, mut next) = (Vec::new(), None::<(String, String)>);
        loop {
            let mut query = vec![
                ("prefix", format!("{}{prefix}", self.bucket.prefix)),
                ("uploads", String::new()),
            ];
            if let Some((key, upload)) = next.take() {
                query.push(("key-marker", key));
                query.push(("upload-id-marker", upload));
            }
            // A signature has them in their order.
            query.sort_unstable();
            let call = Call { query, ..Call::new(ACTION, Method::GET, "") };
            let answer = self.call(call).await?;
            let answer = answer.ok_or_else(|| odd(ACTION, "there is no such bucket"))?;
            let page: Page = read(ACTION, "ListMultipartUploadsResult", &answer.body)?;
            for Entry { key, upload_id: id, initiated: begun } in page.upload {
                // A store that does not look at the prefix lists others' as well.
                let Some(key) = key.strip_prefix(&self.bucket.prefix) else { continue };
                if key.starts_with(prefix) {
                    found.push(Upload { key: key.to_owned(), id, begun });
                }
            }
            match (page.is_truncated, page.next_key_marker, page.next_upload_id_marker) {
                (false, ..) => return Ok(found),
                (true, Some(key), Some(upload)) => next = Some((key, upload)),
                _ => return Err(odd(ACTION, "there is more, and no word of where")),
            }
        }
    }

    /// An address that gives whoever has it this object and nothing else, for so long.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn address(&self, key: &str, valid: Duration) -> Result<String, Fault> {
        let cannot =
            |error: &dyn std::fmt::Display| odd("GetObject", format!("not signed: {error}"));
        let url = self.url(&Call::new("GetObject", Method::GET, key));
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(valid);
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
        let body = SignableBody::UnsignedPayload;
        let signable = SignableRequest::new("GET", url.as_str(), std::iter::empty(), body);
        let signable = signable.map_err(|error| cannot(&error))?;
        let (instructions, _) =
            sign(signable, &params).map_err(|error| cannot(&error))?.into_parts();
        let mut request =
            http::Request::builder().uri(url).body(()).map_err(|error| cannot(&error))?;
        instructions.apply_to_request_http1x(&mut request);
        Ok(request.uri().to_string())
    }

    /// Puts what comes as one object, in parts where it is large; false when it was broken off, and
    /// nothing of it is kept. At most one part is in memory.
    ///
    /// # Errors
    /// The store's: nothing of it is kept, as far as the store is reached.
    pub async fn put_pieces(
        &self,
        key: &str,
        pieces: &mut (dyn futures::Stream<Item = Option<Vec<u8>>> + Send + Unpin),
    ) -> Result<bool, Fault> {
        let Some((first, more)) = part(pieces).await else { return Ok(false) };
        if !more {
            return self.put(key, first).await.map(|()| true);
        }
        let upload = self.begin(key).await?;
        let done = self.put_parts(key, &upload, first, pieces).await;
        if !matches!(done, Ok(true))
            && let Err(fault) = self.abort(key, &upload).await
        {
            tracing::warn!(%fault, key, "parts of an upload are left for the next sweep");
        }
        match done {
            // The answer to a completion may have been lost.
            Err(fault) if self.is_there(key, &fault).await => Ok(true),
            done => done,
        }
    }

    async fn put_parts(
        &self,
        key: &str,
        upload: &str,
        first: Bytes,
        pieces: &mut (dyn futures::Stream<Item = Option<Vec<u8>>> + Send + Unpin),
    ) -> Result<bool, Fault> {
        let mut parts = vec![self.put_part(key, upload, 1, first).await?];
        loop {
            let Some((bytes, more)) = part(pieces).await else { return Ok(false) };
            // The one before was the last, and full.
            if !bytes.is_empty() {
                let number = parts.len() + 1;
                parts.push(self.put_part(key, upload, number, bytes).await?);
            }
            if !more {
                return self.complete(key, upload, &parts).await.map(|()| true);
            }
        }
    }

    /// Whether an upload that the store does not know any more was completed.
    async fn is_there(&self, key: &str, fault: &Fault) -> bool {
        let Fault::Unexpected { what, why } = fault else { return false };
        what.starts_with("CompleteMultipartUpload")
            && why.starts_with("404 NoSuchUpload")
            && matches!(self.size(key).await, Ok(Some(_)))
    }
}

/// The next part, and whether there may be more; none when it was broken off.
async fn part(
    pieces: &mut (dyn futures::Stream<Item = Option<Vec<u8>>> + Send + Unpin),
) -> Option<(Bytes, bool)> {
    use futures::StreamExt as _;
    let mut part = Vec::new();
    while part.len() < PART_BYTES {
        match pieces.next().await {
            None => return Some((part.into(), false)),
            Some(piece) => part.extend_from_slice(&piece?),
        }
    }
    Some((part.into(), true))
}

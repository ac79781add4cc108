//! S3, and what speaks as it does: listing a bucket and reading its files.
//!
//! A bucket is named in the path, which every such store takes. A file is asked for as it was
//! listed (`If-Match`), and its bytes are counted: what is shorter than was listed is no file.

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SigningSettings, UriPathNormalizationMode,
};
use commands::ports::{Access, Bucket, DriverFault, FilePage, Files, Pieces};
use domain::finops::bill_source::File;
use futures::StreamExt;
use serde::Deserialize;

use super::{
    Aws,
    endpoint::{self, Service},
    fault::{self, CallFault},
    query::{self, Session},
};
use crate::http_client::Answer;

/// Files of one page: the most that S3 gives.
const PAGE_SIZE: usize = 1_000;
/// The next piece of a file must have come by then.
const PIECE_PATIENCE: Duration = Duration::from_mins(1);

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
    #[serde(rename = "ETag")]
    etag: String,
    last_modified: String,
}

fn encode(text: &str, keep: &str, out: &mut String) {
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if plain || keep.as_bytes().contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// A call, and what it answers while its body is still to come.
struct Call<'a> {
    session: &'a Session<'a>,
    bucket: &'a Bucket,
    action: &'static str,
}

impl Call<'_> {
    fn region(&self) -> &str {
        self.bucket.region.as_deref().unwrap_or(&self.session.home)
    }

    /// Asks for something in the bucket, at the account's pace. What is not 2xx is a fault.
    async fn get(
        &self,
        key: &str,
        query: &[(&str, &str)],
        if_match: Option<&str>,
    ) -> Result<crate::http_client::Coming, CallFault> {
        self.session.pace.ticket().await;
        let done = self.get_now(key, query, if_match).await;
        self.session.pace.learn(done.as_ref().err().map(|call| &call.fault));
        done
    }

    async fn get_now(
        &self,
        key: &str,
        query: &[(&str, &str)],
        if_match: Option<&str>,
    ) -> Result<crate::http_client::Coming, CallFault> {
        let region = self.region();
        if self.bucket.endpoint.is_none() && !endpoint::is_region(region) {
            return Err(DriverFault::Rejected(format!("`{region}` is no region of AWS")).into());
        }
        let mut url = endpoint::url(self.bucket.endpoint.as_deref(), Service::S3, region);
        encode(&self.bucket.name, "", &mut url);
        if !key.is_empty() {
            url.push('/');
            encode(key, "/", &mut url);
        }
        for (place, (name, value)) in query.iter().enumerate() {
            url.push(if place == 0 { '?' } else { '&' });
            encode(name, "", &mut url);
            url.push('=');
            encode(value, "", &mut url);
        }
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        let mut request = http::Request::get(&url);
        if let Some(etag) = if_match {
            request = request.header(http::header::IF_MATCH, etag);
        }
        let request = request.body(Vec::new()).map_err(|error| {
            DriverFault::Rejected(format!("{}: this cannot be asked for: {error}", self.action))
        })?;
        let scope = (Service::S3, region);
        let request =
            query::sign_request(&self.session.keys, scope, settings, SystemTime::now(), request)?;
        let coming = self.session.http.open(request).await.map_err(|fault| self.named(fault))?;
        if (200..300).contains(&coming.status) {
            return Ok(coming);
        }
        let answer = coming.whole().await.map_err(|fault| self.named(fault))?;
        Err(self.session.redacted(self.refused(&answer)))
    }

    fn refused(&self, answer: &Answer) -> CallFault {
        if answer.status == 412 {
            let what = format!("{}: the file has changed since it was listed", self.action);
            return DriverFault::Transient(what).into();
        }
        fault::of_answer(self.action, answer)
    }

    fn named(&self, fault: DriverFault) -> DriverFault {
        match fault {
            DriverFault::Transient(why) => {
                DriverFault::Transient(format!("{}: {why}", self.action))
            }
            other => other,
        }
    }
}

#[async_trait]
impl Files for Aws {
    async fn list(
        &self,
        access: &Access,
        bucket: &Bucket,
        prefix: &str,
        page: Option<&str>,
    ) -> Result<FilePage, DriverFault> {
        const ACTION: &str = "ListObjectsV2";
        let session = self.session(access).await?;
        let call = Call { session: &session, bucket, action: ACTION };
        let size = self.page_size.min(PAGE_SIZE).to_string();
        let mut query = vec![("list-type", "2"), ("max-keys", &*size)];
        if !prefix.is_empty() {
            query.push(("prefix", prefix));
        }
        query.extend(page.map(|token| ("continuation-token", token)));
        // A signature has them in their order.
        query.sort_unstable();
        let answer = call.get("", &query, None).await?.whole().await;
        let answer = answer.map_err(|fault| call.named(fault))?;
        let odd = |why: String| DriverFault::Unexpected(format!("{ACTION}: {why}"));
        let body = std::str::from_utf8(&answer.body)
            .map_err(|_| odd("the answer is not UTF-8".to_owned()))?;
        // Another page must never read as an empty bucket.
        if query::root(body).as_deref() != Some("ListBucketResult") {
            return Err(odd("the answer is none to this call".to_owned()));
        }
        let page: Page = quick_xml::de::from_str(body)
            .map_err(|error| odd(format!("the answer does not read: {error}")))?;
        let next = match (page.is_truncated, page.next_continuation_token) {
            (false, _) => None,
            (true, Some(next)) => Some(next),
            (true, None) => return Err(odd("there is more, and no word of where".to_owned())),
        };
        let files = page.contents.into_iter().map(|one| {
            let Entry { key, size: bytes, etag, last_modified } = one;
            (File { key, bytes, etag }, last_modified)
        });
        Ok(FilePage { files: files.collect(), next })
    }

    async fn open(
        &self,
        access: &Access,
        bucket: &Bucket,
        file: &File,
    ) -> Result<Pieces, DriverFault> {
        const ACTION: &str = "GetObject";
        let session = self.session(access).await?;
        let call = Call { session: &session, bucket, action: ACTION };
        let coming = call.get(&file.key, &[], Some(&file.etag)).await?;
        let (key, bytes) = (file.key.clone(), file.bytes);
        let broken = move |why: &str, key: &str| {
            DriverFault::Transient(format!("{ACTION}: {key} breaks off: {why}"))
        };
        let pieces = futures::stream::unfold(Some((coming, 0)), move |left| {
            let key = key.clone();
            async move {
                let (mut coming, read) = left?;
                let piece = tokio::time::timeout(PIECE_PATIENCE, coming.piece()).await;
                match piece {
                    Ok(Ok(Some(piece))) => {
                        let read = read + piece.len() as u64;
                        Some((Ok(piece), Some((coming, read))))
                    }
                    Ok(Ok(None)) if read == bytes => None,
                    Ok(Ok(None)) => {
                        let why = format!("{read} bytes have come of {bytes}");
                        Some((Err(broken(&why, &key)), None))
                    }
                    Ok(Err(fault)) => Some((Err(broken(&fault.to_string(), &key)), None)),
                    Err(_) => Some((Err(broken("no more of it came", &key)), None)),
                }
            }
        });
        Ok(pieces.boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_reads_with_and_without_anything_on_it() {
        let page: Page = quick_xml::de::from_str(
            "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name>\
             <IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>\
             <Contents><Key>a &amp; b/ä.csv</Key><LastModified>2026-11-02T00:00:00.000Z\
             </LastModified><ETag>&quot;e&quot;</ETag><Size>7</Size></Contents>\
             <Contents><Key>c</Key><LastModified>x</LastModified><ETag>f</ETag><Size>0</Size>\
             <StorageClass>STANDARD</StorageClass></Contents></ListBucketResult>",
        )
        .unwrap();
        let seen: Vec<_> = page.contents.iter().map(|one| (&*one.key, one.size)).collect();
        assert_eq!(seen, [("a & b/ä.csv", 7), ("c", 0)]);
        assert_eq!((page.contents[0].etag.as_str(), page.is_truncated), ("\"e\"", true));
        let none = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
        let page: Page = quick_xml::de::from_str(none).unwrap();
        assert!(page.contents.is_empty() && page.next_continuation_token.is_none());
    }

    #[test]
    fn a_key_goes_out_by_its_bytes_and_with_its_slashes() {
        let mut out = String::new();
        encode("BILLING_PERIOD=2026-10/a b+ä.csv", "/", &mut out);
        assert_eq!(out, "BILLING_PERIOD%3D2026-10/a%20b%2B%C3%A4.csv");
    }
}

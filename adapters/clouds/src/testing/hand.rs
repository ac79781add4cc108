//! A hand that does things in a stand-in for AWS behind the provider's back. It is no client of
//! AWS: nobody checks its signature, and it says what the stand-in answers as it is.

use std::fmt::Write;

use commands::ports::DriverFault;
use http::Request;

use crate::http_client::HttpClient;

/// The key of nobody: the stand-in takes it for one of its own account.
const NOBODY: &str = "AKIASKYLEDGERTEST00";

/// What a stand-in answered.
#[derive(Clone, Debug)]
pub struct Answered {
    /// HTTP status.
    pub status: u16,
    /// The XML.
    pub xml: String,
}

impl Answered {
    /// The text of the first element of this name.
    pub fn first(&self, name: &str) -> Option<&str> {
        let start = self.xml.find(&format!("<{name}>"))? + name.len() + 2;
        self.xml[start..].split('<').next()
    }
}

/// Calls in one account of a stand-in.
#[derive(Debug)]
pub struct Hand {
    http: HttpClient,
    url: String,
    access_key_id: String,
}

impl Hand {
    /// In the stand-in's own account.
    pub fn new(url: &str) -> Self {
        Self { http: HttpClient::new(), url: url.to_owned(), access_key_id: NOBODY.to_owned() }
    }

    /// In this account of the stand-in, which makes it when it is new.
    ///
    /// # Errors
    /// When the stand-in lends no key for it.
    pub async fn in_account(url: &str, account: &str) -> Result<Self, DriverFault> {
        let hand = Self::new(url);
        let role = format!("arn:aws:iam::{account}:role/hand");
        let fields = [("RoleArn", role.as_str()), ("RoleSessionName", "hand")];
        let lent = hand.call(("sts", "us-east-1"), "AssumeRole", &fields).await?;
        match lent.first("AccessKeyId") {
            Some(key) => Ok(Self { access_key_id: key.to_owned(), ..hand }),
            None => Err(DriverFault::Unexpected(lent.xml)),
        }
    }

    /// Lets a stand-in that checks signatures and permissions take so many calls unchecked.
    ///
    /// # Errors
    /// When it does not answer, or is none that checks.
    pub async fn unchecked_calls(&self, number: u64) -> Result<(), DriverFault> {
        let request = Request::post(format!("{}/moto-api/reset-auth", self.url))
            .header("content-type", "text/plain")
            .body(number.to_string().into_bytes())
            .map_err(|error| DriverFault::Rejected(error.to_string()))?;
        match self.http.send(request).await?.status {
            200 => Ok(()),
            status => Err(DriverFault::Unexpected(format!("status {status}"))),
        }
    }

    /// Does something to a path of the object storage: `PUT` a bucket or an object, `DELETE` one.
    ///
    /// # Errors
    /// When no answer comes. One that says no is an answer.
    pub async fn object(
        &self,
        method: &str,
        path: &str,
        bytes: Vec<u8>,
    ) -> Result<Answered, DriverFault> {
        let mut url = format!("{}/", self.url);
        for byte in path.bytes() {
            match byte {
                b'/' | b'-' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                    url.push(char::from(byte));
                }
                // Writing to a text does not fail.
                _ => drop(write!(url, "%{byte:02X}")),
            }
        }
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header("authorization", self.signature("us-east-1", "s3"))
            .body(bytes)
            .map_err(|error| DriverFault::Rejected(error.to_string()))?;
        let answer = self.http.send(request).await?;
        let xml = String::from_utf8_lossy(&answer.body).into_owned();
        Ok(Answered { status: answer.status, xml })
    }

    fn signature(&self, region: &str, service: &str) -> String {
        format!(
            "AWS4-HMAC-SHA256 Credential={}/20260101/{region}/{service}/aws4_request, \
             SignedHeaders=host, Signature=0",
            self.access_key_id
        )
    }

    /// Makes a call of a service in a region.
    ///
    /// # Errors
    /// When no answer comes. One that says no is an answer.
    pub async fn call(
        &self,
        (service, region): (&str, &str),
        action: &str,
        fields: &[(&str, &str)],
    ) -> Result<Answered, DriverFault> {
        let version = match service {
            "iam" => "2010-05-08",
            "sts" => "2011-06-15",
            _ => "2016-11-15",
        };
        let mut body = format!("Action={action}&Version={version}");
        for (name, value) in fields {
            body.push('&');
            body.push_str(name);
            body.push('=');
            for byte in value.bytes() {
                // Writing to a text does not fail.
                let _ = write!(body, "%{byte:02X}");
            }
        }
        let request = Request::post(format!("{}/", self.url))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("authorization", self.signature(region, service))
            .body(body.into_bytes())
            .map_err(|error| DriverFault::Rejected(error.to_string()))?;
        let answer = self.http.send(request).await?;
        let xml = String::from_utf8_lossy(&answer.body).into_owned();
        Ok(Answered { status: answer.status, xml })
    }
}

//! HTTP as cloud adapters need it: every step has a time-out, every body a bound, and what goes
//! wrong on the way is a [`DriverFault`].

use std::{error::Error, sync::OnceLock, time::Duration};

use commands::ports::DriverFault;
use reqwest::{Certificate, Client, redirect};

pub use crate::tls::Fingerprint;

/// Longest wait for a connection. A cloud's end-point that does not take one in this time is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a whole answer: the largest page of a listing takes AWS a few seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// Largest body that is read: a page of 1,000 instances is some 8 MB of XML.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Longest time that a body may take that is read piece by piece: a day of a terabyte.
const BODY_TIMEOUT: Duration = Duration::from_hours(24);
/// Tries of one call whose connection was refused: nothing was sent, so nothing can happen twice.
const CONNECT_TRIES: u32 = 3;

/// What came back, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// How long the server asks to wait, where it tells in seconds.
    pub retry_after: Option<Duration>,
    /// The token that came with it, of those who answer with one (`X-Subject-Token`).
    pub token: Option<String>,
    /// The first cookie that came with it, as it is sent back.
    pub cookie: Option<String>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub struct Coming {
    /// HTTP status.
    pub status: u16,
    response: reqwest::Response,
}

impl Coming {
    /// The next piece of the body; none at its end.
    ///
    /// # Errors
    /// [`DriverFault::Transient`] when it breaks off.
    pub async fn piece(&mut self) -> Result<Option<Vec<u8>>, DriverFault> {
        Ok(self.response.chunk().await.map_err(transient)?.map(|piece| piece.to_vec()))
    }

    /// All of it.
    ///
    /// # Errors
    /// [`DriverFault::Transient`] when it breaks off, [`DriverFault::Unexpected`] when it is too
    /// large.
    pub async fn whole(self) -> Result<Answer, DriverFault> {
        read(self.response).await
    }
}

/// A client without cookies, redirects or proxies. Cheap to share.
#[derive(Debug)]
pub struct HttpClient {
    answer_timeout: Duration,
    fingerprint: Option<Fingerprint>,
    // Two, because the one for TLS needs the machine's root certificates: a machine without any
    // can still talk to an end-point on the loopback.
    plain: OnceLock<Result<Client, String>>,
    tls: OnceLock<Result<Client, String>>,
}

impl Default for HttpClient {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpClient {
    /// With this crate's limits.
    pub fn new() -> Self {
        Self::with_answer_timeout(ANSWER_TIMEOUT)
    }

    /// With another patience for a whole answer.
    pub fn with_answer_timeout(answer_timeout: Duration) -> Self {
        Self { answer_timeout, fingerprint: None, plain: OnceLock::new(), tls: OnceLock::new() }
    }

    /// One that speaks TLS to who has the certificate with this fingerprint, and to nobody else.
    pub fn of(fingerprint: Fingerprint) -> Self {
        Self { fingerprint: Some(fingerprint), ..Self::new() }
    }

    fn build(&self, tls: bool) -> Result<Client, String> {
        // reqwest looks for the process's provider even for plain HTTP. A second installation is
        // refused, and that is fine: there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(self.answer_timeout)
            .user_agent(concat!("skyledger/", env!("CARGO_PKG_VERSION")));
        if let Some(fingerprint) = self.fingerprint.filter(|_| tls) {
            builder = builder.tls_backend_preconfigured(fingerprint.config()?);
        } else if !tls {
            builder = builder.tls_certs_only(std::iter::empty::<Certificate>());
        }
        builder.build().map_err(|error| chain(&error))
    }

    fn client(&self, url: &str) -> Result<&Client, DriverFault> {
        let client = if url.starts_with("https:") {
            self.tls.get_or_init(|| self.build(true))
        } else {
            self.plain.get_or_init(|| self.build(false))
        };
        client.as_ref().map_err(|why| {
            DriverFault::Unexpected(format!("the HTTP client cannot be made: {why}"))
        })
    }

    /// Sends one request and reads its whole answer.
    ///
    /// # Errors
    /// [`DriverFault::Transient`] when the connection fails or the time is over,
    /// [`DriverFault::Unexpected`] when the answer is too large.
    pub async fn send(&self, request: http::Request<Vec<u8>>) -> Result<Answer, DriverFault> {
        let coming = self.begin(request, self.answer_timeout).await?;
        coming.whole().await
    }

    /// Sends one request, and leaves it to the caller how long its body may take.
    ///
    /// # Errors
    /// [`DriverFault::Transient`] when the connection fails, or nothing is answered in time.
    pub async fn open(&self, request: http::Request<Vec<u8>>) -> Result<Coming, DriverFault> {
        let begun = self.begin(request, BODY_TIMEOUT);
        tokio::time::timeout(self.answer_timeout, begun)
            .await
            .unwrap_or_else(|_| Err(DriverFault::Transient("no answer in time".into())))
    }

    async fn begin(
        &self,
        request: http::Request<Vec<u8>>,
        patience: Duration,
    ) -> Result<Coming, DriverFault> {
        let (parts, body) = request.into_parts();
        let url = parts.uri.to_string();
        let client = self.client(&url)?;
        let mut tries = 0;
        let response = loop {
            tries += 1;
            let sent = client
                .request(parts.method.clone(), &url)
                .headers(parts.headers.clone())
                .body(body.clone())
                .timeout(patience)
                .send()
                .await;
            match sent {
                Ok(response) => break response,
                Err(error)
                    if error.is_connect() && !error.is_timeout() && tries < CONNECT_TRIES =>
                {
                    tokio::time::sleep(Duration::from_millis(50) * tries).await;
                }
                Err(error) => return Err(transient(error)),
            }
        };
        Ok(Coming { status: response.status().as_u16(), response })
    }
}

async fn read(mut response: reqwest::Response) -> Result<Answer, DriverFault> {
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get(http::header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let token = response.headers().get("x-subject-token");
    let token = token.and_then(|value| Some(value.to_str().ok()?.to_owned()));
    let cookie = response.headers().get(http::header::SET_COOKIE);
    let cookie = cookie.and_then(|value| value.to_str().ok()?.split(';').next());
    let cookie = cookie.map(|pair| pair.trim().to_owned());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(transient)? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(DriverFault::Unexpected(format!(
                "the answer is larger than {BODY_BYTES_MAX} bytes"
            )));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, retry_after, token, cookie, body })
}

fn transient(error: reqwest::Error) -> DriverFault {
    if error.is_timeout() {
        return DriverFault::Transient("no answer in time".into());
    }
    DriverFault::Transient(chain(&error.without_url()))
}

/// An error and what it came from, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

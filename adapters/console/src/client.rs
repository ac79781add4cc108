//! The API over HTTP.
//!
//! A client reads its own writes: it remembers the newest position an answer named, and asks every
//! later query for at least that.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use reqwest::{
    Certificate, Method, RequestBuilder, Response, StatusCode, Upgraded, Url,
    header::{
        ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_MATCH,
        SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use serde_json::{Map, Value};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::client::generate_key, protocol::Role},
};

use crate::{exit::Exit, problem::Problem, style::Style};

/// Longest wait for an answer, on top of what `Prefer: wait` asks for. A query ends within seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much of a file is sent at a time.
const PIECE_BYTES: usize = 1 << 16;
/// Most rows on a page (the server's own limit).
const PAGE_MAX: usize = 1_000;

/// What helps when a certificate is not trusted.
const AUTHORITY: &str = "\n  hint: if its certificate is signed by an authority of your own, name \
    that one's with --ca-file or SKYLEDGER_CA_FILE.";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientFault {
    /// The server said no, or could not.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// Nobody answers.
    #[error("no answer from {server}")]
    Unreachable {
        /// Base URL.
        server: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The address or the token cannot be sent.
    #[error("{0}")]
    Connection(String),
    /// An answer that makes no sense.
    #[error("the server's answer does not read: {0}")]
    Unexpected(String),
}

impl ClientFault {
    /// The exit code it becomes.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Refused(problem) => problem.exit(),
            Self::Connection(_) => Exit::Usage,
            Self::Unreachable { .. } | Self::Unexpected(_) => Exit::Fault,
        }
    }

    /// The problem document, when the server sent one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }

    /// Several lines for a person, with what to do.
    pub fn text(&self, style: Style) -> String {
        match self {
            Self::Refused(problem) => problem.text(style),
            Self::Unreachable { server, source } => {
                let mut text = style.red(&format!("no answer from {server}"));
                let mut cause: Option<&dyn std::error::Error> = Some(source);
                let mut deepest = String::new();
                while let Some(error) = cause {
                    deepest = error.to_string();
                    cause = error.source();
                }
                text.push_str(&format!(": {deepest}"));
                text.push_str(if server.starts_with("https:") {
                    AUTHORITY
                } else {
                    "\n  hint: start one with `skyledger serve`, or name another with --server or \
                     SKYLEDGER_SERVER."
                });
                text
            }
            other => style.red(&other.to_string()),
        }
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The log's position that it shows or made.
    pub position: Option<u64>,
    /// The resource's revision.
    pub revision: Option<u64>,
    /// The body; null when there is none.
    pub body: Value,
}

/// All rows of a list, or as many as were asked for.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// In order.
    pub rows: Vec<Value>,
    /// The position they show.
    pub position: Option<u64>,
    /// Whether there are more than were asked for.
    pub more: bool,
}

/// A command on its way.
#[derive(Clone, Debug, Default)]
pub struct Command {
    /// The kind, in the plural.
    pub plural: String,
    /// The resource; none to create one.
    pub id: Option<String>,
    /// The verb; with no id it is the kind's own way to begin.
    pub verb: String,
    /// The verb's fields.
    pub body: Value,
    /// `If-Match`.
    pub if_match: Option<u64>,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// `plan_id`.
    pub plan_id: Option<String>,
    /// `Prefer: wait`.
    pub wait: Option<Duration>,
}

/// One server, as one token.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    headers: HeaderMap,
    newest: AtomicU64,
}

impl Client {
    /// A client of this server (`http://127.0.0.1:7878`).
    ///
    /// # Errors
    /// [`ClientFault::Connection`] when address or token cannot be used.
    pub fn new(server: &str, token: Option<&str>) -> Result<Self, ClientFault> {
        Self::trusting(server, token, None)
    }

    /// The same, where the server's certificate is signed by nobody but these authorities (PEM) in
    /// place of the machine's own.
    ///
    /// # Errors
    /// [`ClientFault::Connection`] when address, token or authorities cannot be used.
    pub fn trusting(
        server: &str,
        token: Option<&str>,
        authorities: Option<&[u8]>,
    ) -> Result<Self, ClientFault> {
        let wrong = |why: &str| ClientFault::Connection(format!("--server {server}: {why}"));
        let text =
            if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
        let base = Url::parse(&text).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(wrong("needs http://host:port or https://host:port"));
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
                ClientFault::Connection("the token has characters that no token has".to_owned())
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let http = transport(&base, authorities)?;
        Ok(Self { http, base, headers, newest: AtomicU64::new(0) })
    }

    /// Base URL.
    pub fn server(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Where a browser shows a console, with what it is to show behind `#`, which it sends to nobody.
    pub fn page_of_consoles(&self, what: &[(&str, &str)]) -> String {
        let what: Vec<_> = what.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let mut url = self.url("/console", &what);
        let behind = url.query().map(str::to_owned);
        url.set_query(None);
        url.set_fragment(behind.as_deref());
        url.into()
    }

    fn url(&self, path: &str, query: &[(&str, String)]) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query.iter().map(|(name, value)| (name, value)));
        }
        url
    }

    fn request(&self, method: Method, path: &str, query: &[(&str, String)]) -> RequestBuilder {
        let request =
            self.http.request(method, self.url(path, query)).headers(self.headers.clone());
        match self.newest.load(Ordering::Relaxed) {
            0 => request,
            newest => request.header("Skyledger-Min-Position", newest),
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientFault> {
        let response = request.send().await.map_err(|source| self.unreachable(source))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(|source| self.unreachable(source))?;
        Err(ClientFault::Refused(Box::new(Problem::read(status, &body))))
    }

    fn unreachable(&self, source: reqwest::Error) -> ClientFault {
        ClientFault::Unreachable { server: self.server().to_owned(), source: source.without_url() }
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Answer, ClientFault> {
        let response = self.send(request).await?;
        let status = response.status().as_u16();
        let number = |name: &str| {
            let text = response.headers().get(name)?.to_str().ok()?;
            text.trim_matches('"').parse::<u64>().ok()
        };
        let (position, revision) = (number("skyledger-position"), number(ETAG.as_str()));
        let bytes = response.bytes().await.map_err(|source| self.unreachable(source))?;
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes)
                .map_err(|error| ClientFault::Unexpected(error.to_string()))?
        };
        Ok(Answer { status, position, revision, body })
    }

    /// A query.
    ///
    /// # Errors
    /// Any [`ClientFault`].
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Answer, ClientFault> {
        self.answer(self.request(Method::GET, path, query).timeout(PATIENCE)).await
    }

    /// A request for work, all of it in its query.
    ///
    /// # Errors
    /// Any [`ClientFault`].
    pub async fn run(&self, path: &str, query: &[(&str, String)]) -> Result<Answer, ClientFault> {
        // As long as it takes: nothing says how much there is to do.
        let answer = self.answer(self.request(Method::POST, path, query)).await?;
        if let Some(position) = answer.position {
            self.newest.fetch_max(position, Ordering::Relaxed);
        }
        Ok(answer)
    }

    /// Sends a file as it is.
    /// Tells `progress` how many bytes were sent.
    ///
    /// # Errors
    /// Any [`ClientFault`].
    pub async fn upload(
        &self,
        path: &str,
        query: &[(&str, String)],
        file: tokio::fs::File,
        progress: impl Fn(u64) + Send + 'static,
    ) -> Result<Answer, ClientFault> {
        let request = self.request(Method::POST, path, query);
        let request = request.header(CONTENT_TYPE, "application/octet-stream");
        let pieces = stream::try_unfold((file, 0), move |(mut file, sent)| {
            progress(sent);
            async move {
                let mut piece = vec![0; PIECE_BYTES];
                let length = file.read(&mut piece).await?;
                piece.truncate(length);
                let next = (piece, (file, sent + length as u64));
                Ok::<_, std::io::Error>((length > 0).then_some(next))
            }
        });
        let file = reqwest::Body::wrap_stream(pieces);
        // As long as it takes: the server ends what does not go on.
        let answer = self.answer(request.body(file)).await?;
        if let Some(position) = answer.position {
            self.newest.fetch_max(position, Ordering::Relaxed);
        }
        Ok(answer)
    }

    /// Has something done that needs no more than its path.
    ///
    /// # Errors
    /// Any [`ClientFault`].
    pub async fn perform(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Answer, ClientFault> {
        // As long as it takes, as with a file.
        let answer = self.answer(self.request(Method::POST, path, query)).await?;
        if let Some(position) = answer.position {
            self.newest.fetch_max(position, Ordering::Relaxed);
        }
        Ok(answer)
    }

    /// A question that has a body. Nothing is done by it.
    ///
    /// # Errors
    /// Any [`ClientFault`].
    pub async fn ask(
        &self,
        path: &str,
        query: &[(&str, String)],
        body: &Map<String, Value>,
    ) -> Result<Answer, ClientFault> {
        // As long as it takes: nothing says how much there is to count.
        self.answer(self.request(Method::POST, path, query).json(body)).await
    }

    /// A file, handed on as it comes. The inner result is whether it could be.
    ///
    /// # Errors
    /// Any [`ClientFault`]; also when the file breaks off.
    pub async fn download(
        &self,
        path: &str,
        query: &[(&str, String)],
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<std::io::Result<()>, ClientFault> {
        let mut response = self.send(self.request(Method::GET, path, query)).await?;
        while let Some(piece) = response.chunk().await.map_err(|source| self.unreachable(source))? {
            if let Err(error) = take(&piece) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    /// A WebSocket; what it is to speak goes with the request, and no token.
    ///
    /// # Errors
    /// Any [`ClientFault`].
    pub async fn socket(
        &self,
        path: &str,
        protocols: &str,
    ) -> Result<WebSocketStream<Upgraded>, ClientFault> {
        let mut protocols = HeaderValue::from_str(protocols)
            .map_err(|error| ClientFault::Unexpected(error.to_string()))?;
        protocols.set_sensitive(true);
        let request = self.http.get(self.url(path, &[])).headers(HeaderMap::from_iter([
            (CONNECTION, HeaderValue::from_static("Upgrade")),
            (UPGRADE, HeaderValue::from_static("websocket")),
            (SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
            (SEC_WEBSOCKET_PROTOCOL, protocols),
        ]));
        let request = request.header(SEC_WEBSOCKET_KEY, generate_key());
        let response = request.send().await.map_err(|source| self.unreachable(source))?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let body = response.bytes().await.map_err(|source| self.unreachable(source))?;
            return Err(ClientFault::Refused(Box::new(Problem::read(status.as_u16(), &body))));
        }
        let upgraded = response.upgrade().await.map_err(|source| self.unreachable(source))?;
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await)
    }

    /// A text, such as `/metrics`.
    ///
    /// # Errors
    /// Any [`ClientFault`].
    pub async fn text(&self, path: &str) -> Result<String, ClientFault> {
        let request = self.request(Method::GET, path, &[]).timeout(PATIENCE);
        let response = self.send(request).await?;
        response.text().await.map_err(|source| self.unreachable(source))
    }

    /// Rows of a list, page by page, up to a limit (none: all). Tells `progress` how many came.
    ///
    /// # Errors
    /// Any [`ClientFault`].
    pub async fn list(
        &self,
        path: &str,
        query: &[(&str, String)],
        limit: Option<usize>,
        mut progress: impl FnMut(usize),
    ) -> Result<Rows, ClientFault> {
        let mut all = Rows::default();
        let mut token: Option<String> = None;
        loop {
            let left = limit.map_or(PAGE_MAX, |limit| limit - all.rows.len()).clamp(1, PAGE_MAX);
            let mut query = query.to_vec();
            query.push(("page_size", left.to_string()));
            if let Some(token) = token.take() {
                query.push(("page_token", token));
            }
            let mut answer = self.get(path, &query).await?;
            all.position = all.position.or(answer.position);
            all.rows.extend(take_rows(&mut answer.body)?);
            progress(all.rows.len());
            token = answer.body["next_page_token"].as_str().map(str::to_owned);
            if token.is_none() {
                return Ok(all);
            }
            if limit.is_some_and(|limit| all.rows.len() >= limit) {
                all.more = true;
                return Ok(all);
            }
        }
    }

    fn post(&self, command: &Command, query: &[(&str, String)]) -> RequestBuilder {
        let Command { plural, id, verb, .. } = command;
        let path = match id {
            Some(id) => format!("/v1/{plural}/{id}/{verb}"),
            None => format!("/v1/{plural}"),
        };
        let mut request = self
            .request(Method::POST, &path, query)
            .timeout(PATIENCE + command.wait.unwrap_or_default())
            .json(&command.body);
        if let Some(revision) = command.if_match {
            request = request.header(IF_MATCH, format!("\"{revision}\""));
        }
        if let Some(key) = &command.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(wait) = command.wait {
            request = request.header("Prefer", format!("wait={}", wait.as_secs().max(1)));
        }
        request
    }

    /// A command. With an idempotency key a broken connection is tried again: it has one effect.
    ///
    /// # Errors
    /// Any [`ClientFault`].
    pub async fn submit(&self, command: &Command) -> Result<Answer, ClientFault> {
        let query: Vec<_> = command.plan_id.iter().map(|plan| ("plan_id", plan.clone())).collect();
        let mut tries = if command.idempotency_key.is_some() { 3 } else { 1 };
        loop {
            tries -= 1;
            match self.answer(self.post(command, &query)).await {
                Err(ClientFault::Unreachable { source, .. })
                    if tries > 0 && !source.is_connect() && !source.is_timeout() => {}
                Ok(answer) => {
                    let position =
                        answer.position.or_else(|| answer.body["position"].as_u64()).unwrap_or(0);
                    self.newest.fetch_max(position, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// What a command would do.
    ///
    /// # Errors
    /// Any [`ClientFault`].
    pub async fn plan(&self, command: &Command) -> Result<Value, ClientFault> {
        let query = [("validate_only", "true".to_owned())];
        Ok(self.answer(self.post(command, &query)).await?.body)
    }

    /// Events as they come, for ever: a broken connection is made again after the last event, so
    /// that none is missed and none comes twice.
    ///
    /// # Errors
    /// What the server refuses, or what `each` says.
    pub async fn follow(
        &self,
        path: &str,
        query: &[(&str, String)],
        mut after: Option<u64>,
        mut each: impl FnMut(&Value) -> std::io::Result<()>,
    ) -> Result<(), ClientFault> {
        let mut connected = false;
        loop {
            match self.watch(path, query, after).await {
                Ok(mut events) => {
                    connected = true;
                    while let Some(Ok(event)) = events.next().await {
                        after = event["position"].as_u64().or(after);
                        if each(&event).is_err() {
                            return Ok(());
                        }
                    }
                }
                Err(fault @ ClientFault::Unreachable { .. }) if !connected => return Err(fault),
                Err(ClientFault::Unreachable { .. }) => {}
                Err(fault) => return Err(fault),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Events as they come (server-sent events), after a position.
    ///
    /// # Errors
    /// Any [`ClientFault`]; the stream ends when the server ends it.
    pub async fn watch(
        &self,
        path: &str,
        query: &[(&str, String)],
        after: Option<u64>,
    ) -> Result<impl Stream<Item = Result<Value, ClientFault>> + Unpin + use<>, ClientFault> {
        let mut request =
            self.request(Method::GET, path, query).header(ACCEPT, "text/event-stream");
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        let server = self.server().to_owned();
        let chunks = self.send(request).await?.bytes_stream().boxed();
        Ok(Box::pin(stream::unfold(
            (chunks, Vec::new(), server),
            |(mut chunks, mut waiting, server)| async {
                loop {
                    if let Some(event) = next_event(&mut waiting) {
                        return Some((event, (chunks, waiting, server)));
                    }
                    match chunks.next().await? {
                        Ok(chunk) => waiting.extend_from_slice(&chunk),
                        Err(source) => {
                            let source = source.without_url();
                            let fault = ClientFault::Unreachable { server: server.clone(), source };
                            return Some((
                                Err(fault),
                                (stream::empty().boxed(), Vec::new(), server),
                            ));
                        }
                    }
                }
            },
        )))
    }
}

/// What speaks HTTP to this address.
fn transport(base: &Url, authorities: Option<&[u8]>) -> Result<reqwest::Client, ClientFault> {
    let cannot = |error: reqwest::Error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        if base.scheme() == "https" && authorities.is_none() {
            text.push_str(AUTHORITY);
        }
        ClientFault::Connection(text)
    };
    // Whoever was first has said which cryptography this process uses.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("skyledger/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(5))
        .redirect(reqwest::redirect::Policy::none());
    if is_loopback(base) {
        // A proxy would look for the server on its own machine.
        builder = builder.no_proxy();
    }
    match authorities {
        Some(pem) => {
            let found = Certificate::from_pem_bundle(pem).map_err(cannot)?;
            if found.is_empty() {
                let text = "the file of authorities holds no certificate in PEM".to_owned();
                return Err(ClientFault::Connection(text));
            }
            builder = builder.tls_certs_only(found);
        }
        // TLS needs the machine's root certificates: a machine without any can still talk to a
        // server in plain HTTP.
        None if base.scheme() == "http" => {
            builder = builder.tls_certs_only(std::iter::empty::<Certificate>());
        }
        None => {}
    }
    builder.build().map_err(cannot)
}

fn is_loopback(base: &Url) -> bool {
    let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The rows of a list's answer, whatever the list calls them.
fn take_rows(body: &mut Value) -> Result<Vec<Value>, ClientFault> {
    let list = match body {
        Value::Array(_) => body.take(),
        _ => ["items", "rows", "events", "changes"]
            .iter()
            .find(|name| body[**name].is_array())
            .map(|name| body[*name].take())
            .unwrap_or_default(),
    };
    match list {
        Value::Array(rows) => Ok(rows),
        _ => Err(ClientFault::Unexpected("a list without rows".to_owned())),
    }
}

/// Cuts the next event with data off what has come; comments and heartbeats have none.
fn next_event(waiting: &mut Vec<u8>) -> Option<Result<Value, ClientFault>> {
    loop {
        let end = waiting.windows(2).position(|two| two == b"\n\n")?;
        let block: Vec<u8> = waiting.drain(..end + 2).collect();
        let text = String::from_utf8_lossy(&block);
        let data: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(str::trim_start)
            .collect();
        if !data.is_empty() {
            return Some(
                serde_json::from_str(&data.join("\n"))
                    .map_err(|error| ClientFault::Unexpected(error.to_string())),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_address_without_a_scheme_is_plain_http_and_nonsense_is_refused() {
        assert_eq!(Client::new("127.0.0.1:7878", None).unwrap().server(), "http://127.0.0.1:7878");
        for wrong in ["ftp://a", "http://", "http://[", "://"] {
            let fault = Client::new(wrong, None).err().unwrap();
            assert_eq!(fault.exit(), Exit::Usage, "{wrong}");
        }
        assert!(Client::new("http://a", Some("two\nlines")).is_err());
        let no_pem = Client::trusting("https://a", None, Some(b"nothing")).err().unwrap();
        assert_eq!(no_pem.exit(), Exit::Usage);
    }

    #[test]
    fn the_loopback_is_known_by_its_names() {
        let loopback = |text: &str| is_loopback(&Url::parse(text).unwrap());
        for here in
            ["http://127.0.0.1:1", "https://127.8.9.10", "http://[::1]:1", "http://localhost"]
        {
            assert!(loopback(here), "{here}");
        }
        for there in ["http://10.0.0.1", "http://localhost.example.org", "http://[fe80::1]"] {
            assert!(!loopback(there), "{there}");
        }
    }

    #[test]
    fn queries_are_encoded_and_a_base_path_stays() {
        let client = Client::new("http://a/ledger/", None).unwrap();
        let url = client.url("/v1/servers", &[("filter", "name=\"a b\"".to_owned())]);
        assert_eq!(url.as_str(), "http://a/ledger/v1/servers?filter=name%3D%22a+b%22");
    }

    #[test]
    fn events_are_cut_at_empty_lines_and_heartbeats_are_passed_over() {
        let mut waiting = b": hello\n\nid: 7\ndata: {\"a\":1}\n\nid: 8\ndata: {".to_vec();
        assert_eq!(next_event(&mut waiting).unwrap().unwrap(), json!({"a": 1}));
        assert!(next_event(&mut waiting).is_none());
        waiting.extend_from_slice(b"}\n\n");
        assert_eq!(next_event(&mut waiting).unwrap().unwrap(), json!({}));
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_list_has_rows_under_any_of_its_names() {
        assert_eq!(take_rows(&mut json!({"items": [1]})).unwrap(), [json!(1)]);
        assert_eq!(take_rows(&mut json!([2])).unwrap(), [json!(2)]);
        assert!(take_rows(&mut json!({"items": 3})).is_err());
    }
}

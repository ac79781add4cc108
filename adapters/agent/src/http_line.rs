//! The way to the desk over HTTP.

use std::{collections::BTreeSet, error::Error, net::IpAddr, time::Duration};

use async_trait::async_trait;
use commands::{
    desk::{Busy, Call, Given, Outcome},
    ports::{DriverFault, HostTask, PIECE_BYTES_MAX, Pipe, ServerPowers},
};
use domain::{compute::host::HostSighting, kernel::OrderKey};
use futures::{SinkExt, StreamExt};
use reqwest::{
    Certificate, Client, RequestBuilder, StatusCode, Upgraded, Url,
    header::{
        AUTHORIZATION, CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
    redirect::Policy,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        handshake::client::generate_key,
        protocol::{Role, WebSocketConfig},
    },
};
use uuid::Uuid;

use crate::line::{Line, LineFault};

/// Longest wait for an answer, beside what a question for orders waits.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest text of an answer that is told in a fault, in characters.
const TEXT_MAX: usize = 500;

/// The server cannot be talked to as it was named.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFault {
    /// Address, token or authorities cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// The server was asked and said no, or cannot be reached.
    #[error(transparent)]
    Line(#[from] LineFault),
    /// The token is of no host's agent, and no host was named.
    #[error("{name} is of no host's agent: name the host with --host")]
    NoHost {
        /// The token's name.
        name: String,
    },
    /// The token is of another host's agent.
    #[error("this token works for host {own}, not for {named}")]
    OtherHost {
        /// The token's host.
        own: String,
        /// What was named.
        named: String,
    },
}

/// Who a token is of, as the server says.
#[derive(Deserialize)]
struct WhoAmI {
    name: String,
    reach: Value,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Joined {
    epoch: u64,
}

#[derive(Deserialize)]
struct Answered {
    tasks: Vec<HostTask>,
    #[serde(default)]
    calls: Vec<Call>,
    #[serde(default)]
    cpus_reserved: Option<BTreeSet<u32>>,
}

#[derive(Deserialize)]
struct Taken {
    awaited: bool,
}

#[derive(Default, Deserialize)]
struct Problem {
    code: String,
    detail: String,
}

/// One server, for whoever has this token.
struct Server {
    http: Client,
    base: Url,
}

/// The way to a server's desk for one host.
pub struct HttpLine {
    server: Server,
    host: Uuid,
}

impl HttpLine {
    /// A line to this server (`https://ledger.example:7878`). The host is the token's own; when one is
    /// named, by id or name, it must be that one. With authorities (PEM) the server's certificate is
    /// trusted by nobody else's signature.
    ///
    /// # Errors
    /// Any [`ConnectFault`]; a server that does not answer now is [`LineFault::Broken`].
    pub async fn connect(
        server: &str,
        token: &str,
        authorities: Option<&[u8]>,
        host: Option<&str>,
    ) -> Result<Self, ConnectFault> {
        let server = Server::new(server, token, authorities)?;
        let who: WhoAmI = server.get("/v1/whoami").await?;
        let own = who.reach["host"].as_str().and_then(|id| id.parse::<Uuid>().ok());
        let named = host.and_then(|host| host.parse::<Uuid>().ok());
        let id = match (own, named, host) {
            (Some(own), None, Some(host)) => {
                let known: Named = server.get(&format!("/v1/hosts/{own}/agent")).await?;
                if known.name != host {
                    let (own, named) = (known.name, host.to_owned());
                    return Err(ConnectFault::OtherHost { own, named });
                }
                own
            }
            (Some(own), Some(named), _) if own != named => {
                let (own, named) = (own.to_string(), named.to_string());
                return Err(ConnectFault::OtherHost { own, named });
            }
            (Some(own), ..) => own,
            (None, Some(named), _) => named,
            (None, None, Some(host)) => server.host(host).await?,
            (None, None, None) => return Err(ConnectFault::NoHost { name: who.name }),
        };
        Ok(Self { server, host: id })
    }

    /// The host.
    pub fn host(&self) -> Uuid {
        self.host
    }

    /// A WebSocket for the console of this call. The request is what any other is, so that it goes the
    /// same way, by the same authorities.
    async fn socket(&self, epoch: u64, call: Uuid) -> Result<WebSocketStream<Upgraded>, LineFault> {
        let path = format!("/v1/hosts/{}/agent/consoles/{call}", self.host);
        let mut url = self.server.url(&path);
        url.query_pairs_mut().append_pair("epoch", &epoch.to_string());
        let request = self.server.http.get(url).headers(HeaderMap::from_iter([
            (CONNECTION, HeaderValue::from_static("Upgrade")),
            (UPGRADE, HeaderValue::from_static("websocket")),
            (SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
        ]));
        let request = request.header(SEC_WEBSOCKET_KEY, generate_key());
        let broken = |error: reqwest::Error| LineFault::Broken(chain(&error.without_url()));
        let asked = tokio::time::timeout(PATIENCE, request.send()).await;
        let asked = asked.map_err(|_| LineFault::Broken("no answer in time".to_owned()))?;
        let response = asked.map_err(broken)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(LineFault::Broken(format!("{}: it is no WebSocket", response.status())));
        }
        let upgraded = response.upgrade().await.map_err(broken)?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(PIECE_BYTES_MAX))
            .max_frame_size(Some(PIECE_BYTES_MAX));
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await)
    }

    async fn post<T: DeserializeOwned>(
        &self,
        what: &str,
        body: &Value,
        wait: Option<Duration>,
    ) -> Result<T, LineFault> {
        let path = format!("/v1/hosts/{}/agent/{what}", self.host);
        let mut request = self.server.http.post(self.server.url(&path)).json(body);
        if let Some(wait) = wait {
            request = request.header("prefer", format!("wait={}", wait.as_secs()));
        }
        Server::answer(request.timeout(PATIENCE + wait.unwrap_or_default())).await
    }
}

impl Server {
    fn new(server: &str, token: &str, authorities: Option<&[u8]>) -> Result<Self, ConnectFault> {
        let wrong = |why: String| ConnectFault::Unusable(format!("--server {server}: {why}"));
        let text =
            if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
        let base = Url::parse(&text).map_err(|error| wrong(error.to_string()))?;
        let Some(name) = base.host_str().filter(|_| matches!(base.scheme(), "http" | "https"))
        else {
            return Err(wrong("needs http://host:port or https://host:port".to_owned()));
        };
        let mut secret =
            HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(|_| {
                ConnectFault::Unusable("the token has characters that no token has".to_owned())
            })?;
        secret.set_sensitive(true);
        let headers = HeaderMap::from_iter([(AUTHORIZATION, secret)]);
        // Whoever was first has said which cryptography this process uses.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(concat!("skyledger-agent/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(CONNECT)
            .redirect(Policy::none());
        let bare = name.trim_matches(['[', ']']);
        let loopback = bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if loopback || bare == "localhost" {
            // A proxy would look for the server on its own machine.
            builder = builder.no_proxy();
        }
        match authorities {
            Some(pem) => {
                let found =
                    Certificate::from_pem_bundle(pem).map_err(|error| wrong(chain(&error)))?;
                if found.is_empty() {
                    return Err(wrong("the authorities hold no certificate in PEM".to_owned()));
                }
                builder = builder.tls_certs_only(found);
            }
            // A machine without root certificates can still talk plain HTTP.
            None if base.scheme() == "http" => {
                builder = builder.tls_certs_only(std::iter::empty::<Certificate>());
            }
            None => {}
        }
        let http = builder.build().map_err(|error| wrong(chain(&error)))?;
        Ok(Self { http, base })
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, LineFault> {
        Self::answer(self.http.get(self.url(path)).timeout(PATIENCE)).await
    }

    /// A host by its name, for a token that may list hosts.
    async fn host(&self, name: &str) -> Result<Uuid, ConnectFault> {
        #[derive(Deserialize)]
        struct Page {
            items: Vec<Row>,
        }
        #[derive(Deserialize)]
        struct Row {
            id: Uuid,
        }
        let mut url = self.url("/v1/hosts");
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        url.query_pairs_mut().append_pair("filter", &format!("name = \"{quoted}\""));
        let page: Page = Self::answer(self.http.get(url).timeout(PATIENCE)).await?;
        let one = page.items.first().map(|row| row.id);
        one.ok_or_else(|| ConnectFault::Unusable(format!("there is no host {name}")))
    }

    async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, LineFault> {
        let broken = |error: reqwest::Error| LineFault::Broken(chain(&error.without_url()));
        let response = request.send().await.map_err(broken)?;
        let status = response.status();
        let body = response.bytes().await.map_err(broken)?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| LineFault::Broken(format!("the answer does not read: {error}")));
        }
        let said: Problem = serde_json::from_slice(&body).unwrap_or_default();
        let detail: String = if said.code.is_empty() {
            String::from_utf8_lossy(&body).chars().take(TEXT_MAX).collect()
        } else {
            said.detail
        };
        // What may be otherwise in a moment is tried again, whoever says it on the way.
        let passes = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
        if passes || said.code.is_empty() || said.code == "contended" {
            return Err(LineFault::Broken(format!("{status}: {detail}")));
        }
        Err(LineFault::refused(&said.code, &detail))
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[async_trait]
impl Line for HttpLine {
    async fn join(&self, agent: &str) -> Result<u64, LineFault> {
        let joined: Joined = self.post("join", &json!({"agent": agent}), None).await?;
        Ok(joined.epoch)
    }

    async fn sight(
        &self,
        epoch: u64,
        seen: &HostSighting,
        servers: &ServerPowers,
    ) -> Result<(), LineFault> {
        let body = json!({"epoch": epoch, "seen": seen, "servers": servers});
        let _: Value = self.post("sight", &body, None).await?;
        Ok(())
    }

    async fn tasks(&self, epoch: u64, busy: &Busy, wait: Duration) -> Result<Given, LineFault> {
        let mut body = json!({"epoch": epoch, "busy": busy.orders});
        if !busy.progress.is_empty() {
            body["progress"] = json!(busy.progress);
        }
        let Answered { tasks, calls, cpus_reserved } =
            self.post("tasks", &body, Some(wait)).await?;
        Ok(Given { tasks, calls, cpus_reserved })
    }

    async fn console(
        &self,
        epoch: u64,
        call: Uuid,
        console: Result<Pipe, DriverFault>,
    ) -> Result<(), LineFault> {
        let mut socket = self.socket(epoch, call).await?;
        let broken = |error: tungstenite::Error| LineFault::Broken(error.to_string());
        let why_not = console.as_ref().err().map(ToString::to_string);
        let word = json!({"why_not": why_not}).to_string();
        socket.send(Message::text(word)).await.map_err(broken)?;
        let Ok(pipe) = console else {
            let _ = socket.close(None).await;
            return Ok(());
        };
        let (sink, stream) = socket.split();
        let sink = sink.with(async |piece: Vec<u8>| Ok(Message::binary(piece)));
        let pieces = stream.filter_map(async |message| match message {
            Ok(Message::Binary(piece)) => Some(Ok(piece.into())),
            Ok(Message::Close(_)) => Some(Err(tungstenite::Error::ConnectionClosed)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        });
        pipe.carry(sink, pieces).await;
        Ok(())
    }

    async fn answer(
        &self,
        epoch: u64,
        key: &OrderKey,
        outcome: &Outcome,
    ) -> Result<bool, LineFault> {
        let body = json!({"epoch": epoch, "key": key, "outcome": outcome});
        let taken: Taken = self.post("answer", &body, None).await?;
        Ok(taken.awaited)
    }
}

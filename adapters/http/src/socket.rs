//! WebSockets (RFC 6455): a request becomes one, and its messages become the pieces of a pipe.

use std::time::Duration;

use ::commands::ports::{PIECE_BYTES_MAX, Pipe};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use futures::{SinkExt, StreamExt, pin_mut};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Bytes, Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{
    call::Call,
    problem::{Problem, UPGRADE_NEEDED},
};

/// Between two signs of life: proxies cut what is silent for a minute.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Whoever is not heard for so long is gone: three signs of life, each of which is answered.
const SILENCE_MAX: Duration = Duration::from_secs(65);
/// Longest reason of a close frame, in bytes.
const REASON_BYTES_MAX: usize = 120;

pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A request that asks for a WebSocket.
pub(crate) struct Asked {
    key: String,
    on: OnUpgrade,
}

/// Protocols that the caller would speak, in turn.
pub(crate) fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let all = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    all.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

impl Asked {
    /// Whether it does.
    pub(crate) fn of(call: &mut Call) -> Result<Self, Problem> {
        let text =
            |name| call.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let has = |name, word: &str| {
            text(name).split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
        };
        let no = |detail: &str| Err(Problem::new(&UPGRADE_NEEDED, detail));
        if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
            return no("the request has no `Connection: Upgrade` and `Upgrade: websocket`");
        }
        if text(header::SEC_WEBSOCKET_VERSION) != "13" {
            return no("Sec-WebSocket-Version: 13 is spoken here");
        }
        let key = text(header::SEC_WEBSOCKET_KEY).to_owned();
        // 16 bytes in base64.
        if key.len() != 24 {
            return no("Sec-WebSocket-Key: is missing");
        }
        match call.upgrade.take() {
            Some(on) => Ok(Self { key, on }),
            None => no("this connection cannot become a WebSocket"),
        }
    }

    /// The answer, and the socket once it was sent.
    pub(crate) fn accept(
        self,
        protocol: Option<&'static str>,
    ) -> (Response<Body>, impl Future<Output = Option<Socket>> + Send + 'static) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(self.key.as_bytes())) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        if let Some(protocol) = protocol {
            let protocol = HeaderValue::from_static(protocol);
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        let socket = async move {
            let upgraded = self.on.await.ok()?;
            let config = WebSocketConfig::default()
                .max_message_size(Some(PIECE_BYTES_MAX))
                .max_frame_size(Some(PIECE_BYTES_MAX));
            let io = TokioIo::new(upgraded);
            Some(WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await)
        };
        (response, socket)
    }
}

/// Carries messages both ways until either end is gone.
pub(crate) async fn pump(socket: &mut Socket, pipe: Pipe) {
    let Pipe { mut out, mut into } = pipe;
    let (mut sink, mut stream) = socket.split();
    let heard = std::sync::Mutex::new(Instant::now());
    let there = async {
        while let Some(Ok(message)) = stream.next().await {
            *heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
            let piece: Bytes = match message {
                Message::Binary(piece) => piece,
                Message::Text(text) => text.into(),
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            if !piece.is_empty() && out.send(piece.into()).await.is_err() {
                break;
            }
        }
    };
    let back = async {
        let mut ticks = interval(PING_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let message = tokio::select! {
                piece = into.next() => match piece {
                    Some(piece) => Message::Binary(piece.into()),
                    None => break,
                },
                _ = ticks.tick() => {
                    let silent = heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if silent.elapsed() > SILENCE_MAX {
                        break;
                    }
                    Message::Ping(Bytes::new())
                }
            };
            // What somebody does not take is not sent for ever.
            match tokio::time::timeout(SILENCE_MAX, sink.send(message)).await {
                Ok(Ok(())) => {}
                _ => break,
            }
        }
    };
    pin_mut!(there, back);
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}

/// Says why it ends.
pub(crate) async fn close(socket: &mut Socket, reason: &str) {
    let reason = reason.get(..REASON_BYTES_MAX).unwrap_or(reason);
    let frame = CloseFrame { code: CloseCode::Normal, reason: reason.into() };
    let _ = tokio::time::timeout(PING_EVERY, socket.close(Some(frame))).await;
}

//! The listener itself: real connections, TLS, and a shutdown that loses nothing.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use adapters_http::{serve, tls_from_pem};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

use crate::world::World;

struct Served {
    world: World,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<std::io::Result<()>>,
}

async fn served(tls: Option<Arc<rustls::ServerConfig>>) -> Served {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let service = world.service.clone();
    let running = tokio::spawn(async move {
        let shutdown = async {
            let _ = stopped.await;
        };
        serve(listener, tls, service, shutdown, Duration::from_secs(10)).await
    });
    Served { world, address, stop, running }
}

fn request(method: &str, path: &str, token: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nprefer: wait=60\r\n\r\n{body}",
        body.len()
    )
}

/// Reads until this text has come.
async fn until(stream: &mut (impl AsyncRead + Unpin), part: &str) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        bytes.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if text.contains(part) || read == 0 {
            return text;
        }
    }
}

async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    until(stream, "}").await
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_as_the_document_says() {
    let served = served(None).await;
    // Where one ends and the other begins depends on the pieces that the head comes in.
    for (path, header) in [(100_000, 1), (1, 200_000)] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let (path, header) = ("x".repeat(path), "y".repeat(header));
        let head = format!("GET /{path} HTTP/1.1\r\nhost: localhost\r\nmore: {header}\r\n\r\n");
        // The answer may come before all of it is sent.
        let _ = stream.write_all(head.as_bytes()).await;
        let answer = until(&mut stream, "\r\n\r\n").await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(matches!(status, "414" | "431"), "{answer}");
        assert!(answer.contains("content-length: 0"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_lets_requests_finish_and_ends_feeds() {
    let served = served(None).await;
    let admin = served.world.admin.clone();
    let mut feed = TcpStream::connect(served.address).await.unwrap();
    feed.write_all(request("GET", "/v1/audit/events:watch?from=0", &admin, "").as_bytes())
        .await
        .unwrap();
    assert!(until(&mut feed, "issued").await.contains("text/event-stream"));
    // A command that waits for its order when the server is told to stop.
    let mut waiting = TcpStream::connect(served.address).await.unwrap();
    let body = r#"{"name":"one","provider":"still","credential":{"key":"k"}}"#;
    waiting
        .write_all(request("POST", "/v1/cloud-accounts", &admin, body).as_bytes())
        .await
        .unwrap();
    assert!(until(&mut feed, "connected").await.contains("\"kind\":\"cloud-account\""));
    served.stop.send(()).unwrap();
    let answer = until(&mut waiting, "}").await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    served.running.await.unwrap().unwrap();
    let mut rest = String::new();
    feed.read_to_string(&mut rest).await.unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_one_request_after_another_even_after_a_refused_body() {
    let served = served(None).await;
    let admin = served.world.admin.clone();
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let big = format!("{{\"name\":\"{}\"}}", "x".repeat(2 << 20));
    let refused = exchange(&mut stream, &request("POST", "/v1/projects", &admin, &big)).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    let body = json!({"name": "shop"}).to_string();
    let done = exchange(&mut stream, &request("POST", "/v1/projects", &admin, &body)).await;
    assert!(done.starts_with("HTTP/1.1 201"), "{done}");
    served.stop.send(()).unwrap();
    served.running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_with_a_certificate_from_pem_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http/tls");
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    assert!(tls_from_pem(&key, &certificate).is_err());
    let served = served(Some(tls_from_pem(&certificate, &key).unwrap())).await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let plain = TcpStream::connect(served.address).await.unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(client))
        .connect(ServerName::try_from("localhost").unwrap(), plain)
        .await
        .unwrap();
    let answer = exchange(&mut stream, &request("GET", "/livez", "", "")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(stream);
    served.stop.send(()).unwrap();
    served.running.await.unwrap().unwrap();
}

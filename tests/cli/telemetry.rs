//! Traces, as a collector gets them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::mpsc::{Receiver, channel},
};

use serde_json::Value;

use super::server::{Server, Store, cloud, exchange};

/// A collector that takes everything: its base URL, and path and body of what comes.
fn collector() -> (String, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut first, mut length) = (String::new(), 0);
            stream.read_line(&mut first).unwrap();
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                let line = line.trim().to_ascii_lowercase();
                if let Some(number) = line.strip_prefix("content-length:") {
                    length = number.trim().parse().unwrap();
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                          content-length: 2\r\nconnection: close\r\n\r\n{}";
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
            if sender.send((first, String::from_utf8(body).unwrap())).is_err() {
                return;
            }
        }
    });
    (url, receiver)
}

#[test]
fn spans_of_requests_and_orders_go_to_the_collector_under_the_callers_trace() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";
    let (url, posts) = collector();
    let folder = tempfile::tempdir().unwrap();
    cloud(folder.path());
    let config = folder.path().join("skyledger.toml");
    // Lines are filtered apart from traces.
    std::fs::write(&config, format!("otlp_endpoint = \"{url}\"\nlog = \"info\"\n")).unwrap();
    let more = ["--config", config.to_str().unwrap()];
    let server = Server::start_with(folder.path(), &Store::Embedded, &more);
    server.connect();
    let address = server.url.strip_prefix("http://").unwrap();
    let answer = exchange(
        address,
        &format!(
            "GET /v1/servers HTTP/1.0\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
             traceparent: 00-{TRACE}-{PARENT}-01\r\n\r\n",
            server.token
        ),
    );
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert_eq!(server.stop(), 0);

    let mut spans: Vec<Value> = Vec::new();
    // What is waiting is sent before the server has ended.
    for (line, body) in posts.try_iter() {
        assert!(line.starts_with("POST /v1/traces "), "{line}");
        let body: Value = serde_json::from_str(&body).unwrap();
        let scopes = body["resourceSpans"].as_array().unwrap().iter();
        let scopes = scopes.flat_map(|one| one["scopeSpans"].as_array().unwrap());
        for scope in scopes {
            spans.extend(scope["spans"].as_array().unwrap().iter().cloned());
        }
    }
    let ours: Vec<&Value> = spans.iter().filter(|span| span["traceId"] == TRACE).collect();
    assert_eq!(ours.len(), 1, "{spans:?}");
    assert_eq!(ours[0]["name"], "request");
    assert_eq!(ours[0]["parentSpanId"], PARENT);
    let named = |name: &str| spans.iter().filter(|span| span["name"] == name).count();
    assert_eq!(named("order"), 2, "verify and sync");
    assert!(named("look") >= 5, "one for each kind and region");
    // Nothing of libraries, and nothing of the exporter's own calls.
    let known = named("order") + named("look") + named("request");
    assert_eq!(known, spans.len(), "{spans:?}");
}

//! Commands through HTTP, durable, on the embedded store.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use adapters_http::{Options, Service};
use adapters_sim::SimCloud;
use adapters_store_sqlite::{SqliteLeases, start_views};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use commands::{
    ledger::{Ledger, Ports},
    ports::{Clock, EventLog, NewId},
    submit::Submission,
    testing::{NoBills, TestVault},
};
use domain::{kernel::Principal, kinds};
use projections::views::{LENSES, VIEWS};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use uuid::Uuid;

use crate::support::{Size, open_sqlite, percentile, runtime};

pub(crate) struct RealClock;

#[async_trait]
impl Clock for RealClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

pub(crate) struct RealIds;

impl NewId for RealIds {
    fn new_id(&self) -> Uuid {
        Uuid::now_v7()
    }
    fn new_secret(&self) -> String {
        // A bench needs no secrets.
        format!("{}{}", Uuid::now_v7().simple(), "00000000000")
    }
}

/// One keep-alive connection that speaks just enough HTTP/1.1.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn connect(address: std::net::SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("it connects");
        stream.set_nodelay(true).expect("an option is set");
        Self { stream, buffer: Vec::with_capacity(8_192) }
    }

    /// Sends, and gives the status of the answer.
    async fn send(&mut self, request: &[u8]) -> u16 {
        self.stream.write_all(request).await.expect("it sends");
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("it answers");
            assert!(read > 0, "the connection was closed");
            let text = String::from_utf8_lossy(&self.buffer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length: usize = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .and_then(|(_, length)| length.trim().parse().ok())
                .expect("an answer has a length");
            if body.len() >= length {
                return head[9..12].parse().expect("an answer has a status");
            }
        }
    }
}

async fn measure(size: Size) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open_sqlite(folder.path());
    let log: Arc<dyn EventLog> = Arc::new(store.clone());
    let clock = Arc::new(RealClock);
    let (views, _running) =
        start_views(folder.path().join("views"), log.clone(), VIEWS, LENSES).expect("views start");
    let ledger = Ledger::new(Ports {
        answers: Arc::new(NoBills),
        backups: Arc::new(commands::testing::NoBackups),
        bills: Arc::new(NoBills),
        log,
        views: Arc::new(views),
        hosts: Arc::new(commands::ports::NoHosts),
        leases: Arc::new(SqliteLeases::new(&store).expect("leases")),
        vault: Arc::new(TestVault),
        clock: clock.clone(),
        ids: Arc::new(RealIds),
        providers: vec![Arc::new(SimCloud::new(clock))],
    });
    let issue = json!({"name": "bench", "role": "admin", "reach": "all"});
    let token = kinds::by_name("token").expect("there are tokens");
    let outcome = ledger
        .submit(Submission::new(Principal::system("bench"), token, None, "issue", issue))
        .await
        .expect("a token is issued");
    let secret = outcome.secret.expect("with its secret");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it has an address");
    let service = Service::new(ledger, Options::default());
    let server = tokio::spawn(adapters_http::serve(
        listener,
        None,
        service,
        std::future::pending(),
        Duration::ZERO,
    ));
    println!("| clients | commands/s | p50 ms | p99 ms | goal |\n|--:|--:|--:|--:|---|");
    for (clients, goal) in [(1, ""), (32, "≥ 2,000/s, p99 ≤ 25 ms")] {
        let how_long = size.pick(Duration::from_secs(15), Duration::from_secs(1));
        let warm = size.pick(Duration::from_secs(2), Duration::ZERO);
        let start = Instant::now();
        let mut loops = tokio::task::JoinSet::new();
        for client in 0..clients {
            let secret = secret.clone();
            loops.spawn(async move {
                let mut connection = Client::connect(address).await;
                let mut took = Vec::new();
                let mut number = 0;
                while start.elapsed() < warm + how_long {
                    number += 1;
                    let body = format!(r#"{{"name":"project {client} {number}"}}"#);
                    let request = format!(
                        "POST /v1/projects HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer \
                         {secret}\r\ncontent-type: application/json\r\nidempotency-key: \
                         {client}-{clients}-{number}\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    let sent = Instant::now();
                    let status = connection.send(request.as_bytes()).await;
                    assert!(status == 200 || status == 201, "{status}");
                    if start.elapsed() > warm {
                        took.push(sent.elapsed());
                    }
                }
                took
            });
        }
        let mut took: Vec<Duration> = loops.join_all().await.into_iter().flatten().collect();
        let rate = took.len() as f64 / how_long.as_secs_f64();
        println!(
            "| {clients} | {rate:.0} | {:.2} | **{:.2}** | {goal} |",
            percentile(&mut took, 0.50),
            percentile(&mut took, 0.99)
        );
    }
    server.abort();
}

pub(crate) fn run(size: Size) {
    println!(
        "`POST /v1/projects` with an idempotency key, keep-alive, load on the same machine.\n"
    );
    runtime().block_on(measure(size));
}

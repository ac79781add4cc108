//! A proxy between a client and a stand-in of a cloud that breaks calls on demand and counts what
//! it did. For tests, here and in other crates: a world with faults instead of a mock.
//!
//! A [`Script`] looks at each call and says what becomes of it. The proxy binds to the loopback,
//! takes one call per connection, and forgets the script, not the counts, when another is set.

pub mod cloudpods;
mod hand;
pub mod nbd;
pub mod vcenter;

pub use hand::{Answered, Hand};

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Largest head and body of a call that the proxy takes.
const CALL_BYTES_MAX: usize = 32 << 20;

/// One call that came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// From 1, over all calls since the script was set.
    pub number: usize,
    /// For instance `DescribeVpcs`, or `GetObject`.
    pub action: String,
    /// From the scope of its signature.
    pub region: String,
    /// The fields of its form.
    pub form: BTreeMap<String, String>,
}

/// What becomes of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes through.
    Forward,
    /// The stand-in never hears of it; this is the answer.
    Answer {
        /// HTTP status.
        status: u16,
        /// Seconds, as a header.
        retry_after: Option<u64>,
        /// The whole body.
        body: String,
    },
    /// The connection ends before the stand-in hears of it.
    DropBefore,
    /// The stand-in does it; the connection ends before the answer.
    DropAfter,
    /// The stand-in does it; half of the answer comes through.
    CutAnswer,
}

impl Fate {
    /// AWS's refusal with this code.
    pub fn refuse(status: u16, code: &str) -> Self {
        Self::Answer {
            status,
            retry_after: None,
            body: format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}\
                 </Code><Message>The proxy says so.</Message></Error></Errors><RequestID>0\
                 </RequestID></Response>"
            ),
        }
    }

    /// 503 `RequestLimitExceeded`, to be tried again after so many seconds.
    pub fn throttle(seconds: u64) -> Self {
        match Self::refuse(503, "RequestLimitExceeded") {
            Self::Answer { status, body, .. } => {
                Self::Answer { status, retry_after: Some(seconds), body }
            }
            other => other,
        }
    }
}

/// Decides over each call.
pub type Script = Box<dyn FnMut(&Seen) -> Fate + Send>;

#[derive(Default)]
struct State {
    script: Option<Script>,
    since_script: usize,
    seen: Vec<Seen>,
    broken: usize,
}

/// A running proxy; it ends when it is dropped.
pub struct Proxy {
    url: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// In front of a stand-in's URL (`http://host:port`).
    ///
    /// # Errors
    /// When no port of the loopback is to be had.
    pub async fn start(upstream: &str) -> io::Result<Self> {
        let upstream = upstream.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (shared, upstream) = (Arc::clone(&shared), upstream.clone());
                tokio::spawn(async move {
                    // A broken connection is what this is for; the client tells of it.
                    let _ = serve(client, &upstream, &shared).await;
                });
            }
        });
        Ok(Self { url, state, task })
    }

    /// Where it answers.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on this decides; its calls are numbered from 1.
    pub fn script(&self, script: impl FnMut(&Seen) -> Fate + Send + 'static) {
        let mut state = lock(&self.state);
        state.script = Some(Box::new(script));
        state.since_script = 0;
    }

    /// This becomes of call number `nth` (from 1, from now on); all others go through.
    pub fn script_nth(&self, nth: usize, fate: Fate) {
        self.script(move |seen| if seen.number == nth { fate.clone() } else { Fate::Forward });
    }

    /// Every call goes through again.
    pub fn heal(&self) {
        lock(&self.state).script = None;
    }

    /// Every call so far, in the order it came in.
    pub fn calls(&self) -> Vec<Seen> {
        lock(&self.state).seen.clone()
    }

    /// How many calls were really broken so far.
    pub fn broken(&self) -> usize {
        lock(&self.state).broken
    }
}

async fn serve(mut client: TcpStream, upstream: &str, state: &Mutex<State>) -> io::Result<()> {
    let Some((mut head, body)) = read_call(&mut client).await? else { return Ok(()) };
    let fate = judge(&head, &body, state);
    if let Fate::Answer { status, retry_after, body } = &fate {
        let retry = retry_after.map(|s| format!("Retry-After: {s}\r\n")).unwrap_or_default();
        let answer = format!(
            "HTTP/1.1 {status} Broken\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n{retry}\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        client.write_all(answer.as_bytes()).await?;
        return client.shutdown().await;
    }
    if fate == Fate::DropBefore {
        return Ok(());
    }
    // The stand-in then ends the connection after its answer, which tells where the answer ends.
    head.truncate(head.len() - 2);
    head.extend_from_slice(b"Connection: close\r\n\r\n");
    let mut server = TcpStream::connect(upstream).await?;
    server.write_all(&head).await?;
    server.write_all(&body).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    match fate {
        Fate::DropAfter => return Ok(()),
        Fate::CutAnswer => answer.truncate(answer.len() / 2),
        _ => {}
    }
    client.write_all(&answer).await?;
    client.shutdown().await
}

/// Head (with its empty line) and body; none when the client went away.
async fn read_call(client: &mut TcpStream) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 16 << 10];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let length: usize =
                header(&bytes[..end], "content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
            if bytes.len() >= end + 4 + length {
                let body = bytes.split_off(end + 4);
                return Ok(Some((bytes, body)));
            }
        }
        let read = client.read(&mut chunk).await?;
        if read == 0 || bytes.len() > CALL_BYTES_MAX {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk[..read]);
    }
}

fn header(head: &[u8], name: &str) -> Option<String> {
    String::from_utf8_lossy(head).lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

/// What a call of S3 is called that says it by its method and path.
fn object_action(head: &[u8]) -> String {
    let head = String::from_utf8_lossy(head);
    let first = head.lines().next().unwrap_or_default();
    let action = match first {
        get if get.starts_with("GET") && get.contains("list-type=2") => "ListObjectsV2",
        get if get.starts_with("GET") => "GetObject",
        _ => "",
    };
    action.to_owned()
}

fn judge(head: &[u8], body: &[u8], state: &Mutex<State>) -> Fate {
    let form: BTreeMap<String, String> = String::from_utf8_lossy(body)
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect();
    // Credential=<key>/<date>/<region>/<service>/aws4_request
    let scope = header(head, "authorization").unwrap_or_default();
    let region = scope.split('/').nth(2).unwrap_or_default().to_owned();
    let action = form.get("Action").cloned().unwrap_or_else(|| object_action(head));
    let mut state = lock(state);
    state.since_script += 1;
    let seen = Seen { number: state.since_script, action, region, form };
    let fate = state.script.as_mut().map_or(Fate::Forward, |script| script(&seen));
    state.broken += usize::from(fate != Fate::Forward);
    state.seen.push(seen);
    fate
}

fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex: String = bytes.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&hex, 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}

//! A session of a vCenter: one call of its SOAP API, and one stretch of a file of its datastores.
//!
//! A session that has ended meanwhile, as one does that is not used for half an hour, is begun again.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use commands::ports::{Access, DriverFault, Identity};
use http::{Request, Uri};
use tokio::{net::UdpSocket, sync::RwLock, time::sleep};

use super::{
    credential::Credential,
    xml::{Node, element, reference},
};
use crate::http_client::{Answer, Fingerprint, HttpClient};

/// Longest text of its own that is passed on, in characters.
const SAID_CHARS_MAX: usize = 300;
/// The version of its API that is spoken: that of vCenter 6.5, which later ones speak as well.
const VERSION: &str = "urn:vim25/6.5";
/// Between two looks at a task, at first and at most.
const LOOK_FIRST: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_secs(1);

/// Where what is of use for every call is found there.
#[derive(Debug, Default)]
struct Content {
    sessions: String,
    properties: String,
    views: String,
    root: String,
    /// Its own id; empty for one host without a vCenter.
    instance: String,
}

/// A session; who has one ends it.
pub(super) struct Session<'a> {
    http: &'a HttpClient,
    access: &'a Access,
    credential: Credential,
    base: String,
    cookie: RwLock<String>,
    content: Content,
    user: String,
}

fn base(endpoint: Option<&str>) -> Result<String, DriverFault> {
    let endpoint = endpoint.ok_or_else(|| {
        let why = "endpoint: say where the vCenter answers, such as https://vcenter.example";
        DriverFault::Denied(why.to_owned())
    })?;
    let base = endpoint.trim_end_matches('/');
    Ok(base.strip_suffix("/sdk").unwrap_or(base).to_owned())
}

impl<'a> Session<'a> {
    /// Logs in.
    pub(super) async fn open(
        http: &'a HttpClient,
        access: &'a Access,
        credential: Credential,
    ) -> Result<Self, DriverFault> {
        let base = base(access.endpoint.as_deref())?;
        let mut session = Self {
            http,
            access,
            credential,
            base,
            cookie: RwLock::default(),
            content: Content::default(),
            user: String::new(),
        };
        let this = ("ServiceInstance", "ServiceInstance");
        let (found, _) = session.once("RetrieveServiceContent", this, "").await?;
        let found = found.at("returnval").cloned().unwrap_or_default();
        let of = |name: &str| found.said(name).to_owned();
        session.content = Content {
            sessions: of("sessionManager"),
            properties: of("propertyCollector"),
            views: of("viewManager"),
            root: of("rootFolder"),
            instance: of("about/instanceUuid"),
        };
        if session.content.instance.is_empty() {
            let why = "it is no vCenter: one ESXi host alone is not connected";
            return Err(DriverFault::Denied(why.to_owned()));
        }
        session.user = session.log_in().await?;
        Ok(session)
    }

    /// A client that knows the account's vCenter by its certificate; none where others vouch for it.
    pub(super) fn client(credential: &Credential) -> Option<HttpClient> {
        let fingerprint = credential.fingerprint.as_deref().and_then(Fingerprint::read)?;
        Some(HttpClient::of(fingerprint))
    }

    async fn log_in(&self) -> Result<String, DriverFault> {
        let Credential { user, password, .. } = &self.credential;
        let words = element("userName", user) + &element("password", password);
        let this = ("SessionManager", self.content.sessions.as_str());
        let (said, cookie) = self.once("Login", this, &words).await?;
        let cookie = cookie.ok_or_else(|| {
            DriverFault::Unexpected("it lets the user in without a session".to_owned())
        })?;
        *self.cookie.write().await = cookie;
        Ok(said.said("returnval/userName").to_owned())
    }

    /// Ends it. One that is not ended goes by itself, in half an hour.
    pub(super) async fn close(&self) {
        let this = ("SessionManager", self.content.sessions.as_str());
        if let Err(fault) = self.once("Logout", this, "").await {
            tracing::debug!(%fault, "a session was not ended");
        }
    }

    /// Who it is.
    pub(super) fn identity(&self) -> Identity {
        Identity { external_account: self.content.instance.clone(), principal: self.user.clone() }
    }

    /// The folder that everything is in.
    pub(super) fn root(&self) -> &str {
        &self.content.root
    }

    pub(super) fn properties(&self) -> (&str, &str) {
        ("PropertyCollector", &self.content.properties)
    }

    pub(super) fn views(&self) -> (&str, &str) {
        ("ViewManager", &self.content.views)
    }

    /// The address that what is copied is sent from, as far as this machine can tell.
    pub(super) async fn sender(&self) -> Option<IpAddr> {
        if self.credential.sender.is_some() {
            return self.credential.sender;
        }
        let uri: Uri = self.base.parse().ok()?;
        let (host, port) = (uri.host()?, uri.port_u16().unwrap_or(443));
        let host = host.trim_matches(['[', ']']);
        for any in ["0.0.0.0:0", "[::]:0"] {
            // Nothing is sent: the kernel says which of its addresses it would take.
            if let Ok(socket) = UdpSocket::bind(any).await
                && socket.connect((host, port)).await.is_ok()
            {
                return Some(socket.local_addr().ok()?.ip());
            }
        }
        None
    }

    /// One call; what is answered is in `returnval`.
    pub(super) async fn call(
        &self,
        method: &str,
        this: (&str, &str),
        words: &str,
    ) -> Result<Node, DriverFault> {
        let first = self.once(method, this, words).await;
        if first.as_ref().is_err_and(has_ended) {
            self.log_in().await?;
            return Ok(self.once(method, this, words).await?.0);
        }
        Ok(first?.0)
    }

    async fn once(
        &self,
        method: &str,
        (kind, id): (&str, &str),
        words: &str,
    ) -> Result<(Node, Option<String>), DriverFault> {
        let this = reference("_this", kind, id);
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<e:Envelope \
             xmlns:e=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" \
             xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><e:Body>\
             <{method} xmlns=\"urn:vim25\">{this}{words}</{method}></e:Body></e:Envelope>"
        );
        let request = Request::post(format!("{}/sdk", self.base))
            .header("content-type", "text/xml; charset=utf-8")
            .header("soapaction", VERSION);
        let answer = self.send(request, body.into_bytes()).await?;
        let cookie = answer.cookie.clone();
        let result = judged(method, &answer);
        self.access.pace.learn(result.as_ref().err());
        Ok((result?, cookie))
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: Vec<u8>,
    ) -> Result<Answer, DriverFault> {
        let cookie = self.cookie.read().await.clone();
        let request = if cookie.is_empty() { request } else { request.header("cookie", cookie) };
        let request = request
            .body(body)
            .map_err(|error| DriverFault::Denied(format!("endpoint: {error}")))?;
        self.access.pace.ticket().await;
        let answer = self.http.send(request).await;
        if let Err(fault) = &answer {
            self.access.pace.learn(Some(fault));
        }
        answer
    }

    /// A stretch of a file of a datastore: exactly so many bytes.
    pub(super) async fn stretch(
        &self,
        path: &str,
        at: u64,
        length: usize,
    ) -> Result<Vec<u8>, DriverFault> {
        let last = at + length as u64 - 1;
        for again in [false, true] {
            let request = Request::get(format!("{}{path}", self.base))
                .header("range", format!("bytes={at}-{last}"));
            let answer = self.send(request, Vec::new()).await?;
            let said = || format!("a disk's file cannot be read (HTTP {})", answer.status);
            match answer.status {
                206 if answer.body.len() == length => return Ok(answer.body),
                206 => return Err(DriverFault::Transient("a stretch of a file is cut".into())),
                200 => {
                    let why = "it gives whole files alone: whatever is between does not let ranges through";
                    return Err(DriverFault::Rejected(why.to_owned()));
                }
                401 | 403 if !again => drop(self.log_in().await?),
                401 | 403 => return Err(DriverFault::Denied(said())),
                404 => return Err(DriverFault::NotFound(said())),
                416 => {
                    let why = "a disk's file is shorter than the disk".to_owned();
                    return Err(DriverFault::Rejected(why));
                }
                429 => return Err(DriverFault::Throttled { retry_after: answer.retry_after }),
                // A file that is locked for a moment is answered with 500 as well.
                500..=599 => return Err(DriverFault::Transient(said())),
                _ => return Err(DriverFault::Rejected(said())),
            }
        }
        Err(DriverFault::Denied("the session is not taken".to_owned()))
    }

    /// Has something done that takes its time, and waits until it is; what came of it.
    pub(super) async fn task(
        &self,
        method: &str,
        this: (&str, &str),
        words: &str,
    ) -> Result<Node, DriverFault> {
        let answer = self.call(method, this, words).await?;
        let task = answer.said("returnval").to_owned();
        let mut rest = LOOK_FIRST;
        loop {
            let info = self.property("Task", &task, "info").await?;
            match info.said("state") {
                "success" => return Ok(info.at("result").cloned().unwrap_or_default()),
                "error" => {
                    let name = info.at("error/fault").map_or("", Node::kind);
                    let said = info.said("error/localizedMessage");
                    return Err(refused(method, name, said));
                }
                _ => sleep(rest).await,
            }
            rest = (rest * 2).min(LOOK_MAX);
        }
    }

    /// One property of something.
    async fn property(&self, kind: &str, id: &str, name: &str) -> Result<Node, DriverFault> {
        let words = format!(
            "<specSet><propSet>{}<all>false</all>{}</propSet><objectSet>{}</objectSet></specSet>\
             <options/>",
            element("type", kind),
            element("pathSet", name),
            reference("obj", kind, id),
        );
        let answer = self.call("RetrievePropertiesEx", self.properties(), &words).await?;
        let found = answer.at("returnval/objects/propSet/val").cloned();
        found.ok_or_else(|| DriverFault::Unexpected(format!("{id} has no {name}")))
    }
}

/// Whether a session is not known any more.
fn has_ended(fault: &DriverFault) -> bool {
    matches!(fault, DriverFault::Denied(why) if why.contains("NotAuthenticated"))
}

/// What an answer says, or what its no means.
fn judged(method: &str, answer: &Answer) -> Result<Node, DriverFault> {
    let node = match answer.status {
        200 | 500 => Node::parse(&answer.body),
        401 | 403 => return Err(DriverFault::Denied(format!("{method}: HTTP {}", answer.status))),
        429 => return Err(DriverFault::Throttled { retry_after: answer.retry_after }),
        502..=504 => return Err(DriverFault::Transient(format!("HTTP {}", answer.status))),
        status => {
            return Err(DriverFault::Unexpected(format!(
                "{method}: HTTP {status}: is it a vCenter?"
            )));
        }
    };
    let node = match node {
        // A server that is not up yet answers so as well.
        Err(_) if answer.status == 500 => return Err(DriverFault::Transient("HTTP 500".into())),
        node => node?,
    };
    if let Some(fault) = node.at("Body/Fault") {
        let detail = fault.at("detail").and_then(|detail| detail.inner().first());
        let name = detail.map_or("", |one| {
            if one.kind().is_empty() { one.name().trim_end_matches("Fault") } else { one.kind() }
        });
        return Err(refused(method, name, fault.said("faultstring")));
    }
    let response = node.at(&format!("Body/{method}Response")).cloned();
    response.ok_or_else(|| DriverFault::Unexpected(format!("{method}: another answer came")))
}

/// What a fault of its means.
fn refused(method: &str, name: &str, said: &str) -> DriverFault {
    let said: String = said.chars().take(SAID_CHARS_MAX).collect();
    let text = format!("{method}: {name}: {}", said.trim());
    match name {
        "InvalidLogin" | "NoPermission" | "NotAuthenticated" | "InvalidLocale" => {
            DriverFault::Denied(text)
        }
        "ManagedObjectNotFound" => DriverFault::NotFound(text),
        "" | "CannotAccessFile" | "FileLocked" | "HostCommunication" | "HostConnectFault"
        | "HostNotConnected" | "HostNotReachable" | "ResourceInUse" | "SystemError"
        | "TaskInProgress" | "Timedout" => DriverFault::Transient(text),
        _ => DriverFault::Rejected(text),
    }
}

/// How old what was read may be when it is written: less than a runner's lease holds, so that one that stood
/// still for longer writes nothing over what another has written since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fresh(Instant, std::time::SystemTime);

const FRESH: Duration = Duration::from_secs(10);

impl Fresh {
    pub(super) fn now() -> Self {
        Self(Instant::now(), std::time::SystemTime::now())
    }

    /// # Errors
    /// It is too old.
    pub(super) fn check(&self) -> Result<(), DriverFault> {
        // Of the two clocks one stands still while the machine sleeps.
        let asleep = self.1.elapsed().unwrap_or_default();
        if self.0.elapsed().max(asleep) > FRESH {
            let why =
                "what was read came too late to be written: the way to the vCenter is too slow";
            return Err(DriverFault::Transient(why.to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let body = format!("<E><Body>{body}</Body></E>").into_bytes();
        Answer { status, retry_after: None, token: None, cookie: None, body }
    }

    #[test]
    fn answers_are_what_was_asked_for_or_what_their_no_means() {
        let good = answer(200, "<LoginResponse><returnval>x</returnval></LoginResponse>");
        assert_eq!(judged("Login", &good).unwrap().said("returnval"), "x");
        assert!(matches!(judged("Logout", &good), Err(DriverFault::Unexpected(_))));
        let fault = |kind: &str| {
            let detail = format!("<detail><{kind}Fault xsi:type=\"{kind}\"/></detail>");
            let body = format!("<Fault><faultstring>no</faultstring>{detail}</Fault>");
            judged("Login", &answer(500, &body)).unwrap_err()
        };
        assert!(matches!(fault("InvalidLogin"), DriverFault::Denied(_)));
        assert!(has_ended(&fault("NotAuthenticated")) && !has_ended(&fault("NoPermission")));
        assert!(matches!(fault("TaskInProgress"), DriverFault::Transient(_)));
        assert!(matches!(fault("InvalidState"), DriverFault::Rejected(_)));
        let cut = Answer { body: b"<E><Bo".to_vec(), ..answer(200, "") };
        assert!(matches!(judged("Login", &cut), Err(DriverFault::Unexpected(_))));
    }

    #[test]
    fn an_endpoint_is_a_vcenter_with_or_without_its_path() {
        for endpoint in ["https://v.example", "https://v.example/", "https://v.example/sdk"] {
            assert_eq!(base(Some(endpoint)).unwrap(), "https://v.example");
        }
        assert!(base(None).is_err());
    }
}

//! A token of a cluster, and single calls with it.

use commands::ports::{Access, DriverFault, Identity};
use http::Request;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::RwLock;

use super::{
    credential::Credential,
    wire::{Server, ServerAnswer, ServersAnswer, Token, TokenAnswer},
};
use crate::http_client::{Answer, HttpClient};

/// Longest part of an answer that is told on, in characters.
const SAID_CHARS_MAX: usize = 500;

/// A user who has come in. A token that is too old by now is taken again.
#[derive(Debug)]
pub(super) struct Session<'a> {
    http: &'a HttpClient,
    access: &'a Access,
    credential: Credential,
    secret: RwLock<String>,
    token: Token,
    base: String,
}

impl<'a> Session<'a> {
    pub(super) async fn open(
        http: &'a HttpClient,
        access: &'a Access,
        credential: Credential,
    ) -> Result<Self, DriverFault> {
        let (secret, token) = log_in(http, access, &credential).await?;
        let base = compute(&token, credential.region.as_deref())?;
        let secret = RwLock::new(secret);
        Ok(Self { http, access, credential, secret, token, base })
    }

    /// Who it is.
    pub(super) fn identity(&self) -> Identity {
        Identity {
            external_account: self.token.project.id.clone(),
            principal: self.token.user.name.clone(),
        }
    }

    /// A page of the machines on the cluster's own hosts.
    pub(super) async fn servers(
        &self,
        from: usize,
        most: usize,
    ) -> Result<ServersAnswer, DriverFault> {
        let scope = self.credential.scope();
        let path = format!(
            "/servers?hypervisor=kvm&details=true&scope={scope}&order_by=created_at&order=asc\
             &limit={most}&offset={from}"
        );
        read(&self.call("GET", &path, None).await?)
    }

    /// One of them; none when it is not there.
    pub(super) async fn server(&self, id: &str) -> Result<Option<Server>, DriverFault> {
        match self.call("GET", &format!("/servers/{}", word(id)?), None).await {
            Ok(answer) => Ok(Some(read::<ServerAnswer>(&answer)?.server)),
            Err(DriverFault::NotFound(_)) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// One that is to be there.
    pub(super) async fn known(&self, id: &str) -> Result<Server, DriverFault> {
        let server = self.server(id).await?;
        server.ok_or_else(|| DriverFault::NotFound(format!("the cluster has no machine {id}")))
    }

    /// Has something done to one of them, and gives what is answered.
    pub(super) async fn act(
        &self,
        id: &str,
        action: &str,
        input: &Value,
    ) -> Result<Value, DriverFault> {
        let path = format!("/servers/{}/{action}", word(id)?);
        let answer = self.call("POST", &path, Some(&json!({"server": input}))).await?;
        if answer.body.is_empty() {
            return Ok(Value::Null);
        }
        let mut body: Value = read(&answer)?;
        Ok(body["server"].take())
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, DriverFault> {
        let url = format!("{}{path}", self.base);
        for again in [false, true] {
            let token = self.secret.read().await.clone();
            let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
            let request = Request::builder()
                .method(method)
                .uri(&url)
                .header("x-auth-token", &token)
                .header("content-type", "application/json")
                .body(bytes)
                .map_err(|error| DriverFault::Unexpected(error.to_string()))?;
            self.access.pace.ticket().await;
            let answer = judged(self.http.send(request).await);
            self.access.pace.learn(answer.as_ref().err());
            match answer {
                Err(DriverFault::Denied(_)) if !again => {
                    let (secret, _) = log_in(self.http, self.access, &self.credential).await?;
                    *self.secret.write().await = secret;
                }
                answer => return answer,
            }
        }
        Err(DriverFault::Denied("the token is not taken".to_owned()))
    }
}

/// An id as it stands in a path.
fn word(id: &str) -> Result<&str, DriverFault> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if id.is_empty() || !id.chars().all(is_word) {
        return Err(DriverFault::Rejected(format!("`{id}` is no id of a machine")));
    }
    Ok(id)
}

async fn log_in(
    http: &HttpClient,
    access: &Access,
    credential: &Credential,
) -> Result<(String, Token), DriverFault> {
    let endpoint = access.endpoint.as_deref().ok_or_else(|| {
        let why = "endpoint: say where the cluster's identity service answers, such as \
                   https://cloudpods.example:30500/v3";
        DriverFault::Denied(why.to_owned())
    })?;
    let mut user = json!({"name": credential.user, "password": credential.password});
    let mut project = json!({"name": credential.project()});
    if let Some(domain) = &credential.domain {
        user["domain"] = json!({"name": domain});
        project["domain"] = json!({"name": domain});
    }
    let body = json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": user}},
        "scope": {"project": project},
    }});
    let request = Request::post(format!("{}/auth/tokens", endpoint.trim_end_matches('/')))
        .header("content-type", "application/json")
        .body(body.to_string().into_bytes())
        .map_err(|error| DriverFault::Denied(format!("endpoint: {error}")))?;
    access.pace.ticket().await;
    let answer = judged(http.send(request).await);
    access.pace.learn(answer.as_ref().err());
    let answer = answer?;
    let secret = answer.token.clone().ok_or_else(|| {
        DriverFault::Unexpected("the identity service answers without a token".to_owned())
    })?;
    Ok((secret, read::<TokenAnswer>(&answer)?.token))
}

/// Where machines answer, by a token's catalogue.
fn compute(token: &Token, region: Option<&str>) -> Result<String, DriverFault> {
    let of = |kind: &str| {
        let services = token.catalog.iter().filter(move |service| service.kind == kind);
        let mut endpoints = services.flat_map(|service| &service.endpoints);
        endpoints.find(|one| {
            one.interface == "public" && region.is_none_or(|region| one.region == region)
        })
    };
    let endpoint = of("compute_v2").or_else(|| of("compute")).ok_or_else(|| {
        let why = "the cluster's catalogue has no public compute service (of that region)";
        DriverFault::Rejected(why.to_owned())
    })?;
    Ok(endpoint.url.trim_end_matches('/').to_owned())
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, DriverFault> {
    serde_json::from_slice(&answer.body)
        .map_err(|error| DriverFault::Unexpected(format!("an answer does not read: {error}")))
}

/// An answer that says yes, or what its no means.
fn judged(answer: Result<Answer, DriverFault>) -> Result<Answer, DriverFault> {
    let answer = answer?;
    let said = || {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let details = [&body["details"], &body["error"]["message"], &body["error"]["details"]];
        let said = details
            .into_iter()
            .find_map(Value::as_str)
            .map_or_else(|| String::from_utf8_lossy(&answer.body).into_owned(), str::to_owned);
        let said: String = said.chars().take(SAID_CHARS_MAX).collect();
        format!("{} (HTTP {})", said.trim(), answer.status)
    };
    match answer.status {
        200..=299 => Ok(answer),
        401 | 403 => Err(DriverFault::Denied(said())),
        404 => Err(DriverFault::NotFound(said())),
        429 => Err(DriverFault::Throttled { retry_after: answer.retry_after }),
        400..=499 => Err(DriverFault::Rejected(said())),
        500..=599 => Err(DriverFault::Transient(said())),
        _ => Err(DriverFault::Unexpected(said())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_answer_where_the_catalogue_says() {
        let token = |region: &str| -> Token {
            let endpoint = |interface: &str, url: &str| json!({"interface": interface, "region": region, "url": url});
            serde_json::from_value(json!({"catalog": [
                {"type": "compute", "endpoints": [endpoint("public", "https://old")]},
                {"type": "compute_v2", "endpoints": [
                    endpoint("internal", "https://inside"), endpoint("public", "https://out/")]},
            ]}))
            .unwrap()
        };
        assert_eq!(compute(&token("r0"), None).unwrap(), "https://out");
        assert_eq!(compute(&token("r0"), Some("r0")).unwrap(), "https://out");
        assert!(compute(&token("r0"), Some("r1")).is_err());
        assert!(word("../x").is_err() && word("8f2c-1").is_ok());
    }
}

//! What agents of hosts ask and bring, and who asks at all.
//!
//! Each request names the epoch that its agent joined in; one that is over gets `stale-epoch` and
//! changes nothing. A host's agent has a token of its own that reaches these paths of its host, and
//! nothing else.

use std::time::Duration;

use ::commands::{
    desk::{BUSY_MAX, Busy, Given, Outcome, WAIT_MAX},
    ports::ServerPowers,
    progress::Told,
};
use axum::http::StatusCode;
use domain::{
    compute::host::{Host, HostSighting},
    kernel::{Decider, OrderKey, Refusal, Role, codes},
    kinds,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use uuid::Uuid;

use crate::{
    call::{Answer, Call, answer as reply},
    commands::wait,
    problem::{INTERNAL, Problem},
    routes::PREFER,
};

/// An agent begins to work for a host.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AgentJoin")]
struct Join {
    /// What the agent says of itself, at most 128 bytes.
    agent: String,
}

/// An agent says what its host is.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AgentSight")]
struct Sight {
    /// The epoch that it joined in.
    epoch: u64,
    /// What it sees.
    seen: HostSighting,
    /// What the host's servers do, by id: only what is not known already is recorded.
    #[serde(default)]
    servers: ServerPowers,
}

/// An agent asks for orders.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AgentTasks")]
struct Ask {
    /// The epoch that it joined in.
    epoch: u64,
    /// The orders that it works on, which it is not given again.
    #[serde(default)]
    #[schemars(length(max = BUSY_MAX))]
    busy: Vec<OrderKey>,
    /// How far those are that are transfers.
    #[serde(default)]
    #[schemars(length(max = BUSY_MAX))]
    progress: Vec<Told>,
}

/// An agent brings what became of an order.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AgentAnswer")]
struct Bring {
    /// The epoch that it joined in.
    epoch: u64,
    /// The order.
    key: OrderKey,
    /// What became of it.
    outcome: Outcome,
}

/// The body that an operation takes; none for one that is not an agent's.
pub(crate) fn body(operation: &str, generator: &mut SchemaGenerator) -> Option<Schema> {
    Some(match operation {
        "agent-answer" => generator.subschema_for::<Bring>(),
        "agent-join" => generator.subschema_for::<Join>(),
        "agent-sight" => generator.subschema_for::<Sight>(),
        "agent-tasks" => generator.subschema_for::<Ask>(),
        _ => return None,
    })
}

async fn read<T: DeserializeOwned>(call: &mut Call) -> Result<T, Problem> {
    let body = call.json().await?;
    serde_json::from_value(body).map_err(|error| {
        let text: String = error.to_string().chars().take(500).collect();
        Refusal::new(&codes::MALFORMED_COMMAND, text).into()
    })
}

/// The host in the path, for whoever may work for it.
pub(crate) fn host(call: &Call) -> Result<Uuid, Problem> {
    let host = call.id()?;
    call.principal.authorise_agent(host)?;
    Ok(host)
}

/// Who asks.
#[expect(clippy::unused_async, reason = "every handler of a route is asynchronous")]
pub(crate) async fn whoami(call: Call) -> Answer {
    let who = &call.principal;
    let body = json!({"name": who.name, "role": who.role, "reach": who.reach});
    Ok(reply(StatusCode::OK, &body))
}

/// What is known of a host's agent: by the log, and by this process.
pub(crate) async fn show(call: Call) -> Answer {
    let host = call.id()?;
    if call.principal.authorise_agent(host).is_err() {
        call.principal.authorise(Role::Viewer, None)?;
    }
    let (revision, state) = call.service.ledger.typed::<Host>(&host.to_string()).await?;
    if revision == 0 {
        let kind = kinds::by_name(Host::KIND);
        let kind = kind.ok_or_else(|| Problem::new(&INTERNAL, "there is no kind host"))?;
        return Err(Call::missing(kind, host));
    }
    let heard = call.service.ledger.desk.heard(host);
    let body = json!({
        "host": host,
        "name": state.name,
        "status": state.status(),
        "epoch": state.epoch,
        "agent": state.agent,
        "unreachable_since": state.unreachable_since,
        "connected": heard.as_ref().is_some_and(|heard| heard.connected),
        "last_heard": heard.as_ref().map(|heard| heard.last_heard),
        "orders": heard.map_or(0, |heard| heard.orders),
    });
    Ok(reply(StatusCode::OK, &body))
}

/// An agent begins.
pub(crate) async fn join(mut call: Call) -> Answer {
    let host = host(&call)?;
    let Join { agent } = read(&mut call).await?;
    let ledger = &call.service.ledger;
    let epoch = ledger.desk.join(ledger, &call.principal, host, &agent).await?;
    Ok(reply(StatusCode::OK, &json!({"host": host, "epoch": epoch})))
}

/// An agent says what its host is.
pub(crate) async fn sight(mut call: Call) -> Answer {
    let host = host(&call)?;
    let Sight { epoch, seen, servers } = read(&mut call).await?;
    let ledger = &call.service.ledger;
    let by = &call.principal;
    ledger.desk.sight(ledger, by, host, epoch, &seen, &servers).await?;
    Ok(reply(StatusCode::OK, &json!({"host": host, "epoch": epoch})))
}

/// An agent asks for orders.
pub(crate) async fn tasks(mut call: Call) -> Answer {
    let host = host(&call)?;
    let wait = wait(call.params.text(&PREFER))?.unwrap_or(Duration::ZERO).min(WAIT_MAX);
    let Ask { epoch, busy, progress } = read(&mut call).await?;
    let service = call.service.clone();
    let _waiting = service.agents.clone().try_acquire_owned().map_err(|_| Problem::overloaded())?;
    // Others may work while this one waits.
    call.permit = None;
    let ledger = &service.ledger;
    let busy = Busy { orders: busy.into_iter().collect(), progress };
    let closed = service.closed();
    let asked = ledger.desk.next(ledger, &call.principal, host, epoch, busy, wait, closed);
    let Given { tasks, calls, cpus_reserved } = asked.await?;
    let mut body = json!({"epoch": epoch, "tasks": tasks, "calls": calls});
    if let Some(cpus) = cpus_reserved {
        body["cpus_reserved"] = json!(cpus);
    }
    Ok(reply(StatusCode::OK, &body))
}

/// An agent brings what became of an order.
pub(crate) async fn answer(mut call: Call) -> Answer {
    let host = host(&call)?;
    let Bring { epoch, key, outcome } = read(&mut call).await?;
    let ledger = &call.service.ledger;
    let awaited = ledger.desk.answer(ledger, &call.principal, host, epoch, &key, outcome).await?;
    Ok(reply(StatusCode::OK, &json!({"awaited": awaited})))
}

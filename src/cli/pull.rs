//! Bills out of object storage: a pull that is waited for.

use std::time::Duration;

use adapters_console::{
    client::{self, Client},
    costs as show,
    exit::Exit,
    format,
    names::resolve,
    progress::Progress,
    style::Style,
};
use domain::{finops::bill_source::BillSource, kernel::Decider};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    Failure,
    grammar::{BillSources, ImportBill, Output},
};
use crate::connection::Connection;

/// Between two looks at a pull that goes on.
const LOOK: Duration = Duration::from_millis(300);
const PLURAL: &str = "bill-sources";

/// Whether this names files in object storage.
pub(super) fn is_bucket(path: &std::path::Path) -> bool {
    path.to_str().is_some_and(|text| text.starts_with("s3://"))
}

pub(super) async fn run(command: BillSources, connection: &Connection) -> Result<Exit, Failure> {
    let BillSources::Pull { source, reason, output } = command;
    let client = connection.client()?;
    let id = resolve(&client, BillSource::KIND, PLURAL, &source, None).await?;
    let last = pulled(&client, &id, reason).await?;
    shown(&last, &output)
}

/// What lies in a bucket, once: by a source of its own, which knows the next time what was taken in.
pub(super) async fn import(
    import: &ImportBill,
    mapping: Option<String>,
    connection: &Connection,
) -> Result<Exit, Failure> {
    if import.replace {
        let what = "--replace is not for object storage: what changes there takes the place of \
            what it said, as it is";
        return Err(Failure::usage(what));
    }
    let client = connection.client()?;
    let account = match &import.account {
        Some(name) => Some(resolve(&client, "cloud-account", "cloud-accounts", name, None).await?),
        None => None,
    };
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut exit = Exit::Ok;
    for url in &import.files {
        let url = url.to_str().and_then(|url| url.strip_prefix("s3://"));
        let Some(url) = url else {
            return Err(Failure::usage("give files, or s3://BUCKET/PREFIX, and not both"));
        };
        let (bucket, prefix) = url.split_once('/').unwrap_or((url, ""));
        let mut place = json!({"bucket": bucket, "prefix": prefix, "strict": import.strict});
        let endpoint = import.endpoint.clone();
        let of_environment = |name| environment(name).filter(|_| account.is_none());
        let endpoint = endpoint.or_else(|| of_environment("AWS_ENDPOINT_URL"));
        let region = import.region.clone().or_else(|| of_environment("AWS_REGION"));
        for (name, value) in [
            ("account", account.clone()),
            ("endpoint", endpoint.clone()),
            ("region", region),
            ("mapping", mapping.clone()),
            ("repeats", import.repeats.clone()),
        ] {
            if let Some(value) = value {
                place[name] = json!(value);
            }
        }
        let name: String = format!("s3://{url}").chars().take(100).collect();
        let mut body = json!({"name": name, "place": place});
        if account.is_none() {
            body["credential"] = credential(&environment)?;
        }
        let id = BillSource::once(bucket, prefix, endpoint.as_deref());
        command(&client, id, "define", body).await?;
        let last = pulled(&client, &id.to_string(), import.reason.clone()).await?;
        command(&client, id, "retire", json!({})).await?;
        if shown(&last, &import.output)? != Exit::Ok {
            exit = Exit::Refused;
        }
    }
    Ok(exit)
}

/// The credential of the environment, as AWS's own tools read it.
fn credential(environment: &dyn Fn(&str) -> Option<String>) -> Result<Value, Failure> {
    let mut credential = Map::new();
    for (name, variable, needed) in [
        ("access_key_id", "AWS_ACCESS_KEY_ID", true),
        ("secret_access_key", "AWS_SECRET_ACCESS_KEY", true),
        ("session_token", "AWS_SESSION_TOKEN", false),
    ] {
        match environment(variable) {
            Some(value) => drop(credential.insert(name.to_owned(), json!(value))),
            None if needed => {
                let what = format!("name an --account, or set {variable}");
                return Err(Failure::usage(what));
            }
            None => {}
        }
    }
    Ok(Value::Object(credential))
}

async fn command(client: &Client, id: Uuid, verb: &str, body: Value) -> Result<Value, Failure> {
    let command = client::Command {
        plural: PLURAL.to_owned(),
        id: Some(id.to_string()),
        verb: verb.to_owned(),
        body,
        idempotency_key: Some(Uuid::now_v7().to_string()),
        ..client::Command::default()
    };
    Ok(client.submit(&command).await?.body)
}

/// Pulls, waits as long as it takes, and gives what it came to.
async fn pulled(client: &Client, id: &str, reason: Option<String>) -> Result<Value, Failure> {
    let parsed = id.parse().map_err(|_| Failure::usage(format!("{id} is no id")))?;
    let body = json!({"reason": reason.unwrap_or_default()});
    let outcome = command(client, parsed, "pull", body).await?;
    let number = outcome["order"]["number"].clone();
    let progress = Progress::spinner("pulling");
    loop {
        let row = client.get(&format!("/v1/{PLURAL}/{id}"), &[]).await?.body;
        let last = &row["state"]["last_pull"];
        if last["number"] == number || row["order"].is_null() {
            drop(progress);
            return Ok(last.clone());
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn shown(last: &Value, output: &Output) -> Result<Exit, Failure> {
    let (out, style) = (&mut std::io::stdout().lock(), Style::stdout());
    if output.output.is_for_people() {
        show::pulled(out, last, style)?;
    } else {
        format::document(out, output.output, last)?;
    }
    let refused = last["sum"]["refused"].as_array().is_none_or(|all| !all.is_empty());
    Ok(if refused { Exit::Refused } else { Exit::Ok })
}

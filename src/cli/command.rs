//! Commands that change something: all of them are `do`, some by a shorter name.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use adapters_console::{
    client::{self, Client},
    exit::Exit,
    format, input,
    names::{is_id, resolve},
    progress::Progress,
    show,
    style::Style,
    suggest::nearest,
    time,
};
use chrono::Utc;
use domain::{
    kernel::{Caller, Kind, Verb},
    kinds,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    Failure,
    grammar::{Body, Command, Manner, Place, Token, TokenCreate},
    query::{id_of, rows},
    subject::Subject,
    upkeep,
};
use crate::{compose, connection::Connection};

/// How long the server is waited for at once; then it is asked again and again, and says how far it is.
const WAIT_FIRST: Duration = Duration::from_secs(3);

/// One command, whatever it was called on the command line.
struct Order {
    subject: Subject,
    verb: String,
    id: Option<String>,
    body: Map<String, Value>,
    manner: Manner,
}

pub(super) async fn run(command: Command, connection: &Connection) -> Result<Exit, Failure> {
    let of = |kind: &str| {
        kinds::by_name(kind)
            .map(|kind| Subject::of(kind, None))
            .ok_or_else(|| Failure::usage(format!("{kind} is not a kind")))
    };
    let plain = |target: super::grammar::Target, verb: &str| Order {
        subject: target.subject,
        verb: verb.to_owned(),
        id: target.id,
        body: Map::new(),
        manner: target.manner,
    };
    let server = |one: super::grammar::OneServer, verb: &str| {
        Ok::<_, Failure>(Order {
            subject: of("server")?,
            verb: verb.to_owned(),
            id: Some(one.id),
            body: Map::new(),
            manner: one.manner,
        })
    };
    let order = match command {
        Command::Abandon(target) => plain(target, "abandon"),
        Command::Accept(target) => plain(target, "accept"),
        Command::Adopt(target) => plain(target, "adopt"),
        Command::Retire(target) => plain(target, "retire"),
        Command::Retry(target) => plain(target, "retry"),
        Command::Mute(mute) => {
            let mut order = plain(mute.target, "mute");
            order.body.insert("reason".to_owned(), json!(mute.reason));
            if let Some(until) = mute.until {
                order.body.insert("until".to_owned(), json!(until));
            }
            order
        }
        Command::Reapply(reapply) => {
            let mut order = plain(reapply.target, "reapply");
            order.body.insert("keep_foreign".to_owned(), json!(reapply.keep_foreign));
            order
        }
        Command::Reboot(one) => server(one, "reboot")?,
        Command::Start(one) => server(one, "start")?,
        Command::Stop(one) => server(one, "stop")?,
        Command::Sync(sync) => {
            let kinds: Vec<_> = sync.kind.iter().map(Subject::singular).collect();
            let body = json!({"regions": sync.region, "kinds": kinds,
                              "approve_deletions": sync.approve_deletions});
            let body = body.as_object().cloned().unwrap_or_default();
            let (verb, id) = ("sync".to_owned(), Some(sync.id));
            Order { subject: of("cloud-account")?, verb, id, body, manner: sync.manner }
        }
        Command::Create(create) => {
            let verb = creating(&create.subject)?.name.to_owned();
            let body = read(&create.body)?;
            Order { subject: create.subject, verb, id: None, body, manner: create.manner }
        }
        Command::Declare(declare) => {
            let mut body = read(&declare.body)?;
            let flags = [("account", declare.account), ("region", declare.region)];
            for (name, value) in flags {
                if let Some(value) = value {
                    body.insert(name.to_owned(), json!(value));
                }
            }
            let (subject, verb) = (declare.subject, "declare".to_owned());
            Order { subject, verb, id: declare.id, body, manner: declare.manner }
        }
        Command::Do(one) => {
            let (verb, body) = (one.verb, read(&one.body)?);
            Order { subject: one.subject, verb, id: one.id, body, manner: one.manner }
        }
        Command::Token { command } => match command {
            Token::List(list) => return rows("tokens", list, connection).await,
            Token::Revoke { id, manner } => {
                let (verb, id) = ("revoke".to_owned(), Some(id));
                Order { subject: of("token")?, verb, id, body: Map::new(), manner }
            }
            Token::Create(create) => match &create.place {
                Some(place) => return issue_offline(&create.name, place).await,
                None => issue(create, of("token")?, connection).await?,
            },
        },
        other => return Err(Failure::new(Exit::Fault, format!("{other:?} is not a command"))),
    };
    send(order, connection).await
}

/// Creates one of a kind.
pub(super) async fn create(
    kind: &str,
    body: Map<String, Value>,
    manner: Manner,
    connection: &Connection,
) -> Result<Exit, Failure> {
    let kind = kinds::by_name(kind);
    let kind = kind.ok_or_else(|| Failure::usage("this is not a kind"))?;
    let subject = Subject::of(kind, None);
    let verb = creating(&subject)?.name.to_owned();
    send(Order { subject, verb, id: None, body, manner }, connection).await
}

/// A body whose project, image and the like are ids, whatever they were called.
pub(super) async fn read_named(
    client: &Client,
    body: &Body,
) -> Result<Map<String, Value>, Failure> {
    let mut body = read(body)?;
    name_by_id(client, &mut body, NAMED).await?;
    Ok(body)
}

fn read(body: &Body) -> Result<Map<String, Value>, Failure> {
    let mut members = match &body.file {
        Some(path) => input::file(path)?,
        None => Map::new(),
    };
    for assignment in &body.set {
        input::set(&mut members, assignment)?;
    }
    Ok(members)
}

/// Verbs that people may send.
fn verbs(kind: &Kind) -> impl Iterator<Item = &'static Verb> {
    (kind.verbs)().iter().filter(|verb| matches!(verb.caller, Caller::Person(_)))
}

fn creating(subject: &Subject) -> Result<&'static Verb, Failure> {
    let kind = kind_of(subject)?;
    verbs(kind).find(|verb| verb.creates).ok_or_else(|| {
        Failure::usage(format!("{} are only discovered: sync their account", kind.plural))
    })
}

fn kind_of(subject: &Subject) -> Result<&'static Kind, Failure> {
    subject.kind.ok_or_else(|| Failure::usage(format!("{} is a view", subject.plural)))
}

/// The verb, or what was meant, or all there are.
fn verb_of(kind: &'static Kind, name: &str) -> Result<&'static Verb, Failure> {
    if let Some(verb) = verbs(kind).find(|verb| verb.name == name) {
        return Ok(verb);
    }
    let mut text = format!("{} has no command `{name}`", kind.name);
    if let Some(near) = nearest(name, verbs(kind).map(|verb| verb.name)) {
        text = format!("{text}\n\n  tip: did you mean `{near}`?");
    }
    text.push_str("\n\nIts commands:");
    let width = verbs(kind).map(|verb| verb.name.len()).max().unwrap_or_default();
    for verb in verbs(kind) {
        text = format!("{text}\n  {:width$}  {}", verb.name, verb.summary);
    }
    Err(Failure::usage(text))
}

async fn send(order: Order, connection: &Connection) -> Result<Exit, Failure> {
    let kind = kind_of(&order.subject)?;
    let verb = verb_of(kind, &order.verb)?;
    let client = connection.client()?;
    let id = match (&order.id, &order.subject.id) {
        (None, None) if verb.creates => None,
        _ => Some(id_of(&client, &order.subject, order.id.as_deref(), None).await?),
    };
    let mut body = order.body;
    name_by_id(&client, &mut body, NAMED).await?;
    if ["backup", "backup-set", "disk", "snapshot"].contains(&kind.name) {
        name_by_id(&client, &mut body, NAMED_OF_DISKS).await?;
    }
    let plan = (kind.name == "backup-plan").then(|| body.get_mut("terms")).flatten();
    if let Some(terms) = plan.and_then(Value::as_object_mut) {
        name_by_id(&client, terms, NAMED_OF_DISKS).await?;
        for (field, kind, plural) in LISTED_OF_PLANS {
            let names = terms.get_mut(*field).and_then(Value::as_array_mut);
            for one in names.into_iter().flatten() {
                if let Some(name) = one.as_str().filter(|name| !is_id(name)) {
                    *one = Value::String(resolve(&client, kind, plural, name, None).await?);
                }
            }
        }
    }
    if let Some(from) = body.get_mut("from").and_then(Value::as_object_mut) {
        name_by_id(&client, from, NAMED_FROM).await?;
    }
    let manner = order.manner;
    let command = client::Command {
        plural: kind.plural.to_owned(),
        id,
        verb: order.verb,
        body: Value::Object(body),
        if_match: manner.if_match,
        // Minted here, so that a broken connection can be tried again.
        idempotency_key: manner.idempotency_key.or_else(|| Some(Uuid::now_v7().to_string())),
        plan_id: manner.plan_id,
        wait: manner.wait.map(|wait| wait.min(WAIT_FIRST)),
    };
    let format = manner.output.output;
    let out = &mut std::io::stdout();
    if manner.dry_run {
        let command = client::Command { idempotency_key: None, ..command };
        let plan = client.plan(&command).await?;
        if format.is_for_people() {
            writeln!(out, "{}", show::plan(&plan, Style::stdout()))?;
            writeln!(
                out,
                "\napply exactly this: send it again with --plan-id in place of --dry-run"
            )?;
        } else {
            format::document(out, format, &plan)?;
        }
        return Ok(Exit::Ok);
    }
    let progress = manner.wait.map(|_| Progress::spinner(&format!("waiting for {}", command.verb)));
    let mut outcome = client.submit(&command).await?.body;
    if let Some(id) = outcome["id"].as_str() {
        // The server answers this when its views show what was written: whoever asks next, from
        // another process too, finds it. It is written whatever the answer is.
        let _ = client.get(&format!("/v1/{}/{id}", kind.plural), &[]).await;
    }
    if let Some(wait) = manner.wait {
        wait_on(&client, kind, &mut outcome, wait, progress.as_ref()).await?;
    }
    drop(progress);
    if format.is_for_people() {
        writeln!(out, "{}", show::outcome(&outcome, Style::stdout()))?;
    } else if format == format::Format::Name {
        writeln!(out, "{}", format::name(kind.plural, &outcome))?;
    } else {
        format::document(out, format, &outcome)?;
    }
    let order = &outcome["order"];
    Ok(match manner.wait {
        Some(_) if order["parked"].is_string() => Exit::Fault,
        Some(_) if !order.is_null() => Exit::TimedOut,
        _ => Exit::Ok,
    })
}

/// What may be named in a body by its name as well: field, kind and plural.
const NAMED: &[(&str, &str, &str)] = &[
    ("account", "cloud-account", "cloud-accounts"),
    ("backup_set", "backup-set", "backup-sets"),
    ("cdrom", "image", "images"),
    ("flavour", "flavour", "flavours"),
    ("image", "image", "images"),
    ("project", "project", "projects"),
];
/// The same in commands of backups, disks and snapshots.
const NAMED_OF_DISKS: &[(&str, &str, &str)] = &[
    ("backup", "backup", "backups"),
    ("disk", "disk", "disks"),
    ("parent", "backup", "backups"),
    ("server", "server", "servers"),
    ("store", "backup-store", "backup-stores"),
];
/// Lists of what may be named in the terms of a backup plan.
const LISTED_OF_PLANS: &[(&str, &str, &str)] =
    &[("disks", "disk", "disks"), ("servers", "server", "servers")];
/// The same of what a disk is made from.
const NAMED_FROM: &[(&str, &str, &str)] =
    &[("backup", "backup", "backups"), ("snapshot", "snapshot", "snapshots")];

/// Puts ids in the place of names.
async fn name_by_id(
    client: &Client,
    body: &mut Map<String, Value>,
    named: &[(&str, &str, &str)],
) -> Result<(), Failure> {
    for (field, kind, plural) in named {
        let name = body.get(*field).and_then(Value::as_str);
        if let Some(name) = name.filter(|name| !is_id(name)) {
            let id = resolve(client, kind, plural, name, None).await?;
            body.insert((*field).to_owned(), Value::String(id));
        }
    }
    Ok(())
}

/// Waits on when the server's own wait was shorter than ours.
async fn wait_on(
    client: &Client,
    kind: &Kind,
    outcome: &mut Value,
    wait: Duration,
    progress: Option<&Progress>,
) -> Result<(), Failure> {
    let until = Instant::now() + wait.saturating_sub(WAIT_FIRST);
    let number = outcome["order"]["number"].clone();
    let path = format!("/v1/{}/{}", kind.plural, outcome["id"].as_str().unwrap_or_default());
    while !outcome["order"].is_null()
        && outcome["order"]["parked"].is_null()
        && Instant::now() < until
    {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let row = client.get(&path, &[]).await?.body;
        let status = row["status"].as_str().unwrap_or_default();
        let (done, total) = (&row["progress"]["done_bytes"], &row["progress"]["total_bytes"]);
        if let (Some(progress), Some(done), Some(total)) = (progress, done.as_u64(), total.as_u64())
        {
            progress.to(status, total);
            progress.at(done);
        }
        outcome["status"] = row["status"].clone();
        outcome["revision"] = row["revision"].clone();
        let order = &row["order"];
        outcome["order"] = if order["number"] == number { order.clone() } else { Value::Null };
    }
    Ok(())
}

async fn issue(
    create: TokenCreate,
    subject: Subject,
    connection: &Connection,
) -> Result<Order, Failure> {
    let client = connection.client()?;
    let mut projects = Vec::new();
    for project in &create.project {
        projects.push(resolve(&client, "project", "projects", project, None).await?);
    }
    let reach = if projects.is_empty() { json!("all") } else { json!({"projects": projects}) };
    let mut body = json!({"name": create.name, "role": create.role, "reach": reach});
    if let Some(host) = &create.host {
        let host = resolve(&client, "host", "hosts", host, None).await?;
        body["role"] = json!("agent");
        body["reach"] = json!({"host": host});
    }
    if let Some(expires) = &create.expires {
        let end = time::span(expires)
            .map(|span| Utc::now() + span)
            .map(|end| end.to_rfc3339())
            .ok_or_else(|| Failure::usage("--expires needs a time such as 12h or 30d"))?;
        body["expires_at"] = json!(end);
    }
    let body = body.as_object().cloned().unwrap_or_default();
    Ok(Order { subject, verb: "issue".to_owned(), id: None, body, manner: create.manner })
}

/// For whoever has lost the last admin token and still has the machine.
async fn issue_offline(name: &str, place: &Place) -> Result<Exit, Failure> {
    let opened = compose::open(&upkeep::existing(place)?).await?;
    let secret = compose::issue_admin(&opened.ledger, name).await?;
    println!("{secret}");
    opened.views.running.stop().await;
    Ok(Exit::Ok)
}

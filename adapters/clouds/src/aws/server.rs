//! Orders of a server: start, stop, restart, tags.
//!
//! Every order looks first and calls only when something is missing, so asking twice is asking
//! once. A restart leaves nothing to look at: the order's key is written as a tag right after AWS
//! took the call, and an order whose key is there is done. What is left is the moment between the
//! call and the tag: a crash there restarts the server a second time, and never leaves it
//! unrestarted.

use std::{collections::BTreeMap, time::Duration};

use commands::ports::{Call, DriverFault, Intent, Report, Task};
use domain::compute::server::{CloudOrder, Machine, Power};
use serde_json::json;

use super::{
    limits,
    listing::Servers,
    query::{Form, Session},
    security_group::ORDER_TAG,
    sightings::{OWN_TAGS, power},
    wire::{Changes, Done, Instance, Page},
};

/// AWS shows a change a moment after it took it. Longer than this we do not wait to see it.
pub(super) const LOOKS: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(500), Duration::from_secs(1)];

/// What is ordered, of which server, where.
struct Work<'a> {
    session: &'a Session<'a>,
    region: &'a str,
    id: &'a str,
    key: String,
}

/// Carries out one order.
pub(super) async fn carry_out(
    session: &Session<'_>,
    region: &str,
    task: &Task,
) -> Result<Report, DriverFault> {
    let order = CloudOrder::read(&task.order).map_err(DriverFault::Unexpected)?;
    let key = task.key.to_string();
    let work = Work { session, region, id: &task.origin.external_id, key };
    let seen = match order {
        CloudOrder::Start => work.start().await?,
        CloudOrder::Stop => work.stop().await?,
        CloudOrder::Reboot => work.reboot().await?,
        CloudOrder::SetTags { tags } => work.set_tags(&tags).await?,
    };
    Ok(Report { verb: "confirm", body: json!({"number": task.key.number, "seen": seen}) })
}

/// What AWS does not take, before it is ordered.
pub(super) fn check(intent: &Intent<'_>) -> Result<(), String> {
    let CloudOrder::SetTags { tags } = CloudOrder::read(intent.order)? else { return Ok(()) };
    limits::tags(tags.iter().map(|(name, value)| (name, value.as_ref())), intent.tags)
}

/// The calls of an order.
pub(super) fn calls(task: &Task) -> Vec<Call> {
    let id = &task.origin.external_id;
    let one = |call: &str, effect: String| vec![Call { call: format!("ec2:{call}"), effect }];
    match CloudOrder::read(&task.order) {
        Err(_) => Vec::new(),
        Ok(CloudOrder::Start) => one("StartInstances", format!("starts {id}")),
        Ok(CloudOrder::Stop) => one("StopInstances", format!("stops {id}")),
        Ok(CloudOrder::Reboot) => {
            let mut calls = one("RebootInstances", format!("restarts {id}"));
            calls.extend(one("CreateTags", format!("marks {id} with the order ({ORDER_TAG})")));
            calls
        }
        Ok(CloudOrder::SetTags { tags }) => {
            let names = |set: bool| {
                let some = tags.iter().filter(|(_, value)| value.is_some() == set);
                some.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
            };
            let mut calls = Vec::new();
            for (set, call, word) in
                [(true, "CreateTags", "sets"), (false, "DeleteTags", "removes")]
            {
                let names = names(set);
                if !names.is_empty() {
                    calls.extend(one(call, format!("{word} tags of {id}: {names}")));
                }
            }
            calls
        }
    }
}

impl Work<'_> {
    fn form(&self) -> Form {
        Form::default().with("InstanceId.1", self.id)
    }

    async fn look(&self) -> Result<Instance, DriverFault> {
        let page: Servers = self.session.ec2(self.region, "DescribeInstances", self.form()).await?;
        let (servers, _) = page.split();
        let server =
            servers.into_iter().find(|server| server.instance_id == self.id).ok_or_else(|| {
                DriverFault::Unexpected(format!("DescribeInstances: no word about {}", self.id))
            })?;
        if matches!(server.instance_state.name.as_str(), "terminated" | "shutting-down") {
            let state = &server.instance_state.name;
            return Err(DriverFault::NotFound(format!("{} is {state}", self.id)));
        }
        Ok(server)
    }

    async fn start(&self) -> Result<Machine, DriverFault> {
        let now = self.look().await?;
        match power(&now.instance_state.name) {
            Some(Power::Running | Power::Starting) => machine(&now),
            Some(Power::Stopping) => Err(DriverFault::Transient(format!(
                "{} is still stopping, it starts after that",
                self.id
            ))),
            _ => self.switch("StartInstances").await,
        }
    }

    async fn stop(&self) -> Result<Machine, DriverFault> {
        let now = self.look().await?;
        match power(&now.instance_state.name) {
            Some(Power::Stopped | Power::Stopping) => machine(&now),
            _ => self.switch("StopInstances").await,
        }
    }

    /// Starts or stops. The state in AWS's answer counts: a look right after may still show the
    /// one before.
    async fn switch(&self, action: &str) -> Result<Machine, DriverFault> {
        let answer: Changes = self.session.ec2(self.region, action, self.form()).await?;
        let changed = answer.instances_set.item.iter().find(|one| one.instance_id == self.id);
        let Some(changed) = changed else {
            return Err(DriverFault::Unexpected(format!("{action}: no word about {}", self.id)));
        };
        let mut seen = machine(&self.look().await?)?;
        let accepted = power(&changed.current_state.name).unwrap_or(Power::Unknown);
        let before = if action == "StartInstances" { Power::Stopped } else { Power::Running };
        if seen.power == before {
            seen.power = accepted;
        }
        Ok(seen)
    }

    async fn reboot(&self) -> Result<Machine, DriverFault> {
        let now = self.look().await?;
        let mark = now.tag_set.item.iter().find(|tag| tag.key == ORDER_TAG);
        if mark.is_some_and(|mark| mark.value == self.key) {
            return machine(&now);
        }
        let _: Done = self.session.ec2(self.region, "RebootInstances", self.form()).await?;
        let mark = self.tags_form([(ORDER_TAG, Some(self.key.as_str()))]);
        let _: Done = self.session.ec2(self.region, "CreateTags", mark).await?;
        machine(&self.look().await?)
    }

    fn tags_form<'t>(&self, tags: impl IntoIterator<Item = (&'t str, Option<&'t str>)>) -> Form {
        tags_form(self.id, tags)
    }

    async fn set_tags(
        &self,
        tags: &BTreeMap<String, Option<String>>,
    ) -> Result<Machine, DriverFault> {
        if tags.keys().any(|name| name.starts_with(OWN_TAGS)) {
            return Err(DriverFault::Rejected(format!("tags `{OWN_TAGS}…` are Skyledger's own")));
        }
        let mut seen = machine(&self.look().await?)?;
        let missing = |seen: &Machine| -> Vec<(String, Option<String>)> {
            tags.iter()
                .filter(|(name, value)| seen.tags.get(*name) != value.as_ref())
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect()
        };
        let open = missing(&seen);
        for (action, set) in [("CreateTags", true), ("DeleteTags", false)] {
            let some: Vec<_> = open.iter().filter(|(_, value)| value.is_some() == set).collect();
            if !some.is_empty() {
                let form = self
                    .tags_form(some.iter().map(|(name, value)| (name.as_str(), value.as_deref())));
                let _: Done = self.session.ec2(self.region, action, form).await?;
            }
        }
        if open.is_empty() {
            return Ok(seen);
        }
        seen = machine(&self.look().await?)?;
        for pause in LOOKS {
            if missing(&seen).is_empty() {
                break;
            }
            tokio::time::sleep(pause).await;
            seen = machine(&self.look().await?)?;
        }
        Ok(seen)
    }
}

/// A call about tags of one resource; no value means the tag whatever its value.
pub(super) fn tags_form<'t>(
    id: &str,
    tags: impl IntoIterator<Item = (&'t str, Option<&'t str>)>,
) -> Form {
    let mut form = Form::default().with("ResourceId.1", id);
    for (index, (name, value)) in tags.into_iter().enumerate() {
        form.add(format!("Tag.{}.Key", index + 1), name);
        if let Some(value) = value {
            form.add(format!("Tag.{}.Value", index + 1), value);
        }
    }
    form
}

fn machine(server: &Instance) -> Result<Machine, DriverFault> {
    server.machine().map_err(|why| {
        DriverFault::Unexpected(format!("{} does not read: {why}", server.instance_id))
    })
}

//! Orders of a security group: create, apply, delete.
//!
//! ```text
//! create   look up by tag ─┬─ none ─► CreateSecurityGroup (with the tag) ─┐
//!                          └─ one ───────────────────────────────────────┤
//! apply    look by id ───────────────────────────────────────────────────┤
//!                                                                        ▼
//!          add what is wanted and not there ─► describe ─► tags ─► remove what is to go ─► look
//! ```
//!
//! Nothing is remembered between two tries: each looks at what is there and does the rest, so a
//! crash at any arrow ends in the same group. Rules are added before any is removed: what both the
//! old and the new rules allow is never blocked in between. Only rules that the order names are
//! removed.

use commands::ports::{DriverFault, Report, Task};
use domain::{
    mapping::{Order, Spec},
    network::security_group::{Rule, SecurityGroup},
};
use serde_json::json;

use super::{
    group_changes::{Changes, RuleVerb, Step},
    query::{Form, Session},
    rules,
    server::{LOOKS, tags_form},
    wire::{Created, Done, Group, Groups, Page},
};

/// Names the stream that a group was made for.
pub(super) const ID_TAG: &str = "skyledger:id";
/// Names the order that made, or last restarted, a thing.
pub(super) const ORDER_TAG: &str = "skyledger:order";

/// What a security group can wait for.
pub(super) type GroupOrder = Order<SecurityGroup>;

/// The order of a task.
pub(super) fn read(task: &Task) -> Result<GroupOrder, DriverFault> {
    serde_json::from_value(task.order.clone())
        .map_err(|error| DriverFault::Unexpected(format!("the order does not read: {error}")))
}

/// Carries out one order in this account (its id at AWS).
pub(super) async fn carry_out(
    session: &Session<'_>,
    region: &str,
    task: &Task,
    account: Option<&str>,
) -> Result<Report, DriverFault> {
    let spelled = |mut spec: SecurityGroup| {
        spec.rules = rules::own_peers(spec.rules, account);
        spec.normalise()
    };
    let work =
        Work { session, region, stream: task.key.stream.id.clone(), key: task.key.to_string() };
    let (number, id) = (task.key.number, task.origin.external_id.as_str());
    match read(task)? {
        Order::Create { spec } => {
            let (id, seen) = work.create(&spelled(spec)).await?;
            let body = json!({"number": number, "external_id": id, "seen": seen});
            Ok(Report { verb: "link", body })
        }
        Order::Apply { from, to } => {
            let seen = work.apply(id, &spelled(from), &spelled(to)).await?;
            Ok(Report { verb: "confirm-applied", body: json!({"number": number, "seen": seen}) })
        }
        Order::Delete {} => {
            work.delete(id).await?;
            Ok(Report { verb: "confirm-deleted", body: json!({"number": number}) })
        }
    }
}

struct Work<'a> {
    session: &'a Session<'a>,
    region: &'a str,
    stream: String,
    key: String,
}

impl Work<'_> {
    /// The groups that fit a filter.
    async fn filtered(&self, filters: &[(&str, &str)]) -> Result<Vec<Group>, DriverFault> {
        let mut groups = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut form = Form::default();
            for (index, (name, value)) in filters.iter().enumerate() {
                form.add(format!("Filter.{}.Name", index + 1), *name);
                form.add(format!("Filter.{}.Value.1", index + 1), *value);
            }
            if let Some(token) = &token {
                form.add("NextToken", token);
            }
            let page: Groups =
                self.session.ec2(self.region, "DescribeSecurityGroups", form).await?;
            let (items, next) = page.split();
            groups.extend(items);
            match next {
                Some(next) => token = Some(next),
                None => return Ok(groups),
            }
        }
    }

    /// The one group that was made for this stream.
    async fn ours(&self) -> Result<Option<Group>, DriverFault> {
        let mut groups = self.filtered(&[(&format!("tag:{ID_TAG}"), &self.stream)]).await?;
        if groups.len() > 1
            && let Some(exact) =
                groups.iter().position(|group| group.tag(ORDER_TAG) == Some(self.key.as_str()))
        {
            return Ok(Some(groups.swap_remove(exact)));
        }
        match groups.len() {
            0 | 1 => Ok(groups.pop()),
            _ => {
                let ids: Vec<&str> = groups.iter().map(|group| group.group_id.as_str()).collect();
                Err(DriverFault::Rejected(format!(
                    "{} carry the tag {ID_TAG} of one resource; remove it from all but one",
                    ids.join(" and ")
                )))
            }
        }
    }

    async fn look(&self, id: &str) -> Result<SecurityGroup, DriverFault> {
        let form = Form::default().with("GroupId.1", id);
        let page: Groups = self.session.ec2(self.region, "DescribeSecurityGroups", form).await?;
        let (groups, _) = page.split();
        let group = groups.iter().find(|group| group.group_id == id).ok_or_else(|| {
            DriverFault::Unexpected(format!("DescribeSecurityGroups: no word about {id}"))
        })?;
        shape(group)
    }

    async fn create(&self, spec: &SecurityGroup) -> Result<(String, SecurityGroup), DriverFault> {
        let (id, now) = match self.ours().await? {
            Some(group) => (group.group_id.clone(), shape(&group)?),
            None => self.make(spec).await?,
        };
        if now.name != spec.name || now.vpc != spec.vpc || now.description != spec.description {
            return Err(DriverFault::Rejected(format!(
                "{id} was made for this resource with another name, description or VPC, which AWS \
                 does not change; delete it there, then retry"
            )));
        }
        // Nothing was seen before, so nothing is removed but what AWS itself puts into a new group.
        let mut from = spec.clone();
        let born = rules::born_with();
        from.rules = now.rules.iter().filter(|rule| born.contains(rule)).cloned().collect();
        from.tags.clear();
        let seen = self.change(&id, &from, spec, now).await.map_err(|fault| match fault {
            DriverFault::NotFound(text) if text.contains(&id) => not_shown_yet(&text),
            other => other,
        })?;
        Ok((id, seen))
    }

    /// Makes the bare group, with the tags that name it for ever.
    async fn make(&self, spec: &SecurityGroup) -> Result<(String, SecurityGroup), DriverFault> {
        let mut form = Form::default()
            .with("GroupName", &spec.name)
            .with("GroupDescription", &spec.description)
            .with("TagSpecification.1.ResourceType", "security-group");
        if let Some(vpc) = &spec.vpc {
            form.add("VpcId", vpc);
        }
        let own = [(ID_TAG, self.stream.as_str()), (ORDER_TAG, self.key.as_str())];
        let wanted = spec.tags.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (index, (name, value)) in own.into_iter().chain(wanted).enumerate() {
            form.add(format!("TagSpecification.1.Tag.{}.Key", index + 1), name);
            form.add(format!("TagSpecification.1.Tag.{}.Value", index + 1), value);
        }
        let made: Result<Created, _> =
            self.session.ec2(self.region, "CreateSecurityGroup", form).await;
        match made {
            Ok(created) => {
                let now = self.look(&created.group_id).await.map_err(|fault| match fault {
                    DriverFault::NotFound(text) => not_shown_yet(&text),
                    other => other,
                })?;
                Ok((created.group_id, now))
            }
            // Made a moment ago by a try whose answer was lost, and not yet found by its tag.
            Err(call) if call.is("InvalidGroup.Duplicate") => {
                let mut filters = vec![("group-name", spec.name.as_str())];
                if let Some(vpc) = &spec.vpc {
                    filters.push(("vpc-id", vpc));
                }
                let groups = self.filtered(&filters).await?;
                match groups.iter().find(|group| group.tag(ID_TAG) == Some(self.stream.as_str())) {
                    Some(group) => Ok((group.group_id.clone(), shape(group)?)),
                    None if groups.is_empty() => {
                        let text = format!("a group `{}` exists", spec.name);
                        Err(not_shown_yet(&text))
                    }
                    None => Err(call.into()),
                }
            }
            Err(call) => Err(call.into()),
        }
    }

    async fn apply(
        &self,
        id: &str,
        from: &SecurityGroup,
        to: &SecurityGroup,
    ) -> Result<SecurityGroup, DriverFault> {
        let now = self.look(id).await?;
        if now.name != to.name || now.vpc != to.vpc || now.description != to.description {
            return Err(DriverFault::Rejected(format!(
                "name, description and VPC of {id} cannot be changed at AWS"
            )));
        }
        self.change(id, from, to, now).await
    }

    /// Does what is missing and says what is there then.
    async fn change(
        &self,
        id: &str,
        from: &SecurityGroup,
        to: &SecurityGroup,
        now: SecurityGroup,
    ) -> Result<SecurityGroup, DriverFault> {
        let steps = Changes::new(from, to, &now).steps();
        for step in &steps {
            self.step(id, step).await?;
        }
        let mut seen = self.look(id).await?;
        if !steps.is_empty() {
            for pause in LOOKS {
                if Changes::new(from, to, &seen).steps().is_empty() {
                    break;
                }
                tokio::time::sleep(pause).await;
                seen = self.look(id).await?;
            }
        }
        Ok(seen)
    }

    async fn step(&self, id: &str, step: &Step) -> Result<(), DriverFault> {
        let form = match step {
            Step::Rules(verb, _, batch) => return self.batch(id, step, *verb, batch).await,
            Step::SetTags(tags) => tags_form(
                id,
                tags.iter().map(|(name, value)| (name.as_str(), Some(value.as_str()))),
            ),
            Step::DropTags(names) => tags_form(id, names.iter().map(|name| (name.as_str(), None))),
        };
        let _: Done = self.session.ec2(self.region, step.action(), form).await?;
        Ok(())
    }

    async fn batch(
        &self,
        id: &str,
        step: &Step,
        verb: RuleVerb,
        batch: &[Rule],
    ) -> Result<(), DriverFault> {
        let send = async |some: &[Rule]| {
            let mut form = Form::default().with("GroupId", id);
            rules::write(&mut form, some, verb != RuleVerb::Revoke);
            self.session.ec2::<Done>(self.region, step.action(), form).await
        };
        match send(batch).await {
            Ok(_) => Ok(()),
            // One of them is so already, and AWS did none of the others.
            Err(call) if call.is(verb.done_code()) => {
                if batch.len() > 1 {
                    for rule in batch.chunks(1) {
                        match send(rule).await {
                            Err(call) if !call.is(verb.done_code()) => return Err(call.into()),
                            _ => {}
                        }
                    }
                }
                Ok(())
            }
            Err(call) => Err(call.into()),
        }
    }

    async fn delete(&self, id: &str) -> Result<(), DriverFault> {
        let id = match id {
            // A group that was made but never reported.
            "" => match self.ours().await? {
                Some(group) => group.group_id,
                None => return Ok(()),
            },
            id => id.to_owned(),
        };
        let form = Form::default().with("GroupId", id);
        match self.session.ec2::<Done>(self.region, "DeleteSecurityGroup", form).await {
            Ok(_) => Ok(()),
            Err(call) if call.is("InvalidGroup.NotFound") => Ok(()),
            Err(call) => Err(call.into()),
        }
    }
}

/// AWS shows a new group a moment after it made it. That is no reason to give up.
fn not_shown_yet(text: &str) -> DriverFault {
    DriverFault::Transient(format!("{text}, and AWS does not show it yet"))
}

fn shape(group: &Group) -> Result<SecurityGroup, DriverFault> {
    group
        .security_group()
        .map_err(|why| DriverFault::Unexpected(format!("{} does not read: {why}", group.group_id)))
}

//! The one handler of every command of every kind: authorise, gather, fold, decide, append.
//!
//! A command that loses a race is decided again on what is there now, a bounded number of times. A
//! command with an `Idempotency-Key` has one effect, however often it is sent: the key, the
//! principal and a digest of what was sent are part of the records it makes. A command with a
//! `plan_id` is done only if nothing that its plan saw has moved; and no command is done on what has
//! moved between its decision and its append: the streams it looked at are checked by the append,
//! without being written.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use domain::{
    finops::bill_source::BillSource,
    kernel::{
        Caller, Companion, Decided, Decider, Kind, Outstanding, Principal, Refusal, Role, Stamp,
        State, Step, StreamId, canonical_bytes, canonical_value, codes, fields, sha256,
    },
    kinds::KINDS,
    log::{Position, RequestStamp},
    observation::Origin,
    tenancy::cloud_account::CloudAccount,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    gather::{
        GatherFault, Gathering, gather, has_region, is_placed, look_at_account, look_at_project,
    },
    ledger::{Ledger, LoadFault, Loaded},
    plan::{Bound, Fact, Looked, Moved, Plan, Saw},
    ports::{
        Answered, Append, AppendFault, Expected, Intent, LogFault, NewEvent, StreamAppend, Task,
    },
};

/// Times a command is decided again after losing a race. With 128 writers on one stream the last one
/// wins at its 128th try at the latest: so many servers may ask one network for an address at once.
const ATTEMPTS_MAX: usize = 128;
/// Times a command is decided again after another stream said no to what was decided on a look at it.
const BESIDE_ATTEMPTS_MAX: usize = 4;
/// Records of a name's stream read at once: one for each who ever had it.
const CLAIMS_PAGE: usize = 100;
/// Longest idempotency key, in bytes.
pub const KEY_BYTES_MAX: usize = 255;

/// A command as it comes in.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Who asks.
    pub principal: Principal,
    /// The kind.
    pub kind: &'static Kind,
    /// The resource; none to create one under a new id.
    pub id: Option<Uuid>,
    /// The verb.
    pub verb: String,
    /// The command's content; `{}` for a command without.
    pub body: Value,
    /// The revision the resource must have (`If-Match`).
    pub if_match: Option<u64>,
    /// See the module's words on idempotency.
    pub idempotency_key: Option<String>,
    /// See the module's words on plans.
    pub plan_id: Option<String>,
    /// The chain it belongs to; none begins one.
    pub correlation_id: Option<Uuid>,
    /// What caused it.
    pub causation_id: Option<Uuid>,
}

impl Submission {
    /// A command without conditions.
    pub fn new(
        principal: Principal,
        kind: &'static Kind,
        id: impl Into<Option<Uuid>>,
        verb: &str,
        body: Value,
    ) -> Self {
        Self {
            principal,
            kind,
            id: id.into(),
            verb: verb.to_owned(),
            body,
            if_match: None,
            idempotency_key: None,
            plan_id: None,
            correlation_id: None,
            causation_id: None,
        }
    }
}

/// What came of a command.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The kind.
    pub kind: &'static str,
    /// The resource.
    pub id: Uuid,
    /// Its revision after the command.
    pub revision: u64,
    /// The last position written; the head when everything already was so.
    pub position: Position,
    /// The facts the command made.
    pub events: Vec<Fact>,
    /// The resource's status.
    pub status: &'static str,
    /// What it waits for now.
    pub order: Option<Outstanding<Value>>,
    /// Whether this answers a request that was answered before.
    pub repeated: bool,
    /// Shown once: a new token's secret.
    pub secret: Option<String>,
}

/// Why nothing came of a command.
#[derive(Debug, thiserror::Error)]
pub enum SubmitFault {
    /// A rule said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What the command is about cannot be read.
    #[error(transparent)]
    Bill(#[from] crate::ports::BillFault),
    /// The rule of another resource, which this command belongs to as well, said no.
    #[error(transparent)]
    Beside(Refusal),
    /// The resource is not at the revision of `If-Match`.
    #[error("the resource is at revision {actual}, not {expected}")]
    Precondition {
        /// What the caller expected.
        expected: u64,
        /// What is there.
        actual: u64,
    },
    /// What the plan saw has moved.
    #[error("what the plan saw has moved")]
    Stale(Vec<Moved>),
    /// The `plan_id` does not read, or belongs to another command.
    #[error("the plan is not one of this command")]
    PlanOfAnother,
    /// The idempotency key came with another command before.
    #[error("the idempotency key was used for another command")]
    KeyReused,
    /// The idempotency key is empty or too long.
    #[error("an idempotency key has 1 to 255 bytes, visible ASCII")]
    KeyInvalid,
    /// Lost every race.
    #[error("other commands kept getting in between")]
    Busy,
    /// The world failed.
    #[error("the command could not be carried out")]
    Load(#[from] LoadFault),
}

impl From<LogFault> for SubmitFault {
    fn from(fault: LogFault) -> Self {
        Self::Load(LoadFault::Log(fault))
    }
}

impl From<GatherFault> for SubmitFault {
    fn from(fault: GatherFault) -> Self {
        match fault {
            GatherFault::Refused(refusal) => Self::Refused(refusal),
            GatherFault::Load(fault) => Self::Load(fault),
        }
    }
}

/// A command that was decided, and everything its append needs.
struct Ready {
    loaded: Loaded,
    decided: Decided,
    /// What the same append does in other streams.
    beside: Vec<Beside>,
    /// What it was decided on: the resource itself first.
    looked: Vec<Looked>,
    /// Names that it takes after others, or first.
    takes: Vec<(String, u64)>,
    secret: Option<String>,
    /// Who owns the resource after the command.
    project: Option<Uuid>,
}

/// What a command's facts come to in another stream.
struct Beside {
    stream: StreamId,
    /// Where that stream stands.
    revision: u64,
    project: Option<Uuid>,
    steps: Vec<Step>,
    state: Box<dyn State>,
}

impl Ready {
    fn saw(&self) -> Vec<Saw> {
        self.looked.iter().map(|one| one.saw.clone()).collect()
    }
}

impl Ledger {
    /// Carries a command to the log.
    pub async fn submit(&self, submission: Submission) -> Result<Outcome, SubmitFault> {
        let verb = Self::allowed(&submission)?;
        let request = self.request_stamp(&submission)?;
        if let Some(request) = &request {
            let actor = &submission.principal.name;
            if let Some(answered) = self.ports.log.request(actor, &request.key).await? {
                return self.repeat(&submission, &request.digest, &answered).await;
            }
        }
        let bound = self.bound(&submission)?;
        let id = match (&bound, submission.id) {
            (Some(bound), _) => bound.id.parse().map_err(|_| SubmitFault::PlanOfAnother)?,
            (None, Some(id)) => id,
            (None, None) => self.ports.ids.new_id(),
        };
        let creates = verb.creates;
        // One placement after the other, so that those of one server never get in each other's way.
        // Whoever has a machine that is moved here is asked meanwhile, and may take long.
        let asks = submission.body.get("move_in").is_some_and(|ask| !ask.is_null());
        let placed = is_placed(submission.kind, &submission.verb) && !asks;
        let _placing = if placed { Some(self.placing.lock().await) } else { None };
        for attempt in 0..ATTEMPTS_MAX {
            let ready = self.decide(&submission, id, creates, attempt > 0).await;
            if let Some(bound) = &bound {
                let moved = self.moved_since(&submission, id, bound, &ready).await?;
                if !moved.is_empty() {
                    return Err(SubmitFault::Stale(moved));
                }
            }
            let ready = match ready {
                // What it was decided on has changed between the look and the asking.
                Err(SubmitFault::Beside(_)) if attempt < BESIDE_ATTEMPTS_MAX => continue,
                Err(SubmitFault::Beside(refusal)) => return Err(refusal.into()),
                ready => ready?,
            };
            match self.append(&submission, id, ready, request.as_ref()).await? {
                Appending::Done(outcome) => return Ok(*outcome),
                Appending::Lost => {}
                Appending::Repeated(answered) => {
                    let digest = request.map(|request| request.digest).unwrap_or_default();
                    return self.repeat(&submission, &digest, &answered).await;
                }
            }
        }
        Err(SubmitFault::Busy)
    }

    /// What a command would do; writes nothing.
    pub async fn plan(&self, submission: &Submission) -> Result<Plan, SubmitFault> {
        let verb = Self::allowed(submission)?;
        let id = submission.id.unwrap_or_else(|| self.ports.ids.new_id());
        let ready = match self.decide(submission, id, verb.creates, true).await {
            Err(SubmitFault::Beside(refusal)) => return Err(refusal.into()),
            ready => ready?,
        };
        let kind = submission.kind;
        let bound = Bound {
            id: id.to_string(),
            command: self.command_digest(submission),
            saw: ready.saw(),
        };
        let json = |state: &dyn State| serde_json::from_slice(&state.json()).unwrap_or_default();
        let (before, after): (Value, Value) =
            (json(ready.loaded.state.as_ref()), json(ready.decided.state.as_ref()));
        let mut touches = Vec::new();
        if !ready.decided.steps.is_empty() {
            touches.push(format!("{}/{id}", kind.name));
            touches.extend(ready.beside.iter().map(|one| one.stream.to_string()));
            let taken = ready.takes.iter().map(|(claim, _)| claim);
            let claims = ready.decided.claims.iter().chain(taken);
            touches.extend(claims.map(|claim| format!("claim/{claim}")));
        }
        let diff =
            if ready.decided.steps.is_empty() { Vec::new() } else { fields(&after, &before) };
        Ok(Plan {
            plan_id: bound.encode(self.ports.vault.as_ref()),
            kind: kind.name.to_owned(),
            id: id.to_string(),
            revision: ready.loaded.revision,
            events: facts(&ready.decided),
            status: [
                ready.loaded.state.status().to_owned(),
                ready.decided.state.status().to_owned(),
            ],
            diff,
            calls: self.calls(kind, id, &ready),
            touches,
            saw: bound.saw,
        })
    }

    /// The verb, if there is one and this caller may send it at all.
    fn allowed(submission: &Submission) -> Result<&'static domain::kernel::Verb, SubmitFault> {
        let Submission { kind, verb, principal, .. } = submission;
        let unknown = || {
            let known: Vec<_> = (kind.verbs)()
                .iter()
                .filter(|verb| matches!(verb.caller, Caller::Person(_)))
                .map(|verb| verb.name)
                .collect();
            let detail =
                format!("{} has no command `{verb}`, only {}", kind.name, known.join(", "));
            SubmitFault::Refused(Refusal::new(&codes::UNKNOWN_COMMAND, detail))
        };
        let found = kind.verb(verb).ok_or_else(unknown)?;
        match found.caller {
            Caller::System if !principal.name.starts_with("system:") => Err(unknown()),
            _ => Ok(found),
        }
    }

    fn command_digest(&self, submission: &Submission) -> String {
        let what = json!([submission.kind.name, submission.id, submission.verb, submission.body,]);
        self.ports.vault.digest(&canonical_value(&what))
    }

    fn request_stamp(&self, submission: &Submission) -> Result<Option<RequestStamp>, SubmitFault> {
        let Some(key) = &submission.idempotency_key else { return Ok(None) };
        let visible = key.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
        if key.is_empty() || key.len() > KEY_BYTES_MAX || !visible {
            return Err(SubmitFault::KeyInvalid);
        }
        Ok(Some(RequestStamp { key: key.clone(), digest: self.command_digest(submission) }))
    }

    fn bound(&self, submission: &Submission) -> Result<Option<Bound>, SubmitFault> {
        let Some(plan_id) = &submission.plan_id else { return Ok(None) };
        let bound = Bound::decode(plan_id, self.ports.vault.as_ref());
        let bound = bound.ok_or(SubmitFault::PlanOfAnother)?;
        if bound.command != self.command_digest(submission) {
            return Err(SubmitFault::PlanOfAnother);
        }
        Ok(Some(bound))
    }

    /// What of a plan is not as it was, whatever came of deciding again. A refusal may come of the
    /// very thing that has moved, and before all of it was looked at: the rest is looked at now.
    async fn moved_since(
        &self,
        submission: &Submission,
        id: Uuid,
        bound: &Bound,
        decided: &Result<Ready, SubmitFault>,
    ) -> Result<Vec<Moved>, SubmitFault> {
        let looked = match decided {
            Ok(ready) => ready.looked.as_slice(),
            // Who may not do this, or does not reach it, is not told what has become of it.
            Err(SubmitFault::Refused(refusal)) if refusal.code.status != 403 => &[],
            Err(_) => return Ok(Vec::new()),
        };
        let own = itself(submission.kind, id, 0);
        let mut moved = Vec::new();
        for saw in &bound.saw {
            let known = looked.iter().find(|one| one.is_of(saw)).cloned();
            let now = match (saw.kind.as_str(), saw.id.parse::<Uuid>()) {
                _ if known.is_some() => known,
                _ if own.is_of(saw) => {
                    let loaded = self.load(submission.kind, &saw.id).await?;
                    Some(itself(submission.kind, id, loaded.revision))
                }
                ("cloud-account", Ok(account)) => Some(look_at_account(self, account).await?.0),
                ("project", Ok(project)) => Some(look_at_project(self, project).await?),
                (kind, Ok(id)) => match KINDS.iter().find(|one| one.name == kind) {
                    Some(kind) => {
                        let loaded = self.load(kind, &saw.id).await?;
                        Some(itself(kind, id, loaded.revision))
                    }
                    None => None,
                },
                _ => None,
            };
            let found = now.map_or_else(|| "nothing".to_owned(), |now| now.saw.mark);
            if found != saw.mark {
                let Saw { kind, id, mark } = saw.clone();
                moved.push(Moved { kind, id, saw: mark, found });
            }
        }
        Ok(moved)
    }

    /// Decides on what is known here; where that might be old and the answer depends on it, on
    /// what is in the log.
    async fn decide(
        &self,
        submission: &Submission,
        id: Uuid,
        creates: bool,
        newest: bool,
    ) -> Result<Ready, SubmitFault> {
        if !newest && submission.plan_id.is_none() {
            let recalled = self.recall(submission.kind, &id.to_string()).await?;
            let revision = recalled.revision;
            match self.decide_on(submission, id, creates, recalled).await {
                // Facts are checked against the log by their append.
                Ok(ready) if !ready.decided.steps.is_empty() => return Ok(ready),
                // A no, or nothing to do, must not come from an old state.
                first => {
                    let loaded = self.load(submission.kind, &id.to_string()).await?;
                    if loaded.revision == revision {
                        return first;
                    }
                    return self.decide_on(submission, id, creates, loaded).await;
                }
            }
        }
        let loaded = self.load(submission.kind, &id.to_string()).await?;
        self.decide_on(submission, id, creates, loaded).await
    }

    async fn decide_on(
        &self,
        submission: &Submission,
        id: Uuid,
        creates: bool,
        loaded: Loaded,
    ) -> Result<Ready, SubmitFault> {
        let Submission { kind, principal, verb, .. } = submission;
        let role = role_for(kind, verb);
        let exists = loaded.revision > 0;
        if exists {
            principal.authorise(role, owner(kind, id, loaded.state.as_ref()))?;
        } else if !creates {
            let detail = format!("there is no {} {id}", kind.name);
            return Err(Refusal::new(&codes::NOT_FOUND, detail).into());
        } else if principal.role < role {
            principal.authorise(role, None)?;
        }
        if let Some(expected) = submission.if_match
            && expected != loaded.revision
        {
            return Err(SubmitFault::Precondition { expected, actual: loaded.revision });
        }
        let mut gathering = Gathering {
            ledger: self,
            kind,
            id,
            verb,
            principal,
            exists,
            body: submission.body.clone(),
            looked: vec![itself(kind, id, loaded.revision)],
            takes: Vec::new(),
            secret: None,
        };
        gather(&mut gathering).await?;
        let Gathering { body, mut looked, takes, secret, .. } = gathering;
        let stamp = Stamp { now: self.ports.clock.now(), actor: principal.name.clone() };
        let decided = loaded.state.decide(verb, &body, &stamp)?;
        fits(&decided)?;
        let beside = self.decide_beside(&decided, &stamp).await?;
        for one in &beside {
            let (kind, id) = (one.stream.kind.clone(), one.stream.id.clone());
            let saw = Saw { kind, id, mark: one.revision.to_string() };
            Looked { saw, revision: one.revision }.note(&mut looked);
        }
        let project = owner(kind, id, decided.state.as_ref());
        principal.authorise(role, project)?;
        if !principal.name.starts_with("system:") {
            self.check_order(principal, kind, id, &loaded, &decided, &mut looked).await?;
        }
        Ok(Ready { loaded, decided, beside, looked, takes, secret, project })
    }

    /// What a command's facts come to in other streams; several of one stream follow each other.
    async fn decide_beside(
        &self,
        decided: &Decided,
        stamp: &Stamp,
    ) -> Result<Vec<Beside>, SubmitFault> {
        let mut all: Vec<Beside> = Vec::new();
        let mut asked: VecDeque<Companion> = decided.companions.clone().into();
        while let Some(companion) = asked.pop_front() {
            let stream = StreamId::new(companion.kind, companion.id);
            let at = match all.iter().position(|one| one.stream == stream) {
                Some(at) => at,
                None => {
                    let kind = KINDS.iter().find(|kind| kind.name == companion.kind);
                    let missing = || {
                        let detail = format!("there is no {} {}", companion.kind, companion.id);
                        SubmitFault::Refused(Refusal::new(&codes::NOT_FOUND, detail))
                    };
                    let kind = kind.ok_or_else(missing)?;
                    let loaded = self.load(kind, &stream.id).await?;
                    if loaded.revision == 0
                        && !kind.verb(companion.verb).is_some_and(|verb| verb.creates)
                    {
                        return Err(missing());
                    }
                    let project = owner(kind, companion.id, loaded.state.as_ref());
                    let (revision, state) = (loaded.revision, loaded.state);
                    all.push(Beside { stream, revision, project, steps: Vec::new(), state });
                    all.len() - 1
                }
            };
            let one = &mut all[at];
            let answer = one.state.decide(companion.verb, &companion.body, stamp);
            let answer = answer.map_err(SubmitFault::Beside)?;
            // What this comes to in others again: a server's disks go with it, and their snapshots.
            asked.extend(answer.companions);
            one.steps.extend(answer.steps);
            one.state = answer.state;
            // One that is begun is whose it says.
            if one.revision == 0 {
                let kind = KINDS.iter().find(|kind| kind.name == companion.kind);
                one.project = kind.and_then(|kind| owner(kind, companion.id, one.state.as_ref()));
            }
        }
        Ok(all)
    }

    /// An order that this command issues must be one that the account's provider can carry out,
    /// now, and within its limits: before anything is written.
    async fn check_order(
        &self,
        principal: &Principal,
        kind: &'static Kind,
        id: Uuid,
        before: &Loaded,
        decided: &Decided,
        looked: &mut Vec<Looked>,
    ) -> Result<(), SubmitFault> {
        let Some(out) = decided.state.order() else { return Ok(()) };
        // Issued by this command, or taken up again by it.
        let known = before.state.order().filter(|known| known.number == out.number);
        let goes_on = known.is_some_and(|known| known.parked.is_none() || out.parked.is_some());
        // What a host of ours carries out is nothing of an account's.
        if kind.name == "cloud-account" || goes_on || decided.state.on_host().is_some() {
            return Ok(());
        }
        let facets = decided.state.facets();
        let Some(account_id) = facets.account else { return Ok(()) };
        let (look, account) = look_at_account(self, account_id).await?;
        look.note(looked);
        let Some(account) = account else {
            return Err(Refusal::new(&codes::ACCOUNT_NOT_READY, "the account is not there").into());
        };
        if !account.is_ready() {
            // What was given to a project may live in an account that is another's: its row has
            // the account's id, and nothing more of it.
            let detail = if principal.reach.covers(account.project) {
                format!("the account {} is not ready", account.name)
            } else {
                format!("the account {account_id} is not ready")
            };
            return Err(Refusal::new(&codes::ACCOUNT_NOT_READY, detail).into());
        }
        // The account lends its credential: whether its provider has files was asked before.
        if kind.name == BillSource::KIND {
            return Ok(());
        }
        let tag = out.order["type"].as_str().unwrap_or_default();
        let unsupported = || {
            let detail = format!("{} cannot {tag} a {}", account.provider, kind.name);
            SubmitFault::Refused(Refusal::new(&codes::UNSUPPORTED, detail))
        };
        let provider = self.provider(&account.provider).ok_or_else(unsupported)?;
        let row = provider.table().iter().find(|row| row.kind == kind.name);
        let row = row.filter(|row| row.orders.contains(&tag)).ok_or_else(unsupported)?;
        if row.regional && tag == "create" {
            self.check_region(kind, &account, decided).await?;
        }
        let intent = Intent {
            kind: kind.name,
            order: &out.order,
            external_account: account.external_account.as_deref().unwrap_or_default(),
            settings: &account.settings,
            tags: &facets.tags,
        };
        provider.check_order(&intent).map_err(|why| {
            Refusal::new(&codes::PROVIDER_LIMIT, format!("{} {id}: {why}", account.provider))
        })?;
        Ok(())
    }

    /// What is to be made in a region must be made in one that the account has: nothing can be
    /// made elsewhere, and a mapping never moves.
    async fn check_region(
        &self,
        kind: &Kind,
        account: &CloudAccount,
        decided: &Decided,
    ) -> Result<(), SubmitFault> {
        let facets = decided.state.facets();
        let detail = match (facets.account, facets.region) {
            (Some(id), Some(region)) => {
                if has_region(self, id, account, &region).await? {
                    return Ok(());
                }
                match account.last_whole_run {
                    Some(_) => format!("region: the account does not have the region `{region}`"),
                    None => "region: the account's regions are not known before its first sync \
                             of everything"
                        .to_owned(),
                }
            }
            _ => format!("region: a {} of {} lies in a region", kind.name, account.provider),
        };
        Err(Refusal::new(&codes::INVALID_FIELD, detail).into())
    }

    fn calls(&self, kind: &'static Kind, id: Uuid, ready: &Ready) -> Vec<crate::ports::Call> {
        let Some(out) = ready.decided.state.order() else { return Vec::new() };
        let facets = ready.decided.state.facets();
        let (Some(provider), Some(account)) =
            (facets.provider.as_ref().and_then(|name| self.provider(name)), facets.account)
        else {
            return Vec::new();
        };
        let origin = Origin {
            provider: provider.name().to_owned(),
            account,
            region: facets.region,
            external_id: facets.external_id.unwrap_or_default(),
        };
        provider.calls(&Task {
            kind: kind.name,
            key: domain::kernel::OrderKey {
                stream: StreamId::new(kind.name, id),
                number: out.number,
            },
            order: out.order,
            origin,
        })
    }

    async fn append(
        &self,
        submission: &Submission,
        id: Uuid,
        ready: Ready,
        request: Option<&RequestStamp>,
    ) -> Result<Appending, SubmitFault> {
        let Ready { loaded, decided, beside, looked, takes, secret, project } = ready;
        let kind = submission.kind;
        let stream = StreamId::new(kind.name, id);
        let outcome = |position, revision, secret| {
            Appending::Done(Box::new(Outcome {
                kind: kind.name,
                id,
                revision,
                position,
                events: facts(&decided),
                status: decided.state.status(),
                order: decided.state.order(),
                repeated: false,
                secret,
            }))
        };
        let mut streams = Vec::with_capacity(1 + decided.claims.len());
        if decided.steps.is_empty() {
            if request.is_none() {
                let position = self.ports.log.head().await?.position;
                return Ok(outcome(position, loaded.revision, secret));
            }
            // Nothing to do is an answer too: a retry must get it, whatever happened since.
            streams.push(noted(submission, id, project, self.ports.ids.new_id()));
        } else {
            streams.push(StreamAppend {
                stream: stream.clone(),
                expected: expected(loaded.revision),
                project,
                events: new_events(&decided.steps),
            });
        }
        for one in &beside {
            streams.push(StreamAppend {
                stream: one.stream.clone(),
                expected: expected(one.revision),
                project: one.project,
                events: new_events(&one.steps),
            });
        }
        let new = decided.claims.iter().map(|claim| (claim, 0));
        let taken = takes.iter().filter(|_| !decided.steps.is_empty());
        for (claim, revision) in new.chain(taken.map(|(claim, revision)| (claim, *revision))) {
            streams.push(StreamAppend {
                stream: StreamId::new("claim", claim),
                expected: expected(revision),
                project,
                events: vec![NewEvent {
                    event_type: "claimed".to_owned(),
                    schema_version: 1,
                    data: canonical_bytes(&json!({"kind": kind.name, "id": id})),
                }],
            });
        }
        // An id that a caller chose may be another kind's: views know a resource by its id alone.
        if loaded.revision == 0
            && submission.id.is_some()
            && !submission.principal.name.starts_with("system:")
        {
            streams.extend(KINDS.iter().filter(|other| other.name != kind.name).map(|other| {
                StreamAppend {
                    stream: StreamId::new(other.name, id),
                    expected: Expected::NoStream,
                    project,
                    events: Vec::new(),
                }
            }));
        }
        // What the decision looked at must still stand there. What only answers that nothing is to
        // be done was right when it was decided.
        if !decided.steps.is_empty() {
            // A stream that was looked at, and had moved when it was asked itself.
            let moved = |one: &Looked| {
                let beside = beside.iter().find(|other| {
                    other.stream.kind == one.saw.kind && other.stream.id == one.saw.id
                });
                beside.is_some_and(|other| other.revision != one.revision)
            };
            if looked.iter().any(moved) {
                return Ok(Appending::Lost);
            }
            for one in looked {
                let looked_at = StreamId::new(one.saw.kind, one.saw.id);
                if streams.iter().all(|part| part.stream != looked_at) {
                    streams.push(StreamAppend {
                        stream: looked_at,
                        expected: expected(one.revision),
                        project,
                        events: Vec::new(),
                    });
                }
            }
        }
        let command_id = self.ports.ids.new_id();
        let append = Append {
            actor: submission.principal.name.clone(),
            command_id,
            correlation_id: submission.correlation_id.unwrap_or(command_id),
            causation_id: submission.causation_id,
            request: request.cloned(),
            streams,
        };
        match self.ports.log.append(append).await {
            Ok(appended) => {
                let wrote = !decided.steps.is_empty();
                let revision = loaded.revision + decided.steps.len() as u64;
                if wrote {
                    let state = decided.state.clone();
                    self.remember(stream, Loaded { revision, state });
                }
                for Beside { stream, revision, steps, state, .. } in beside {
                    let revision = revision + steps.len() as u64;
                    self.remember(stream, Loaded { revision, state });
                }
                Ok(outcome(appended.last, revision, secret))
            }
            Err(AppendFault::Conflict { stream: lost, .. })
                if lost.kind == "claim" && decided.claims.contains(&lost.id) =>
            {
                let detail = format!("{} is mapped already", lost.id);
                Err(Refusal::new(&codes::ALREADY_CLAIMED, detail).into())
            }
            Err(AppendFault::Conflict { stream: lost, .. })
                if lost.kind != kind.name && lost.id == id.to_string() =>
            {
                let detail = format!("{id} is the id of a {}", lost.kind);
                Err(Refusal::new(&codes::ALREADY_EXISTS, detail).into())
            }
            Err(AppendFault::Conflict { .. }) => Ok(Appending::Lost),
            Err(AppendFault::Repeated(answered)) => Ok(Appending::Repeated(answered)),
            Err(AppendFault::Fault(fault)) => Err(fault.into()),
        }
    }

    /// The answer that the first request with this key got, made again from its records. Its status
    /// and order are those of now, so who does not reach the resource any more gets no answer.
    async fn repeat(
        &self,
        submission: &Submission,
        digest: &str,
        answered: &Answered,
    ) -> Result<Outcome, SubmitFault> {
        if answered.digest != digest {
            return Err(SubmitFault::KeyReused);
        }
        let count = (answered.last - answered.first + 1) as usize;
        let records = self.ports.log.read(answered.first - 1, count).await?;
        let Some(first) = records.first() else { return Err(SubmitFault::KeyReused) };
        let data = |record: &domain::log::Record| {
            serde_json::from_slice::<Value>(record.data()).unwrap_or_default()
        };
        let noted = first.kind() == "request";
        let id_text = if noted {
            data(first)["id"].as_str().unwrap_or_default().to_owned()
        } else {
            first.id().to_owned()
        };
        let own: Vec<_> = records
            .iter()
            .filter(|record| !noted && record.kind() == first.kind() && record.id() == id_text)
            .collect();
        let loaded = self.load(submission.kind, &id_text).await?;
        let id = id_text.parse().unwrap_or_default();
        let role = role_for(submission.kind, &submission.verb);
        let owner = owner(submission.kind, id, loaded.state.as_ref());
        submission.principal.authorise(role, owner)?;
        let revision = match own.last() {
            Some(last) => last.revision(),
            None => data(first)["revision"].as_u64().unwrap_or_default(),
        };
        Ok(Outcome {
            kind: submission.kind.name,
            id,
            revision,
            position: answered.last,
            events: own
                .iter()
                .map(|record| Fact {
                    event_type: record.event_type().to_owned(),
                    data: data(record),
                })
                .collect(),
            status: loaded.state.status(),
            order: loaded.state.order(),
            repeated: true,
            secret: None,
        })
    }

    /// Who has taken this name, if anybody has.
    pub async fn claimed_by(&self, claim: &str) -> Result<Option<Uuid>, LogFault> {
        let records = self.ports.log.stream(&StreamId::new("claim", claim), 0, 1).await?;
        let data = records.first().map(|record| serde_json::from_slice::<Value>(record.data()));
        Ok(data.and_then(Result::ok).and_then(|data| data["id"].as_str()?.parse().ok()))
    }

    /// Who has taken this name last, and the revision at which that is so.
    pub(crate) async fn last_claim(&self, claim: &str) -> Result<(u64, Option<Uuid>), LogFault> {
        let stream = StreamId::new("claim", claim);
        let (mut revision, mut last) = (0, None);
        loop {
            let records = self.ports.log.stream(&stream, revision, CLAIMS_PAGE).await?;
            let Some(record) = records.last() else { break };
            revision = record.revision();
            let data = serde_json::from_slice::<Value>(record.data()).unwrap_or_default();
            last = data["id"].as_str().and_then(|id| id.parse().ok());
        }
        Ok((revision, last))
    }

    /// Now, as the ledger's clock has it.
    pub fn now(&self) -> DateTime<Utc> {
        self.ports.clock.now()
    }
}

/// Where a stream must stand that was folded up to this revision.
fn expected(revision: u64) -> Expected {
    match revision {
        0 => Expected::NoStream,
        revision => Expected::Exact(revision),
    }
}

fn new_events(steps: &[Step]) -> Vec<NewEvent> {
    let event = |step: &Step| NewEvent {
        event_type: step.event_type.clone(),
        schema_version: 1,
        data: step.data.clone(),
    };
    steps.iter().map(event).collect()
}

/// The look at the resource that a command is for.
fn itself(kind: &Kind, id: Uuid, revision: u64) -> Looked {
    let mark = revision.to_string();
    Looked { saw: Saw { kind: kind.name.to_owned(), id: id.to_string(), mark }, revision }
}

enum Appending {
    Done(Box<Outcome>),
    /// Another command got in between.
    Lost,
    /// The same request got in between.
    Repeated(Answered),
}

/// The role that a command needs; Skyledger's own need the highest.
fn role_for(kind: &Kind, verb: &str) -> Role {
    match kind.verb(verb).map(|verb| verb.caller) {
        Some(Caller::Person(role)) => role,
        _ => Role::Admin,
    }
}

/// Who owns a resource. A project belongs to itself.
fn owner(kind: &Kind, id: Uuid, state: &dyn State) -> Option<Uuid> {
    if kind.name == "project" && state.status() != "absent" {
        return Some(id);
    }
    state.facets().project
}

/// What no log takes is the caller's to make smaller, and said before anything is written.
fn fits(decided: &Decided) -> Result<(), Refusal> {
    let Some(step) = decided.steps.iter().find(|step| step.data.len() > Append::DATA_BYTES_MAX)
    else {
        return Ok(());
    };
    let detail = format!(
        "the command makes an event `{}` of {} bytes, at most {} are possible",
        step.event_type,
        step.data.len(),
        Append::DATA_BYTES_MAX
    );
    Err(Refusal::new(&codes::INVALID_FIELD, detail))
}

fn facts(decided: &Decided) -> Vec<Fact> {
    decided
        .steps
        .iter()
        .map(|step| Fact {
            event_type: step.event_type.clone(),
            data: serde_json::from_slice(&step.data).unwrap_or_default(),
        })
        .collect()
}

/// A request that changed nothing, as a fact of its own.
fn noted(submission: &Submission, id: Uuid, project: Option<Uuid>, stream: Uuid) -> StreamAppend {
    StreamAppend {
        stream: StreamId::new("request", stream),
        expected: Expected::NoStream,
        project,
        events: vec![NewEvent {
            event_type: "noted".to_owned(),
            schema_version: 1,
            data: canonical_bytes(&json!({
                "kind": submission.kind.name,
                "id": id,
                "verb": submission.verb,
            })),
        }],
    }
}

/// A digest in hex, cut short: for marks that people compare by eye.
pub(crate) fn short_digest(bytes: &[u8]) -> String {
    sha256(bytes)[..8].iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

//! The life of configuration with exactly one counterpart in one cloud.
//!
//! ```text
//!            declare            link                    retire          confirm-deleted
//!   absent ─────────► declared ──────► linked ────────► ────────► retiring ─────────► retired
//!      │                               ▲ │  ▲                                            ▲
//!      │ observe            adopt      │ │  │ observe, reapply                           │
//!      └────────► discovered ──────────┘ ▼  │                                            │
//!                                      vanished ─────────────── retire ──────────────────┘
//!            declare, without an account                     retire
//!   absent ────────────────────────────► own ──────────────────────► retired
//!                                        └┘ declare
//! ```
//!
//! Some kinds are of use on hosts of our own as well. There they have no counterpart: what is wanted is
//! all there is, and whoever uses one follows it.
//!
//! Three values lie side by side, each said by another: *wanted* by the last command, *seen* by the
//! last observation, *base* by what both last agreed on. Drift is wanted ≠ seen. It is shown field
//! by field and never put right silently: a person answers `reapply`, `accept` or `mute`. What is
//! in *seen* but neither in *wanted* nor in *base* belongs to somebody else: it survives every
//! change of *wanted*, and only an explicit `reapply` removes it.

use std::fmt::Debug;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    compute::server::home::PROVIDER,
    kernel::{Decider, Facets, Orders, Outstanding, Refusal, Stamp, Verb, codes},
    observation::{Evidence, Origin},
};

/// One field where wanted and seen differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldDrift {
    /// Path of the field, for instance `rules.ingress tcp 22 10.0.0.0/8`.
    pub field: String,
    /// What the last command wanted; `null` when it wanted nothing there.
    pub wanted: Value,
    /// What was seen; `null` when nothing was there.
    pub seen: Value,
}

/// What a mapped kind brings: its data, and how two of them are compared.
pub trait Spec:
    Clone + PartialEq + Debug + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static
{
    /// See [`Decider::KIND`].
    const KIND: &'static str;
    /// See [`Decider::PLURAL`].
    const PLURAL: &'static str;
    /// See [`Decider::SUMMARY`].
    const SUMMARY: &'static str;
    /// Fills the columns that the specification has: name, parent, tags.
    fn facets(&self, facets: &mut Facets);
    /// The rules that hold at every provider.
    fn check(&self) -> Result<(), Refusal>;
    /// Whether it can be told what is wanted: [`Self::normalise`] makes one of two things that are
    /// the same, and where they say different things of it one would be lost without a word. What
    /// is asked is what a person said, not normalised.
    fn check_ambiguity(&self) -> Result<(), Refusal> {
        Ok(())
    }
    /// The one spelling of it: sorted, merged, defaults filled in. Two clouds' spellings of one
    /// thing become one value.
    #[must_use]
    fn normalise(self) -> Self;
    /// What may not change while there is a counterpart.
    fn check_change(&self, to: &Self) -> Result<(), Refusal>;
    /// Field by field where two differ; empty exactly when both are equal.
    fn drift(wanted: &Self, seen: &Self) -> Vec<FieldDrift>;
    /// What to write so that our own part becomes `wanted` and foreign parts stay: `wanted`, and
    /// of `seen` what is in neither `wanted` nor `base`.
    #[must_use]
    fn keep_foreign(wanted: &Self, base: &Self, seen: &Self) -> Self;
    /// What both agree on: of `wanted` what is also in `seen`.
    #[must_use]
    fn agreed(wanted: &Self, seen: &Self) -> Self;
    /// What is ours over there, and what more has come to be.
    #[must_use]
    fn grown(base: &Self, more: &Self) -> Self;
    /// Whether hosts of our own can use it, without a counterpart in a cloud. Most kinds are in a
    /// cloud or nowhere.
    fn check_own(&self) -> Result<(), Refusal> {
        Err(Refusal::new(&codes::INVALID_FIELD, "account: is needed"))
    }
}

/// Where the mapping stands, orders and drift aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Nothing was ever said of it.
    #[default]
    Absent,
    /// Wanted, without a counterpart yet.
    Declared,
    /// Seen, and wanted by nobody here.
    Discovered,
    /// Wanted, with its counterpart.
    Linked,
    /// Wanted, for hosts of our own: it has no counterpart.
    Own,
    /// Wanted, and its counterpart is gone.
    Vanished,
    /// On its way out.
    Retiring,
    /// Gone for good, by our own will.
    Retired,
}

/// A drift that a person has seen and lets stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mute {
    /// Why.
    pub reason: String,
    /// Until when; none is until the drift changes.
    pub until: Option<DateTime<Utc>>,
}

/// What a mapping can wait for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Order<S> {
    /// Make `to` of what is there, where `from` was seen last: add what is in `to` and not there,
    /// then remove what is in `from` and not in `to`; leave everything else alone.
    Apply {
        /// What was seen when it was decided.
        from: S,
        /// What is to be.
        to: S,
    },
    /// Create the counterpart.
    Create {
        /// What it is to be.
        spec: S,
    },
    /// Delete the counterpart.
    Delete {},
}

/// A command of a mapped kind.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command<S> {
    /// Give up the order that is parked; what is there stays as it is.
    Abandon {},
    /// Take what is seen as what is wanted.
    Accept {},
    /// Take over what was discovered: from now on it is wanted as it is seen.
    Adopt {},
    /// Give it to a project.
    Assign {
        /// The new owner; none is the estate.
        project: Option<Uuid>,
    },
    /// The driver has applied an order.
    ConfirmApplied {
        /// The order's number.
        number: u64,
        /// What is there now.
        seen: S,
    },
    /// The driver has deleted the counterpart.
    ConfirmDeleted {
        /// The order's number.
        number: u64,
    },
    /// Say what is wanted.
    Declare {
        /// The cloud account it lives in, within the caller's reach; may be left out when it is
        /// already known. A new one without an account is for hosts of our own, where its kind can be
        /// of use there.
        #[serde(default)]
        account: Option<Uuid>,
        /// The account's provider; filled in by the server.
        #[serde(default)]
        #[schemars(skip)]
        provider: Option<String>,
        /// The provider's id of the region, 1…64 visible ASCII characters; may be left out when it
        /// is already known.
        #[serde(default)]
        region: Option<String>,
        /// Who owns it; the account's project when it is left out.
        #[serde(default)]
        project: Option<Uuid>,
        /// What it is to be.
        spec: S,
    },
    /// The driver has created the counterpart, or found it made.
    Link {
        /// The order's number.
        number: u64,
        /// The provider's id.
        external_id: String,
        /// What is there now.
        seen: S,
    },
    /// Let the present drift stand.
    Mute {
        /// Why.
        reason: String,
        /// Until when; none is until the drift changes.
        #[serde(default)]
        until: Option<DateTime<Utc>>,
    },
    /// The observer saw it.
    Observe {
        /// Where.
        origin: Origin,
        /// Who owns it, when it is new.
        #[serde(default)]
        project: Option<Uuid>,
        /// What it is.
        seen: S,
        /// Who changed it, where the provider tells.
        #[serde(default)]
        actor: Option<String>,
    },
    /// The runner gives up until a person decides.
    Park {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// Make what is seen what is wanted.
    Reapply {
        /// Whether parts that are not ours stay.
        #[serde(default)]
        keep_foreign: bool,
    },
    /// Delete the counterpart and end the mapping.
    Retire {
        /// Whether it lies where nothing can be; filled in by the server.
        #[serde(default)]
        #[schemars(skip)]
        nowhere: bool,
    },
    /// Go on with the order that is parked.
    Retry {},
    /// Show a muted drift again.
    Unmute {},
    /// The observer knows that it is not there any more.
    Vanish {
        /// From what.
        evidence: Evidence,
    },
}

/// A fact about a mapped kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event<S> {
    /// A parked order was given up.
    Abandoned {},
    /// What was seen became what is wanted.
    Accepted {
        /// What is wanted from now on.
        spec: S,
    },
    /// What was discovered became ours.
    Adopted {
        /// What is wanted from now on.
        spec: S,
    },
    /// An order was applied.
    Applied {
        /// The order's number.
        number: u64,
        /// What is there now.
        seen: S,
    },
    /// It was given to a project.
    Assigned {
        /// The new owner; none is the estate.
        project: Option<Uuid>,
    },
    /// Wanted and seen are equal again.
    Converged {
        /// What is there now.
        seen: S,
        /// Who changed it, where the provider tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        actor: Option<String>,
    },
    /// It is wanted; a counterpart is ordered.
    Declared {
        /// Where it will be.
        origin: Origin,
        /// Who owns it.
        project: Option<Uuid>,
        /// What it is to be.
        spec: S,
    },
    /// It is wanted for hosts of our own; there is no counterpart.
    DeclaredOwn {
        /// Who owns it.
        project: Option<Uuid>,
        /// What it is to be.
        spec: S,
    },
    /// It was seen for the first time, and nobody here wants it.
    Discovered {
        /// Where.
        origin: Origin,
        /// Who owns it from now on.
        project: Option<Uuid>,
        /// What it is.
        seen: S,
    },
    /// What is seen differs from what is wanted.
    Drifted {
        /// What is there now.
        seen: S,
        /// Field by field.
        fields: Vec<FieldDrift>,
        /// Who changed it, where the provider tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        actor: Option<String>,
    },
    /// It has its counterpart.
    Linked {
        /// The order's number.
        number: u64,
        /// The counterpart.
        origin: Origin,
        /// What is there now.
        seen: S,
    },
    /// The present drift is let stand.
    Muted {
        /// Why and until when.
        mute: Mute,
    },
    /// A discovered one was seen to be different.
    Observed {
        /// What it is now.
        seen: S,
        /// Who changed it, where the provider tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        actor: Option<String>,
    },
    /// The runner gave up until a person decides.
    Parked {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// What is wanted is to be made again.
    ReapplyOrdered {
        /// What is to be there.
        to: S,
        /// Whether parts that are not ours stay.
        keep_foreign: bool,
    },
    /// It had vanished and was seen again.
    Reappeared {
        /// What it is now.
        seen: S,
    },
    /// Its counterpart is to be deleted.
    RetireOrdered {},
    /// It has ended.
    Retired {},
    /// A parked order goes on.
    RetryOrdered {},
    /// Something else is wanted.
    SpecDeclared {
        /// What is wanted from now on.
        spec: S,
        /// What is to be there: what is wanted, and what is not ours.
        to: S,
    },
    /// A muted drift is shown again.
    Unmuted {},
    /// Its counterpart is not there any more.
    Vanished {
        /// What that was concluded from.
        evidence: Evidence,
    },
}

/// Configuration with exactly one counterpart in one cloud.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "S: Spec")]
pub struct Mapped<S: Spec> {
    /// Where the mapping stands.
    pub stage: Stage,
    /// Where the counterpart is or will be.
    pub origin: Option<Origin>,
    /// Who owns it.
    pub project: Option<Uuid>,
    /// What the last command said it is to be.
    pub wanted: Option<S>,
    /// What the last observation said it is.
    pub seen: Option<S>,
    /// Of what was `wanted`, what was `seen` there too: what is ours over there.
    pub base: Option<S>,
    /// Who made it what is seen, where the provider tells.
    pub seen_by: Option<String>,
    /// The drift that is let stand.
    pub muted: Option<Mute>,
    /// Orders.
    pub orders: Orders<Order<S>>,
}

impl<S: Spec> Default for Mapped<S> {
    fn default() -> Self {
        Self {
            stage: Stage::Absent,
            origin: None,
            project: None,
            wanted: None,
            seen: None,
            base: None,
            seen_by: None,
            muted: None,
            orders: Orders::default(),
        }
    }
}

static VERBS: &[Verb] = &[
    Verb::operator("abandon", "Gives up the parked order; what is in the cloud stays as it is."),
    Verb::operator("accept", "Takes what is seen as what is wanted: ends the drift here."),
    Verb::operator("adopt", "Takes over a discovered counterpart, wanted as it is seen."),
    Verb::admin("assign", "Gives it to another project."),
    Verb::system("confirm-applied", "Reports that an order was applied."),
    Verb::system("confirm-deleted", "Reports that the counterpart was deleted."),
    Verb::operator("declare", "Says what is wanted; the counterpart is created or changed.")
        .creating(),
    Verb::system("link", "Reports the counterpart that was created."),
    Verb::operator("mute", "Lets the present drift stand, with a reason."),
    Verb::system("observe", "Reports what was seen in the cloud.").creating(),
    Verb::system("park", "Reports that an order keeps failing."),
    Verb::operator("reapply", "Makes the counterpart what is wanted: ends the drift there."),
    Verb::operator("retire", "Deletes the counterpart and ends the mapping."),
    Verb::operator("retry", "Goes on with the parked order."),
    Verb::operator("unmute", "Shows a muted drift again."),
    Verb::system("vanish", "Reports that the counterpart is not there any more."),
];

impl<S: Spec> Mapped<S> {
    fn refuse(&self, verb: &str) -> Refusal {
        Refusal::wrong_state(verb, self.status())
    }

    /// The three values of a mapping that has its counterpart.
    fn linked(&self, verb: &str) -> Result<(&S, &S, &S), Refusal> {
        match (self.stage, &self.wanted, &self.seen, &self.base) {
            (Stage::Linked, Some(wanted), Some(seen), Some(base)) => Ok((wanted, seen, base)),
            _ => Err(self.refuse(verb)),
        }
    }

    fn has_drift(&self) -> bool {
        self.stage == Stage::Linked && self.wanted != self.seen
    }

    fn ensure_drift(&self, verb: &str) -> Result<(), Refusal> {
        if self.has_drift() {
            return Ok(());
        }
        self.linked(verb)?;
        Err(Refusal::new(&codes::NO_DRIFT, format!("nothing to {verb}: wanted and seen are equal")))
    }

    fn declare(
        &self,
        account: Option<Uuid>,
        provider: Option<String>,
        region: Option<String>,
        project: Option<Uuid>,
        spec: S,
    ) -> Result<Vec<Event<S>>, Refusal> {
        spec.check_ambiguity()?;
        let spec = spec.normalise();
        spec.check()?;
        match self.stage {
            Stage::Absent if account.is_none() => {
                spec.check_own()?;
                if region.is_some() {
                    let detail = "region: only what is in a cloud has one, and needs an account";
                    return Err(Refusal::new(&codes::INVALID_FIELD, detail));
                }
                Ok(vec![Event::DeclaredOwn { project, spec }])
            }
            Stage::Absent => {
                let (Some(account), Some(provider)) = (account, provider) else {
                    return Err(Refusal::new(&codes::INVALID_FIELD, "account: is needed"));
                };
                region.as_deref().map_or(Ok(()), Origin::check_region)?;
                let origin = Origin { provider, account, region, external_id: String::new() };
                Ok(vec![Event::Declared { origin, project, spec }])
            }
            Stage::Declared | Stage::Linked | Stage::Vanished => {
                self.same_place(account, region.as_ref(), project)?;
                // Its creation was given up: the same wish again is a new attempt.
                let given_up = self.stage == Stage::Declared && self.orders.out.is_none();
                if self.wanted.as_ref() == Some(&spec) && !given_up {
                    return Ok(vec![]);
                }
                self.orders.ensure_free()?;
                let to = match (&self.seen, &self.base) {
                    (Some(seen), Some(base)) if self.stage == Stage::Linked => {
                        seen.check_change(&spec)?;
                        S::keep_foreign(&spec, base, seen).normalise()
                    }
                    _ => spec.clone(),
                };
                Ok(vec![Event::SpecDeclared { spec, to }])
            }
            Stage::Own => {
                let moved = |field: &str| {
                    let detail = format!("{field}: it is for hosts of our own, and stays there");
                    Err(Refusal::new(&codes::INVALID_FIELD, detail))
                };
                if account.is_some() {
                    return moved("account");
                }
                if region.is_some() {
                    return moved("region");
                }
                if project.is_some() && project != self.project {
                    let detail = "project: cannot be changed by declare";
                    return Err(Refusal::new(&codes::INVALID_FIELD, detail));
                }
                spec.check_own()?;
                let same = self.wanted.as_ref() == Some(&spec);
                let to = spec.clone();
                Ok(if same { vec![] } else { vec![Event::SpecDeclared { spec, to }] })
            }
            Stage::Discovered | Stage::Retiring | Stage::Retired => Err(self.refuse("declare")),
        }
    }

    /// A mapping never moves: another place is another mapping.
    fn same_place(
        &self,
        account: Option<Uuid>,
        region: Option<&String>,
        project: Option<Uuid>,
    ) -> Result<(), Refusal> {
        let Some(origin) = &self.origin else { return Ok(()) };
        let moved = |field: &str| {
            Refusal::new(&codes::INVALID_FIELD, format!("{field}: cannot be changed by declare"))
        };
        if account.is_some_and(|account| account != origin.account) {
            return Err(moved("account"));
        }
        if region.is_some_and(|region| Some(region) != origin.region.as_ref()) {
            return Err(moved("region"));
        }
        if project.is_some_and(|project| Some(project) != self.project) {
            return Err(moved("project"));
        }
        Ok(())
    }

    fn observe(
        &self,
        origin: Origin,
        project: Option<Uuid>,
        seen: S,
        actor: Option<String>,
        stamp: &Stamp,
    ) -> Result<Vec<Event<S>>, Refusal> {
        let seen = seen.normalise();
        if self.stage == Stage::Absent {
            return Ok(vec![Event::Discovered { origin, project, seen }]);
        }
        if self.origin.as_ref() != Some(&origin) {
            return Err(Refusal::new(
                &codes::INVALID_FIELD,
                format!("origin: this does not stand for {}", origin.external_id),
            ));
        }
        // What is half done is nobody's drift: the order reports what is there when it is done.
        if self.orders.out.as_ref().is_some_and(|out| out.parked.is_none()) {
            return Ok(vec![]);
        }
        let expired =
            self.muted.as_ref().and_then(|mute| mute.until).is_some_and(|t| t <= stamp.now);
        let unmuted = expired.then_some(Event::Unmuted {});
        let news = match self.stage {
            Stage::Vanished => Some(Event::Reappeared { seen }),
            // One that a person retired and that somebody made again, under the same id.
            Stage::Retired => Some(Event::Discovered { origin, project: self.project, seen }),
            _ if self.seen.as_ref() == Some(&seen) => None,
            Stage::Discovered => Some(Event::Observed { seen, actor }),
            _ => self.wanted.as_ref().map(|wanted| {
                if *wanted == seen {
                    Event::Converged { seen, actor }
                } else {
                    Event::Drifted { fields: S::drift(wanted, &seen), seen, actor }
                }
            }),
        };
        Ok(unmuted.into_iter().chain(news).collect())
    }

    /// After wanted or seen became another: what is ours over there.
    fn agree(&mut self) {
        if let (Some(wanted), Some(seen)) = (&self.wanted, &self.seen) {
            self.base = Some(S::agreed(wanted, seen));
        }
    }

    fn apply_order(&mut self, to: S) {
        let order = match (self.stage, &self.seen) {
            // Whoever uses it follows it.
            (Stage::Own, _) => return,
            (Stage::Linked, Some(seen)) => Order::Apply { from: seen.clone(), to },
            _ => Order::Create { spec: to },
        };
        self.orders.issue(order);
    }
}

impl<S: Spec> Decider for Mapped<S> {
    const KIND: &'static str = S::KIND;
    const PLURAL: &'static str = S::PLURAL;
    const SUMMARY: &'static str = S::SUMMARY;
    type Command = Command<S>;
    type Event = Event<S>;
    type Order = Order<S>;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command<S>, stamp: &Stamp) -> Result<Vec<Event<S>>, Refusal> {
        Ok(match command {
            Command::Abandon {} => {
                self.orders.ensure_parked()?;
                vec![Event::Abandoned {}]
            }
            Command::Accept {} => {
                self.orders.ensure_free()?;
                self.ensure_drift("accept")?;
                let (_, seen, _) = self.linked("accept")?;
                vec![Event::Accepted { spec: seen.clone() }]
            }
            Command::Adopt {} => match (self.stage, &self.seen) {
                (Stage::Discovered, Some(seen)) => vec![Event::Adopted { spec: seen.clone() }],
                _ => return Err(self.refuse("adopt")),
            },
            Command::Assign { .. } if self.stage == Stage::Absent => {
                return Err(self.refuse("assign"));
            }
            Command::Assign { project } if project == self.project => vec![],
            Command::Assign { project } => vec![Event::Assigned { project }],
            Command::ConfirmApplied { number, seen } if self.orders.is_out(number) => {
                vec![Event::Applied { number, seen: seen.normalise() }]
            }
            Command::ConfirmDeleted { number } if self.orders.is_out(number) => {
                vec![Event::Retired {}]
            }
            Command::Declare { account, provider, region, project, spec } => {
                self.declare(account, provider, region, project, spec)?
            }
            Command::Link { number, external_id, seen } if self.orders.is_out(number) => {
                let Some(origin) = self.origin.clone() else { return Err(self.refuse("link")) };
                let origin = Origin { external_id, ..origin };
                vec![Event::Linked { number, origin, seen: seen.normalise() }]
            }
            // A report about an order that is settled already says nothing new.
            Command::ConfirmApplied { .. }
            | Command::ConfirmDeleted { .. }
            | Command::Link { .. } => vec![],
            Command::Mute { reason, until } => {
                self.ensure_drift("mute")?;
                let mute = Mute { reason, until };
                if self.muted.as_ref() == Some(&mute) {
                    vec![]
                } else {
                    vec![Event::Muted { mute }]
                }
            }
            Command::Observe { origin, project, seen, actor } => {
                self.observe(origin, project, seen, actor, stamp)?
            }
            Command::Park { number, reason } if self.orders.is_worked_on(number) => {
                vec![Event::Parked { number, reason }]
            }
            Command::Park { .. } => vec![],
            Command::Reapply { keep_foreign } => match (self.stage, &self.wanted) {
                (Stage::Vanished, Some(wanted)) => {
                    self.orders.ensure_free()?;
                    vec![Event::ReapplyOrdered { to: wanted.clone(), keep_foreign }]
                }
                _ => {
                    self.orders.ensure_free()?;
                    self.ensure_drift("reapply")?;
                    let (wanted, seen, base) = self.linked("reapply")?;
                    seen.check_change(wanted)?;
                    let to = if keep_foreign {
                        S::keep_foreign(wanted, base, seen).normalise()
                    } else {
                        wanted.clone()
                    };
                    vec![Event::ReapplyOrdered { to, keep_foreign }]
                }
            },
            Command::Retire { nowhere } => match self.stage {
                // There is nothing to delete, and nobody who could be asked to.
                Stage::Declared if nowhere => {
                    self.orders.ensure_free()?;
                    vec![Event::Retired {}]
                }
                // One whose creation was given up may be half made over there: its driver looks.
                Stage::Linked | Stage::Discovered | Stage::Declared => {
                    self.orders.ensure_free()?;
                    vec![Event::RetireOrdered {}]
                }
                Stage::Vanished => {
                    self.orders.ensure_free()?;
                    vec![Event::Retired {}]
                }
                Stage::Own => vec![Event::Retired {}],
                Stage::Absent | Stage::Retiring | Stage::Retired => {
                    return Err(self.refuse("retire"));
                }
            },
            Command::Retry {} => {
                self.orders.ensure_parked()?;
                vec![Event::RetryOrdered {}]
            }
            Command::Unmute {} if self.muted.is_some() => vec![Event::Unmuted {}],
            Command::Unmute {} => return Err(self.refuse("unmute")),
            // While an order is worked on the driver finds out for itself.
            Command::Vanish { .. }
                if self.orders.out.as_ref().is_some_and(|out| out.parked.is_none()) =>
            {
                vec![]
            }
            Command::Vanish { evidence } => match self.stage {
                Stage::Linked | Stage::Discovered => vec![Event::Vanished { evidence }],
                // Somebody else has done what the parked order could not.
                Stage::Retiring => vec![Event::Vanished { evidence }, Event::Retired {}],
                _ => vec![],
            },
        })
    }

    fn evolve(mut self, event: Event<S>) -> Self {
        match event {
            Event::Abandoned {} => {
                self.orders.settle();
                if self.stage == Stage::Retiring {
                    self.stage = match (&self.wanted, &self.seen) {
                        (_, None) => Stage::Declared,
                        (Some(_), _) => Stage::Linked,
                        (None, _) => Stage::Discovered,
                    };
                }
            }
            Event::Accepted { spec } => {
                self.base = Some(spec.clone());
                self.wanted = Some(spec);
                self.muted = None;
            }
            Event::Adopted { spec } => {
                self.stage = Stage::Linked;
                self.base = Some(spec.clone());
                self.wanted = Some(spec);
            }
            Event::Applied { seen, .. } => {
                self.seen = Some(seen);
                self.seen_by = None;
                self.muted = None;
                self.orders.settle();
                self.agree();
            }
            Event::Assigned { project } => self.project = project,
            Event::Converged { seen, actor } => {
                self.seen = Some(seen);
                self.seen_by = actor;
                self.muted = None;
                self.agree();
            }
            Event::Declared { origin, project, spec } => {
                self.stage = Stage::Declared;
                self.origin = Some(origin);
                self.project = project;
                self.wanted = Some(spec.clone());
                self.orders.issue(Order::Create { spec });
            }
            Event::DeclaredOwn { project, spec } => {
                self.stage = Stage::Own;
                self.project = project;
                self.wanted = Some(spec);
            }
            Event::Discovered { origin, project, seen } => {
                self = Self {
                    stage: Stage::Discovered,
                    origin: Some(origin),
                    project,
                    seen: Some(seen),
                    orders: self.orders,
                    ..Self::default()
                };
            }
            Event::Drifted { seen, actor, .. } => {
                // What of an order is there is ours, also when the order was given up half way; and
                // what was ours stays so, there or not.
                if let (Some(wanted), Some(base)) = (&self.wanted, &self.base) {
                    self.base = Some(S::grown(base, &S::agreed(wanted, &seen)));
                }
                self.seen = Some(seen);
                self.seen_by = actor;
                self.muted = None;
            }
            Event::Linked { origin, seen, .. } => {
                self.stage = Stage::Linked;
                self.origin = Some(origin);
                self.seen = Some(seen);
                self.seen_by = None;
                self.orders.settle();
                self.agree();
            }
            Event::Muted { mute } => self.muted = Some(mute),
            Event::Observed { seen, actor } => {
                self.seen = Some(seen);
                self.seen_by = actor;
            }
            Event::Parked { reason, .. } => self.orders.park(reason),
            Event::ReapplyOrdered { to, .. } => self.apply_order(to),
            Event::Reappeared { seen } => {
                self.stage = if self.wanted.is_some() { Stage::Linked } else { Stage::Discovered };
                self.seen = Some(seen);
            }
            Event::RetireOrdered {} => {
                self.stage = Stage::Retiring;
                self.orders.issue(Order::Delete {});
            }
            Event::Retired {} => {
                self.stage = Stage::Retired;
                self.orders.settle();
            }
            Event::RetryOrdered {} => self.orders.retry(),
            Event::SpecDeclared { spec, to } => {
                self.wanted = Some(spec);
                self.muted = None;
                self.apply_order(to);
            }
            Event::Unmuted {} => self.muted = None,
            Event::Vanished { .. } => {
                self.stage = Stage::Vanished;
                self.muted = None;
                // There is nothing left to order anything of.
                self.orders.settle();
            }
        }
        self
    }

    fn order(&self) -> Option<Outstanding<Order<S>>> {
        self.orders.out.clone()
    }

    fn status(&self) -> &'static str {
        let parked = self.orders.out.as_ref().map(|out| out.parked.is_some());
        match (self.stage, parked) {
            (_, Some(true)) => "parked",
            (Stage::Absent, _) => "absent",
            (Stage::Declared | Stage::Vanished, Some(false)) => "creating",
            (Stage::Declared, None) => "declared",
            (Stage::Discovered, _) => "discovered",
            (Stage::Linked, Some(false)) => "applying",
            (Stage::Linked, None) if self.has_drift() => {
                if self.muted.is_some() {
                    "muted"
                } else {
                    "drifted"
                }
            }
            (Stage::Linked, None) => "linked",
            (Stage::Own, _) => "available",
            (Stage::Vanished, None) => "vanished",
            (Stage::Retiring, _) => "retiring",
            (Stage::Retired, _) => "retired",
        }
    }

    fn facets(&self) -> Facets {
        let mut facets = Facets {
            project: self.project,
            drifted: Some(self.has_drift() || self.stage == Stage::Vanished),
            gone: matches!(self.stage, Stage::Retired)
                || (self.stage == Stage::Vanished && self.wanted.is_none()),
            ..Facets::default()
        };
        if let Some(origin) = &self.origin {
            origin.facets(&mut facets);
        }
        if self.stage == Stage::Own {
            facets.provider = Some(PROVIDER.to_owned());
        }
        if let Some(spec) = self.wanted.as_ref().or(self.seen.as_ref()) {
            spec.facets(&mut facets);
        }
        facets
    }

    fn claims(&self, events: &[Event<S>]) -> Vec<String> {
        events
            .iter()
            .filter_map(|event| match event {
                // Retired and made again: the claim is already ours.
                Event::Discovered { origin, .. } if self.stage == Stage::Absent => Some(origin),
                // Found again under the id it had before.
                Event::Linked { origin, .. } if self.origin.as_ref() != Some(origin) => {
                    Some(origin)
                }
                _ => None,
            })
            .map(|origin| origin.claim(S::KIND))
            .collect()
    }

    fn drift(&self) -> Vec<FieldDrift> {
        match (self.stage, &self.wanted, &self.seen) {
            (Stage::Linked, Some(wanted), Some(seen)) => S::drift(wanted, seen),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;

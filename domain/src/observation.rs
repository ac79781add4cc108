//! The life of what is only seen in a cloud.
//!
//! ```text
//!            observe              vanish
//!   absent ──────────► seen ◄─────────────► gone
//!                      │  ▲      observe
//!                      └──┘ observe, where something differs
//! ```
//!
//! Absence in a listing is never deletion: [`Evidence`] says what a deletion was concluded from. A
//! resource that comes back keeps its id and history.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt::Debug;
use uuid::Uuid;

use crate::kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes, fields};

/// Where a counterpart is: the account that sees it, the region, and the provider's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// For instance `aws`.
    pub provider: String,
    /// The cloud account, by our id.
    pub account: Uuid,
    /// The provider's id of the region; none for what lies in none.
    #[serde(default)]
    pub region: Option<String>,
    /// The provider's id of the thing; empty before there is one.
    #[serde(default)]
    pub external_id: String,
}

impl Origin {
    /// Longest id of a region that a caller names; the longest we know have some 30 (AWS'
    /// local zones).
    pub const REGION_CHARS_MAX: usize = 64;
    /// Longest external id that a caller names; Azure's paths are the longest, up to some 300.
    pub const EXTERNAL_ID_CHARS_MAX: usize = 512;

    /// What a caller names as a region must look like the id of one: it is a column that lists
    /// find rows by, and an index takes no text of any length.
    pub fn check_region(region: &str) -> Result<(), Refusal> {
        let fits = (1..=Self::REGION_CHARS_MAX).contains(&region.len());
        if fits && region.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(());
        }
        let detail =
            format!("region: needs 1 to {} visible ASCII characters", Self::REGION_CHARS_MAX);
        Err(Refusal::new(&codes::INVALID_FIELD, detail))
    }

    /// The same for what a caller names by its id in the cloud.
    pub fn is_external_id(id: &str) -> bool {
        (1..=Self::EXTERNAL_ID_CHARS_MAX).contains(&id.chars().count())
            && !id.chars().any(char::is_control)
    }

    /// The name that one resource here takes for this counterpart alone.
    pub fn claim(&self, kind: &str) -> String {
        let region = self.region.as_deref().unwrap_or("-");
        format!("{kind}/{}/{region}/{}", self.account, self.external_id)
    }

    /// Fills the columns that an origin has.
    pub fn facets(&self, facets: &mut Facets) {
        facets.account = Some(self.account);
        facets.provider = Some(self.provider.clone());
        facets.region.clone_from(&self.region);
        facets.external_id = (!self.external_id.is_empty()).then(|| self.external_id.clone());
    }
}

/// What a deletion was concluded from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Evidence {
    /// A listing that was complete (all pages, one attempt) did not have it.
    CompleteListing {
        /// The account's sync run.
        run: u64,
        /// How many things the listing had.
        listed: u64,
    },
    /// The provider was asked for it by its id and said that it is not there.
    NotFoundById,
}

/// What a kind that is only seen brings: its data.
pub trait Resource:
    Clone + PartialEq + Debug + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static
{
    /// See [`Decider::KIND`].
    const KIND: &'static str;
    /// See [`Decider::PLURAL`].
    const PLURAL: &'static str;
    /// See [`Decider::SUMMARY`].
    const SUMMARY: &'static str;
    /// One word for what was seen.
    fn status(&self) -> &'static str {
        "available"
    }
    /// Fills the columns that what was seen has: name, zone, parent, tags.
    fn facets(&self, facets: &mut Facets);
}

/// What was seen of a resource, and whether it is still there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Observation<R> {
    /// Where it is.
    pub origin: Option<Origin>,
    /// Who owns it.
    pub project: Option<Uuid>,
    /// What was seen last.
    pub seen: Option<R>,
    /// What its deletion was concluded from; none while it is there.
    pub gone: Option<Evidence>,
}

impl<R> Default for Observation<R> {
    fn default() -> Self {
        Self { origin: None, project: None, seen: None, gone: None }
    }
}

/// What one more look came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Noticed {
    /// Nothing new.
    Same,
    /// Never seen before.
    New,
    /// These fields differ from what was seen last.
    Different(Vec<String>),
    /// It was gone, and is there again.
    Back,
}

impl<R: Resource> Observation<R> {
    /// Compares one more look with what is known.
    pub fn notice(&self, origin: &Origin, now: &R) -> Result<Noticed, Refusal> {
        let (Some(known), Some(seen)) = (&self.origin, &self.seen) else { return Ok(Noticed::New) };
        if known != origin {
            return Err(Refusal::new(
                &codes::INVALID_FIELD,
                format!(
                    "origin: this stands for {}, not {}",
                    known.external_id, origin.external_id
                ),
            ));
        }
        if self.gone.is_some() {
            return Ok(Noticed::Back);
        }
        if seen == now {
            return Ok(Noticed::Same);
        }
        let json = |value: &R| serde_json::to_value(value).unwrap_or_default();
        Ok(Noticed::Different(
            fields(&json(seen), &json(now)).into_iter().map(|one| one.field).collect(),
        ))
    }

    /// Whether a deletion would say anything new.
    pub fn is_there(&self) -> bool {
        self.seen.is_some() && self.gone.is_none()
    }

    /// The columns of the inventory.
    pub fn facets(&self) -> Facets {
        let mut facets =
            Facets { project: self.project, gone: self.gone.is_some(), ..Facets::default() };
        if let Some(origin) = &self.origin {
            origin.facets(&mut facets);
        }
        if let Some(seen) = &self.seen {
            seen.facets(&mut facets);
        }
        facets
    }

    /// One word.
    pub fn status(&self) -> &'static str {
        match (&self.seen, &self.gone) {
            (None, _) => "absent",
            (_, Some(_)) => "gone",
            (Some(seen), None) => seen.status(),
        }
    }
}

/// A command of a kind that is only seen.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command<R> {
    /// Give it to a project.
    Assign {
        /// The new owner; none is the estate.
        project: Option<Uuid>,
    },
    /// The observer saw it.
    Observe {
        /// Where.
        origin: Origin,
        /// Who owns it, when it is new.
        #[serde(default)]
        project: Option<Uuid>,
        /// What it is.
        seen: R,
        /// Who changed it, where the provider tells.
        #[serde(default)]
        actor: Option<String>,
    },
    /// The observer knows that it is not there any more.
    Vanish {
        /// From what.
        evidence: Evidence,
    },
}

/// A fact about a kind that is only seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event<R> {
    /// It was given to a project.
    Assigned {
        /// The new owner; none is the estate.
        project: Option<Uuid>,
    },
    /// It was seen for the first time.
    Discovered {
        /// Where.
        origin: Origin,
        /// Who owns it from now on.
        project: Option<Uuid>,
        /// What it is.
        seen: R,
    },
    /// It was seen to be different.
    Observed {
        /// What it is now.
        seen: R,
        /// Which fields differ from what was seen before.
        fields: Vec<String>,
        /// Who changed it, where the provider tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        actor: Option<String>,
    },
    /// It had vanished and was seen again.
    Reappeared {
        /// What it is now.
        seen: R,
    },
    /// It is not there any more.
    Vanished {
        /// What that was concluded from.
        evidence: Evidence,
    },
}

/// The verbs that every observed kind has.
pub static VERBS: &[Verb] = &[
    Verb::admin("assign", "Gives it to another project."),
    Verb::system("observe", "Reports what was seen in the cloud.").creating(),
    Verb::system("vanish", "Reports that it is not in the cloud any more."),
];

/// Nothing can be ordered of what is only seen.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub enum NoOrder {}

/// A kind that is only seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "R: Resource")]
pub struct Observed<R: Resource>(Observation<R>);

impl<R: Resource> Observed<R> {
    /// What was seen of it.
    pub fn observation(&self) -> &Observation<R> {
        &self.0
    }
}

impl<R: Resource> Default for Observed<R> {
    fn default() -> Self {
        Self(Observation::default())
    }
}

impl<R: Resource> Decider for Observed<R> {
    const KIND: &'static str = R::KIND;
    const PLURAL: &'static str = R::PLURAL;
    const SUMMARY: &'static str = R::SUMMARY;
    type Command = Command<R>;
    type Event = Event<R>;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command<R>, _: &Stamp) -> Result<Vec<Event<R>>, Refusal> {
        Ok(match command {
            Command::Assign { .. } if self.0.seen.is_none() => {
                return Err(Refusal::wrong_state("assign", self.status()));
            }
            Command::Assign { project } if project == self.0.project => vec![],
            Command::Assign { project } => vec![Event::Assigned { project }],
            Command::Observe { origin, project, seen, actor } => {
                match self.0.notice(&origin, &seen)? {
                    Noticed::Same => vec![],
                    Noticed::New => vec![Event::Discovered { origin, project, seen }],
                    Noticed::Different(fields) => vec![Event::Observed { seen, fields, actor }],
                    Noticed::Back => vec![Event::Reappeared { seen }],
                }
            }
            Command::Vanish { evidence } if self.0.is_there() => vec![Event::Vanished { evidence }],
            Command::Vanish { .. } => vec![],
        })
    }

    fn evolve(mut self, event: Event<R>) -> Self {
        match event {
            Event::Assigned { project } => self.0.project = project,
            Event::Discovered { origin, project, seen } => {
                self.0 =
                    Observation { origin: Some(origin), project, seen: Some(seen), gone: None };
            }
            Event::Observed { seen, .. } => self.0.seen = Some(seen),
            Event::Reappeared { seen } => {
                self.0.seen = Some(seen);
                self.0.gone = None;
            }
            Event::Vanished { evidence } => self.0.gone = Some(evidence),
        }
        self
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        self.0.status()
    }

    fn facets(&self) -> Facets {
        self.0.facets()
    }

    fn claims(&self, events: &[Event<R>]) -> Vec<String> {
        events
            .iter()
            .filter_map(|event| match event {
                Event::Discovered { origin, .. } => Some(origin.claim(R::KIND)),
                _ => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::cloud::Zone;

    fn zone(available: bool) -> Zone {
        Zone { name: "north-1a".into(), available }
    }

    fn origin(external_id: &str) -> Origin {
        Origin {
            provider: "sim".into(),
            account: Uuid::from_u128(1),
            region: Some("north-1".into()),
            external_id: external_id.into(),
        }
    }

    fn observe(available: bool) -> Command<Zone> {
        let (origin, seen) = (origin("north-1a"), zone(available));
        Command::Observe { origin, project: None, seen, actor: Some("ann".into()) }
    }

    fn found() -> Event<Zone> {
        Event::Discovered { origin: origin("north-1a"), project: None, seen: zone(true) }
    }

    fn gone() -> Event<Zone> {
        let evidence = Evidence::CompleteListing { run: 3, listed: 2 };
        Event::Vanished { evidence }
    }

    fn check(given: &[Event<Zone>], when: Command<Zone>, then: Result<&[Event<Zone>], &str>) {
        let state = given.iter().cloned().fold(Observed::<Zone>::default(), Decider::evolve);
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        let got = state.decide(when, &stamp);
        assert_eq!(got.as_deref().map_err(|no| no.code.code), then);
    }

    #[test]
    fn only_what_is_new_is_a_fact() {
        check(&[], observe(true), Ok(&[found()]));
        check(&[found()], observe(true), Ok(&[]));
        let fields = vec!["available".to_owned()];
        let news = Event::Observed { seen: zone(false), fields, actor: Some("ann".into()) };
        check(&[found()], observe(false), Ok(&[news]));
    }

    #[test]
    fn what_is_gone_is_gone_once_and_comes_back_as_itself() {
        let vanish =
            || Command::Vanish { evidence: Evidence::CompleteListing { run: 3, listed: 2 } };
        check(&[], vanish(), Ok(&[]));
        check(&[found()], vanish(), Ok(&[gone()]));
        check(&[found(), gone()], vanish(), Ok(&[]));
        check(&[found(), gone()], observe(true), Ok(&[Event::Reappeared { seen: zone(true) }]));
    }

    #[test]
    fn a_look_at_something_else_is_refused() {
        let other = Command::Observe {
            origin: origin("north-1b"),
            project: None,
            seen: zone(true),
            actor: None,
        };
        check(&[found()], other, Err("invalid-field"));
    }

    #[test]
    fn it_is_given_to_a_project_once() {
        let project = Some(Uuid::from_u128(9));
        check(&[], Command::Assign { project }, Err("wrong-state"));
        check(&[found()], Command::Assign { project }, Ok(&[Event::Assigned { project }]));
        check(&[found(), Event::Assigned { project }], Command::Assign { project }, Ok(&[]));
    }

    #[test]
    fn a_counterpart_is_claimed_by_account_region_and_id() {
        let state = Observed::<Zone>::default();
        let account = Uuid::from_u128(1);
        assert_eq!(state.claims(&[found()]), [format!("zone/{account}/north-1/north-1a")]);
        let nowhere = Origin { region: None, ..origin("north-1a") };
        assert_eq!(nowhere.claim("region"), format!("region/{account}/-/north-1a"));
    }
}

//! Our own prices, and for whom they are.
//!
//! ```text
//!            define               set-rate, end-rate, remove-rate
//!   absent ─────────► active ◄──┐──────────────────────────────┘
//!                       │ retire
//!                       ▼
//!                     retired
//! ```
//!
//! A rate that has begun never changes: it can be ended, from now on. So what was priced once is
//! priced the same again. Of what applies to a project the most specific set wins that has a rate
//! for the meter: project, then domain, then the organisation's nodes from the nearest up, then the
//! default; a rate comes whole from one set.

use std::collections::BTreeMap;

use chrono::{DateTime, SubsecRound, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    amount::{Amount, Currency},
    rate::{Granule, Per, Rounding, Tier, TierMode, Tiers},
    ratio::{Ratio, whole},
};
use crate::{
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    observation::NoOrder,
};

/// Most rates of a set.
const RATES_MAX: usize = 1_000;
/// Most tiers of a rate.
const TIERS_MAX: usize = 50;
/// Longest text, in characters.
const TEXT_CHARS_MAX: usize = 200;
/// The largest price of a unit, in a currency's units.
const PRICE_MAX: i128 = 10_i128.pow(9 + super::amount::SCALE);

macro_rules! meters {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal $service:literal $category:literal $flow:literal;)+) => {
        /// What is measured.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            JsonSchema,
        )]
        #[serde(rename_all = "kebab-case")]
        pub enum Meter { $($(#[doc = $doc])+ $name),+ }

        impl Meter {
            /// Every meter, sorted by name.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// As in commands.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// `ServiceName` of its lines.
            pub fn service(self) -> &'static str {
                match self { $(Self::$name => $service),+ }
            }

            /// `ServiceCategory` of its lines.
            pub fn category(self) -> &'static str {
                match self { $(Self::$name => $category),+ }
            }

            /// Whether it counts what passes, and not what is there for a time.
            pub fn is_flow(self) -> bool {
                match self { $(Self::$name => $flow),+ }
            }
        }
    };
}

meters! {
    /// Backups, in GiB.
    BackupGib = "backup-gib" "Backup" "Storage" false;
    /// Machines of their own; the SKU is the shape.
    BareMetal = "bare-metal" "Bare metal" "Compute" false;
    /// Disks, in GiB; the SKU is the medium.
    DiskGib = "disk-gib" "Disks" "Storage" false;
    /// Whole graphics cards; the SKU is the model.
    Gpu = "gpu" "Servers" "Compute" false;
    /// Public addresses.
    Ip = "ip" "Addresses" "Networking" false;
    /// Memory of running servers, in GiB; the SKU is the shape.
    MemoryGib = "memory-gib" "Servers" "Compute" false;
    /// Memory of running pods, in GiB.
    PodMemoryGib = "pod-memory-gib" "Containers" "Compute" false;
    /// Processors of running pods.
    PodVcpu = "pod-vcpu" "Containers" "Compute" false;
    /// Claims of volumes while they are bound, in GiB; the SKU is the storage class.
    PvcGib = "pvc-gib" "Containers" "Storage" false;
    /// Running servers as a package; the SKU is the shape.
    Server = "server" "Servers" "Compute" false;
    /// Snapshots, in GiB.
    SnapshotGib = "snapshot-gib" "Snapshots" "Storage" false;
    /// Traffic, in GiB that passed.
    TrafficGib = "traffic-gib" "Traffic" "Networking" true;
    /// Processors of running servers; the SKU is the shape.
    Vcpu = "vcpu" "Servers" "Compute" false;
    /// Parts of graphics cards; the SKU is the model.
    Vgpu = "vgpu" "Servers" "Compute" false;
}

/// For whom a set's rates are.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "RateScope")]
pub enum Scope {
    /// For everybody that no other set has a rate for.
    #[default]
    Default,
    /// For the projects of a domain.
    Domain(
        /// Its id.
        Uuid,
    ),
    /// For the projects that hang at a node of an organisation, or below it.
    Node {
        /// The organisation's id.
        organisation: Uuid,
        /// The node's key.
        node: String,
    },
    /// For one project.
    Project(
        /// Its id.
        Uuid,
    ),
}

/// What a tier's quantity is summed over, within a calendar month.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Over {
    /// All resources of a project together.
    #[default]
    Project,
    /// Each resource for itself.
    Resource,
}

/// A price up to a quantity, that quantity included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceTier {
    /// Where it ends, in units of the rate's period; none is the last.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub up_to: Option<Amount>,
    /// For one unit.
    #[schemars(with = "String")]
    pub price: Amount,
}

/// How a price is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Pricing {
    /// One price for a resource for the period, however much of the meter it has.
    Fixed {
        /// For one resource.
        #[schemars(with = "String")]
        price: Amount,
    },
    /// A price for each unit for the period.
    PayAsYouGo {
        /// For one unit.
        #[schemars(with = "String")]
        price: Amount,
    },
    /// Prices by how much was used in the calendar month.
    Tiers {
        /// How they count.
        mode: TierMode,
        /// In order; the last has no end.
        tiers: Vec<PriceTier>,
        /// What is counted together.
        #[serde(default)]
        over: Over,
    },
}

/// One price.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Of what.
    pub meter: Meter,
    /// Only of this SKU: a medium, a model, a shape, a class; of any when it is empty.
    #[serde(default)]
    pub sku: String,
    /// Only of resources of this kind, for instance `server`; of any when it is empty.
    #[serde(default)]
    pub resource_type: String,
    /// How much.
    pub pricing: Pricing,
    /// For which period; it says nothing of a meter that counts what passes.
    #[serde(default = "hour")]
    pub per: Per,
    /// In what a use is measured.
    #[serde(default = "second")]
    pub granule: Granule,
    /// What becomes of a granule that is begun and not used up.
    #[serde(default = "exact")]
    pub rounding: Rounding,
    /// From when, inclusive.
    pub from: DateTime<Utc>,
    /// Until when, exclusive; none is without end.
    #[serde(default)]
    pub to: Option<DateTime<Utc>>,
}

const fn hour() -> Per {
    Per::Hour
}

const fn second() -> Granule {
    Granule::Second
}

const fn exact() -> Rounding {
    Rounding::None
}

/// What a set says beside its rates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What people call it, 1…100 characters.
    pub name: String,
    /// What its prices are in.
    pub currency: Currency,
    /// For whom.
    #[serde(default)]
    pub scope: Scope,
    /// Where its days, months and years begin, by IANA name.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// `BillingAccountId` of the bills that get its lines.
    #[serde(default = "own")]
    pub billing_account: String,
    /// Only servers and disks of these providers; of all when it is empty. What a provider's bills
    /// have already is not to be priced a second time.
    #[serde(default)]
    pub providers: Vec<String>,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn own() -> String {
    "own".to_owned()
}

/// A command of a rate set.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Begin it, or say anew for whom it is; once a rate has begun only its name can change.
    Define {
        /// All of it.
        settings: Settings,
    },
    /// End a rate.
    EndRate {
        /// The rate's key.
        key: String,
        /// When; now when it is left out, and never before.
        #[serde(default)]
        to: Option<DateTime<Utc>>,
    },
    /// Take away a rate that has not begun.
    RemoveRate {
        /// The rate's key.
        key: String,
    },
    /// End all its rates now.
    Retire {},
    /// Add a rate, or change one that has not begun.
    SetRate {
        /// Names the rate in this set, 1…100 characters.
        key: String,
        /// All of it; `from` is now when it is left out, and never before.
        rate: NewRate,
    },
}

/// A rate as it is asked for.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRate {
    /// Of what.
    pub meter: Meter,
    /// Only of this SKU: a medium, a model, a shape, a class; of any when it is empty.
    #[serde(default)]
    pub sku: String,
    /// Only of resources of this kind, for instance `server`; of any when it is empty.
    #[serde(default)]
    pub resource_type: String,
    /// How much.
    pub pricing: Pricing,
    /// For which period.
    #[serde(default = "hour")]
    pub per: Per,
    /// In what a use is measured.
    #[serde(default = "second")]
    pub granule: Granule,
    /// What becomes of a granule that is begun and not used up.
    #[serde(default = "exact")]
    pub rounding: Rounding,
    /// From when, inclusive; now when it is left out, and never before.
    #[serde(default)]
    pub from: Option<DateTime<Utc>>,
    /// Until when, exclusive; none is without end.
    #[serde(default)]
    pub to: Option<DateTime<Utc>>,
}

/// A fact about a rate set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// It is for these.
    Defined {
        /// All of it.
        settings: Settings,
    },
    /// A rate has an end.
    RateEnded {
        /// The rate's key.
        key: String,
        /// When.
        to: DateTime<Utc>,
    },
    /// A rate that had not begun is not there any more.
    RateRemoved {
        /// The rate's key.
        key: String,
    },
    /// There is a rate.
    RateSet {
        /// The rate's key.
        key: String,
        /// All of it.
        rate: Rate,
    },
    /// All its rates have ended.
    Retired {
        /// When.
        at: DateTime<Utc>,
    },
}

/// Our own prices, and for whom they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RateSet {
    /// For whom it is; none while it does not exist.
    pub settings: Option<Settings>,
    /// Its rates, by key.
    #[serde(default)]
    pub rates: BTreeMap<String, Rate>,
    /// When all of them ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<DateTime<Utc>>,
}

static VERBS: &[Verb] = &[
    Verb::admin("define", "Begins a set of rates, and says for whom it is.").creating(),
    Verb::admin("end-rate", "Ends a rate, now or later."),
    Verb::admin("remove-rate", "Takes away a rate that has not begun."),
    Verb::admin("retire", "Ends all its rates now."),
    Verb::admin("set-rate", "Adds a rate from now on or later, or changes one that has not begun."),
];

fn no(detail: impl Into<String>) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

impl PriceTier {
    fn tier(&self) -> Tier {
        Tier { up_to: self.up_to.map(exactly), price: exactly(self.price) }
    }
}

/// An amount as a ratio of units.
pub(super) fn exactly(amount: Amount) -> Ratio {
    whole(amount.0) / whole(10_i128.pow(super::amount::SCALE))
}

impl Pricing {
    /// The tiers, of a rate that has them.
    pub(super) fn tiers(&self) -> Option<Tiers> {
        let Self::Tiers { mode, tiers, .. } = self else { return None };
        Tiers::new(*mode, tiers.iter().map(PriceTier::tier).collect()).ok()
    }

    fn check(&self, meter: Meter) -> Result<(), Refusal> {
        let fits = |price: &Amount| (0..=PRICE_MAX).contains(&price.0);
        let right = match self {
            Self::Fixed { .. } if meter.is_flow() => {
                let detail = format!("pricing: {} has no period to have a price for", meter.name());
                return Err(no(detail));
            }
            Self::Fixed { price } | Self::PayAsYouGo { price } => fits(price),
            Self::Tiers { mode, tiers, .. } => {
                if tiers.len() > TIERS_MAX {
                    return Err(no(format!("pricing: there are more than {TIERS_MAX} tiers")));
                }
                Tiers::new(*mode, tiers.iter().map(PriceTier::tier).collect())
                    .map_err(|fault| no(format!("pricing: {fault}")))?;
                tiers.iter().all(|tier| fits(&tier.price))
            }
        };
        if right { Ok(()) } else { Err(no(format!("price: is not 0 to {}", Amount(PRICE_MAX)))) }
    }
}

impl Rate {
    /// Whether it holds at a moment.
    pub fn holds(&self, at: DateTime<Utc>) -> bool {
        self.from <= at && self.to.is_none_or(|to| at < to)
    }
}

impl Settings {
    fn check(&self) -> Result<(), Refusal> {
        crate::tenancy::check_name(&self.name)?;
        if self.time_zone.parse::<Tz>().is_err() {
            return Err(no(format!("time_zone: {:?} is not one", self.time_zone)));
        }
        let account = self.billing_account.chars().count();
        if !(1..=TEXT_CHARS_MAX).contains(&account) {
            return Err(no(format!("billing_account: has 1 to {TEXT_CHARS_MAX} characters")));
        }
        let long = |text: &String| text.chars().count() > TEXT_CHARS_MAX;
        if self.providers.len() > 50 || self.providers.iter().any(long) {
            return Err(no("providers: are at most 50 names"));
        }
        Ok(())
    }

    /// Where its days begin.
    pub fn zone(&self) -> Tz {
        // It was checked when it was defined.
        self.time_zone.parse().unwrap_or(Tz::UTC)
    }
}

impl RateSet {
    fn settled(&self, verb: &str) -> Result<(), Refusal> {
        if self.status() == "active" {
            Ok(())
        } else {
            Err(Refusal::wrong_state(verb, self.status()))
        }
    }

    fn rate(&self, key: &str) -> Result<&Rate, Refusal> {
        let missing = || Refusal::new(&codes::NOT_FOUND, format!("there is no rate {key:?}"));
        self.rates.get(key).ok_or_else(missing)
    }

    fn set(&self, key: String, asked: NewRate, now: DateTime<Utc>) -> Result<Vec<Event>, Refusal> {
        self.settled("set-rate")?;
        crate::tenancy::check_name(&key)?;
        let known = self.rates.get(&key);
        let NewRate { meter, sku, resource_type, pricing, per, granule, rounding, from, to } =
            asked;
        let (from, to) = (from.map(micros), to.map(micros));
        let from = from.or_else(|| known.map(|rate| rate.from)).unwrap_or(now);
        let rate = Rate { meter, sku, resource_type, pricing, per, granule, rounding, from, to };
        if known == Some(&rate) {
            return Ok(vec![]);
        }
        if let Some(known) = known.filter(|known| known.from <= now) {
            return Err(in_effect(&key, known));
        }
        if rate.from < now {
            return Err(no("from: lies in the past; what was priced once stays"));
        }
        if rate.to.is_some_and(|to| to <= rate.from) {
            return Err(no("to: is not after from"));
        }
        let long = |text: &String| text.chars().count() > TEXT_CHARS_MAX;
        if long(&rate.sku) || long(&rate.resource_type) {
            return Err(no(format!("sku: a text has at most {TEXT_CHARS_MAX} characters")));
        }
        if known.is_none() && self.rates.len() >= RATES_MAX {
            return Err(no(format!("rate: there are {RATES_MAX} already")));
        }
        rate.pricing.check(rate.meter)?;
        Ok(vec![Event::RateSet { key, rate }])
    }
}

/// As fine as times are kept.
fn micros(at: DateTime<Utc>) -> DateTime<Utc> {
    at.trunc_subsecs(6)
}

fn in_effect(key: &str, rate: &Rate) -> Refusal {
    let detail = format!("the rate {key:?} has begun at {}", rate.from.to_rfc3339());
    Refusal::new(&codes::RATE_IN_EFFECT, detail)
}

impl Decider for RateSet {
    const KIND: &'static str = "rate-set";
    const PLURAL: &'static str = "rate-sets";
    const SUMMARY: &'static str = "Our own prices, and for whom they are.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, stamp: &Stamp) -> Result<Vec<Event>, Refusal> {
        let now = micros(stamp.now);
        Ok(match command {
            Command::Define { settings } => {
                if self.retired.is_some() {
                    return Err(Refusal::wrong_state("define", self.status()));
                }
                settings.check()?;
                let Some(known) = &self.settings else {
                    return Ok(vec![Event::Defined { settings }]);
                };
                if *known == settings {
                    return Ok(vec![]);
                }
                let renamed = Settings { name: settings.name.clone(), ..known.clone() };
                let begun = self.rates.iter().find(|(_, rate)| rate.from <= now);
                if let Some((key, rate)) = begun
                    && renamed != settings
                {
                    return Err(in_effect(key, rate));
                }
                vec![Event::Defined { settings }]
            }
            Command::EndRate { key, to } => {
                self.settled("end-rate")?;
                let (rate, to) = (self.rate(&key)?, to.map(micros));
                if to.is_some() && rate.to == to {
                    return Ok(vec![]);
                }
                let to = to.unwrap_or(now);
                if rate.to.is_some_and(|to| to <= now) {
                    return Err(in_effect(&key, rate));
                }
                if to < now || to <= rate.from {
                    return Err(no("to: lies in the past, or not after the rate's beginning"));
                }
                vec![Event::RateEnded { key, to }]
            }
            Command::RemoveRate { key } => {
                self.settled("remove-rate")?;
                let rate = self.rate(&key)?;
                if rate.from <= now {
                    return Err(in_effect(&key, rate));
                }
                vec![Event::RateRemoved { key }]
            }
            Command::Retire {} if self.retired.is_some() => vec![],
            Command::Retire {} => {
                self.settled("retire")?;
                vec![Event::Retired { at: now }]
            }
            Command::SetRate { key, rate } => self.set(key, rate, now)?,
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Defined { settings } => self.settings = Some(settings),
            Event::RateEnded { key, to } => {
                if let Some(rate) = self.rates.get_mut(&key) {
                    rate.to = Some(to);
                }
            }
            Event::RateRemoved { key } => {
                self.rates.remove(&key);
            }
            Event::RateSet { key, rate } => {
                self.rates.insert(key, rate);
            }
            Event::Retired { at } => self.retired = Some(at),
        }
        self
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        match (&self.settings, &self.retired) {
            (None, _) => "absent",
            (_, Some(_)) => "retired",
            _ => "active",
        }
    }

    fn facets(&self) -> Facets {
        let Some(settings) = &self.settings else { return Facets::default() };
        Facets {
            name: Some(settings.name.clone()),
            parent: Some(settings.billing_account.clone()),
            gone: self.retired.is_some(),
            ..Facets::default()
        }
    }
}

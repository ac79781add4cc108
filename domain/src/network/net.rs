//! IP subnets, in a cloud or our own, and of our own who has which address.
//!
//! One that is in a cloud is only seen, as in [`crate::observation`]. One of our own lives on a
//! [`super::segment`]:
//!
//! ```text
//!   absent ── define ──► available ── retire ──► retired
//!                        │       ▲    (while no address is taken)
//!                        └───────┘ change, reserve, unreserve, give, release, replace
//! ```
//!
//! Addresses are given and taken back in this stream, by [`super::addresses`]: the append at its revision
//! is what makes an address one holder's, and who loses a race is decided again on what is then free. A
//! holder is what has the address, an interface of a server say, and has at most one of each family.

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{
    SeenNetwork,
    addresses::{Addresses, Family, IpAddr, Range, Subnet, Want},
    mac::{Mac, Macs},
    segment::Segment,
};
use crate::{
    kernel::{Companion, Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    observation::{Evidence, NoOrder, Noticed, Observation, Origin, Resource},
    tenancy::check_name,
};

/// Most DNS servers: resolvers ask three, and DHCP carries more for nobody.
const DNS_SERVERS_MAX: usize = 8;
/// Longest DNS domain, and longest part of it (RFC 1035).
const DOMAIN_CHARS_MAX: usize = 253;
const LABEL_CHARS_MAX: usize = 63;
/// Longest note, in characters.
const NOTE_CHARS_MAX: usize = 255;
/// How long an address that was told may be good for, in seconds: long enough to be asked for again, and a
/// year.
const LEASES_S: std::ops::RangeInclusive<u32> = 120..=31_536_000;
/// When nobody says: a day.
const LEASE_S: u32 = 86_400;

/// A network of our own, as it is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NetworkDefinition")]
pub struct Definition {
    /// Its own id; the server fills it in.
    #[serde(default)]
    pub id: Option<Uuid>,
    /// 1…100 characters.
    pub name: String,
    /// Whose it is; none is the estate's.
    #[serde(default)]
    pub project: Option<Uuid>,
    /// The segment it is on.
    pub segment: Uuid,
    /// Its IPv4 subnet. It has one of both at least.
    #[serde(default)]
    pub v4: Option<Subnet>,
    /// Its IPv6 subnet.
    #[serde(default)]
    pub v6: Option<Subnet>,
    /// Who answers its servers' questions for names, at most 8.
    #[serde(default)]
    pub dns_servers: Vec<IpAddr>,
    /// The DNS domain of its servers; none when empty.
    #[serde(default)]
    pub domain: String,
    /// Whether addresses are told by DHCP and router advertisements; otherwise by cloud-init alone.
    #[serde(default)]
    pub dhcp: bool,
    /// How long an address that was told is good for, in seconds, 120 to 31,536,000; a day when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<u32>,
}

/// What of a network of our own is to be different; what is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NetworkChange")]
pub struct Change {
    /// 1…100 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its IPv4 subnet; every address that is taken lies in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v4: Option<Subnet>,
    /// Its IPv6 subnet, the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<Subnet>,
    /// Its DNS servers, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_servers: Option<Vec<IpAddr>>,
    /// The DNS domain of its servers; an empty one takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Whether addresses are told by DHCP and router advertisements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    /// How long an address that was told is good for, in seconds, 120 to 31,536,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<u32>,
}

/// A command of a network.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Give it to a project.
    Assign {
        /// The new owner; none is the estate.
        project: Option<Uuid>,
    },
    /// Change what is named.
    Change(Change),
    /// Begin one of our own.
    Define(Definition),
    /// Give a holder an address of each family that is asked for and that it has none of.
    Give {
        /// Who is to have them.
        holder: Uuid,
        /// Which IPv4 address; none when left out.
        #[serde(default)]
        v4: Option<Want>,
        /// Which IPv6 address; none when left out.
        #[serde(default)]
        v6: Option<Want>,
        /// The hardware address it is to be known by; nobody else on the network may have it.
        #[serde(default)]
        mac: Option<Mac>,
        /// 128 random bits; filled in when left out.
        #[serde(default)]
        chance: Option<Uuid>,
    },
    /// The observer saw it.
    Observe {
        /// Where.
        origin: Origin,
        /// Who owns it, when it is new.
        #[serde(default)]
        project: Option<Uuid>,
        /// What it is.
        seen: SeenNetwork,
        /// Who changed it, where the provider tells.
        #[serde(default)]
        actor: Option<String>,
    },
    /// Take a holder's addresses back.
    Release {
        /// Whose.
        holder: Uuid,
        /// Which; all of them when empty.
        #[serde(default)]
        addresses: Vec<IpAddr>,
    },
    /// Give a holder what was given to another one for it, in place of its own of the same families.
    Replace {
        /// Who is to have them.
        holder: Uuid,
        /// Who has them: nobody is called so afterwards.
        by: Uuid,
    },
    /// Give these addresses by name only. Who has one of them keeps it.
    Reserve {
        /// Which.
        range: Range,
        /// What for, at most 255 characters.
        #[serde(default)]
        note: String,
    },
    /// Give it up; no address may be taken.
    Retire {},
    /// Give addresses that were reserved to anybody again.
    Unreserve {
        /// Which: one that was reserved, as a whole.
        range: Range,
    },
    /// The observer knows that it is not there any more.
    Vanish {
        /// From what.
        evidence: Evidence,
    },
}

/// A fact about a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// It was given to a project.
    Assigned {
        /// The new owner; none is the estate.
        project: Option<Uuid>,
    },
    /// What is named is different.
    Changed(Change),
    /// It has begun, on a segment of our own.
    Defined(Definition),
    /// It was seen for the first time.
    Discovered {
        /// Where.
        origin: Origin,
        /// Who owns it from now on.
        project: Option<Uuid>,
        /// What it is.
        seen: SeenNetwork,
    },
    /// A holder has these addresses from now on.
    Given {
        /// Who has them.
        holder: Uuid,
        /// Which: at most one of each family, IPv4 first.
        addresses: Vec<IpAddr>,
        /// The hardware address it is known by, where it was said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mac: Option<Mac>,
    },
    /// It was seen to be different.
    Observed {
        /// What it is now.
        seen: SeenNetwork,
        /// Which fields differ from what was seen before.
        fields: Vec<String>,
        /// Who changed it, where the provider tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        actor: Option<String>,
    },
    /// It had vanished and was seen again.
    Reappeared {
        /// What it is now.
        seen: SeenNetwork,
    },
    /// A holder has these addresses no longer.
    Released {
        /// Who had them.
        holder: Uuid,
        /// Which.
        addresses: Vec<IpAddr>,
        /// When: they rest from then on.
        at: DateTime<Utc>,
    },
    /// A holder has other addresses, in place of its own of the same families.
    Replaced {
        /// Who has them.
        holder: Uuid,
        /// To whom they were given for it.
        by: Uuid,
        /// Which: at most one of each family, IPv4 first.
        addresses: Vec<IpAddr>,
        /// Which it has no longer.
        released: Vec<IpAddr>,
        /// When: those rest from then on.
        at: DateTime<Utc>,
    },
    /// These addresses are given by name only.
    Reserved {
        /// Which.
        range: Range,
        /// What for.
        note: String,
    },
    /// It is given up.
    Retired {},
    /// These addresses are given to anybody again.
    Unreserved {
        /// Which.
        range: Range,
    },
    /// It is not there any more.
    Vanished {
        /// What that was concluded from.
        evidence: Evidence,
    },
}

/// What addresses are reserved for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Which.
    pub range: Range,
    /// What for.
    pub note: String,
}

/// What a network of our own has besides; its project is where all networks have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Own {
    /// Its own id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The segment it is on.
    pub segment: Uuid,
    /// Who answers its servers' questions for names.
    pub dns_servers: Vec<IpAddr>,
    /// The DNS domain of its servers; none when empty.
    pub domain: String,
    /// Whether addresses are told by DHCP and router advertisements.
    pub dhcp: bool,
    /// How long an address that was told is good for, in seconds.
    #[serde(default = "lease_s")]
    pub lease_s: u32,
    /// What reserved addresses are for, where somebody said.
    pub notes: Vec<Note>,
    /// Its addresses.
    pub addresses: Addresses,
    /// The hardware addresses of who has them.
    #[serde(default)]
    pub macs: Macs,
    /// Whether it is given up.
    pub retired: bool,
}

/// IP subnets, in a cloud or our own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// What is seen of one in a cloud; and whose it is.
    #[serde(flatten)]
    pub observation: Observation<SeenNetwork>,
    /// What one of our own has; none for one in a cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Own>,
}

static VERBS: &[Verb] = &[
    Verb::admin("assign", "Gives it to another project."),
    Verb::admin("change", "Changes a network of our own."),
    Verb::admin("define", "Begins a network on a segment of our own.").creating(),
    Verb::system("give", "Gives addresses to a holder."),
    Verb::system("observe", "Reports what was seen in the cloud.").creating(),
    Verb::system("release", "Takes a holder's addresses back."),
    Verb::system("replace", "Gives a holder what was given to another one for it."),
    Verb::operator("reserve", "Keeps addresses for those who ask for them by name."),
    Verb::admin("retire", "Gives up a network of our own, when no address is taken."),
    Verb::operator("unreserve", "Gives reserved addresses to anybody again."),
    Verb::system("vanish", "Reports that it is not in the cloud any more."),
];

fn no(detail: impl Into<String>) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

fn check_names(servers: &[IpAddr], domain: &str) -> Result<(), Refusal> {
    let odd = |server: &&IpAddr| server.is_unspecified() || server.is_multicast();
    if let Some(server) = servers.iter().find(odd) {
        return Err(no(format!("dns_servers: nobody answers at {server}")));
    }
    if servers.len() > DNS_SERVERS_MAX {
        return Err(no(format!("dns_servers: at most {DNS_SERVERS_MAX}")));
    }
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = |label: &str| {
        (1..=LABEL_CHARS_MAX).contains(&label.len())
            && label.bytes().all(fits)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if domain.is_empty() || (domain.len() <= DOMAIN_CHARS_MAX && domain.split('.').all(label)) {
        return Ok(());
    }
    Err(no("domain: is a DNS name in lower case, without a full stop at its end"))
}

fn lease_s() -> u32 {
    LEASE_S
}

fn check_lease(seconds: Option<u32>) -> Result<(), Refusal> {
    if seconds.is_none_or(|seconds| LEASES_S.contains(&seconds)) {
        return Ok(());
    }
    Err(no(format!("lease_s: is {} to {}", LEASES_S.start(), LEASES_S.end())))
}

fn overlap(one: &Range, other: &Range) -> bool {
    one.first <= other.last && other.first <= one.last
}

impl Definition {
    fn check(&self) -> Result<(), Refusal> {
        check_name(&self.name)?;
        check_names(&self.dns_servers, &self.domain)?;
        check_lease(self.lease_s)?;
        Addresses::new(self.v4.clone(), self.v6.clone())?;
        if self.id.is_none() {
            return Err(no("id: is the server's to fill in"));
        }
        Ok(())
    }
}

impl Own {
    fn of(definition: Definition) -> Option<Self> {
        let Definition {
            id,
            name,
            segment,
            v4,
            v6,
            dns_servers,
            domain,
            dhcp,
            lease_s,
            project: _,
        } = definition;
        Some(Self {
            id: id?,
            name,
            segment,
            dns_servers,
            domain,
            dhcp,
            lease_s: lease_s.unwrap_or(LEASE_S),
            notes: Vec::new(),
            addresses: Addresses::new(v4, v6).ok()?,
            macs: Macs::default(),
            retired: false,
        })
    }

    /// What is different, and that it may be.
    fn news(&self, mut change: Change) -> Result<Change, Refusal> {
        let Addresses { v4, v6 } = &self.addresses;
        change.name.take_if(|name| *name == self.name);
        change.v4.take_if(|subnet| v4.as_ref().map(Family::subnet) == Some(subnet));
        change.v6.take_if(|subnet| v6.as_ref().map(Family::subnet) == Some(subnet));
        change.dns_servers.take_if(|servers| *servers == self.dns_servers);
        change.domain.take_if(|domain| *domain == self.domain);
        change.dhcp.take_if(|dhcp| *dhcp == self.dhcp);
        change.lease_s.take_if(|seconds| *seconds == self.lease_s);
        check_lease(change.lease_s)?;
        if let Some(name) = &change.name {
            check_name(name)?;
        }
        let servers = change.dns_servers.as_ref().unwrap_or(&self.dns_servers);
        check_names(servers, change.domain.as_ref().unwrap_or(&self.domain))?;
        self.addresses.clone().with(change.v4.clone(), change.v6.clone())?;
        Ok(change)
    }

    fn change(&mut self, change: Change) {
        let Change { name, v4, v6, dns_servers, domain, dhcp, lease_s } = change;
        self.name = name.unwrap_or_else(|| std::mem::take(&mut self.name));
        self.dns_servers = dns_servers.unwrap_or_else(|| std::mem::take(&mut self.dns_servers));
        self.domain = domain.unwrap_or_else(|| std::mem::take(&mut self.domain));
        self.dhcp = dhcp.unwrap_or(self.dhcp);
        self.lease_s = lease_s.unwrap_or(self.lease_s);
        if let Ok(addresses) = self.addresses.clone().with(v4, v6) {
            self.addresses = addresses;
        }
        let Addresses { v4, v6 } = &self.addresses;
        let known = |note: &Note| {
            [v4, v6].into_iter().flatten().any(|one| one.subnet().reserved.contains(&note.range))
        };
        self.notes.retain(known);
    }

    /// Its subnets, after a change.
    fn nets(&self, change: &Change) -> Vec<IpNet> {
        let Addresses { v4, v6 } = &self.addresses;
        let net = |new: &Option<Subnet>, known: &Option<Family>| {
            new.as_ref().or_else(|| known.as_ref().map(Family::subnet)).map(|subnet| subnet.net)
        };
        [net(&change.v4, v4), net(&change.v6, v6)].into_iter().flatten().collect()
    }

    /// The subnet of a range's family, with other reserved ranges.
    fn reserving(&self, range: &Range, change: impl FnOnce(&mut Vec<Range>)) -> Option<Change> {
        let v4 = range.first.is_ipv4();
        let family = if v4 { &self.addresses.v4 } else { &self.addresses.v6 };
        let mut subnet = family.as_ref()?.subnet().clone();
        change(&mut subnet.reserved);
        let none = Change::default();
        Some(if v4 {
            Change { v4: Some(subnet), ..none }
        } else {
            Change { v6: Some(subnet), ..none }
        })
    }

    /// What is reserved in a range's family.
    fn reserved(&self, range: &Range) -> Result<&[Range], Refusal> {
        let v4 = range.first.is_ipv4();
        let family = if v4 { &self.addresses.v4 } else { &self.addresses.v6 };
        let family = family.as_ref().filter(|_| range.last.is_ipv4() == v4);
        let found = family.map(|family| family.subnet().reserved.as_slice());
        found.ok_or_else(|| no("range: lies in no subnet of the network"))
    }

    fn reserve(&self, range: Range, note: String) -> Result<Vec<Event>, Refusal> {
        if note.chars().count() > NOTE_CHARS_MAX || note.chars().any(char::is_control) {
            return Err(no(format!("note: has at most {NOTE_CHARS_MAX} characters, on one line")));
        }
        let known = self.reserved(&range)?;
        let same = |one: &Note| one.range == range && one.note == note;
        if known.contains(&range) {
            if note.is_empty() || self.notes.iter().any(same) {
                return Ok(vec![]);
            }
            return Ok(vec![Event::Reserved { range, note }]);
        }
        if let Some(other) = known.iter().find(|other| overlap(&range, other)) {
            let detail = format!("range: {} to {} is reserved already", other.first, other.last);
            return Err(no(detail));
        }
        if let Some(change) = self.reserving(&range, |reserved| reserved.push(range)) {
            self.addresses.clone().with(change.v4, change.v6)?;
        }
        Ok(vec![Event::Reserved { range, note }])
    }

    fn unreserve(&self, range: Range) -> Result<Vec<Event>, Refusal> {
        let known = self.reserved(&range)?;
        if known.contains(&range) {
            return Ok(vec![Event::Unreserved { range }]);
        }
        match known.iter().find(|other| overlap(&range, other)) {
            None => Ok(vec![]),
            Some(other) => {
                let detail = format!("range: {} to {} is one, as a whole", other.first, other.last);
                Err(no(detail))
            }
        }
    }

    /// The addresses of a holder, IPv4 first.
    pub fn held(&self, holder: Uuid) -> Vec<IpAddr> {
        let Addresses { v4, v6 } = &self.addresses;
        let taken = [v4, v6].into_iter().flatten().flat_map(Family::taken);
        taken.filter(|(_, other)| *other == holder).map(|(address, _)| address).collect()
    }

    /// What of a wish is still to be given to who has these addresses.
    fn missing(want: Option<Want>, held: Option<IpAddr>) -> Result<Option<Want>, Refusal> {
        match (want, held) {
            (Some(Want::Named { address, .. }), Some(held)) if address != held => {
                Err(no(format!("holder: it has {held}; release it first")))
            }
            (_, Some(_)) => Ok(None),
            (want, None) => Ok(want),
        }
    }

    fn give(
        &self,
        holder: Uuid,
        (v4, v6): (Option<Want>, Option<Want>),
        mac: Option<Mac>,
        chance: Uuid,
        now: DateTime<Utc>,
    ) -> Result<Vec<Event>, Refusal> {
        if v4.is_none() && v6.is_none() {
            return Err(no("v4: ask for an IPv4 address, an IPv6 address, or both"));
        }
        let wrong = |want: Option<Want>, v4: bool| match want {
            Some(Want::Named { address, .. }) => address.is_ipv4() != v4,
            _ => false,
        };
        if wrong(v4, true) || wrong(v6, false) {
            return Err(no("v4: an address was asked for in the place of the other family"));
        }
        let held = self.held(holder);
        let of = |v4: bool| held.iter().copied().find(|address| address.is_ipv4() == v4);
        let (v4, v6) = (Self::missing(v4, of(true))?, Self::missing(v6, of(false))?);
        let other = mac.and_then(|mac| self.macs.holder(mac)).filter(|other| *other != holder);
        if let (Some(mac), Some(other)) = (mac, other) {
            return Err(Refusal::new(&codes::ADDRESS_TAKEN, format!("{mac}: it is {other}'s")));
        }
        let addresses = self.addresses.choose(v4, v6, now, chance.as_u128())?;
        let none = addresses.is_empty();
        Ok(if none { vec![] } else { vec![Event::Given { holder, addresses, mac }] })
    }

    fn release(
        &self,
        holder: Uuid,
        named: &[IpAddr],
        at: DateTime<Utc>,
    ) -> Result<Vec<Event>, Refusal> {
        let mut addresses = self.held(holder);
        let Addresses { v4, v6 } = &self.addresses;
        for of in named {
            let family = if of.is_ipv4() { v4 } else { v6 };
            let other = family.as_ref().and_then(|family| family.holder(*of));
            if let Some(other) = other.filter(|other| *other != holder) {
                let detail = format!("{of}: it is {other}'s");
                return Err(Refusal::new(&codes::ADDRESS_TAKEN, detail));
            }
        }
        addresses.retain(|address| named.is_empty() || named.contains(address));
        let none = addresses.is_empty();
        Ok(if none { vec![] } else { vec![Event::Released { holder, addresses, at }] })
    }

    /// Once: afterwards nobody has anything to replace them by.
    fn replace(&self, holder: Uuid, by: Uuid, at: DateTime<Utc>) -> Vec<Event> {
        let addresses = self.held(by);
        if addresses.is_empty() || holder == by {
            return vec![];
        }
        let mut released = self.held(holder);
        released.retain(|old| addresses.iter().any(|new| new.is_ipv4() == old.is_ipv4()));
        vec![Event::Replaced { holder, by, addresses, released, at }]
    }

    fn ensure_unused(&self) -> Result<(), Refusal> {
        let Addresses { v4, v6 } = &self.addresses;
        let mut taken = [v4, v6].into_iter().flatten().flat_map(Family::taken);
        let Some((address, holder)) = taken.next() else { return Ok(()) };
        let count = 1 + taken.count();
        let detail = format!("{count} addresses are taken, for instance {address} by {holder}");
        Err(Refusal::new(&codes::IN_USE, detail))
    }
}

impl Network {
    /// One of our own that is not given up.
    fn ours(&self, verb: &str) -> Result<&Own, Refusal> {
        match &self.own {
            Some(own) if !own.retired => Ok(own),
            Some(_) => Err(Refusal::wrong_state(verb, self.status())),
            None if self.observation.seen.is_none() => {
                Err(Refusal::new(&codes::NOT_FOUND, "there is no such network"))
            }
            None => {
                let detail = format!("{verb}: only a network of our own");
                Err(Refusal::new(&codes::UNSUPPORTED, detail))
            }
        }
    }

    fn exists(&self) -> bool {
        self.own.is_some() || self.observation.seen.is_some()
    }

    /// Who is known by a hardware address on it.
    pub fn mac_holder(&self, mac: Mac) -> Option<Uuid> {
        self.own.as_ref().and_then(|own| own.macs.holder(mac))
    }
}

impl Decider for Network {
    const KIND: &'static str = SeenNetwork::KIND;
    const PLURAL: &'static str = SeenNetwork::PLURAL;
    const SUMMARY: &'static str = SeenNetwork::SUMMARY;
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, stamp: &Stamp) -> Result<Vec<Event>, Refusal> {
        Ok(match command {
            Command::Assign { .. } if !self.exists() => {
                return Err(Refusal::wrong_state("assign", self.status()));
            }
            Command::Assign { project } if project == self.observation.project => vec![],
            Command::Assign { project } => vec![Event::Assigned { project }],
            Command::Change(change) => {
                let news = self.ours("change")?.news(change)?;
                if news == Change::default() { vec![] } else { vec![Event::Changed(news)] }
            }
            Command::Define(_) if self.exists() => {
                return Err(Refusal::new(&codes::ALREADY_EXISTS, "the network exists"));
            }
            Command::Define(definition) => {
                definition.check()?;
                vec![Event::Defined(definition)]
            }
            Command::Give { holder, v4, v6, mac, chance } => {
                let chance = chance.unwrap_or_default();
                self.ours("give")?.give(holder, (v4, v6), mac, chance, stamp.now)?
            }
            Command::Observe { .. } if self.own.is_some() => {
                return Err(Refusal::wrong_state("observe", self.status()));
            }
            Command::Observe { origin, project, seen, actor } => {
                match self.observation.notice(&origin, &seen)? {
                    Noticed::Same => vec![],
                    Noticed::New => vec![Event::Discovered { origin, project, seen }],
                    Noticed::Different(fields) => vec![Event::Observed { seen, fields, actor }],
                    Noticed::Back => vec![Event::Reappeared { seen }],
                }
            }
            Command::Release { holder, addresses } => {
                self.ours("release")?.release(holder, &addresses, stamp.now)?
            }
            Command::Replace { holder, by } => self.ours("replace")?.replace(holder, by, stamp.now),
            Command::Reserve { range, note } => self.ours("reserve")?.reserve(range, note)?,
            Command::Retire {} if self.own.as_ref().is_some_and(|own| own.retired) => vec![],
            Command::Retire {} => {
                self.ours("retire")?.ensure_unused()?;
                vec![Event::Retired {}]
            }
            Command::Unreserve { range } => self.ours("unreserve")?.unreserve(range)?,
            Command::Vanish { evidence } if self.observation.is_there() => {
                vec![Event::Vanished { evidence }]
            }
            Command::Vanish { .. } => vec![],
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match (event, &mut self.own) {
            (Event::Assigned { project }, _) => self.observation.project = project,
            (Event::Defined(definition), own) => {
                self.observation.project = definition.project;
                *own = Own::of(definition);
            }
            (Event::Discovered { origin, project, seen }, _) => {
                let (origin, seen) = (Some(origin), Some(seen));
                self.observation = Observation { origin, project, seen, gone: None };
            }
            (Event::Observed { seen, .. }, _) => self.observation.seen = Some(seen),
            (Event::Reappeared { seen }, _) => {
                self.observation.seen = Some(seen);
                self.observation.gone = None;
            }
            (Event::Vanished { evidence }, _) => self.observation.gone = Some(evidence),
            (Event::Changed(change), Some(own)) => own.change(change),
            (Event::Given { holder, addresses, mac }, Some(own)) => {
                if let Some(mac) = mac {
                    let _ = own.macs.take(mac, holder);
                }
                for of in addresses {
                    // It was free when this was decided; a fact is not refused.
                    let _ = own.addresses.family(of).and_then(|family| family.take(of, holder));
                }
            }
            (Event::Released { holder, addresses, at }, Some(own)) => {
                for of in addresses {
                    let _ = own.addresses.family(of).and_then(|family| family.release(of, at));
                }
                if own.held(holder).is_empty() {
                    own.macs.release_all(holder);
                }
            }
            (Event::Replaced { holder, by, addresses, released, at }, Some(own)) => {
                for of in released {
                    let _ = own.addresses.family(of).and_then(|family| family.release(of, at));
                }
                for of in addresses {
                    if let Ok(family) = own.addresses.family(of) {
                        family.pass(of, holder);
                    }
                }
                own.macs.release_all(by);
            }
            (Event::Reserved { range, note }, Some(own)) => {
                let once = |reserved: &mut Vec<Range>| {
                    reserved.retain(|one| *one != range);
                    reserved.push(range);
                };
                if let Some(change) = own.reserving(&range, once) {
                    own.change(change);
                }
                own.notes.retain(|one| one.range != range);
                if !note.is_empty() {
                    own.notes.push(Note { range, note });
                }
            }
            (Event::Unreserved { range }, Some(own)) => {
                let less = |reserved: &mut Vec<Range>| reserved.retain(|one| *one != range);
                if let Some(change) = own.reserving(&range, less) {
                    own.change(change);
                }
            }
            (Event::Retired {}, Some(own)) => own.retired = true,
            (
                Event::Changed(_)
                | Event::Given { .. }
                | Event::Released { .. }
                | Event::Replaced { .. }
                | Event::Reserved { .. }
                | Event::Unreserved { .. }
                | Event::Retired {},
                None,
            ) => {}
        }
        self
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        match &self.own {
            None => self.observation.status(),
            Some(own) if own.retired => "retired",
            Some(_) => "available",
        }
    }

    fn facets(&self) -> Facets {
        let mut facets = self.observation.facets();
        if let Some(own) = &self.own {
            facets.name = Some(own.name.clone());
            facets.parent = Some(own.segment.to_string());
            facets.gone = own.retired;
        }
        facets
    }

    fn claims(&self, events: &[Event]) -> Vec<String> {
        let of = |event: &Event| match event {
            Event::Discovered { origin, .. } => Some(origin.claim(Self::KIND)),
            _ => None,
        };
        events.iter().filter_map(of).collect()
    }

    /// The segment knows who uses it, with which subnets.
    fn companions(&self, events: &[Event]) -> Vec<Companion> {
        let to = |segment, verb, body| Companion { kind: Segment::KIND, id: segment, verb, body };
        let attach = |own: &Own, nets: Vec<IpNet>| {
            to(own.segment, "attach", json!({"network": own.id, "nets": nets}))
        };
        let of = |event: &Event| match (event, &self.own) {
            (Event::Defined(definition), _) => {
                let own = Own::of(definition.clone())?;
                Some(attach(&own, own.nets(&Change::default())))
            }
            (Event::Changed(change), Some(own)) => {
                let nets = own.nets(change);
                let same = nets == own.nets(&Change::default());
                (!same).then(|| attach(own, nets))
            }
            (Event::Retired {}, Some(own)) => {
                Some(to(own.segment, "detach", json!({"network": own.id})))
            }
            _ => None,
        };
        events.iter().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests;

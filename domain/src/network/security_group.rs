//! Which peers may talk to a server, on which ports: the first mapped kind.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    kernel::{Facets, Refusal, codes},
    mapping::{FieldDrift, Spec},
    observation::Origin,
};

/// Seen from the server.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Towards the server.
    Ingress,
    /// From the server.
    Egress,
}

/// What happens to a packet that matches.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It passes.
    #[default]
    Allow,
    /// It is dropped, at providers that know deny rules.
    Deny,
}

/// An IP protocol: `any`, `tcp`, `udp`, `icmp`, `icmpv6`, or its number (IANA protocol numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// All of them.
    Any,
    /// This one.
    Number(u8),
}

impl Protocol {
    /// TCP.
    pub const TCP: Self = Self::Number(6);
    /// UDP.
    pub const UDP: Self = Self::Number(17);
    /// ICMP for IPv4.
    pub const ICMP: Self = Self::Number(1);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self::Number(58);

    /// Whether its packets have ports: TCP, UDP, SCTP, UDP-Lite.
    pub fn has_ports(self) -> bool {
        matches!(self, Self::Number(6 | 17 | 132 | 136))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Number(1) => f.write_str("icmp"),
            Self::Number(6) => f.write_str("tcp"),
            Self::Number(17) => f.write_str("udp"),
            Self::Number(58) => f.write_str("icmpv6"),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl FromStr for Protocol {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "any" => Self::Any,
            "icmp" => Self::ICMP,
            "tcp" => Self::TCP,
            "udp" => Self::UDP,
            "icmpv6" => Self::ICMPV6,
            number => Self::Number(number.parse().map_err(|_| {
                format!("`{number}` is not any, tcp, udp, icmp, icmpv6 or a number 0…255")
            })?),
        })
    }
}

/// Ports from … to, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    /// The lowest.
    pub from: u16,
    /// The highest.
    pub to: u16,
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to { self.from.fmt(f) } else { write!(f, "{}-{}", self.from, self.to) }
    }
}

impl FromStr for Ports {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a port (`443`) or a range (`8000-8080`)");
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
        Ok(Self { from: port(from)?, to: port(to)? })
    }
}

macro_rules! as_text {
    ($type:ident, $pattern:literal, $example:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": $pattern, "examples": [$example]})
            }
        }
    };
}
as_text!(Protocol, "^(any|tcp|udp|icmp|icmpv6|[0-9]{1,3})$", "tcp");
as_text!(Ports, "^[0-9]{1,5}(-[0-9]{1,5})?$", "8000-8080");

/// Who is at the other end.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    /// Addresses, IPv4 or IPv6.
    Cidr(#[schemars(with = "String")] IpNet),
    /// Servers of a security group, by external id.
    Group(String),
    /// A provider's list of addresses, by external id.
    PrefixList(String),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cidr(cidr) => cidr.fmt(f),
            Self::Group(id) | Self::PrefixList(id) => f.write_str(id),
        }
    }
}

/// One rule.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which way.
    pub direction: Direction,
    /// What happens; allow when it is left out.
    #[serde(default)]
    pub action: Action,
    /// Which protocol.
    pub protocol: Protocol,
    /// Which ports; all when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Ports>,
    /// Which ICMP type; all when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// Which ICMP code of the type; all when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
    /// Who is at the other end.
    pub peer: Peer,
    /// The provider's own number, where it has one; its direction is the provider's too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

impl Rule {
    /// The rule without its description: what makes it this rule and no other.
    #[must_use]
    pub fn key(&self) -> Self {
        Self { description: String::new(), ..self.clone() }
    }

    /// The one spelling of it: no host bits in a network, and all ports as none.
    fn spelt(mut self) -> Self {
        if let Peer::Cidr(cidr) = &mut self.peer {
            *cidr = cidr.trunc();
        }
        if self.ports == Some(Ports { from: 0, to: u16::MAX }) {
            self.ports = None;
        }
        self
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        write!(f, "{direction} ")?;
        if self.action == Action::Deny {
            f.write_str("deny ")?;
        }
        write!(f, "{}", self.protocol)?;
        if let Some(ports) = self.ports {
            write!(f, " {ports}")?;
        }
        if let Some(icmp_type) = self.icmp_type {
            write!(f, " type {icmp_type}")?;
        }
        if let Some(icmp_code) = self.icmp_code {
            write!(f, " code {icmp_code}")?;
        }
        write!(f, " {}", self.peer)?;
        if let Some(priority) = self.priority {
            write!(f, " priority {priority}")?;
        }
        Ok(())
    }
}

/// A named set of rules. What no rule allows is denied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroup {
    /// Its name in the cloud, 1…255 characters.
    pub name: String,
    /// For people, at most 255 characters.
    #[serde(default)]
    pub description: String,
    /// The VPC it guards, by external id (1…512 characters), where the provider binds it to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpc: Option<String>,
    /// Its rules, at most [`SecurityGroup::RULES_MAX`].
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// The provider's tags, without Skyledger's own (`skyledger:…`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

impl SecurityGroup {
    /// Most rules of one group: no provider we know takes more than 1,000 (AWS at its highest
    /// quota).
    pub const RULES_MAX: usize = 1_000;

    fn keys(&self) -> BTreeSet<Rule> {
        self.rules.iter().map(Rule::key).collect()
    }
}

fn invalid(field: &str, why: &str) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, format!("{field}: {why}"))
}

fn check_rule(rule: &Rule) -> Result<(), Refusal> {
    let no = |why: &str| Err(Refusal::new(&codes::RULE_INVALID, format!("{rule}: {why}")));
    if let Some(ports) = rule.ports {
        if !rule.protocol.has_ports() {
            return no("this protocol has no ports");
        }
        if ports.from > ports.to {
            return no("the port range is upside down");
        }
    }
    let icmp = matches!(rule.protocol, Protocol::ICMP | Protocol::ICMPV6);
    if rule.icmp_type.is_some() && !icmp {
        return no("only icmp and icmpv6 have types");
    }
    if rule.icmp_code.is_some() && rule.icmp_type.is_none() {
        return no("an icmp code needs its type");
    }
    match &rule.peer {
        Peer::Cidr(IpNet::V6(_)) if rule.protocol == Protocol::ICMP => {
            no("icmp is for IPv4; use icmpv6")
        }
        Peer::Cidr(IpNet::V4(_)) if rule.protocol == Protocol::ICMPV6 => {
            no("icmpv6 is for IPv6; use icmp")
        }
        Peer::Group(id) | Peer::PrefixList(id) if id.is_empty() => no("the peer has no id"),
        Peer::Group(id) | Peer::PrefixList(id) if !Origin::is_external_id(id) => {
            // Without the rule's own words: they are as long as the id.
            let detail = "a peer's id has at most 512 characters, none of them a control character";
            Err(Refusal::new(&codes::RULE_INVALID, detail))
        }
        _ => Ok(()),
    }
}

impl Spec for SecurityGroup {
    const KIND: &'static str = "security-group";
    const PLURAL: &'static str = "security-groups";
    const SUMMARY: &'static str = "Which peers may talk to servers, on which ports.";

    fn facets(&self, facets: &mut Facets) {
        facets.name = Some(self.name.clone());
        facets.parent.clone_from(&self.vpc);
        facets.tags.clone_from(&self.tags);
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.name.is_empty() || self.name.chars().count() > 255 {
            return Err(invalid("name", "needs 1 to 255 characters"));
        }
        if self.description.chars().count() > 255 {
            return Err(invalid("description", "has at most 255 characters"));
        }
        if self.vpc.as_deref().is_some_and(|vpc| !Origin::is_external_id(vpc)) {
            return Err(invalid(
                "vpc",
                "needs 1 to 512 characters, none of them a control character",
            ));
        }
        if self.rules.len() > Self::RULES_MAX {
            return Err(invalid("rules", "are at most 1,000"));
        }
        if self.tags.keys().any(|name| name.starts_with("skyledger:")) {
            return Err(invalid("tags", "names that begin with `skyledger:` are Skyledger's own"));
        }
        self.rules.iter().try_for_each(check_rule)
    }

    fn check_ambiguity(&self) -> Result<(), Refusal> {
        let mut told: BTreeMap<Rule, &str> = BTreeMap::new();
        for rule in &self.rules {
            let key = rule.key().spelt();
            match told.get(&key) {
                Some(other) if *other != rule.description => {
                    let detail =
                        format!("{key}: is there as `{other}` and as `{}`", rule.description);
                    return Err(Refusal::new(&codes::RULE_AMBIGUOUS, detail));
                }
                _ => drop(told.insert(key, &rule.description)),
            }
        }
        Ok(())
    }

    fn normalise(mut self) -> Self {
        self.rules = self.rules.into_iter().map(Rule::spelt).collect();
        self.rules.sort();
        self.rules.dedup_by(|b, a| a.key() == b.key());
        self
    }

    fn check_change(&self, to: &Self) -> Result<(), Refusal> {
        if self.vpc != to.vpc {
            return Err(invalid("vpc", "a security group stays in its VPC"));
        }
        Ok(())
    }

    fn drift(wanted: &Self, seen: &Self) -> Vec<FieldDrift> {
        let bare = |group: &Self| {
            let bare = Self { rules: Vec::new(), ..group.clone() };
            serde_json::to_value(bare).unwrap_or_default()
        };
        let mut drift = crate::kernel::fields(&bare(wanted), &bare(seen));
        let by_key = |group: &Self| -> BTreeMap<Rule, Rule> {
            group.rules.iter().map(|rule| (rule.key(), rule.clone())).collect()
        };
        let (ours, theirs) = (by_key(wanted), by_key(seen));
        for key in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
            let (wanted, seen) = (ours.get(key), theirs.get(key));
            if wanted != seen {
                let json = |rule: Option<&Rule>| serde_json::to_value(rule).unwrap_or_default();
                drift.push(FieldDrift {
                    field: format!("rules.{key}"),
                    wanted: json(wanted),
                    seen: json(seen),
                });
            }
        }
        drift
    }

    fn keep_foreign(wanted: &Self, base: &Self, seen: &Self) -> Self {
        let ours: BTreeSet<Rule> = wanted.keys().union(&base.keys()).cloned().collect();
        let foreign = seen.rules.iter().filter(|rule| !ours.contains(&rule.key()));
        let mut to = wanted.clone();
        to.rules.extend(foreign.cloned());
        for (name, value) in &seen.tags {
            if !wanted.tags.contains_key(name) && !base.tags.contains_key(name) {
                to.tags.insert(name.clone(), value.clone());
            }
        }
        to
    }

    fn agreed(wanted: &Self, seen: &Self) -> Self {
        let theirs = seen.keys();
        let mut agreed = wanted.clone();
        agreed.rules.retain(|rule| theirs.contains(&rule.key()));
        agreed.tags.retain(|name, _| seen.tags.contains_key(name));
        agreed
    }

    fn grown(base: &Self, more: &Self) -> Self {
        let ours = base.keys();
        let mut grown = base.clone();
        grown.rules.extend(more.rules.iter().filter(|rule| !ours.contains(&rule.key())).cloned());
        for (name, value) in &more.tags {
            grown.tags.entry(name.clone()).or_insert_with(|| value.clone());
        }
        grown.normalise()
    }

    fn check_own(&self) -> Result<(), Refusal> {
        if self.vpc.is_some() {
            return Err(invalid(
                "vpc",
                "a group for hosts of our own is in none; or name an account",
            ));
        }
        let named = |rule: &&Rule| !matches!(rule.peer, Peer::Cidr(_));
        if let Some(rule) = self.rules.iter().find(named) {
            let detail = format!("{rule}: hosts of our own know peers by their addresses (cidr)");
            return Err(Refusal::new(&codes::RULE_INVALID, detail));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

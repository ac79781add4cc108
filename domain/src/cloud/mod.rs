//! Where things lie: regions, zones, VPCs. Only seen.

use std::collections::BTreeMap;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{kernel::Facets, observation::Resource};

/// A provider's region, as one account sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// What the provider calls it.
    pub name: String,
}

impl Resource for Region {
    const KIND: &'static str = "region";
    const PLURAL: &'static str = "regions";
    const SUMMARY: &'static str = "A region of a provider, as one account sees it.";
    fn facets(&self, facets: &mut Facets) {
        facets.name = Some(self.name.clone());
    }
}

/// A zone of a region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// What the provider calls it.
    pub name: String,
    /// Whether servers can be launched in it.
    pub available: bool,
}

impl Resource for Zone {
    const KIND: &'static str = "zone";
    const PLURAL: &'static str = "zones";
    const SUMMARY: &'static str = "A zone of a region.";
    fn status(&self) -> &'static str {
        if self.available { "available" } else { "impaired" }
    }
    fn facets(&self, facets: &mut Facets) {
        facets.name = Some(self.name.clone());
        facets.zone = Some(self.name.clone());
    }
}

/// A virtual private cloud: an address space of one account in one region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Vpc {
    /// Its name tag; empty when it has none.
    #[serde(default)]
    pub name: String,
    /// Its address blocks, IPv4 and IPv6, sorted.
    #[schemars(with = "Vec<String>")]
    pub cidrs: Vec<IpNet>,
    /// Whether the provider made it with the account.
    #[serde(default)]
    pub default: bool,
    /// The provider's tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

impl Resource for Vpc {
    const KIND: &'static str = "vpc";
    const PLURAL: &'static str = "vpcs";
    const SUMMARY: &'static str = "A virtual private cloud: an address space of an account.";
    fn facets(&self, facets: &mut Facets) {
        facets.name = Some(self.name.clone());
        facets.tags.clone_from(&self.tags);
    }
}

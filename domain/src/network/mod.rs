//! Networks, their addresses and what guards them.

pub mod addresses;
pub mod bandwidth;
pub mod carrier;
pub mod mac;
pub mod net;
pub mod quota;
pub mod security_group;
pub mod segment;

use std::collections::BTreeMap;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{kernel::Facets, observation::Resource};

/// What is seen of a network in a cloud.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeenNetwork {
    /// Its name tag; empty when it has none.
    #[serde(default)]
    pub name: String,
    /// The VPC it is cut from, by external id.
    pub vpc: String,
    /// The zone it lies in, where the provider binds it to one.
    #[serde(default)]
    pub zone: Option<String>,
    /// Its address blocks, IPv4 and IPv6, sorted.
    #[schemars(with = "Vec<String>")]
    pub cidrs: Vec<IpNet>,
    /// The provider's tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

impl Resource for SeenNetwork {
    const KIND: &'static str = "network";
    const PLURAL: &'static str = "networks";
    const SUMMARY: &'static str = "IP subnets, in a cloud or our own.";
    fn facets(&self, facets: &mut Facets) {
        facets.name = Some(self.name.clone());
        facets.zone.clone_from(&self.zone);
        facets.parent = Some(self.vpc.clone());
        facets.tags.clone_from(&self.tags);
    }
}

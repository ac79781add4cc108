//! Listings, page by page, and direct gets by id.

use commands::ports::{DriverFault, Listing, Sighting};
use serde::de::DeserializeOwned;

use super::{
    query::{Form, Session},
    sightings::{Seen, sighting},
    wire,
};

/// How a kind is asked for.
struct Ask {
    action: &'static str,
    /// The field that names one.
    id: &'static str,
    /// AWS's code when that one is not there; none where an empty list says it.
    missing: Option<&'static str>,
    /// Whether it comes in pages.
    paged: bool,
}

const DISK: Ask = Ask {
    action: "DescribeVolumes",
    id: "VolumeId.1",
    missing: Some("InvalidVolume.NotFound"),
    paged: true,
};
const NETWORK: Ask = Ask {
    action: "DescribeSubnets",
    id: "SubnetId.1",
    missing: Some("InvalidSubnetID.NotFound"),
    paged: true,
};
// Asking for a region or zone by name is a validation error when it is not there, so both are
// looked up in their whole list, which is one page.
const REGION: Ask = Ask { action: "DescribeRegions", id: "", missing: None, paged: false };
const SECURITY_GROUP: Ask = Ask {
    action: "DescribeSecurityGroups",
    id: "GroupId.1",
    missing: Some("InvalidGroup.NotFound"),
    paged: true,
};
const SERVER: Ask = Ask {
    action: "DescribeInstances",
    id: "InstanceId.1",
    missing: Some("InvalidInstanceID.NotFound"),
    paged: true,
};
const VPC: Ask = Ask {
    action: "DescribeVpcs",
    id: "VpcId.1",
    missing: Some("InvalidVpcID.NotFound"),
    paged: true,
};
const ZONE: Ask = Ask { action: "DescribeAvailabilityZones", id: "", missing: None, paged: false };

/// What is looked at: everything of a kind from a page on, or one thing by its id.
pub(super) enum Look<'a> {
    Page(Option<&'a str>),
    One(&'a str),
}

/// What to look at, and where.
pub(super) struct Asked<'a> {
    pub(super) session: &'a Session<'a>,
    /// None for a kind that lies in no region.
    pub(super) region: Option<&'a str>,
    pub(super) page_size: usize,
    pub(super) look: Look<'a>,
}

impl Asked<'_> {
    /// Looks.
    pub(super) async fn kind(&self, kind: &str) -> Result<Listing, DriverFault> {
        match kind {
            "disk" => self.ask::<wire::Volumes>(&DISK).await,
            "network" => self.ask::<wire::Subnets>(&NETWORK).await,
            "region" => self.ask::<wire::Regions>(&REGION).await,
            "security-group" => self.ask::<wire::Groups>(&SECURITY_GROUP).await,
            "server" => self.ask::<Servers>(&SERVER).await,
            "vpc" => self.ask::<wire::Vpcs>(&VPC).await,
            "zone" => self.ask::<wire::Zones>(&ZONE).await,
            _ => Err(DriverFault::Rejected(format!("AWS has no kind `{kind}` here"))),
        }
    }

    async fn ask<P>(&self, ask: &Ask) -> Result<Listing, DriverFault>
    where
        P: wire::Page<Item: Seen> + DeserializeOwned,
    {
        let mut form = Form::default();
        match self.look {
            Look::Page(token) if ask.paged => {
                form.add("MaxResults", self.page_size.to_string());
                if let Some(token) = token {
                    form.add("NextToken", token);
                }
            }
            Look::One(id) if !ask.id.is_empty() => form.add(ask.id, id),
            _ => {}
        }
        let region = self.region.unwrap_or(&self.session.home);
        let page: P = match self.session.ec2(region, ask.action, form).await {
            Ok(page) => page,
            Err(call)
                if matches!(self.look, Look::One(_))
                    && ask.missing.is_some_and(|code| call.is(code)) =>
            {
                return Ok(Listing::default());
            }
            Err(call) => return Err(call.into()),
        };
        let (items, next) = page.split();
        if let Look::One(id) = self.look
            && ask.missing.is_some()
            && !items.iter().any(|item| item.external_id() == id)
        {
            // AWS says `NotFound` for what is not there. Silence is no evidence.
            return Err(DriverFault::Unexpected(format!("{}: no word about {id}", ask.action)));
        }
        let there = items.iter().filter(|item| item.is_there());
        let sightings: Result<Vec<Sighting>, DriverFault> =
            there.map(|item| sighting(item, self.region)).collect();
        Ok(Listing { sightings: sightings?, next })
    }
}

/// Instances come inside reservations, which say nothing we need.
#[derive(serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Servers(wire::Reservations);

impl wire::Page for Servers {
    type Item = wire::Instance;
    fn split(self) -> (Vec<wire::Instance>, Option<String>) {
        let (reservations, next) = self.0.split();
        (reservations.into_iter().flat_map(|one| one.instances_set.item).collect(), next)
    }
}

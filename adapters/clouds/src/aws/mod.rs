//! Amazon Web Services, by the Query protocol of EC2 and STS, and S3's own.
//!
//! The map: [`credential`] and [`endpoint`] say who calls where; [`query`] makes one signed call
//! and [`fault`] reads its refusals; [`wire`] is what AWS answers, [`sightings`] and [`rules`] turn
//! that into our shapes; [`listing`] walks pages; [`server`] and [`security_group`] carry orders
//! out, the latter by [`group_changes`]; [`limits`] refuses what AWS would refuse. [`s3`] reads
//! buckets.

mod credential;
mod endpoint;
mod fault;
mod group_changes;
mod limits;
mod listing;
mod query;
mod roles;
mod rules;
mod s3;
mod security_group;
mod server;
mod sightings;
mod wire;

use async_trait::async_trait;
use commands::ports::{
    Access, Call, DriverFault, Files, Identity, Intent, Listing, Provider, Report, Sighting,
    Support, Task,
};
use domain::network::security_group::SecurityGroup;
use serde_json::{Map, Value};

use self::{
    credential::Credential,
    endpoint::Service,
    listing::{Asked, Look},
    query::{Form, Session},
    roles::Roles,
    sightings::Seen,
    wire::{CallerAnswer, Page, Regions},
};
use crate::http_client::HttpClient;

/// What AWS has of each kind, sorted by kind.
pub static TABLE: &[Support] = &[
    Support {
        kind: "disk",
        listed: true,
        regional: true,
        orders: &[],
        limits: &["EBS volumes; instance stores are not listed."],
    },
    Support { kind: "network", listed: true, regional: true, orders: &[], limits: &[] },
    Support {
        kind: "region",
        listed: true,
        regional: false,
        orders: &[],
        limits: &["Regions that the account has not enabled are not listed."],
    },
    Support {
        kind: "security-group",
        listed: true,
        regional: true,
        orders: &["apply", "create", "delete"],
        limits: limits::SENTENCES,
    },
    Support {
        kind: "server",
        listed: true,
        regional: true,
        orders: &["reboot", "set-tags", "start", "stop"],
        limits: &[
            "A tag name that begins with aws: is AWS's own; there are at most 48 other tags.",
            "A terminated instance counts as not there, though AWS shows it for about an hour.",
            "A crash between a restart and its mark restarts the server a second time.",
            "A server that is still stopping starts once it has stopped.",
        ],
    },
    Support { kind: "vpc", listed: true, regional: true, orders: &[], limits: &[] },
    Support {
        kind: "zone",
        listed: true,
        regional: true,
        orders: &[],
        limits: &["Local and wavelength zones are listed once the account has enabled them."],
    },
];

/// Items of one page: the most that AWS gives, so that a large account takes the fewest calls.
const PAGE_SIZE: usize = 1_000;

/// The provider `aws`.
#[derive(Debug)]
pub struct Aws {
    http: HttpClient,
    roles: Roles,
    page_size: usize,
}

impl Default for Aws {
    fn default() -> Self {
        Self::new()
    }
}

impl Aws {
    /// With the largest pages.
    pub fn new() -> Self {
        Self::with(HttpClient::new(), PAGE_SIZE)
    }

    /// With another client, and pages of 5 to 1,000 items.
    pub fn with(http: HttpClient, page_size: usize) -> Self {
        Self { http, roles: Roles::default(), page_size: page_size.clamp(5, PAGE_SIZE) }
    }

    /// Reads the credential, and takes its role on where it names one.
    async fn session<'a>(&'a self, access: &'a Access) -> Result<Session<'a>, DriverFault> {
        let credential: Credential =
            serde_json::from_value(access.credential.clone()).map_err(|_| {
                // Serde's own words may hold a secret.
                DriverFault::Denied("the credential does not read as one of AWS".into())
            })?;
        let session = Session {
            http: &self.http,
            keys: (&credential).into(),
            endpoint: access.endpoint.as_deref(),
            home: credential.home_region().to_owned(),
            pace: access.pace.as_ref(),
        };
        self.roles.take_on(session, &credential, access.account).await
    }

    async fn look(
        &self,
        access: &Access,
        region: Option<&str>,
        kind: &str,
        look: Look<'_>,
    ) -> Result<Listing, DriverFault> {
        let support = TABLE.iter().find(|support| support.kind == kind);
        if support.is_some_and(|support| support.regional) && region.is_none() {
            return Err(DriverFault::Rejected(format!("a {kind} of AWS lies in a region")));
        }
        let region = region.filter(|_| support.is_some_and(|support| support.regional));
        let session = self.session(access).await?;
        Asked { session: &session, region, page_size: self.page_size, look }.kind(kind).await
    }
}

#[async_trait]
impl Provider for Aws {
    fn name(&self) -> &'static str {
        "aws"
    }

    fn table(&self) -> &'static [Support] {
        TABLE
    }

    fn check_credential(&self, credential: &Value) -> Vec<String> {
        credential::check(credential)
    }

    fn check_settings(&self, settings: &Map<String, Value>) -> Vec<String> {
        limits::check_settings(settings)
    }

    fn check_order(&self, intent: &Intent<'_>) -> Result<(), String> {
        match intent.kind {
            "security-group" => {
                let Some(wanted) = intent.wanted() else { return Ok(()) };
                let read = |value: &Value| -> Result<SecurityGroup, String> {
                    serde_json::from_value(value.clone()).map_err(|error| error.to_string())
                };
                let seen = intent.seen().map(read).transpose()?;
                let rules_max = limits::rules_max(intent.settings);
                limits::check(&read(wanted)?, seen.as_ref(), intent.external_account, rules_max)
            }
            "server" => server::check(intent),
            _ => Ok(()),
        }
    }

    fn calls(&self, task: &Task) -> Vec<Call> {
        match task.kind {
            "security-group" => group_changes::calls(task),
            "server" => server::calls(task),
            _ => Vec::new(),
        }
    }

    fn concurrency(&self) -> usize {
        8
    }

    fn files(&self) -> Option<&dyn Files> {
        Some(self)
    }

    async fn identity(&self, access: &Access) -> Result<Identity, DriverFault> {
        let session = self.session(access).await?;
        let answer: CallerAnswer =
            session.call(Service::Sts, &session.home, "GetCallerIdentity", Form::default()).await?;
        let caller = answer.get_caller_identity_result;
        Ok(Identity { external_account: caller.account, principal: caller.arn })
    }

    async fn regions(&self, access: &Access) -> Result<Vec<String>, DriverFault> {
        let session = self.session(access).await?;
        let page: Regions = session.ec2(&session.home, "DescribeRegions", Form::default()).await?;
        let (regions, _) = page.split();
        let mut names: Vec<String> =
            regions.into_iter().filter(Seen::is_there).map(|region| region.region_name).collect();
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Err(DriverFault::Unexpected("DescribeRegions: not one region".into()));
        }
        Ok(names)
    }

    async fn list(
        &self,
        access: &Access,
        region: Option<&str>,
        kind: &str,
        page: Option<&str>,
    ) -> Result<Listing, DriverFault> {
        self.look(access, region, kind, Look::Page(page)).await
    }

    async fn find(
        &self,
        access: &Access,
        region: Option<&str>,
        kind: &str,
        external_id: &str,
    ) -> Result<Option<Sighting>, DriverFault> {
        let listing = self.look(access, region, kind, Look::One(external_id)).await?;
        Ok(listing.sightings.into_iter().find(|one| one.external_id == external_id))
    }

    async fn carry_out(&self, access: &Access, task: &Task) -> Result<Report, DriverFault> {
        let Some(region) = task.origin.region.as_deref() else {
            return Err(DriverFault::Rejected(format!("a {} of AWS lies in a region", task.kind)));
        };
        let session = self.session(access).await?;
        match task.kind {
            "security-group" => {
                let account = access.identity.as_deref();
                security_group::carry_out(&session, region, task, account).await
            }
            "server" => server::carry_out(&session, region, task).await,
            kind => Err(DriverFault::Rejected(format!("AWS carries out no orders of a {kind}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_by_kind_and_its_orders_by_name() {
        assert!(TABLE.is_sorted_by_key(|support| support.kind));
        assert!(TABLE.iter().all(|support| support.orders.is_sorted()));
    }
}

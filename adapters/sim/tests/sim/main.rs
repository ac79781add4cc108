//! The sim cloud from its caller's side: what every driver promises, and what this cloud can do to
//! one.
#![expect(clippy::unwrap_used, reason = "all of this is tests")]

mod console;
mod contract;
mod faults;
mod file;
mod listing;
mod packets;

use std::sync::Arc;

use adapters_sim::{Population, SimCloud};
use commands::{
    ports::{Access, DriverFault, Listing, Provider, Report, Task, Unpaced},
    testing::TestClock,
};
use domain::{
    kernel::{OrderKey, StreamId},
    mapping::{Order, Spec},
    network::security_group::{Rule, SecurityGroup},
    observation::Origin,
};
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) const REGION: &str = "sim-north-1";
pub(crate) const ACCOUNT: &str = "acc-1";
const STREAM: Uuid = Uuid::from_u128(0x7000_8000_0000_0000_0001);

/// A small cloud with one account.
pub(crate) struct Bench {
    pub(crate) cloud: SimCloud,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) access: Access,
}

pub(crate) fn access(account: &str, secret: &str) -> Access {
    Access {
        account: Uuid::from_u128(1),
        endpoint: None,
        credential: json!({"account": account, "secret": secret}),
        identity: None,
        pace: Arc::new(Unpaced),
    }
}

impl Bench {
    pub(crate) fn new(resources: u64) -> Self {
        let clock = Arc::new(TestClock::default());
        let cloud = SimCloud::new(Arc::clone(&clock) as Arc<_>);
        cloud.populate(ACCOUNT, "s3cret", Population { seed: 7, regions: 3, resources }).unwrap();
        Self { cloud, clock, access: access(ACCOUNT, "s3cret") }
    }

    /// Every page of a kind in the first region.
    pub(crate) async fn all(&self, kind: &str) -> Result<Vec<Listing>, DriverFault> {
        let mut pages: Vec<Listing> = Vec::new();
        loop {
            let token = pages.last().and_then(|page| page.next.clone());
            if token.is_none() && !pages.is_empty() {
                return Ok(pages);
            }
            let page = self.cloud.list(&self.access, Some(REGION), kind, token.as_deref()).await?;
            pages.push(page);
        }
    }

    pub(crate) fn first(&self, kind: &str) -> String {
        self.cloud.console(ACCOUNT, "test").ids(REGION, kind).unwrap().remove(0)
    }

    pub(crate) async fn carry_out(&self, task: &Task) -> Result<Report, DriverFault> {
        self.cloud.carry_out(&self.access, task).await
    }

    /// As the runner would: again, until it is done.
    pub(crate) async fn insist(&self, task: &Task) -> Report {
        for _ in 0..20 {
            if let Ok(report) = self.carry_out(task).await {
                return report;
            }
        }
        panic!("{task:?} is never done")
    }

    /// A group that is there, of somebody else's making.
    pub(crate) fn group(&self, spec: &SecurityGroup) -> String {
        let console = self.cloud.console(ACCOUNT, "test");
        console.create(REGION, adapters_sim::Body::SecurityGroup(spec.clone())).unwrap()
    }
}

pub(crate) fn task(kind: &'static str, number: u64, external_id: &str, order: Value) -> Task {
    Task {
        kind,
        key: OrderKey { stream: StreamId::new(kind, STREAM), number },
        order,
        origin: Origin {
            provider: "sim".into(),
            account: Uuid::from_u128(1),
            region: Some(REGION.into()),
            external_id: external_id.to_owned(),
        },
    }
}

pub(crate) fn group_task(number: u64, id: &str, order: &Order<SecurityGroup>) -> Task {
    task("security-group", number, id, serde_json::to_value(order).unwrap())
}

pub(crate) fn rule(text: &Value) -> Rule {
    let mut whole =
        json!({"direction": "ingress", "protocol": "tcp", "peer": {"cidr": "10.0.0.0/8"}});
    whole.as_object_mut().unwrap().extend(text.as_object().unwrap().clone());
    serde_json::from_value(whole).unwrap()
}

pub(crate) fn spec(name: &str, rules: &[Value]) -> SecurityGroup {
    SecurityGroup {
        name: name.into(),
        description: String::new(),
        vpc: None,
        rules: rules.iter().map(rule).collect(),
        tags: [("team".to_owned(), "shop".to_owned())].into(),
    }
    .normalise()
}

pub(crate) fn seen(report: &Report) -> SecurityGroup {
    serde_json::from_value(report.body["seen"].clone()).unwrap()
}

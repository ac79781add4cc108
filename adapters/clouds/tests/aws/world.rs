//! A corner of the stand-in for one test: a region of its own, and a hand that changes things there
//! behind the provider's back.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use adapters_clouds::{aws::Aws, testing::Hand};
use commands::ports::{Access, DriverFault, Intent, Listing, Provider, Sighting, Task, Unpaced};
use domain::{
    kernel::{OrderKey, StreamId},
    network::security_group::SecurityGroup,
    observation::Origin,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// The stand-in, which `./test` starts.
pub(crate) fn stand_in() -> String {
    std::env::var("SKYLEDGER_TEST_AWS").expect(
        "SKYLEDGER_TEST_AWS is the URL of a moto server; run ./test, which starts one, or \
         tests/servers/moto.sh start CACHE_DIR",
    )
}

/// A number that no other run has: the stand-in may be older than this run.
pub(crate) fn unique() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

/// Id of one resource of a test.
pub(crate) fn new_id() -> Uuid {
    Uuid::from_u128(unique())
}

/// One region of the stand-in, and a provider that looks at it.
pub(crate) struct World {
    pub(crate) aws: Aws,
    pub(crate) access: Access,
    pub(crate) region: &'static str,
    hand: Hand,
}

impl World {
    /// Seen directly.
    pub(crate) fn new(region: &'static str) -> Self {
        let url = stand_in();
        Self::through(region, &url)
    }

    /// Seen through a proxy. The hand does not go through it.
    pub(crate) fn through(region: &'static str, url: &str) -> Self {
        Self { aws: Aws::new(), access: access(url), region, hand: Hand::new(&stand_in()) }
    }

    /// Does something in the cloud behind the provider's back; the answer's XML.
    pub(crate) async fn hand(&self, action: &str, fields: &[(&str, &str)]) -> String {
        let answered = self.hand.call(("ec2", self.region), action, fields).await.unwrap();
        assert_eq!(answered.status, 200, "{action}: {answered:?}");
        answered.xml
    }

    /// A new VPC.
    pub(crate) async fn vpc(&self) -> String {
        first(&self.hand("CreateVpc", &[("CidrBlock", "10.20.0.0/16")]).await, "vpcId")
    }

    /// A new running server.
    pub(crate) async fn server(&self) -> String {
        let fields = [("ImageId", "ami-12345678"), ("MinCount", "1"), ("MaxCount", "1")];
        first(&self.hand("RunInstances", &fields).await, "instanceId")
    }

    /// All pages of a kind in this region.
    pub(crate) async fn list(&self, kind: &str) -> Result<Vec<Sighting>, DriverFault> {
        all_pages(&self.aws, &self.access, Some(self.region), kind).await.map(|(all, _)| all)
    }

    /// Direct get by id in this region.
    pub(crate) async fn find(&self, kind: &str, id: &str) -> Result<Option<Sighting>, DriverFault> {
        self.aws.find(&self.access, Some(self.region), kind, id).await
    }

    /// Carries out an order; the body of the report.
    pub(crate) async fn carry_out(&self, task: &Task) -> Result<Value, DriverFault> {
        let report = self.aws.carry_out(&self.access, task).await?;
        assert_eq!(report.body["number"], json!(task.key.number));
        Ok(json!({"verb": report.verb, "body": report.body}))
    }

    /// An order of this region.
    pub(crate) fn task(
        &self,
        kind: &'static str,
        id: Uuid,
        external_id: &str,
        order: Value,
    ) -> Task {
        Task {
            kind,
            key: OrderKey { stream: StreamId::new(kind, id), number: 1 },
            order,
            origin: Origin {
                provider: "aws".into(),
                account: self.access.account,
                region: Some(self.region.into()),
                external_id: external_id.into(),
            },
        }
    }

    /// What the provider says of an order before it is written.
    pub(crate) fn check(&self, kind: &str, order: &Value) -> Result<(), String> {
        let (tags, settings) = (BTreeMap::new(), Map::new());
        self.aws.check_order(&Intent {
            kind,
            order,
            external_account: ACCOUNT,
            settings: &settings,
            tags: &tags,
        })
    }

    /// The group as it is, seen past the proxy; none when it is not there.
    pub(crate) async fn group(&self, id: &str) -> Option<SecurityGroup> {
        let direct = Self::new(self.region);
        let seen = direct.find("security-group", id).await.unwrap()?;
        Some(serde_json::from_value(seen.seen).unwrap())
    }

    /// Ids of the groups with this name.
    pub(crate) async fn groups_named(&self, name: &str) -> Vec<String> {
        let direct = Self::new(self.region);
        let all = direct.list("security-group").await.unwrap();
        all.into_iter()
            .filter(|group| group.seen["name"] == name)
            .map(|group| group.external_id)
            .collect()
    }
}

/// A credential that any stand-in without checks takes.
pub(crate) fn access(url: &str) -> Access {
    access_as(url, json!({"access_key_id": "AKIASKYLEDGERTEST00", "secret_access_key": SECRET}))
}

/// The stand-in's account for a key that it does not know.
pub(crate) const ACCOUNT: &str = "123456789012";

/// Looks like a secret, and is none.
pub(crate) const SECRET: &str = "not/a/secret+of+anybody0123456789abcdefgh";

/// Access by this credential.
pub(crate) fn access_as(url: &str, credential: Value) -> Access {
    assert_eq!(Aws::new().check_credential(&credential), Vec::<String>::new());
    Access {
        account: Uuid::from_u128(7),
        endpoint: Some(url.into()),
        credential,
        identity: None,
        pace: Arc::new(Unpaced),
    }
}

/// All pages of a listing, and how many there were.
pub(crate) async fn all_pages(
    aws: &Aws,
    access: &Access,
    region: Option<&str>,
    kind: &str,
) -> Result<(Vec<Sighting>, usize), DriverFault> {
    let (mut all, mut token, mut pages) = (Vec::new(), None::<String>, 0);
    loop {
        let Listing { sightings, next } = aws.list(access, region, kind, token.as_deref()).await?;
        all.extend(sightings);
        pages += 1;
        token = next;
        if token.is_none() {
            return Ok((all, pages));
        }
    }
}

/// The text of the first element of this name.
pub(crate) fn first(xml: &str, name: &str) -> String {
    let start = xml.find(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name} in {xml}"));
    xml[start + name.len() + 2..].split('<').next().unwrap().to_owned()
}

/// One word for a fault.
pub(crate) fn word(fault: &DriverFault) -> &'static str {
    match fault {
        DriverFault::Away(_) => "away",
        DriverFault::Transient(_) => "transient",
        DriverFault::Denied(_) => "denied",
        DriverFault::NotFound(_) => "not found",
        DriverFault::Throttled { .. } => "throttled",
        DriverFault::Rejected(_) => "rejected",
        DriverFault::Unexpected(_) => "unexpected",
    }
}

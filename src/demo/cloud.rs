//! The demo's cloud, from outside: what somebody does in it by hand, and what is really there.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use adapters_clouds::testing::{Fate, Proxy};
use adapters_console::story::{Meddling, Place, Told, Untrue};
use adapters_sim::{Population, SimCloud};
use commands::ports::{Access, DriverFault, Provider, Task, Unpaced};
use domain::{
    kernel::{OrderKey, StreamId},
    network::security_group::{Rule, SecurityGroup},
    observation::Origin,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::edge::SystemClock;

/// The simulated account, its secret, and who works in it by hand.
const ACCOUNT: &str = "demo-0001";
const SECRET: &str = "not-a-secret-of-anybody";
/// For stand-ins of AWS that take anybody.
const KEY_ID: &str = "SKYLEDGERDEMO0000000";
const MEDDLER: &str = "mallory";
/// How long each call takes while the cloud is held: an order of several calls takes seconds.
const SLOW: Duration = Duration::from_millis(400);
/// How long calls are put off while the AWS endpoint is held, in seconds: then they are tried again,
/// and put off again as long as it is held.
const PUT_OFF: u64 = 2;

const GROUP: &str = "security-group";
/// What the story calls its groups.
const OURS: &[&str] = &["demo-crash", "demo-web"];

enum Kind {
    Sim {
        cloud: SimCloud,
        file: PathBuf,
        resources: u64,
    },
    /// Skyledger talks to the proxy, this demo to what is behind it.
    Aws {
        provider: Arc<dyn Provider>,
        proxy: Proxy,
        held: Arc<AtomicBool>,
        what: String,
    },
}

pub(super) struct Cloud {
    kind: Kind,
    access: Access,
    region: String,
}

fn failed(fault: DriverFault) -> Untrue {
    Untrue(format!("the cloud says: {fault}"))
}

impl Cloud {
    /// A simulated cloud on a file.
    pub(super) fn sim(file: &Path, resources: u64) -> Told<Self> {
        let cloud = SimCloud::open(file, Arc::new(SystemClock))?;
        let population = Population { seed: 7, regions: 3, resources };
        let region = population.regions().into_iter().next().unwrap_or_default();
        cloud.populate(ACCOUNT, SECRET, population)?;
        let credential = json!({"account": ACCOUNT, "secret": SECRET});
        Ok(Self {
            kind: Kind::Sim { cloud, file: file.to_owned(), resources },
            access: access(credential, None),
            region,
        })
    }

    /// An AWS endpoint, with a proxy before it that can hold calls up.
    pub(super) async fn aws(endpoint: &str) -> Told<Self> {
        let providers = adapters_clouds::providers();
        let provider = providers.into_iter().find(|one| one.name() == "aws");
        let provider = provider.ok_or_else(|| Untrue("there is no provider aws".to_owned()))?;
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let credential = json!({
            "access_key_id": variable("AWS_ACCESS_KEY_ID").unwrap_or_else(|| KEY_ID.to_owned()),
            "secret_access_key":
                variable("AWS_SECRET_ACCESS_KEY").unwrap_or_else(|| SECRET.to_owned()),
        });
        let region = variable("AWS_REGION").unwrap_or_else(|| "eu-central-1".to_owned());
        let access = access(credential, Some(endpoint.to_owned()));
        unused(provider.as_ref(), &access, &region).await?;
        let proxy = Proxy::start(endpoint).await?;
        let held = Arc::new(AtomicBool::new(false));
        let hold = Arc::clone(&held);
        proxy.script(move |call| {
            // The group is made; its rules have to wait.
            if hold.load(Ordering::SeqCst) && call.action.starts_with("AuthorizeSecurityGroup") {
                return Fate::throttle(PUT_OFF);
            }
            Fate::Forward
        });
        let what = format!("AWS, at {endpoint}");
        Ok(Self { kind: Kind::Aws { provider, proxy, held, what }, access, region })
    }

    /// The file that the server shares.
    pub(super) fn file(&self) -> Option<PathBuf> {
        match &self.kind {
            Kind::Sim { file, .. } => Some(file.clone()),
            Kind::Aws { .. } => None,
        }
    }

    pub(super) fn place(&self) -> Place {
        let (what, provider, endpoint, meddler) = match &self.kind {
            Kind::Sim { resources, .. } => (
                format!("A simulated cloud with {resources} resources in three regions"),
                "sim",
                None,
                MEDDLER,
            ),
            Kind::Aws { proxy, what, .. } => (what.clone(), "aws", Some(proxy.url()), ""),
        };
        Place {
            what,
            provider: provider.to_owned(),
            credential: self.access.credential.clone(),
            endpoint: endpoint.map(str::to_owned),
            region: self.region.clone(),
            meddler: meddler.to_owned(),
        }
    }

    pub(super) fn hold(&self, on: bool) -> Told {
        match &self.kind {
            Kind::Sim { cloud, .. } => {
                cloud.set_latency(if on { SLOW } else { Duration::ZERO })?;
            }
            Kind::Aws { held, .. } => held.store(on, Ordering::SeqCst),
        }
        Ok(())
    }

    pub(super) async fn meddle(&self, group: &str, what: Meddling) -> Told {
        let Meddling::Rules { add, remove } = what;
        let read = |rules: Vec<Value>| -> Told<Vec<Rule>> {
            rules
                .into_iter()
                .map(|rule| serde_json::from_value(rule).map_err(|error| Untrue(error.to_string())))
                .collect()
        };
        let (add, remove) = (read(add)?, read(remove)?);
        match &self.kind {
            Kind::Sim { cloud, .. } => {
                let console = cloud.console(ACCOUNT, MEDDLER);
                for rule in &add {
                    console.add_rule(&self.region, group, rule).map_err(failed)?;
                }
                for rule in &remove {
                    console.remove_rule(&self.region, group, rule).map_err(failed)?;
                }
                Ok(())
            }
            Kind::Aws { provider, .. } => {
                let region = Some(self.region.as_str());
                let found = provider.find(&self.access, region, GROUP, group).await;
                let found = found.map_err(failed)?;
                let seen = found.ok_or_else(|| Untrue(format!("{group} is not there")))?.seen;
                let from: SecurityGroup = serde_json::from_value(seen)
                    .map_err(|error| Untrue(format!("{group}: {error}")))?;
                let mut to = from.clone();
                to.rules.retain(|rule| !remove.iter().any(|gone| gone.key() == rule.key()));
                to.rules.extend(add);
                // The same calls that a person's console would make.
                let task = Task {
                    kind: GROUP,
                    key: OrderKey { stream: StreamId::new(GROUP, Uuid::now_v7()), number: 1 },
                    order: json!({"type": "apply", "data": {"from": from, "to": to}}),
                    origin: Origin {
                        provider: "aws".to_owned(),
                        account: self.access.account,
                        region: Some(self.region.clone()),
                        external_id: group.to_owned(),
                    },
                };
                provider.carry_out(&self.access, &task).await.map(drop).map_err(failed)
            }
        }
    }

    /// What the cloud really has for one of Skyledger's resources: external id, rules.
    pub(super) async fn counterparts(&self, id: &str) -> Told<Vec<(String, usize)>> {
        match &self.kind {
            Kind::Sim { cloud, .. } => {
                let console = cloud.console(ACCOUNT, MEDDLER);
                let made = console.groups_made_for(&self.region, id).map_err(failed)?;
                made.into_iter()
                    .map(|group| {
                        let rules = console.group(&self.region, &group).map_err(failed)?.rules;
                        Ok((group, rules.len()))
                    })
                    .collect()
            }
            Kind::Aws { provider, .. } => {
                let (mut found, mut page) = (Vec::new(), None);
                loop {
                    let region = Some(self.region.as_str());
                    let listing = provider.list(&self.access, region, GROUP, page.as_deref()).await;
                    let listing = listing.map_err(failed)?;
                    for sighting in listing.sightings {
                        if sighting.ours.is_some_and(|ours| ours.to_string() == id) {
                            let rules = sighting.seen["rules"].as_array();
                            // AWS gives every new group a rule that lets everything out.
                            let ingress = rules.into_iter().flatten();
                            let ingress =
                                ingress.filter(|rule| rule["direction"] == "ingress").count();
                            found.push((sighting.external_id, ingress));
                        }
                    }
                    match listing.next {
                        Some(next) => page = Some(next),
                        None => return Ok(found),
                    }
                }
            }
        }
    }
}

/// Whether the story can make its groups: two of one name in one VPC are not possible.
async fn unused(provider: &dyn Provider, access: &Access, region: &str) -> Told {
    let mut page = None;
    loop {
        let listing = provider.list(access, Some(region), GROUP, page.as_deref()).await;
        let listing = listing.map_err(failed)?;
        for sighting in listing.sightings {
            let name = sighting.seen["name"].as_str().unwrap_or_default();
            if OURS.contains(&name) {
                let id = sighting.external_id;
                let text = format!(
                    "{region} has the security group {name} ({id}) already, of an earlier demo it \
                     seems; delete it there, or name another region in AWS_REGION"
                );
                return Err(Untrue(text));
            }
        }
        match listing.next {
            Some(next) => page = Some(next),
            None => return Ok(()),
        }
    }
}

fn access(credential: Value, endpoint: Option<String>) -> Access {
    let pace = Arc::new(Unpaced);
    Access { account: Uuid::nil(), endpoint, credential, identity: None, pace }
}

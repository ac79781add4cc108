//! One event of every type of every kind, made of real types.

mod compute;
mod finops;
mod network;
mod tenancy;

use std::{collections::BTreeMap, sync::LazyLock};

use chrono::{DateTime, Utc};
use domain::{
    cloud::{Region, Vpc, Zone},
    compute::{flavour, image, key_pair, shape},
    finops::{cluster, driver, exchange_rate, repricing, rule_set, tagging},
    kernel::{Decider, Reach, Role},
    mapping::FieldDrift,
    observation::{self, Evidence, Origin, Resource},
    tenancy::{domain as part, project, token},
};
use serde_json::{Value, json};
use uuid::Uuid;

use compute::{backup, disk, host, moved_in, plan, server, set, snapshot, store};
use finops::{anomaly, anomaly_rule, bill, bill_source, budget, commitment, issuer, rates, report};
use network::{layer2_segment, mapped, network};
use tenancy::{account, organisation};

pub(crate) use compute::{
    PUBLIC_KEYS, adoption, backup_creation, backup_place, blueprint, creation, disc, flavour_spec,
    foreign_machine, found_backup, found_set, holding, image_of, image_of_disk, image_stored,
    launch, launch_moved, launch_shared, machine, made, move_beginning, move_landing, place_on,
    placement, plan_results, plan_terms, rescue_system, restored_from, seen_disk, seen_of_host,
    server_image, snapshot_place, utilisation,
};
pub(crate) use finops::{
    allowance, cost_rules, equipment, exchange_rate, finding, invoice, new_rate, place, question,
    repricing, run, segment, servers, settings, standing, stated_commitment, taken, terms, watch,
};
pub(crate) use network::{
    bandwidth, found_addresses, group, group_rules, nic, own_network, quota, seen_network, subnet,
};

/// An event as its tag and content.
pub(crate) type Sample = (String, Value);

pub(crate) fn time() -> DateTime<Utc> {
    "2026-01-02T03:04:05.678901Z".parse().unwrap()
}

/// What a digest looks like.
pub(crate) fn digest(number: u128) -> String {
    format!("{number:064x}")
}

pub(crate) fn id(number: u128) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + number)
}

pub(crate) fn origin(external_id: &str) -> Origin {
    Origin {
        provider: "sim".into(),
        account: id(1),
        region: Some("sim-north-1".into()),
        external_id: external_id.into(),
    }
}

fn tags() -> BTreeMap<String, String> {
    [("team".to_owned(), "shop".to_owned())].into()
}

fn drift() -> Vec<FieldDrift> {
    let field = "rules.ingress tcp 443 10.0.0.0/8 priority 10".to_owned();
    vec![FieldDrift { field, wanted: Value::Null, seen: json!({"protocol": "tcp"}) }]
}

/// The types of the events, and one sample of each.
pub(crate) struct Samples {
    pub(crate) kind: &'static str,
    /// Every tag its event type knows, from its schema.
    pub(crate) types: Vec<String>,
    pub(crate) kept: Vec<Sample>,
    /// Decodes an event and encodes it again.
    pub(crate) again: fn(&Value) -> Result<Value, serde_json::Error>,
}

/// The tags of an adjacently tagged type.
fn types(schema: &Value) -> Vec<String> {
    let one_of = schema["oneOf"].as_array().expect("events are a `oneOf` by tag");
    one_of
        .iter()
        .map(|one| one["properties"]["type"]["const"].as_str().expect("a tag").to_owned())
        .collect()
}

fn of<D: Decider>(events: Vec<D::Event>) -> Samples {
    let mut generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    let schema = generator.root_schema_for::<D::Event>().to_value();
    let tagged = events.into_iter().map(|event| {
        let value = serde_json::to_value(event).unwrap();
        (value["type"].as_str().unwrap().to_owned(), value["data"].clone())
    });
    Samples {
        kind: D::KIND,
        types: types(&schema),
        kept: tagged.collect(),
        again: |value| serde_json::to_value(serde_json::from_value::<D::Event>(value.clone())?),
    }
}

fn observed<R: Resource>(seen: R) -> Samples {
    use observation::Event as E;
    of::<observation::Observed<R>>(vec![
        E::Assigned { project: Some(id(2)) },
        E::Discovered { origin: origin("x-1"), project: Some(id(2)), seen: seen.clone() },
        E::Observed {
            seen: seen.clone(),
            fields: vec!["name".into()],
            actor: Some("user/ann".into()),
        },
        E::Reappeared { seen },
        E::Vanished { evidence: Evidence::CompleteListing { run: 7, listed: 120 } },
    ])
}

/// Every kind, sorted as in [`domain::kinds::KINDS`].
pub(crate) static ALL: LazyLock<Vec<Samples>> = LazyLock::new(|| {
    vec![
        anomaly(),
        anomaly_rule(),
        backup(),
        plan(),
        set(),
        store(),
        bill(),
        bill_source(),
        budget(),
        account(),
        of::<cluster::Cluster>(vec![cluster::Event::Defined {
            name: "edge".into(),
            places: vec![serde_json::from_value(place("web")).unwrap()],
            otherwise: Some(id(3)),
        }]),
        commitment(),
        disk(),
        of::<part::Domain>(vec![
            part::Event::Archived {},
            part::Event::Created { name: "retail".into() },
            part::Event::Renamed { name: "shops".into() },
            part::Event::Restored {},
        ]),
        of::<driver::Driver>(vec![
            driver::Event::Defined { definition: servers() },
            driver::Event::Retired {},
        ]),
        of::<exchange_rate::ExchangeRate>(vec![
            exchange_rate::Event::Defined(
                serde_json::from_value(exchange_rate("2026-10-31", "0.9251")).unwrap(),
            ),
            exchange_rate::Event::Retired {},
        ]),
        of::<flavour::Flavour>(vec![
            flavour::Event::Defined {
                name: "small".into(),
                project: Some(id(2)),
                spec: serde_json::from_value(flavour_spec()).unwrap(),
            },
            flavour::Event::Retired {},
        ]),
        host(),
        of::<image::Image>(vec![
            image::Event::Abandoned {},
            image::Event::Defined(serde_json::from_value(image_of(400)).unwrap()),
            image::Event::Defined(serde_json::from_value(image_of_disk()).unwrap()),
            image::Event::Made {
                number: 1,
                at: time(),
                sha256: "0c".repeat(32),
                file: image::Uploaded { size_bytes: 400 << 20, disk_bytes: 2 << 30 },
            },
            image::Event::Parked { number: 1, reason: "no route".into() },
            image::Event::RemovalOrdered {},
            image::Event::Removed { number: 1 },
            image::Event::Retired {},
            image::Event::RetryOrdered {},
            image::Event::Uploaded {
                at: time(),
                by: "token:ci".into(),
                file: image::Uploaded { size_bytes: 400 << 20, disk_bytes: 2 << 30 },
            },
        ]),
        issuer(),
        of::<key_pair::KeyPair>(vec![
            key_pair::Event::Defined {
                name: "ann".into(),
                project: Some(id(2)),
                key: PUBLIC_KEYS[0].parse().unwrap(),
            },
            key_pair::Event::Retired {},
        ]),
        moved_in(),
        network(),
        organisation(),
        of::<project::Project>(vec![
            project::Event::Archived {},
            project::Event::Assigned { domain: Some(id(3)) },
            project::Event::Created { name: "shop".into() },
            project::Event::Renamed { name: "store".into() },
            project::Event::Restored {},
            project::Event::Tagged {
                tags: [("env".to_owned(), None), ("team".to_owned(), Some("web".to_owned()))]
                    .into(),
            },
        ]),
        rates(),
        observed(Region { name: "sim-north-1".into() }),
        report(),
        of::<repricing::Repricing>(vec![
            repricing::Event::Defined(
                serde_json::from_value(repricing(
                    &json!({"project": id(2)}),
                    &json!({"discount-percent": "12.5"}),
                    "2026-11-01",
                ))
                .unwrap(),
            ),
            repricing::Event::Ended { day: "2026-12-01".parse().unwrap() },
        ]),
        of::<rule_set::RuleSet>(vec![
            rule_set::Event::Defined { name: "costs".into(), rules: cost_rules("shop") },
            rule_set::Event::Published { revision: 2, rules: cost_rules("lab") },
        ]),
        mapped(),
        layer2_segment(),
        server(),
        of::<shape::Shape>(vec![shape::Event::Defined {
            provider: "sim".into(),
            name: "s2.small".into(),
            equipment: serde_json::from_value(equipment(2)).unwrap(),
        }]),
        snapshot(),
        of::<tagging::Tagging>(vec![
            tagging::Event::Defined(tagging::Entry {
                resource: "arn:aws:ec2:eu-central-1:123456789012:instance/i-1".into(),
                project: Some(id(2)),
                tags: [("env".to_owned(), Some("prod".to_owned())), ("old".to_owned(), None)]
                    .into(),
                from: Some("2026-10-05".parse().unwrap()),
                to: Some("2026-11-01".parse().unwrap()),
            }),
            tagging::Event::Retired {},
        ]),
        of::<token::Token>(vec![
            token::Event::Issued {
                name: "ci".into(),
                role: Role::Operator,
                reach: Reach::Projects(vec![id(2)]),
                expires_at: time(),
                secret_digest: "0".repeat(64),
            },
            token::Event::Revoked {},
        ]),
        observed(Vpc {
            name: "prod".into(),
            cidrs: vec!["10.0.0.0/16".parse().unwrap(), "2001:db8::/56".parse().unwrap()],
            default: false,
            tags: tags(),
        }),
        observed(Zone { name: "sim-north-1a".into(), available: true }),
    ]
});

//! Samples of who has what.

use domain::tenancy::{
    cloud_account::{self, Scope},
    organisation,
};
use serde_json::json;

use super::{Samples, id, of, time};

pub(super) fn account() -> Samples {
    use cloud_account::Event as E;
    let scope = Scope {
        kind: "server".into(),
        region: Some("sim-north-1".into()),
        complete: false,
        listed: 40,
        discovered: 3,
        changed: 2,
        vanished: 0,
        withheld: 0,
        fault: Some("denied: list".into()),
    };
    of::<cloud_account::CloudAccount>(vec![
        E::Abandoned {},
        E::Configured {
            settings: [("rules_per_group_max".to_owned(), 120.into())].into_iter().collect(),
        },
        E::Connected {
            name: "prod".into(),
            provider: "sim".into(),
            project: Some(id(2)),
            endpoint: Some("http://127.0.0.1:5000".into()),
            credential: "sealed:1".into(),
        },
        E::CredentialReplaced { credential: "sealed:2".into() },
        E::CredentialRefused { reason: "unknown key".into() },
        E::CredentialUpdateOrdered { candidate: "sealed:2".into() },
        E::IdentityConfirmed {
            external_account: "acc-1".into(),
            principal: "user/skyledger".into(),
        },
        E::Parked { number: 1, reason: "no route".into() },
        E::Paused {},
        E::Renamed { name: "live".into() },
        E::Resumed {},
        E::RetryOrdered {},
        E::SyncFinished { run: 3, started_at: time(), complete: false, scopes: vec![scope] },
        E::SyncOrdered {
            regions: vec!["sim-north-1".into()],
            kinds: vec!["server".into()],
            approve_deletions: true,
        },
        E::VerifyOrdered {},
    ])
}

pub(super) fn organisation() -> Samples {
    use organisation::Event as E;
    let key = || "web".to_owned();
    let condition = json!({"dimension": "tags.team", "values": ["web"]});
    let rule = json!({"match": "any", "conditions": [condition], "node": "web"});
    let node = organisation::Node { name: "Web".into(), parent: Some("retail".into()) };
    of::<organisation::Organisation>(vec![
        E::Archived {},
        E::Bound { node: key(), projects: vec![id(2), id(3)] },
        E::Defined { name: "Acme".into(), levels: vec!["division".into(), "team".into()] },
        E::NodeAdded { key: key(), node },
        E::NodeMoved { key: key(), parent: None },
        E::NodeRemoved { key: key() },
        E::NodeRenamed { key: key(), name: "Website".into() },
        E::Restored {},
        E::RulesSet { rules: vec![serde_json::from_value(rule).unwrap()] },
        E::Unbound { projects: vec![id(2)] },
    ])
}

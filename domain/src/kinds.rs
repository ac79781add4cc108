//! LIST 1: every kind.

use crate::{
    cloud::{Region, Vpc, Zone},
    compute::{
        backup::Backup, backup_plan::BackupPlan, backup_set::BackupSet, backup_store::BackupStore,
        disk::Disk, flavour::Flavour, host::Host, image::Image, key_pair::KeyPair, move_in::MoveIn,
        server::Server, shape::Shape, snapshot::Snapshot,
    },
    finops::{
        anomaly_found::Anomaly, anomaly_rule::AnomalyRule, bill::Bill, bill_source::BillSource,
        budget::Budget, cluster::Cluster, commitment::Commitment, driver::Driver,
        exchange_rate::ExchangeRate, issuer::Issuer, rate_set::RateSet, report::Report,
        repricing::Repricing, rule_set::RuleSet, tagging::Tagging,
    },
    kernel::{Kind, kind},
    mapping::Mapped,
    network::{net::Network, security_group::SecurityGroup, segment::Segment},
    observation::Observed,
    tenancy::{
        cloud_account::CloudAccount, domain::Domain, organisation::Organisation, project::Project,
        token::Token,
    },
};

/// Every kind, sorted by name.
pub static KINDS: &[Kind] = &[
    kind::<Anomaly>(),
    kind::<AnomalyRule>(),
    kind::<Backup>(),
    kind::<BackupPlan>(),
    kind::<BackupSet>(),
    kind::<BackupStore>(),
    kind::<Bill>(),
    kind::<BillSource>(),
    kind::<Budget>(),
    kind::<CloudAccount>(),
    kind::<Cluster>(),
    kind::<Commitment>(),
    kind::<Disk>(),
    kind::<Domain>(),
    kind::<Driver>(),
    kind::<ExchangeRate>(),
    kind::<Flavour>(),
    kind::<Host>(),
    kind::<Image>(),
    kind::<Issuer>(),
    kind::<KeyPair>(),
    kind::<MoveIn>(),
    kind::<Network>(),
    kind::<Organisation>(),
    kind::<Project>(),
    kind::<RateSet>(),
    kind::<Observed<Region>>(),
    kind::<Report>(),
    kind::<Repricing>(),
    kind::<RuleSet>(),
    kind::<Mapped<SecurityGroup>>(),
    kind::<Segment>(),
    kind::<Server>(),
    kind::<Shape>(),
    kind::<Snapshot>(),
    kind::<Tagging>(),
    kind::<Token>(),
    kind::<Observed<Vpc>>(),
    kind::<Observed<Zone>>(),
    // kind::<Mapped<DnsRecord>>(),   a new kind: its file, its `mod` line, and a line like this
];

/// The kind of this name.
pub fn by_name(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// The kind with this plural.
pub fn by_plural(plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.plural == plural)
}

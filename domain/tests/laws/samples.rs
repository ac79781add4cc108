//! One event of every type of every kind, made of real types.

use std::{collections::BTreeMap, sync::LazyLock};

use chrono::{DateTime, Utc};
use domain::{
    cloud::{Region, Vpc, Zone},
    compute::{
        backup as kept, backup_plan, backup_set, backup_store,
        disk::{self as block, DiskState, SeenDisk},
        host, image, key_pair, move_in,
        placement::HostId,
        server::{
            self, Machine, Power,
            parts::{GroupRules, Nic},
            transfer::TransferLimits,
        },
        shape, snapshot,
        utilisation::Utilisation,
    },
    finops::{
        amount, anomaly_found, anomaly_rule, bill, bill_source, budget, cluster, commitment,
        driver, exchange_rate, issuer, rate_set, report, repricing, rule_set, rules, tagging,
    },
    kernel::{Decider, Id, Reach, Role},
    mapping::{self, FieldDrift, Mute},
    network::{
        SeenNetwork, bandwidth::Bandwidth, net, quota::Quota, security_group::SecurityGroup,
        segment as layer2,
    },
    observation::{self, Evidence, Origin, Resource},
    tenancy::{
        cloud_account::{self, Scope},
        domain as part, organisation, project, token,
    },
};
use serde_json::{Value, json};
use uuid::Uuid;

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

pub(crate) fn machine(power: Power) -> Machine {
    Machine {
        name: "web-1".into(),
        power,
        shape: "s2.small".into(),
        image: Some("img-1".into()),
        zone: Some("sim-north-1a".into()),
        vpc: Some("vpc-1".into()),
        network: Some("net-1".into()),
        addresses: vec!["10.0.0.4/32".parse().unwrap(), "2001:db8::4/128".parse().unwrap()],
        security_groups: vec!["sg-1".into()],
        disks: vec!["vol-1".into()],
        nics: Vec::new(),
        functions: BTreeMap::new(),
        vgpus: BTreeMap::new(),
        tags: tags(),
    }
}

/// A day's use of a server.
pub(crate) fn utilisation(day: u32, samples: u32) -> Utilisation {
    serde_json::from_value(json!({
        "day": format!("2026-01-{day:02}"), "vcpus": 2, "cpu_mean_percent": "3.5",
        "cpu_p95_percent": "4.75", "cpu_peak_percent": "12.25", "memory_peak_percent": "40",
        "network_in_bytes": 1_048_576, "network_out_bytes": 2_097_152, "samples": samples,
        "step_s": 300, "source": "node-exporter",
    }))
    .unwrap()
}

pub(crate) fn group(ports: &[&str]) -> SecurityGroup {
    let rules: Vec<Value> = ports
        .iter()
        .map(|ports| {
            json!({"direction": "ingress", "action": "allow", "protocol": "tcp", "ports": ports,
                   "peer": {"cidr": "10.0.0.0/8"}, "priority": 10, "description": "ours"})
        })
        .collect();
    serde_json::from_value(json!({
        "name": "web", "description": "web servers", "vpc": "vpc-1", "rules": rules, "tags": tags(),
    }))
    .unwrap()
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

fn mapped() -> Samples {
    use mapping::Event as E;
    let (one, two) = (|| group(&["80"]), || group(&["80", "443"]));
    let own = SecurityGroup { vpc: None, ..two() };
    of::<mapping::Mapped<SecurityGroup>>(vec![
        E::Abandoned {},
        E::Accepted { spec: two() },
        E::Adopted { spec: one() },
        E::Applied { number: 2, seen: two() },
        E::Assigned { project: None },
        E::Converged { seen: one(), actor: Some("user/ann".into()) },
        E::Declared { origin: origin(""), project: Some(id(2)), spec: one() },
        E::DeclaredOwn { project: Some(id(2)), spec: own },
        E::Discovered { origin: origin("sg-1"), project: None, seen: one() },
        E::Drifted { seen: two(), fields: drift(), actor: Some("user/ann".into()) },
        E::Linked { number: 1, origin: origin("sg-1"), seen: one() },
        E::Muted { mute: Mute { reason: "until the audit".into(), until: Some(time()) } },
        E::Observed { seen: two(), actor: None },
        E::Parked { number: 2, reason: "rejected: quota".into() },
        E::ReapplyOrdered { to: one(), keep_foreign: true },
        E::Reappeared { seen: two() },
        E::RetireOrdered {},
        E::Retired {},
        E::RetryOrdered {},
        E::SpecDeclared { spec: two(), to: two() },
        E::Unmuted {},
        E::Vanished { evidence: Evidence::NotFoundById },
    ])
}

fn server() -> Samples {
    use server::{
        Event as E,
        boot::BootDevice,
        console::{Console, ConsoleEnd, ConsoleKind},
    };
    let (console, by) = (id(30), "token:ops".to_owned());
    let kind = ConsoleKind::Serial;
    of::<server::Server>(vec![
        E::Abandoned {},
        E::AddressChangeOrdered { nic: id(15), found: found_addresses() },
        E::AddressRestoreOrdered { nic: id(15), found: found_addresses() },
        E::AddressesKept {
            number: 2,
            reason: "the guest agent does not answer".into(),
            seen: machine(Power::Running),
        },
        E::Adopted { adoption: serde_json::from_value(adoption()).unwrap() },
        E::Assigned { project: Some(id(2)) },
        E::BootOrderSet { order: vec![BootDevice::Network, BootDevice::Disk] },
        E::CdromChangeOrdered { image: Some(Box::new(disc())) },
        E::BreakOffOrdered {},
        E::CameIn {},
        E::Confirmed { number: 1, seen: machine(Power::Running) },
        E::ConsoleAllowed {
            console: Console {
                id: console,
                kind,
                by: by.clone(),
                ticket: digest(30),
                until: time(),
                since: None,
                network: None,
            },
        },
        E::ConsoleClosed {
            console,
            kind,
            by: by.clone(),
            seconds: 600,
            why: ConsoleEnd::CallerLeft,
        },
        E::ConsoleOpened { console, kind, by, at: time(), network: None },
        E::Deleted { until: time() },
        E::DiskAdmitted {
            disk: serde_json::from_value(json!({
                "id": id(17), "size_gib": 8, "format": "qcow2", "limits": limits(),
            }))
            .unwrap(),
        },
        E::DiskDismissed { disk: id(17) },
        E::Discovered { origin: origin("i-1"), project: None, seen: machine(Power::Stopped) },
        E::Evacuated { to: serde_json::from_value(place_on(8)).unwrap(), start: true },
        E::GroupsFollowed { groups: group_rules("80") },
        E::Launched { launch: Box::new(serde_json::from_value(launch()).unwrap()) },
        E::LeaveRescueOrdered { start: true },
        E::Measured { utilisation: utilisation(1, 144) },
        E::MigrationFailed {
            number: 3,
            reason: "no route to host".into(),
            seen: machine(Power::Running),
        },
        E::MigrationOrdered {
            to: serde_json::from_value(place_on(8)).unwrap(),
            live: true,
            limits: TransferLimits { seconds: Some(600), mib_per_second: Some(100) },
        },
        E::MigrationPrepared {
            number: 1,
            landing: serde_json::from_value(json!({
                "disks": {id(14).to_string(): "/mnt/nas/disks/a.qcow2"},
                "folder": "/var/lib/skyledger-agent",
                "libvirt": "qemu+tls://kvm-2/system", "memory": "tcp://10.0.0.5",
            }))
            .unwrap(),
        },
        E::MigrationReturned { number: 3 },
        E::MigrationSent { number: 2, certain: true },
        E::MigrationShared { number: 1 },
        E::NicAdditionOrdered { nic: Box::new(nic(18, 20)), groups: group_rules("443") },
        E::NicChangeOrdered {
            nic: id(15),
            bandwidth: Some(bandwidth(8_000)),
            quota: Some(quota(1 << 30)),
            security_groups: Some([id(20)].into()),
            groups: group_rules("443"),
        },
        E::NicRemovalOrdered { nic: id(15) },
        E::NicTrafficResetOrdered { nic: id(15) },
        E::NicsReadOrdered {},
        E::Observed {
            seen: machine(Power::Stopping),
            fields: vec!["power".into()],
            actor: Some("user/ann".into()),
        },
        E::Parked { number: 1, reason: "denied: start-server".into() },
        E::PasswordOrdered { user: "root".into(), password: "sealed".into() },
        E::Protected {},
        E::Reappeared { seen: machine(Power::Running) },
        E::RebootOrdered {},
        E::RebuildOrdered { image: Box::new(server_image()), start: true },
        E::ReleaseOrdered {},
        E::Remeasured { utilisation: utilisation(1, 288) },
        E::RemovalOrdered {},
        E::Removed { number: 3 },
        E::Renamed { name: "web-2".into() },
        E::RescueEntered { by: "token:ops".into(), at: time() },
        E::RescueLeft { by: "token:ops".into(), seconds: 600 },
        E::RescueOrdered {
            by: "token:ops".into(),
            runs: true,
            system: serde_json::from_value(rescue_system()).unwrap(),
            password: "sealed".into(),
        },
        E::ResizeOrdered {
            vcpus: 4,
            memory_mib: 4_096,
            placement: serde_json::from_value(placement(4, 4_096)).unwrap(),
        },
        E::ResumeOrdered {},
        E::RetryOrdered {},
        E::StartOrdered {},
        E::StopOrdered {},
        E::SuspendOrdered {},
        E::Tagged { tags: [("a".to_owned(), Some("1".to_owned())), ("b".to_owned(), None)].into() },
        E::TagsOrdered {
            tags: [("a".to_owned(), Some("1".to_owned())), ("b".to_owned(), None)].into(),
        },
        E::Undeleted {},
        E::Unprotected {},
        E::Vanished { evidence: Evidence::NotFoundById },
    ])
}

/// An interface of a server of ours.
pub(crate) fn nic(number: u128, group: u128) -> Nic {
    serde_json::from_value(json!({
        "id": id(number), "network": id(12), "segment": id(16), "bridge": "br0", "medium": "bridge",
        "mtu": 1_500, "mac": format!("52:54:00:00:00:{number:02x}"),
        "addresses": [format!("10.0.0.{number}/24")], "bandwidth": bandwidth(4_000),
        "security_groups": [id(group)],
    }))
    .unwrap()
}

/// Other addresses of an interface of a server of ours.
pub(crate) fn found_addresses() -> server::addresses::Found {
    serde_json::from_value(json!({
        "holder": id(40), "addresses": ["10.0.0.5/24", "2001:db8::5/64"],
        "gateways": ["10.0.0.1"],
    }))
    .unwrap()
}

/// The rules of a security group that lets a port in.
pub(crate) fn group_rules(port: &str) -> GroupRules {
    [(id(20), group(&[port]).rules)].into()
}

/// So many bytes from a server, and no limit towards it.
pub(crate) fn quota(egress: u64) -> Quota {
    Quota { ingress_bytes: None, egress_bytes: Some(egress) }
}

/// So much towards a server, and no limit from it.
pub(crate) fn bandwidth(ingress: u64) -> Bandwidth {
    Bandwidth { ingress_kbit_s: Some(ingress), egress_kbit_s: None }
}

/// What is seen of a disk in a cloud.
pub(crate) fn seen_disk(name: &str) -> SeenDisk {
    SeenDisk {
        name: name.into(),
        size_gib: 40,
        medium: "ssd".into(),
        state: DiskState::Attached,
        server: Some("i-1".into()),
        zone: Some("sim-north-1a".into()),
        encrypted: true,
        tags: tags(),
    }
}

/// A disk of ours, for a server.
pub(crate) fn creation() -> Value {
    json!({
        "name": "data", "server": id(9), "size_gib": 8, "format": "qcow2",
        "limits": limits(), "found": {"id": id(14), "project": id(2), "host": id(7)},
    })
}

/// A backup of it.
pub(crate) fn backup_creation() -> Value {
    json!({
        "name": "nightly", "disk": id(14), "store": id(31), "parent": id(33), "plan": id(34),
        "found": {
            "id": id(32), "project": id(2), "host": id(7), "server": id(9), "disk_name": "data",
        },
    })
}

/// What lies in a store of a backup.
pub(crate) fn made() -> Value {
    json!({
        "digest": "0a".repeat(32), "size_bytes": 8_589_934_592_u64, "read_bytes": 4_194_304,
        "sent_bytes": 1_048_576, "stored_bytes": 2_097_152, "chunks": 12,
    })
}

/// A backup that another installation has left.
pub(crate) fn found_backup() -> Value {
    json!({
        "store": id(31), "project": id(2), "disk": id(14), "parent": id(33), "taken_at": time(),
        "made": made(),
    })
}

fn backup() -> Samples {
    use kept::Event as E;
    let read = |value: Value| serde_json::from_value(value).unwrap();
    let made = || serde_json::from_value(made()).unwrap();
    of::<kept::Backup>(vec![
        E::Abandoned {},
        E::Assigned { project: Some(id(34)) },
        E::CreationOrdered { creation: read(backup_creation()), at: time() },
        E::Found(serde_json::from_value(found_backup()).unwrap()),
        E::GiveUpOrdered {},
        E::GivenUp { number: 2 },
        E::Parked { number: 1, reason: "no answer in time".into() },
        E::RemovalOrdered {},
        E::Removed {},
        E::RetryOrdered {},
        E::Taken { number: 1, at: time(), made: made() },
        E::UseBegun { by: id(14) },
        E::UseEnded { by: id(14) },
        E::Verified { number: 2, at: time(), damaged: Some("chunk 3".into()) },
        E::VerifyOrdered {},
    ])
}

/// What a plan backs up, when, and what stays.
pub(crate) fn plan_terms(daily: u32) -> Value {
    json!({
        "disks": [id(14)], "servers": [id(9)], "store": id(31),
        "times": {"hours": [2], "minute": 30, "weekdays": [1, 3]},
        "keep": {"last": 2, "days": 3, "daily": daily, "weekly": 4, "monthly": 12},
        "full_every": 7,
    })
}

/// What a run of it came to.
pub(crate) fn plan_results() -> Value {
    json!([
        {
            "subject": id(14), "backup": id(32), "full": true, "kept": 3, "deleted": [id(33)],
            "left": 1,
        },
        {"subject": id(9), "problem": "the server is gone"},
    ])
}

fn plan() -> Samples {
    use backup_plan::Event as E;
    of::<backup_plan::BackupPlan>(vec![
        E::Abandoned {},
        E::Defined {
            name: "nightly".into(),
            project: Some(id(2)),
            terms: serde_json::from_value(plan_terms(7)).unwrap(),
            at: time(),
        },
        E::Parked { number: 1, reason: "the log does not answer".into() },
        E::Paused {},
        E::Resumed { at: time() },
        E::Retired {},
        E::RetryOrdered {},
        E::RunFinished {
            number: 1,
            at: time(),
            results: serde_json::from_value(plan_results()).unwrap(),
        },
        E::RunOrdered { due: time(), at: time(), missed: 2 },
    ])
}

fn set() -> Samples {
    use backup_set::Event as E;
    let creation = json!({
        "name": "monday", "server": id(7), "store": id(9),
        "found": {
            "id": id(30), "project": id(2), "host": id(8),
            "members": [{"disk": id(14), "disk_name": "web-0", "backup": id(31)}],
        },
    });
    let taken = json!({"quiesced": true, "made": {id(14).to_string(): made()}});
    of::<backup_set::BackupSet>(vec![
        E::Abandoned {},
        E::CreationOrdered { creation: serde_json::from_value(creation).unwrap(), at: time() },
        E::Deleted { backups: [id(31)].into() },
        E::GiveUpOrdered {},
        E::GivenUp { number: 2 },
        E::Parked { number: 1, reason: "no answer in time".into() },
        E::RemovalOrdered {},
        E::Removed { number: 3 },
        E::RetryOrdered {},
        E::Taken { number: 1, at: time(), taken: serde_json::from_value(taken).unwrap() },
    ])
}

/// A machine that others run, as a move begins with it.
pub(crate) fn move_beginning() -> Value {
    json!({
        "name": "db", "project": id(2), "account": id(1), "server": id(7), "host": id(8),
        "source": {"id": id(40), "provider": "cloudpods", "machine": {
            "id": "8f2c", "name": "db", "power": "running", "status": "running",
            "architecture": "x86_64", "firmware": "bios", "vcpus": 2, "memory_mib": 512,
            "disks": [{"index": 0, "size_bytes": 1_u64 << 30, "bus": "virtio"}],
            "nics": [{"mac": "00:22:aa:00:00:01", "addresses": ["10.0.0.77"]}],
            "host_address": "192.0.2.7",
        }},
    })
}

/// Where it is written to.
pub(crate) fn move_landing() -> Value {
    json!({"address": "192.0.2.1", "port": 21_800, "disks": [{"index": 0, "name": id(14).to_string()}]})
}

fn moved_in() -> Samples {
    use move_in::Event as E;
    of::<move_in::MoveIn>(vec![
        E::Arrived {},
        E::Begun { beginning: serde_json::from_value(move_beginning()).unwrap() },
        E::Closed { number: 4 },
        E::Copied { number: 2 },
        E::CutOverOrdered { shut_down: true },
        E::Finished {},
        E::GoneBack {},
        E::Parked { number: 2, reason: "no answer in time".into() },
        E::PreparationOrdered {},
        E::Prepared { number: 1, landing: serde_json::from_value(move_landing()).unwrap() },
        E::ReleaseOrdered { start: true },
        E::RetryOrdered {},
        E::SourceReleased { number: 5 },
        E::SourceStopped { number: 3 },
        E::TargetGivenUp {},
        E::TargetGone {},
    ])
}

/// A place of backups.
pub(crate) fn backup_place() -> Value {
    json!({
        "endpoint": "https://s3.example.com:9000", "region": "eu-central-1", "bucket": "backups",
        "prefix": "skyledger/",
    })
}

fn store() -> Samples {
    use backup_store::Event as E;
    let place = serde_json::from_value(backup_place()).unwrap();
    let collection =
        backup_store::Collection { condemned: 3, removed: 2, waits_for: [id(32)].into() };
    let import = backup_store::Import {
        listed: 3,
        new: 1,
        unreadable: vec![format!("{}/{}", id(14), id(33))],
    };
    of::<backup_store::BackupStore>(vec![
        E::Abandoned {},
        E::Collected { number: 2, at: time(), sum: collection },
        E::CollectionOrdered {},
        E::Created {
            name: "vault".into(),
            project: Some(id(2)),
            place,
            credential: "sealed".into(),
        },
        E::ImportOrdered { project: Some(id(2)) },
        E::Imported { number: 3, at: time(), sum: import },
        E::Parked { number: 2, reason: "no answer in time".into() },
        E::Refused { number: 1, reason: "denied".into() },
        E::Retired {},
        E::RetryOrdered {},
        E::VerifyOrdered { candidate: Some("sealed".into()) },
        E::Verified { number: 1, at: time() },
    ])
}

/// Where the disk of a snapshot is.
pub(crate) fn snapshot_place() -> Value {
    json!({"id": id(35), "project": id(2), "host": id(7), "server": id(9), "size_gib": 8})
}

fn snapshot() -> Samples {
    use snapshot::Event as E;
    let place = || serde_json::from_value(snapshot_place()).unwrap();
    let creation = json!({"name": "before", "disk": id(14), "found": snapshot_place()});
    of::<snapshot::Snapshot>(vec![
        E::Abandoned {},
        E::Assigned { project: Some(id(34)) },
        E::CreationOrdered { creation: serde_json::from_value(creation).unwrap(), at: time() },
        E::GoneWithDisk {},
        E::Parked { number: 1, reason: "QEMU: no space left".into() },
        E::RemovalOrdered { place: place() },
        E::Removed {},
        E::RetryOrdered {},
        E::RollBackOrdered { place: place() },
        E::RolledBack { number: 2 },
        E::Taken { number: 1 },
    ])
}

fn limits() -> Value {
    json!({"write_bytes": {"rate": 1_048_576, "burst": 4_194_304, "burst_seconds": 5}})
}

/// A backup that a disk is made in its place.
pub(crate) fn restored_from() -> Value {
    json!({"backup": {
        "backup": id(32), "disk": id(14), "store": id(31), "digest": "0a".repeat(32),
    }})
}

fn disk() -> Samples {
    use block::Event as E;
    /// For types of any kind.
    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }
    let limits = || serde_json::from_value(limits()).unwrap();
    let actual =
        block::Actual { size_bytes: 8 << 30, taken_bytes: 196_624, limits: Some(limits()) };
    of::<block::Disk>(vec![
        E::Abandoned {},
        E::Assigned { project: Some(id(2)) },
        E::AttachOrdered { server: domain::compute::placement::ServerId::new(id(9)) },
        E::Confirmed { number: 1, seen: actual },
        E::CreationOrdered(read(creation())),
        E::DetachOrdered {},
        E::Discovered { origin: origin("x-1"), project: Some(id(2)), seen: seen_disk("root") },
        E::GrowthOrdered { size_gib: 16 },
        E::LeaseEnded { host: HostId::new(id(8)) },
        E::LeaseShared { host: HostId::new(id(8)) },
        E::LeaseTaken { host: HostId::new(id(8)) },
        E::Made {},
        E::Moved { host: HostId::new(id(8)) },
        E::Observed {
            seen: seen_disk("root"),
            fields: vec!["name".into()],
            actor: Some("user/ann".into()),
        },
        E::Parked { number: 1, reason: "no space left".into() },
        E::Provisioned { creation: read(creation()), root: true },
        E::Reappeared { seen: seen_disk("root") },
        E::RemovalOrdered {},
        E::Removed {},
        E::RestoreOrdered { source: read(restored_from()) },
        E::RetryOrdered {},
        E::SnapshotDropped { snapshot: id(35) },
        E::SnapshotKept { snapshot: id(35) },
        E::ThrottleOrdered { limits: limits() },
        E::UseBegun { by: id(32) },
        E::UseEnded { by: id(32) },
        E::Vanished { evidence: Evidence::CompleteListing { run: 7, listed: 120 } },
    ])
}

/// A server of ours, with the place it was given.
pub(crate) fn launch() -> Value {
    let holding = holding(9);
    json!({
        "name": "web", "project": id(2), "spec": {"vcpus": 2, "memory_mib": 2048},
        "wishes": {"tags_required": ["ssd"]}, "tags": {"team": "shop"},
        "image": id(11), "firmware": "bios", "disks": [{"size_gib": 8}],
        "nics": [{"network": id(12), "v4": {"type": "any", "data": {}}}],
        "key_pairs": [id(13)], "userdata": "c2VhbGVk",
        "parts": {
            "image": {
                "id": id(11), "sha256": "0a".repeat(32), "format": "qcow2", "source": "upload",
                "size_mib": 400, "os": "linux",
            },
            "firmware": "bios",
            "disks": [{"id": id(14), "size_gib": 8, "format": "qcow2", "from_image": true}],
            "nics": [{
                "id": id(15), "network": id(12), "segment": id(16), "bridge": "br0",
                "medium": {"vlan": {"id": 7}}, "mtu": 1_500, "mac": "52:54:00:00:00:07",
                "addresses": ["10.0.0.4/24"], "gateways": ["10.0.0.1"],
                "dns_servers": ["10.0.0.1"], "domain": "example.com",
            }],
            "keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKBnABWcH+rkaw2uU18cddw8UywdsKHqvb7Cn+9pEwVI ann"],
        },
        "placement": {
            "host": id(7), "holding": holding, "score": {
                "irregular": false, "affinity": 0, "cells": 0, "devices": 0, "apart": 0,
                "fill": 125_000,
            },
            "fitting": 1, "rejected": {
                "counts": {"disabled": 1},
                "hosts": [{"host": id(8), "reason": {"code": "disabled"}}],
            },
        },
    })
}

/// What a server is repaired with.
/// What a server's root disk is made from.
pub(crate) fn server_image() -> server::parts::Image {
    serde_json::from_value(launch()["parts"]["image"].clone()).unwrap()
}

pub(crate) fn disc() -> server::parts::Image {
    server::parts::Image { format: domain::compute::image::Format::Iso, ..server_image() }
}

pub(crate) fn rescue_system() -> Value {
    json!({
        "kernel": "/var/lib/skyledger/rescue/kernel",
        "initramfs": "/var/lib/skyledger/rescue/initramfs", "command_line": "console=ttyS0",
    })
}

/// Where a server of another size goes.
pub(crate) fn placement(vcpus: u32, memory_mib: u64) -> Value {
    json!({
        "host": id(7), "holding": {"server": id(9), "vcpus": vcpus, "memory_mib": memory_mib},
        "score": {
            "irregular": false, "affinity": 0, "cells": 0, "devices": 0, "apart": 0,
            "fill": 250_000,
        },
        "fitting": 1,
    })
}

/// Where a server goes that leaves its host.
pub(crate) fn place_on(host: u128) -> Value {
    let mut place = placement(2, 2_048);
    place["host"] = json!(id(host));
    place
}

/// A server that is made from a machine of others.
pub(crate) fn launch_moved() -> Value {
    let mut launch = launch();
    launch["image"] = Value::Null;
    launch["parts"]["image"] = Value::Null;
    launch["move_in"] = json!({
        "account": id(1), "machine": "8f2c", "digest": "9f2c",
        "found": move_beginning()["source"],
    });
    launch
}

/// A server whose disks lie where several hosts reach them.
pub(crate) fn launch_shared() -> Value {
    let mut launch = launch();
    launch["parts"]["disks"][0]["storage"] = json!(id(18));
    launch
}

/// A machine of somebody's that a host has.
pub(crate) fn foreign_machine() -> Value {
    json!({
        "name": "shop-db", "power": "running", "persistent": true, "architecture": "x86_64",
        "board": "pc-i440fx-10.0", "firmware": "bios", "vcpus": 2, "memory_mib": 2048,
        "disks": [{
            "target": "vda", "device": "disk", "bus": "virtio", "path": "/srv/db.qcow2",
            "format": "qcow2", "size_bytes": 8_589_934_592_u64,
        }],
        "nics": [{
            "mac": "52:54:00:00:00:09", "bridge": "br0", "model": "e1000", "addresses": ["10.0.0.9"],
        }],
        "screen": true, "agent": true, "digest": "0a0b0c",
    })
}

/// What it is as a server.
pub(crate) fn adoption() -> Value {
    let mut parts = launch()["parts"].clone();
    parts["image"] = Value::Null;
    parts["keys"] = json!([]);
    parts["disks"][0]["from_image"] = json!(false);
    parts["disks"][0]["in_place"] = json!("/srv/db.qcow2");
    json!({
        "name": "db", "project": id(2), "machine": foreign_machine(), "placement": placement(2, 2_048),
        "parts": parts, "overfill": "2048 MiB of memory asked for, 1024 are free",
    })
}

/// What a server takes of its host.
pub(crate) fn holding(server: u128) -> Value {
    json!({"server": id(server), "vcpus": 2, "memory_mib": 2048})
}

/// What an agent sees of a small host.
pub(crate) fn seen_of_host(memory_mib: u64) -> Value {
    json!({
        "architecture": "x86_64", "virtualisation": "qemu 10.0.2", "labels": ["storage:ssd"],
        "cells": [{
            "id": 0, "memory_mib": memory_mib, "cores": [{"threads": [0, 1], "l3": 0}],
            "distances": [10],
        }],
        "devices": [{"id": "0000:3b:00.0", "kind": "gpu", "model": "10de:1eb8", "cell": 0}],
    })
}

fn host() -> Samples {
    use host::Event as E;
    let settings: host::HostSettings = serde_json::from_value(json!({
        "tags": ["ssd"], "cpus_reserved": [0], "rescue": {"x86_64": rescue_system()},
    }))
    .unwrap();
    of::<host::Host>(vec![
        E::Abandoned {},
        E::Adopted { adoption: serde_json::from_value(adoption()).unwrap() },
        E::BecameReachable {},
        E::BecameUnreachable { since: time() },
        E::Cleared { server: Id::new(id(9)) },
        E::ClearingOrdered { server: Id::new(id(9)), host: Id::new(id(7)), disks: [id(17)].into() },
        E::Configured { settings: settings.clone() },
        E::Disabled {},
        E::DrainStarted {},
        E::Enabled {},
        E::Enrolled { name: "kvm-1".into(), settings },
        E::Fenced { epoch: 2 },
        E::Joined { epoch: 1, agent: "skyledger 0.1.0".into() },
        E::MaintenanceEntered {},
        E::MaintenanceLeft {},
        E::Parked { number: 1, reason: "the daemon is away".into() },
        E::Released { server: Id::new(id(9)) },
        E::Reserved { holding: serde_json::from_value(holding(9)).unwrap() },
        E::Resized { holding: serde_json::from_value(holding(9)).unwrap() },
        E::Retired {},
        E::RetryOrdered {},
        E::Sighted {
            seen: serde_json::from_value(seen_of_host(8_192)).unwrap(),
            fields: vec!["cells".into()],
        },
    ])
}

fn account() -> Samples {
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

/// Every kind, sorted as in [`domain::kinds::KINDS`].
/// A segment with this digest, billed so much.
pub(crate) fn segment(digest: &str, billed: &str) -> Value {
    let sums = json!({"billed": billed, "effective": "0", "list": "1", "contracted": "0.5"});
    json!({
        "digest": digest, "lines": 3, "sums": {"EUR": sums}, "source": "october.csv",
        "source_digest": "5d".repeat(32), "findings": {"time-without-zone": 3}, "quarantined": 1,
        "imported_by": "token:ci",
    })
}

/// What an invoice says it comes to.
pub(crate) fn invoice(number: &str, billed: &str) -> Value {
    json!({"invoice": number, "issuer": "AWS", "currency": "EUR", "billed": billed})
}

/// The terms of a commitment.
pub(crate) fn stated_commitment(id: &str, cost: &str) -> Value {
    json!({
        "id": id, "contract": "c-1", "from": "2026-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z",
        "cost": cost, "currency": "EUR", "payment_model": "All Upfront",
        "payment_interval": "One-Time", "upfront_percent": "100", "category": "Spend",
        "status": "Active", "other": {"ContractCommitmentType": "Savings Plan"},
    })
}

fn issuer() -> Samples {
    use issuer::Event as E;
    let (source, source_digest, stated_by) = ("terms.csv", "5d".repeat(32), "token:ci");
    of::<issuer::Issuer>(vec![
        E::CommitmentsStated {
            name: "AWS".into(),
            commitments: vec![serde_json::from_value(stated_commitment("sp-1", "1200")).unwrap()],
            source: source.into(),
            source_digest: source_digest.clone(),
            stated_by: stated_by.into(),
        },
        E::PeriodsStated {
            name: "AWS".into(),
            periods: serde_json::from_value(json!({"2026-09": "closed", "2026-10": "open"}))
                .unwrap(),
            source: source.into(),
            source_digest,
            stated_by: stated_by.into(),
        },
    ])
}

/// Rules that place production here, and spread a pool.
pub(crate) fn cost_rules(centre: &str) -> rules::Rules {
    let production = json!([
        {"dimension": "tags.env", "values": ["prod"]},
        {"dimension": "service", "compare": "begins", "values": ["Amazon"]},
    ]);
    let method = json!({"driver": {"values": {"shop": "2", "lab": "0.5"}, "fallback": "keep"}});
    let value = json!({
        "attribution": [
            {"name": "production", "match": "any", "conditions": production, "centre": centre},
        ],
        "shared": [
            {"name": "by heads", "pool": "network", "targets": ["lab", "shop"], "method": method},
        ],
    });
    serde_json::from_value(value).unwrap()
}

/// What an anomaly rule watches.
pub(crate) fn watch(sensitivity: &str) -> Value {
    json!({
        "basis": "billed", "currency": "EUR",
        "conditions": [{"dimension": "charge_category", "compare": "is-not", "values": ["Tax"]}],
        "group_by": ["service"],
        "detector": {"statistical": {"sensitivity": sensitivity, "minimum": "10"}},
        "calendar": {"days_of_month": [1], "dates": ["2026-10-15"]},
        "from": "2026-06-01",
    })
}

/// What a rule has found: so much on a day.
pub(crate) fn finding(amount: &str) -> Value {
    json!({
        "rule": id(3), "rule_name": "services", "group": {"service": "EC2"}, "currency": "EUR",
        "basis": "effective", "period": "2026-10-05", "amount": amount, "limit": "120.5",
        "expected": {"low": "80", "middle": "100", "high": "120.5"},
        "measure": "what the days before lead to expect",
    })
}

fn anomaly() -> Samples {
    use anomaly_found::{AsOf, Event as E};
    let finding = |amount| serde_json::from_value(finding(amount)).unwrap();
    let as_of = |position| AsOf { position, inputs: "5d".repeat(32) };
    of::<anomaly_found::Anomaly>(vec![
        E::Acknowledged {},
        E::Cleared { reason: "the cost is within its limit".into(), as_of: as_of(9) },
        E::Explained { text: "the autumn sale".into() },
        E::Ignored { reason: "a test".into() },
        E::Reported { finding: finding("150"), as_of: as_of(7) },
        E::Updated { finding: finding("170.000000000001"), as_of: as_of(8) },
    ])
}

fn anomaly_rule() -> Samples {
    use anomaly_rule::Event as E;
    let watch = serde_json::from_value(watch("low")).unwrap();
    of::<anomaly_rule::AnomalyRule>(vec![
        E::Defined { name: "services".into(), watch },
        E::Disabled {},
        E::Enabled {},
    ])
}

/// What may be spent: so much a month.
pub(crate) fn allowance(amount: &str) -> Value {
    json!({
        "period": "quarter", "amount": amount, "currency": "EUR", "basis": "effective",
        "conditions": [{"dimension": "tags.team", "values": ["shop"]}],
        "from": "2026-01", "to": "2026-12",
        "alerts": [{"on": "actual", "percent": 80}, {"on": "forecast", "amount": "120"}],
    })
}

/// Where a budget stands in a period.
pub(crate) fn standing(actual: &str) -> Value {
    json!({"period": "2026-Q4", "actual": actual, "forecast": "110.5"})
}

fn budget() -> Samples {
    use budget::Event as E;
    let allowance = serde_json::from_value(allowance("100")).unwrap();
    let as_of = |position| anomaly_found::AsOf { position, inputs: "5d".repeat(32) };
    let alert = |actual| budget::Alert {
        threshold: serde_json::from_value(json!({"on": "actual", "percent": 80})).unwrap(),
        limit: "80".parse().unwrap(),
        standing: serde_json::from_value(standing(actual)).unwrap(),
        share: Some("85.01".into()),
    };
    of::<budget::Budget>(vec![
        E::Alerted { alert: alert("85.01").into(), as_of: as_of(7) },
        E::Defined { name: "shop".into(), allowance },
        E::Disabled {},
        E::Enabled {},
        E::Withdrawn { alert: alert("70").into(), as_of: as_of(8) },
    ])
}

/// A question of costs.
pub(crate) fn question(count: u32) -> Value {
    json!({
        "basis": "effective", "group_by": ["service"],
        "conditions": [{"dimension": "region", "values": ["eu"]}],
        "months": {"last": {"count": count, "before": 1}}, "compare": "year", "digits": 2,
        "format": "parquet",
    })
}

/// What a run of a report gave on a day of January.
pub(crate) fn run(day: u32) -> Value {
    json!({
        "due": format!("2026-01-{day:02}T06:00:00Z"), "scheduled": true, "position": 7,
        "inputs": "5d".repeat(32), "format": "csv", "digest": "0a".repeat(32), "bytes": 12,
        "rows": 1,
    })
}

/// A delivery of one file that was taken in.
pub(crate) fn taken(etag: &str) -> serde_json::Value {
    json!({
        "delivery": "s3://bills/focus/october.csv",
        "files": [{"key": "focus/october.csv", "bytes": 4096, "etag": etag}],
        "source_digest": "5d".repeat(32),
        "bills": [{
            "billing_account": "123456789012", "month": "2026-10", "segment": "0a".repeat(32),
            "lines": 7,
        }],
        "quarantined": 1,
    })
}

fn bill_source() -> Samples {
    use bill_source::Event as E;
    let place = json!({
        "account": id(3), "bucket": "bills", "prefix": "focus/", "region": "eu-central-1",
        "endpoint": "https://storage.example.com", "mapping": "focus", "strict": true,
        "repeats": "skip", "schedule": {"every": "day", "hour": 6},
    });
    let sum = json!({
        "listed": 2, "taken": 1, "unchanged": 0,
        "refused": [{
            "delivery": "s3://bills/focus/september.csv", "fingerprint": "0b".repeat(32),
            "code": "bill-closed", "reason": "the bill of 123456789012 for 2026-09 is closed",
        }],
    });
    of::<bill_source::BillSource>(vec![
        E::Defined {
            name: "aws".into(),
            place: serde_json::from_value(place).unwrap(),
            credential: Some("sealed".into()),
            at: time(),
        },
        E::Paused {},
        E::PullFailed { number: 2, at: time(), code: "denied".into(), reason: "no".into() },
        E::PullFinished { number: 1, at: time(), sum: serde_json::from_value(sum).unwrap() },
        E::PullOrdered { reason: "late lines".into(), due: Some(time()) },
        E::Resumed {},
        E::Retired {},
        E::DeliveryTaken { number: 1, taken: serde_json::from_value(taken("e")).unwrap() },
    ])
}

fn report() -> Samples {
    use report::Event as E;
    let schedule = json!({"every": "week", "day": 5, "hour": 6});
    of::<report::Report>(vec![
        E::Defined {
            name: "services".into(),
            question: serde_json::from_value(question(3)).unwrap(),
            schedule: serde_json::from_value(schedule).unwrap(),
            shared: true,
            maker: "token:ann".into(),
            at: time(),
        },
        E::Ran { run: serde_json::from_value(run(2)).unwrap() },
        E::Retired {},
    ])
}

fn bill() -> Samples {
    use bill::Event as E;
    let segment = |digest, billed| serde_json::from_value(segment(digest, billed)).unwrap();
    let month = || "2026-10".to_owned().try_into().unwrap();
    let euro = || amount::Currency::try_from("EUR".to_owned()).unwrap();
    let sums = bill::Sums { billed: "3.25".parse().unwrap(), ..bill::Sums::default() };
    of::<bill::Bill>(vec![
        E::Closed {
            version: 1,
            sums: [(euro(), sums)].into(),
            invoiced: [(euro(), sums.billed)].into(),
        },
        E::InvoicesStated {
            invoices: vec![serde_json::from_value(invoice("INV-1", "3.25")).unwrap()],
            source: "invoices.csv".into(),
            source_digest: "5d".repeat(32),
            stated_by: "token:ci".into(),
        },
        E::LinesImported { segment: segment("0a", "3.25"), replaces: vec!["0b".into()] },
        E::Opened { billing_account: "123456789012".into(), month: month() },
        E::Restated {
            version: 2,
            segment: segment("0c", "-0.000000000001"),
            replaces: vec!["0a".into()],
            reason: "late lines".into(),
        },
    ])
}

fn organisation() -> Samples {
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

/// What was paid in advance, so much of it.
pub(crate) fn terms(amount: &str) -> Value {
    json!({
        "name": "db", "form": "reservation", "billing_account": "123456789012",
        "commitment": "ri-1", "resource": "i-1", "currency": "EUR", "amount": amount,
        "start": "2026-01-15", "end": "2027-01-15", "time_zone": "Europe/Berlin",
        "method": "monthly",
        "carries": {
            "region": "eu", "resource_name": "db-1", "resource_type": "server", "service": "db",
            "service_category": "Databases", "sub_account": "7", "tags": {"team": "shop"},
        },
    })
}

fn commitment() -> Samples {
    use commitment::Event as E;
    let amount = |text: &str| text.parse().unwrap();
    let day = |text: &str| text.parse().unwrap();
    of::<commitment::Commitment>(vec![
        E::Cancelled { day: day("2026-09-01"), refund: amount("12.5") },
        E::Defined { terms: serde_json::from_value(terms("365.000000000001")).unwrap() },
        E::Retired {},
        E::Upgraded { day: day("2026-06-01"), paid: amount("100"), end: day("2028-01-15") },
    ])
}

/// A rate as it is asked for, from such a time on.
pub(crate) fn new_rate(price: &str, from: Option<&str>) -> Value {
    let tiers = json!([{"up_to": "100", "price": price}, {"price": "0.01"}]);
    json!({
        "meter": "disk-gib", "sku": "ssd", "resource_type": "disk", "per": "month",
        "granule": "hour", "rounding": "up", "from": from,
        "pricing": {"tiers": {"mode": "graduated", "tiers": tiers, "over": "resource"}},
    })
}

/// For whom a set is.
pub(crate) fn settings(name: &str, scope: &Value) -> Value {
    json!({
        "name": name, "currency": "EUR", "scope": scope, "time_zone": "Europe/Berlin",
        "billing_account": "own", "providers": ["sim"],
    })
}

fn rates() -> Samples {
    use rate_set::Event as E;
    let key = || "ssd".to_owned();
    let node = json!({"node": {"organisation": id(4), "node": "web"}});
    let mut rate = new_rate("0.02", None);
    rate["from"] = json!(time());
    rate["to"] = json!("2027-01-01T00:00:00Z");
    of::<rate_set::RateSet>(vec![
        E::Defined { settings: serde_json::from_value(settings("web", &node)).unwrap() },
        E::RateEnded { key: key(), to: time() },
        E::RateRemoved { key: key() },
        E::RateSet { key: key(), rate: serde_json::from_value(rate).unwrap() },
        E::Retired { at: time() },
    ])
}

/// Whose what lies in a namespace is.
pub(crate) fn place(namespace: &str) -> Value {
    json!({"namespace": namespace, "labels": {"team": "shop"}, "project": id(2)})
}

/// What a server of a shape has.
pub(crate) fn equipment(vcpus: u32) -> Value {
    json!({
        "vcpus": vcpus, "memory_gib": "7.5", "gpus": {"a100": 1}, "vgpus": {"t4-q": 2},
        "bare_metal": false,
    })
}

/// A count of servers, and what one of them costs.
pub(crate) fn servers() -> driver::Definition {
    let quantity = |text: &str| driver::Quantity(text.parse().unwrap());
    driver::Definition {
        name: "servers".into(),
        unit: "servers".into(),
        values: [("2026-10".into(), quantity("12")), ("2026-11".into(), quantity("14.5"))].into(),
        gaps: driver::Gaps::Last,
        price: Some(driver::Price {
            amount: quantity("35.5"),
            currency: "EUR".to_owned().try_into().unwrap(),
        }),
        scope: [("service".to_owned(), vec!["Compute".to_owned()])].into(),
    }
}

/// What a dollar is worth.
pub(crate) fn exchange_rate(day: &str, rate: &str) -> Value {
    json!({"from": "USD", "to": "EUR", "day": day, "rate": rate, "source": "ECB"})
}

/// A factor on what is used.
pub(crate) fn repricing(scope: &Value, price: &Value, from: &str) -> Value {
    let conditions =
        json!([{"dimension": "charge_category", "compare": "is", "values": ["Usage"]}]);
    json!({
        "name": "shop", "scope": scope, "price": price, "conditions": conditions, "from": from,
        "to": "2032-01-01",
    })
}

/// An image of this size.
pub(crate) fn image_of(size_mib: u64) -> Value {
    json!({
        "name": "debian-13", "project": id(2), "sha256": "5d".repeat(32), "format": "qcow2",
        "source": {"url": "https://images.example.com/debian-13.qcow2"}, "size_mib": size_mib,
        "architecture": "x86_64", "os": "linux", "firmware": "uefi", "min_disk_gib": 3,
    })
}

/// The same, of a file that is uploaded.
pub(crate) fn image_stored() -> Value {
    let mut image = image_of(400);
    image["source"] = json!({"store": id(9)});
    image
}

/// Public keys of nobody.
pub(crate) const PUBLIC_KEYS: [&str; 2] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKBnABWcH+rkaw2uU18cddw8UywdsKHqvb7Cn+9pEwVI ann",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKBnABWcH+rkaw2uU18cddw8UywdsKHqvb7Cn+9pEwVJ bob",
];

/// A subnet of this many bits, whose addresses are given from the lowest on.
pub(crate) fn subnet(net: &str) -> Value {
    json!({
        "net": net, "ranges": [], "gateway": null, "reserved": [], "step": "up", "cooldown_s": 60,
    })
}

/// A network of ours.
pub(crate) fn own_network() -> Value {
    json!({
        "id": id(5), "name": "blue", "project": id(2), "segment": id(6),
        "v4": subnet("10.0.0.0/28"), "v6": subnet("2001:db8::/64"),
        "dns_servers": ["10.0.0.2"], "domain": "blue.example.com", "dhcp": true,
    })
}

/// A network of a cloud.
pub(crate) fn seen_network(name: &str) -> SeenNetwork {
    SeenNetwork {
        name: name.into(),
        vpc: "vpc-1".into(),
        zone: Some("sim-north-1a".into()),
        cidrs: vec!["10.0.0.0/18".parse().unwrap()],
        tags: tags(),
    }
}

fn network() -> Samples {
    use net::Event as E;
    let seen = || seen_network("web-a");
    let address = |text: &str| text.parse().unwrap();
    let range = json!({"first": "10.0.0.9", "last": "10.0.0.12"});
    let range: domain::network::addresses::Range = serde_json::from_value(range).unwrap();
    let change = json!({
        "name": "green", "v4": subnet("10.0.0.0/27"), "v6": subnet("2001:db8::/63"),
        "dns_servers": [], "domain": "", "dhcp": false,
    });
    of::<net::Network>(vec![
        E::Assigned { project: Some(id(2)) },
        E::Changed(serde_json::from_value(change).unwrap()),
        E::Defined(serde_json::from_value(own_network()).unwrap()),
        E::Discovered { origin: origin("x-1"), project: Some(id(2)), seen: seen() },
        E::Given {
            holder: id(7),
            addresses: vec![address("10.0.0.4"), address("2001:db8::4")],
            mac: Some(domain::network::mac::Mac::ours(7)),
        },
        E::Observed { seen: seen(), fields: vec!["name".into()], actor: Some("user/ann".into()) },
        E::Reappeared { seen: seen() },
        E::Released { holder: id(7), addresses: vec![address("10.0.0.4")], at: time() },
        E::Replaced {
            holder: id(7),
            by: id(8),
            addresses: vec![address("10.0.0.5"), address("2001:db8::5")],
            released: vec![address("10.0.0.4")],
            at: time(),
        },
        E::Reserved { range, note: "printers".into() },
        E::Retired {},
        E::Unreserved { range },
        E::Vanished { evidence: Evidence::CompleteListing { run: 7, listed: 120 } },
    ])
}

fn layer2_segment() -> Samples {
    use layer2::{Event as E, Medium};
    of::<layer2::Segment>(vec![
        E::Attached {
            network: id(5),
            nets: vec!["10.0.0.0/24".parse().unwrap(), "2001:db8::/64".parse().unwrap()],
        },
        E::Changed {
            name: Some("blue".into()),
            mtu: Some(9_000),
            medium: Some(Medium::Ovs { vlan: Some(7) }),
            bridge: Some("br-int".into()),
        },
        E::Defined {
            name: "green".into(),
            project: Some(id(2)),
            medium: Medium::Vlan { id: 7 },
            bridge: "br0".into(),
            mtu: 1_500,
        },
        E::Detached { network: id(5) },
        E::Retired {},
    ])
}

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
        host(),
        of::<image::Image>(vec![
            image::Event::Abandoned {},
            image::Event::Defined(serde_json::from_value(image_of(400)).unwrap()),
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

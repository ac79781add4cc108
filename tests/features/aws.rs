//! The same features where the cloud is not ours: commands go through the ledger, the runner and
//! the observer to the AWS provider and to a third party's stand-in. Each test has an account of
//! its own there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use adapters_clouds::{
    aws::Aws,
    http_client::HttpClient,
    testing::{Fate, Hand, Proxy},
};
use domain::{log::Record, network::security_group::SecurityGroup};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    sync::{scope, sum},
    world::{World, group, id_of},
};

const REGION: &str = "eu-central-1";
const OTHER_REGION: &str = "eu-west-1";
/// Pages of five: a handful of servers is a listing of two.
const PAGE_SIZE: usize = 5;

pub(crate) fn server_at(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is the URL of a moto server; run ./test, which starts one")
    })
}

/// The number of an account that no other test has, also where the stand-in is older than this run.
pub(crate) fn new_account() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let number = since.as_micros() as u64 + (NEXT.fetch_add(1, Ordering::Relaxed) << 32);
    format!("{:012}", number % 1_000_000_000_000)
}

fn credential(account: &str, role: &str) -> Value {
    json!({
        "access_key_id": "AKIASKYLEDGERTEST00",
        "secret_access_key": "not/a/secret+of+anybody0123456789abcdefgh",
        "role_arn": format!("arn:aws:iam::{account}:role/{role}"),
    })
}

/// One account of the stand-in, connected through a proxy, and a hand that acts past both.
struct Corner {
    world: World,
    proxy: Proxy,
    hand: Hand,
    number: String,
}

impl Corner {
    async fn new() -> Self {
        let stand_in = server_at("SKYLEDGER_TEST_AWS");
        let proxy = Proxy::start(&stand_in).await.unwrap();
        let number = new_account();
        let hand = Hand::in_account(&stand_in, &number).await.unwrap();
        let world = World::beside(vec![Arc::new(Aws::with(HttpClient::new(), PAGE_SIZE))]);
        world
            .connect_to(json!({
                "name": "shop", "provider": "aws", "endpoint": proxy.url(),
                "credential": credential(&number, "skyledger"),
            }))
            .await;
        let account = world.row(world.account).await;
        assert_eq!(account["status"], "connected", "{account}");
        assert_eq!(account["state"]["external_account"], *number);
        Self { world, proxy, hand, number }
    }

    /// With everything seen once.
    async fn synced() -> Self {
        let corner = Self::new().await;
        let scopes = corner.sync().await;
        assert!(scopes.iter().all(|scope| scope["complete"] == true), "{scopes:?}");
        corner
    }

    /// Looks at two regions: the stand-in makes a region's default things when it is first asked.
    async fn sync(&self) -> Vec<Value> {
        self.world.sync(json!({"regions": [REGION, OTHER_REGION]})).await
    }

    /// Does something in a region behind the ledger's back; the first text of this element.
    async fn by_hand(
        &self,
        region: &str,
        action: &str,
        fields: &[(&str, &str)],
        element: &str,
    ) -> String {
        let answered = self.hand.call(("ec2", region), action, fields).await.unwrap();
        assert_eq!(answered.status, 200, "{action}: {answered:?}");
        answered.first(element).unwrap_or_default().to_owned()
    }

    async fn new_server(&self, region: &str) -> String {
        let fields = [("ImageId", "ami-12345678"), ("MinCount", "1"), ("MaxCount", "1")];
        self.by_hand(region, "RunInstances", &fields, "instanceId").await
    }

    async fn vpc(&self) -> String {
        let rows = self.world.rows("vpc").await;
        let row = rows.iter().find(|row| row.body["region"] == REGION).unwrap();
        row.body["external_id"].as_str().unwrap().to_owned()
    }

    /// Declares a group and lets it be made.
    async fn declared(&self, ports: &[u16]) -> Uuid {
        let spec = group("web", &self.vpc().await, ports);
        let body = json!({"account": self.world.account, "region": REGION, "spec": spec});
        let id = self.world.send("security-group", None, "declare", body).await.unwrap().id;
        self.world.settle().await;
        id
    }

    async fn order(&self, kind: &str, id: Uuid, verb: &str, body: Value) -> Value {
        self.world.send(kind, id, verb, body).await.unwrap();
        self.world.settle().await;
        self.world.row(id).await
    }

    async fn external_id(&self, id: Uuid) -> String {
        self.world.row(id).await["external_id"].as_str().unwrap().to_owned()
    }

    /// Somebody opens a port in a group.
    async fn open(&self, group: &str, port: &str) {
        let fields = [
            ("GroupId", group),
            ("IpPermissions.1.IpProtocol", "tcp"),
            ("IpPermissions.1.FromPort", port),
            ("IpPermissions.1.ToPort", port),
            ("IpPermissions.1.IpRanges.1.CidrIp", "192.0.2.0/24"),
        ];
        self.by_hand(REGION, "AuthorizeSecurityGroupIngress", &fields, "return").await;
    }

    /// The ports that a group really opens, in their order; none when there is no such group.
    async fn ports(&self, group: &str) -> Option<Vec<u16>> {
        let fields = [("GroupId.1", group)];
        let answered =
            self.hand.call(("ec2", REGION), "DescribeSecurityGroups", &fields).await.unwrap();
        if answered.status != 200 {
            assert!(answered.xml.contains("InvalidGroup.NotFound"), "{answered:?}");
            return None;
        }
        let ingress = answered.xml.split("<ipPermissions>").nth(1).unwrap_or_default();
        let mut ports: Vec<u16> = ingress
            .split("</ipPermissions>")
            .next()
            .unwrap_or_default()
            .split("<fromPort>")
            .skip(1)
            .map(|rest| rest.split('<').next().unwrap().parse().unwrap())
            .collect();
        ports.sort_unstable();
        Some(ports)
    }
}

fn types(records: &[Record]) -> Vec<&str> {
    records.iter().map(Record::event_type).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_look_at_an_unchanged_account_writes_nothing_about_resources() {
    let corner = Corner::new().await;
    for region in [REGION, OTHER_REGION] {
        corner.new_server(region).await;
    }
    let first = corner.sync().await;
    assert!(sum(&first, "discovered") > 20, "{first:?}");
    for kind in ["disk", "network", "region", "security-group", "server", "vpc", "zone"] {
        assert!(!corner.world.rows(kind).await.is_empty(), "{kind}");
    }
    let before = corner.world.log.head().await.unwrap().position;
    let scopes = corner.sync().await;
    assert!(scopes.iter().all(|scope| scope["complete"] == true), "{scopes:?}");
    assert_eq!(sum(&scopes, "listed"), sum(&first, "listed"));
    assert_eq!(corner.world.resource_events_after(before).await, vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_declared_drifts_by_field_and_is_reapplied_and_retired() {
    let corner = Corner::synced().await;
    let id = corner.declared(&[80]).await;
    let row = corner.world.row(id).await;
    assert_eq!(row["status"], "linked", "{row}");
    let external_id = corner.external_id(id).await;
    assert_eq!(corner.ports(&external_id).await.unwrap(), [80]);
    // The next look does not take it for something new.
    let scopes = corner.sync().await;
    assert_eq!((sum(&scopes, "discovered"), sum(&scopes, "changed")), (0, 0));

    corner.open(&external_id, "22").await;
    corner.sync().await;
    corner.sync().await;
    let row = corner.world.row(id).await;
    assert_eq!(row["status"], "drifted");
    assert_eq!(row["drift"].as_array().unwrap().len(), 1, "{row}");
    assert_eq!(row["drift"][0]["field"], "rules.ingress tcp 22 192.0.2.0/24");
    assert_eq!(row["drift"][0]["wanted"], Value::Null);
    assert_eq!(corner.ports(&external_id).await.unwrap(), [22, 80], "nothing was removed");
    let history = corner.world.history("security-group", id).await;
    assert_eq!(types(&history), ["declared", "linked", "drifted"], "the same drift is one event");

    // A change of ours leaves alone what is not ours.
    let spec = group("web", &corner.vpc().await, &[443]);
    let row = corner.order("security-group", id, "declare", json!({"spec": spec})).await;
    assert_eq!(corner.ports(&external_id).await.unwrap(), [22, 443]);
    assert_eq!(row["status"], "drifted");

    let row = corner.order("security-group", id, "reapply", json!({})).await;
    assert_eq!(corner.ports(&external_id).await.unwrap(), [443]);
    assert_eq!(row["status"], "linked");

    let row = corner.order("security-group", id, "retire", json!({})).await;
    assert_eq!(row["status"], "retired");
    assert_eq!(corner.ports(&external_id).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_muted_wakes_when_it_changes_and_is_accepted() {
    let corner = Corner::synced().await;
    let id = corner.declared(&[80]).await;
    let external_id = corner.external_id(id).await;
    corner.open(&external_id, "22").await;
    corner.sync().await;
    corner.order("security-group", id, "mute", json!({"reason": "known"})).await;
    corner.sync().await;
    assert_eq!(corner.world.row(id).await["status"], "muted");
    corner.open(&external_id, "23").await;
    corner.sync().await;
    assert_eq!(corner.world.row(id).await["status"], "drifted");

    let row = corner.order("security-group", id, "accept", json!({})).await;
    assert_eq!(row["status"], "linked");
    corner.sync().await;
    let row = corner.world.row(id).await;
    assert_eq!(row["status"], "linked");
    assert_eq!(row["state"]["seen"], row["state"]["wanted"]);
    assert_eq!(corner.ports(&external_id).await.unwrap(), [22, 23, 80]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_found_is_adopted_and_changed() {
    let corner = Corner::synced().await;
    let vpc = corner.vpc().await;
    let fields = [("GroupName", "found"), ("GroupDescription", "by hand"), ("VpcId", vpc.as_str())];
    let external_id = corner.by_hand(REGION, "CreateSecurityGroup", &fields, "groupId").await;
    corner.open(&external_id, "22").await;
    corner.sync().await;
    let row = corner.world.external("security-group", &external_id).await;
    assert_eq!(row["status"], "discovered");
    let id = id_of(&row);
    assert_eq!(corner.order("security-group", id, "adopt", json!({})).await["status"], "linked");

    let row = corner.world.row(id).await;
    let mut wanted: SecurityGroup = serde_json::from_value(row["state"]["wanted"].clone()).unwrap();
    let port = wanted.rules.iter_mut().find_map(|rule| rule.ports.as_mut()).unwrap();
    (port.from, port.to) = (8022, 8022);
    let row = corner.order("security-group", id, "declare", json!({"spec": wanted})).await;
    assert_eq!(row["status"], "linked", "{row}");
    assert_eq!(corner.ports(&external_id).await.unwrap(), [8022]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_answers_403_loses_nothing_and_is_named() {
    let corner = Corner::new().await;
    let (here, there) = (corner.new_server(REGION).await, corner.new_server(OTHER_REGION).await);
    corner.sync().await;
    for (region, id) in [(REGION, &here), (OTHER_REGION, &there)] {
        corner.by_hand(region, "TerminateInstances", &[("InstanceId.1", id)], "name").await;
    }
    corner.proxy.script(|call| {
        if call.region == OTHER_REGION {
            Fate::refuse(403, "UnauthorizedOperation")
        } else {
            Fate::Forward
        }
    });
    let scopes = corner.sync().await;
    assert!(corner.proxy.broken() > 0);
    for row in &scopes {
        assert_eq!(row["complete"], row["region"] != OTHER_REGION, "{row}");
    }
    let denied = scope(&scopes, "server", OTHER_REGION);
    assert!(denied["fault"].as_str().unwrap().contains("UnauthorizedOperation"), "{denied}");
    // Both are gone; only of one it may be said.
    assert_eq!(corner.world.external("server", &here).await["status"], "gone");
    assert_ne!(corner.world.external("server", &there).await["status"], "gone");
    let row = corner.world.row(corner.world.account).await;
    assert_eq!(row["state"]["last_run"]["complete"], false, "{row}");

    corner.proxy.heal();
    corner.sync().await;
    assert_eq!(corner.world.external("server", &there).await["status"], "gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_page_concludes_nothing() {
    let corner = Corner::new().await;
    let mut servers = Vec::new();
    for _ in 0..=PAGE_SIZE {
        servers.push(corner.new_server(REGION).await);
    }
    corner.sync().await;
    assert_eq!(corner.world.rows("server").await.len(), servers.len());
    let fields = [("InstanceId.1", servers[0].as_str())];
    corner.by_hand(REGION, "TerminateInstances", &fields, "name").await;
    corner.proxy.script(|call| {
        if call.action == "DescribeInstances" && call.form.contains_key("NextToken") {
            Fate::CutAnswer
        } else {
            Fate::Forward
        }
    });
    let scopes = corner.sync().await;
    assert!(corner.proxy.broken() > 0, "the second page was asked for and cut");
    let cut = scope(&scopes, "server", REGION);
    assert_eq!((&cut["complete"], &cut["vanished"]), (&json!(false), &json!(0)));
    assert!(cut["listed"].as_u64().unwrap() > 0, "the first page came: {cut}");
    assert_ne!(corner.world.external("server", &servers[0]).await["status"], "gone");

    corner.proxy.heal();
    assert_eq!(scope(&corner.sync().await, "server", REGION)["vanished"], 1);
    assert_eq!(corner.world.external("server", &servers[0]).await["status"], "gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_vanishes_with_evidence_and_comes_back_under_its_id() {
    let corner = Corner::new().await;
    let zone = format!("{REGION}a");
    let fields = [("AvailabilityZone", zone.as_str()), ("Size", "8")];
    let external_id = corner.by_hand(REGION, "CreateVolume", &fields, "volumeId").await;
    corner.sync().await;
    let id = id_of(&corner.world.external("disk", &external_id).await);

    // The stand-in gives no id a second time, so the proxy hides the disk for a while.
    corner.proxy.script(|call| {
        if call.region != REGION || call.action != "DescribeVolumes" {
            Fate::Forward
        } else if call.form.contains_key("VolumeId.1") {
            Fate::refuse(400, "InvalidVolume.NotFound")
        } else {
            let body = "<DescribeVolumesResponse><volumeSet/></DescribeVolumesResponse>".into();
            Fate::Answer { status: 200, retry_after: None, body }
        }
    });
    assert_eq!(sum(&corner.sync().await, "vanished"), 1);
    let gone = corner.world.row(id).await;
    assert_eq!(gone["status"], "gone");
    assert_eq!(gone["state"]["gone"]["complete-listing"]["listed"], 0, "{gone}");

    corner.proxy.heal();
    corner.sync().await;
    let back = corner.world.external("disk", &external_id).await;
    assert_eq!(id_of(&back), id);
    assert_ne!(back["status"], "gone");
    assert_eq!(corner.world.history("disk", id).await.len(), 3);

    // And what is really deleted there is gone for good.
    corner.by_hand(REGION, "DeleteVolume", &[("VolumeId", &external_id)], "return").await;
    assert_eq!(sum(&corner.sync().await, "vanished"), 1);
    assert_eq!(corner.world.row(id).await["status"], "gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_credential_is_taken_for_the_same_account_and_refused_for_another() {
    let corner = Corner::new().await;
    let account = corner.world.account;
    let update = async |credential: Value| {
        let body = json!({"credential": credential});
        let row = corner.order("cloud-account", account, "update-credential", body).await;
        assert_eq!(row["status"], "connected", "{row}");
        assert_eq!(row["state"]["external_account"], *corner.number);
        let history = corner.world.history("cloud-account", account).await;
        (row, types(&history).last().map(|last| (*last).to_owned()))
    };
    let (row, _) = update(credential(&corner.number, "auditor")).await;
    let principal = row["state"]["principal"].as_str().unwrap().to_owned();
    assert!(principal.contains(":assumed-role/auditor/"), "{principal}");

    let other = new_account();
    let (row, last) = update(credential(&other, "auditor")).await;
    assert_eq!(last.as_deref(), Some("credential-refused"));
    assert_eq!(row["state"]["principal"], *principal, "the old one stays");
    let records = corner.world.history("cloud-account", account).await;
    let data: Value = serde_json::from_slice(records.last().unwrap().data()).unwrap();
    assert!(data["reason"].as_str().unwrap().contains(&other), "{data}");
    // And it still works.
    let scopes = corner.sync().await;
    assert!(scopes.iter().all(|scope| scope["complete"] == true), "{scopes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_stopped_started_rebooted_and_tagged() {
    let corner = Corner::new().await;
    let external_id = corner.new_server(REGION).await;
    corner.sync().await;
    let id = id_of(&corner.world.external("server", &external_id).await);
    for (verb, body, status, call) in [
        ("reboot", json!({}), "running", "RebootInstances"),
        ("stop", json!({}), "stopped", "StopInstances"),
        ("start", json!({}), "running", "StartInstances"),
        ("tag", json!({"tags": {"owner": "shop"}}), "running", "CreateTags"),
    ] {
        let before = corner.proxy.calls().len();
        let row = corner.order("server", id, verb, body).await;
        // What the next look shows is what is there, whatever the order's report said.
        corner.sync().await;
        assert_eq!(corner.world.row(id).await["status"], status, "after {verb}: {row}");
        let calls = corner.proxy.calls();
        let made = calls[before..].iter().filter(|seen| seen.action == call).count();
        assert_eq!(made, 1, "{verb} is one {call}");
    }
    let row = corner.world.row(id).await;
    assert_eq!(row["tags"], json!({"owner": "shop"}), "{row}");
    let fields = [("Filter.1.Name", "tag:owner"), ("Filter.1.Value.1", "shop")];
    let found = corner.by_hand(REGION, "DescribeInstances", &fields, "instanceId").await;
    assert_eq!(found, external_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_aws_would_refuse_is_refused_before_anything_is_written() {
    let corner = Corner::new().await;
    let server = corner.new_server(REGION).await;
    corner.sync().await;
    let server = id_of(&corner.world.external("server", &server).await);
    let head = corner.world.log.head().await.unwrap();
    let calls = corner.proxy.calls().len();
    let no = async |kind: &str, id: Option<Uuid>, verb: &str, body: Value, expected: &str| {
        let refused = corner.world.send(kind, id, verb, body).await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    };
    let vpc = corner.vpc().await;
    let declare = async |rules: Vec<Value>, expected: &str| {
        let mut spec = group("web", &vpc, &[]);
        spec["rules"] = json!(rules);
        let body = json!({"account": corner.world.account, "region": REGION, "spec": spec});
        no("security-group", None, "declare", body, expected).await;
    };
    let own = format!("{}/sg-0123456789abcdef0", corner.number);
    let rule = |peer: Value, port: usize, direction: &str| json!({"direction": direction, "protocol": "tcp", "ports": port.to_string(), "peer": peer});
    declare(vec![rule(json!({"group": own}), 22, "ingress")], "leave out").await;
    let egress = |port| rule(json!({"cidr": "10.0.0.0/8"}), port, "egress");
    declare((1..=60).map(egress).collect(), "61 egress rules for IPv4").await;
    let tags = json!({"tags": {"aws:owner": "shop"}});
    no("server", Some(server), "tag", tags, "AWS keeps tags").await;
    let settings = json!({"settings": {"rules_per_group_max": 0}});
    no("cloud-account", Some(corner.world.account), "configure", settings, "1 to 1000").await;
    assert_eq!(corner.world.log.head().await.unwrap(), head);
    assert_eq!(corner.proxy.calls().len(), calls, "AWS was not asked");

    // An account whose quota is another: more than it is refused, and what fits is not.
    let settings = json!({"settings": {"rules_per_group_max": 40}});
    corner.order("cloud-account", corner.world.account, "configure", settings).await;
    declare((1..=40).map(egress).collect(), "AWS takes 40").await;
    let mut spec = group("web", &vpc, &[]);
    spec["rules"] = json!((1..=39).map(egress).collect::<Vec<_>>());
    let body = json!({"account": corner.world.account, "region": REGION, "spec": spec});
    let id = corner.world.send("security-group", None, "declare", body).await.unwrap().id;
    corner.world.settle().await;
    assert_eq!(corner.world.row(id).await["status"], "linked");
}

/// On a stand-in that checks signatures and permissions, and has one account.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_credential_may_not_do_is_denied_by_kind_and_a_wrong_one_altogether() {
    let url = server_at("SKYLEDGER_TEST_AWS_AUTH");
    let hand = Hand::new(&url);
    hand.unchecked_calls(1_000_000_000).await.unwrap();
    let user = format!("reader-{}", new_account());
    let iam = async |action: &str, fields: &[(&str, &str)]| {
        let answered = hand.call(("iam", "us-east-1"), action, fields).await.unwrap();
        assert_eq!(answered.status, 200, "{action}: {answered:?}");
        answered
    };
    iam("CreateUser", &[("UserName", &user)]).await;
    let key = iam("CreateAccessKey", &[("UserName", &user)]).await;
    let policy = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Resource": "*", "Action": [
            "ec2:DescribeAvailabilityZones", "ec2:DescribeInstances", "ec2:DescribeRegions",
            "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs",
            "s3:ListBucket",
        ],
    }]})
    .to_string();
    let fields = [("UserName", user.as_str()), ("PolicyName", "p"), ("PolicyDocument", &policy)];
    iam("PutUserPolicy", &fields).await;
    let bucket = format!("bills-{}", new_account());
    hand.object("PUT", &bucket, vec![]).await.unwrap();
    hand.object("PUT", &format!("{bucket}/a b+ü=1.csv"), b"x".to_vec()).await.unwrap();
    hand.unchecked_calls(0).await.unwrap();

    let connected = async |secret: &str| {
        let world = World::beside(vec![Arc::new(Aws::new())]);
        let id = key.first("AccessKeyId").unwrap();
        let credential = json!({"access_key_id": id, "secret_access_key": secret});
        world
            .connect_to(json!({
                "name": "shop", "provider": "aws", "endpoint": url, "credential": credential,
            }))
            .await;
        let status = world.row(world.account).await["status"].clone();
        (world, status)
    };
    let secret = key.first("SecretAccessKey").unwrap().to_owned();
    let (world, status) = connected(&secret).await;
    assert_eq!(status, "connected");
    let scopes = world.sync(json!({"regions": [REGION]})).await;
    for row in &scopes {
        assert_eq!(row["complete"], row["kind"] != "disk", "{row}");
    }
    assert!(!world.rows("vpc").await.is_empty());
    let wrong = "wrong/wrong/wrong/wrong/wrong/wrong/1234";
    let (_, status) = connected(wrong).await;
    assert_eq!(status, "denied");

    // Of bills it may see what lies there, and read none of it; with a wrong secret not even that.
    for (secret, call, code) in
        [(secret.as_str(), "GetObject", "AccessDenied"), (wrong, "ListObjectsV2", "Signature")]
    {
        let credential = json!({
            "access_key_id": key.first("AccessKeyId").unwrap(), "secret_access_key": secret,
        });
        let place = json!({"bucket": bucket, "endpoint": url, "prefix": "a b+"});
        let body = json!({"name": "bills", "place": place, "credential": credential});
        let source = world.send("bill-source", None, "define", body).await.unwrap().id;
        world.send("bill-source", source, "pull", json!({})).await.unwrap();
        world.settle().await;
        let last = world.row(source).await["state"]["last_pull"].clone();
        assert_eq!(last["failed"], "denied", "{last}");
        let reason = last["reason"].as_str().unwrap();
        assert!(reason.contains(call) && reason.contains(code), "{reason}");
        assert!(!reason.contains(secret), "{reason}");
    }
}

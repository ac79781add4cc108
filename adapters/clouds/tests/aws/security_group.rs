//! Orders of a security group: once, whatever breaks, and never a moment at which something that
//! is allowed before and after is blocked.

use std::collections::BTreeSet;

use adapters_clouds::testing::{Fate, Proxy};
use commands::ports::Provider;
use domain::{
    mapping::Spec,
    network::security_group::{Rule, SecurityGroup},
};
use serde_json::{Value, json};

use crate::world::{World, first, new_id, stand_in, unique, word};

fn rule(text: &str) -> Rule {
    let parts: Vec<&str> = text.split(' ').collect();
    let peer = if parts[3].starts_with("sg-") { "group" } else { "cidr" };
    let ports = (parts[2] != "all").then_some(parts[2]);
    serde_json::from_value(json!({
        "direction": parts[0], "protocol": parts[1], "ports": ports, "peer": {peer: parts[3]},
        "description": parts.get(4).copied().unwrap_or_default(),
    }))
    .unwrap()
}

fn group(name: &str, vpc: &str, rules: &[&str]) -> SecurityGroup {
    SecurityGroup {
        name: name.into(),
        description: "made by a test".into(),
        vpc: Some(vpc.into()),
        rules: rules.iter().copied().map(rule).collect(),
        tags: [("team".to_owned(), "shop".to_owned())].into(),
    }
    .normalise()
}

fn texts(group: &SecurityGroup) -> BTreeSet<String> {
    group
        .rules
        .iter()
        .map(|rule| format!("{rule} {}", rule.description).trim().to_owned())
        .collect()
}

fn create(spec: &SecurityGroup) -> Value {
    json!({"type": "create", "data": {"spec": spec}})
}

fn apply(from: &SecurityGroup, to: &SecurityGroup) -> Value {
    json!({"type": "apply", "data": {"from": from, "to": to}})
}

fn delete() -> Value {
    json!({"type": "delete", "data": {}})
}

/// The actions that change something, in their order.
fn changes(proxy: &Proxy) -> Vec<String> {
    let calls = proxy.calls().into_iter().map(|call| call.action);
    calls.filter(|action| !action.starts_with("Describe")).collect()
}

const WANTED: &[&str] = &[
    "ingress tcp 443 0.0.0.0/0 the-world",
    "ingress tcp 443 2001:db8::/32",
    "ingress tcp 8000-8080 10.0.0.0/8",
    "ingress udp all 10.0.0.0/8",
    "ingress icmp all 0.0.0.0/0",
    "ingress any all 10.9.0.0/16",
    "egress tcp 5432 10.0.0.0/8 database",
];

#[tokio::test]
async fn a_group_is_created_as_wanted_changed_and_deleted_each_once() {
    let proxy = Proxy::start(&stand_in()).await.unwrap();
    let world = World::through("us-west-1", proxy.url());
    let (vpc, stream, name) = (world.vpc().await, new_id(), format!("web {}", unique()));
    let peer_name = format!("peer {}", unique());
    let fields =
        [("GroupName", peer_name.as_str()), ("GroupDescription", "x"), ("VpcId", vpc.as_str())];
    let peer = first(&world.hand("CreateSecurityGroup", &fields).await, "groupId");
    let peer_rule = format!("ingress tcp 22 {peer}");
    let spec = group(&name, &vpc, &[WANTED, &[&peer_rule]].concat());

    let task = world.task("security-group", stream, "", create(&spec));
    let planned: Vec<String> = world.aws.calls(&task).into_iter().map(|call| call.call).collect();
    let report = world.carry_out(&task).await.unwrap();
    assert_eq!(report["verb"], "link");
    let id = report["body"]["external_id"].as_str().unwrap().to_owned();
    // The rule that AWS puts into a new group is gone, since nobody wanted it.
    let seen: SecurityGroup = serde_json::from_value(report["body"]["seen"].clone()).unwrap();
    assert_eq!(texts(&seen), texts(&spec));
    assert_eq!(seen, spec);
    let done: Vec<String> = changes(&proxy).iter().map(|call| format!("ec2:{call}")).collect();
    assert_eq!(done, planned, "the plan named the calls");
    let calls = done.len();
    assert_eq!(world.carry_out(&task).await.unwrap(), report);
    assert_eq!(changes(&proxy).len(), calls, "the second time changes nothing");
    let sighting = world.find("security-group", &id).await.unwrap().unwrap();
    assert_eq!(sighting.ours, Some(stream));

    let mut to = spec.clone();
    to.rules.retain(|rule| rule.direction == domain::network::security_group::Direction::Ingress);
    to.rules.push(rule("ingress tcp 444 10.0.0.0/8"));
    to.rules.push(rule("egress any all 0.0.0.0/0"));
    to.rules[0].description = "another".into();
    to.tags = [("stage".to_owned(), "live".to_owned())].into();
    let to = to.normalise();
    let mut task = world.task("security-group", stream, &id, apply(&spec, &to));
    task.key.number = 2;
    let planned = world.aws.calls(&task).len();
    let report = world.carry_out(&task).await.unwrap();
    assert_eq!(report["verb"], "confirm-applied");
    let seen: SecurityGroup = serde_json::from_value(report["body"]["seen"].clone()).unwrap();
    assert_eq!(texts(&seen), texts(&to));
    assert_eq!(seen, to);
    assert_eq!(changes(&proxy).len(), calls + planned);
    assert_eq!(world.carry_out(&task).await.unwrap(), report);
    assert_eq!(changes(&proxy).len(), calls + planned);

    let mut task = world.task("security-group", stream, &id, delete());
    task.key.number = 3;
    for _ in 0..2 {
        assert_eq!(world.carry_out(&task).await.unwrap()["verb"], "confirm-deleted");
    }
    assert_eq!(world.group(&id).await, None);
}

#[tokio::test]
async fn wherever_a_creation_breaks_asking_again_ends_in_exactly_one_right_group() {
    for fate in [Fate::DropBefore, Fate::DropAfter, Fate::throttle(1), Fate::CutAnswer] {
        let mut hit = 0;
        for nth in 1.. {
            let proxy = Proxy::start(&stand_in()).await.unwrap();
            let world = World::through("us-west-2", proxy.url());
            let (vpc, name) = (world.vpc().await, format!("web {}", unique()));
            let spec = group(&name, &vpc, WANTED);
            let task = world.task("security-group", new_id(), "", create(&spec));
            proxy.script_nth(nth, fate.clone());
            let first = world.carry_out(&task).await;
            if proxy.broken() == 0 {
                break;
            }
            hit += 1;
            assert!(matches!(word(&first.unwrap_err()), "transient" | "throttled"));
            let report = world.carry_out(&task).await.unwrap();
            assert_eq!(world.groups_named(&name).await.len(), 1, "{fate:?} at call {nth}");
            let seen: SecurityGroup =
                serde_json::from_value(report["body"]["seen"].clone()).unwrap();
            assert_eq!(seen, spec, "{fate:?} at call {nth}");
            let made = changes(&proxy).iter().filter(|call| *call == "CreateSecurityGroup").count();
            assert!(made <= 2, "made {made} times");
        }
        // Look up, create, look, add ingress, add egress, remove, look.
        assert_eq!(hit, 7, "{fate:?}");
    }
}

#[tokio::test]
async fn wherever_a_change_breaks_what_both_sides_allow_stays_allowed_and_others_rules_stay() {
    let both = ["ingress tcp 443 10.0.0.0/8", "egress tcp 443 10.0.0.0/8"];
    let old = ["ingress tcp 80 10.0.0.0/8", "egress tcp 80 10.0.0.0/8"];
    let new = ["ingress tcp 81 10.0.0.0/8", "egress tcp 81 10.0.0.0/8"];
    for fate in [Fate::DropBefore, Fate::DropAfter, Fate::throttle(1), Fate::CutAnswer] {
        let mut hit = 0;
        for nth in 1.. {
            let proxy = Proxy::start(&stand_in()).await.unwrap();
            let world = World::through("us-east-2", proxy.url());
            let (vpc, name, stream) = (world.vpc().await, format!("web {}", unique()), new_id());
            let from = group(&name, &vpc, &[both, old].concat());
            let to = group(&name, &vpc, &[both, new].concat());
            let made = world
                .carry_out(&world.task("security-group", stream, "", create(&from)))
                .await
                .unwrap();
            let id = made["body"]["external_id"].as_str().unwrap().to_owned();
            // Somebody else adds a rule after the order was decided.
            world
                .hand(
                    "AuthorizeSecurityGroupIngress",
                    &[
                        ("GroupId", &id),
                        ("IpPermissions.1.IpProtocol", "tcp"),
                        ("IpPermissions.1.FromPort", "22"),
                        ("IpPermissions.1.ToPort", "22"),
                        ("IpPermissions.1.IpRanges.1.CidrIp", "192.0.2.7/32"),
                    ],
                )
                .await;
            let theirs = "ingress tcp 22 192.0.2.7/32".to_owned();
            let mut task = world.task("security-group", stream, &id, apply(&from, &to));
            task.key.number = 2;
            let before = proxy.broken();
            proxy.script_nth(nth, fate.clone());
            let first = world.carry_out(&task).await;
            let now = texts(&world.group(&id).await.unwrap());
            for kept in both.iter().map(|rule| (*rule).to_owned()).chain([theirs.clone()]) {
                assert!(now.contains(&kept), "{fate:?} at call {nth}: {kept} is not in {now:?}");
            }
            let all_new = new.iter().all(|rule| now.contains(*rule));
            let all_old = old.iter().all(|rule| now.contains(*rule));
            assert!(all_new || all_old, "{fate:?} at call {nth}: removed before added: {now:?}");
            if proxy.broken() == before {
                break;
            }
            hit += 1;
            assert!(matches!(word(&first.unwrap_err()), "transient" | "throttled"));
            let report = world.carry_out(&task).await.unwrap();
            let seen: SecurityGroup =
                serde_json::from_value(report["body"]["seen"].clone()).unwrap();
            let mut expected = texts(&to);
            expected.insert(theirs);
            assert_eq!(texts(&seen), expected, "{fate:?} at call {nth}");
        }
        // Look, add ingress, add egress, remove ingress, remove egress, look.
        assert_eq!(hit, 6, "{fate:?}");
    }
}

#[tokio::test]
async fn rules_that_came_or_went_behind_our_back_count_as_done() {
    let proxy = Proxy::start(&stand_in()).await.unwrap();
    let world = World::through("us-west-1", proxy.url());
    let (vpc, name, stream) = (world.vpc().await, format!("web {}", unique()), new_id());
    let from = group(&name, &vpc, &["ingress tcp 80 10.0.0.0/8", "ingress tcp 90 10.0.0.0/8"]);
    let to = group(&name, &vpc, &["ingress tcp 81 10.0.0.0/8", "ingress tcp 91 10.0.0.0/8"]);
    let made = world.carry_out(&world.task("security-group", stream, "", create(&from))).await;
    let id = made.unwrap()["body"]["external_id"].as_str().unwrap().to_owned();
    // Between our look and our calls somebody adds one of the new rules and removes an old one:
    // the first call of each kind is answered as AWS then answers.
    let mut told = BTreeSet::new();
    proxy.script(move |call| match call.action.as_str() {
        "AuthorizeSecurityGroupIngress" if told.insert(1) => {
            Fate::refuse(400, "InvalidPermission.Duplicate")
        }
        "RevokeSecurityGroupIngress" if told.insert(2) => {
            Fate::refuse(400, "InvalidPermission.NotFound")
        }
        _ => Fate::Forward,
    });
    let task = world.task("security-group", stream, &id, apply(&from, &to));
    world.carry_out(&task).await.unwrap();
    assert_eq!(proxy.broken(), 2);
    assert_eq!(world.group(&id).await.unwrap(), to);
}

/// An answer of AWS whose index does not show a new group yet.
fn empty_listing() -> Fate {
    let body = "<DescribeSecurityGroupsResponse><securityGroupInfo/>\
                </DescribeSecurityGroupsResponse>";
    Fate::Answer { status: 200, retry_after: None, body: body.into() }
}

#[tokio::test]
async fn a_lost_creation_whose_tag_is_not_shown_yet_is_found_by_its_name() {
    let proxy = Proxy::start(&stand_in()).await.unwrap();
    let world = World::through("us-west-1", proxy.url());
    let (vpc, name) = (world.vpc().await, format!("web {}", unique()));
    let spec = group(&name, &vpc, WANTED);
    let task = world.task("security-group", new_id(), "", create(&spec));
    proxy.script_nth(2, Fate::DropAfter);
    world.carry_out(&task).await.unwrap_err();
    // Neither tag nor name are shown yet: that is a reason to ask again later, not to give up.
    proxy.script(|call| match call.action.as_str() {
        "DescribeSecurityGroups" => empty_listing(),
        _ => Fate::Forward,
    });
    assert_eq!(word(&world.carry_out(&task).await.unwrap_err()), "transient");
    proxy.script_nth(1, empty_listing());
    world.carry_out(&task).await.unwrap();
    assert_eq!(world.groups_named(&name).await.len(), 1);
    // And a group of somebody else with that name is not ours to take.
    let other = world.task("security-group", new_id(), "", create(&spec));
    assert_eq!(word(&world.carry_out(&other).await.unwrap_err()), "rejected");
}

#[tokio::test]
async fn a_group_that_aws_does_not_show_right_after_making_it_is_asked_for_again() {
    let proxy = Proxy::start(&stand_in()).await.unwrap();
    let world = World::through("us-west-1", proxy.url());
    let (vpc, name) = (world.vpc().await, format!("web {}", unique()));
    let spec = group(&name, &vpc, WANTED);
    let task = world.task("security-group", new_id(), "", create(&spec));
    // The third call is the look after the creation.
    proxy.script_nth(3, Fate::refuse(400, "InvalidGroup.NotFound"));
    assert_eq!(word(&world.carry_out(&task).await.unwrap_err()), "transient");
    world.carry_out(&task).await.unwrap();
    assert_eq!(world.groups_named(&name).await.len(), 1);
}

#[tokio::test]
async fn a_group_in_use_is_not_deleted_and_one_that_is_gone_is_not_changed() {
    let proxy = Proxy::start(&stand_in()).await.unwrap();
    let world = World::through("us-west-1", proxy.url());
    let (vpc, name, stream) = (world.vpc().await, format!("web {}", unique()), new_id());
    let spec = group(&name, &vpc, WANTED);
    let made = world.carry_out(&world.task("security-group", stream, "", create(&spec))).await;
    let id = made.unwrap()["body"]["external_id"].as_str().unwrap().to_owned();
    // The stand-in deletes a group in use; AWS does not.
    proxy.script_nth(1, Fate::refuse(400, "DependencyViolation"));
    let deletion = world.task("security-group", stream, &id, delete());
    let fault = world.carry_out(&deletion).await.unwrap_err();
    assert_eq!((word(&fault), proxy.broken()), ("rejected", 1), "{fault}");
    assert!(world.group(&id).await.is_some());
    let absent = world.task("security-group", stream, "sg-0123456789abcdef0", apply(&spec, &spec));
    assert_eq!(word(&world.carry_out(&absent).await.unwrap_err()), "not found");
}

#[tokio::test]
async fn more_rules_than_a_call_takes_go_out_in_batches() {
    let proxy = Proxy::start(&stand_in()).await.unwrap();
    let world = World::through("us-west-1", proxy.url());
    let (vpc, name) = (world.vpc().await, format!("web {}", unique()));
    let rules: Vec<String> = (1..=60).map(|n| format!("ingress tcp {n} 10.0.0.0/8")).collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let spec = group(&name, &vpc, &rules);
    let value = serde_json::to_value(&spec).unwrap();
    assert_eq!(world.aws.check_spec("security-group", &value, None), Ok(()));
    let report = world.carry_out(&world.task("security-group", new_id(), "", create(&spec))).await;
    let seen: SecurityGroup =
        serde_json::from_value(report.unwrap()["body"]["seen"].clone()).unwrap();
    assert_eq!(seen, spec);
    let adds = changes(&proxy);
    let adds = adds.iter().filter(|call| *call == "AuthorizeSecurityGroupIngress").count();
    assert_eq!(adds, 2);
}

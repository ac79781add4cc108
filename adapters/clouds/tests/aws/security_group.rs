//! Orders of a security group: once, whatever breaks, and never a moment at which something that
//! is allowed before and after is blocked.

use std::collections::BTreeSet;

use adapters_clouds::testing::{Fate, Proxy};
use commands::ports::Provider;
use domain::{
    mapping::Spec,
    network::security_group::{Peer, Rule, SecurityGroup},
};
use serde_json::{Value, json};

use crate::world::{ACCOUNT, World, first, new_id, stand_in, unique, word};

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

/// A group that somebody else made.
async fn a_group(world: &World, vpc: &str) -> String {
    let name = format!("peer {}", unique());
    let fields = [("GroupName", name.as_str()), ("GroupDescription", "x"), ("VpcId", vpc)];
    first(&world.hand("CreateSecurityGroup", &fields).await, "groupId")
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
    let peer_rule = format!("ingress tcp 22 {}", a_group(&world, &vpc).await);
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
    let planned: Vec<String> = world.aws.calls(&task).into_iter().map(|call| call.call).collect();
    let report = world.carry_out(&task).await.unwrap();
    assert_eq!(report["verb"], "confirm-applied");
    let seen: SecurityGroup = serde_json::from_value(report["body"]["seen"].clone()).unwrap();
    assert_eq!(texts(&seen), texts(&to));
    assert_eq!(seen, to);
    let done: Vec<String> =
        changes(&proxy)[calls..].iter().map(|call| format!("ec2:{call}")).collect();
    assert_eq!(done, planned, "the plan named the calls, in their order");
    assert_eq!(world.carry_out(&task).await.unwrap(), report);
    assert_eq!(changes(&proxy).len(), calls + planned.len());

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
    assert_eq!(world.check("security-group", &create(&spec)), Ok(()));
    let report = world.carry_out(&world.task("security-group", new_id(), "", create(&spec))).await;
    let seen: SecurityGroup =
        serde_json::from_value(report.unwrap()["body"]["seen"].clone()).unwrap();
    assert_eq!(seen, spec);
    let adds = changes(&proxy);
    let adds = adds.iter().filter(|call| *call == "AuthorizeSecurityGroupIngress").count();
    assert_eq!(adds, 2);
}

#[tokio::test]
async fn a_new_group_is_refused_where_aws_has_no_room_for_it_beside_its_own_rule() {
    let world = World::new("us-west-1");
    let (vpc, name) = (world.vpc().await, format!("web {}", unique()));
    let egress = |number: u16| -> SecurityGroup {
        let rules: Vec<String> =
            (1..=number).map(|n| format!("egress tcp {n} 10.0.0.0/8")).collect();
        group(&name, &vpc, &rules.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let carry_out = async |number| {
        let order = create(&egress(number));
        let checked = world.check("security-group", &order);
        (checked, world.carry_out(&world.task("security-group", new_id(), "", order)).await)
    };
    let (checked, refused) = carry_out(60).await;
    // Without the check it would be a group with half of its rules.
    assert!(checked.unwrap_err().contains("61 egress rules for IPv4"));
    assert_eq!(word(&refused.unwrap_err()), "rejected");
    for id in world.groups_named(&name).await {
        world.hand("DeleteSecurityGroup", &[("GroupId", &id)]).await;
    }
    let (checked, made) = carry_out(59).await;
    assert_eq!(checked, Ok(()));
    made.unwrap();
}

#[tokio::test]
async fn a_peer_of_our_own_account_is_refused_with_it_in_front_and_would_lose_nothing() {
    let mut world = World::new("us-west-1");
    world.access.identity = Some(ACCOUNT.into());
    let (vpc, name, stream) = (world.vpc().await, format!("web {}", unique()), new_id());
    let peer = a_group(&world, &vpc).await;
    let plain = group(&name, &vpc, &[&format!("ingress tcp 22 {peer}")]);
    let mut spelled = plain.clone();
    spelled.rules[0].peer = Peer::Group(format!("{ACCOUNT}/{peer}"));
    let why = world.check("security-group", &create(&spelled)).unwrap_err();
    assert!(why.contains(&format!("leave out `{ACCOUNT}/`")), "{why}");
    assert_eq!(world.check("security-group", &create(&plain)), Ok(()));

    // One that is in the log from before: the rule is there, and making it again takes nothing away.
    let made = world.carry_out(&world.task("security-group", stream, "", create(&spelled))).await;
    let id = made.unwrap()["body"]["external_id"].as_str().unwrap().to_owned();
    let mut again = world.task("security-group", stream, &id, apply(&plain, &spelled));
    again.key.number = 2;
    world.carry_out(&again).await.unwrap();
    assert_eq!(world.group(&id).await.unwrap(), plain);
}

#[tokio::test]
async fn every_shape_of_a_rule_is_read_back_as_it_was_written() {
    let world = World::new("us-west-1");
    // Without addresses of its own the stand-in takes no IPv6 rule away.
    let fields = [("CidrBlock", "10.20.0.0/16"), ("AmazonProvidedIpv6CidrBlock", "true")];
    let vpc = first(&world.hand("CreateVpc", &fields).await, "vpcId");
    let (stream, name) = (new_id(), format!("web {}", unique()));
    let made = world
        .carry_out(&world.task("security-group", stream, "", create(&group(&name, &vpc, &[]))))
        .await
        .unwrap();
    let id = made["body"]["external_id"].as_str().unwrap().to_owned();
    let fields =
        [("PrefixListName", name.as_str()), ("MaxEntries", "5"), ("AddressFamily", "IPv4")];
    let list = first(&world.hand("CreateManagedPrefixList", &fields).await, "prefixListId");
    // The stand-in looks for a peer in the group's own account, and keeps the account that is named.
    let foreign = format!("210987654321/{}", a_group(&world, &vpc).await);
    let v4 = json!({"cidr": "10.0.0.0/8"});
    let v6 = json!({"cidr": "2001:db8::/32"});
    let shapes = [
        json!({"protocol": "icmp", "peer": v4}),
        json!({"protocol": "icmp", "icmp_type": 3, "peer": v4}),
        json!({"protocol": "icmp", "icmp_type": 8, "icmp_code": 0, "peer": v4}),
        json!({"protocol": "icmpv6", "icmp_type": 128, "icmp_code": 0, "peer": v6}),
        json!({"protocol": "tcp", "ports": "443", "peer": {"prefix_list": list}}),
        json!({"protocol": "tcp", "ports": "22", "peer": {"group": id}}),
        json!({"protocol": "tcp", "ports": "23", "peer": {"group": foreign}}),
        json!({"protocol": "udp", "ports": "53-54", "peer": v6}),
        json!({"protocol": "any", "peer": v6}),
    ];
    // The stand-in keeps descriptions of address blocks, and mixes up those of other peers.
    let rules = |described: &str| -> Vec<Rule> {
        let both = shapes.iter().flat_map(|shape| [(shape, "ingress"), (shape, "egress")]);
        both.map(|(shape, direction)| {
            let mut shape = shape.clone();
            shape["direction"] = json!(direction);
            if shape["peer"]["cidr"].is_string() {
                shape["description"] = json!(described);
            }
            serde_json::from_value(shape).unwrap()
        })
        .collect()
    };
    let mut now = group(&name, &vpc, &[]);
    let mut number = 1;
    for described in ["first", "second"] {
        let to = SecurityGroup { rules: rules(described), ..now.clone() }.normalise();
        assert_eq!(world.check("security-group", &apply(&now, &to)), Ok(()));
        number += 1;
        let mut task = world.task("security-group", stream, &id, apply(&now, &to));
        task.key.number = number;
        world.carry_out(&task).await.unwrap();
        let seen = world.group(&id).await.unwrap();
        assert_eq!(texts(&seen), texts(&to), "described `{described}`");
        assert_eq!(seen, to);
        now = to;
    }
    // And each of them can be taken away again.
    let to = group(&name, &vpc, &[]);
    let mut task = world.task("security-group", stream, &id, apply(&now, &to));
    task.key.number = number + 1;
    world.carry_out(&task).await.unwrap();
    assert_eq!(world.group(&id).await.unwrap(), to);
}

#[tokio::test]
async fn tags_of_aws_itself_are_no_part_of_a_group() {
    let proxy = Proxy::start(&stand_in()).await.unwrap();
    let world = World::through("us-west-1", proxy.url());
    let body = "<DescribeSecurityGroupsResponse><securityGroupInfo><item>\
                <ownerId>123456789012</ownerId><groupId>sg-0123456789abcdef0</groupId>\
                <groupName>web</groupName><groupDescription>web</groupDescription><tagSet>\
                <item><key>aws:cloudformation:stack-name</key><value>shop</value></item>\
                <item><key>team</key><value>shop</value></item></tagSet></item>\
                </securityGroupInfo></DescribeSecurityGroupsResponse>";
    proxy.script_nth(1, Fate::Answer { status: 200, retry_after: None, body: body.into() });
    let seen = world.find("security-group", "sg-0123456789abcdef0").await.unwrap().unwrap().seen;
    assert_eq!(seen["tags"], json!({"team": "shop"}));
}

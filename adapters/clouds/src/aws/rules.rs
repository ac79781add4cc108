//! Rules of a security group, in AWS's spelling and in ours.
//!
//! AWS groups rules by protocol and ports and lists peers inside; ours are one peer each. AWS says
//! "all" as `-1`, and for TCP and UDP also as the ports 0 to 65535.

use domain::network::security_group::{Action, Direction, Peer, Ports, Protocol, Rule};

use super::{
    query::Form,
    wire::{Group, Permission},
};

/// Our rules of what AWS shows; the text says what does not read.
pub(super) fn read(group: &Group) -> Result<Vec<Rule>, String> {
    let mut rules = Vec::new();
    for (direction, permissions) in [
        (Direction::Ingress, &group.ip_permissions),
        (Direction::Egress, &group.ip_permissions_egress),
    ] {
        for permission in &permissions.item {
            read_permission(direction, permission, &group.owner_id, &mut rules)?;
        }
    }
    Ok(rules)
}

fn read_permission(
    direction: Direction,
    permission: &Permission,
    owner: &str,
    rules: &mut Vec<Rule>,
) -> Result<(), String> {
    let protocol = match permission.ip_protocol.as_str() {
        "-1" | "all" => Protocol::Any,
        other => other.parse()?,
    };
    let (from, to) = (permission.from_port, permission.to_port);
    let mut rule = Rule {
        direction,
        action: Action::Allow,
        protocol,
        ports: None,
        icmp_type: None,
        icmp_code: None,
        peer: Peer::Group(String::new()),
        priority: None,
        description: String::new(),
    };
    match protocol {
        Protocol::TCP | Protocol::UDP => {
            let port = |number: Option<i32>, all: u16| match number {
                None | Some(-1) => Ok(all),
                Some(number) => u16::try_from(number).map_err(|_| format!("port {number}")),
            };
            let ports = Ports { from: port(from, 0)?, to: port(to, u16::MAX)? };
            rule.ports = (ports != Ports { from: 0, to: u16::MAX }).then_some(ports);
        }
        Protocol::ICMP | Protocol::ICMPV6 => {
            let number = |number: Option<i32>| number.and_then(|number| u8::try_from(number).ok());
            rule.icmp_type = number(from);
            rule.icmp_code = rule.icmp_type.and(number(to));
        }
        // AWS opens all ports of every other protocol, whatever ports it shows.
        _ => {}
    }
    let mut add = |peer: Peer, description: &str| {
        rules.push(Rule { peer, description: description.to_owned(), ..rule.clone() });
    };
    for range in &permission.ip_ranges.item {
        add(Peer::Cidr(cidr(&range.cidr_ip)?), &range.description);
    }
    for range in &permission.ipv6_ranges.item {
        add(Peer::Cidr(cidr(&range.cidr_ipv6)?), &range.description);
    }
    for pair in &permission.groups.item {
        let foreign = !pair.user_id.is_empty() && !owner.is_empty() && pair.user_id != owner;
        let id = if foreign {
            format!("{}/{}", pair.user_id, pair.group_id)
        } else {
            pair.group_id.clone()
        };
        add(Peer::Group(id), &pair.description);
    }
    for list in &permission.prefix_list_ids.item {
        add(Peer::PrefixList(list.prefix_list_id.clone()), &list.description);
    }
    Ok(())
}

/// An address block; AWS shows some with host bits (an IPv6 block as it was typed).
pub(super) fn cidr(text: &str) -> Result<ipnet::IpNet, String> {
    text.parse::<ipnet::IpNet>()
        .map(|block| block.trunc())
        .map_err(|_| format!("`{text}` is no address block"))
}

/// Writes rules into a call as `IpPermissions.1`, `.2` … Revoking goes without descriptions: AWS
/// then takes the rule whatever its description became meanwhile.
pub(super) fn write(form: &mut Form, rules: &[Rule], with_descriptions: bool) {
    for (index, rule) in rules.iter().enumerate() {
        let base = format!("IpPermissions.{}", index + 1);
        let protocol = match rule.protocol {
            Protocol::Any => "-1".to_owned(),
            Protocol::Number(_) => rule.protocol.to_string(),
        };
        form.add(format!("{base}.IpProtocol"), protocol);
        let range = match rule.protocol {
            Protocol::TCP | Protocol::UDP => {
                let ports = rule.ports.unwrap_or(Ports { from: 0, to: u16::MAX });
                Some((ports.from.to_string(), ports.to.to_string()))
            }
            Protocol::ICMP | Protocol::ICMPV6 => {
                let number =
                    |number: Option<u8>| number.map_or("-1".to_owned(), |one| one.to_string());
                Some((number(rule.icmp_type), number(rule.icmp_code)))
            }
            _ => None,
        };
        if let Some((from, to)) = range {
            form.add(format!("{base}.FromPort"), from);
            form.add(format!("{base}.ToPort"), to);
        }
        let list = match &rule.peer {
            Peer::Cidr(block @ ipnet::IpNet::V4(_)) => {
                form.add(format!("{base}.IpRanges.1.CidrIp"), block.to_string());
                "IpRanges"
            }
            Peer::Cidr(block @ ipnet::IpNet::V6(_)) => {
                form.add(format!("{base}.Ipv6Ranges.1.CidrIpv6"), block.to_string());
                "Ipv6Ranges"
            }
            Peer::Group(id) => {
                let group = match id.split_once('/') {
                    Some((account, group)) => {
                        form.add(format!("{base}.Groups.1.UserId"), account);
                        group
                    }
                    None => id,
                };
                form.add(format!("{base}.Groups.1.GroupId"), group);
                "Groups"
            }
            Peer::PrefixList(id) => {
                form.add(format!("{base}.PrefixListIds.1.PrefixListId"), id);
                "PrefixListIds"
            }
        };
        if with_descriptions && !rule.description.is_empty() {
            form.add(format!("{base}.{list}.1.Description"), &rule.description);
        }
    }
}

/// What AWS puts into a group when it is made: everything may go out, over IPv4 and, in a VPC that
/// has it, over IPv6.
pub(super) fn born_with() -> [Rule; 2] {
    let all = |block: ipnet::IpNet| Rule {
        direction: Direction::Egress,
        action: Action::Allow,
        protocol: Protocol::Any,
        ports: None,
        icmp_type: None,
        icmp_code: None,
        peer: Peer::Cidr(block),
        priority: None,
        description: String::new(),
    };
    [all(ipnet::Ipv4Net::default().into()), all(ipnet::Ipv6Net::default().into())]
}

/// Peers of the account itself as AWS shows them: without the account in front. Specifications that
/// came into the log before that was refused may have it.
pub(super) fn own_peers(mut rules: Vec<Rule>, account: Option<&str>) -> Vec<Rule> {
    for rule in &mut rules {
        if let Peer::Group(id) = &mut rule.peer
            && let Some((owner, group)) = id.split_once('/')
            && Some(owner) == account
        {
            *id = group.to_owned();
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn permission(xml: &str) -> Vec<String> {
        let group: Group = quick_xml::de::from_str(&format!(
            "<item><ownerId>111122223333</ownerId><groupId>sg-1</groupId><groupName>web</groupName>\
             <ipPermissions><item>{xml}</item></ipPermissions></item>"
        ))
        .unwrap();
        read(&group).unwrap().iter().map(|rule| format!("{rule} '{}'", rule.description)).collect()
    }

    #[test]
    fn one_permission_of_aws_is_a_rule_for_each_peer() {
        assert_eq!(
            permission(
                "<ipProtocol>tcp</ipProtocol><fromPort>443</fromPort><toPort>443</toPort>\
                 <groups><item><userId>111122223333</userId><groupId>sg-2</groupId></item>\
                 <item><userId>999999999999</userId><groupId>sg-3</groupId></item></groups>\
                 <ipRanges><item><cidrIp>10.0.0.0/8</cidrIp><description>in &amp; out</description>\
                 </item></ipRanges><ipv6Ranges><item><cidrIpv6>2001:db8::1/32</cidrIpv6></item>\
                 </ipv6Ranges><prefixListIds><item><prefixListId>pl-4</prefixListId></item>\
                 </prefixListIds>"
            ),
            [
                "ingress tcp 443 10.0.0.0/8 'in & out'",
                "ingress tcp 443 2001:db8::/32 ''",
                "ingress tcp 443 sg-2 ''",
                "ingress tcp 443 999999999999/sg-3 ''",
                "ingress tcp 443 pl-4 ''",
            ]
        );
    }

    #[test]
    fn all_is_said_in_several_ways_and_read_as_one() {
        let ranges = "<ipRanges><item><cidrIp>0.0.0.0/0</cidrIp></item></ipRanges>";
        let check = |protocol: &str, ports: &str, expected: &str| {
            let xml = format!("<ipProtocol>{protocol}</ipProtocol>{ports}{ranges}");
            assert_eq!(permission(&xml), [format!("ingress {expected} 0.0.0.0/0 ''")]);
        };
        let ports = |from, to| format!("<fromPort>{from}</fromPort><toPort>{to}</toPort>");
        check("-1", "", "any");
        check("-1", &ports(-1, -1), "any");
        check("udp", &ports(0, 65535), "udp");
        check("6", &ports(22, 22), "tcp 22");
        check("icmp", &ports(-1, -1), "icmp");
        check("icmp", &ports(3, -1), "icmp type 3");
        check("58", &ports(128, 0), "icmpv6 type 128 code 0");
        check("47", &ports(0, 65535), "47");
    }

    fn written(rule: serde_json::Value, with_descriptions: bool) -> Vec<String> {
        let mut form = Form::default();
        write(&mut form, &[serde_json::from_value(rule).unwrap()], with_descriptions);
        let encoded = form.encode();
        let fields = encoded.split('&').filter_map(|pair| pair.strip_prefix("IpPermissions.1."));
        fields.map(str::to_owned).collect()
    }

    #[test]
    fn a_description_is_cleared_by_leaving_it_out() {
        let rule = |description: &str| {
            json!({"direction": "ingress", "protocol": "47", "peer": {"cidr": "10.0.0.0/8"},
                "description": description})
        };
        let bare = ["IpProtocol=47", "IpRanges.1.CidrIp=10.0.0.0%2F8"];
        assert_eq!(written(rule(""), true), bare);
        assert_eq!(written(rule("old"), false), bare);
        assert_eq!(written(rule("new"), true)[2], "IpRanges.1.Description=new");
    }
}

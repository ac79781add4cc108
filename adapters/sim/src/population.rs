//! What an account holds before anybody touches it, made anew from a seed whenever it is looked at.
//!
//! Nothing of it is stored: a million resources cost no memory, and the file of a cloud holds only
//! what was changed. The n-th thing of a kind in a region is the same in every process.

use std::{collections::BTreeMap, net::Ipv4Addr};

use domain::{
    cloud::{Vpc, Zone},
    compute::{
        disk::{DiskState, SeenDisk},
        server::{Machine, Power},
    },
    network::{
        SeenNetwork,
        security_group::{Action, Direction, Peer, Ports, Protocol, Rule, SecurityGroup},
    },
};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::world::Body;

/// Zones of every region.
const ZONES: u64 = 3;
/// Networks of every VPC: one a zone.
const NETWORKS_PER_VPC: u64 = ZONES;
/// Region names, then `sim-9` and so on.
const REGIONS: [&str; 8] = [
    "sim-north-1",
    "sim-east-1",
    "sim-south-1",
    "sim-west-1",
    "sim-north-2",
    "sim-east-2",
    "sim-south-2",
    "sim-west-2",
];
const TEAMS: [&str; 6] = ["shop", "payments", "search", "data", "platform", "mobile"];
const ENVIRONMENTS: [&str; 4] = ["prod", "prod", "staging", "dev"];
const ROLES: [&str; 7] = ["web", "api", "worker", "db", "cache", "queue", "batch"];
const SHAPES: [&str; 6] =
    ["s2.small", "s2.medium", "s2.large", "m3.xlarge", "m3.2xlarge", "g1.4xlarge"];

/// How much an account holds. The same numbers give the same account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Population {
    /// Which of the many possible estates.
    pub seed: u64,
    /// How many regions, each with three zones.
    pub regions: u64,
    /// How many VPCs, networks, security groups, servers and disks, all regions together.
    pub resources: u64,
}

/// How many there are of each kind in one region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    vpcs: u64,
    networks: u64,
    groups: u64,
    servers: u64,
    disks: u64,
}

impl Share {
    fn of(resources: u64) -> Self {
        let mut left = resources;
        let mut take = |wish: u64| {
            let got = wish.min(left);
            left -= got;
            got
        };
        let vpcs = take(1 + resources / 250);
        let networks = take(vpcs * NETWORKS_PER_VPC);
        let groups = take(1 + resources / 12);
        // More disks than servers: each server has its own, some a second one, some hang nowhere.
        let servers = left * 4 / 9;
        Self { vpcs, networks, groups, servers, disks: left - servers }
    }
}

/// SplitMix64: enough to make names and sizes look different.
fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn pick<T: Copy>(from: &[T], by: u64) -> T {
    from[(by % from.len() as u64) as usize]
}

impl Population {
    /// The names of its regions.
    pub fn regions(&self) -> Vec<String> {
        (0..self.regions)
            .map(|index| match REGIONS.get(index as usize) {
                Some(name) => (*name).to_owned(),
                None => format!("sim-{}", index + 1),
            })
            .collect()
    }

    fn share(&self, region: u64) -> Share {
        let regions = self.regions.max(1);
        Share::of(self.resources / regions + u64::from(region < self.resources % regions))
    }

    /// How many of a kind there are in one of its regions.
    pub(crate) fn count(&self, region: u64, kind: &str) -> u64 {
        let share = self.share(region);
        match kind {
            "disk" => share.disks,
            "network" => share.networks,
            "security-group" => share.groups,
            "server" => share.servers,
            "vpc" => share.vpcs,
            "zone" => ZONES,
            _ => 0,
        }
    }

    /// One of them, by its place among its kind.
    pub(crate) fn thing(&self, at: &Place<'_>, kind: &str, index: u64) -> Option<Body> {
        if index >= self.count(at.number, kind) {
            return None;
        }
        Some(match kind {
            "disk" => Body::SeenDisk(self.disk(at, index)),
            "network" => Body::Network(self.network(at, index)),
            "security-group" => Body::SecurityGroup(self.group(at, index)),
            "server" => Body::Server(self.server(at, index)),
            "vpc" => Body::Vpc(self.vpc(at, index)),
            "zone" => Body::Zone(Zone { name: at.zone(index), available: true }),
            _ => return None,
        })
    }

    fn dice(&self, at: &Place<'_>, salt: u64, index: u64) -> u64 {
        mix(self.seed ^ mix(at.number << 48 | salt << 40 | index))
    }

    fn tags(dice: u64, team: &str, environment: &str) -> BTreeMap<String, String> {
        let mut tags = BTreeMap::from([
            ("env".to_owned(), environment.to_owned()),
            ("team".to_owned(), team.to_owned()),
        ]);
        if dice.is_multiple_of(3) {
            tags.insert("cost-centre".to_owned(), format!("cc-{}", 100 + dice % 7 * 10));
        }
        tags
    }

    fn vpc(&self, at: &Place<'_>, index: u64) -> Vpc {
        let dice = self.dice(at, 1, index);
        let (team, environment) = (pick(&TEAMS, dice), pick(&ENVIRONMENTS, dice >> 8));
        Vpc {
            name: if index == 0 {
                "default".into()
            } else {
                format!("{team}-{environment}-{index}")
            },
            cidrs: vec![block(at, index, 0, 16)],
            default: index == 0,
            tags: Self::tags(dice, team, environment),
        }
    }

    fn network(&self, at: &Place<'_>, index: u64) -> SeenNetwork {
        let (vpc, zone) = (index / NETWORKS_PER_VPC, index % ZONES);
        let of = self.vpc(at, vpc);
        SeenNetwork {
            name: format!("{}-{}", of.name, char::from(b'a' + zone as u8)),
            vpc: at.id("vpc", vpc),
            zone: Some(at.zone(zone)),
            cidrs: vec![block(at, vpc, zone << 14, 18)],
            tags: of.tags,
        }
    }

    fn group(&self, at: &Place<'_>, index: u64) -> SecurityGroup {
        let dice = self.dice(at, 3, index);
        let (team, environment, role) =
            (pick(&TEAMS, dice), pick(&ENVIRONMENTS, dice >> 8), pick(&ROLES, dice >> 16));
        let rule = |direction, protocol, ports: Option<u16>, peer: IpNet, description: &str| Rule {
            direction,
            action: Action::Allow,
            protocol,
            ports: ports.map(|port| Ports { from: port, to: port }),
            icmp_type: None,
            icmp_code: None,
            peer: Peer::Cidr(peer),
            priority: None,
            description: description.to_owned(),
        };
        let everywhere = IpNet::V4(Ipv4Net::default());
        let inside = block(at, index % self.share(at.number).vpcs.max(1), 0, 16);
        let own = match role {
            "web" => rule(Direction::Ingress, Protocol::TCP, Some(443), everywhere, "https"),
            "api" => rule(Direction::Ingress, Protocol::TCP, Some(8443), inside, "api"),
            "db" => rule(Direction::Ingress, Protocol::TCP, Some(5432), inside, "postgres"),
            "cache" => rule(Direction::Ingress, Protocol::TCP, Some(6379), inside, "cache"),
            _ => rule(Direction::Ingress, Protocol::TCP, Some(9000), inside, role),
        };
        let mut rules = vec![
            own,
            rule(Direction::Ingress, Protocol::TCP, Some(22), inside, "ssh from inside"),
            rule(Direction::Egress, Protocol::Any, None, everywhere, ""),
        ];
        rules.sort();
        SecurityGroup {
            name: format!("{team}-{role}-{environment}-{index}"),
            description: format!("{role} servers of {team}"),
            vpc: Some(at.id("vpc", index % self.share(at.number).vpcs.max(1))),
            rules,
            tags: Self::tags(dice, team, environment),
        }
    }

    fn server(&self, at: &Place<'_>, index: u64) -> Machine {
        let share = self.share(at.number);
        let dice = self.dice(at, 4, index);
        let (team, environment, role) =
            (pick(&TEAMS, dice), pick(&ENVIRONMENTS, dice >> 8), pick(&ROLES, dice >> 16));
        let zone = index % ZONES;
        let vpc = index % share.vpcs.max(1);
        let host = (zone << 14) + 4 + index / (share.vpcs.max(1) * ZONES) % 0x3f00;
        let extra = share.servers + index;
        let mut disks = vec![at.id("disk", index)];
        if index.is_multiple_of(2) && extra < share.disks {
            disks.push(at.id("disk", extra));
        }
        Machine {
            name: format!("{team}-{role}-{environment}-{index}"),
            power: if dice.is_multiple_of(11) { Power::Stopped } else { Power::Running },
            shape: pick(&SHAPES, dice >> 24).to_owned(),
            image: Some(format!("img-debian-{}", 11 + (dice >> 32) % 3)),
            zone: Some(at.zone(zone)),
            vpc: Some(at.id("vpc", vpc)),
            network: Some(at.id("network", vpc * NETWORKS_PER_VPC + zone)),
            addresses: vec![block(at, vpc, host, 32)],
            security_groups: vec![at.id("security-group", group_of(&share, index))],
            disks,
            nics: Vec::new(),
            functions: BTreeMap::new(),
            vgpus: BTreeMap::new(),
            tags: Self::tags(dice, team, environment),
        }
    }

    fn disk(&self, at: &Place<'_>, index: u64) -> SeenDisk {
        let share = self.share(at.number);
        let dice = self.dice(at, 5, index);
        let (team, environment) = (pick(&TEAMS, dice), pick(&ENVIRONMENTS, dice >> 8));
        let second = index.checked_sub(share.servers);
        let server = match second {
            None => Some(index),
            Some(of) if of.is_multiple_of(2) && of < share.servers => Some(of),
            Some(_) => None,
        };
        SeenDisk {
            name: format!("{team}-{}-{index}", if second.is_none() { "root" } else { "data" }),
            size_gib: 20 << (dice >> 16 & 3),
            medium: if dice.is_multiple_of(4) { "hdd" } else { "ssd" }.to_owned(),
            state: if server.is_some() { DiskState::Attached } else { DiskState::Available },
            zone: Some(at.zone(server.unwrap_or(index) % ZONES)),
            server: server.map(|server| at.id("server", server)),
            encrypted: !dice.is_multiple_of(5),
            tags: Self::tags(dice, team, environment),
        }
    }

    /// The servers, by their place, that a security group guards.
    pub(crate) fn guarded_by(&self, region: u64, group: u64) -> impl Iterator<Item = u64> {
        let share = self.share(region);
        (group..share.servers).step_by(share.groups.max(1) as usize)
    }
}

fn group_of(share: &Share, server: u64) -> u64 {
    server % share.groups.max(1)
}

/// A block of a VPC's `10.x.0.0/16`.
fn block(at: &Place<'_>, vpc: u64, host: u64, length: u8) -> IpNet {
    let second = (at.number * 31 + vpc) & 0xff;
    let bits = 10 << 24 | (second as u32) << 16 | (host & 0xffff) as u32;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(bits), length))
}

/// One region of one account, where ids are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) account: &'a str,
    pub(crate) region: &'a str,
    /// The region's place among the account's.
    pub(crate) number: u64,
}

/// Ids from here on are of things that somebody made later. They sort after all others.
pub(crate) const MINTED: u64 = 0x8000_0000;

impl Place<'_> {
    pub(crate) fn zone(&self, index: u64) -> String {
        format!("{}{}", self.region, char::from(b'a' + (index % 26) as u8))
    }

    fn prefix(&self, kind: &str) -> String {
        let short = match kind {
            "disk" => "vol",
            "network" => "net",
            "security-group" => "sg",
            "server" => "i",
            other => other,
        };
        let place = self.account.bytes().chain(self.region.bytes());
        let mark = place.fold(self.number, |sum, byte| mix(sum ^ u64::from(byte))) & 0xffff;
        format!("{short}-{mark:04x}")
    }

    /// The id of the n-th of a kind: ids sort as the numbers do.
    pub(crate) fn id(&self, kind: &str, index: u64) -> String {
        if kind == "zone" { self.zone(index) } else { format!("{}{index:08x}", self.prefix(kind)) }
    }

    /// The number behind an id that was made here.
    pub(crate) fn index(&self, kind: &str, id: &str) -> Option<u64> {
        if kind == "zone" {
            return (0..ZONES).find(|index| self.zone(*index) == id);
        }
        let digits = id.strip_prefix(&self.prefix(kind)).filter(|digits| digits.len() == 8)?;
        u64::from_str_radix(digits, 16).ok().filter(|index| self.id(kind, *index) == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [&str; 5] = ["disk", "network", "security-group", "server", "vpc"];

    #[test]
    fn every_resource_asked_for_is_there_once() {
        for (regions, resources) in [(1, 0), (1, 1), (1, 7), (3, 250), (7, 100_001)] {
            let all = Population { seed: 1, regions, resources };
            let count = |region| KINDS.map(|kind| all.count(region, kind)).iter().sum::<u64>();
            assert_eq!((0..regions).map(count).sum::<u64>(), resources);
        }
    }

    #[test]
    fn an_id_leads_back_to_its_number() {
        let at = Place { account: "a", region: "sim-north-1", number: 0 };
        for kind in KINDS {
            assert_eq!(at.index(kind, &at.id(kind, 77)), Some(77));
        }
        assert_eq!(at.index("zone", "sim-north-1b"), Some(1));
        assert_eq!(at.index("server", &at.id("disk", 1)), None);
        assert_eq!(at.index("server", "i-0000+0000001"), None);
    }

    #[test]
    fn references_lead_to_things_that_are_there() {
        let all = Population { seed: 3, regions: 2, resources: 700 };
        let at = Place { account: "a", region: "sim-east-1", number: 1 };
        let there = |kind: &str, id: &str| {
            at.index(kind, id).is_some_and(|index| index < all.count(1, kind))
        };
        for index in 0..all.count(1, "server") {
            let server = all.server(&at, index);
            assert!(there("vpc", server.vpc.as_deref().unwrap()));
            assert!(there("network", server.network.as_deref().unwrap()));
            let network =
                all.network(&at, at.index("network", server.network.as_deref().unwrap()).unwrap());
            assert!(network.cidrs[0].contains(&server.addresses[0]), "{server:?} {network:?}");
            let group = at.index("security-group", &server.security_groups[0]).unwrap();
            assert!(all.guarded_by(1, group).any(|guarded| guarded == index));
            for disk in &server.disks {
                let disk = all.disk(&at, at.index("disk", disk).unwrap());
                assert_eq!(disk.server, Some(at.id("server", index)));
                assert_eq!(disk.zone, server.zone);
            }
        }
    }
}

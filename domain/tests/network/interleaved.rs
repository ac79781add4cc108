//! Many who decide at the same time. As the log does: whoever appends at a revision that has moved
//! is told so, and decides again on what is there then.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use domain::{
    compute::placement::{Fleet, Host, HostFacts, Placement, Request},
    kernel::Refusal,
    network::addresses::{Family, IpAddr, Step, Subnet, Want},
};
use serde_json::json;
use uuid::Uuid;

use crate::addresses::{ip, second, subnet};

/// One stream: the state at a revision.
struct Stream<S> {
    state: S,
    revision: u64,
}

/// What each caller comes to; the order in which they read and append is chance.
fn race<S: Clone, D>(
    state: S,
    callers: usize,
    seed: u64,
    decide: impl Fn(&S, usize) -> Result<D, Refusal>,
    evolve: impl Fn(&mut S, usize, &D),
) -> (S, Vec<Result<D, Refusal>>, usize) {
    let mut stream = Stream { state, revision: 0 };
    let mut dice = seed | 1;
    let mut read: Vec<Option<(u64, Result<D, Refusal>)>> = (0..callers).map(|_| None).collect();
    let mut done: Vec<Option<Result<D, Refusal>>> = (0..callers).map(|_| None).collect();
    let mut conflicts = 0;
    while let Some(waiting) =
        Some(done.iter().filter(|one| one.is_none()).count()).filter(|n| *n > 0)
    {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let nth = (dice % waiting as u64) as usize;
        let caller = (0..callers).filter(|at| done[*at].is_none()).nth(nth).unwrap();
        match read[caller].take() {
            None => read[caller] = Some((stream.revision, decide(&stream.state, caller))),
            Some((revision, Ok(_))) if revision != stream.revision => conflicts += 1,
            Some((_, Ok(decided))) => {
                evolve(&mut stream.state, caller, &decided);
                stream.revision += 1;
                done[caller] = Some(Ok(decided));
            }
            Some((_, refused)) => done[caller] = Some(refused),
        }
    }
    (stream.state, done.into_iter().flatten().collect(), conflicts)
}

#[test]
fn sixty_four_callers_fill_a_subnet_to_the_last_address() {
    for (step, cooldown_s) in [(Step::Up, 0), (Step::Down, 60), (Step::Random, 60)] {
        for seed in 1..40 {
            let subnet = Subnet {
                gateway: Some(ip("192.0.2.1")),
                step,
                cooldown_s,
                ..subnet("192.0.2.0/26")
            };
            let mut family = Family::new(subnet).unwrap();
            // 61 may be given. Eleven are taken, and four of these rest: 54 are left for 64.
            for last in 10..21 {
                family.take(ip(&format!("192.0.2.{last}")), Uuid::nil()).unwrap();
            }
            for last in 10..14 {
                let now = second(0) - TimeDelta::seconds(1);
                family.release(ip(&format!("192.0.2.{last}")), now).unwrap();
            }
            let decide = |family: &Family, caller| {
                let chance = u128::from(seed) * 0x9E37_79B9_7F4A_7C15 * (caller as u128 + 1);
                family.choose(Want::Any {}, second(0), chance)
            };
            let evolve = |family: &mut Family, caller: usize, address: &IpAddr| {
                family.take(*address, Uuid::from_u128(caller as u128)).unwrap();
            };
            let (family, answers, conflicts) = race(family, 64, seed, decide, evolve);
            let given: Vec<IpAddr> = answers.iter().flatten().copied().collect();
            assert_eq!(given.len(), 54);
            assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 54, "none twice");
            let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
            assert!(refused.map(|refusal| refusal.code.code).eq(["no-address-free"; 10]));
            assert!(conflicts > 100, "they did get into each other's way: {conflicts}");
            assert_eq!(family.counts().free, 0);
        }
    }
}

#[test]
fn sixty_four_launches_take_exactly_what_fits() {
    let host = |id: u128| -> HostFacts {
        let cells = [0, 1].map(|cell| {
            let cores: Vec<_> = (0..8).map(|core| json!({"threads": [cell * 8 + core]})).collect();
            json!({"id": cell, "memory_mib": 10_240, "cores": cores})
        });
        let id = Uuid::from_u128(id);
        let facts = json!({"id": id, "enabled": true, "architecture": "x86_64", "cells": cells});
        serde_json::from_value(facts).unwrap()
    };
    for seed in 1..20 {
        // Three hosts of two cells, each with memory for nine servers and cores for eight.
        let fleet = Fleet::new((1..=3).map(|id| Host::new(host(id), []).unwrap()));
        let request = |caller: usize| -> Request {
            let pinning = if caller.is_multiple_of(2) { "cores" } else { "siblings" };
            let request = json!({
                "server": Uuid::from_u128(1_000 + caller as u128), "architecture": "x86_64",
                "vcpus": 1, "memory_mib": 1_100, "numa": "strict",
                "pinning": {"type": pinning, "data": {}},
            });
            serde_json::from_value(request).unwrap()
        };
        let fits = fleet.how_many(&request(0), 1_000).unwrap().count;
        assert_eq!(fits, 48, "a core each: memory would do for 54");
        let decide = |fleet: &Fleet, caller| fleet.place(&request(caller)).map_err(Refusal::from);
        let evolve = |fleet: &mut Fleet, _: usize, placement: &Placement| {
            fleet.take(placement.host, placement.holding.clone()).unwrap();
        };
        let (fleet, answers, conflicts) = race(fleet, 64, seed, decide, evolve);
        assert_eq!(answers.iter().flatten().count(), 48);
        let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
        assert!(refused.map(|refusal| refusal.code.code).eq(["no-room"; 16]));
        assert!(conflicts > 100, "they did get into each other's way: {conflicts}");
        let cpus: usize = fleet
            .hosts()
            .iter()
            .map(|host| host.holdings().values().map(|one| one.cpus.len()).sum::<usize>())
            .sum();
        assert_eq!(cpus, 48, "every core, once");
    }
}

//! What holds of any small host and any request.

use domain::compute::placement::{Fleet, Holding, Host, HostFacts, Placement, Request, Unplaced};
use proptest::prelude::*;

use crate::{
    brute::Books,
    build::{Dice, host_id, server_id},
};

/// A host that has had a life: servers came and some went.
fn lived_in(dice: &mut Dice, id: u128) -> Host {
    let facts = dice.facts(id);
    let mut fleet = Fleet::new([Host::new(facts, []).unwrap()]);
    for number in 0..dice.roll(6) {
        let server = id * 1_000 + u128::from(number);
        if let Ok(placement) = fleet.place(&dice.sociable(server)) {
            fleet.take(placement.host, placement.holding).unwrap();
            if dice.one_in(3) {
                fleet.give_back(host_id(id), server_id(server)).unwrap();
            }
        }
    }
    fleet.hosts()[0].clone()
}

fn books(host: &Host) -> Books<'_> {
    Books { facts: host.facts(), holdings: host.holdings().values().cloned().collect() }
}

/// What every placement has, whatever was asked.
fn check_holding(facts: &HostFacts, request: &Request, placement: &Placement) {
    let holding = &placement.holding;
    assert_eq!((holding.vcpus, holding.memory_mib), (request.vcpus, request.memory_mib));
    let asked: u32 = request.devices.iter().map(|ask| ask.count).sum();
    assert_eq!(holding.devices.len(), asked as usize);
    let sum = |holding: &Holding| {
        let cells = holding.cells.iter();
        (
            cells.clone().map(|one| one.vcpus).sum::<u32>(),
            cells.map(|one| one.memory_mib).sum::<u64>(),
        )
    };
    if placement.score.cells > 0 {
        assert_eq!(sum(holding), (request.vcpus, request.memory_mib));
        assert_eq!(holding.cells.len(), placement.score.cells as usize);
        assert!(holding.cells.iter().all(|cell| cell.vcpus > 0 && cell.memory_mib > 0));
        // Each virtual CPU that has a CPU has it in a cell of the server.
        for pin in &holding.pins {
            let of = facts
                .cells
                .iter()
                .find(|cell| cell.cores.iter().any(|core| core.threads.contains(&pin.cpu)));
            assert!(holding.cells.iter().any(|cell| cell.cell == of.unwrap().id));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn it_fits_when_brute_force_finds_a_way_and_in_as_few_cells(seed in any::<u64>()) {
        let mut dice = Dice::new(seed);
        let host = lived_in(&mut dice, 1);
        let books = books(&host);
        prop_assert!(books.balance(), "what is held fits");
        let fleet = Fleet::new([host.clone()]);
        for number in 0..4 {
            let request = dice.request(77_000 + number);
            let brute = books.fewest(&request);
            match fleet.place(&request) {
                Ok(placement) => {
                    let found = (placement.score.cells, placement.irregular);
                    prop_assert_eq!(Some(found), brute, "{:?}", &request);
                    check_holding(host.facts(), &request, &placement);
                    let mut after = host.clone();
                    after.take(placement.holding.clone()).unwrap();
                    prop_assert!(self::books(&after).balance(), "{:?}", &placement);
                }
                Err(Unplaced::Nowhere(rejected)) => {
                    prop_assert_eq!(None, brute, "{:?} {:?}", &request, rejected);
                    let verdict = fleet.why_not(&request, host_id(1)).unwrap();
                    prop_assert_eq!(&rejected.hosts[0].reason, &verdict.reasons[0]);
                    for reason in &verdict.reasons {
                        prop_assert!(books.is_true(&request, reason), "{:?} {:?}", &request, reason);
                    }
                }
                Err(Unplaced::Invalid(refusal)) => prop_assert!(false, "{}", refusal),
            }
        }
    }

    #[test]
    fn what_is_taken_is_given_back_exactly_and_never_more_than_there_is(seed in any::<u64>()) {
        let mut dice = Dice::new(seed);
        let facts = dice.facts(1);
        let empty = Host::new(facts.clone(), []).unwrap();
        let (mut host, mut held) = (empty.clone(), Vec::new());
        for number in 0..30_u128 {
            if dice.one_in(3) && !held.is_empty() {
                let at = dice.roll(held.len() as u64) as usize;
                let holding: Holding = held.remove(at);
                prop_assert_eq!(host.give_back(holding.server).unwrap(), holding.clone());
                prop_assert!(host.give_back(holding.server).is_err(), "nothing is given back twice");
            } else if let Ok(placement) = Fleet::new([host.clone()]).place(&dice.request(number)) {
                host.take(placement.holding.clone()).unwrap();
                prop_assert!(host.take(placement.holding.clone()).is_err(), "nobody takes twice");
                held.push(placement.holding);
            }
            // A holding that was good for an emptier host is taken exactly when it still fits.
            if let Ok(placement) = Fleet::new([empty.clone()]).place(&dice.request(1_000 + number)) {
                let mut with = books(&host);
                let fits = placement.holding.devices.union(&placement.holding.devices_with);
                let devices = fits.into_iter().all(|device| {
                    !held.iter().any(|one| one.devices.union(&one.devices_with).any(|x| x == device))
                });
                with.holdings.push(placement.holding.clone());
                let balance = with.balance() && devices;
                prop_assert_eq!(host.clone().take(placement.holding).is_ok(), balance);
            }
            prop_assert!(books(&host).balance());
            let again = Host::new(facts.clone(), held.iter().cloned()).unwrap();
            prop_assert_eq!(&host, &again, "what is free is what holdings leave");
        }
        for holding in held {
            host.give_back(holding.server).unwrap();
        }
        prop_assert_eq!(host, empty);
    }

    #[test]
    fn a_server_of_another_size_can_have_the_new_one_or_the_old_one_whatever_comes_of_it(
        seed in any::<u64>(),
    ) {
        let mut dice = Dice::new(seed);
        let mut host = lived_in(&mut dice, 1);
        let (small, other) = (dice.request(77_000), dice.request(77_000));
        let Ok(before) = Fleet::new([host.clone()]).place(&small) else { return Ok(()) };
        host.take(before.holding.clone()).unwrap();
        let sized =
            Request { vcpus: other.vcpus, memory_mib: other.memory_mib, ..small };
        let fleet = Fleet::new([host.clone()]);
        let Ok(after) = fleet.place_again(&sized, host_id(1)) else { return Ok(()) };
        let (old, new) = (before.holding, after.holding);
        prop_assert_eq!((new.vcpus, new.memory_mib), (sized.vcpus, sized.memory_mib));
        prop_assert_eq!(&new.devices, &old.devices, "it keeps its devices");
        let both = old.cover(&new);
        prop_assert!(old.is_within(&both) && new.is_within(&both), "{:?} {:?} {:?}", old, new, both);
        prop_assert!(both.is_within(&both));
        host.give_back(server_id(77_000)).unwrap();
        // Both may be more than there is, where they lie apart: then it is refused.
        if host.take(both).is_ok() {
            prop_assert!(books(&host).balance());
            for one in [new, old] {
                host.give_back(server_id(77_000)).unwrap();
                prop_assert!(host.take(one).is_ok(), "either end is possible");
                prop_assert!(books(&host).balance());
            }
        }
    }

    #[test]
    fn the_order_of_hosts_does_not_matter_and_the_best_is_chosen(seed in any::<u64>()) {
        let mut dice = Dice::new(seed);
        let mut hosts: Vec<Host> =
            (1..=1 + u128::from(dice.roll(5))).map(|id| lived_in(&mut dice, id)).collect();
        let request = dice.sociable(77_000);
        let fleet = Fleet::new(hosts.clone());
        let answer = fleet.place(&request);
        for at in (1..hosts.len()).rev() {
            hosts.swap(at, dice.roll(at as u64 + 1) as usize);
        }
        prop_assert_eq!(&Fleet::new(hosts.clone()).place(&request), &answer);
        hosts.sort_by_key(|host| host.facts().id);
        let verdicts: Vec<_> =
            hosts.iter().map(|host| fleet.why_not(&request, host.facts().id).unwrap()).collect();
        prop_assert_eq!(&fleet.why_not_each(&request).unwrap(), &verdicts);
        let mut fitting: Vec<_> =
            verdicts.iter().filter_map(|one| Some((one.score?, one.host))).collect();
        fitting.sort();
        let rejected = match answer {
            Ok(placement) => {
                prop_assert_eq!((placement.score, placement.host), fitting[0]);
                prop_assert_eq!(placement.fitting as usize, fitting.len());
                let next = placement.runners_up.iter().map(|one| (one.score, one.host));
                prop_assert!(next.eq(fitting.into_iter().skip(1).take(3)));
                placement.rejected
            }
            Err(Unplaced::Nowhere(rejected)) => {
                prop_assert!(fitting.is_empty());
                rejected
            }
            Err(Unplaced::Invalid(refusal)) => return Err(TestCaseError::fail(refusal.to_string())),
        };
        let told = rejected.hosts.iter().map(|one| (one.host, &one.reason));
        let whole = verdicts.iter().filter(|one| one.score.is_none());
        prop_assert!(told.eq(whole.map(|one| (one.host, &one.reasons[0]))));
        prop_assert_eq!(rejected.counts.values().sum::<u32>() as usize, rejected.hosts.len());
    }

    #[test]
    fn how_many_fit_is_how_many_can_be_taken(seed in any::<u64>()) {
        let mut dice = Dice::new(seed);
        let hosts = (1..=3).map(|id| lived_in(&mut dice, id));
        let mut fleet = Fleet::new(hosts.collect::<Vec<_>>());
        let request = dice.sociable(77_000);
        let many = fleet.how_many(&request, 100).unwrap();
        prop_assert!(!many.limited);
        // Each host for itself, as if all of them went there.
        for id in 1..=3 {
            let host = host_id(id);
            let mut only = Request { only: [host].into(), ..request.clone() };
            // It is one of those that are named already, or nothing fits there.
            if !request.only.is_empty() && !request.only.contains(&host) {
                only.except.insert(host);
            }
            let mut alone = fleet.clone();
            let mut count = 0;
            while let Ok(placement) = alone.place(&only) {
                alone.take(placement.host, placement.holding).unwrap();
                count += 1;
                only.server = server_id(99_000 + u128::from(count));
            }
            prop_assert_eq!(many.hosts.get(&host).copied().unwrap_or_default(), count);
            let on = fleet.how_many_on(&request, host, 100).unwrap();
            prop_assert_eq!((on.count, on.limited), (count, false));
        }
        for number in 0..many.count {
            let server = server_id(88_000 + u128::from(number));
            let placement = fleet.place(&Request { server, ..request.clone() }).unwrap();
            fleet.take(placement.host, placement.holding).unwrap();
        }
        prop_assert!(fleet.place(&request).is_err(), "there is room for no more");
        if many.count > 0 {
            let some = fleet.how_many(&request, 0).unwrap();
            prop_assert_eq!(some.count, 0);
        }
    }
}

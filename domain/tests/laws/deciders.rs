//! Laws of every decider, under any history and any commands.

use std::{cell::RefCell, collections::BTreeSet};

use domain::{
    kernel::{Kind, Stamp, State},
    kinds,
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};

use crate::{
    pool::{commands, told_lives},
    samples::{ALL, time},
};

fn stamp() -> Stamp {
    Stamp { now: time(), actor: "test".into() }
}

/// Events that may leave the state as it was.
const SILENT: [(&str, &str); 1] =
    // The credential that was sent again is the one in use; that it was tried is a fact.
    [("cloud-account", "credential-replaced")];

/// Everything a state can be asked.
fn ask(state: &dyn State) {
    let _ = (state.status(), state.order(), state.facets(), state.drift());
}

/// One life of a kind: each pick is the first command from there on that makes facts.
fn live(
    kind: &Kind,
    pool: &[(&str, Value)],
    picks: &[Index],
    made: &mut BTreeSet<String>,
) -> Result<(), TestCaseError> {
    let mut state = (kind.empty)();
    for pick in picks {
        let start = pick.index(pool.len());
        let mut from_here = pool[start..].iter().chain(&pool[..start]);
        let Some((verb, body, decided)) = from_here.find_map(|(verb, body)| {
            let decided = state.decide(verb, body, &stamp()).ok()?;
            (!decided.steps.is_empty()).then_some((verb, body, decided))
        }) else {
            return Ok(());
        };
        for step in decided.steps {
            let before = state.json();
            state.evolve(&step.event_type, &step.data).unwrap();
            let silent = SILENT.contains(&(kind.name, &step.event_type));
            prop_assert!(
                silent || state.json() != before,
                "{verb}: {} says nothing",
                step.event_type
            );
            made.insert(step.event_type);
        }
        prop_assert_eq!(state.json(), decided.state.json(), "{}: promised another state", verb);
        ask(state.as_ref());
        let repeated = state.decide(verb, body, &stamp());
        let steps = repeated.map_or_else(|_| Vec::new(), |again| again.steps);
        prop_assert!(steps.is_empty(), "{verb} {body} twice gives {steps:?} of {state:?}");
        let read = (kind.read)(&state.json()).unwrap();
        prop_assert_eq!(read.json(), state.json());
    }
    Ok(())
}

#[test]
fn every_fact_says_something_and_a_command_repeated_says_nothing() {
    for sample in ALL.iter() {
        let (kind, pool) = (kinds::by_name(sample.kind).unwrap(), commands(sample.kind));
        let made = RefCell::new(BTreeSet::new());
        // Who can do more has more lives to do it in.
        let cases = (sample.types.len() * 16).max(100) as u32;
        let config =
            ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let lives = vec(any::<Index>(), 20..40);
        TestRunner::new_with_rng(config, rng)
            .run(&lives, |picks| live(kind, &pool, &picks, &mut made.borrow_mut()))
            .unwrap_or_else(|why| panic!("{}: {why}", kind.name));
        for told in told_lives(sample.kind) {
            let mut state = (kind.empty)();
            for (verb, body) in &told {
                let decided = state.decide(verb, body, &stamp()).unwrap();
                assert!(!decided.steps.is_empty(), "{verb} says nothing");
                for step in decided.steps {
                    state.evolve(&step.event_type, &step.data).unwrap();
                    made.borrow_mut().insert(step.event_type);
                }
                let again = state.decide(verb, body, &stamp());
                assert!(again.is_err() || again.unwrap().steps.is_empty(), "{verb} twice");
            }
        }
        // And these lives were full: every type of event was made in one of them.
        assert_eq!(made.into_inner(), sample.types.iter().cloned().collect(), "{}", kind.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn no_history_is_too_strange_to_fold(picks in vec(any::<Index>(), 0..30)) {
        for one in ALL.iter() {
            let kind = kinds::by_name(one.kind).unwrap();
            let mut state = (kind.empty)();
            for pick in &picks {
                let (tag, data) = pick.get(&one.kept);
                state.evolve(tag, &serde_json::to_vec(data).unwrap()).unwrap();
                ask(state.as_ref());
                for verb in (kind.verbs)() {
                    let _ = state.decide(verb.name, &json!({}), &stamp());
                }
            }
        }
    }
}

#[test]
fn every_verb_is_tried() {
    for kind in kinds::KINDS {
        let pool = commands(kind.name);
        for verb in (kind.verbs)() {
            let told: Vec<_> = told_lives(kind.name).into_iter().flatten().collect();
            let mut bodies =
                pool.iter().chain(&told).filter(|(name, _)| *name == verb.name).peekable();
            assert!(bodies.peek().is_some(), "{} {}", kind.name, verb.name);
            for (_, body) in bodies {
                let refused = (kind.empty)().decide(verb.name, body, &stamp()).err();
                let code = refused.map(|no| no.code.code);
                assert_ne!(code, Some("malformed-command"), "{} {} {body}", kind.name, verb.name);
            }
        }
    }
}

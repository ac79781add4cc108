//! Looks at costs by the rules that watch them, and tells what is not as it should be.
//!
//! A look takes no input but the bills and rules at a position, and finds the same whenever it is
//! done: what is known already makes no event. So it may be done at any time, by several servers at
//! once, and after a crash in the middle of another. What was found and is not found any more is
//! cleared; it is never taken away.

use std::{collections::BTreeMap, sync::Arc};

use domain::{
    finops::{
        anomaly::detect,
        anomaly_found::{Anomaly, AsOf, Finding},
        anomaly_rule::{AnomalyRule, Watch},
        attribution::Axis,
        cost::{Dimension, TooLarge},
    },
    kernel::{Decider, Principal},
    kinds,
    log::Position,
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    attribute::{AttributeFault, AxisQuery, attributed},
    bills::Counting,
    ledger::{Ledger, LoadFault},
    ports::{BillFault, BillStore, ViewFault},
    submit::{Submission, SubmitFault},
    watch::{By, Unknown, WatchedBy, axes, basis, daily, filters},
};

/// Most groups of a rule: each is a series of days in memory, and beyond it nobody reads what is
/// found.
const GROUPS_MAX: usize = 10_000;
/// Most anomalies that a rule tells of anew in one look.
const NEW_MAX: usize = 1_000;

/// What there is to look at.
#[derive(Clone, Debug)]
pub struct Watching {
    /// The bills.
    pub counting: Arc<Counting>,
    /// What says whose costs are.
    pub whose: WatchedBy,
    /// The rules that are enabled.
    pub rules: BTreeMap<Uuid, AnomalyRule>,
    /// What is known.
    pub known: BTreeMap<Uuid, Anomaly>,
}

/// What is to be told, and why something is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What is new or has other numbers, by the anomaly's id.
    pub report: BTreeMap<Uuid, Finding>,
    /// What is not so any more, and why.
    pub clear: BTreeMap<Uuid, &'static str>,
    /// How many are as they were.
    pub unchanged: usize,
    /// Rules of which nothing is told, and why.
    pub refused: BTreeMap<Uuid, String>,
}

/// What a look came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detection {
    /// Anomalies that were found for the first time, or again.
    pub reported: Vec<Uuid>,
    /// Those with other numbers than before.
    pub updated: Vec<Uuid>,
    /// Those that are not so any more.
    pub cleared: Vec<Uuid>,
    /// How many are as they were.
    pub unchanged: usize,
    /// Rules of which nothing was told, and why.
    pub refused: BTreeMap<Uuid, String>,
    /// How many rules are enabled.
    pub rules: usize,
    /// What was detection at.
    pub as_of: AsOf,
    /// The last position that was written, or the one that was detection at.
    pub position: Position,
}

/// Why a rule tells nothing.
enum RuleFault {
    Refused(String),
    Costs(BillFault),
}

impl From<Unknown> for RuleFault {
    fn from(unknown: Unknown) -> Self {
        Self::Refused(unknown.0)
    }
}

impl From<AttributeFault> for RuleFault {
    fn from(fault: AttributeFault) -> Self {
        match fault {
            AttributeFault::Refused(refusal) => Self::Refused(refusal.detail),
            AttributeFault::Costs(fault) => Self::Costs(fault),
        }
    }
}

impl From<TooLarge> for RuleFault {
    fn from(fault: TooLarge) -> Self {
        Self::Costs(fault.into())
    }
}

/// By what a rule says whose costs are.
fn by(watch: &Watch) -> By {
    let conditions = watch.conditions.iter().map(|one| &one.dimension);
    let named = watch.group_by.iter().chain(conditions);
    let axes: Vec<Axis> = named.filter_map(|name| name.parse().ok()).collect();
    By::of(&axes, watch.rule_set, watch.organisation)
}

fn detect_by(
    store: &dyn BillStore,
    watching: &Watching,
    id: Uuid,
    name: &str,
    watch: &Watch,
) -> Result<BTreeMap<Uuid, Finding>, RuleFault> {
    let counting = watching.counting.as_ref();
    let Some(months) = counting.months() else { return Ok(BTreeMap::new()) };
    let mut groups = axes(&watch.group_by)?;
    groups.push(Axis::Line(Dimension::Plain("day")));
    let asked =
        AxisQuery { basis: basis(&watch.basis)?, groups, filters: filters(&watch.conditions)? };
    let whose = match watching.whose.get(&by(watch)) {
        Some(Ok(whose)) => whose,
        Some(Err(unknown)) => return Err(unknown.clone().into()),
        None => return Ok(BTreeMap::new()),
    };
    let series = daily(&attributed(store, counting, whose, &asked)?, months)?;
    if series.len() > GROUPS_MAX {
        let what = format!("{} groups are more than {GROUPS_MAX}", series.len());
        return Err(RuleFault::Refused(what));
    }
    let mut findings = BTreeMap::new();
    for ((group, currency), series) in &series {
        if watch.currency.as_ref().is_some_and(|only| only != currency) {
            continue;
        }
        for found in detect(series, &watch.detector, &watch.calendar) {
            let group = watch.group_by.iter().cloned().zip(group.iter().cloned()).collect();
            let finding = Finding {
                rule: id,
                rule_name: name.to_owned(),
                group,
                currency: currency.clone(),
                basis: watch.basis.clone(),
                period: found.period,
                amount: found.amount,
                limit: found.limit,
                expected: found.expected,
                measure: found.measure,
            };
            if is_told(watch, &finding) {
                findings.insert(finding.id(), finding);
            }
        }
    }
    Ok(findings)
}

fn is_told(watch: &Watch, finding: &Finding) -> bool {
    watch.from.is_none_or(|from| finding.period.first() >= from)
}

/// Looks by every rule. Blocks the thread.
pub fn detect_all(store: &dyn BillStore, watching: &Watching) -> Result<Findings, BillFault> {
    let mut findings = Findings::default();
    let mut known: BTreeMap<Uuid, Vec<(Uuid, &Finding)>> = BTreeMap::new();
    for (id, anomaly) in &watching.known {
        if let (Some(finding), None) = (&anomaly.finding, &anomaly.cleared) {
            known.entry(finding.rule).or_default().push((*id, finding));
        }
    }
    for (id, rule) in &watching.rules {
        let Some(watch) = &rule.watch else { continue };
        let found = match detect_by(store, watching, *id, &rule.name, watch) {
            Ok(found) => found,
            Err(RuleFault::Costs(fault)) => return Err(fault),
            Err(RuleFault::Refused(why)) => {
                findings.refused.insert(*id, why);
                continue;
            }
        };
        let stands = known.remove(id).unwrap_or_default();
        let (mut report, count) = (BTreeMap::new(), found.len());
        let is_gone = |(known, finding): &&(Uuid, &Finding)| {
            !found.contains_key(known) && is_told(watch, finding)
        };
        let gone: Vec<Uuid> = stands.iter().filter(is_gone).map(|(known, _)| *known).collect();
        let stands: BTreeMap<Uuid, &Finding> = stands.into_iter().collect();
        let mut new = 0;
        for (anomaly, finding) in found {
            match stands.get(&anomaly) {
                Some(known) if **known == finding => continue,
                Some(_) => {}
                None => new += 1,
            }
            report.insert(anomaly, finding);
        }
        if new > NEW_MAX {
            let what = format!("{new} new anomalies are more than {NEW_MAX}: set `from`");
            findings.refused.insert(*id, what);
            continue;
        }
        findings.unchanged += count - report.len();
        findings.report.append(&mut report);
        let why = "by the bills and the rule as they are now it is as it should be";
        findings.clear.extend(gone.into_iter().map(|anomaly| (anomaly, why)));
    }
    Ok(findings)
}

impl Ledger {
    /// What there is to look at, as it is now.
    pub async fn watching(&self) -> Result<Watching, ViewFault> {
        let counting = self.all_bills(None).await?;
        let mut rules = self.all_of::<AnomalyRule>(counting.position).await?;
        rules.retain(|_, rule| rule.watch.is_some() && !rule.disabled);
        let known = if rules.is_empty() {
            BTreeMap::new()
        } else {
            self.all_of::<Anomaly>(counting.position).await?
        };
        let watches = rules.values().filter_map(|rule| rule.watch.as_ref());
        let questions: Vec<By> = watches.map(by).collect();
        let whose = self.watched_by(&counting, questions).await?;
        Ok(Watching { counting: Arc::new(counting), whose, rules, known })
    }

    /// Tells what a look has found.
    pub async fn tell_anomalies(
        &self,
        watching: &Watching,
        findings: Findings,
    ) -> Result<Detection, SubmitFault> {
        let kind = kinds::by_name(Anomaly::KIND)
            .ok_or_else(|| LoadFault::Missing("the kind anomaly".to_owned()))?;
        let position = watching.counting.position;
        let as_of = AsOf { position, inputs: watching.counting.digest() };
        let Findings { report, clear, unchanged, refused } = findings;
        let rules = watching.rules.len();
        let mut detection =
            Detection { unchanged, refused, rules, as_of, position, ..Detection::default() };
        let who = Principal::system("watch");
        for (id, finding) in report {
            let body = json!({"finding": finding, "as_of": detection.as_of});
            let submission = Submission::new(who.clone(), kind, id, "report", body);
            let outcome = self.submit(submission).await?;
            match outcome.events.first().map(|event| event.event_type.as_str()) {
                Some("reported") => detection.reported.push(id),
                Some(_) => detection.updated.push(id),
                None => detection.unchanged += 1,
            }
            detection.position = detection.position.max(outcome.position);
        }
        for (id, reason) in clear {
            let body = json!({"reason": reason, "as_of": detection.as_of});
            let submission = Submission::new(who.clone(), kind, id, "clear", body);
            let outcome = self.submit(submission).await?;
            if !outcome.events.is_empty() {
                detection.cleared.push(id);
            }
            detection.position = detection.position.max(outcome.position);
        }
        Ok(detection)
    }
}

//! Samples of bills and what is worked out from them.

use domain::finops::{
    amount, anomaly_found, anomaly_rule, bill, bill_source, budget, commitment, driver, issuer,
    rate_set, report, rules,
};
use serde_json::{Value, json};

use super::{Samples, id, of, time};

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

pub(super) fn issuer() -> Samples {
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

pub(super) fn anomaly() -> Samples {
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

pub(super) fn anomaly_rule() -> Samples {
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

pub(super) fn budget() -> Samples {
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

pub(super) fn bill_source() -> Samples {
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

pub(super) fn report() -> Samples {
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

pub(super) fn bill() -> Samples {
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

pub(super) fn commitment() -> Samples {
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

pub(super) fn rates() -> Samples {
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

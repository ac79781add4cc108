//! Commands of bills, and of what is worked out from them.

use serde_json::json;

use super::Told;
use crate::samples::{
    allowance, cost_rules, exchange_rate, finding, id, invoice, new_rate, place, question,
    repricing, run, segment, servers, settings, standing, stated_commitment, taken, terms, watch,
};

/// Commands of a kind of these; none of another.
pub(super) fn commands(kind: &str) -> Vec<Told> {
    let mut pool = Vec::new();
    match kind {
        "anomaly" => {
            let as_of = |position: u64| json!({"position": position, "inputs": "5d"});
            for position in 1..4 {
                for amount in ["150", "170"] {
                    let report = json!({"finding": finding(amount), "as_of": as_of(position)});
                    pool.push(("report", report));
                }
                pool.push(("clear", json!({"reason": "restated", "as_of": as_of(position)})));
            }
            pool.push(("acknowledge", json!({})));
            pool.push(("explain", json!({"text": "the sale"})));
            pool.push(("ignore", json!({})));
        }
        "anomaly-rule" => {
            for sensitivity in ["low", "high"] {
                pool.push(("define", json!({"name": "services", "watch": watch(sensitivity)})));
                pool.push(("define", json!({"watch": watch(sensitivity)})));
            }
            pool.extend([("disable", json!({})), ("enable", json!({}))]);
        }
        "bill" => {
            for (digest, billed) in [("0a", "3.25"), ("0b", "1"), ("0c", "-2")] {
                for manner in ["add", "renew", "replace"] {
                    for reason in ["", "late lines"] {
                        pool.push((
                            "import",
                            json!({
                                "billing_account": "1", "month": "2026-10", "manner": manner,
                                "segment": segment(digest, billed), "reason": reason,
                            }),
                        ));
                    }
                }
            }
            for billed in ["3.25", "1"] {
                pool.push((
                    "state-invoices",
                    json!({
                        "billing_account": "1", "month": "2026-10", "source": "invoices.csv",
                        "invoices": [invoice("A", billed), invoice("B", "2")],
                        "source_digest": "01", "stated_by": "token:ci",
                    }),
                ));
            }
            pool.push(("close", json!({})));
            pool.push(("close", json!({"accept_difference": true})));
            pool.push(("close", json!({"invoiced": {"EUR": "3.25"}})));
        }
        "bill-source" => {
            for prefix in ["focus/", "cur/"] {
                let place = json!({"bucket": "bills", "prefix": prefix});
                pool.push(("define", json!({"name": "aws", "place": place, "credential": "s"})));
                pool.push(("define", json!({"place": place})));
            }
            pool.push(("pull", json!({"reason": "late lines"})));
            for number in 1..4 {
                pool.push(("pull", json!({"due": format!("2026-11-0{number}T06:00:00Z")})));
                for etag in ["a", "b"] {
                    pool.push(("take", json!({"number": number, "taken": taken(etag)})));
                }
                let refused = json!({
                    "delivery": "x", "fingerprint": "00", "code": "bill-closed", "reason": "r",
                });
                let sum = json!({"listed": 1, "taken": 0, "unchanged": 0, "refused": [refused]});
                pool.push(("finish-pull", json!({"number": number, "sum": sum})));
                let why = json!({"number": number, "code": "denied", "reason": "no"});
                pool.push(("fail-pull", why));
                pool.push(("park", json!({"number": number, "reason": "no answer in time"})));
            }
            pool.extend(["pause", "resume", "retire"].map(|verb| (verb, json!({}))));
        }
        "cluster" => {
            for namespace in ["web", "db"] {
                let places = json!([place(namespace)]);
                pool.push(("define", json!({"name": "edge", "places": places})));
                pool.push(("define", json!({"name": "edge", "otherwise": id(2)})));
            }
        }
        "commitment" => {
            for amount in ["365", "1"] {
                pool.push(("define", json!({"terms": terms(amount)})));
            }
            for day in ["2026-02-01", "2026-08-01"] {
                let end = "2028-01-01";
                pool.push(("upgrade", json!({"day": day, "paid": "10", "end": end})));
                pool.push(("cancel", json!({"day": day, "refund": "3"})));
            }
            pool.push(("retire", json!({})));
        }
        "issuer" => {
            for (cost, status) in [("1200", "open"), ("1300", "closed")] {
                for commitments in [json!([]), json!([stated_commitment("sp-1", cost)])] {
                    pool.push((
                        "state",
                        json!({
                            "name": "AWS", "commitments": commitments,
                            "periods": {"2026-10": status}, "source": "terms.csv",
                            "source_digest": "01", "stated_by": "token:ci",
                        }),
                    ));
                }
            }
        }
        "budget" => {
            for amount in ["100", "200"] {
                pool.push(("define", json!({"name": "shop", "allowance": allowance(amount)})));
                pool.push(("define", json!({"allowance": allowance(amount)})));
            }
            for position in 1..4 {
                for actual in ["50", "90", "130", "170"] {
                    let as_of = json!({"position": position, "inputs": "5d"});
                    let body = json!({"standings": [standing(actual)], "as_of": as_of});
                    pool.push(("evaluate", body));
                }
            }
            pool.extend([("disable", json!({})), ("enable", json!({}))]);
        }
        "driver" => {
            let one = json!(servers());
            let mut other = one.clone();
            other["values"]["2026-12"] = json!(20);
            let mut odd = one.clone();
            odd["values"] = json!({});
            pool.extend([one, other, odd].map(|body| ("define", body)));
            pool.push(("retire", json!({})));
        }
        "exchange-rate" => {
            for (day, rate) in [("2026-10-31", "0.9"), ("2026-10-31", "1/3"), ("2026-11-30", "0")] {
                pool.push(("define", exchange_rate(day, rate)));
            }
            pool.push(("retire", json!({})));
        }
        "repricing" => {
            for (scope, from) in
                [(json!("all"), "2030-01-01"), (json!({"project": id(2)}), "2031-01-01")]
            {
                for price in [json!({"factor": "1.15"}), json!({"discount-percent": "10"})] {
                    pool.push(("define", repricing(&scope, &price, from)));
                }
            }
            let (all, price) = (json!("all"), json!({"factor": 2}));
            let mut today = repricing(&all, &price, "2030-01-01");
            today["from"] = json!(null);
            pool.extend([
                ("define", today),
                ("end", json!({})),
                ("end", json!({"day": "2032-01-01"})),
            ]);
        }
        "report" => {
            for count in [1, 2] {
                pool.push(("define", json!({"name": "services", "question": question(count)})));
                let schedule = json!({"every": "day"});
                let body = json!({"question": question(count), "schedule": schedule});
                pool.push(("define", body));
            }
            pool.extend((1..28).map(|day| ("record", json!({"run": run(day)}))));
            pool.push(("retire", json!({})));
        }
        "rate-set" => {
            for (name, scope) in [
                ("own", json!("default")),
                ("own", json!({"project": id(2)})),
                ("others", json!("default")),
            ] {
                pool.push(("define", json!({"settings": settings(name, &scope)})));
            }
            for key in ["ssd", "hdd"] {
                for price in ["0.02", "0.03"] {
                    for from in [None, Some("2030-01-01T00:00:00Z")] {
                        let rate = new_rate(price, from);
                        pool.push(("set-rate", json!({"key": key, "rate": rate})));
                    }
                }
                pool.push(("end-rate", json!({"key": key})));
                pool.push(("end-rate", json!({"key": key, "to": "2031-01-01T00:00:00Z"})));
                pool.push(("remove-rate", json!({"key": key})));
            }
            pool.push(("retire", json!({})));
        }
        "rule-set" => {
            for centre in ["shop", "lab"] {
                let rules = cost_rules(centre);
                pool.push(("define", json!({"name": "costs", "rules": rules})));
                pool.push(("define", json!({"rules": rules})));
            }
            pool.push(("publish", json!({})));
        }
        "tagging" => {
            for (resource, to) in [("i-1", None), ("i-1", Some("2026-11-01")), ("i-2", None)] {
                pool.push((
                    "define",
                    json!({"resource": resource, "project": id(2), "tags": {"a": null}, "to": to}),
                ));
            }
            pool.push(("retire", json!({})));
        }
        _ => {}
    }
    pool
}

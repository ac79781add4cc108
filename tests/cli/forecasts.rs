//! What comes next, by the program's own commands: the same on both stores.

use std::fmt::Write;

use serde_json::Value;

use super::{
    says,
    server::{Server, Store},
};

/// Two years of two services; `Compute` costs 20 for each server.
fn bill() -> String {
    let mut bill = "BilledCost,EffectiveCost,ListCost,ContractedCost,BillingAccountId,\
        BillingCurrency,BillingPeriodStart,BillingPeriodEnd,ChargeCategory,ChargePeriodStart,\
        ChargePeriodEnd,ServiceName\n"
        .to_owned();
    for at in 0..24 {
        let (year, month) = (2023 + at / 12, at % 12 + 1);
        let (next_year, next) = (2023 + (at + 1) / 12, (at + 1) % 12 + 1);
        for (service, cost) in [("Compute", 20 * servers(at) + at % 3), ("Storage", 50 + 2 * at)] {
            writeln!(
                bill,
                "{cost}.5,{cost}.5,{cost}.5,{cost}.5,42,EUR,{year}-{month:02}-01T00:00:00Z,\
                 {next_year}-{next:02}-01T00:00:00Z,Usage,{year}-{month:02}-05T00:00:00Z,\
                 {year}-{month:02}-06T00:00:00Z,{service}"
            )
            .unwrap();
        }
    }
    bill
}

fn servers(at: u32) -> u32 {
    [8, 8, 20, 20, 12, 30, 30][(at * 3 % 7) as usize]
}

fn driver() -> String {
    let mut driver =
        "name: servers\nunit: servers\nscope: {service: [Compute]}\nvalues:\n".to_owned();
    for at in 0..36 {
        writeln!(driver, "  {}-{:02}: {}", 2023 + at / 12, at % 12 + 1, servers(at)).unwrap();
    }
    driver
}

/// Imports, defines, asks; what the answer was without the driver, but for the position.
fn from_bills_to_a_forecast(store: &Store) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), store);
    says(&server.run(&["forecast"]).out, &["no cost is there to go by"]);
    let path = folder.path().join("bill.csv");
    std::fs::write(&path, bill()).unwrap();
    let imported = server.run(&["bill", "import", path.to_str().unwrap()]);
    assert_eq!(imported.code, 0, "{}", imported.err);

    let mut plain = server.json(&["forecast", "--by", "service", "--look-back", "3"]);
    assert_eq!(plain["items"].as_array().unwrap().len(), 2);
    assert_eq!((&plain["from"], &plain["to"]), (&"2023-01".into(), &"2024-12".into()));
    let whole = plain["totals"]["EUR"].clone();
    assert_eq!(whole["points"][2]["period"], "2025-03");
    assert_eq!(whole["look_back"]["steps"].as_array().unwrap().len(), 3);
    let default = server.json(&["forecast"]);
    assert_eq!(default["group_by"].as_array().unwrap().len(), 4);
    assert_eq!(default["totals"]["EUR"]["history"], whole["history"]);

    let file = folder.path().join("servers.yaml");
    std::fs::write(&file, driver()).unwrap();
    let defined = server.run(&["create", "driver", "-f", file.to_str().unwrap()]);
    assert_eq!(defined.code, 0, "{}", defined.err);
    says(&server.run(&["get", "drivers"]).out, &["servers", "active"]);
    let shown = server.run(&["forecast", "--by", "service", "--driver", "servers"]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    says(
        &shown.out,
        &[
            "SERVICE",
            "2025-01",
            "Compute",
            "regression",
            "total in EUR",
            "ON THE PAST",
            "seasonal-naive",
            "by the driver servers, revision 1",
            "effective costs of 24 bills",
        ],
    );
    let with = server.json(&["forecast", "--by", "service"]);
    assert_ne!(with["inputs"], plain["inputs"]);
    let compute = with["items"].as_array().unwrap().iter();
    let compute = compute.into_iter().find(|one| one["group"]["service"] == "Compute").unwrap();
    let price = compute["coefficients"][0]["size"].as_f64().unwrap();
    assert!((19.0..21.0).contains(&price), "{compute}");
    let none = server.json(&["forecast", "--by", "service", "--no-drivers"]);
    assert_eq!(none["items"], {
        let mut items = plain["items"].clone();
        for item in items.as_array_mut().unwrap() {
            item.as_object_mut().unwrap().remove("look_back");
        }
        items
    });

    let total = server.run(&["forecast", "--total", "--horizon", "12", "--look-back", "2"]);
    says(
        &total.out,
        &["2025-12", "80 %", "forecast error of 2 steps", "without the driver servers"],
    );
    for (words, code, parts) in [
        (&["forecast", "--by", "month"][..], 3, &["invalid-field", "along time"][..]),
        (&["forecast", "--by", "servce"], 2, &["servce", "service"]),
        (&["forecast", "--horizon", "40"], 2, &["36 months"]),
        (&["forecast", "--shift", "2027-01"], 3, &["2027-01", "driver"]),
        (&["forecast", "--driver", "nobody"], 4, &["nobody"]),
        (&["forecast", "--driver", "servers", "--total"], 3, &["group by it"]),
        (&["forecast", "--from-month", "2024-02", "--to-month", "2024-01"], 2, &["before"]),
    ] {
        let ran = server.run(words);
        assert_eq!(ran.code, code, "{words:?}: {}", ran.err);
        says(&ran.err, parts);
    }
    assert_eq!(server.run(&["retire", "driver", "servers"]).code, 0);
    let again = server.json(&["forecast", "--by", "service", "--look-back", "3"]);
    assert_eq!(again["inputs"], plain["inputs"]);
    assert_eq!((&again["items"], &again["totals"]), (&plain["items"], &plain["totals"]));
    assert_eq!(server.stop(), 0);
    plain.as_object_mut().unwrap().remove("position");
    plain
}

#[test]
fn a_forecast_is_the_same_to_the_byte_on_both_stores() {
    let embedded = from_bills_to_a_forecast(&Store::Embedded);
    let postgres = from_bills_to_a_forecast(&Store::postgres());
    assert_eq!(embedded.to_string(), postgres.to_string());
}

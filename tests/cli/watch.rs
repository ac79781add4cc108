//! Costs that are watched, by the program's own commands.

use std::fmt::Write as _;

use chrono::Datelike as _;

use super::{
    says,
    server::{Server, Store},
};

/// Days of October that cost ten each, but for the twentieth.
fn bill() -> String {
    let mut file =
        "BilledCost,EffectiveCost,ListCost,ContractedCost,BillingAccountId,BillingCurrency,\
        BillingPeriodStart,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,ServiceName\n"
            .to_owned();
    for day in 1..=31 {
        let amount = if day == 20 { 70 } else { 10 };
        let _ = writeln!(
            file,
            "{amount},{amount},{amount},{amount},42,USD,2026-10-01T00:00:00Z,Usage,\
             2026-10-{day:02}T00:00:00Z,2026-10-{day:02}T23:00:00Z,EC2"
        );
    }
    file
}

const RULE: &str = "\
name: services
watch:
  group_by: [service]
  detector: {statistical: {sensitivity: high, minimum: \"5\"}}
";

fn found_and_explained(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), store);
    let (file, rule) = (folder.path().join("october.csv"), folder.path().join("services.yaml"));
    std::fs::write(&file, bill()).unwrap();
    std::fs::write(&rule, RULE).unwrap();
    let none = server.run(&["detect"]);
    says(&none.out, &["0 new", "by 0 rules"]);
    assert_eq!(server.run(&["create", "anomaly-rule", "-f", rule.to_str().unwrap()]).code, 0);
    assert_eq!(server.run(&["bill", "import", file.to_str().unwrap()]).code, 0);
    let open = server.run(&["get", "anomalies", "--filter", "status = open"]);
    says(&open.out, &["services 2026-10-20 EC2", "70", "USD", "EXPECTED", "open"]);
    let again = server.run(&["detect"]);
    says(&again.out, &["0 new, 0 changed, 0 cleared, 1 as before, by 1 rules"]);
    let id = server.json(&["get", "anomalies"])[0]["id"].as_str().unwrap().to_owned();
    let explained = server.run(&["do", "anomaly", "explain", &id, "--set", "text=a load test"]);
    assert_eq!(explained.code, 0, "{}", explained.err);
    assert_eq!(server.run(&["do", "anomaly", "explain", &id, "--set", "text=\" \""]).code, 3);
    says(&server.run(&["get", "anomalies"]).out, &["explained"]);
    assert_eq!(server.stop(), 0);
}

const BUDGET: &str = "\
name: shop
allowance:
  amount: \"400\"
  currency: USD
  from: 2026-10
  alerts: [{on: actual, percent: 90}]
";

fn budgets_and_numbers(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), store);
    let (file, budget) = (folder.path().join("october.csv"), folder.path().join("shop.yaml"));
    std::fs::write(&file, bill()).unwrap();
    std::fs::write(&budget, BUDGET).unwrap();
    assert_eq!(server.run(&["create", "budget", "-f", budget.to_str().unwrap()]).code, 0);
    says(&server.run(&["budgets"]).out, &["no budget has a period with bills"]);
    // 30 days of 10 and one of 70 are 370 of 400.
    assert_eq!(server.run(&["bill", "import", file.to_str().unwrap()]).code, 0);
    let stands = server.run(&["budgets", "--evaluate"]);
    says(&stands.out, &["shop", "2026-10", "370.00", "92.5 %", "red", "actual 90 %"]);
    assert!(!stands.out.contains("reached"), "the import has told it: {}", stands.out);
    let events = server.run(&["events", "--type", "alerted"]);
    says(&events.out, &["alerted"]);

    let september = bill().replace("2026-10", "2026-09").replace("\n70,70,70,70", "\n20,20,20,20");
    let september = september.lines().take(31).collect::<Vec<_>>().join("\n");
    std::fs::write(&file, september).unwrap();
    assert_eq!(server.run(&["bill", "import", file.to_str().unwrap()]).code, 0);
    let compared = ["costs", "--month", "2026-10", "--by", "service", "--compare", "previous"];
    says(&server.run(&compared).out, &["BEFORE", "GROWTH", "370.00", "310.00", "60.00", "19.35 %"]);
    let year = server.json(&["costs", "--month", "2026-10", "--compare", "year"]);
    assert_eq!(year["items"][0]["growth"], serde_json::Value::Null);
    assert_eq!(year["items"][0]["growth_reason"], "there was no cost before");
    let wrong = server.run(&["costs", "--compare", "previous"]);
    assert_eq!(wrong.code, 2, "{}", wrong.err);
    says(&wrong.err, &["from_month"]);
    let rounded = server.json(&["costs", "--by", "day", "--digits", "0", "--limit", "3"]);
    assert_eq!(
        (&rounded["totals"]["USD"]["amount"], &rounded["rest"]["USD"]),
        (&"680".into(), &"580".into())
    );

    let numbers = ["kpis", "--month", "2026-10", "--driver", "orders", "--quantity", "148"];
    says(
        &server.run(&numbers).out,
        &["unit-cost", "2.5", "EffectiveCost / 148 orders", "no rule set is named"],
    );
    let unknown = server.run(&["kpis", "--driver", "orders"]);
    assert_eq!(unknown.code, 2);
    says(&unknown.err, &["no driver", "quantity"]);
    let driver = folder.path().join("orders.yaml");
    std::fs::write(&driver, "name: orders\nunit: orders\nvalues: {2026-10: 74}\n").unwrap();
    assert_eq!(server.run(&["create", "driver", "-f", driver.to_str().unwrap()]).code, 0);
    let numbers = ["kpis", "--month", "2026-10", "--driver", "orders"];
    says(
        &server.run(&numbers).out,
        &["unit-cost", "5", "EffectiveCost / 74 orders, by revision 1"],
    );
    let placed = server.run(&["kpis", "--filter", "project = unallocated AND service = EC2"]);
    assert_eq!(placed.code, 0, "{}", placed.err);
    assert_eq!(server.stop(), 0);
}

const REPORT: &str = "\
name: services
question:
  group_by: [service]
  months: {last: {count: 1}}
  digits: 1
schedule: {every: day, hour: 6}
";

fn hinted(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), store);
    says(&server.run(&["hints"]).out, &["no hint at position"]);
    let today = chrono::Utc::now().date_naive();
    let last = today.with_day(1).unwrap() - chrono::Days::new(1);
    let month = last.format("%Y-%m");
    let heading = "BilledCost,EffectiveCost,ListCost,ContractedCost,BillingAccountId,\
        BillingCurrency,BillingPeriodStart,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,\
        ServiceName,ResourceId,ChargeDescription";
    let text = format!(
        "{heading}\n3.605,3.605,4,3.605,42,USD,{month}-01T00:00:00Z,Usage,{month}-01T00:00:00Z,\
         {month}-02T00:00:00Z,VPC,eip-1,Idle public IPv4 address\n"
    );
    let file = folder.path().join("bill.csv");
    std::fs::write(&file, text).unwrap();
    assert_eq!(server.run(&["bill", "import", file.to_str().unwrap()]).code, 0);
    let table = server.run(&["hints"]);
    says(
        &table.out,
        &["unused-address", "eip-1", "3.60", "USD", "bill", "1 hints, 3.60 USD a month"],
    );
    let csv = server.run(&["hints", "-o", "csv"]);
    says(&csv.out, &["code,kind,id,resource", "unused-address,,,eip-1,,,3.605,USD,bill"]);
    let json = server.json(&["hints", "--unattached-days", "30"]);
    assert_eq!(json["thresholds"]["unattached_days"], 30);
    assert_eq!(json["items"][0]["monthly"][0]["amount"], "3.605");
    assert_eq!(json["sums"]["unused-address"]["monthly"]["USD"], "3.605");
    assert_eq!(json["items"][0]["evidence"]["segments"].as_object().unwrap().len(), 1);
    assert_eq!(server.run(&["hints", "--unused-percent", "101"]).code, 2);
    assert_eq!(server.stop(), 0);
}

fn reported_and_fetched(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), store);
    let (file, report) = (folder.path().join("october.csv"), folder.path().join("services.yaml"));
    std::fs::write(&file, bill()).unwrap();
    std::fs::write(&report, REPORT).unwrap();
    assert_eq!(server.run(&["create", "report", "-f", report.to_str().unwrap()]).code, 0);
    assert_eq!(server.run(&["report", "fetch", "services"]).code, 4, "it was never run");
    assert_eq!(server.run(&["bill", "import", file.to_str().unwrap()]).code, 0);
    let answer = server.run(&["report", "answer", "services"]);
    assert_eq!(answer.out, "service,currency,amount,lines\nEC2,USD,370,31\n", "{}", answer.err);
    let then = server.json(&["get", "bills"])[0]["revision"].clone();
    assert_eq!(then, 2);
    let ran = server.run(&["report", "run", "services"]);
    says(&ran.out, &["1 rows", "bytes of csv", "as of position"]);
    let runs = server.json(&["get", "report", "services"])["state"]["runs"].clone();
    let (digest, position) = (runs[0]["digest"].as_str().unwrap(), runs[0]["position"].to_string());

    std::fs::write(&file, bill().replace("\n70,70,70,70", "\n20,20,20,20")).unwrap();
    assert_eq!(server.run(&["bill", "import", file.to_str().unwrap(), "--replace"]).code, 0);
    says(&server.run(&["report", "answer", "services"]).out, &["EC2,USD,320,31"]);
    let past = server.run(&["report", "answer", "services", "--at", &position]);
    assert_eq!(past.out, answer.out, "as it was");
    assert_eq!(
        server.run(&["report", "fetch", "services", digest]).out,
        answer.out,
        "as it was kept"
    );
    let to = folder.path().join("services.parquet");
    let path = to.to_str().unwrap();
    let parquet = ["report", "answer", "services", "--format", "parquet", "--to", path];
    assert_eq!(server.run(&parquet).code, 0);
    assert_eq!(std::fs::read(&to).unwrap()[..4], *b"PAR1");
    assert_eq!(server.run(&["report", "answer", "services", "--format", "xls"]).code, 2);
    assert_eq!(server.stop(), 0);
}

#[test]
fn hints_are_told_with_their_money_embedded() {
    hinted(&Store::Embedded);
}

#[test]
fn hints_are_told_with_their_money_on_postgresql() {
    hinted(&Store::postgres());
}

#[test]
fn a_report_is_answered_as_it_was_and_kept_embedded() {
    reported_and_fetched(&Store::Embedded);
}

#[test]
fn a_report_is_answered_as_it_was_and_kept_on_postgresql() {
    reported_and_fetched(&Store::postgres());
}

#[test]
fn a_budget_is_told_of_and_numbers_are_compared_embedded() {
    budgets_and_numbers(&Store::Embedded);
}

#[test]
fn a_budget_is_told_of_and_numbers_are_compared_on_postgresql() {
    budgets_and_numbers(&Store::postgres());
}

#[test]
fn an_anomaly_is_found_by_an_import_and_explained_embedded() {
    found_and_explained(&Store::Embedded);
}

#[test]
fn an_anomaly_is_found_by_an_import_and_explained_on_postgresql() {
    found_and_explained(&Store::postgres());
}

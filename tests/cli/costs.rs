//! A bill from its file to an explained number, by the program's own commands.

use std::{process::Stdio, time::Duration};

use super::{
    says,
    server::{Server, Store},
};

const BILL: &str = "\
BilledCost,EffectiveCost,ListCost,ContractedCost,BillingAccountId,BillingCurrency,BillingPeriodStart,BillingPeriodEnd,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,ServiceName,ResourceId,Tags
12.50,12.50,15,12.50,42,USD,2026-10-01T00:00:00Z,2026-11-01T00:00:00Z,Usage,2026-10-05T00:00:00Z,2026-10-06T00:00:00Z,EC2,i-1,\"{\"\"env\"\": \"\"prod\"\"}\"
7.505,7.505,8,7.505,42,USD,2026-10-01T00:00:00Z,2026-11-01T00:00:00Z,Usage,2026-10-05T00:00:00Z,2026-10-06T00:00:00Z,S3,bucket,\"{\"\"env\"\": \"\"dev\"\"}\"
three,1,1,1,42,USD,2026-10-01T00:00:00Z,2026-11-01T00:00:00Z,Usage,2026-10-05T00:00:00Z,2026-10-06T00:00:00Z,S3,bucket,
9,9,9,9,42,USD,2026-10-01T00:00:00Z,2026-11-01T00:00:00Z,Usage,2026-10-05T00:00:00Z,2026-10-06T00:00:00Z,VPC,vpc-1,
";

const RULES: &str = "\
name: costs
rules:
  attribution:
    - {name: network, centre: network, conditions: [{dimension: service, values: [VPC]}]}
    - {name: prod, centre: shop, conditions: [{dimension: tags.env, values: [prod]}]}
    - {name: dev, centre: lab, conditions: [{dimension: tags.env, values: [dev]}]}
  shared:
    - {name: halves, pool: network, method: {even: {}}}
";

fn from_file_to_number(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), store);
    let bill = folder.path().join("october.csv");
    let path = bill.to_str().unwrap();
    std::fs::write(&bill, BILL).unwrap();

    let strict = server.run(&["bill", "import", path, "--strict"]);
    assert_eq!(strict.code, 3, "{}", strict.err);
    says(&strict.err, &["bill-unreadable", "line 4", "BilledCost", "three"]);
    says(&server.run(&["get", "bills"]).err, &["no bills"]);

    let imported = server.run(&["bill", "import", path]);
    assert_eq!(imported.code, 0, "{}", imported.err);
    says(
        &imported.out,
        &["2026-10 42  3 lines, billed 29.00 USD", "1 lines were not booked", "line 4"],
    );
    let again = server.run(&["bill", "import", path]);
    says(&again.out, &["these lines were there already"]);

    let costs = server.run(&["costs", "--by", "service,tags.env"]);
    says(&costs.out, &["SERVICE", "TAGS.ENV", "EC2", "12.50", "VPC", "–", "total 29.00 USD"]);
    let exact = server.json(&["costs", "--filter", "service = S3"]);
    assert_eq!(exact["totals"]["USD"]["amount"], "7.505");
    let prefix = server.json(&["costs", "--filter", "service = \"E*\" AND tags.env != dev"]);
    assert_eq!(prefix["totals"]["USD"]["amount"], "12.5");
    let none = server.json(&["costs", "--month", "2026-09"]);
    assert_eq!((none["bills"].as_u64(), none["items"].as_array().unwrap().len()), (Some(0), 0));
    let list = server.json(&["costs", "--basis", "list"]);
    assert_eq!(list["totals"]["USD"]["amount"], "32");

    let explained = server.run(&["costs", "--filter", "service = EC2", "--explain"]);
    says(
        &explained.out,
        &[
            "12.5 USD  sum of BilledCost",
            "1 lines of october.csv",
            "lines-imported at position",
            "i-1",
        ],
    );
    let typo = server.run(&["costs", "--by", "servce"]);
    assert_eq!(typo.code, 2, "{}", typo.err);
    says(&typo.err, &["servce", "service_category"]);
    let mapping = server.run(&["bill", "import", path, "--mapping", "focs"]);
    says(&mapping.err, &["focs", "aws-cur", "focus", "oci"]);

    let rules = folder.path().join("rules.yaml");
    std::fs::write(&rules, RULES).unwrap();
    let defined = server.run(&["create", "rule-set", "-f", rules.to_str().unwrap()]);
    assert_eq!(defined.code, 0, "{}", defined.err);
    let exported = folder.path().join("export.csv");
    let export = ["bill", "export", exported.to_str().unwrap(), "--rules", "costs", "--draft"];
    assert_eq!(server.run(&export).code, 0);
    let exported = std::fs::read_to_string(exported).unwrap();
    let heading = exported.lines().next().unwrap();
    says(heading, &["ServiceProviderName", "AllocatedMethodDetails", "x_Centre"]);
    assert_eq!(exported.lines().count(), 5, "the nine of the pool in two halves: {exported}");
    says(&exported, &["costs/draft/halves", "AllocatedRatio\"\":0.5}"]);
    let older = server.run(&["bill", "export", "--focus", "1.2"]);
    says(&older.out, &["PublisherName"]);
    assert_eq!(older.out.lines().count(), 4);
    let unknown = server.run(&["bill", "export", "--focus", "0.9"]);
    assert_eq!(unknown.code, 2, "{}", unknown.err);
    says(&unknown.err, &["1.2, 1.4"]);
    let draft = server.run(&["allocate", "costs", "--draft"]);
    assert_eq!(draft.code, 0, "{}", draft.err);
    says(
        &draft.out,
        &["DIFFERENCE", "shop", "17.00", "halves: 4.50 USD network → lab", "by the draft"],
    );
    let nothing = server.json(&["allocate", "costs"]);
    assert_eq!(nothing["items"][0]["centre"], "unallocated", "a draft does not count");
    assert_eq!(server.run(&["do", "rule-set", "publish", "costs"]).code, 0);
    let allocated = server.json(&["allocate", "costs"]);
    let after: Vec<String> = allocated["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| format!("{} {}", item["centre"], item["after"]).replace('"', ""))
        .collect();
    assert_eq!(after, ["lab 12.005", "network 0", "shop 17"]);
    let of_shop = ["costs", "--allocated", "--filter", "project = shop", "--explain"];
    let explained = server.run(&of_shop);
    assert_eq!(explained.code, 0, "{}", explained.err);
    says(
        &explained.out,
        &[
            "17 USD",
            "12.5 of its own, 4.5 received, 0 given, USD",
            "4.5 USD halves: network → shop, 50 % of 9, 2026-10",
            "lines-imported at position",
            "largest lines",
        ],
    );
    let number = server.json(&["costs", "--allocated", "--filter", "project = shop"]);
    assert_eq!(number["totals"]["USD"]["amount"], server.json(&of_shop)["totals"]["USD"]);
    let spread = ["costs", "--by", "project,service", "--allocated", "--filter", "service = VPC"];
    let spread = server.json(&spread);
    let spread: Vec<String> = spread["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| format!("{} {}", item["group"]["project"], item["amount"]).replace('"', ""))
        .collect();
    assert_eq!(spread, ["lab 4.5", "shop 4.5"], "what was the pool's is known by its lines");
    let how = server.run(&["costs", "--allocated", "--filter", "service = VPC", "--explain"]);
    assert_eq!(how.code, 0, "{}", how.err);
    says(&how.out, &["9 USD", "4.5 USD halves: network → lab, 50 % of 9", "9 USD in 1 lines"]);

    let id = server.json(&["get", "bills"])[0]["id"].as_str().unwrap().to_owned();
    let wrong = server.run(&["do", "bill", "close", &id, "--set", "invoiced.USD=\"30\""]);
    assert_eq!(wrong.code, 3, "{}", wrong.err);
    says(&wrong.err, &["bill-differs", "29.005 USD", "30"]);
    let closed = server.run(&["do", "bill", "close", &id, "--set", "invoiced.USD=\"29.005\""]);
    assert_eq!(closed.code, 0, "{}", closed.err);
    std::fs::write(&bill, BILL.replace("12.50", "11.50")).unwrap();
    let late = server.run(&["bill", "import", path, "--replace"]);
    assert_eq!(late.code, 5, "{}", late.err);
    says(&late.err, &["bill-closed", "reason"]);
    let why = ["bill", "import", path, "--replace", "--reason", "a price was wrong"];
    assert_eq!(server.run(&why).code, 0);
    let now = server.json(&["costs"]);
    assert_eq!(now["totals"]["USD"]["amount"], "28.005");
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_bill_comes_from_its_file_to_an_explained_number_embedded() {
    from_file_to_number(&Store::Embedded);
}

#[test]
fn a_bill_comes_from_its_file_to_an_explained_number_on_postgresql() {
    from_file_to_number(&Store::postgres());
}

#[test]
fn costs_are_shown_in_another_currency_at_other_prices_and_say_by_which() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &Store::Embedded);
    let bill = folder.path().join("bill.csv");
    // A month that is still to come: a price changes nothing that has been.
    let next = chrono::Utc::now().date_naive() + chrono::Months::new(2);
    let after = next + chrono::Months::new(1);
    let text = BILL.replace("2026-10", &next.format("%Y-%m").to_string());
    let text = text.replace("2026-11", &after.format("%Y-%m").to_string()).replace("three", "3");
    std::fs::write(&bill, text).unwrap();
    assert_eq!(server.run(&["bill", "import", bill.to_str().unwrap()]).code, 0);

    let none = server.run(&["costs", "--currency", "EUR"]);
    assert_eq!(none.code, 3, "{}", none.out);
    says(&none.err, &["no-exchange-rate", "from USD to EUR"]);
    let rate = ["from=USD", "to=EUR", "day=2026-09-30", "rate=0.8", "source=ECB"];
    let mut define = vec!["create", "exchange-rate"];
    define.extend(rate.iter().flat_map(|one| ["--set", one]));
    let defined = server.run(&define);
    assert_eq!(defined.code, 0, "{}", defined.err);
    let twice = server.run(&define);
    assert_eq!(twice.code, 5, "{}", twice.err);
    let price = ["create", "repricing", "--set", "name=all", "--set", "price.factor=1.5"];
    let priced = server.run(&price);
    assert_eq!(priced.code, 0, "{}", priced.err);
    let costs = server.run(&["costs", "--by", "service", "--currency", "EUR", "--repriced"]);
    says(&costs.out, &["EC2", "15.00", "EUR", "total 38.41 EUR", "billed, re-priced, of 1 bills"]);
    let forecast = server.run(&["forecast", "--total", "--running", "--currency", "EUR"]);
    assert_eq!(forecast.code, 0, "{}", forecast.err);
    says(&forecast.out, &["EUR"]);
    let explained = server.run(&["costs", "--currency", "EUR", "--repriced", "--explain"]);
    says(
        &explained.out,
        &[
            "38.406 EUR",
            "32.005 USD → 38.406 EUR",
            "times 1.5 by all",
            "times 0.8 of 2026-09-30, ECB, as known now, exchange rate",
            "revision 1",
        ],
    );
    let id = server.json(&["get", "bills"])[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(server.run(&["do", "bill", "close", &id]).code, 0);
    let id = server.json(&["get", "exchange-rates"])[0]["id"].as_str().unwrap().to_owned();
    let mut correct = vec!["do", "exchange-rate", "define", &id];
    let other = ["from=USD", "to=EUR", "day=2026-09-30", "rate=0.9", "source=ECB"];
    correct.extend(other.iter().flat_map(|one| ["--set", one]));
    let corrected = server.run(&correct);
    assert_eq!(corrected.code, 0, "{}", corrected.err);
    let closed = server.json(&["costs", "--currency", "EUR", "--repriced"]);
    assert_eq!(closed["totals"]["EUR"]["amount"], "38.406");
    let explained = server.json(&["costs", "--currency", "EUR", "--explain"]);
    let rate = &explained["terms"][0]["exchange_rate"];
    assert_eq!((&rate["rate"], &rate["known_at_closing"]), (&"0.8".into(), &true.into()));
    assert_eq!(explained["totals"]["EUR"], "25.604");
    let quantity = server.run(&["costs", "--basis", "quantity", "--currency", "EUR"]);
    assert_eq!(quantity.code, 2, "{}", quantity.out);
    assert_eq!(server.stop(), 0);
}

#[test]
fn the_bills_of_a_folder_are_taken_in_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &Store::Embedded);
    let bills = folder.path().join("bills");
    std::fs::create_dir(&bills).unwrap();
    let path = bills.to_str().unwrap();
    let empty = server.run(&["bill", "import", path]);
    assert_eq!(empty.code, 2, "{}", empty.out);
    says(&empty.err, &["has no .csv, .csv.gz, .csv.zst, .parquet"]);
    let good = BILL.replace("three", "3");
    std::fs::write(bills.join("b.csv"), good.replace("-10-", "-08-").replace("2026-11", "2026-09"))
        .unwrap();
    std::fs::write(bills.join("A.CSV"), good.replace("-10-", "-07-").replace("2026-11", "2026-08"))
        .unwrap();
    std::fs::write(bills.join("read.me"), "no bill").unwrap();
    std::fs::create_dir_all(bills.join("b/c")).unwrap();
    std::fs::write(
        bills.join("b/c/d.csv"),
        good.replace("-10-", "-05-").replace("2026-11", "2026-06"),
    )
    .unwrap();
    let imported = server.run(&["bill", "import", path]);
    assert_eq!(imported.code, 0, "{}", imported.err);
    let months: Vec<&str> = imported.out.lines().map(|line| &line[..7]).collect();
    assert_eq!(months, ["2026-07", "2026-05", "2026-08"]);
    assert_eq!(server.json(&["costs", "--by", "month"])["groups"], 3);
    let explained = server.json(&["costs", "--month", "2026-05", "--explain"]);
    assert_eq!(explained["parts"][0]["source"], "b/c/d.csv");
}

#[test]
fn a_bill_is_read_by_a_mapping_of_the_caller() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &Store::Embedded);
    let bill = folder.path().join("hosting.csv");
    std::fs::write(&bill, "Datum,Betrag,Dienst\n01.10.2026,\"1.234,50\",Server\n").unwrap();
    let toml = "name = \"hosting\"\ndates = [\"%d.%m.%Y\"]\ndecimal_mark = \",\"\n\
        thousands_mark = \".\"\n[columns]\nBilledCost = \"Betrag\"\n\
        BillingPeriodStart = \"Datum\"\nChargePeriodStart = \"Datum\"\n\
        ChargePeriodEnd = \"Datum\"\nServiceName = \"Dienst\"\n[constants]\n\
        BillingAccountId = \"hoster\"\nBillingCurrency = \"EUR\"\n";
    let yaml = "name: hosting\ndates: [\"%d.%m.%Y\"]\ndecimal_mark: \",\"\nthousands_mark: .\n\
        columns: {BilledCost: Betrag, BillingPeriodStart: Datum, ChargePeriodStart: Datum, \
        ChargePeriodEnd: Datum, ServiceName: Dienst}\n\
        constants: {BillingAccountId: hoster, BillingCurrency: EUR}\n";
    let path = bill.to_str().unwrap();
    let unknown = server.run(&["bill", "import", path]);
    assert_eq!(unknown.code, 3, "{}", unknown.err);
    says(&unknown.err, &["no built-in mapping", "Betrag"]);
    for (name, text) in [("mapping.toml", toml), ("mapping.yaml", yaml)] {
        let mapping = folder.path().join(name);
        std::fs::write(&mapping, text).unwrap();
        let mapping = mapping.to_str().unwrap();
        let imported = server.run(&["bill", "import", path, "--mapping-file", mapping]);
        assert_eq!(imported.code, 0, "{}", imported.err);
        says(&imported.out, &["2026-10 hoster  1 lines, billed 1234.50 EUR"]);
    }
    let wrong = folder.path().join("wrong.json");
    std::fs::write(&wrong, "{\"name\": \"x\", \"columns\": {\"Cost\": \"Betrag\"}}").unwrap();
    let wrong = ["bill", "import", path, "--mapping-file", wrong.to_str().unwrap()];
    let refused = server.run(&wrong);
    assert_eq!(refused.code, 3, "{}", refused.err);
    says(&refused.err, &["Cost is not a column of a line"]);
}

/// Three months of ten thousand lines each; line `n` costs `n` millionths.
fn large() -> String {
    let heading = BILL.lines().next().unwrap();
    let lines = (1..=30_000_u32).map(|n| {
        let month = n % 3 + 7;
        let cost = format!("0.{n:06}");
        let day = format!("2026-{month:02}-05");
        format!(
            "{cost},{cost},{cost},{cost},42,USD,2026-{month:02}-01T00:00:00Z,\
             2026-{:02}-01T00:00:00Z,Usage,{day}T00:00:00Z,{day}T01:00:00Z,EC2,i-{n},\n",
            month + 1
        )
    });
    format!("{heading}\n{}", lines.collect::<String>())
}

#[test]
fn a_server_that_is_killed_during_imports_counts_every_line_once() {
    let folder = tempfile::tempdir().unwrap();
    let bill = folder.path().join("large.csv");
    std::fs::write(&bill, large()).unwrap();
    let path = bill.to_str().unwrap();
    let (mut cut, mut booked) = (0, 0);
    for round in 0..12 {
        let server = Server::start(folder.path(), &Store::Embedded);
        let mut import = server.client(&["bill", "import", path]);
        import.stdout(Stdio::null()).stderr(Stdio::null());
        let mut import = import.spawn().unwrap();
        // Another moment of the import each time.
        std::thread::sleep(Duration::from_millis(20 + round * 70));
        // SIGKILL.
        drop(server);
        if import.wait().unwrap().success() {
            booked += 1;
        } else {
            cut += 1;
        }
    }
    assert!(cut >= 3, "{cut} imports were cut off, {booked} were through");
    let server = Server::start(folder.path(), &Store::Embedded);
    let imported = server.run(&["bill", "import", path]);
    assert_eq!(imported.code, 0, "{}", imported.err);
    let costs = server.json(&["costs"]);
    // The sum of 1 to 30,000.
    assert_eq!(costs["totals"]["USD"]["amount"], "450.015");
    assert_eq!(costs["totals"]["USD"]["lines"], 30_000);
    assert_eq!(costs["bills"], 3);
    let segments = std::fs::read_dir(folder.path().join("data/segments")).unwrap();
    let names: Vec<String> =
        segments.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    // Each with the list of its lines' digests and its cube.
    let count =
        |kind: &str| names.iter().filter(|name| name.rsplit('.').next() == Some(kind)).count();
    assert_eq!(
        (count("parquet"), count("lines"), count("cube"), names.len()),
        (3, 3, 3, 9),
        "the same lines are the same segments, and no part is left: {names:?}"
    );
    assert_eq!(server.stop(), 0);
}

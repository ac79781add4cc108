//! Runs that make bill lines, by the program's own commands, on both stores.

use std::{process::Stdio, time::Duration};

use super::{
    says,
    server::{Server, Store, cloud},
};

const PURCHASE: &str = "\
BilledCost,EffectiveCost,ListCost,ContractedCost,BillingAccountId,BillingCurrency,BillingPeriodStart,BillingPeriodEnd,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,ServiceName,CommitmentDiscountId
365,365,365,365,42,EUR,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z,Purchase,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z,RDS,ri-1
";

const RESERVATION: &str = "\
terms:
  name: database
  form: reservation
  billing_account: '42'
  commitment: ri-1
  currency: EUR
  amount: '365'
  start: 2026-01-01
  end: 2027-01-01
";

fn paid_in_advance(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), store);
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    assert_eq!(server.run(&["bill", "import", &file("january.csv", PURCHASE)]).code, 0);
    let defined =
        server.run(&["create", "commitment", "-f", &file("reservation.yaml", RESERVATION)]);
    assert_eq!(defined.code, 0, "{}", defined.err);

    let planned = server.run(&["amortise", "2026-01", "2026-12", "--dry-run"]);
    says(&planned.out, &["2026-02 42  28 lines", "effective 28.00 EUR  (open, would change)"]);
    assert_eq!(server.json(&["get", "bills"]).as_array().unwrap().len(), 1, "nothing is booked");
    let done = server.run(&["amortise", "2026-01", "2026-12"]);
    says(&done.out, &["2026-01 42  32 lines, billed 0.00, effective -334.00 EUR  (open, changed)"]);
    let again = server.run(&["amortise", "2026-01", "2026-12"]);
    says(&again.out, &["2026-12 42  31 lines", "as it was"]);
    assert!(!again.out.contains("changed"), "{}", again.out);

    let costs = server.json(&["costs", "--by", "month", "--basis", "effective"]);
    let months = costs["items"].as_array().unwrap();
    assert_eq!((months.len(), &costs["totals"]["EUR"]["amount"]), (12, &"365".into()));
    let explained =
        server.run(&["costs", "--month", "2026-02", "--basis", "effective", "--explain"]);
    says(&explained.out, &["28 EUR", "28 lines of amortisation", "lines-imported at position"]);

    let february = server.json(&["get", "bills"]);
    let february = february.as_array().unwrap().iter();
    let mut february = february.filter(|bill| bill["parent"] == "2026-02");
    let id = february.next().unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(server.run(&["do", "bill", "close", &id]).code, 0);
    let upgrade = [
        "do",
        "commitment",
        "upgrade",
        "database",
        "--set",
        "day=2026-02-10",
        "--set",
        "paid=\"0\"",
        "--set",
        "end=2028-01-01",
    ];
    let upgraded = server.run(&upgrade);
    assert_eq!(upgraded.code, 0, "{}", upgraded.err);
    let closed = server.run(&["amortise", "2026-02"]);
    assert_eq!(closed.code, 5, "{}", closed.err);
    says(&closed.err, &["bill-closed", "2026-02"]);
    let why = server.run(&["amortise", "2026-02", "--reason", "a longer term"]);
    says(&why.out, &["(closed, changed)"]);
    let wrong = server.run(&["amortise", "2026-13"]);
    assert_eq!(wrong.code, 2, "{}", wrong.err);
    assert_eq!(server.stop(), 0);
}

#[test]
fn what_was_paid_in_advance_is_recognised_by_days_embedded() {
    paid_in_advance(&Store::Embedded);
}

#[test]
fn what_was_paid_in_advance_is_recognised_by_days_on_postgresql() {
    paid_in_advance(&Store::postgres());
}

/// Reservations of four accounts, each over three years.
const ACCOUNTS: [&str; 4] = ["41", "42", "43", "44"];

#[test]
fn a_server_that_is_killed_during_a_run_recognises_every_day_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &Store::Embedded);
    let (heading, purchase) = PURCHASE.trim_end().split_once('\n').unwrap();
    let purchases = ACCOUNTS.map(|account| purchase.replace(",42,", &format!(",{account},")));
    let bill = folder.path().join("january.csv");
    std::fs::write(&bill, format!("{heading}\n{}\n", purchases.join("\n"))).unwrap();
    assert_eq!(server.run(&["bill", "import", bill.to_str().unwrap()]).code, 0);
    for account in ACCOUNTS {
        let terms = folder.path().join("terms.yaml");
        let text = RESERVATION
            .replace("'42'", &format!("'{account}'"))
            .replace("name: database", &format!("name: database {account}"))
            .replace("2027-01-01", "2029-01-01");
        std::fs::write(&terms, text).unwrap();
        let defined = server.run(&["create", "commitment", "-f", terms.to_str().unwrap()]);
        assert_eq!(defined.code, 0, "{}", defined.err);
    }
    drop(server);
    let run = ["amortise", "2026-01", "2028-12"];
    let (mut cut, mut between) = (0, 0);
    for round in 0..10 {
        let server = Server::start(folder.path(), &Store::Embedded);
        let before = server.json(&["get", "bills"]).as_array().unwrap().len();
        if before > ACCOUNTS.len() && before < ACCOUNTS.len() * 36 {
            between += 1;
        }
        let mut running = server.client(&run);
        running.stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = running.spawn().unwrap();
        // Another moment of the run each time.
        std::thread::sleep(Duration::from_millis(40 + round * 30));
        // SIGKILL.
        drop(server);
        if !running.wait().unwrap().success() {
            cut += 1;
        }
    }
    assert!(cut >= 3 && between >= 1, "{cut} runs were cut off, {between} with bills half made");
    let server = Server::start(folder.path(), &Store::Embedded);
    let done = server.run(&run);
    assert_eq!(done.code, 0, "{}", done.err);
    let again = server.run(&run);
    assert!(!again.out.contains("changed"), "{}", again.out);
    let costs = server.json(&["costs", "--by", "billing_account", "--basis", "effective"]);
    let accounts = costs["items"].as_array().unwrap();
    assert_eq!(accounts.len(), ACCOUNTS.len());
    for account in accounts {
        assert_eq!(account["amount"], "365", "{account}");
        // The purchase, what makes it effective at nothing, and the days of three years, one of
        // them a leap year.
        assert_eq!(account["lines"], 2 + 365 + 365 + 366, "{account}");
    }
    assert_eq!(server.stop(), 0);
}

/// What a server says of yesterday: four of ten seconds busy, a sample an hour.
fn metrics(instances: &[&str]) -> String {
    use std::fmt::Write as _;
    let today = chrono::Utc::now().date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
    let mut file = String::new();
    for (instance, hour) in instances.iter().flat_map(|one| (0..=24).map(move |hour| (one, hour))) {
        let at = (today - chrono::TimeDelta::hours(24 - hour)).timestamp_millis();
        let of = format!("cpu=\"0\",mode=\"idle\",instance=\"{instance}\"");
        writeln!(file, "node_cpu_seconds_total{{{of}}} {} {at}", hour * 2_160).unwrap();
    }
    file
}

fn servers_used(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let _cloud = cloud(folder.path());
    let server = Server::start(folder.path(), store);
    server.connect();
    let servers = server.json(&["get", "servers"]);
    let id = servers[0]["external_id"].as_str().unwrap();
    let path = folder.path().join("nodes.prom");
    std::fs::write(&path, metrics(&[id, "elsewhere:9100"])).unwrap();
    let file = path.to_str().unwrap();
    let planned = server.run(&["usage", "--servers", file, "--dry-run"]);
    says(&planned.out, &["nodes.prom  1 servers: 1 days would be measured, 0"]);
    let taken = server.run(&["usage", "--servers", file]);
    says(
        &taken.out,
        &["1 days measured, 0", "finding unmatched: no server is called elsewhere:9100: 1 series"],
    );
    let again = server.json(&["usage", "--servers", file]);
    assert_eq!((&again["days"]["measured"], &again["days"]["unchanged"]), (&0.into(), &1.into()));
    says(&server.run(&["get", "servers"]).out, &["CPU P95 %", "40"]);
    says(&server.run(&["events", "--type", "measured"]).out, &["measured"]);
    let other = server.run(&["usage", "--servers", "--label", "host", file]);
    says(&other.out, &["0 servers", "2 series"]);
    // Containers need a cluster, and one or the other is said.
    assert_eq!(server.run(&["usage", file]).code, 2);
    assert_eq!(server.run(&["usage", "--servers", "--cluster", "edge", file]).code, 2);
    std::fs::write(&path, "up 1 1700000000000\n").unwrap();
    let nothing = server.run(&["usage", "--servers", file]);
    assert_eq!(nothing.code, 3, "{}", nothing.err);
    says(&nothing.err, &["nothing in it measures a server"]);
    assert_eq!(server.stop(), 0);
}

#[test]
fn what_servers_used_is_kept_by_days_embedded() {
    servers_used(&Store::Embedded);
}

#[test]
fn what_servers_used_is_kept_by_days_on_postgresql() {
    servers_used(&Store::postgres());
}

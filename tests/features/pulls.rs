//! Bills out of object storage: taken once, restated when they change, kept when they go, through
//! faults of the store and deaths of the server. The store is a third party's stand-in for S3.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use adapters_clouds::{
    aws::Aws,
    http_client::HttpClient,
    testing::{Fate, Hand, Proxy},
};
use commands::{
    bills::costs,
    ports::CostQuery,
    run_orders::{Probe, Step},
};
use domain::{
    finops::{amount::BillingMonth, bill::Bill},
    kernel::OrderKey,
    log::Record,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    aws::{new_account, server_at},
    bills::HEADING,
    world::World,
};

/// Pages of five: a handful of files is a listing of two.
const PAGE_SIZE: usize = 5;

/// A file of so many lines of a month, each of which costs so much.
fn bill(month: &str, amounts: &[&str]) -> String {
    let mut file = HEADING.to_owned();
    let next = month.parse::<BillingMonth>().unwrap().next();
    for (place, amount) in amounts.iter().enumerate() {
        writeln!(
            file,
            "{amount},{amount},{amount},{amount},42,USD,{month}-01T00:00:00Z,\
             {next}-01T00:00:00Z,Usage,{month}-05T00:00:00Z,{month}-06T00:00:00Z,EC2,\
             \"{{\"\"n\"\": \"\"{place}\"\"}}\""
        )
        .unwrap();
    }
    file
}

/// A bucket of the stand-in behind a proxy, and a ledger that pulls from it.
struct Store {
    world: World,
    proxy: Proxy,
    hand: Hand,
    bucket: String,
    source: Uuid,
}

impl Store {
    async fn new(place: Value) -> Self {
        let stand_in = server_at("SKYLEDGER_TEST_AWS");
        let proxy = Proxy::start(&stand_in).await.unwrap();
        let hand = Hand::new(&stand_in);
        let world = World::beside(vec![Arc::new(Aws::with(HttpClient::new(), PAGE_SIZE))]);
        let bucket = format!("bills-{}", new_account());
        let made = hand.object("PUT", &bucket, vec![]).await.unwrap();
        assert_eq!(made.status, 200, "{made:?}");
        let mut body = json!({
            "name": "aws",
            "place": {"bucket": bucket, "prefix": "focus/", "endpoint": proxy.url()},
            "credential": {
                "access_key_id": "AKIASKYLEDGERTEST00",
                "secret_access_key": "not/a/secret+of+anybody0123456789abcdefgh",
            },
        });
        body["place"].as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
        let source = world.send("bill-source", None, "define", body).await.unwrap().id;
        Self { world, proxy, hand, bucket, source }
    }

    async fn put(&self, key: &str, file: &str) {
        let path = format!("{}/{key}", self.bucket);
        let put = self.hand.object("PUT", &path, file.as_bytes().to_vec()).await.unwrap();
        assert_eq!(put.status, 200, "{put:?}");
    }

    async fn delete(&self, key: &str) {
        let path = format!("{}/{key}", self.bucket);
        let gone = self.hand.object("DELETE", &path, vec![]).await.unwrap();
        assert_eq!(gone.status, 204, "{gone:?}");
    }

    async fn state(&self) -> Value {
        self.world.row(self.source).await["state"].clone()
    }

    /// Pulls, and gives what it came to.
    async fn pull(&self, body: Value) -> Value {
        self.world.send("bill-source", self.source, "pull", body).await.unwrap();
        self.world.settle().await;
        self.state().await["last_pull"].clone()
    }

    /// The numbers of a pull that is through.
    async fn sum(&self) -> [u64; 4] {
        let last = self.pull(json!({})).await;
        let sum = &last["sum"];
        let count = |name: &str| sum[name].as_u64().unwrap_or_else(|| panic!("{last}"));
        let refused = sum["refused"].as_array().unwrap().len() as u64;
        [count("listed"), count("taken"), count("unchanged"), refused]
    }

    /// What all lines come to, and how many there are.
    async fn total(&self) -> (String, u64) {
        self.world.caught_up().await;
        let counting = self.world.ledger.all_bills(None).await.unwrap();
        let bills = self.world.ledger.ports.bills.as_ref();
        let table = costs(bills, &counting, &CostQuery::default()).unwrap();
        let totals = table.totals().unwrap();
        let sums: Vec<String> = totals.values().map(|sum| sum.amount.to_string()).collect();
        (sums.join(" "), totals.values().map(|sum| sum.lines).sum())
    }

    fn calls(&self, action: &str) -> usize {
        self.proxy.calls().iter().filter(|seen| seen.action == action).count()
    }

    /// An export of October in two files, as AWS writes it.
    async fn export(&self, files: &[(&str, &[&str])]) {
        let mut named = Vec::new();
        for (name, amounts) in files {
            let key = format!("focus/data/BILLING_PERIOD=2026-10/{name}.csv");
            self.put(&key, &bill("2026-10", amounts)).await;
            named.push(format!("s3://{}/{key}", self.bucket));
        }
        let manifest = json!({"exportName": "e", "dataFiles": named}).to_string();
        self.put("focus/metadata/BILLING_PERIOD=2026-10/e-Manifest.json", &manifest).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_taken_once_and_again_when_it_changes_and_stays_when_it_is_gone() {
    let store = Store::new(json!({})).await;
    for month in 1..=7 {
        let month = format!("2026-{month:02}");
        store.put(&format!("focus/{month} ü+.csv"), &bill(&month, &["1.5"])).await;
    }
    store.put("focus/readme.txt", "no bill").await;
    store.put("elsewhere/2026-09.csv", &bill("2026-09", &["100"])).await;
    assert_eq!(store.sum().await, [7, 7, 0, 0]);
    assert_eq!(store.total().await, ("10.5".into(), 7));
    assert_eq!((store.calls("ListObjectsV2"), store.calls("GetObject")), (2, 7));

    let head = store.world.log.head().await.unwrap().position;
    assert_eq!(store.sum().await, [7, 0, 7, 0]);
    assert_eq!(store.calls("GetObject"), 7, "nothing is read again");
    let news = store.world.log.read(head, 100).await.unwrap();
    let news: BTreeSet<&str> = news.iter().map(Record::kind).collect();
    assert_eq!(news, BTreeSet::from(["bill-source"]), "and no bill hears of it");

    store.put("focus/2026-03 ü+.csv", &bill("2026-03", &["2", "0.25"])).await;
    assert_eq!(store.sum().await, [7, 1, 6, 0]);
    assert_eq!(store.total().await, ("11.25".into(), 8), "in place of what it said");

    store.delete("focus/2026-03 ü+.csv").await;
    store.delete("focus/2026-07 ü+.csv").await;
    assert_eq!(store.sum().await, [5, 0, 5, 0]);
    assert_eq!(store.total().await, ("11.25".into(), 8), "what is gone was billed all the same");

    // It comes back as it was, and says what it said.
    store.put("focus/2026-07 ü+.csv", &bill("2026-07", &["1.5"])).await;
    assert_eq!(store.sum().await, [6, 0, 6, 0]);

    let history = store.world.history("bill-source", store.source).await;
    let taken = history.iter().find(|record| record.event_type() == "delivery-taken").unwrap();
    let taken: Value = serde_json::from_slice(taken.data()).unwrap();
    let taken = &taken["taken"];
    assert_eq!(taken["files"][0]["key"], "focus/2026-01 ü+.csv");
    assert_eq!(taken["bills"][0]["month"], "2026-01");
    let id = Bill::id("42", "2026-01".parse().unwrap());
    let segment = taken["bills"][0]["segment"].as_str().unwrap();
    assert!(store.world.ledger.import_of(id, segment).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_is_the_files_that_its_manifest_names() {
    let store = Store::new(json!({})).await;
    store.export(&[("1", &["1", "2"]), ("2", &["4"])]).await;
    // A copy of before, which the manifest does not name.
    store.put("focus/data/BILLING_PERIOD=2026-10/old/1.csv", &bill("2026-10", &["100"])).await;
    assert_eq!(store.sum().await, [3, 1, 0, 0]);
    assert_eq!(store.total().await, ("7".into(), 3));
    let deliveries = store.state().await["deliveries"].clone();
    let name = format!("{}/{}/focus/BILLING_PERIOD=2026-10", store.proxy.url(), store.bucket);
    assert_eq!((&deliveries[&name]["files"], &deliveries[&name]["lines"]), (&json!(3), &json!(3)));

    // The issuer writes the month again, in one file: the other one counts no more.
    store.export(&[("1", &["1", "2.5"])]).await;
    assert_eq!(store.sum().await, [3, 1, 0, 0]);
    assert_eq!(store.total().await, ("3.5".into(), 2));

    // What a manifest names and is not there lets nothing be read, and takes nothing away.
    store.delete("focus/data/BILLING_PERIOD=2026-10/1.csv").await;
    let last = store.pull(json!({})).await;
    assert_eq!(last["sum"]["refused"][0]["code"], "manifest-incomplete", "{last}");
    assert_eq!(store.total().await, ("3.5".into(), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_creates_the_projects_that_published_rules_create() {
    let store = Store::new(json!({})).await;
    let rules = json!({"attribution": [
        {"name": "numbers", "conditions": [], "centre_of": "tags.n", "create_project": true}]});
    let body = json!({"name": "costs", "rules": rules});
    let set = store.world.send("rule-set", None, "define", body).await.unwrap().id;
    store.put("focus/1.csv", &bill("2026-10", &["1", "2"])).await;
    assert_eq!(store.sum().await, [1, 1, 0, 0]);
    assert_eq!(store.world.rows("project").await.len(), 0, "a draft creates none");
    store.world.send("rule-set", set, "publish", json!({})).await.unwrap();
    store.put("focus/2.csv", &bill("2026-11", &["1", "2", "3"])).await;
    assert_eq!(store.sum().await, [2, 1, 1, 0]);
    store.world.caught_up().await;
    let rows = store.world.rows("project").await;
    let names: BTreeSet<&str> = rows.iter().filter_map(|row| row.body["name"].as_str()).collect();
    assert_eq!(names, BTreeSet::from(["0", "1", "2"]));
    // What changes later creates what is missing, and nothing twice.
    store.put("focus/1.csv", &bill("2026-10", &["1", "2", "3", "4"])).await;
    assert_eq!(store.sum().await, [2, 1, 1, 0]);
    store.world.caught_up().await;
    assert_eq!(store.world.rows("project").await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_move_to_another_month_are_no_more_in_the_first() {
    let store = Store::new(json!({})).await;
    store.put("focus/bill.csv", &bill("2026-10", &["3"])).await;
    store.sum().await;
    store.put("focus/bill.csv", &bill("2026-11", &["3"])).await;
    assert_eq!(store.sum().await, [1, 1, 0, 0]);
    assert_eq!(store.total().await, ("3".into(), 1));
}

/// Every call of a pull fails once, in every way, and the end is the same.
#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_a_pull_fails_once_and_the_end_is_the_same() {
    // Two pages, a manifest, two files of it and four others.
    let calls = 9;
    for fate in [
        Fate::throttle(3),
        Fate::refuse(503, "SlowDown"),
        Fate::refuse(500, "InternalError"),
        Fate::DropBefore,
        Fate::DropAfter,
        Fate::CutAnswer,
    ] {
        let store = Store::new(json!({})).await;
        store.export(&[("1", &["1", "2"]), ("2", &["4"])]).await;
        for month in 1..=4 {
            let month = format!("2026-{month:02}");
            store.put(&format!("focus/z/{month}.csv"), &bill(&month, &["1.5"])).await;
        }
        // The last one changes nothing any more: it goes through whole.
        for nth in 1..=calls {
            let body = json!({
                "name": format!("aws-{nth}"),
                "place": {
                    "bucket": store.bucket, "prefix": "focus/", "endpoint": store.proxy.url(),
                },
                "credential": {
                    "access_key_id": "AKIASKYLEDGERTEST00",
                    "secret_access_key": "not/a/secret+of+anybody0123456789abcdefgh",
                },
            });
            let world = &store.world;
            let source = world.send("bill-source", None, "define", body).await.unwrap().id;
            let before = store.proxy.broken();
            store.proxy.script_nth(nth, fate.clone());
            world.send("bill-source", source, "pull", json!({})).await.unwrap();
            world.settle().await;
            store.proxy.heal();
            assert_eq!(store.proxy.broken() - before, 1, "{nth} {fate:?}");
            let state = world.row(source).await["state"].clone();
            let sum = &state["last_pull"]["sum"];
            assert_eq!(sum["refused"], json!([]), "{nth} {fate:?}: {state}");
            assert_eq!(state["deliveries"].as_object().unwrap().len(), 5, "{nth} {fate:?}");
            assert_eq!(store.total().await, ("13".into(), 7), "{nth} {fate:?}");
        }
    }
}

/// Dies at the nth step that it is asked about, once.
struct AtStep {
    nth: usize,
    asked: AtomicUsize,
}

impl Probe for AtStep {
    fn dies(&self, _: Step, _: &OrderKey) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst) + 1 == self.nth
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_dies_at_every_step_and_no_line_is_lost_or_counted_twice() {
    // Before the call; two of each of three deliveries; after the call and the report.
    let steps = 9;
    for nth in 1..=steps + 1 {
        let store = Store::new(json!({})).await;
        store.export(&[("1", &["1", "2"]), ("2", &["4"])]).await;
        for month in ["2026-01", "2026-02"] {
            store.put(&format!("focus/{month}.csv"), &bill(month, &["1.5"])).await;
        }
        store.world.send("bill-source", store.source, "pull", json!({})).await.unwrap();
        let probe = Arc::new(AtStep { nth, asked: AtomicUsize::new(0) });
        store.world.settle_with(Some(probe.clone())).await;
        let died = probe.asked.load(Ordering::SeqCst) >= nth;
        assert_eq!(died, nth <= steps, "step {nth}");
        assert_eq!(store.total().await, ("10".into(), 5), "died at step {nth}");
        let state = store.state().await;
        assert_eq!(state["deliveries"].as_object().unwrap().len(), 3, "died at step {nth}");
        assert_eq!(state["last_pull"]["sum"]["refused"], json!([]), "died at step {nth}");
        for counted in store.world.ledger.all_bills(None).await.unwrap().bills {
            assert_eq!(counted.bill.segments.len(), 1, "died at step {nth}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_month_is_restated_by_who_gives_a_reason_and_by_no_schedule() {
    let store = Store::new(json!({"schedule": {"every": "day"}})).await;
    store.put("focus/2026-10.csv", &bill("2026-10", &["1"])).await;
    let day = Duration::from_hours(24);
    store.world.clock.advance(day);
    store.world.caught_up().await;
    for _ in 0..2 {
        // Two servers see that it is due.
        store.world.ledger.order_due_pulls().await.unwrap();
    }
    store.world.settle().await;
    store.world.caught_up().await;
    store.world.ledger.order_due_pulls().await.unwrap();
    assert_eq!(store.state().await["orders"]["issued"], 1, "once for each time");
    assert_eq!(store.total().await, ("1".into(), 1));

    let id = Bill::id("42", "2026-10".parse().unwrap());
    store.world.send("bill", id, "close", json!({})).await.unwrap();
    store.put("focus/2026-10.csv", &bill("2026-10", &["3"])).await;
    for asked in [2, 3] {
        store.world.clock.advance(day);
        store.world.caught_up().await;
        store.world.ledger.order_due_pulls().await.unwrap();
        store.world.settle().await;
        let state = store.state().await;
        assert_eq!(state["orders"]["issued"], asked);
        assert_eq!(state["last_pull"]["sum"]["refused"][0]["code"], "bill-closed", "{state}");
        assert_eq!(store.calls("GetObject"), 2, "what was refused is not read again");
    }
    assert_eq!(store.total().await, ("1".into(), 1));
    let last = store.pull(json!({"reason": "the issuer's correction"})).await;
    assert_eq!((&last["sum"]["taken"], &last["sum"]["refused"]), (&json!(1), &json!([])));
    assert_eq!(store.total().await, ("3".into(), 1));
    assert_eq!(store.world.row(id).await["state"]["versions"][1]["version"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_or_one_that_repeats_another_holds_up_no_other() {
    let store = Store::new(json!({"strict": true})).await;
    let october = bill("2026-10", &["1", "2"]);
    store.put("focus/a.csv", &october).await;
    store.put("focus/b.csv", &(october.clone() + "\n")).await;
    store.put("focus/c.csv", &bill("2026-09", &["five"])).await;
    store.put("focus/d.csv", "<html>").await;
    store.put("focus/e.csv", &bill("2026-11", &["4"])).await;
    let last = store.pull(json!({})).await;
    let refused = last["sum"]["refused"].as_array().unwrap();
    let codes: Vec<&str> = refused.iter().map(|one| one["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["bill-repeats", "bill-unreadable", "bill-unreadable"], "{last}");
    assert!(refused[1]["reason"].as_str().unwrap().contains("focus/c.csv"), "{last}");
    assert_eq!(store.total().await, ("7".into(), 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_or_a_store_that_is_not_ends_the_pull_with_why() {
    let store = Store::new(json!({"bucket": "nobody-has-this-bucket"})).await;
    let last = store.pull(json!({})).await;
    assert_eq!(last["failed"], "not-found", "{last}");
    assert!(last["reason"].as_str().unwrap().contains("NoSuchBucket"), "{last}");
    let status = store.world.row(store.source).await["status"].clone();
    assert_eq!(status, "active", "the next pull needs nobody");

    store.proxy.script(|_| Fate::DropBefore);
    let last = store.pull(json!({})).await;
    assert_eq!(last["failed"], "unreachable", "{last}");
    assert!(store.proxy.broken() >= 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_lends_its_credential_and_one_that_is_not_there_does_not() {
    let store = Store::new(json!({})).await;
    let world = &store.world;
    let number = new_account();
    let credential = json!({
        "access_key_id": "AKIASKYLEDGERTEST00",
        "secret_access_key": "not/a/secret+of+anybody0123456789abcdefgh",
        "role_arn": format!("arn:aws:iam::{number}:role/bills"),
    });
    world
        .connect_to(json!({
            "name": "shop", "provider": "aws", "endpoint": store.proxy.url(),
            "credential": credential,
        }))
        .await;
    // The bucket is the account's own.
    let hand = Hand::in_account(&server_at("SKYLEDGER_TEST_AWS"), &number).await.unwrap();
    let bucket = format!("own-{number}");
    assert_eq!(hand.object("PUT", &bucket, vec![]).await.unwrap().status, 200);
    let file = bill("2026-10", &["5"]).into_bytes();
    assert_eq!(hand.object("PUT", &format!("{bucket}/x.csv"), file).await.unwrap().status, 200);
    let place = |account| json!({"name": "shop", "place": {"account": account, "bucket": bucket}});
    let refused = world.send("bill-source", None, "define", place(Uuid::from_u128(7))).await;
    assert!(refused.unwrap_err().to_string().contains("no cloud account"));
    let source = world.send("bill-source", None, "define", place(world.account)).await.unwrap().id;
    world.send("bill-source", source, "pull", json!({})).await.unwrap();
    world.settle().await;
    let row = world.row(source).await;
    assert_eq!(row["state"]["last_pull"]["sum"]["taken"], 1, "{row}");
    assert_eq!(store.total().await, ("5".into(), 1));
}

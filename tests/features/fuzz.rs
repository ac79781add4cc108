//! Every route of the OpenAPI document is sent what it describes and what it does not, by a fuzzer
//! that knows nothing of this code: no answer is a fault of the server, and every answer is one
//! that the document describes. On both stores, through the real binary.
//!
//! That every operation was really reached is counted from the fuzzer's own record of what was answered,
//! that nothing failed from the server's `/metrics` as well.
//!
//! What is wrong with a command's body is found before any store is asked, so bodies are gone through one by one on one
//! of them.
//!
//! `SKYLEDGER_TEST_FUZZ_SECONDS` lets each store be fuzzed for so long, and `SKYLEDGER_TEST_FUZZ_SEED`
//! sets another seed; both are printed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use adapters_clouds::testing::{
    Hand,
    cloudpods::{Cluster, Paper},
};
use adapters_console::client::{Client, Command};
use adapters_sim::SimCloud;
use domain::kinds::KINDS;
use serde_json::{Value, json};
use tokio::process::Child;
use uuid::Uuid;

use crate::world::{HurriedClock, SECRET, group, small};

/// Generated cases of an operation, beside the some tens that are the same in every run.
const EXAMPLES: u64 = 3;
/// Any number; the same one makes the same cases, but for the ids in them.
const SEED: u64 = 1;
/// Beyond this a run does not end by itself. Beside all other tests of features, on two cores, both stores took eleven.
const FUZZING_MAX: Duration = Duration::from_mins(30);
/// A server starts, and an order is carried out, in a fraction of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the fuzzer runs beside its own: a line for every answer. Its other records hold all that was said, a gigabyte.
const RECORD: &str = r#"
import schemathesis

answers = open("answers", "w")


@schemathesis.hook
def after_call(context, case, response):
    print(response.request.method, case.operation.path, response.status_code, file=answers, flush=True)
"#;

/// Ids of what there is, by the kind's plural.
type Ids = BTreeMap<String, Vec<String>>;

/// The real server on a store of its own, with a small estate in it.
struct Server {
    // Its standard input ends with this process, and it with that.
    _child: Child,
    /// Where machines are that are moved here.
    cluster: Cluster,
    client: Client,
    url: String,
    token: String,
    log: PathBuf,
    /// The last body of each command that made the estate, by its plural and verb.
    sent: Mutex<BTreeMap<(String, String), Value>>,
}

impl Server {
    async fn start(folder: &Path, store: &str) -> Self {
        let cloud = folder.join("cloud.json");
        let sim = SimCloud::open(&cloud, Arc::new(HurriedClock::default())).unwrap();
        sim.populate("acme", SECRET, small()).unwrap();
        let (token_file, log) = (folder.join("token"), folder.join("log"));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}");
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_skyledger"))
            .args(["serve", "--until-stdin-closes", "--sync-interval", "0", "--store", store])
            .args(["--local-host", "here", "--simulated"])
            .args(["--listen", &format!("127.0.0.1:{port}"), "--data"])
            .arg(folder.join("data"))
            .arg("--token-file")
            .arg(&token_file)
            .arg("--sim")
            .arg(&cloud)
            .env_remove("SKYLEDGER_STORE_PASSWORD")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        let (probe, until) = (Client::new(&url, None).unwrap(), Instant::now() + PATIENCE);
        while probe.text("/readyz").await.is_err() {
            assert!(child.try_wait().unwrap().is_none(), "the server ended: {}", said());
            assert!(Instant::now() < until, "the server is not ready: {}", said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let token = std::fs::read_to_string(&token_file).unwrap().trim().to_owned();
        let client = Client::new(&url, Some(&token)).unwrap();
        let cluster = Cluster::start().await.unwrap();
        Self { _child: child, cluster, client, url, token, log, sent: Mutex::default() }
    }

    /// Sends a command and waits for its order.
    async fn send(&self, plural: &str, id: &str, verb: &str, body: Value) -> String {
        self.sent.lock().unwrap().insert((plural.to_owned(), verb.to_owned()), body.clone());
        let command = Command {
            plural: plural.to_owned(),
            id: Some(id).filter(|id| !id.is_empty()).map(str::to_owned),
            verb: verb.to_owned(),
            body,
            wait: Some(PATIENCE),
            ..Command::default()
        };
        let answer = match self.client.submit(&command).await {
            Ok(answer) => answer,
            Err(fault) => {
                panic!("{plural}: {fault}\n{}", std::fs::read_to_string(&self.log).unwrap())
            }
        };
        let id = answer.body["id"].as_str().unwrap().to_owned();
        // What follows on its order is waited for as well.
        let (mut order, until) = (answer.body["order"].clone(), Instant::now() + PATIENCE);
        while !order.is_null() {
            assert!(Instant::now() < until, "{plural}: {order}");
            tokio::time::sleep(Duration::from_millis(20)).await;
            let row = self.client.get(&format!("/v1/{plural}/{id}"), &[]).await.unwrap().body;
            order = row["state"]["orders"]["out"].clone();
        }
        id
    }

    /// A bill of one line, and what its issuer says of the month.
    async fn import(&self) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let period =
            "BillingPeriodStart,BillingPeriodStatus,InvoiceIssuerName\n2026-10-01,Open,AWS\n";
        std::fs::write(file.path(), period).unwrap();
        let file = tokio::fs::File::open(file.path()).await.unwrap();
        let answer = self.client.upload("/v1/bill-imports", &[], file, |_| {}).await.unwrap().body;
        assert_eq!(answer["statements"][0]["kind"], "issuer", "{answer}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let bill = "BilledCost,BillingAccountId,BillingCurrency,BillingPeriodStart,ChargeCategory,\
            ChargePeriodStart,ChargePeriodEnd,ServiceName,EffectiveCost,ListCost,ContractedCost\n\
            1.5,42,USD,2026-10-01T00:00:00Z,Usage,2026-10-05T00:00:00Z,2026-10-06T00:00:00Z,EC2,1,1,1\n";
        std::fs::write(file.path(), bill).unwrap();
        let file = tokio::fs::File::open(file.path()).await.unwrap();
        let answer = self.client.upload("/v1/bill-imports", &[], file, |_| {}).await.unwrap().body;
        assert_eq!(answer["bills"][0]["lines"], 1, "{answer}");
    }

    /// A server on the host in memory, and what is kept of its disk.
    async fn seed_kept(&self) {
        let aws = std::env::var("SKYLEDGER_TEST_AWS")
            .expect("SKYLEDGER_TEST_AWS is not set: run the tests with ./test");
        let bucket = format!("fuzz-{}", Uuid::now_v7().simple());
        let made = Hand::new(&aws).object("PUT", &bucket, Vec::new()).await.unwrap();
        assert_eq!(made.status, 200, "{made:?}");
        let body = json!({
            "name": "vault", "place": {"endpoint": aws, "bucket": bucket},
            "credential": {"access_key_id": "AKIASKYLEDGERTEST00", "secret_access_key": "x"},
        });
        let store = self.send("backup-stores", "", "create", body).await;
        let body = json!({
            "name": "web", "spec": {"vcpus": 1, "memory_mib": 64}, "disks": [{"size_gib": 1}],
        });
        let server = self.send("servers", "", "launch", body).await;
        let path = format!("/v1/servers/{server}");
        let server = self.client.get(&path, &[]).await.unwrap().body;
        let disk = &server["state"]["home"]["parts"]["disks"][0]["id"];
        let body = json!({"name": "nightly", "disk": disk, "store": store});
        self.send("backups", "", "create", body).await;
        let terms = json!({
            "disks": [disk], "store": store, "times": {"hours": [2]}, "keep": {"daily": 7},
        });
        let body = json!({"name": "nightly", "terms": terms});
        self.send("backup-plans", "", "define", body).await;
        self.send("snapshots", "", "create", json!({"name": "before", "disk": disk})).await;
        let body = json!({"name": "monday", "server": server["id"], "store": store});
        self.send("backup-sets", "", "create", body).await;
    }

    /// A machine of a cluster, on its way to the host in memory.
    async fn seed_moved(&self) {
        let details = json!({
            "name": "old", "vcpu_count": 1, "vmem_size": 64, "host_access_ip": "192.0.2.7",
            "disks_info": [{"id": "d0", "index": 0, "size": 1024, "driver": "virtio"}],
        });
        self.cluster.put("m1", details, Arc::new(Paper::with(&["drive_0"])));
        let body = json!({
            "name": "old", "provider": "cloudpods", "endpoint": self.cluster.endpoint(),
            "credential": Cluster::credential(),
        });
        let account = self.send("cloud-accounts", "", "connect", body).await;
        let body = json!({"move_in": {"account": account, "machine": "m1"}});
        self.send("servers", "", "launch", body).await;
    }

    /// Makes something of every kind.
    async fn seed(&self) -> Ids {
        let project = self.send("projects", "", "create", json!({"name": "shop"})).await;
        let credential = json!({"account": "acme", "secret": SECRET});
        let connect = json!({"name": "acme", "provider": "sim", "credential": credential});
        let account = self.send("cloud-accounts", "", "connect", connect).await;
        self.send("cloud-accounts", &account, "sync", json!({})).await;
        let rows = self.client.list("/v1/inventory", &[], None, |_| {}).await.unwrap().rows;
        let vpc = rows.iter().find(|row| row["kind"] == "vpc").unwrap();
        let declare = json!({
            "spec": group("web", vpc["external_id"].as_str().unwrap(), &[443]),
            "account": account,
            "region": vpc["region"],
            "project": project,
        });
        self.send("security-groups", "", "declare", declare).await;
        self.send("rule-sets", "", "define", json!({"name": "costs", "rules": {}})).await;
        self.send("domains", "", "create", json!({"name": "retail"})).await;
        let levels = json!({"name": "Acme", "levels": ["division", "team"]});
        self.send("organisations", "", "define", levels).await;
        self.send("taggings", "", "define", json!({"resource": "i-1", "project": project})).await;
        let terms = json!({
            "name": "plan", "form": "savings-plan", "billing_account": "42", "commitment": "sp-1",
            "currency": "USD", "amount": "365", "start": "2026-01-01", "end": "2027-01-01",
        });
        self.send("commitments", "", "define", json!({"terms": terms})).await;
        let watch = json!({"detector": {"daily": {"amount": "0.5"}}});
        self.send("anomaly-rules", "", "define", json!({"name": "days", "watch": watch})).await;
        let most = json!({"amount": "2", "currency": "USD", "from": "2026-10"});
        self.send("budgets", "", "define", json!({"name": "all", "allowance": most})).await;
        let driver = json!({"name": "servers", "unit": "servers", "values": {"2026-09": 3}});
        self.send("drivers", "", "define", driver).await;
        self.send("hosts", "", "enrol", json!({"name": "kvm-1"})).await;
        let rate = json!({"from": "USD", "to": "EUR", "day": "2026-10-31", "rate": "0.9"});
        self.send("exchange-rates", "", "define", rate).await;
        self.seed_kept().await;
        self.seed_moved().await;
        let price = json!({"name": "all", "price": {"factor": "1.1"}});
        self.send("repricings", "", "define", price).await;
        let question = json!({"months": {"last": {"count": 1}}});
        let body = json!({"name": "days", "question": question, "shared": true});
        let report = self.send("reports", "", "define", body).await;
        self.send("clusters", "", "define", json!({"name": "edge"})).await;
        let credential = json!({
            "access_key_id": "AKIDEXAMPLE012345",
            "secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        });
        let place = json!({"bucket": "bills", "endpoint": "http://127.0.0.1:1"});
        let body = json!({"name": "aws", "place": place, "credential": credential});
        self.send("bill-sources", "", "define", body).await;
        let settings = json!({"name": "own", "currency": "EUR"});
        self.send("rate-sets", "", "define", json!({"settings": settings})).await;
        let equipment = json!({"vcpus": 2, "memory_gib": "4"});
        let shape = json!({"provider": "sim", "name": "s2.small", "equipment": equipment});
        self.send("shapes", "", "define", shape).await;
        let segment = json!({"name": "blue", "medium": {"vlan": {"id": 7}}, "bridge": "br0"});
        self.send("segments", "", "define", segment).await;
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKBnABWcH+rkaw2uU18cddw8UywdsKHqvb7Cn+9pEwVI";
        self.send("key-pairs", "", "define", json!({"name": "ann", "public_key": key})).await;
        let spec = json!({"vcpus": 1, "memory_mib": 64});
        self.send("flavours", "", "define", json!({"name": "small", "spec": spec})).await;
        let image = json!({
            "name": "debian", "source": "upload", "sha256": "0a".repeat(32), "format": "qcow2",
            "size_mib": 400, "architecture": "x86_64", "os": "linux", "firmware": "bios",
            "min_disk_gib": 3,
        });
        self.send("images", "", "define", image).await;
        self.import().await;
        self.client.perform(&format!("/v1/reports/{report}/runs"), &[]).await.unwrap();
        let issue = json!({"name": "reader", "role": "viewer", "reach": "all"});
        let reader = self.send("tokens", "", "issue", issue).await;
        let rows = self.client.list("/v1/inventory", &[], None, |_| {}).await.unwrap().rows;
        let mut ids = Ids::new();
        for kind in KINDS {
            let of_kind = rows.iter().filter(|row| row["kind"] == kind.name);
            let of_kind = of_kind.map(|row| row["id"].as_str().unwrap().to_owned());
            ids.insert(kind.plural.to_owned(), of_kind.take(20).collect());
        }
        // The fuzzer is not to take away its own access.
        ids.insert("tokens".to_owned(), vec![reader]);
        ids
    }
}

/// The document as it is served, with an example of what is there wherever a read needs one:
/// what the fuzzer makes up finds nothing.
async fn document(server: &Server, ids: &Ids) -> Value {
    let mut document = server.client.get("/openapi.json", &[]).await.unwrap().body;
    let head = server.client.get("/v1/audit/head", &[]).await.unwrap().position;
    let report = format!("/v1/reports/{}", ids["reports"].last().unwrap());
    let report = server.client.get(&report, &[]).await.unwrap().body;
    let digest = &report["state"]["runs"][0]["digest"];
    for (path, item) in document["paths"].as_object_mut().unwrap() {
        let of_kind = path.split('/').nth(2).and_then(|plural| ids.get(plural)?.last());
        for operation in item.as_object_mut().unwrap().values_mut() {
            for parameter in operation["parameters"].as_array_mut().unwrap() {
                let name = parameter["name"].as_str().unwrap();
                let example = match name {
                    "id" if parameter["in"] == "path" => json!(of_kind.unwrap()),
                    "at" | "skyledger-min-position" => json!(head),
                    "call" => json!(Uuid::nil()),
                    "code" => json!("not-found"),
                    "digest" => digest.clone(),
                    "epoch" => json!(1),
                    "field" => json!("status"),
                    "file" => json!("page.js"),
                    "from" if parameter["required"] == true => json!(1),
                    _ => continue,
                };
                parameter["example"] = example;
            }
            // Bodies whose fields have to fit each other.
            let body = match path.as_str() {
                "/v1/backup-plans" | "/v1/backup-plans/{id}/define" => json!({
                    "name": "nightly",
                    "terms": {
                        "servers": [ids["servers"].last().unwrap()], "times": {"hours": [2]},
                        "store": ids["backup-stores"].last().unwrap(), "keep": {"daily": 7},
                    },
                }),
                "/v1/disks/{id}/restore" => json!({"backup": ids["backups"].last().unwrap()}),
                "/v1/networks/{id}/define" => json!({
                    "name": "blue", "segment": ids["segments"].last().unwrap(),
                    "v4": {"net": "10.9.0.0/24"},
                }),
                "/v1/networks/{id}/unreserve" => json!({
                    "range": {"first": "10.9.0.9", "last": "10.9.0.9"},
                }),
                "/v1/servers/{id}/add-device" => json!({"device": {"kind": "gpu"}}),
                "/v1/servers/{id}/add-nic" => json!({
                    "nic": {"network": ids["networks"].last().unwrap()},
                }),
                "/v1/servers/{id}/change-addresses" => json!({
                    "nic": Uuid::nil(), "v4": {"type": "any", "data": {}},
                }),
                "/v1/servers/{id}/change-cdrom" => json!({"image": ids["images"].last().unwrap()}),
                "/v1/servers/{id}/change-nic" => json!({
                    "nic": Uuid::nil(), "bandwidth": {"ingress_kbit_s": 8_000},
                }),
                "/v1/placements" | "/v1/servers/{id}/launch" => json!({
                    "name": "web", "spec": {"vcpus": 1, "memory_mib": 64},
                    "disks": [{"size_gib": 1}],
                }),
                "/v1/servers/{id}/remove-device" => json!({"device": "0000:3b:00.0"}),
                // As the estate was made, with or without an id.
                path => {
                    let mut parts = path.split('/').skip(2);
                    let plural = parts.next().unwrap_or_default();
                    let verb = parts.nth(1);
                    let sent = server.sent.lock().unwrap();
                    let mut of_kind = sent.iter().filter(|((kind, _), _)| kind == plural);
                    let body = of_kind.find(|((_, sent), _)| verb.is_none_or(|verb| verb == sent));
                    match body.filter(|_| !operation["requestBody"].is_null()) {
                        Some((_, body)) => body.clone(),
                        None => continue,
                    }
                }
            };
            operation["requestBody"]["content"]["application/json"]["example"] = body;
        }
    }
    document
}

/// Operations whose each way to be wrong is one of another operation too, which the same code answers. They are sent
/// examples, and what chance makes.
fn alike(document: &Value, bodies: Bodies) -> Vec<String> {
    let paths = document["paths"].as_object().unwrap();
    let body =
        |item: &Value| item["post"]["requestBody"]["content"]["application/json"]["schema"].clone();
    let mut names = Vec::new();
    for (path, item) in paths {
        let plural = path.split('/').nth(2).unwrap_or_default();
        // What is made under an id of the caller's, and without one.
        let made = path.starts_with(&format!("/v1/{plural}/{{id}}/"))
            && paths.get(&format!("/v1/{plural}")).is_some_and(|item| !body(item).is_null())
            && body(&paths[&format!("/v1/{plural}")]) == body(item);
        if made || (bodies == Bodies::Few && !item["post"].is_null()) {
            names.push(format!("POST {path}"));
        }
    }
    names
}

/// What the fuzzer is told: what there is, what reads, and how long it listens to a feed.
async fn configuration(server: &Server, ids: &Ids, document: &Value, bodies: Bodies) -> String {
    let mut dictionaries = BTreeMap::new();
    let mut operations = Vec::new();
    // Of two entries that an operation is in, the first is heard.
    operations.push(json!({
        "include-name": alike(document, bodies), "phases": {"coverage": {"enabled": false}},
    }));
    for (plural, ids) in ids {
        assert!(!ids.is_empty(), "there is nothing of {plural}");
        dictionaries.insert(plural.as_str(), json!({"values": ids}));
        operations.push(json!({
            "include-path-regex": format!("^/v1/{plural}/"),
            "parameters": {"path.id": {"dictionary": plural, "probability": 0.7}},
        }));
    }
    // A feed has no end: its first event is read, or nothing for so many seconds.
    let bound = json!({
        "include-path-regex": ":watch$", "max-stream-events": 1, "request-timeout": 2,
    });
    operations.push(bound);
    let page = |items: &Value| items["next_page_token"].as_str().unwrap().to_owned();
    let two = [("page_size", "2".to_owned())];
    let listed = server.client.get("/v1/inventory", &two).await.unwrap().body;
    let from = [("page_size", "2".to_owned()), ("from", "1".to_owned())];
    let compared = server.client.get("/v1/diff", &from).await.unwrap().body;
    for (name, values) in [
        ("comparisons", json!(["previous", "year", "month"])),
        ("codes", json!(["not-found", "invalid-json"])),
        ("bases", json!(["billed", "effective", "list"])),
        ("dimensions", json!(["service", "month,tags.env", "region, day , sku"])),
        ("fields", json!(["name", "status", "state.seen", "tags.env"])),
        (
            "filters",
            json!([
                "name = \"web*\"",
                "name : \"\u{0130}%_\\\\\"",
                "revision > 9223372036854775807",
                "updated_at < \"0001-01-01T00:00:00Z\"",
                "updated_at >= \"9999-12-31T23:59:59.999999999Z\"",
                "tags.env IN (\"prod\", \"\u{1F600}\")",
                "state.seen.power != null",
                "gone = true",
                "kind NOT IN (\"server\")",
                "state.wanted.rules.0.ports : 443",
            ]),
        ),
        ("months", json!(["2026-10", "2026-13", "0000-01"])),
        ("orders", json!(["name", "updated_at desc", "kind, name desc", "revision desc, id"])),
        ("page-tokens", json!([page(&listed), page(&compared), "1"])),
        ("positions", json!([0, 1, 7, 20])),
        ("revisions", json!(["\"1\"", "\"2\"", "*"])),
        ("views", json!(["inventory", "mappings", "orders", "sync-runs", "freshness"])),
    ] {
        dictionaries.insert(name, json!({"values": values}));
    }
    // A head that is too large never comes as far as the parameters, and says 414 or 431.
    let no = json!([400, 401, 404, 405, 409, 412, 414, 415, 422, 426, 431]);
    let half = |name: &str| json!({"dictionary": name, "probability": 0.5});
    let configuration = json!({
        "hooks": "record.py",
        "checks": {"negative_data_rejection": {"expected-statuses": no}},
        "dictionaries": dictionaries,
        "parameters": {
            "header.if-match": half("revisions"),
            "header.if-none-match": half("revisions"),
            "header.last-event-id": half("positions"),
            "header.skyledger-min-position": half("positions"),
            "path.code": half("codes"),
            "query.at": half("positions"),
            "query.basis": half("bases"),
            "query.compare": half("comparisons"),
            "query.drivers": half("drivers"),
            "query.field": half("fields"),
            "query.filter": half("filters"),
            "query.from": half("positions"),
            "query.from_month": half("months"),
            "query.group_by": half("dimensions"),
            "query.order_by": half("orders"),
            "query.organisation": half("organisations"),
            "query.page_token": half("page-tokens"),
            "query.position": half("positions"),
            "query.rule_set": half("rule-sets"),
            "query.shifts": half("months"),
            "query.to": half("positions"),
            "query.to_month": half("months"),
            "query.view": half("views"),
        },
        "operations": operations,
    });
    toml::to_string(&configuration).unwrap()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// What is asked of every answer. Not that what a schema allows is accepted: filters, page tokens
/// and plans have grammars, and rules their own mind.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,\
                      negative_data_rejection,missing_required_header,unsupported_method,\
                      allow_header_conformance,ignored_auth";

/// How many bodies of commands are tried, beside examples and those that chance makes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bodies {
    /// Each field's each way to be wrong, one by one.
    All,
    Few,
}

async fn fuzz(store: &str, bodies: Bodies) {
    let fuzzer = std::env::var("SKYLEDGER_TEST_SCHEMATHESIS")
        .expect("SKYLEDGER_TEST_SCHEMATHESIS is not set: run the tests with ./test");
    let seed = number("SKYLEDGER_TEST_FUZZ_SEED").unwrap_or(SEED);
    let seconds = number("SKYLEDGER_TEST_FUZZ_SECONDS");
    println!("fuzzing with seed {seed}, {seconds:?} seconds");
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), store).await;
    let file = folder.path().join("schemathesis.toml");
    std::fs::write(folder.path().join("record.py"), RECORD).unwrap();
    let ids = server.seed().await;
    let document = document(&server, &ids).await;
    let read = folder.path().join("openapi.json");
    std::fs::write(&read, document.to_string()).unwrap();
    std::fs::write(&file, configuration(&server, &ids, &document, bodies).await).unwrap();

    // It was asked whether it is ready before it was.
    let before = failed(&server).await;
    let mut command = tokio::process::Command::new(fuzzer);
    command.arg("--config-file").arg(&file).arg("run").arg(&read).args(["--url", &server.url]);
    command.args(["--header", &format!("Authorization: Bearer {}", server.token)]);
    command.args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing"]);
    command.args(["--seed", &seed.to_string(), "--max-examples", &EXAMPLES.to_string()]);
    command.args(["--request-timeout", "30", "--continue-on-failure", "--no-color"]);
    command.args(["--generation-database", "none", "--warnings", "off"]);
    if let Some(seconds) = seconds {
        command.args(["--max-time", &seconds.to_string()]);
    }
    command.current_dir(folder.path()).stdin(Stdio::null()).kill_on_drop(true);
    let most = FUZZING_MAX + Duration::from_secs(seconds.unwrap_or_default());
    let output = tokio::time::timeout(most, command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let log = std::fs::read_to_string(&server.log).unwrap();
    assert!(output.status.success(), "{said}\n{errors}\n{log}");

    let answers = std::fs::read_to_string(folder.path().join("answers")).unwrap();
    every_operation_was_reached(&document, &answers);
    // The server's own count, and the token still opens it.
    assert_eq!(failed(&server).await, before, "{}", std::fs::read_to_string(&server.log).unwrap());
}

/// How often which route has answered with a fault of the server, by the server's own count.
async fn failed(server: &Server) -> Vec<String> {
    let metrics = server.client.text("/metrics").await.unwrap();
    let counts = metrics.lines().filter(|line| line.starts_with("skyledger_http_requests_total"));
    counts.filter(|line| line.contains("status=\"5")).map(str::to_owned).collect()
}

/// Reads have answered, and commands have come as far as their rule, in every operation.
fn every_operation_was_reached(document: &Value, answers: &str) {
    let mut operations: BTreeMap<(&str, String), BTreeMap<u64, u64>> = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            operations.insert((path, method.to_uppercase()), BTreeMap::new());
        }
    }
    for answer in answers.lines() {
        let [method, path, status] = answer.split(' ').collect::<Vec<_>>().try_into().unwrap();
        // Methods that a path does not have are tried as well.
        if let Some(statuses) = operations.get_mut(&(path, method.to_owned())) {
            *statuses.entry(status.parse().unwrap()).or_default() += 1;
        }
    }
    let sockets = |path: &str| !document["paths"][path]["get"]["responses"]["101"].is_null();
    let reached = |path: &str, method: &str, status: u64| match method {
        // The fuzzer speaks no WebSocket, and nobody waits for what it brings.
        "GET" if sockets(path) => matches!(status, 404 | 409 | 426),
        "GET" => (200..300).contains(&status) || status == 304,
        _ => (200..300).contains(&status) || matches!(status, 404 | 409 | 412 | 422),
    };
    let missed: Vec<_> = operations
        .iter()
        .filter(|((path, method), statuses)| {
            !statuses.keys().any(|status| reached(path, method, *status))
        })
        .collect();
    println!("{} requests to {} operations", answers.lines().count(), operations.len());
    assert!(missed.is_empty(), "{missed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_anything_as_the_document_says_embedded() {
    fuzz("sqlite", Bodies::Few).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_anything_as_the_document_says_on_postgresql() {
    let url = std::env::var("SKYLEDGER_TEST_POSTGRES")
        .expect("SKYLEDGER_TEST_POSTGRES is not set: run the tests with ./test");
    let database = format!("fuzz_{}", Uuid::now_v7().simple());
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    fuzz(&format!("{server}/{database}"), Bodies::All).await;
    client.batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)")).await.unwrap();
}

//! Whose costs are: by the tag list, rules, the inventory and accounts; by domain and by node as the
//! tree was then; and projects that rules create.

use std::{collections::BTreeMap, time::Duration};

use adapters_sim::Population;
use commands::{
    allocate::{allocate, allocate_by},
    attribute::{AxisQuery, Placer, Whose, attributed, explain_attributed},
    bills::{Counting, Import},
    origin::explain_allocated,
    ports::{Clock, Filter, Op, Reading},
    submit::SubmitFault,
};
use domain::{
    finops::{
        amount::BillingMonth,
        attribution::Axis,
        bill::Manner,
        cost::Basis,
        rules::{By, Rules},
    },
    kernel::Principal,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{World, id_of};

const HEADING: &str = "BilledCost,EffectiveCost,ListCost,ContractedCost,BillingAccountId,\
    BillingCurrency,BillingPeriodStart,BillingPeriodEnd,ChargeCategory,ChargePeriodStart,\
    ChargePeriodEnd,ServiceName,ResourceId,ConsumedQuantity,ConsumedUnit,Tags\n";

/// A line of a day of a month.
struct One<'a> {
    day: &'a str,
    billed: &'a str,
    resource: &'a str,
    quantity: &'a str,
    tags: &'a str,
}

fn line(one: &One<'_>) -> String {
    let One { day, billed, resource, quantity, tags } = one;
    let month: BillingMonth = day[..7].parse().unwrap();
    let (first, next) = (month.first(), month.next().first());
    let tags = tags.replace('"', "\"\"");
    format!(
        "{billed},{billed},{billed},{billed},42,USD,{first}T00:00:00Z,{next}T00:00:00Z,Usage,\
         {day}T00:00:00Z,{day}T01:00:00Z,EC2,{resource},{quantity},Hours,\"{tags}\"\n"
    )
}

async fn import(world: &World, lines: &[One<'_>]) {
    let file = lines.iter().fold(HEADING.to_owned(), |file, one| file + &line(one));
    let read = world.ledger.ports.bills.read(&mut file.as_bytes(), &Reading::default()).unwrap();
    assert_eq!(read.quarantined, 0);
    let import = Import {
        source: "bill.csv".into(),
        manner: Manner::Add,
        reason: String::new(),
        by: World::admin(),
        repeats: commands::bills::OnRepeats::default(),
    };
    world.ledger.book(&read, &import).await.unwrap();
}

async fn counting(world: &World) -> Counting {
    world.caught_up().await;
    let month = |text: &str| text.parse().unwrap();
    world.ledger.bills(month("2000-01"), month("9000-01"), None).await.unwrap()
}

async fn whose(world: &World, counting: &Counting, rules: Value, tree: Option<Uuid>) -> Whose {
    let rules: Rules = serde_json::from_value(rules).unwrap();
    rules.check().unwrap();
    Whose::new(rules, world.ledger.surroundings(counting, tree).await.unwrap())
}

fn asked(groups: &[&str]) -> AxisQuery {
    let groups = groups.iter().map(|name| name.parse().unwrap()).collect();
    AxisQuery { basis: Basis::Billed, groups, filters: vec![] }
}

/// Groups with their amounts, as text.
fn table(world: &World, counting: &Counting, whose: &Whose, asked: &AxisQuery) -> Vec<String> {
    let store = world.ledger.ports.bills.as_ref();
    let table = attributed(store, counting, whose, asked).unwrap();
    table.iter().map(|(key, _, sum)| format!("{} {}", key.join("|"), sum.amount)).collect()
}

async fn create(world: &World, kind: &str, verb: &str, body: Value) -> Uuid {
    world.send(kind, None, verb, body).await.unwrap().id
}

async fn say(world: &World, kind: &str, id: Uuid, verb: &str, body: Value) {
    world.send(kind, id, verb, body).await.unwrap();
}

/// The month the world's clock shows.
fn this_month(world: &World) -> BillingMonth {
    BillingMonth::of(world.clock.now().date_naive())
}

#[tokio::test(flavor = "multi_thread")]
async fn costs_are_shown_by_the_estate_as_it_was_in_their_month() {
    let world = World::synced(Population { seed: 7, regions: 1, resources: 40 }).await;
    let shop = create(&world, "project", "create", json!({"name": "shop"})).await;
    let lab = create(&world, "project", "create", json!({"name": "lab"})).await;
    let retail = create(&world, "domain", "create", json!({"name": "retail"})).await;
    say(&world, "project", shop, "assign", json!({"domain": retail})).await;
    say(&world, "project", shop, "tag", json!({"tags": {"cost-centre": "77"}})).await;
    let levels = json!({"name": "Acme", "levels": ["division", "team"]});
    let tree = create(&world, "organisation", "define", levels).await;
    for node in [json!({"key": "web"}), json!({"key": "research"})] {
        say(&world, "organisation", tree, "add-node", node).await;
    }
    say(&world, "organisation", tree, "bind", json!({"node": "web", "projects": [shop]})).await;
    let server = world.rows("server").await.remove(0).body;
    let external = server["external_id"].as_str().unwrap().to_owned();
    say(&world, "server", id_of(&server), "assign", json!({"project": shop})).await;
    let first = this_month(&world);

    // A month later everything is elsewhere.
    world.clock.advance(Duration::from_hours(40 * 24));
    let second = this_month(&world);
    assert_ne!(first, second);
    say(&world, "server", id_of(&server), "assign", json!({"project": lab})).await;
    let moved = json!({"node": "research", "projects": [shop, lab]});
    say(&world, "organisation", tree, "bind", moved).await;
    say(&world, "project", shop, "rename", json!({"name": "store"})).await;

    let (day, later) = (first.first().to_string(), second.first().to_string());
    let one = |day, resource, billed| One { day, billed, resource, quantity: "1", tags: "{}" };
    import(
        &world,
        &[one(&day, &external, "1"), one(&later, &external, "10"), one(&day, "unknown", "100")],
    )
    .await;
    let counting = counting(&world).await;
    let whose = whose(&world, &counting, json!({}), Some(tree)).await;
    let axes = [
        "month",
        "project",
        "node",
        "domain",
        "placed_by",
        "inventory.kind",
        "project_tags.cost-centre",
    ];
    assert_eq!(
        table(&world, &counting, &whose, &asked(&axes)),
        [
            format!("{first}|store|web|retail|inventory|server|77 1"),
            format!("{first}|unallocated|||nothing|| 100"),
            format!("{second}|lab|research||inventory|server| 10"),
        ],
        "whose it was and where it hung then, by the name of today"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tag_list_comes_first_and_each_line_says_what_placed_it() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let shop = create(&world, "project", "create", json!({"name": "shop"})).await;
    let entry =
        json!({"resource": "i-1", "project": shop, "from": "2026-10-10", "to": "2026-10-20"});
    create(&world, "tagging", "define", entry).await;
    let entry = json!({"resource": "i-2", "tags": {"env": "prod", "team": null}});
    create(&world, "tagging", "define", entry).await;
    let gone = json!({"resource": "i-3", "project": shop});
    let gone = create(&world, "tagging", "define", gone).await;
    say(&world, "tagging", gone, "retire", json!({})).await;
    let one = |day, resource, billed, tags| One { day, billed, resource, quantity: "1", tags };
    import(
        &world,
        &[
            one("2026-10-09", "i-1", "1", r#"{"env": "dev"}"#),
            one("2026-10-10", "i-1", "2", r#"{"env": "dev"}"#),
            one("2026-10-19", "i-1", "4", r#"{"env": "prod"}"#),
            one("2026-10-20", "i-1", "8", r#"{"env": "prod"}"#),
            one("2026-10-05", "i-2", "16", r#"{"env": "dev", "team": "x"}"#),
            one("2026-10-05", "i-3", "32", "{}"),
        ],
    )
    .await;
    let counting = counting(&world).await;
    let rules = json!({
        "attribution": [
            {"name": "prod", "centre": "live", "conditions":
                [{"dimension": "tags.env", "values": ["prod"]}]},
            {"name": "teams", "conditions": [], "centre_of": "tags.team"},
        ],
        "accounts": {"42": "rest"},
    });
    let whose = whose(&world, &counting, rules, None).await;
    assert_eq!(
        table(&world, &counting, &whose, &asked(&["project", "placed_by", "rule"])),
        ["live|rule|prod 24", "rest|account| 33", "shop|owner| 6"]
    );
    assert_eq!(
        table(&world, &counting, &whose, &asked(&["effective_tags.env", "tags.env"])),
        ["| 32", "dev|dev 3", "prod|dev 16", "prod|prod 12"]
    );
    // The same, line by line.
    let mut asked = asked(&[]);
    let of_shop = Filter { column: "project".into(), op: Op::In, values: vec!["shop".into()] };
    asked.filters.push((Axis::Project, of_shop));
    let store = world.ledger.ports.bills.as_ref();
    let explained = explain_attributed(store, &counting, &whose, &asked, 10).unwrap();
    let placer = Placer::new(&whose, vec![]).unwrap();
    let lines = explained.lines.iter().map(|(_, line)| (line.number, placer.place(line).0.by));
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines, [(4, By::Owner), (3, By::Owner)]);
    let totals: Vec<_> = explained.totals.values().map(ToString::to_string).collect();
    assert_eq!(totals, ["6"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_spread_by_what_was_used_month_by_month() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let one = |day, billed, quantity, tags| One { day, billed, resource: "", quantity, tags };
    let (a, b, shared) = (r#"{"team": "a"}"#, r#"{"team": "b"}"#, r#"{"team": "pool"}"#);
    import(
        &world,
        &[
            one("2026-09-01", "1", "30", a),
            one("2026-09-01", "1", "10", b),
            one("2026-09-01", "100", "5", shared),
            one("2026-10-01", "1", "10", a),
            one("2026-10-01", "1", "30", b),
            one("2026-10-01", "200", "5", shared),
        ],
    )
    .await;
    let all = counting(&world).await;
    let rules = |method: Value| {
        json!({
            "attribution": [{"name": "teams", "conditions": [], "centre_of": "tags.team"}],
            "shared": [{"name": "by hours", "pool": "pool", "targets": ["a", "b"], "method": method}],
        })
    };
    let store = world.ledger.ports.bills.as_ref();
    let after = |counting: &Counting, whose: &Whose| -> BTreeMap<String, String> {
        let allocated = allocate(store, counting, whose, Basis::Billed).unwrap();
        let buckets = allocated.buckets.iter().filter(|(_, share)| share.after.0 != 0);
        buckets
            .map(|(one, share)| (format!("{} {}", one.month, one.centre), share.after.to_string()))
            .collect()
    };
    let hours = json!([{"dimension": "unit", "values": ["Hours"]}]);
    let usage = rules(json!({"usage": {"conditions": hours, "fallback": "refuse"}}));
    let used = whose(&world, &all, usage.clone(), None).await;
    let want = |texts: [(&str, &str); 4]| -> BTreeMap<String, String> {
        texts.map(|(bucket, amount)| (bucket.to_owned(), amount.to_owned())).into()
    };
    let expected =
        want([("2026-09 a", "76"), ("2026-09 b", "26"), ("2026-10 a", "51"), ("2026-10 b", "151")]);
    assert_eq!(after(&all, &used), expected);
    // A month is the same whatever else is asked of.
    let october = "2026-10".parse().unwrap();
    let only = world.ledger.bills(october, october, None).await.unwrap();
    let own = whose(&world, &only, usage, None).await;
    let expected: BTreeMap<_, _> =
        expected.into_iter().filter(|(bucket, _)| bucket.starts_with("2026-10")).collect();
    assert_eq!(after(&only, &own), expected);
    let heads = json!({"driver": {"values": {"a": "1", "b": "1"},
        "months": {"2026-10": {"a": "1"}}, "fallback": "keep"}});
    let heads = whose(&world, &all, rules(heads), None).await;
    let expected =
        want([("2026-09 a", "51"), ("2026-09 b", "51"), ("2026-10 a", "201"), ("2026-10 b", "1")]);
    assert_eq!(after(&all, &heads), expected);
    // As costs by project and month, to the last unit what the lines come to.
    let allocated = allocate(store, &all, &heads, Basis::Billed).unwrap();
    let table = allocated.costs(&heads, &asked(&["project", "quarter"])).unwrap();
    let rows: Vec<_> =
        table.iter().map(|(key, _, sum)| format!("{} {}", key.join("|"), sum.amount)).collect();
    assert_eq!(rows, ["a|2026-Q3 51", "a|2026-Q4 201", "b|2026-Q3 51", "b|2026-Q4 1"]);
    assert!(allocated.costs(&heads, &asked(&["service"])).is_err(), "it was not asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_spread_is_known_by_the_lines_it_comes_from() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let one = |day, billed, resource, tags| One { day, billed, resource, quantity: "1", tags };
    let (a, b, shared) = (r#"{"team": "a"}"#, r#"{"team": "b"}"#, r#"{"team": "pool"}"#);
    import(
        &world,
        &[
            one("2026-10-01", "1", "i-1", a),
            one("2026-10-02", "1", "i-2", b),
            one("2026-10-01", "0.000000000001", "nat", shared),
            one("2026-10-02", "10", "nat", shared),
            one("2026-10-02", "-0.000000000003", "vpn", shared),
            one("2026-11-02", "7", "vpn", shared),
        ],
    )
    .await;
    let counting = counting(&world).await;
    let rules = json!({
        "attribution": [{"name": "teams", "conditions": [], "centre_of": "tags.team"}],
        "shared": [{"name": "thirds", "pool": "pool", "targets": ["a", "b", "c"],
            "method": {"even": {}}}],
    });
    let whose = whose(&world, &counting, rules, None).await;
    let store = world.ledger.ports.bills.as_ref();
    let spread = |query: &AxisQuery| {
        let allocated = allocate_by(store, &counting, &whose, query).unwrap();
        let table = allocated.costs(&whose, query).unwrap();
        let rows = table.iter().map(|(key, _, sum)| (key.join("|"), sum.amount.to_string()));
        rows.collect::<BTreeMap<_, _>>()
    };
    let rows = |rows: &[(&str, &str)]| -> BTreeMap<String, String> {
        rows.iter().map(|(group, amount)| ((*group).to_owned(), (*amount).to_owned())).collect()
    };
    assert_eq!(
        spread(&asked(&["project", "resource", "month"])),
        rows(&[
            ("a|i-1|2026-10", "1"),
            ("a|nat|2026-10", "3.333333333334"),
            ("a|vpn|2026-10", "-0.000000000001"),
            ("a|vpn|2026-11", "2.333333333334"),
            ("b|i-2|2026-10", "1"),
            ("b|nat|2026-10", "3.333333333334"),
            ("b|vpn|2026-10", "-0.000000000001"),
            ("b|vpn|2026-11", "2.333333333333"),
            ("c|nat|2026-10", "3.333333333333"),
            ("c|vpn|2026-10", "-0.000000000001"),
            ("c|vpn|2026-11", "2.333333333333"),
        ])
    );
    // Before is after, by whatever the lines say; and each centre has what it has without it.
    for groups in [
        &["resource"][..],
        &["day"],
        &["tags.team"],
        &["placed_by", "rule"],
        &["resource", "day", "quarter", "charge_category"],
    ] {
        let before = attributed(store, &counting, &whose, &asked(groups)).unwrap();
        let before = before.iter().map(|(key, _, sum)| (key.join("|"), sum.amount.to_string()));
        assert_eq!(spread(&asked(groups)), before.collect(), "{groups:?}");
        let mut of_a = asked(&["project"]);
        let filter = Filter { column: "resource".into(), op: Op::NotIn, values: vec!["x".into()] };
        of_a.filters.push(("resource".parse().unwrap(), filter));
        assert_eq!(spread(&of_a), spread(&asked(&["project"])));
    }
    let mut nat = asked(&["project", "tags.team"]);
    let filter = Filter { column: "resource".into(), op: Op::In, values: vec!["nat".into()] };
    nat.filters.push(("resource".parse().unwrap(), filter));
    assert_eq!(
        spread(&nat),
        rows(&[
            ("a|pool", "3.333333333334"),
            ("b|pool", "3.333333333334"),
            ("c|pool", "3.333333333333"),
        ])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_centre_has_after_the_rules_goes_back_to_the_lines_of_every_pool_on_the_way() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let one = |day, billed, tags| One { day, billed, resource: "", quantity: "1", tags };
    let team = |name: &str| format!(r#"{{"team": "{name}"}}"#);
    let teams = ["a", "b", "network", "office"].map(team);
    import(
        &world,
        &[
            one("2026-10-01", "10", &teams[0]),
            one("2026-10-01", "20", &teams[1]),
            one("2026-10-01", "30", &teams[2]),
            one("2026-10-01", "-1", &teams[2]),
            one("2026-10-01", "1", &teams[3]),
            one("2026-11-01", "5", &teams[3]),
        ],
    )
    .await;
    let all = counting(&world).await;
    let rules = json!({
        "attribution": [{"name": "teams", "conditions": [], "centre_of": "tags.team"}],
        "shared": [
            {"name": "rent", "pool": "office", "targets": ["a", "network"], "method": {"even": {}}},
            {"name": "traffic", "pool": "network", "targets": ["a", "b"],
             "method": {"fixed": {"percent": {"a": "25", "b": "50"}}}},
        ],
    });
    let whose = whose(&world, &all, rules, None).await;
    let store = world.ledger.ports.bills.as_ref();
    let allocated = allocate(store, &all, &whose, Basis::Billed).unwrap();
    let explain = |project: &str, month: &str| {
        let mut question = asked(&[]);
        for (axis, value) in [("project", project), ("month", month)] {
            let filter = Filter { column: axis.into(), op: Op::In, values: vec![value.into()] };
            question.filters.push((axis.parse().unwrap(), filter));
        }
        let table = allocated.costs(&whose, &question).unwrap();
        let origin = explain_allocated(store, &all, &whose, &question, 10).unwrap();
        let flow = *origin.flows.values().next().unwrap();
        let shown = table.totals().unwrap().values().next().unwrap().amount;
        assert_eq!(flow.after, shown, "it explains the number that is shown");
        assert_eq!(flow.before.0 + flow.received.0 - flow.given.0, flow.after.0);
        origin
    };
    let steps = |origin: &commands::origin::Origin| -> Vec<String> {
        let step = |one: &commands::origin::Step| {
            let (rule, from, to) = (&one.rule, &one.source, &one.target);
            format!("{rule}: {from} → {to} {} = {} % of {}", one.amount, one.percent(), one.of)
        };
        origin.steps.iter().map(step).collect()
    };
    let a = explain("a", "2026-10");
    assert_eq!(
        steps(&a),
        [
            "rent: office → a 0.5 = 50 % of 1",
            "rent: office → network 0.5 = 50 % of 1",
            "traffic: network → a 7.375 = 25 % of 29.5",
        ]
    );
    let numbers = |origin: &commands::origin::Origin| -> Vec<u64> {
        let mut numbers: Vec<u64> =
            origin.explained.lines.iter().map(|(_, line)| line.number).collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(numbers(&a), [2, 4, 5, 6], "its own line and those of both pools");
    let network = explain("network", "2026-10");
    assert_eq!(
        steps(&network),
        [
            "rent: office → network 0.5 = 50 % of 1",
            "traffic: network → a 7.375 = 25 % of 29.5",
            "traffic: network → b 14.75 = 50 % of 29.5",
            "traffic: network → network 7.375 = 25 % of 29.5",
        ]
    );
    let november = explain("b", "2026-11");
    assert_eq!(
        steps(&november),
        ["rent: office → network 2.5 = 50 % of 5", "traffic: network → b 1.25 = 50 % of 2.5"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_number_of_spread_costs_is_explained_to_the_last_unit_also_by_what_lines_have() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let one =
        |billed, resource, tags| One { day: "2026-10-01", billed, resource, quantity: "1", tags };
    let (a, b, pool) = (r#"{"team": "a"}"#, r#"{"team": "b"}"#, r#"{"team": "pool"}"#);
    import(
        &world,
        &[
            one("1", "disk", a),
            one("2", "server", b),
            one("0.000000000001", "disk", pool),
            one("10", "server", pool),
            one("-0.1", "server", pool),
            one("7.77", "network", pool),
        ],
    )
    .await;
    let all = counting(&world).await;
    let rules = json!({
        "attribution": [{"name": "teams", "conditions": [], "centre_of": "tags.team"}],
        "shared": [{"name": "by cost", "pool": "pool",
                    "method": {"proportional": {"fallback": "even"}}}],
    });
    let whose = whose(&world, &all, rules, None).await;
    let store = world.ledger.ports.bills.as_ref();
    let asking = asked(&["project", "resource"]);
    let allocated = allocate_by(store, &all, &whose, &asking).unwrap();
    let table = allocated.costs(&whose, &asking).unwrap();
    assert_eq!(table.iter().count(), 6, "both have a part of all three");
    for (group, currency, sum) in table.iter() {
        let mut question = asked(&[]);
        for (axis, value) in ["project", "resource"].into_iter().zip(group) {
            let values = vec![value.as_str().into()];
            let filter = Filter { column: axis.into(), op: Op::In, values };
            question.filters.push((axis.parse().unwrap(), filter));
        }
        let origin = explain_allocated(store, &all, &whose, &question, 10).unwrap();
        let flow = origin.flows[currency];
        assert_eq!(flow.after, sum.amount, "{group:?}");
        assert_eq!(flow.before.0 + flow.received.0 - flow.given.0, flow.after.0, "{group:?}");
        let steps: i128 = origin.steps.iter().map(|step| step.amount.0).sum();
        assert_eq!(steps, flow.received.0, "{group:?}");
        let lines: Vec<_> = origin.explained.lines.iter().map(|(_, line)| line).collect();
        assert!(!lines.is_empty() && lines.iter().all(|line| line.resource == group[1]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn projects_that_rules_create_are_created_once() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    create(&world, "project", "create", json!({"name": "a"})).await;
    let one = |tags| One { day: "2026-10-01", billed: "1", resource: "", quantity: "1", tags };
    import(&world, &[one(r#"{"team": "a"}"#), one(r#"{"team": "b"}"#), one("{}")]).await;
    let rules = json!({"attribution": [
        {"name": "teams", "conditions": [], "centre_of": "tags.team", "create_project": true}]});
    for expected in [1, 0] {
        let counting = counting(&world).await;
        let whose = whose(&world, &counting, rules.clone(), None).await;
        let store = world.ledger.ports.bills.as_ref();
        let allocated = allocate(store, &counting, &whose, Basis::Billed).unwrap();
        let by = World::admin();
        let created = world.ledger.create_projects(&by, &whose, &allocated).await.unwrap();
        assert_eq!(created.len(), expected);
    }
    let mut names: Vec<_> =
        world.rows("project").await.iter().map(|row| row.body["name"].clone()).collect();
    names.sort_by_key(ToString::to_string);
    assert_eq!(names, ["a", "b"]);
    // A reader creates none.
    let all = counting(&world).await;
    let created = json!({"attribution": [
        {"name": "all", "conditions": [], "centre_of": "service", "create_project": true}]});
    let whose = whose(&world, &all, created, None).await;
    let store = world.ledger.ports.bills.as_ref();
    let allocated = allocate(store, &all, &whose, Basis::Billed).unwrap();
    let reader = Principal { role: domain::kernel::Role::Viewer, ..World::admin() };
    let refused = world.ledger.create_projects(&reader, &whose, &allocated).await.unwrap_err();
    assert!(matches!(refused, SubmitFault::Refused(no) if no.code.code == "role-too-low"));
}

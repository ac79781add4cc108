//! Replay: the real views on both stores, made again from the log, are what is there.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use adapters_store_kit::views::Table;
use adapters_store_postgres::{Options, PostgresViews, Store, start_views};
use commands::ports::{EventLog, Views};
use projections::views::{LENSES, VIEWS};
use serde_json::json;
use uuid::Uuid;

use crate::{
    mapping::declared,
    world::{World, small},
};

/// A schema that nobody else has.
fn new_schema() -> String {
    format!("replay_{}", Uuid::now_v7().simple())
}

/// Digests of the views, which must be the same when they are made again by so many threads.
async fn digests(views: &impl Views, threads: usize) -> BTreeMap<&'static str, String> {
    let mut digests = BTreeMap::new();
    for view in VIEWS {
        let verified = views.verify(view.name(), threads, &|_| {}).await.unwrap();
        assert_eq!(verified.first_difference, None, "{}", view.name());
        assert_eq!(verified.live, verified.replayed, "{}", view.name());
        digests.insert(view.name(), verified.live);
    }
    digests
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_is_the_same_again_on_both_stores_and_a_changed_row_is_named() {
    // A life with syncs, a mapping that drifts and is retired, servers that change, a deletion.
    let world = World::synced(small()).await;
    let id = declared(&world, &[80, 443]).await;
    let server = world.rows("server").await.remove(0);
    let body = json!({"tags": {"owner": "shop"}});
    world.send("server", server.key.parse::<Uuid>().unwrap(), "tag", body).await.unwrap();
    world.settle().await;
    let group = world.row(id).await;
    let text = |name: &str| group[name].as_str().unwrap().to_owned();
    let console = world.sim.console("acme", "mallory");
    console.delete(&text("region"), "security-group", &text("external_id")).unwrap();
    world.sync(json!({})).await;
    world.send("security-group", id, "retire", json!({})).await.unwrap();
    world.caught_up().await;
    let embedded = digests(&world.views, 2).await;

    // The same log in the other store.
    let url = std::env::var("SKYLEDGER_TEST_POSTGRES")
        .expect("SKYLEDGER_TEST_POSTGRES is the URL of a PostgreSQL; run ./test, which starts one");
    let schema = new_schema();
    let options = Options { schema: schema.clone(), connections: 6, ..Options::default() };
    let store = Store::connect(&url, options).await.unwrap();
    let log: Arc<dyn EventLog> = Arc::new(store.clone());
    let records = world.log.read(0, 100_000).await.unwrap();
    let head = records.len() as u64;
    assert_eq!(head, world.log.head().await.unwrap().position);
    log.restore(records).await.unwrap();
    let (views, running): (PostgresViews, _) =
        start_views(&store, log.clone(), VIEWS, LENSES).await.unwrap();
    views.reach_position(head, Duration::from_secs(30)).await.unwrap();
    for threads in [1, 2] {
        assert_eq!(digests(&views, threads).await, embedded, "with {threads} threads");
    }

    // Somebody changes one value of one row past the log, in every view.
    for view in VIEWS {
        let table = Table::of(*view, 1);
        let column = &table.columns[0].name;
        let client = store.pool().get().await.unwrap();
        let row = client
            .query_one(
                &format!("SELECT key FROM {schema}.{} ORDER BY key LIMIT 1", table.name()),
                &[],
            )
            .await
            .unwrap();
        let key: String = row.get(0);
        let forge = format!("UPDATE {schema}.{} SET {column} = $2 WHERE key = $1", table.name());
        assert!(client.execute(&forge, &[&key, &"forged"]).await.unwrap() > 0);
        let verified = views.verify(view.name(), 2, &|_| {}).await.unwrap();
        assert_ne!(verified.live, verified.replayed);
        assert_eq!(verified.replayed, embedded[view.name()]);
        let named = verified.first_difference.unwrap();
        assert!(named.starts_with(&format!("{key}: ")), "{named}");
    }
    running.stop().await;
    let client = store.pool().get().await.unwrap();
    client.batch_execute(&format!("DROP SCHEMA {schema} CASCADE")).await.unwrap();
}

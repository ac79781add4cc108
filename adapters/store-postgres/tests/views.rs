//! The suite of the views' behaviour, on PostgreSQL. A fresh schema for each test.
#![expect(clippy::unwrap_used, reason = "helpers of tests may")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use adapters_store_kit::views::{
    Table,
    suite::{Fixture, one_of_two_servers_projects_and_the_other_takes_over},
};
use adapters_store_postgres::{Options, PostgresViewStore, Store};
use async_trait::async_trait;
use tokio_postgres::NoTls;

fn url() -> String {
    std::env::var("SKYLEDGER_TEST_POSTGRES").expect(
        "SKYLEDGER_TEST_POSTGRES must hold the URL of a PostgreSQL server; ./test starts one",
    )
}

/// Removed when it is dropped.
struct Schema(String);

impl Schema {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(format!("views_{}_{number}", std::process::id()))
    }
}

async fn execute(sql: String) {
    let (client, connection) = tokio_postgres::connect(&url(), NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute(&sql).await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
}

impl Drop for Schema {
    fn drop(&mut self) {
        let sql = format!("DROP SCHEMA IF EXISTS {} CASCADE", self.0);
        let dropped = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(execute(sql));
        });
        // A test that failed has said so already.
        drop(dropped.join());
    }
}

#[async_trait]
impl Fixture for Schema {
    type Store = PostgresViewStore;

    async fn open(&self) -> Arc<PostgresViewStore> {
        let options = Options { schema: self.0.clone(), connections: 6, ..Options::default() };
        let store = Store::connect(&url(), options).await.unwrap();
        Arc::new(PostgresViewStore::open(&store).await.unwrap())
    }

    async fn tamper(&self, table: &Table, sql: &str) {
        let qualified = format!("{}.{}", self.0, table.name());
        execute(sql.replace(&table.name(), &qualified)).await;
    }
}

adapters_store_kit::view_suite!(Schema::new());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_projects_and_another_takes_over() {
    one_of_two_servers_projects_and_the_other_takes_over(&Schema::new()).await;
}

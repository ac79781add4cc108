//! A log before whose appends something happens: what another server does between a decision and
//! its append, or a fault.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use commands::ports::{
    Answered, Append, AppendFault, Appended, AuditFilter, EventLog, Head, LogFault,
};
use domain::{
    kernel::StreamId,
    log::{Hash, Record},
};
use futures::future::BoxFuture;

type Before = dyn Fn(&Append) -> BoxFuture<'static, Result<(), AppendFault>> + Send + Sync;

pub(crate) struct Between {
    log: Arc<dyn EventLog>,
    before: Box<Before>,
}

impl Between {
    pub(crate) fn new(
        log: Arc<dyn EventLog>,
        before: impl Fn(&Append) -> BoxFuture<'static, Result<(), AppendFault>> + Send + Sync + 'static,
    ) -> Self {
        Self { log, before: Box::new(before) }
    }
}

#[async_trait]
impl EventLog for Between {
    async fn append(&self, append: Append) -> Result<Appended, AppendFault> {
        (self.before)(&append).await?;
        self.log.append(append).await
    }
    async fn request(&self, actor: &str, key: &str) -> Result<Option<Answered>, LogFault> {
        self.log.request(actor, key).await
    }
    async fn stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, LogFault> {
        self.log.stream(stream, after, limit).await
    }
    async fn read(&self, after: u64, limit: usize) -> Result<Vec<Record>, LogFault> {
        self.log.read(after, limit).await
    }
    async fn head(&self) -> Result<Head, LogFault> {
        self.log.head().await
    }
    async fn appended(&self, after: u64) {
        self.log.appended(after).await;
    }
    async fn position_at(&self, time: DateTime<Utc>) -> Result<u64, LogFault> {
        self.log.position_at(time).await
    }
    async fn search(
        &self,
        filter: &AuditFilter,
        from: u64,
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<Record>, LogFault> {
        self.log.search(filter, from, newest_first, limit).await
    }
    async fn nodes(&self, level: u8, first: u64, count: u64) -> Result<Vec<Hash>, LogFault> {
        self.log.nodes(level, first, count).await
    }
    async fn restore(&self, records: Vec<Record>) -> Result<(), LogFault> {
        self.log.restore(records).await
    }
}

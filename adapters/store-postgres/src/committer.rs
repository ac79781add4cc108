//! The one task of this process that appends: takes what is waiting as one group, commits it
//! under the lock of the head row, and answers each.
//!
//! ```text
//!            lock + look up          write + commit
//! waiting ──────────────────► locked ──────────────► answered
//!    ▲   │ connection lost      │  │ connection lost     ▲
//!    │   ▼ (nothing written)    │  ▼ (not known)         │ it is there
//!    └── reconnect ◄────────────┘  resolve ──────────────┘
//!    └──────────────────────────────┘ it is not there
//! ```

use std::time::Duration;

use adapters_store_kit::group::{self, Now, Plan, RequestKey};
use commands::ports::{Append, AppendFault, Appended, LogFault};
use domain::{
    kernel::StreamId,
    log::{Position, Record},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_postgres::{Client, Config};

use crate::{
    connection::{self, fault},
    listener::tell,
    statements::{Locked, Statements},
};

/// What a caller waits for, and since when.
pub(crate) struct Job {
    pub(crate) since: Instant,
    pub(crate) work: Work,
}

pub(crate) enum Work {
    Append(Append, oneshot::Sender<Result<Appended, AppendFault>>),
    Restore(Vec<Record>, oneshot::Sender<Result<(), LogFault>>),
}

/// First pause after a lost connection; doubles up to [`BACK_OFF_MAX`].
const BACK_OFF_MIN: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

pub(crate) struct Committer {
    config: Config,
    channel: String,
    now: Now,
    patience: Duration,
    newest: watch::Sender<Position>,
    session: Option<(Client, Statements)>,
    /// Commits since the head's dead versions were cleared away.
    uncleared: u32,
}

/// Every commit leaves a dead version of the head's row, and each of them makes the next lock walk
/// further. PostgreSQL clears them by the way, but not while any transaction of the whole server,
/// also of another database, stays open; and its own vacuum comes once a minute.
const UNCLEARED_MAX: u32 = 500;

/// How a try ended.
enum Ended {
    /// Nothing of it is in the log: the server said so, or was never asked.
    Undone(LogFault),
    /// The connection broke while it was committing.
    Unknown(LogFault, Box<Plan>),
}

impl Committer {
    pub(crate) fn new(
        config: Config,
        channel: String,
        now: Now,
        patience: Duration,
        newest: watch::Sender<Position>,
    ) -> Self {
        Self { config, channel, now, patience, newest, session: None, uncleared: 0 }
    }

    /// Works until every sender is gone.
    pub(crate) async fn run(mut self, client: Client, mut queue: mpsc::Receiver<Job>) {
        if let Ok(statements) = Statements::prepare(&client).await {
            self.session = Some((client, statements));
        }
        let mut next = queue.recv().await;
        // How many were in the group before.
        let mut last = 0;
        while let Some(Job { since, work }) = next.take() {
            // What has waited long gets one try: a server that is gone does not make a whole
            // queue wait in turn.
            let end = since + self.patience;
            match work {
                Work::Restore(records, answer) => {
                    let (streams, requests) = group::restore_questions(&records);
                    let plan = |locked: &Locked| {
                        let head = locked.head.clone();
                        group::plan_restore(head, &locked.standing, records.clone())
                    };
                    let result = self.commit(&streams, &requests, plan, end).await;
                    let _ = answer.send(result.map(|_| ()));
                }
                Work::Append(append, answer) => {
                    let mut bytes = group::data_bytes(&append);
                    let (mut appends, mut answers) = (vec![append], vec![answer]);
                    let linger = Instant::now() + group::LINGER;
                    while appends.len() < group::GROUP_APPENDS_MAX && bytes < group::GROUP_BYTES_MAX
                    {
                        match queue.try_recv() {
                            Ok(Job { work: Work::Append(append, answer), .. }) => {
                                bytes += group::data_bytes(&append);
                                appends.push(append);
                                answers.push(answer);
                            }
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            // Those who were just answered are about to come back.
                            Err(_) if appends.len() < last && Instant::now() < linger => {
                                tokio::task::yield_now().await;
                            }
                            Err(_) => break,
                        }
                    }
                    last = appends.len();
                    self.append(&appends, answers, end).await;
                    self.clear().await;
                }
            }
            if next.is_none() {
                next = queue.recv().await;
            }
        }
    }

    /// A millisecond now and then: the table has one row.
    async fn clear(&mut self) {
        self.uncleared += 1;
        if self.uncleared < UNCLEARED_MAX {
            return;
        }
        self.uncleared = 0;
        if let Some((client, _)) = &self.session
            && let Err(error) = client.batch_execute("VACUUM (SKIP_LOCKED) head").await
        {
            // It only makes appends slower.
            tracing::debug!(%error, "the head's dead versions stay for now");
        }
    }

    async fn append(
        &mut self,
        appends: &[Append],
        answers: Vec<oneshot::Sender<Result<Appended, AppendFault>>>,
        end: Instant,
    ) {
        let (streams, requests) = group::questions(appends);
        let now = self.now.clone();
        let plan = |locked: &Locked| {
            Ok(group::plan(locked.head.clone(), &locked.standing, appends, now()))
        };
        // A caller that went away does not need its answer.
        match self.commit(&streams, &requests, plan, end).await {
            Ok(plan) => answers.into_iter().zip(plan.answers).for_each(|(answer, result)| {
                let _ = answer.send(result);
            }),
            Err(fault) => {
                tracing::warn!(%fault, appends = answers.len(), "a group of appends failed");
                for answer in answers {
                    let _ = answer.send(Err(fault.clone().into()));
                }
            }
        }
    }

    /// Commits what `plan` makes of the log, through lost connections and restarts of the server,
    /// until it is there or patience ends.
    async fn commit(
        &mut self,
        streams: &[StreamId],
        requests: &[RequestKey],
        plan: impl Fn(&Locked) -> Result<Plan, LogFault>,
        end: Instant,
    ) -> Result<Plan, LogFault> {
        let mut back_off = BACK_OFF_MIN;
        let mut unknown: Option<Plan> = None;
        loop {
            let tried = match self.resolve(&mut unknown).await {
                Ok(Some(committed)) => Ok(committed),
                Ok(None) => self.try_commit(streams, requests, &plan).await,
                // Still not known.
                Err(fault) => match unknown.take() {
                    Some(plan) => Err(Ended::Unknown(fault, Box::new(plan))),
                    None => Err(Ended::Undone(fault)),
                },
            };
            let fault = match tried {
                Ok(plan) => {
                    tell(&self.newest, plan.head.position);
                    return Ok(plan);
                }
                Err(Ended::Undone(fault)) => fault,
                Err(Ended::Unknown(fault, plan)) => {
                    unknown = Some(*plan);
                    fault
                }
            };
            if !matches!(fault, LogFault::Unavailable(_)) && unknown.is_none() {
                return Err(fault);
            }
            if Instant::now() + back_off > end {
                return Err(match unknown {
                    None => fault,
                    Some(_) => LogFault::Unavailable(format!(
                        "{fault}; whether the append was written is not known, ask by its key"
                    )),
                });
            }
            tracing::debug!(%fault, "trying again");
            tokio::time::sleep(back_off).await;
            back_off = (back_off * 2).min(BACK_OFF_MAX);
        }
    }

    /// Finds out whether a commit of unknown end is in the log; none when nothing is unknown, or
    /// it is not there.
    async fn resolve(&mut self, unknown: &mut Option<Plan>) -> Result<Option<Plan>, LogFault> {
        let Some(plan) = unknown.as_ref() else { return Ok(None) };
        let Some(record) = plan.records.first() else { return Ok(None) };
        let (position, frame) = (record.position() as i64, record.frame());
        let (client, statements) = self.session().await?;
        let there = statements.resolve(client, position).await?;
        let committed = there.is_some_and(|bytes| bytes == frame);
        Ok(unknown.take().filter(|_| committed))
    }

    async fn try_commit(
        &mut self,
        streams: &[StreamId],
        requests: &[RequestKey],
        plan: &impl Fn(&Locked) -> Result<Plan, LogFault>,
    ) -> Result<Plan, Ended> {
        let channel = self.channel.clone();
        let (client, statements) = self.session().await.map_err(Ended::Undone)?;
        let locked = match statements.lock(client, streams, requests).await {
            Ok(locked) => locked,
            Err(fault) => {
                let _ = statements.rollback(client).await;
                return Err(Ended::Undone(fault));
            }
        };
        let plan = match plan(&locked) {
            Ok(plan) if !plan.records.is_empty() => plan,
            other => {
                let _ = statements.rollback(client).await;
                return other.map_err(Ended::Undone);
            }
        };
        match statements.write(client, &locked, &plan, &channel).await {
            Ok(()) => Ok(plan),
            Err(error) if connection::is_refused(&error) => {
                let _ = statements.rollback(client).await;
                Err(Ended::Undone(fault(error)))
            }
            Err(error) => Err(Ended::Unknown(fault(error), Box::new(plan))),
        }
    }

    async fn session(&mut self) -> Result<&(Client, Statements), LogFault> {
        if self.session.as_ref().is_none_or(|(client, _)| client.is_closed()) {
            self.session = None;
            let client = connection::connect(&self.config).await?;
            let statements = Statements::prepare(&client).await?;
            self.session = Some((client, statements));
        }
        Ok(self.session.as_ref().expect("there was one, or it was just made"))
    }
}

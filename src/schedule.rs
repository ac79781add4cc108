//! What is done by the clock: looks at clouds, pulls of bills, the emptying of the recycle bin, backup
//! plans, collections of backup stores, looks whether servers follow their security groups and leave hosts
//! that are drained, and once a day the bill lines that are made here.
//!
//! Looks at every account again when its last look at everything is old: a look at some kinds or
//! regions says nothing of the rest. It only sends the command that a person could send: what
//! happens then is the runner's. A look that came out incomplete counts: where one region denies
//! itself for good, looking all the time would not help it.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use commands::{
    derive::Run,
    drain::Drainer,
    follow::Follower,
    ledger::Ledger,
    ports::{BillFault, Query, ViewFault},
    submit::{Submission, SubmitFault},
};
use domain::{finops::amount::BillingMonth, kinds};
use serde_json::{Value, json};
use uuid::Uuid;

/// Works until `stop` comes back; an interval of 0 leaves it all to people.
pub(crate) async fn run(ledger: Arc<Ledger>, interval: Duration, stop: impl Future<Output = ()>) {
    if interval.is_zero() {
        return stop.await;
    }
    // Often enough that a look is at most a tenth of the interval late.
    let pause = (interval / 10).clamp(Duration::from_secs(1), Duration::from_mins(1));
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            () = ledger.ports.clock.sleep(pause) => {}
        }
        match due(&ledger, interval).await {
            Ok(accounts) => {
                for account in accounts {
                    order(&ledger, account).await;
                }
            }
            Err(fault) => tracing::warn!(%fault, "the accounts to look at cannot be listed"),
        }
    }
}

/// Accounts that are connected, have nothing out, and were looked at too long ago.
async fn due(ledger: &Ledger, interval: Duration) -> Result<Vec<Uuid>, ViewFault> {
    let query = Query::all().with("kind", "cloud-account").with("status", "connected");
    let interval = TimeDelta::from_std(interval).unwrap_or(TimeDelta::MAX);
    let now = ledger.ports.clock.now();
    let (rows, _) = ledger.rows(query).await?;
    let old = rows.iter().filter(|row| is_old(&row.body, now, interval));
    Ok(old.filter_map(|row| row.key.parse::<Uuid>().ok()).collect())
}

fn is_old(row: &Value, now: DateTime<Utc>, interval: TimeDelta) -> bool {
    let last = row["state"]["last_whole_run"]["started_at"].as_str();
    last.and_then(|last| last.parse::<DateTime<Utc>>().ok())
        .is_none_or(|last| now - last >= interval)
}

async fn order(ledger: &Ledger, account: Uuid) {
    let Some(kind) = kinds::by_name("cloud-account") else { return };
    let who = Ledger::system("schedule");
    match ledger.submit(Submission::new(who, kind, account, "sync", json!({}))).await {
        // Somebody else was first, or the account is not ready: the next look will tell.
        Ok(_) | Err(SubmitFault::Refused(_)) => {}
        Err(fault) => tracing::warn!(%account, %fault, "a look could not be ordered"),
    }
}

/// How often it is looked whether a bill source is due.
const SOURCE_LOOK: Duration = Duration::from_secs(30);

/// Orders the pulls that are due until `stop` comes back. Of several servers that do, one is first.
pub(crate) async fn run_pulls(ledger: Arc<Ledger>, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    loop {
        if let Err(fault) = ledger.order_due_pulls().await {
            tracing::warn!(%fault, "the bill sources cannot be listed");
        }
        tokio::select! {
            () = &mut stop => return,
            () = ledger.ports.clock.sleep(SOURCE_LOOK) => {}
        }
    }
}

/// How often it is looked whether a deleted server's time is over.
const BIN_LOOK: Duration = Duration::from_mins(5);

/// Empties the recycle bin until `stop` comes back. Of several servers that do, one is first.
pub(crate) async fn run_bin(ledger: Arc<Ledger>, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    loop {
        match ledger.empty_bin().await {
            Ok(0) => {}
            Ok(purged) => tracing::info!(purged, "deleted servers are removed, their time is over"),
            Err(fault) => tracing::warn!(%fault, "the deleted servers cannot be listed"),
        }
        tokio::select! {
            () = &mut stop => return,
            () = ledger.ports.clock.sleep(BIN_LOOK) => {}
        }
    }
}

/// How often it is looked whether servers follow their security groups: what a group's new rules forbid is
/// allowed that much longer.
const GROUPS_LOOK: Duration = Duration::from_secs(1);

/// Lets servers of our own follow their security groups until `stop` comes back.
pub(crate) async fn run_groups(ledger: Arc<Ledger>, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    let mut follower = Follower::new(Arc::clone(&ledger));
    loop {
        match follower.pass().await {
            Ok(0) => {}
            Ok(servers) => tracing::info!(servers, "servers follow their security groups"),
            Err(fault) => tracing::warn!(%fault, "it is not known who follows security groups"),
        }
        tokio::select! {
            () = &mut stop => return,
            () = ledger.ports.clock.sleep(GROUPS_LOOK) => {}
        }
    }
}

/// How often it is looked whether a backup plan is due.
const PLAN_LOOK: Duration = Duration::from_secs(30);

/// Orders the runs of backup plans that are due until `stop` comes back. Of several servers that do, one is
/// first.
pub(crate) async fn run_plans(ledger: Arc<Ledger>, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    loop {
        if let Err(fault) = ledger.order_due_backups().await {
            tracing::warn!(%fault, "the backup plans cannot be listed");
        }
        tokio::select! {
            () = &mut stop => return,
            () = ledger.ports.clock.sleep(PLAN_LOOK) => {}
        }
    }
}

/// How often it is looked whether servers leave the hosts that are drained.
const DRAIN_LOOK: Duration = Duration::from_secs(2);

/// Lets servers leave the hosts that are drained until `stop` comes back.
pub(crate) async fn run_drains(ledger: Arc<Ledger>, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    let mut drainer = Drainer::new(Arc::clone(&ledger));
    loop {
        match drainer.pass().await {
            Ok(0) => {}
            Ok(servers) => tracing::info!(servers, "servers leave hosts that are drained"),
            Err(fault) => tracing::warn!(%fault, "it is not known which hosts are drained"),
        }
        tokio::select! {
            () = &mut stop => return,
            () = ledger.ports.clock.sleep(DRAIN_LOOK) => {}
        }
    }
}

/// How often it is looked whether a store of backups is to be collected.
const STORE_LOOK: Duration = Duration::from_mins(10);

/// Orders the collections of backup stores that are due until `stop` comes back. Of several servers that
/// do, one is first.
pub(crate) async fn run_collections(ledger: Arc<Ledger>, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    loop {
        if let Err(fault) = ledger.order_due_collections().await {
            tracing::warn!(%fault, "the backup stores cannot be listed");
        }
        tokio::select! {
            () = &mut stop => return,
            () = ledger.ports.clock.sleep(STORE_LOOK) => {}
        }
    }
}

/// How often it is looked whether a day is over.
const DAY_LOOK: Duration = Duration::from_mins(10);

/// Once a day, and at the start, makes the lines of this month and the one before: what was paid in
/// advance, and what was used. A month that is closed is a person's to restate.
pub(crate) async fn run_days(ledger: Arc<Ledger>, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    let mut done = None;
    loop {
        let today = ledger.ports.clock.now().date_naive();
        if done != Some(today) {
            let month = BillingMonth::of(today);
            let before = today.checked_sub_months(chrono::Months::new(1));
            for month in before.map(BillingMonth::of).into_iter().chain([month]) {
                let made = tokio::select! {
                    () = &mut stop => return,
                    made = make_lines(&ledger, month) => made,
                };
                if let Err(fault) = made {
                    tracing::warn!(%month, %fault, "the month's own lines could not be made");
                }
            }
            done = Some(today);
        }
        tokio::select! {
            () = &mut stop => return,
            () = ledger.ports.clock.sleep(DAY_LOOK) => {}
        }
    }
}

async fn make_lines(ledger: &Arc<Ledger>, month: BillingMonth) -> anyhow::Result<()> {
    let run = Run {
        months: month..=month,
        reason: String::new(),
        by: Ledger::system("schedule"),
        validate_only: false,
    };
    let amortising = ledger.amortising().await?;
    let rating = ledger.rating(&run).await?;
    let (store, asked) = (Arc::clone(&ledger.ports.bills), run.clone());
    let worked_out = tokio::task::spawn_blocking(move || {
        let (amortised, _) = amortising.work(store.as_ref(), &asked)?;
        let (rated, _) = rating.work(store.as_ref(), &asked)?;
        Ok::<_, BillFault>([amortised, rated])
    });
    for derived in worked_out.await?? {
        match ledger.renew(&derived, &run).await {
            Err(SubmitFault::Refused(no)) => {
                let source = derived.source.as_str();
                tracing::info!(%month, source, %no, "the month's lines stay as they are");
            }
            renewed => drop(renewed?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_due_when_its_last_look_is_as_old_as_the_interval() {
        let now: DateTime<Utc> = "2026-03-01T12:00:00Z".parse().unwrap();
        let row = |started: Value| json!({"state": {"last_whole_run": {"started_at": started}}});
        let due = |row: &Value| is_old(row, now, TimeDelta::minutes(5));
        assert!(due(&json!({"state": {}})), "never looked at");
        let part = json!({"state": {"last_run": {"started_at": "2026-03-01T12:00:00Z"}}});
        assert!(due(&part), "only a part was looked at");
        assert!(due(&row(json!("2026-03-01T11:55:00Z"))));
        assert!(!due(&row(json!("2026-03-01T11:55:01Z"))));
    }
}

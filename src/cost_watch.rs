//! Looks at costs again when bills or rules have changed since the last look. Imports look at once;
//! this one makes up for a server that died between an import and its look, for lines that came
//! another way, and for rules that are new. It also asks the reports that are due. Several servers
//! may do it at once.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use commands::{
    anomalies::detect_all, budgets::standings, ledger::Ledger, reports, watch::digests,
};
use domain::kernel::{canonical_bytes, sha256};

/// Between two looks at whether something has changed.
const PAUSE: Duration = Duration::from_secs(30);

/// Works until `stop` comes back.
pub(crate) async fn run(ledger: Arc<Ledger>, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    let mut seen = None;
    loop {
        tokio::select! {
            () = &mut stop => return,
            () = ledger.ports.clock.sleep(PAUSE) => {}
        }
        if let Err(fault) = pass(&ledger, &mut seen).await {
            tracing::warn!(fault = format!("{fault:#}"), "costs were not looked at");
        }
        if let Err(fault) = ask(&ledger).await {
            tracing::warn!(fault = format!("{fault:#}"), "reports were not asked");
        }
    }
}

/// Looks, unless everything is as it was when it was last looked at.
async fn pass(ledger: &Ledger, seen: &mut Option<[u8; 32]>) -> Result<()> {
    let watching = ledger.watching().await?;
    let budgeting = ledger.budgeting(Some(watching.counting.position)).await?;
    // Alerts are what comes of a look, and nothing to look again for.
    let limits: Vec<_> =
        budgeting.budgets.values().map(|one| (&one.name, &one.allowance)).collect();
    let whose = [&watching.whose, &budgeting.whose].map(digests);
    let inputs = (watching.counting.digest(), &watching.rules, limits, whose);
    let inputs = sha256(&canonical_bytes(&inputs));
    if *seen == Some(inputs) {
        return Ok(());
    }
    if !watching.rules.is_empty() {
        let store = Arc::clone(&ledger.ports.bills);
        let found = tokio::task::spawn_blocking(move || {
            let findings = detect_all(store.as_ref(), &watching)?;
            anyhow::Ok((watching, findings))
        });
        let (watching, findings) = found.await??;
        ledger.tell_anomalies(&watching, findings).await?;
    }
    if !budgeting.budgets.is_empty() {
        let store = Arc::clone(&ledger.ports.bills);
        let stand = tokio::task::spawn_blocking(move || {
            let (standings, _) = standings(store.as_ref(), &budgeting)?;
            anyhow::Ok((budgeting, standings))
        });
        let (budgeting, standings) = stand.await??;
        ledger.tell_budgets(&budgeting, standings).await?;
    }
    *seen = Some(inputs);
    Ok(())
}

/// Asks the reports that are due, and keeps their answers. One that cannot be asked does not hold up
/// the others.
async fn ask(ledger: &Ledger) -> Result<()> {
    for (id, report, due) in ledger.due_reports(ledger.now()).await? {
        let Some(question) = &report.question else { continue };
        let asking = match ledger.asking(question, None).await? {
            Ok(asking) => asking,
            Err(unknown) => {
                tracing::warn!(report = %id, %unknown, "a report cannot be asked");
                continue;
            }
        };
        let (bills, answers) = (Arc::clone(&ledger.ports.bills), Arc::clone(&ledger.ports.answers));
        let run =
            tokio::task::spawn_blocking(move || reports::run(&bills, &answers, &asking, due, true));
        match run.await? {
            Ok(run) => {
                ledger.record_run(id, &run).await?;
            }
            Err(fault) => tracing::warn!(report = %id, %fault, "a report has no answer"),
        }
    }
    Ok(())
}

//! Bills beside what their issuers say.

use axum::http::StatusCode;
use domain::{finops::bill::Reconciled, kernel::Decider};
use serde_json::{Value, json};

use crate::{
    asked::months,
    call::{Answer, Call, answer, at_position},
};

/// Each bill's invoices, and who says otherwise about its month.
pub(crate) async fn reconcile(call: Call) -> Answer {
    let (from, to) = months(&call)?;
    let at = call.at().await?;
    let (bills, position) = call.service.ledger.reconcile(from, to, at).await?;
    let items: Vec<Value> = bills
        .iter()
        .map(|one| {
            let bill = &one.counted.bill;
            let invoices = one.invoices.as_ref().map(|invoices| {
                let invoice = |one: &Reconciled| {
                    json!({
                        "invoice": one.invoice, "issuer": one.issuer, "currency": one.currency,
                        "lines": one.lines, "stated": one.stated, "differs": one.differs(),
                    })
                };
                invoices.iter().map(invoice).collect::<Vec<_>>()
            });
            let disagreements: Vec<Value> = one
                .disagreements
                .iter()
                .map(|one| json!({"issuer": one.issuer, "says": one.says}))
                .collect();
            json!({
                "bill": one.counted.id,
                "billing_account": bill.billing_account,
                "month": bill.month,
                "status": bill.status(),
                "sums": bill.sums,
                "invoiced": bill.invoiced,
                "invoices": invoices,
                "disagreements": disagreements,
            })
        })
        .collect();
    let body = json!({"items": items, "position": position});
    Ok(at_position(answer(StatusCode::OK, &body), position))
}

//! What issuers say beside the lines of bills: invoices, commitments, and whether a month is closed.

use adapters_sim::Population;
use commands::submit::SubmitFault;
use domain::{
    finops::{
        bill::{Bill, Manner},
        issuer::{Issuer, Period},
    },
    kernel::Decider,
};
use serde_json::json;

use crate::{
    bills::{book, import},
    world::World,
};

/// Lines of October: two of invoice A, one of B, one without an invoice yet.
const LINES: &str = "BilledCost,EffectiveCost,ListCost,ContractedCost,BillingAccountId,BillingCurrency,\
    BillingPeriodStart,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,ServiceName,InvoiceId,\
    InvoiceIssuerName\n\
    1,1,1,1,42,USD,2026-10-01,Usage,2026-10-05,2026-10-06,EC2,A,AWS\n\
    7,7,7,7,42,USD,2026-10-01,Usage,2026-10-05,2026-10-06,EC2,B,AWS\n\
    2.5,2,2,2,42,USD,2026-10-01,Usage,2026-10-05,2026-10-06,EC2,A,AWS\n\
    9,9,9,9,42,USD,2026-10-01,Usage,2026-10-05,2026-10-06,EC2,,AWS\n";

const INVOICES: &str = "InvoiceDetailId,InvoiceId,InvoiceIssuerName,BillingAccountId,\
    BillingPeriodStart,BillingCurrency,BilledCost,InvoiceIssueStatus\n\
    1,A,AWS,42,2026-10-01,USD,4,Issued\n2,A,AWS,42,2026-10-01,USD,-0.5,Issued\n\
    3,B,AWS,42,2026-10-01,USD,7.25,Issued\n";

fn world() -> World {
    World::empty(Population { seed: 1, regions: 1, resources: 0 })
}

async fn take(world: &World, file: &str) -> usize {
    let outcomes = book(world, file, import(Manner::Add, "")).await.unwrap();
    outcomes.iter().map(|outcome| outcome.events.len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bill_is_reconciled_invoice_by_invoice() {
    let world = world();
    // Invoices may come before the lines, and again.
    assert_eq!(take(&world, INVOICES).await, 2, "opened, stated");
    assert_eq!(take(&world, LINES).await, 1);
    assert_eq!(take(&world, INVOICES).await, 0, "stated already");
    world.caught_up().await;
    let month = || "2026-10".to_owned().try_into().unwrap();
    let (bills, _) = world.ledger.reconcile(month(), month(), None).await.unwrap();
    let shown: Vec<String> = bills[0]
        .invoices
        .iter()
        .flatten()
        .map(|one| {
            let said = |sum: Option<domain::finops::amount::Amount>| {
                sum.map_or("–".to_owned(), |sum| sum.to_string())
            };
            let differs = if one.differs() { " differs" } else { "" };
            format!("{}: {} {}{differs}", one.invoice, said(one.lines), said(one.stated))
        })
        .collect();
    assert_eq!(shown, [": 9 –", "A: 3.5 3.5", "B: 7 7.25 differs"]);
    let id = Bill::id("42", month());
    let refused = world.send("bill", id, "close", json!({})).await.unwrap_err();
    let SubmitFault::Refused(refused) = refused else { panic!("{refused}") };
    assert_eq!(refused.code.code, "bill-differs");
    assert_eq!(refused.detail, "invoice B of AWS says 7.25 USD, its lines come to 7");
    assert_eq!(take(&world, &INVOICES.replace("7.25", "7")).await, 1, "only B is new");
    assert_eq!(world.send("bill", id, "close", json!({})).await.unwrap().status, "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_says_otherwise_about_a_month_is_a_finding() {
    let world = world();
    take(&world, LINES).await;
    let periods = |status: &str| {
        format!(
            "BillingPeriodStart,BillingPeriodStatus,InvoiceIssuerName\n2026-10-01,{status},AWS\n"
        )
    };
    let month = || "2026-10".to_owned().try_into().unwrap();
    let disagreements = async || {
        world.caught_up().await;
        let (bills, _) = world.ledger.reconcile(month(), month(), None).await.unwrap();
        bills[0].disagreements.iter().map(|one| one.says).collect::<Vec<_>>()
    };
    assert_eq!(disagreements().await, [], "nobody has said anything");
    take(&world, &periods("Open")).await;
    assert_eq!(disagreements().await, []);
    take(&world, &periods("Closed")).await;
    assert_eq!(disagreements().await, [Period::Closed]);
    world.send("bill", Bill::id("42", month()), "close", json!({})).await.unwrap();
    assert_eq!(disagreements().await, []);
    take(&world, &periods("Open")).await;
    assert_eq!(disagreements().await, [Period::Open], "an issuer opens a month again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terms_of_commitments_are_kept_and_come_in_parts() {
    let world = world();
    let heading = "ContractCommitmentId,ContractId,ContractCommitmentPeriodStart,\
        ContractCommitmentPeriodEnd,ContractCommitmentCost,BillingCurrency,InvoiceIssuerName\n";
    let row = |n| format!("sp-{n:03},c,2026-01-01,2027-01-01,{n}.5,USD,AWS\n");
    let rows = (0..450).map(row).collect::<Vec<_>>().concat();
    let file = format!("{heading}{rows}");
    assert_eq!(take(&world, &file).await, 3);
    assert_eq!(take(&world, &file).await, 0);
    let row = world.row(Issuer::id("AWS")).await;
    let issuer: Issuer = serde_json::from_value(row["state"].clone()).unwrap();
    assert_eq!((issuer.status(), issuer.commitments.len()), ("stated", 450));
    assert_eq!(issuer.commitments[7].cost.map(|cost| cost.to_string()).as_deref(), Some("7.5"));
}

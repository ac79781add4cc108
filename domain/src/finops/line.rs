//! One line of a bill: what was charged, for what, when, and to whom.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use serde::{Deserialize, Serialize};

use super::amount::{Amount, BillingMonth, Currency};

/// What kind of charge a line is: `ChargeCategory` of FOCUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ChargeCategory {
    /// Consumption of a service.
    Usage,
    /// Something bought: a commitment, a licence, support.
    Purchase,
    /// Levied by an authority.
    Tax,
    /// Granted by the provider: negative as a rule.
    Credit,
    /// Anything else that changes what is to be paid: rounding, refunds without a line of origin.
    Adjustment,
}

impl ChargeCategory {
    /// Every category, in the order of FOCUS.
    pub const ALL: [Self; 5] =
        [Self::Usage, Self::Purchase, Self::Tax, Self::Credit, Self::Adjustment];

    /// As FOCUS spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Usage => "Usage",
            Self::Purchase => "Purchase",
            Self::Tax => "Tax",
            Self::Credit => "Credit",
            Self::Adjustment => "Adjustment",
        }
    }

    /// The category of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// One line of a bill. Texts that the bill does not have are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its place in the file it came from: the line's number, from 1, the heading being line 1.
    pub number: u64,
    /// `BillingAccountId`: who is invoiced.
    pub billing_account: String,
    /// `SubAccountId`: account, subscription or project within it.
    pub sub_account: String,
    /// The month it is invoiced in, of `BillingPeriodStart`.
    pub month: BillingMonth,
    /// `ChargePeriodStart`, inclusive.
    pub from: DateTime<Utc>,
    /// `ChargePeriodEnd`, exclusive.
    pub to: DateTime<Utc>,
    /// `ChargeCategory`.
    pub category: ChargeCategory,
    /// `ChargeClass` is `Correction`: it corrects a month that was invoiced before.
    pub correction: bool,
    /// `BillingCurrency`, of all amounts.
    pub currency: Currency,
    /// `BilledCost`: what the issuer invoices.
    pub billed: Amount,
    /// `EffectiveCost`: what is recognised in the charge period, prepaid cost spread.
    pub effective: Amount,
    /// `ListCost`: at public prices.
    pub list: Amount,
    /// `ContractedCost`: at negotiated prices, before commitments.
    pub contracted: Amount,
    /// `ServiceName`.
    pub service: String,
    /// `ServiceCategory`.
    pub service_category: String,
    /// `RegionId`.
    pub region: String,
    /// `ResourceId`.
    pub resource: String,
    /// `ResourceName`.
    pub resource_name: String,
    /// `ResourceType`.
    pub resource_type: String,
    /// `PricingCategory`: how it is paid for.
    pub billing_mode: String,
    /// `CommitmentDiscountId`.
    pub commitment: String,
    /// `CommitmentDiscountStatus`: `Used` or `Unused`.
    pub commitment_status: String,
    /// `InvoiceId`.
    pub invoice: String,
    /// `InvoiceIssuerName`.
    pub issuer: String,
    /// `SkuId`.
    pub sku: String,
    /// `ConsumedQuantity`, as written in the bill; its scale may be larger than an amount's.
    pub quantity: String,
    /// `ConsumedUnit`.
    pub unit: String,
    /// `ChargeDescription`.
    pub description: String,
    /// `Tags`, those without a value being `true`.
    pub tags: BTreeMap<String, String>,
    /// What else the bill says, by its own column names; empty values left out.
    pub other: BTreeMap<String, String>,
}

impl Line {
    /// A line of usage over its whole month that comes to nothing and says nothing more.
    pub fn new(billing_account: &str, month: BillingMonth, currency: Currency) -> Self {
        let midnight = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc();
        let text = String::new;
        Self {
            number: 0,
            billing_account: billing_account.to_owned(),
            sub_account: text(),
            month,
            from: midnight(month.first()),
            to: midnight(month.next().first()),
            category: ChargeCategory::Usage,
            correction: false,
            currency,
            billed: Amount::ZERO,
            effective: Amount::ZERO,
            list: Amount::ZERO,
            contracted: Amount::ZERO,
            service: text(),
            service_category: text(),
            region: text(),
            resource: text(),
            resource_name: text(),
            resource_type: text(),
            billing_mode: text(),
            commitment: text(),
            commitment_status: text(),
            invoice: text(),
            issuer: text(),
            sku: text(),
            quantity: text(),
            unit: text(),
            description: text(),
            tags: BTreeMap::new(),
            other: BTreeMap::new(),
        }
    }
}

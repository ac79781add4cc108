//! What applies to sums of costs: the factor of a re-pricing, and an exchange rate.
//!
//! - A sum is multiplied by the exact product of factor and rate, and rounded once, half to even, to
//!   an amount's scale. Sums are those of the lines that have everything in common that is asked for
//!   or decides; what is shown is added up of them. So groups always come to their total, and a
//!   group's number is the same where it is asked for alone.
//! - The rate of a month is the one of the latest day up to its last. The factor is that of the day
//!   on which a charge begins, taken into the month of its bill.
//! - A bill that is closed has the factors and rates that were known when it was closed, whatever
//!   was said since. Only where no rate was known then, that of now fills the gap. A bill that is
//!   open has those of now.

use std::collections::BTreeMap;

use num_traits::One;
use serde::Serialize;
use uuid::Uuid;

use super::{
    amount::{Amount, BillingMonth, Currency},
    attribution::Looked,
    bill::Bill,
    cost::{Dimension, Sum, TooLarge},
    exchange_rate::{KnownRate, Rates},
    ratio::{Ratio, round_half_even, whole},
    repricing::{KnownRepricing, Payer, Repricings},
};
use crate::{
    kernel::{Refusal, canonical_bytes, codes, sha256},
    log::{Position, hex},
};

/// What applies to sums. By default nothing.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Into which currency; none leaves sums in theirs.
    pub currency: Option<Currency>,
    /// Known exchange rates.
    pub rates: Rates,
    /// Known re-pricings; none when prices stay as they are billed.
    pub repricings: Option<Repricings>,
    /// Where in the log each closed bill was closed.
    pub closed: BTreeMap<Uuid, Position>,
    /// Up to where the log is known.
    pub position: Position,
}

/// What applies to one sum.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Applied {
    /// The bill.
    pub bill: Uuid,
    /// Its month.
    pub month: BillingMonth,
    /// In what the bill is.
    pub currency: Currency,
    /// The re-pricing: its id and revision.
    pub repricing: Option<(Uuid, u64)>,
    /// The exchange rate: its id and revision.
    pub exchange_rate: Option<(Uuid, u64)>,
    /// As of which position the re-pricing counts.
    pub repriced_at: Position,
    /// As of which position the rate counts.
    pub converted_at: Position,
}

/// The same with the numbers.
#[derive(Clone, Debug)]
pub struct Application<'a> {
    /// Which.
    pub applied: Applied,
    /// The re-pricing, when there is one for this sum.
    pub repricing: Option<&'a KnownRepricing>,
    /// The exchange rate, when the sum is in another currency.
    pub exchange_rate: Option<&'a KnownRate>,
    /// In what the sum is afterwards.
    pub currency: &'a Currency,
    ratio: Ratio,
}

impl Application<'_> {
    /// An amount afterwards, rounded half to even.
    ///
    /// # Errors
    /// When it is beyond what an amount holds.
    pub fn amount(&self, amount: Amount) -> Result<Amount, TooLarge> {
        if self.ratio.is_one() {
            return Ok(amount);
        }
        round_half_even(&(whole(amount.0) * &self.ratio)).map(Amount).ok_or(TooLarge)
    }

    /// A sum afterwards. Its lines are as many.
    ///
    /// # Errors
    /// When it is beyond what an amount holds.
    pub fn sum(&self, sum: Sum) -> Result<Sum, TooLarge> {
        let (amount, magnitude) = (self.amount(sum.amount)?, self.amount(sum.magnitude)?);
        Ok(Sum { amount, magnitude, lines: sum.lines })
    }
}

impl Terms {
    /// Whether nothing applies.
    pub fn is_none(&self) -> bool {
        self.currency.is_none() && self.repricings.is_none()
    }

    /// The dimensions of lines that decide what applies.
    pub fn needs(&self) -> Vec<Dimension> {
        if self.is_none() {
            return vec![];
        }
        let mut needs = ["billing_account", "currency", "month"].map(Dimension::Plain).to_vec();
        needs.extend(self.repricings.iter().flat_map(Repricings::needs));
        needs
    }

    /// What applies to lines that have these values in the dimensions of [`Terms::needs`].
    ///
    /// # Errors
    /// `no-exchange-rate` when there is none for their currency in their month.
    pub fn of<'a>(
        &'a self,
        look: &impl Looked,
        payer: Payer,
        currency: &'a Currency,
    ) -> Result<Application<'a>, Refusal> {
        let plain = |name| look.value(&Dimension::Plain(name));
        let month: BillingMonth = plain("month")
            .parse()
            .map_err(|what: String| Refusal::new(&codes::INVALID_FIELD, what))?;
        let bill = Bill::id(plain("billing_account"), month);
        let closed = self.closed.get(&bill).copied();
        let known_at = closed.unwrap_or(self.position);
        let last = month.end().pred_opt().unwrap_or(month.end());
        let repricing = self.repricings.as_ref().and_then(|all| {
            let day = plain("day").parse().unwrap_or(month.first());
            all.find(payer, day.clamp(month.first(), last), look, known_at)
        });
        let mut applied = Applied {
            bill,
            month,
            currency: currency.clone(),
            repricing: repricing.map(|one| (one.id, one.revision)),
            exchange_rate: None,
            repriced_at: known_at,
            converted_at: known_at,
        };
        let mut ratio = repricing.map_or_else(Ratio::one, |one| one.definition.price.ratio());
        let Some(target) = self.currency.as_ref().filter(|target| *target != currency) else {
            let exchange_rate = None;
            return Ok(Application { applied, repricing, exchange_rate, currency, ratio });
        };
        let find = |at| self.rates.find(currency, target, last, at).map(|rate| (rate, at));
        let found = find(known_at).or_else(|| find(self.position));
        let Some((rate, at)) = found else {
            let detail = format!(
                "there is no exchange rate from {currency} to {target} for {month}: define one \
                 whose day is {last} or before"
            );
            return Err(Refusal::new(&codes::NO_EXCHANGE_RATE, detail));
        };
        applied.exchange_rate = Some((rate.id, rate.revision));
        applied.converted_at = at;
        ratio *= rate.rate.ratio();
        Ok(Application { applied, repricing, exchange_rate: Some(rate), currency: target, ratio })
    }

    /// Names all of it: the same digest, the same numbers.
    pub fn digest(&self) -> String {
        let rates: Vec<_> = self.rates.all().collect();
        let repricings = self.repricings.as_ref().map(|all| all.all().collect::<Vec<_>>());
        let all = (&self.currency, rates, repricings, &self.closed);
        hex(&sha256(&canonical_bytes(&all)))
    }
}

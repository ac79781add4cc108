//! The arithmetic of costs: exact, deterministic, and the same whoever computes it again.
//!
//! Amounts are integers of [`amount::SCALE`] decimals, ratios are rationals; nothing here is a
//! float but in what estimates and never books: [`anomaly`], [`forecast`], [`regression`].
//!
//! - [`amount`]: amounts, money, currencies, billing months.
//! - [`anomaly_found`]: one that was found, and what people say of it: a kind.
//! - [`anomaly_rule`]: which costs are watched: a kind.
//! - [`anomaly`]: which days cost what they should not.
//! - [`attribution`]: whose costs are, and what they are grouped by beyond a line's own dimensions.
//! - [`bill`]: what one account is billed for one month: a kind.
//! - [`bill_source`]: where bills lie as files: a kind.
//! - [`budget`]: what may be spent: a kind.
//! - [`cluster`]: whose the containers of a cluster are: a kind.
//! - [`commitment`]: what was paid in advance for a term: a kind.
//! - [`cost`]: what lines come to, by group.
//! - [`driver`]: what costs depend on, as people know it: a kind.
//! - [`exchange_rate`]: what one currency is worth in another from a day on: a kind.
//! - [`factor`]: an exact factor that people give.
//! - [`focus`]: lines as FOCUS writes them, shared charges among them.
//! - [`forecast`]: what comes next, and how far that can be trusted.
//! - [`hint`]: where money can be saved.
//! - [`issuer`]: who sends invoices, and what it says of months and commitments: a kind.
//! - [`line`]: one line of a bill.
//! - [`meter`]: what was used, and from when to when.
//! - [`parts`]: what centres have, by the parts it was made of.
//! - [`rate_set`]: our own prices, and for whom they are: a kind.
//! - [`rating`]: what was used, priced by them.
//! - [`ratio`]: exact ratios and how they round.
//! - [`repricing`]: a factor on costs, from a day on: a kind.
//! - [`rules`]: whose a line is, and how what is shared is spread.
//! - [`report`]: a question that is kept and answered on schedule: a kind.
//! - [`rule_set`]: such rules, drafted and published: a kind.
//! - [`scope`]: which lines somebody looks at.
//! - [`shown`]: percents, growth, and rounded amounts that add up.
//! - [`split`]: one amount over weights, to the last unit.
//! - [`allocate`]: shared cost from centre to centre, by rules in order, with a trace.
//! - [`amortise`]: a prepaid amount over the days of its term; what a cancellation leaves.
//! - [`tagging`]: an entry of the tag list: a kind.
//! - [`tags`]: which tags a line has in effect, and where each comes from.
//! - [`terms`]: what applies to sums: a re-pricing's factor, and an exchange rate.
//! - [`rate`]: tiers and prorating.
//! - [`regression`]: least squares that keep their digits, with prediction limits.

pub mod allocate;
pub mod amortise;
pub mod amount;
pub mod anomaly;
pub mod anomaly_found;
pub mod anomaly_rule;
pub mod attribution;
pub mod bill;
pub mod bill_source;
pub mod budget;
pub mod cluster;
pub mod commitment;
pub mod cost;
pub mod driver;
pub mod exchange_rate;
pub mod factor;
pub mod focus;
pub mod forecast;
pub mod hint;
pub mod issuer;
pub mod line;
pub mod meter;
pub mod parts;
pub mod rate;
pub mod rate_set;
pub mod rating;
pub mod ratio;
pub mod regression;
pub mod report;
pub mod repricing;
pub mod rule_set;
pub mod rules;
pub mod scope;
pub mod shown;
pub mod sizing;
pub mod split;
pub mod tagging;
pub mod tags;
pub mod terms;

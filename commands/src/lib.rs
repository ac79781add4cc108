//! A command to the log, an order to a driver.
//!
//! - [`ports`]: every trait the outside implements.
//! - [`submit`]: the one handler of every command of every kind.
//! - [`run_orders`]: the one runner: states with an order → driver → command.
//! - [`observe`]: the one observer: sightings → commands.
//! - [`gather`]: what must be known before a command can be decided.
//! - [`adoption`]: machines of hosts that are no servers of ours.
//! - [`allocate`]: whose costs are, by rules.
//! - [`amortise`]: what was paid in advance, as lines of the days it is for.
//! - [`anomalies`]: looks at costs by the rules that watch them.
//! - [`backup_plans`]: backups that are made and deleted by the clock.
//! - [`backups`]: orders of backup stores, and of backups that need no host.
//! - [`bills`]: bills in, costs out.
//! - [`budgets`]: holds what was spent against budgets.
//! - [`compare`]: costs beside those of another period.
//! - [`consoles`]: consoles of servers, between whoever looks and the host.
//! - [`containers`]: what containers used, out of files as Prometheus writes them.
//! - [`desk`]: where agents of hosts get their orders, and bring what became of them.
//! - [`derive`]: lines that are worked out here into bills.
//! - [`hints`]: where money can be saved.
//! - [`images`]: files of images that are uploaded.
//! - [`follow`]: servers that follow their security groups.
//! - [`kpis`]: numbers by which costs are judged.
//! - [`forecast`]: what comes next.
//! - [`move_in`]: machines that others run, and that can be moved to hosts of ours.
//! - [`origin`]: where what a centre has after the rules comes from.
//! - [`pull`]: takes in the bills that lie in object storage.
//! - [`rate`]: what was used, as lines by our own rates.
//! - [`reports`]: asks reports, as of a position.
//! - [`terms`]: what applies to sums: factors and exchange rates, and since when they are known.
//! - [`testing`]: a log in memory and other stand-ins, for tests.
//! - [`transfer`]: a whole log out and in again with its proof, and proofs for auditors.
//! - [`utilisation`]: how much of servers was used, out of files as Prometheus writes them.
//! - [`watch`]: what those who watch costs have in common.
#![warn(missing_docs)]

pub mod adoption;
pub mod allocate;
pub mod amortise;
pub mod anomalies;
pub mod attribute;
pub mod backup_plans;
pub mod backups;
pub mod bill_export;
pub mod bills;
pub mod bin;
pub mod budgets;
pub mod compare;
pub mod consoles;
pub mod containers;
pub mod derive;
pub mod desk;
pub mod drain;
mod fleet;
pub mod follow;
pub mod forecast;
pub mod gather;
pub mod hints;
pub mod images;
pub mod kpis;
pub mod ledger;
pub mod move_in;
pub mod observe;
pub mod origin;
pub mod pace;
pub mod placements;
pub mod plan;
pub mod ports;
pub mod progress;
pub mod pull;
pub mod rate;
pub mod reconcile;
pub mod reports;
pub mod run_orders;
pub mod states;
pub mod submit;
pub mod terms;
pub mod testing;
pub mod transfer;
pub mod utilisation;
mod volume_leases;
pub mod watch;

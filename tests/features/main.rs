//! What Skyledger does, feature by feature, on the real embedded store, a simulated cloud
//! and a stand-in for AWS.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod across;
mod agents;
mod amortise;
mod anomalies;
mod aws;
mod backup_plans;
mod backup_sets;
mod backups;
mod between;
mod bill_exports;
mod bill_statements;
mod bills;
mod budgets;
mod containers;
mod crash_at_every_step;
mod disks;
mod few_connections;
mod forecasts;
mod fuzz;
mod hints;
mod hosts;
mod images;
mod launches;
mod looks_between_steps;
mod mapping;
mod mapping_answers;
mod move_ins;
mod move_ins_vmware;
mod nics;
mod plans;
mod private_cloud;
mod pulls;
mod rating;
mod replay;
mod reports;
mod requests;
mod runner;
mod sync;
mod terms;
mod utilisation;
mod whose;
mod world;

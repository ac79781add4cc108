//! The HTTP interface: commands in, queries and audit out.
//!
//! - [`routes`]: LIST 4, every route, one line each; [`api`] mounts them.
//! - `agents`, `commands`, `costs`, `exports`, `forecasts`, `runs`, `queries`, `anomalies`, `budgets`, `kpis`,
//!   `reports`, `images`, `history`, `audit`, `watch`, `status`: what the routes do.
//! - [`problem`]: every error, as RFC 9457 problem details with a stable code.
//! - [`filter`]: the grammar of `filter` and `order_by`.
//! - [`openapi`]: the OpenAPI 3.1 document, made from the lists.
//! - [`Service`]: what the routes share; [`serve`]: the listener, TLS and shutdown.
//!
//! Handlers know no kind and no view by name: they are generic over the lists.
#![warn(missing_docs)]

mod agents;
mod allocations;
mod anomalies;
mod api;
mod asked;
mod audit;
mod budgets;
mod call;
mod commands;
mod console_page;
mod consoles;
mod costs;
mod exports;
pub mod filter;
mod forecasts;
mod hints;
mod history;
mod hosts;
mod images;
mod kpis;
mod metrics;
mod moment;
mod openapi;
mod params;
mod placements;
pub mod problem;
mod queries;
mod reconciliations;
mod reports;
pub mod routes;
mod runs;
mod serve;
mod service;
mod show;
mod socket;
mod source;
mod sources;
mod status;
mod tokens;
mod usages;
mod watch;

pub use api::router;
pub use openapi::openapi;
pub use serve::{TlsFault, serve, tls_from_pem};
pub use service::{Check, MoreMetrics, Options, Service};

//! The agent of a host: asks the server's desk for orders of its host, carries them out, and brings
//! what became of them.
//!
//! - [`Agent`]: the loop. It knows neither HTTP nor what carries orders out.
//! - [`Line`]: the way to the desk: [`HttpLine`] over the network, [`LocalLine`] in one process.
//! - [`EpochFile`]: the last epoch of this machine, against a server that was set back.
//!
//! Losing the line loses nothing and does nothing twice. An order in the hands of the agent is
//! finished, its outcome kept, and brought when the line is there again; what the server lays again
//! under the same key is answered with what was kept.
#![warn(missing_docs)]

mod agent;
mod epoch_file;
mod http_line;
mod line;
mod tasks;

pub use agent::{Agent, AgentFault, Options};
pub use epoch_file::{EpochFault, EpochFile};
pub use http_line::{ConnectFault, HttpLine};
pub use line::{Line, LineFault, LocalLine};

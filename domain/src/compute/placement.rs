//! Where a server goes: which host, which cells, CPUs, pages and devices of it.
//!
//! ```text
//!   HostFacts ── Host::new ──► Host ◄──────── take ────────┐
//!   (seen of a machine)         │ ▲                        │
//!                               │ └── give_back ── Holding │ (recorded in an event)
//!                               ▼                   ▲      │
//!                             Fleet ── place ──► Placement ┘
//!                               ▲                 chosen host, score, why not the others
//!                            Request
//! ```
//!
//! Everything here is a function of its arguments: the same hosts, whatever their order, and the
//! same request give the same answer. What is decided is in the [`Placement`]; the event that takes
//! its [`Holding`] on the host's stream is the reservation, so there is no moment between the two.
//! An append at a revision that has moved is refused by the log and decided again.
//!
//! **Cells.** A strict server lies in the smallest number of cells, each with whole CPUs and whole
//! pages of it, as even as these allow; more than one only when the request allows it
//! ([`Request::cells_max`]). Where strict has no place, best-effort lets the kernel spread it and
//! says that it is irregular. Parts of one server are ordered, each at least as large in CPUs and in
//! memory as the next; so whether a set of cells holds them is known by counting the cells that hold
//! each size, and the smallest number of cells needs no search at all.
//!
//! **Bound of the search.** Which of the sets of that size is best (devices near, cells near each
//! other, packed or spread) is searched among sets that differ: cells that can change places without
//! anybody noticing are one class, and of a class the first ones are taken. Eight equal cells are one
//! set. No more than [`SETS_MAX`] sets are looked at on the chosen host, which is every set of any host
//! of up to 16 cells, and [`SETS_ALL_MAX`] on all hosts to compare them; beyond, the best of those
//! looked at is taken, which is a place all the same.
//!
//! **Limits.** Amounts of the host as a whole and of each cell count both: servers that are bound to
//! no cell lie somewhere. CPUs that are given to one server alone are whole cores, taken out of what
//! the others share, and never so many that those are left with less than the over-commit allows.

mod assign;
mod cells;
mod choice;
mod facts;
mod fit;
mod fleet;
mod function;
mod holding;
mod host;
mod profile;
mod reason;
mod request;
mod room;
mod survey;

pub use cells::{SETS_ALL_MAX, SETS_MAX};
pub use facts::{
    AgentState, Architecture, Availability, CardSwitch, Cell, Core, Device, HostFacts, Pages,
    SwitchMode,
};
pub use fleet::{
    Fleet, Placement, REJECTIONS_MAX, RUNNERS_UP_MAX, Rejected, Rejection, RunnerUp, Score,
    Unplaced,
};
pub use function::VirtualFunction;
pub use holding::{CellHolding, Holding, Pin, SeenCell, SeenCores};
pub use host::{Host, HostId, ServerId};
pub use profile::{DeviceProfile, SeenVgpu};
pub use reason::Reason;
pub use request::{Affinity, DeviceAsk, Fill, Numa, Pinning, Relation, Request};
pub use survey::{HOW_MANY_MAX, HowMany, Verdict};

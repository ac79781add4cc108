//! What Skyledger does, feature by feature, on the real embedded store and a simulated cloud.

mod crash_at_every_step;
mod fuzz;
mod mapping;
mod plans;
mod requests;
mod sync;
mod world;

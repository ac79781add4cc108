//! What Skyledger does, feature by feature, on the real embedded store and a simulated cloud.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod crash_at_every_step;
mod mapping;
mod plans;
mod requests;
mod sync;
mod world;

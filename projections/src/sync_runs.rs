//! sync_runs

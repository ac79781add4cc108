//! adapters-sim

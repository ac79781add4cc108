//! adapters-clouds

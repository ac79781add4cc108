//! adapters-keys

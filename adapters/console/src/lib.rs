//! adapters-console

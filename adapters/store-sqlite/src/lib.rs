//! adapters-store-sqlite

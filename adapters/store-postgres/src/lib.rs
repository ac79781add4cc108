//! adapters-store-postgres

//! adapters-store-kit

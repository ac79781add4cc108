//! adapters-store-kit
pub mod check;
pub mod group;
pub mod views;

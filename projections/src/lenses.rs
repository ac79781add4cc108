//! lenses

//! pgseal keeps the metadata beside pgvector embeddings encrypted wherever PostgreSQL stores it,
//! and still answers SQL filters on it exactly and through an index.
//!
//! Layers point down only: `pg` -> `kms` -> `keys` -> `core`. Everything below `pg` builds without
//! PostgreSQL (`cargo test --no-default-features`).

pub mod core;
pub mod keys;
pub mod kms;
#[cfg(feature = "pg")]
pub mod pg;

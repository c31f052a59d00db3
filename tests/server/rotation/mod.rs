//! New keys for old values, and encrypting a column.

mod distributed;
mod forged;
pub mod in_place;
mod in_place_concurrent;
mod in_place_snapshots;
mod migrate;
mod migrate_refusals;
mod migrate_scripts;
mod migrate_table;
mod others_tables;
mod pace;
mod reencrypt;
mod retire;
mod soak;

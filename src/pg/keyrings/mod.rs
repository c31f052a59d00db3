//! Keyrings and their keys, as SQL manages them.

pub mod manage;
pub mod monitor;

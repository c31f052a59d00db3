//! Searching: filters, the operators that ask them, the rewrite of plain operators, GIN and statistics.

pub mod between;
pub mod decrypted;
pub mod filters;
pub mod gin;
pub mod lists;
pub mod objects;
pub mod operators;
pub mod recheck;
pub mod rewrite;
pub mod selectivity;

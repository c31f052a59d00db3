//! Searching gives what plain jsonb gives, through the same plans.

mod collations;
mod contexts;
mod deciding;
mod grouping;
mod lists;
mod operators;
pub mod oracle;
mod pg_regress;
mod policy;
mod ranges;
mod row_security;
mod stats;

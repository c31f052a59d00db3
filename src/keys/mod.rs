//! Keyrings and their key versions: states, what a wrapped key is bound to, and the cache of unwrapped ones.
#![forbid(unsafe_code)]

pub mod cache;
pub mod context;
pub mod shared;
pub mod state;

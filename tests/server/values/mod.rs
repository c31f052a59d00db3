//! Values: what goes in, what comes out, and what is refused.

mod bad_input;
mod casts;
mod encodings;
mod literals;
mod logs;
mod reveal;
mod row_binding;
mod statements;
mod storage;
pub mod types;

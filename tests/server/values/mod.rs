//! Values: what goes in, what comes out, and what is refused.

mod as_plain;
mod assignments;
mod bad_arguments;
mod bad_values;
mod casts;
mod columns;
mod encodings;
mod fidelity;
mod kinds;
mod literals;
mod logs;
mod mutations;
mod plain;
mod prepared;
mod protect;
mod quiet;
mod reveal;
mod row_binding;
mod statements;
mod storage;
mod stored_plain;
mod types;
mod vector_worlds;
mod vectors;
mod ways_in;

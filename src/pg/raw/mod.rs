//! The unsafe corner: small wrappers around PostgreSQL's C interface, so that the rest of `pg` is safe code.
//!
//! Everything here runs on a backend's only thread, inside a function that pgrx guards: a C error that
//! longjmps becomes a Rust panic, unwinds through our frames and is raised again at the boundary.
#![allow(unsafe_code, reason = "PostgreSQL's interface is C; each block says why it is sound")]

pub mod analyze;
pub mod arguments;
pub mod array;
pub mod call;
pub mod choice;
pub mod collate;
pub mod column;
pub mod command;
pub mod confine;
pub mod copy;
pub mod datum;
pub mod definition;
pub mod encoding;
pub mod gin;
pub mod heap_page;
pub mod hnsw_cost;
pub mod hook;
pub mod index_am;
pub mod index_open;
pub mod index_page;
pub mod index_rows;
pub mod jsonb;
pub mod lists;
pub mod lock;
pub mod locked_memory;
pub mod lookup;
pub mod memory;
pub mod node;
pub mod origin;
pub mod plain;
pub mod record;
pub mod reveal;
pub mod role;
pub mod set_operation;
pub mod setting;
pub mod shmem;
pub mod sort;
pub mod statement;
pub mod subscript;
pub mod table;
pub mod text;
pub mod timer;
pub mod tuple;
pub mod unbound;
pub mod untyped;
pub mod version;
pub mod watch;
pub mod worker;
pub mod xact;

//! Bytes and cryptography: no PostgreSQL, no input or output except the operating system's random bytes.
// Allowed in vector/simd.rs alone; tests/layers.rs looks.
#![deny(unsafe_code)]

pub mod aead;
pub mod batch;
pub mod between;
pub mod bytes;
pub mod canonical;
pub mod envelope;
pub mod filter;
pub mod fold;
pub mod group_key;
pub mod groups;
pub mod header;
pub mod held;
pub mod iso8601;
pub mod ivf;
pub mod jsonb;
pub mod kdf;
pub mod memory;
pub mod modifier;
pub mod numbered;
pub mod packing;
pub mod policy;
pub mod question;
pub mod range;
pub mod recent;
pub mod rng;
pub mod scan_cost;
pub mod secret;
pub mod sql_literal;
pub mod stats;
pub mod text_form;
pub mod text_query;
pub mod token;
pub mod vector;

/// The random identity of a keyring (RFC 9562 version 4); salt of every key derivation.
pub type Uuid = [u8; 16];

//! An index of inverted lists whose pages are ciphertext: all that needs no PostgreSQL.
//!
//! In the clear on a page: addresses of rows, dead marks, counts, list, key version, links. Sealed: codes, factors,
//! centroids. So marking dead rows, replay and restore need no key. Whoever can write to the files can hide rows (a dead
//! mark, a link, a count, an older page) but cannot make another row of one: addresses, list and place are authenticated.

pub mod build;
mod candidates;
pub mod directory;
pub mod index;
pub mod key;
pub mod layout;
pub mod list;
pub mod meta;
pub mod page;
#[cfg(test)]
mod page_tests;
pub mod search;
#[cfg(test)]
mod search_tests;
mod segment;
pub mod source;

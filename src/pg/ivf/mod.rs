//! The index access method `sealed_ivf`: row addresses and dead marks in the clear, everything else under the AEAD.

pub mod build;
pub mod cost;
pub mod handler;
pub mod insert;
pub mod keys;
pub mod maintain;
pub mod pages;
pub mod scan;
pub mod shape;
pub mod train;
pub mod vacuum;

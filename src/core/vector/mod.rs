//! Vectors: their elements.

pub mod elements;

//! Vectors: their elements, their distances, and the short codes that estimate a distance.

pub mod code;
pub mod distance;
pub mod elements;
pub mod kmeans;
pub mod quantiser;
mod rotation;
mod simd;
#[cfg(test)]
pub mod testing;

//! Values: input and output, casts, sealing and opening, parts of documents, reveal.

pub mod accessor;
pub mod casts;
pub mod equality;
pub mod io;
pub mod parts;
pub mod reveal;
pub mod seal;

//! Values: input and output, casts, sealing and opening, parts of documents, the session's choice, reveal.

pub mod accessor;
pub mod casts;
pub mod choice;
pub mod equality;
pub mod io;
pub mod parts;
pub mod reveal;
pub mod seal;

//! Values: input and output, casts, sealing and opening, parts of documents, vectors, groups and order, the session's choice, reveal.

pub mod accessor;
pub mod casts;
pub mod choice;
pub mod column;
pub mod equality;
pub mod grouping;
pub mod io;
pub mod literal;
pub mod parts;
pub mod plain_vector;
pub mod reveal;
pub mod seal;
pub mod vector;

//! The library itself and its papers.

mod crashes;
mod definitions;
mod extension_image;
mod out_of_memory;
mod pooler;
mod postgresql_suite;
mod readme;
mod smoke;

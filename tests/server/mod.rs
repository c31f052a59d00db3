//! What the extension promises, held against real servers.

mod copies;
mod ivf;
mod keys;
mod library;
mod proof;
mod rotation;
mod search;
mod values;

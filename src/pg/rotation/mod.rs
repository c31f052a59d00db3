//! New keys for old values: in place and by UPDATE; where values are, and whether they are whole.

pub mod in_place;
pub mod places;
pub mod reencrypt;
pub mod retire;
pub mod verify;

//! New keys for old values: in place and by UPDATE, at a pace; where values are, and whether they are whole.

pub mod in_place;
pub mod pace;
pub mod places;
pub mod reencrypt;
pub mod retire;
pub mod verify;

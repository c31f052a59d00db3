//! Keyrings, their keys and privileges, and the KMS.

mod aws;
mod decrypt_log;
mod faults;
pub mod grants;
mod hints;
mod keyrings;
mod kms_loss;
mod memory;
mod privileges;
mod search_only;
pub mod search_path;
mod shared_keys;
mod tenant_keys;
mod tenants;

//! What the extension promises, held against real servers.

mod aws;
mod bad_input;
mod decrypt_log;
mod faults;
mod keys;
mod kms_loss;
mod memory;
mod operators;
mod oracle;
mod policy;
mod privileges;
mod ranges;
mod readme;
mod retire;
mod reveal;
mod rotation;
mod row_security;
mod runbooks;
mod shared_keys;
mod smoke;
mod statements;
mod stats;
mod storage;
mod tenant_keys;
mod tenants;
mod values;

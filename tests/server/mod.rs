//! What the extension promises, held against real servers.

mod bad_input;
mod keys;
mod kms_loss;
mod operators;
mod oracle;
mod pg_regress;
mod policy;
mod privileges;
mod ranges;
mod readme;
mod retire;
mod reveal;
mod row_security;
mod smoke;
mod statements;
mod stats;
mod storage;
mod tenants;
mod values;

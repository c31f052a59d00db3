//! What the extension promises, held against real servers.

mod bad_input;
mod keys;
mod kms_loss;
mod operators;
mod oracle;
mod policy;
mod readme;
mod retire;
mod smoke;
mod storage;
mod values;

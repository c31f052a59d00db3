//! What moving a column to another type needs beside SQL; the rest is in sql/migration.sql.

use super::raw::call::{Call, Returned};
use super::raw::xact;

/// `in_transaction_block()`: nothing can be committed here.
pub fn in_transaction_block(_: Call) -> Returned {
    Ok(Some(xact::in_transaction_block().into()))
}

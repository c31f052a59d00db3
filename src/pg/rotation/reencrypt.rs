//! What re-encryption needs beside SQL; the loops themselves are in sql/reencrypt.sql.

use crate::core::header::HEADER_BYTES;
use crate::pg::error::PgError;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::varlena;
use crate::pg::raw::xact;
use crate::pg::values::seal;

/// `reseal(encrypted_*, index boolean)`: the same plaintext under the active keys of its keyring; without `index` its
/// tokens stay.
pub fn reseal(call: Call) -> Returned {
    let value = call.varlena(0);
    let renewed =
        seal::with_kind(call, |kind, (): &mut ()| seal::rotate(value.bytes(), kind, call.boolean(1)));
    Ok(Some(renewed?.datum()))
}

/// `reseal_problem(encrypted_*, index boolean)`: why [`reseal`] cannot renew this value, where others can be renewed.
pub fn reseal_problem(call: Call) -> Returned {
    let value = call.varlena(0);
    let renewed =
        seal::with_kind(call, |kind, (): &mut ()| seal::rotate(value.bytes(), kind, call.boolean(1)));
    match renewed {
        Ok(_) => Ok(None),
        Err(error) if error.is_of_value() => Ok(Some(varlena(error.to_string().as_bytes()).datum())),
        Err(error) => Err(error),
    }
}

/// `is_current(encrypted_*, index boolean)`: sealed under the active keys, without `index` the data key, and not in
/// transit. Needs no key.
pub fn is_current(call: Call) -> Returned {
    Ok(Some(seal::is_current(call.prefix(0, HEADER_BYTES).bytes(), call.boolean(1))?.into()))
}

/// `require_autocommit(command text)`: refuses to run inside BEGIN, on behalf of that command.
pub fn require_autocommit(call: Call) -> Returned {
    match xact::in_transaction_block() {
        true => Err(PgError::TransactionBlock(call.text(0)?)),
        false => Ok(None),
    }
}

/// `runs_for_an_owner()`: whoever began the statement has no say in what runs now.
pub fn runs_for_an_owner(_: Call) -> Returned {
    Ok(Some(xact::runs_for_an_owner().into()))
}

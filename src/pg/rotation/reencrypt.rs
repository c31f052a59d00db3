//! What re-encryption needs beside SQL; the loops themselves are in sql/reencrypt.sql.

use crate::core::header::HEADER_BYTES;
use crate::pg::error::PgError;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::{Varlena, varlena};
use crate::pg::raw::xact;
use crate::pg::session;
use crate::pg::values::seal;

/// `reseal(encrypted_*, index boolean [, permit bytea])`: the same plaintext under the active keys of its keyring; without
/// `index` its tokens stay. With a permit for whoever has lent it.
pub fn reseal(call: Call) -> Returned {
    let Some(value) = call.optional(0) else { return Ok(None) };
    Ok(Some(renewed(call, value.bytes())?.datum()))
}

fn renewed(call: Call, value: &[u8]) -> Result<Varlena, PgError> {
    let renew = || seal::with_kind(call, |kind, (): &mut ()| seal::rotate(value, kind, call.boolean(1)));
    if call.count() > 2 { session::borrow(call.varlena(2).bytes(), renew) } else { renew() }
}

/// `reseal_problem(encrypted_*, index boolean, permit bytea)`: why [`reseal`] cannot renew this value, where others can be
/// renewed.
pub fn reseal_problem(call: Call) -> Returned {
    let Some(value) = call.optional(0) else { return Ok(None) };
    match renewed(call, value.bytes()) {
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
    if xact::in_transaction_block() { Err(PgError::TransactionBlock(call.text(0)?)) } else { Ok(None) }
}

/// `runs_for_an_owner()`: whoever began the statement has no say in what runs now.
pub fn runs_for_an_owner(_: Call) -> Returned {
    Ok(Some(xact::runs_for_an_owner().into()))
}

//! `pgseal.reveal`: what the hook in `raw::hook` wraps encrypted columns in.

use super::error::PgError;
use super::raw::call::{Call, Returned};
use super::raw::hook::{REVEAL, runs_for_the_client};
use super::session::Allowed;
use super::values;

/// `reveal(encrypted_jsonb)` and `reveal(encrypted_text)`: as decrypt, while the setting is on and for the client only. A
/// statement may have been prepared under another setting, or be executed by CREATE TABLE AS or a function.
pub fn reveal(call: Call) -> Returned {
    if !REVEAL.get() || !runs_for_the_client() {
        return Err(PgError::NotRevealed);
    }
    let value = call.varlena(0);
    let opened = values::with_kind(call, |kind, allowed: &mut Allowed| {
        values::open_datum(value.bytes(), kind, None, allowed)
    });
    Ok(Some(opened?.datum()))
}

//! `pgseal.reveal`: what the hook in `raw::hook` wraps encrypted columns in.

use super::error::PgError;
use super::raw::call::{Call, Returned};
use super::raw::hook::{REVEAL, is_returning_portal};
use super::session::Allowed;
use super::values;

/// `reveal(encrypted_jsonb)` and `reveal(encrypted_text)`: as decrypt, while the setting is on and for the client only. A
/// statement may have been prepared under another setting, or be executed by CREATE TABLE AS.
pub fn reveal(call: Call) -> Returned {
    if !REVEAL.get() || !is_returning_portal() {
        return Err(PgError::NotRevealed);
    }
    let value = call.varlena(0);
    let opened = call.with_cache(|allowed: &mut Allowed| values::open_datum(value.bytes(), None, allowed))?;
    Ok(Some(opened.datum()))
}

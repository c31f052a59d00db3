//! `pgseal.reveal`: what the hook in `raw::reveal` wraps encrypted columns in.

use crate::pg::error::PgError;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::type_name;
use crate::pg::raw::reveal::{is_on, runs_for_the_client};
use crate::pg::session::Checked;
use crate::pg::values::seal;

/// `reveal(encrypted_jsonb)` and `reveal(encrypted_text)`: as decrypt, while the setting is on and for the client only. A
/// statement may have been prepared under another setting, or be executed by CREATE TABLE AS or a function.
pub fn reveal(call: Call) -> Returned {
    if !is_on() || !runs_for_the_client() {
        return Err(PgError::NotRevealed);
    }
    let value = call.varlena(0);
    let opened = seal::with_kind(call, |kind, checked: &mut Checked| {
        seal::open_datum(value.bytes(), kind, None, checked)
    });
    Ok(Some(opened?.datum()))
}

/// `plain(encrypted_*)`: what the planner puts in the place of an implicit cast whose value goes to the client. Whoever runs
/// the plan may have the setting off, or store what it gives.
pub fn plain(call: Call) -> Returned {
    if !is_on() || !runs_for_the_client() {
        return Err(PgError::IoCast(type_name(call.result_type())));
    }
    let value = call.varlena(0);
    let opened = seal::with_kind(call, |kind, checked: &mut Checked| {
        seal::open_datum(value.bytes(), kind, None, checked)
    });
    Ok(Some(opened?.datum()))
}

//! What operators look at: the counts of a session.

use pgrx::pg_sys;

use crate::pg::counters;
use crate::pg::error::PgError;
use crate::pg::raw::call::{Call, Returned};

/// `counter(name text)`: a count of this session.
pub fn counter(call: Call) -> Returned {
    let count = counters::named(&call.text(0)?);
    let count = count.ok_or_else(|| PgError::Argument("there is no such counter".into()))?;
    Ok(Some(pg_sys::Datum::from(count as i64)))
}

//! Runs a statement that may run code of a table's owner: triggers, CHECKs, functions of indexes.

use std::ffi::{CStr, c_char};

use pgrx::pg_sys;

/// Runs it with two parameters of type tid and one of type bytea, as `other` where that is a role; returns the first column of the first row as text, or without one how many
/// rows were processed. `None` is NULL.
///
/// Where it is not the role that logged in, no code can go back to that one: neither what runs in the statement nor
/// a deferred trigger, because none is deferred; what it sets ends with it.
pub fn run(
    statement: &CStr,
    other: Option<pg_sys::Oid>,
    parameters: [Option<pg_sys::Datum>; 3],
) -> Option<Vec<u8>> {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: the strings and arrays outlive the calls; the row is copied before SPI_finish. If anything raises, the
    // abort of the (sub)transaction puts user, context, settings and SPI back.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        let settings = pg_sys::NewGUCNestLevel();
        pg_sys::SPI_connect();
        let role = other.unwrap_or(user);
        if other.is_some() || pg_sys::GetSessionUserId() != user {
            let flags = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
            pg_sys::SetUserIdAndSecContext(role, context | flags as i32);
            pg_sys::SPI_execute(c"SET CONSTRAINTS ALL IMMEDIATE".as_ptr(), false, 0);
        }
        let mut types = [pg_sys::TIDOID, pg_sys::TIDOID, pg_sys::BYTEAOID];
        let mut values = parameters.map(|value| value.unwrap_or(pg_sys::Datum::from(0)));
        let nulls = parameters.map(|value| if value.is_some() { b' ' } else { b'n' } as c_char);
        pg_sys::SPI_execute_with_args(
            statement.as_ptr(),
            3,
            types.as_mut_ptr(),
            values.as_mut_ptr(),
            nulls.as_ptr(),
            false,
            0,
        );
        let result = result();
        pg_sys::SPI_finish();
        pg_sys::AtEOXact_GUC(false, settings);
        pg_sys::SetUserIdAndSecContext(user, context);
        result
    }
}

/// Of the statement that SPI has just run.
unsafe fn result() -> Option<Vec<u8>> {
    // SAFETY: SPI leaves a table of rows or none, and `SPI_processed` of them.
    unsafe {
        let (rows, processed) = (pg_sys::SPI_tuptable, pg_sys::SPI_processed);
        if rows.is_null() || processed == 0 {
            return Some(processed.to_string().into_bytes());
        }
        let text = pg_sys::SPI_getvalue(*(*rows).vals, (*rows).tupdesc, 1);
        (!text.is_null()).then(|| CStr::from_ptr(text).to_bytes().to_vec())
    }
}

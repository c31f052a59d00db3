//! `document['key']`: what jsonb gives for it, through the implicit cast to jsonb (nodes/subscripting.h).

use pgrx::{pg_guard, pg_sys};

use super::call::{Call, Returned};
use crate::pg::error::PgError;

static ROUTINES: pg_sys::SubscriptRoutines = pg_sys::SubscriptRoutines {
    transform: Some(transform),
    exec_setup: Some(set_up),
    fetch_strict: true,
    fetch_leakproof: false,
    store_leakproof: false,
};

/// `subscript(internal)` of encrypted_jsonb.
pub fn handler(_: Call) -> Returned {
    Ok(Some(pg_sys::Datum::from(&raw const ROUTINES)))
}

/// Hands the subscript of a document that is read to jsonb's own; none is written.
#[pg_guard]
unsafe extern "C-unwind" fn transform(
    reference: *mut pg_sys::SubscriptingRef,
    subscripts: *mut pg_sys::List,
    state: *mut pg_sys::ParseState,
    is_slice: bool,
    is_assignment: bool,
) {
    if is_assignment {
        PgError::Unsupported.raise();
    }
    // SAFETY: the parser passes a new node, whose container is an expression that is its own to change.
    unsafe {
        let document = (*reference).refexpr.cast::<pg_sys::Node>();
        let cast = pg_sys::coerce_to_target_type(
            state,
            document,
            pg_sys::exprType(document),
            pg_sys::JSONBOID,
            -1,
            pg_sys::CoercionContext::COERCION_IMPLICIT,
            pg_sys::CoercionForm::COERCE_IMPLICIT_CAST,
            -1,
        );
        let own = pg_sys::getSubscriptingRoutines(pg_sys::JSONBOID, std::ptr::null_mut());
        let Some(routine) = own.as_ref().and_then(|own| own.transform).filter(|_| !cast.is_null()) else {
            PgError::Unsupported.raise()
        };
        (*reference).refexpr = cast.cast();
        (*reference).refcontainertype = pg_sys::JSONBOID;
        (*reference).reftypmod = -1;
        routine(reference, subscripts, state, is_slice, is_assignment);
    }
}

/// Nothing is left of our type once the statement runs, unless an older version of the extension analysed it.
#[pg_guard]
unsafe extern "C-unwind" fn set_up(
    _reference: *const pg_sys::SubscriptingRef,
    _state: *mut pg_sys::SubscriptingRefState,
    _steps: *mut pg_sys::SubscriptExecSteps,
) {
    PgError::Unsupported.raise();
}

//! `document['key']`: what jsonb gives for it, through the implicit cast to jsonb (nodes/subscripting.h). An assignment to it
//! seals what jsonb's own makes of the decrypted document.

use pgrx::{is_a, pg_guard, pg_sys};

use super::call::{Call, Returned};
use super::reveal::{make, wrapped};
use super::{lookup, unbound};
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

/// Hands the subscript to jsonb's own: of a document that is read as jsonb; of one that is written, where the planner's hook
/// finds it ([`write_out`]).
#[pg_guard]
unsafe extern "C-unwind" fn transform(
    reference: *mut pg_sys::SubscriptingRef,
    subscripts: *mut pg_sys::List,
    state: *mut pg_sys::ParseState,
    is_slice: bool,
    is_assignment: bool,
) {
    // SAFETY: the parser passes a new node, whose container is an expression that is its own to change; it says itself what
    // type an assignment gives.
    unsafe {
        let own = pg_sys::getSubscriptingRoutines(pg_sys::JSONBOID, std::ptr::null_mut());
        let Some(routine) = own.as_ref().and_then(|own| own.transform) else { PgError::Unsupported.raise() };
        if is_assignment {
            return routine(reference, subscripts, state, is_slice, is_assignment);
        }
        let document = (*reference).refexpr.cast::<pg_sys::Node>();
        let Some(cast) = unbound::implied(document, pg_sys::JSONBOID) else { PgError::Unsupported.raise() };
        (*reference).refexpr = cast.cast();
        (*reference).refcontainertype = pg_sys::JSONBOID;
        (*reference).reftypmod = -1;
        routine(reference, subscripts, state, is_slice, is_assignment);
    }
}

// A call takes the place of an assignment.
const _: () = assert!(size_of::<pg_sys::FuncExpr>() <= size_of::<pg_sys::SubscriptingRef>());

/// `document['key'] := value` becomes `pgseal.assigned(decrypted['key'] := value, document, keyring)`.
///
/// # Safety
/// A subscript of a query that is about to be planned, which is the planner's to change.
pub unsafe fn write_out(reference: *mut pg_sys::SubscriptingRef) {
    // SAFETY: the node is an assignment to one of our documents; nodes are made as the parser makes them.
    unsafe {
        if !is_assignment(reference) {
            return;
        }
        let of = (*reference).refcontainertype;
        let types = [pg_sys::JSONBOID, of, pg_sys::INT4OID];
        let Some(function) = lookup::function(c"assigned", &types) else { return };
        let (none, int4) = (pg_sys::InvalidOid, pg_sys::INT4OID);
        let mut before = std::ptr::null_mut();
        let Some(changed) = of_jsonb(reference, &mut before) else { return };
        let before = if before.is_null() {
            pg_sys::makeNullConst(of, -1, none).cast()
        } else {
            pg_sys::copyObjectImpl(before.cast())
        };
        let typmod = pg_sys::Datum::from((*reference).reftypmod);
        let typmod = pg_sys::makeConst(int4, -1, none, 4, typmod, false, true);
        let arguments = [changed.cast(), before, typmod.cast()];
        let list = arguments.into_iter().fold(std::ptr::null_mut(), |list, one| pg_sys::lappend(list, one));
        let form = pg_sys::CoercionForm::COERCE_EXPLICIT_CALL;
        let call = pg_sys::makeFuncExpr(function, of, list, none, none, form);
        reference.cast::<pg_sys::FuncExpr>().copy_from_nonoverlapping(call, 1);
    }
}

unsafe fn is_assignment(reference: *mut pg_sys::SubscriptingRef) -> bool {
    // SAFETY: a syscache lookup.
    unsafe { !(*reference).refassgnexpr.is_null() && unbound::is_encrypted((*reference).refcontainertype) }
}

/// The same assignment to the decrypted document, and what the document was. The rewriter puts assignments to the same column
/// into each other.
unsafe fn of_jsonb(
    reference: *mut pg_sys::SubscriptingRef,
    before: &mut *mut pg_sys::Node,
) -> Option<*mut pg_sys::Expr> {
    // SAFETY: tags are checked before fields are read; only a copy is changed.
    unsafe {
        let made = make::<pg_sys::SubscriptingRef>(pg_sys::NodeTag::T_SubscriptingRef);
        made.copy_from_nonoverlapping(reference, 1);
        (*made).refcontainertype = pg_sys::JSONBOID;
        (*made).refrestype = pg_sys::JSONBOID;
        (*made).reftypmod = -1;
        let document = (*reference).refexpr.cast::<pg_sys::Node>();
        if document.is_null() {
            return Some(made.cast());
        }
        let inner = document.cast::<pg_sys::SubscriptingRef>();
        (*made).refexpr = if is_a(document, pg_sys::NodeTag::T_SubscriptingRef) && is_assignment(inner) {
            of_jsonb(inner, before)?
        } else {
            *before = document;
            wrapped(c"decrypt", document)?
        };
        Some(made.cast())
    }
}

/// Nothing is left of our type once the statement runs, unless an older version of the extension analysed it, or it was
/// planned without the hook.
#[pg_guard]
unsafe extern "C-unwind" fn set_up(
    _reference: *const pg_sys::SubscriptingRef,
    _state: *mut pg_sys::SubscriptingRefState,
    _steps: *mut pg_sys::SubscriptExecSteps,
) {
    PgError::Unsupported.raise();
}

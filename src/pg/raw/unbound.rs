//! The hook that has values for columns without a keyring coerced like those for columns with one: what a statement
//! stores is sealed for good when it runs, for a role that may encrypt then (optimizer/planner.h).

use std::ffi::{CStr, c_char, c_int};

use pgrx::{is_a, pg_guard, pg_sys};

use super::hook::Previous;
use super::lookup;
use super::reveal::cells;
use crate::core::modifier;

/// What was installed before us.
static PREVIOUS: Previous<pg_sys::planner_hook_type> = Previous::empty();

/// Installs the hook; from `_PG_init`.
pub fn install() {
    // SAFETY: once per process, before any statement is planned with it.
    unsafe {
        PREVIOUS.install(&raw mut pg_sys::planner_hook, plan);
    }
}

unsafe extern "C-unwind" {
    /// PostgreSQL's own, without the guard that pgrx puts around it: its errors are none of ours.
    fn standard_planner(
        query: *mut pg_sys::Query,
        text: *const c_char,
        options: c_int,
        parameters: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::PlannedStmt;
}

unsafe extern "C-unwind" fn plan(
    query: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: PostgreSQL passes a rewritten query, which is the planner's to change; the rest is handed on as it came. No
    // value with a destructor is alive below `coerce_all`: an error of the planner may jump past this frame.
    unsafe {
        coerce_all(query);
        PREVIOUS.next().unwrap_or(standard_planner)(query, text, options, parameters)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn coerce_all(query: *mut pg_sys::Query) {
    // SAFETY: a whole query; what WITH holds are queries too.
    unsafe {
        coerce_stored(query);
        for with in cells::<pg_sys::CommonTableExpr>((*query).cteList) {
            coerce_stored((*with).ctequery.cast());
        }
    }
}

/// Coerces what the query itself writes into a table.
unsafe fn coerce_stored(query: *mut pg_sys::Query) {
    // SAFETY: the command type says which fields the query uses; its result relation is in the range table.
    unsafe {
        let writes = [pg_sys::CmdType::CMD_INSERT, pg_sys::CmdType::CMD_UPDATE, pg_sys::CmdType::CMD_MERGE];
        if !writes.contains(&(*query).commandType) || writes_into_view(query) {
            return;
        }
        coerce_list((*query).targetList);
        if !(*query).onConflict.is_null() {
            coerce_list((*(*query).onConflict).onConflictSet);
        }
        for action in cells::<pg_sys::MergeAction>((*query).mergeActionList) {
            coerce_list((*action).targetList);
        }
    }
}

/// A trigger gets the row, and decides where it goes.
unsafe fn writes_into_view(query: *mut pg_sys::Query) -> bool {
    // SAFETY: the number is of an entry of the range table.
    unsafe {
        let written = (*query).resultRelation as usize - 1;
        let table = cells::<pg_sys::RangeTblEntry>((*query).rtable).nth(written);
        table.is_some_and(|table| (*table).relkind == pg_sys::RELKIND_VIEW as c_char)
    }
}

unsafe fn coerce_list(list: *mut pg_sys::List) {
    // SAFETY: a target list holds target entries, each with an expression.
    unsafe {
        for entry in cells::<pg_sys::TargetEntry>(list).filter(|entry| !(**entry).resjunk) {
            let mut place: *mut *mut pg_sys::Expr = &raw mut (*entry).expr;
            while is_a((*place).cast(), pg_sys::NodeTag::T_CoerceToDomain) {
                place = &raw mut (*(*place).cast::<pg_sys::CoerceToDomain>()).arg;
            }
            if let Some(coerced) = coerced(*place) {
                *place = coerced;
            }
        }
    }
}

/// `pgseal.coerce(value, -1, false)` for a value of one of our types that has no keyring yet.
unsafe fn coerced(value: *mut pg_sys::Expr) -> Option<*mut pg_sys::Expr> {
    // SAFETY: looks at an expression, and a function up by name and types, and builds its call.
    unsafe {
        let declared = pg_sys::exprType(value.cast());
        let mut typmod = pg_sys::exprTypmod(value.cast());
        let of = pg_sys::getBaseTypeAndTypmod(declared, &mut typmod);
        let is_null =
            is_a(value.cast(), pg_sys::NodeTag::T_Const) && (*value.cast::<pg_sys::Const>()).constisnull;
        if is_null || modifier::is_bound(typmod) || !is_encrypted(of) {
            return None;
        }
        let function = lookup::function(c"coerce", &[of, pg_sys::INT4OID, pg_sys::BOOLOID])?;
        let none = pg_sys::makeConst(
            pg_sys::INT4OID,
            -1,
            pg_sys::InvalidOid,
            4,
            pg_sys::Datum::from(-1_i32),
            false,
            true,
        );
        let arguments = [relabelled(value.cast(), of), none.cast(), pg_sys::makeBoolConst(false, false)];
        let list =
            arguments.into_iter().fold(std::ptr::null_mut(), |list, one| pg_sys::lappend(list, one.cast()));
        let call = pg_sys::makeFuncExpr(
            function,
            of,
            list,
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
            pg_sys::CoercionForm::COERCE_IMPLICIT_CAST,
        );
        Some(relabelled(call.cast(), declared).cast())
    }
}

/// The value as the type below its domain, or back: the domain's checks are made inside.
unsafe fn relabelled(value: *mut pg_sys::Node, as_type: pg_sys::Oid) -> *mut pg_sys::Node {
    // SAFETY: builds a node over a valid expression.
    unsafe {
        if pg_sys::exprType(value) == as_type {
            return value;
        }
        let (none, form) = (pg_sys::InvalidOid, pg_sys::CoercionForm::COERCE_IMPLICIT_CAST);
        pg_sys::makeRelabelType(value.cast(), as_type, -1, none, form).cast()
    }
}

/// Is it called like one of the types that a keyring binds?
///
/// # Safety
/// Called inside a transaction.
pub unsafe fn is_encrypted(of: pg_sys::Oid) -> bool {
    // SAFETY: the caller's promise.
    unsafe { is_named(of, &[c"encrypted_jsonb", c"encrypted_text", c"encrypted_vector"]) }
}

/// Is it called like the type of filters?
///
/// # Safety
/// As above.
pub unsafe fn is_filter(of: pg_sys::Oid) -> bool {
    // SAFETY: as above.
    unsafe { is_named(of, &[c"encrypted_filter"]) }
}

/// The value by the cast to this type that nobody needs to write.
///
/// # Safety
/// An expression.
pub unsafe fn implied(value: *mut pg_sys::Node, of: pg_sys::Oid) -> Option<*mut pg_sys::Node> {
    // SAFETY: a cast as the parser makes it; it needs no state where none is a parameter's.
    unsafe {
        let cast = pg_sys::coerce_to_target_type(
            std::ptr::null_mut(),
            value,
            pg_sys::exprType(value),
            of,
            -1,
            pg_sys::CoercionContext::COERCION_IMPLICIT,
            pg_sys::CoercionForm::COERCE_IMPLICIT_CAST,
            -1,
        );
        (!cast.is_null()).then_some(cast)
    }
}

unsafe fn is_named(of: pg_sys::Oid, names: &[&CStr]) -> bool {
    // SAFETY: a syscache lookup; the row is released after its name has been compared.
    unsafe {
        if of.to_u32() < pg_sys::FirstNormalObjectId {
            return false;
        }
        let cache = pg_sys::SysCacheIdentifier::TYPEOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(of));
        if tuple.is_null() {
            return false;
        }
        let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>();
        let name = CStr::from_ptr((*row).typname.data.as_ptr());
        let found = names.contains(&name);
        pg_sys::ReleaseSysCache(tuple);
        found && lookup::schema() != pg_sys::InvalidOid
    }
}

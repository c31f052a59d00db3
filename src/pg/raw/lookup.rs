//! Schema `pgseal`, its objects and types beside them, by name: syscache lookups, nothing remembered.

use std::ffi::CStr;

use pgrx::pg_sys;

/// The schema `pgseal`, or InvalidOid before CREATE EXTENSION has made it.
pub fn schema() -> pg_sys::Oid {
    // SAFETY: a syscache lookup.
    unsafe { pg_sys::get_namespace_oid(c"pgseal".as_ptr(), true) }
}

/// The language of a function.
pub fn language(function: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a syscache lookup, whose row is released after it was read.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
        let row = pg_sys::SearchSysCache1(cache, function.into());
        if row.is_null() {
            return None;
        }
        let language = (*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_proc>()).prolang;
        pg_sys::ReleaseSysCache(row);
        Some(language)
    }
}

/// A relation of schema `pgseal`, or InvalidOid.
pub fn relation(name: &CStr) -> pg_sys::Oid {
    // SAFETY: a syscache lookup.
    unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema()) }
}

/// The function `pgseal.<name>` that takes these types.
pub fn function(name: &'static CStr, types: &[pg_sys::Oid]) -> Option<pg_sys::Oid> {
    // SAFETY: names a function by schema, name and types; a missing one is no error.
    found(unsafe { pg_sys::LookupFuncName(qualified(name), types.len() as i32, types.as_ptr(), true) })
}

/// The operator `OPERATOR(pgseal.<name>)` between these types.
pub fn operator(name: &'static CStr, left: pg_sys::Oid, right: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: names an operator by schema, name and types; a missing one is no error.
    found(unsafe { pg_sys::OpernameGetOprid(qualified(name), left, right) })
}

/// The operator of the same name in the same schema as `other`, between these types.
pub fn operator_beside(other: pg_sys::Oid, left: pg_sys::Oid, right: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: syscache lookups; the row is released once it was read. Strings live as long as the memory context.
    unsafe {
        let row = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::OPEROID as i32, other.into());
        if row.is_null() {
            return None;
        }
        let known = pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_operator>();
        let names = [pg_sys::get_namespace_name((*known).oprnamespace), pg_sys::get_opname(other)];
        pg_sys::ReleaseSysCache(row);
        if names.iter().any(|name| name.is_null()) {
            return None;
        }
        let names = names
            .into_iter()
            .fold(std::ptr::null_mut(), |list, name| pg_sys::lappend(list, pg_sys::makeString(name).cast()));
        found(pg_sys::OpernameGetOprid(names, left, right))
    }
}

/// The schema of a type.
pub fn schema_of_type(of: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a syscache lookup, whose row is released after it was read.
    unsafe {
        let row = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::TYPEOID as i32, of.into());
        if row.is_null() {
            return None;
        }
        let schema = (*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_type>()).typnamespace;
        pg_sys::ReleaseSysCache(row);
        Some(schema)
    }
}

/// The type `name` in the schema of another type.
pub fn type_beside(other: pg_sys::Oid, name: &CStr) -> Option<pg_sys::Oid> {
    let schema = schema_of_type(other)?;
    // SAFETY: a syscache lookup.
    unsafe {
        let none = pg_sys::Datum::from(0);
        found(pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::TYPENAMENSP as i32,
            pg_sys::Anum_pg_type_oid as i16,
            pg_sys::Datum::from(name.as_ptr()),
            schema.into(),
            none,
            none,
        ))
    }
}

fn found(object: pg_sys::Oid) -> Option<pg_sys::Oid> {
    (object != pg_sys::InvalidOid).then_some(object)
}

/// The name list `pgseal.<name>`.
unsafe fn qualified(name: &'static CStr) -> *mut pg_sys::List {
    // SAFETY: String nodes over static strings, which nobody changes.
    unsafe {
        let [schema, name] = [c"pgseal", name].map(|part| pg_sys::makeString(part.as_ptr().cast_mut()));
        pg_sys::lappend(pg_sys::lappend(std::ptr::null_mut(), schema.cast()), name.cast())
    }
}

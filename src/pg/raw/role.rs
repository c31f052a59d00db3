//! Roles by name and number, as the catalogs have them now.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

use super::version;

/// The number of the role of this name.
pub fn number(name: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: a syscache lookup by a string that outlives it; a missing role is no error.
    let role = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
    (role != pg_sys::InvalidOid).then_some(role)
}

/// The name of the role of this number.
pub fn name(role: pg_sys::Oid) -> Option<CString> {
    // SAFETY: a syscache lookup, which gives NULL for a missing role or a string that ends with NUL.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_owned())
    }
}

/// The owner of a relation, and nobody else until the transaction ends.
pub fn lasting_owner(relation: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a lock by number, which a relation that is gone has too; a syscache lookup, whose row is released after it was
    // read.
    unsafe {
        pg_sys::LockRelationOid(relation, pg_sys::AccessShareLock as i32);
        let cache = pg_sys::SysCacheIdentifier::RELOID as i32;
        let row = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(relation));
        if row.is_null() {
            return None;
        }
        let owner = (*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_class>()).relowner;
        pg_sys::ReleaseSysCache(row);
        Some(owner)
    }
}

/// May `member` SET ROLE to the role, and has its privileges?
pub fn may_become(member: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: a syscache lookup inside a transaction.
    version::may_set_role(member, role) && unsafe { pg_sys::has_privs_of_role(member, role) }
}

/// A name as SQL writes it.
pub fn quoted(name: &CStr) -> CString {
    // SAFETY: gives back `name` or a new string, both ending with NUL.
    unsafe { CStr::from_ptr(pg_sys::quote_identifier(name.as_ptr())).to_owned() }
}

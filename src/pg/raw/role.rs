//! Roles by name and number, as the catalogs have them now.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

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

/// A name as SQL writes it.
pub fn quoted(name: &CStr) -> CString {
    // SAFETY: gives back `name` or a new string, both ending with NUL.
    unsafe { CStr::from_ptr(pg_sys::quote_identifier(name.as_ptr())).to_owned() }
}

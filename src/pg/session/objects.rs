//! Functions and operators of this extension by name and types, as this session last found them.

use std::cell::RefCell;
use std::ffi::CStr;

use pgrx::pg_sys;

use crate::pg::raw::lookup;
use crate::pg::session;

#[derive(Default)]
struct Found {
    generation: u64,
    objects: Vec<(&'static CStr, Vec<pg_sys::Oid>, pg_sys::Oid)>,
}

thread_local! {
    static FOUND: RefCell<Found> = RefCell::default();
}

/// The function `pgseal.<name>` that takes these types.
pub fn function(name: &'static CStr, types: &[pg_sys::Oid]) -> Option<pg_sys::Oid> {
    remembered(name, types, || lookup::function(name, types))
}

/// The operator `OPERATOR(pgseal.<name>)` between these types.
pub fn operator(name: &'static CStr, left: pg_sys::Oid, right: pg_sys::Oid) -> Option<pg_sys::Oid> {
    remembered(name, &[left, right], || lookup::operator(name, left, right))
}

/// What `find` finds, looked for anew once the extension may be another one. No function is named like an operator.
fn remembered(
    name: &'static CStr,
    types: &[pg_sys::Oid],
    find: impl FnOnce() -> Option<pg_sys::Oid>,
) -> Option<pg_sys::Oid> {
    // Once our tables are known, a change of the extension is a new generation.
    session::tables().ok()?;
    let now = session::generation();
    let known = FOUND.with_borrow_mut(|found| {
        if found.generation != now {
            *found = Found { generation: now, objects: Vec::new() };
        }
        let known = found.objects.iter().find(|(of, with, _)| *of == name && with == types);
        known.map(|(_, _, object)| *object)
    });
    known.or_else(|| {
        let object = find()?;
        FOUND.with_borrow_mut(|found| found.objects.push((name, types.to_vec(), object)));
        Some(object)
    })
}

//! The session, its transaction and its invalidation messages.

use std::ffi::{CStr, CString};

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_sys};

/// The role whose privileges count now.
pub fn current_role() -> pg_sys::Oid {
    // SAFETY: always set in a backend.
    unsafe { pg_sys::GetUserId() }
}

/// The role that logged in, SECURITY DEFINER or not.
pub fn session_role() -> pg_sys::Oid {
    // SAFETY: always set in a backend.
    unsafe { pg_sys::GetSessionUserId() }
}

/// Is the role a superuser?
pub fn is_superuser(role: pg_sys::Oid) -> bool {
    // SAFETY: a syscache lookup inside a transaction.
    unsafe { pg_sys::superuser_arg(role) }
}

/// Does `member` have the privileges of `role`, directly or through membership?
pub fn has_privileges_of(member: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: as above.
    unsafe { pg_sys::has_privs_of_role(member, role) }
}

/// BEGIN has been given.
pub fn in_transaction_block() -> bool {
    // SAFETY: reads the transaction state.
    unsafe { pg_sys::IsTransactionBlock() }
}

/// Takes in what other sessions have changed.
pub fn accept_invalidations() {
    // SAFETY: called where PostgreSQL itself may: inside a transaction, with no buffer lock held.
    unsafe { pg_sys::AcceptInvalidationMessages() }
}

/// Tells every session, from commit on, that `relation` has changed.
pub fn invalidate_relation(relation: pg_sys::Oid) {
    // SAFETY: the relation exists; we hold a lock on it from writing to it.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) }
}

/// Has every cached plan of this session analysed again from its text.
pub fn reset_plans() {
    // SAFETY: only marks plans; PostgreSQL calls it from invalidation callbacks itself.
    unsafe { pg_sys::ResetPlanCache() }
}

/// Calls `pg::session::relation_changed` for every invalidated relation from now on.
pub fn watch_relations() {
    // SAFETY: registered once per process, from _PG_init; the callback neither raises nor touches catalogs.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::from(0)) }
}

unsafe extern "C-unwind" fn relation_changed(_: pg_sys::Datum, relation: pg_sys::Oid) {
    crate::pg::session::relation_changed(relation);
}

/// A cancel or terminate request is waiting.
pub fn interrupted() -> bool {
    // SAFETY: plain flags that signal handlers set.
    unsafe { pg_sys::QueryCancelPending != 0 || pg_sys::ProcDiePending != 0 }
}

/// Lets a waiting cancel or terminate request take effect.
pub fn check_interrupts() {
    pgrx::check_for_interrupts!();
}

/// The schema `pgseal`, or InvalidOid before CREATE EXTENSION has made it.
pub fn schema() -> pg_sys::Oid {
    // SAFETY: a syscache lookup.
    unsafe { pg_sys::get_namespace_oid(c"pgseal".as_ptr(), true) }
}

/// A relation of schema `pgseal`, or InvalidOid.
pub fn relation(name: &CStr) -> pg_sys::Oid {
    // SAFETY: a syscache lookup.
    unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema()) }
}

/// The database cluster's directory.
pub fn data_directory() -> Option<String> {
    // SAFETY: set once at server start.
    let pointer = unsafe { pg_sys::DataDir };
    if pointer.is_null() {
        return None;
    }
    // SAFETY: a NUL-terminated string that is never changed.
    Some(unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}

/// A C string without NUL bytes; text from PostgreSQL never has any.
pub fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

/// Reserves the settings prefix, so that a misspelt setting is an error.
pub fn reserve_settings() {
    // SAFETY: called from _PG_init after the settings are defined.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pgseal".as_ptr()) }
}

/// A string setting of every user whose changes make `pg::session` forget what it concluded from it.
pub fn define_watched_setting(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<Option<CString>>,
) {
    // SAFETY: the hook neither raises nor allocates; called from _PG_init.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            short,
            long,
            setting,
            GucContext::Userset,
            GucFlags::default(),
            None,
            Some(setting_assigned),
            None,
        );
    }
}

unsafe extern "C-unwind" fn setting_assigned(_: *const std::ffi::c_char, _: *mut std::ffi::c_void) {
    crate::pg::session::setting_changed();
}

//! Tells what lies above when something has changed: relations, roles, settings, the transaction.

use once_cell::sync::OnceCell;
use pgrx::pg_sys;

/// Who is told what has changed. All but `before_prepare` neither raise nor touch catalogs.
#[derive(Clone, Copy)]
pub struct Watcher {
    /// A relation was changed, here or elsewhere; InvalidOid stands for all. At any time.
    pub relation_changed: fn(pg_sys::Oid),
    /// A role or a membership was changed, in this transaction too. At any time.
    pub role_changed: fn(),
    /// The setting of [`super::setting::define_watched`] was set.
    pub setting_changed: fn(),
    /// The setting of [`super::setting::define_token`] was reset.
    pub token_taken: fn(),
    /// Before a transaction commits.
    pub before_commit: fn(),
    /// Before PREPARE TRANSACTION, which it may refuse.
    pub before_prepare: fn(),
    /// A transaction has committed, or not. Its invalidation messages go out after this.
    pub transaction_ended: fn(bool),
}

static WATCHER: OnceCell<Watcher> = OnceCell::new();

/// Tells `watcher` what changes from now on; from `_PG_init`.
pub fn watch(watcher: Watcher) {
    use pg_sys::SysCacheIdentifier::{AUTHMEMROLEMEM, AUTHOID};
    if WATCHER.set(watcher).is_err() {
        return;
    }
    let none = pg_sys::Datum::from(0);
    // SAFETY: registered once per process; the callbacks neither raise nor touch catalogs, but for the last one.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), none);
        pg_sys::CacheRegisterSyscacheCallback(AUTHMEMROLEMEM as i32, Some(role_changed), none);
        pg_sys::CacheRegisterSyscacheCallback(AUTHOID as i32, Some(role_changed), none);
        pg_sys::RegisterXactCallback(Some(transaction_event), std::ptr::null_mut());
    }
}

pub(super) fn tell(of: impl FnOnce(&Watcher)) {
    if let Some(watcher) = WATCHER.get() {
        of(watcher);
    }
}

unsafe extern "C-unwind" fn role_changed(_: pg_sys::Datum, _: i32, _: u32) {
    tell(|watcher| (watcher.role_changed)());
}

unsafe extern "C-unwind" fn relation_changed(_: pg_sys::Datum, relation: pg_sys::Oid) {
    tell(|watcher| (watcher.relation_changed)(relation));
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn transaction_event(
    event: pg_sys::XactEvent::Type,
    _argument: *mut std::ffi::c_void,
) {
    tell(|watcher| match event {
        pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT | pg_sys::XactEvent::XACT_EVENT_PARALLEL_PRE_COMMIT => {
            (watcher.before_commit)();
        }
        pg_sys::XactEvent::XACT_EVENT_PRE_PREPARE => (watcher.before_prepare)(),
        pg_sys::XactEvent::XACT_EVENT_COMMIT | pg_sys::XactEvent::XACT_EVENT_PARALLEL_COMMIT => {
            super::definition::transaction_ended();
            (watcher.transaction_ended)(true);
        }
        pg_sys::XactEvent::XACT_EVENT_ABORT | pg_sys::XactEvent::XACT_EVENT_PARALLEL_ABORT => {
            super::definition::transaction_ended();
            (watcher.transaction_ended)(false);
        }
        _ => {}
    });
}

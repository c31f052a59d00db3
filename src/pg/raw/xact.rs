//! The session, its transaction and its invalidation messages.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use once_cell::sync::OnceCell;
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

/// The role that SET ROLE chose, else the one that logged in, SECURITY DEFINER or not.
pub fn outer_role() -> pg_sys::Oid {
    // SAFETY: always set in a backend.
    unsafe { pg_sys::GetOuterUserId() }
}

/// Runs code of a table's owner, whoever began the statement: below VACUUM, ANALYZE, REINDEX and the like, and below foreign
/// keys. SECURITY DEFINER alone does not count, since our own functions have it.
pub fn runs_for_an_owner() -> bool {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: both are written.
    unsafe { pg_sys::GetUserIdAndSecContext(&mut user, &mut context) };
    context & !(pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32) != 0
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

/// Refuses `command`, as PostgreSQL words it, in a transaction that is read-only, which on a standby all are.
pub fn require_writable(command: &CStr) {
    // SAFETY: raises an error or does nothing.
    unsafe { pg_sys::PreventCommandIfReadOnly(command.as_ptr()) }
}

/// Tells every session now that `relation` has changed, without a word in WAL: for standbys.
pub fn invalidate_relation_here(relation: pg_sys::Oid) {
    // SAFETY: the message is complete, and copied; a session that has never heard of the relation ignores it.
    unsafe {
        let message = pg_sys::SharedInvalidationMessage {
            rc: pg_sys::SharedInvalRelcacheMsg {
                id: pg_sys::SHAREDINVALRELCACHE_ID as i8,
                dbId: pg_sys::MyDatabaseId,
                relId: relation,
            },
        };
        pg_sys::SendSharedInvalidMessages(&message, 1);
        pg_sys::AcceptInvalidationMessages();
    }
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

/// Who is told what has changed. All but `before_prepare` neither raise nor touch catalogs.
#[derive(Clone, Copy)]
pub struct Watcher {
    /// A relation was changed, here or elsewhere; InvalidOid stands for all. At any time.
    pub relation_changed: fn(pg_sys::Oid),
    /// A role or a membership was changed, in this transaction too. At any time.
    pub role_changed: fn(),
    /// The setting of [`define_watched_setting`] was set.
    pub setting_changed: fn(),
    /// The setting of [`define_token_setting`] was reset.
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

fn tell(of: impl FnOnce(&Watcher)) {
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

/// A cancel or terminate request is waiting.
pub fn interrupted() -> bool {
    // SAFETY: plain flags that signal handlers set.
    unsafe { pg_sys::QueryCancelPending != 0 || pg_sys::ProcDiePending != 0 }
}

/// Lets a waiting cancel or terminate request take effect.
pub fn check_interrupts() {
    pgrx::check_for_interrupts!();
}

/// The database cluster's directory.
pub fn data_directory() -> Option<PathBuf> {
    // SAFETY: set once at server start.
    let pointer = unsafe { pg_sys::DataDir };
    if pointer.is_null() {
        return None;
    }
    // SAFETY: a NUL-terminated string that is never changed.
    Some(OsStr::from_bytes(unsafe { CStr::from_ptr(pointer) }.to_bytes()).into())
}

/// Reserves the settings prefix, so that a misspelt setting is an error.
pub fn reserve_settings() {
    // SAFETY: called from _PG_init after the settings are defined.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pgseal".as_ptr()) }
}

/// The library is being loaded into the postmaster, hence into every process.
pub fn is_preloading() -> bool {
    // SAFETY: a plain flag.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Oid of the database this session is connected to.
pub fn database() -> u32 {
    // SAFETY: set when the session began.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}

/// This server replays what another one wrote.
pub fn in_recovery() -> bool {
    // SAFETY: reads shared state.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// The setting that stands for a session's token; users see it, but only its reset has an effect.
pub fn define_token_setting(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<bool>,
) {
    // SAFETY: the hook neither raises nor calls PostgreSQL; called from _PG_init.
    unsafe {
        GucRegistry::define_bool_guc_with_hooks(
            name,
            short,
            long,
            setting,
            GucContext::Userset,
            GucFlags::DISALLOW_IN_FILE,
            None,
            Some(token_assigned),
            None,
        );
    }
}

unsafe extern "C-unwind" fn token_assigned(given: bool, _: *mut std::ffi::c_void) {
    if !given {
        tell(|watcher| (watcher.token_taken)());
    }
}

/// Sets a boolean setting as SET does.
pub fn set_boolean(name: &CStr, value: bool) {
    let value = if value { c"on" } else { c"off" };
    // SAFETY: both strings end with NUL; inside a transaction.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
        );
    }
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
            (watcher.transaction_ended)(true);
        }
        pg_sys::XactEvent::XACT_EVENT_ABORT | pg_sys::XactEvent::XACT_EVENT_PARALLEL_ABORT => {
            (watcher.transaction_ended)(false);
        }
        _ => {}
    });
}

/// A string setting of every user; [`Watcher::setting_changed`] hears of its changes.
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
    tell(|watcher| (watcher.setting_changed)());
}

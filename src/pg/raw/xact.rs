//! The session, its roles, its transaction and its invalidation messages.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use pgrx::pg_sys;

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

//! Tells when a statement that a client sent has ended, and names for messages about it.

use once_cell::sync::OnceCell;
use pgrx::{pg_guard, pg_sys};

use super::encoding::shown_c;
use super::hook::Previous;
use super::reveal;

static ENDED: OnceCell<fn()> = OnceCell::new();
static PREVIOUS_END: Previous<pg_sys::ExecutorEnd_hook_type> = Previous::empty();

/// Calls `ended` whenever a statement that a client sent has ended; from `_PG_init`.
pub fn install(ended: fn()) {
    ENDED.get_or_init(|| ended);
    // SAFETY: once per process, on its only thread.
    unsafe {
        PREVIOUS_END.install(&raw mut pg_sys::ExecutorEnd_hook, on_end);
    }
}

unsafe extern "C-unwind" {
    // executor/executor.h, without the guard of the bindings: an error passes as it came, with all its fields.
    fn standard_ExecutorEnd(query: *mut pg_sys::QueryDesc);
}

unsafe extern "C-unwind" fn on_end(query: *mut pg_sys::QueryDesc) {
    // SAFETY: PostgreSQL passes a query that has run; it is handed on as it came. An error may jump over this frame,
    // which holds nothing to drop.
    unsafe {
        let inside = reveal::in_spi() || is_in_sql_function((*query).plannedstmt);
        PREVIOUS_END.next().unwrap_or(standard_ExecutorEnd)(query);
        if !inside {
            statement_ended();
        }
    }
}

#[pg_guard]
extern "C-unwind" fn statement_ended() {
    if let Some(ended) = ENDED.get() {
        ended();
    }
}

/// A function in SQL runs the statement, below one that the client sent. Hooks around running a query would tell too, but
/// every error of every statement would pass through them.
///
/// Nothing that the query points to is read: a holdable cursor ends when its receiver is gone.
unsafe fn is_in_sql_function(statement: *mut pg_sys::PlannedStmt) -> bool {
    // SAFETY: the active portal outlives the call, its statements while they run; none is NULL.
    unsafe {
        let portal = pg_sys::ActivePortal;
        let mut statements =
            (!portal.is_null()).then(|| reveal::cells((*portal).stmts)).into_iter().flatten();
        let mut runs = false;
        let foreign = statements.all(|own: *mut pg_sys::PlannedStmt| {
            runs = true;
            own != statement && (*own).utilityStmt.is_null()
        });
        runs && foreign
    }
}

/// Name of a role that exists.
pub fn role_name(role: pg_sys::Oid) -> String {
    // SAFETY: a syscache lookup inside a transaction; NULL where the role is gone.
    unsafe { shown_c(pg_sys::GetUserNameFromId(role, true)) }
}

/// Name of this session's database.
pub fn database_name() -> String {
    // SAFETY: a syscache lookup inside a transaction.
    unsafe { shown_c(pg_sys::get_database_name(pg_sys::MyDatabaseId)) }
}

/// The setting `application_name`.
pub fn application_name() -> String {
    // SAFETY: a setting's value.
    unsafe { shown_c(pg_sys::application_name) }
}

//! Tells `pg::decrypt_log` when a statement that a client sent has ended.

use std::sync::OnceLock;

use pgrx::{pg_guard, pg_sys};

use super::encoding::shown_c;
use super::hook;

static PREVIOUS_END: OnceLock<pg_sys::ExecutorEnd_hook_type> = OnceLock::new();

/// Installs the hook; from `_PG_init`.
pub fn install() {
    // SAFETY: once per process, on its only thread.
    unsafe {
        if PREVIOUS_END.set(pg_sys::ExecutorEnd_hook).is_ok() {
            pg_sys::ExecutorEnd_hook = Some(on_end);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_end(query: *mut pg_sys::QueryDesc) {
    // SAFETY: PostgreSQL passes a query that has run; it is handed on as it came.
    let inside = unsafe {
        // Hooks around running a query would tell too, but every error of every statement would pass through them.
        let inside = hook::in_spi() || (*(*query).dest).mydest == pg_sys::CommandDest::DestSQLFunction;
        match PREVIOUS_END.get() {
            Some(Some(previous)) => previous(query),
            _ => pg_sys::standard_ExecutorEnd(query),
        }
        inside
    };
    if !inside {
        crate::pg::decrypt_log::statement_ended();
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

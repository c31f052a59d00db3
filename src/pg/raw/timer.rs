//! Wakes an idle session when its keys have become too old, so that they are wiped though it does nothing; and sleeps.

use std::cell::Cell;
use std::ffi::c_int;
use std::time::Duration;

use pgrx::pg_sys;

use super::version::USER_TIMEOUT;

// utils/timeout.h, which pgrx does not bind, and the handler as C calls it: it runs in a signal.
unsafe extern "C-unwind" {
    fn RegisterTimeout(id: c_int, handler: unsafe extern "C-unwind" fn()) -> c_int;
    fn enable_timeout_after(id: c_int, delay_ms: c_int);
    fn get_timeout_active(id: c_int) -> bool;
    fn HandleCatchupInterrupt();
}

thread_local! {
    static TIMER: Cell<Option<c_int>> = const { Cell::new(None) };
}

/// The timer is running. An error in a statement stops it.
pub fn is_running() -> bool {
    // SAFETY: a timer that was registered in this process.
    TIMER.get().is_some_and(|timer| unsafe { get_timeout_active(timer) })
}

/// Has the session end an empty transaction after `delay`, or as soon as it is idle then. PostgreSQL's own way to wake
/// a session that must take in invalidation messages does it: HandleCatchupInterrupt of storage/ipc/sinval.c.
pub fn start(delay: Duration) {
    // SAFETY: called in a backend whose timers are set up, as they are before its first transaction ends.
    unsafe {
        let timer = TIMER.get().unwrap_or_else(|| RegisterTimeout(USER_TIMEOUT, HandleCatchupInterrupt));
        TIMER.set(Some(timer));
        enable_timeout_after(timer, delay.as_millis().clamp(1, c_int::MAX as u128) as c_int);
    }
}

/// Sleeps as pg_sleep does: a cancel ends it.
pub fn sleep(duration: Duration) {
    let seconds = duration.as_secs_f64().to_bits() as usize;
    // SAFETY: pg_sleep takes a float8, by value, and returns void.
    unsafe {
        pg_sys::OidFunctionCall1Coll(
            pg_sys::Oid::from_u32(pg_sys::F_PG_SLEEP),
            pg_sys::InvalidOid,
            seconds.into(),
        );
    }
}

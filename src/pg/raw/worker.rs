//! The background worker that wipes shared keys when they have become too old, however idle the server is.

use std::time::Duration;

use once_cell::sync::OnceCell;
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, SignalWakeFlags};
use pgrx::pg_sys;

/// Shortest sleep.
const LEAST: Duration = Duration::from_secs(1);

/// Wipes what is too old and tells how long until more is.
static EXPIRE: OnceCell<fn() -> Duration> = OnceCell::new();

/// Registers it, from `_PG_init` while the library is being preloaded.
pub fn register(expire: fn() -> Duration) {
    EXPIRE.get_or_init(|| expire);
    BackgroundWorkerBuilder::new("pgseal key expiry")
        .set_type("pgseal key expiry")
        .set_library("pgseal")
        .set_function("pgseal_expire_shared_keys")
        .enable_shmem_access(None)
        .set_start_time(BgWorkerStartTime::PostmasterStart)
        .set_restart_time(Some(Duration::from_secs(5)))
        .load();
}

/// The worker: connects to no database.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pgseal_expire_shared_keys(_argument: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    let Some(expire) = EXPIRE.get() else { return };
    loop {
        let next = expire();
        if !BackgroundWorker::wait_latch(Some(next.max(LEAST))) {
            return;
        }
    }
}

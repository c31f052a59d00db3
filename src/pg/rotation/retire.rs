//! What retiring a key needs beside SQL: an end to whoever may still write values under it.

use crate::pg::catalog;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::{lock, xact};

/// `exclude_writers(keyring int4, version int4)`: waits for every transaction that seals with this data
/// key version, and keeps others from starting to, until the end of this transaction.
pub fn exclude_writers(call: Call) -> Returned {
    lock::exclude(call.int4(0), call.int4(1) as u16);
    xact::accept_invalidations();
    Ok(None)
}

/// `retire_alone()`: false while another session retires a key.
pub fn retire_alone(_: Call) -> Returned {
    Ok(Some(lock::retire_alone().into()))
}

/// `wait_for_transactions()`: waits for every transaction that runs now; returns how many there were.
pub fn wait_for_transactions(_: Call) -> Returned {
    let running = lock::running_transactions();
    let open = running.iter().filter(|transaction| !transaction.has_ended());
    let open: Vec<String> = open.map(lock::Running::name).collect();
    if !open.is_empty() {
        let sessions = catalog::sessions_of(&open)?;
        pgrx::notice!("waiting for transactions that are still running: sessions {sessions:?}");
    }
    running.iter().for_each(lock::Running::wait);
    Ok(Some((running.len() as i32).into()))
}

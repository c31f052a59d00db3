//! Unwrapped keys that all sessions share where the library is preloaded: a new session, and each parallel worker,
//! decrypts without asking the KMS. A session with a KMS token of its own neither gives nor takes.

use std::time::Duration;

use crate::core::secret::RootKey;
use crate::keys::cache::{Clock, SystemClock};
use crate::keys::context::Purpose;
use crate::keys::shared::{self, KeyId};
use crate::pg::catalog::{KeyRow, Keyring};
use crate::pg::counters::{self, Counter};
use crate::pg::raw::{shmem, xact};
use crate::pg::session::kms;
use crate::pg::settings;

fn id(keyring: &Keyring, row: &KeyRow, purpose: Purpose) -> KeyId {
    KeyId { database: xact::database(), keyring: keyring.id, purpose, version: row.version }
}

/// A key that some session unwrapped, and when it asked the KMS.
pub fn find(keyring: &Keyring, row: &KeyRow, purpose: Purpose) -> Option<(RootKey, Duration)> {
    if kms::has_token() {
        return None;
    }
    let (now, ttl) = (SystemClock.now(), settings::key_cache_ttl());
    let id = id(keyring, row, purpose);
    let found = shmem::read(|slots| shared::find(slots, &id, &row.commitment, now, ttl)).flatten();
    if found.is_some() {
        counters::count(Counter::SharedKeyHits);
    }
    found
}

/// Shares a key that this session asked the KMS for at `asked`, unless keys were flushed since `epoch`.
pub fn put(keyring: &Keyring, row: &KeyRow, purpose: Purpose, root: &RootKey, asked: Duration, epoch: u64) {
    if kms::has_token() {
        return;
    }
    let id = id(keyring, row, purpose);
    shmem::write(|slots| {
        if shmem::epoch() == epoch {
            shared::put(slots, &id, &row.commitment, root, asked);
        }
    });
}

/// Wipes the keys of a keyring that have this purpose.
pub fn forget(keyring: i32, purpose: Purpose) {
    shmem::write(|slots| shared::forget(slots, xact::database(), Some((keyring, purpose))));
}

/// Wipes this database's keys.
pub fn forget_all() {
    shmem::write(|slots| shared::forget(slots, xact::database(), None));
}

/// Wipes this database's keys and has every session drop its own, also in the middle of a statement.
pub fn flush() {
    shmem::write(|slots| {
        shmem::next_epoch();
        shared::forget(slots, xact::database(), None);
    });
}

/// Wipes what is too old; how long until the next key is, or the next one could be.
pub fn expire() -> Duration {
    let (now, ttl) = (SystemClock.now(), settings::key_cache_ttl());
    let oldest = shmem::write(|slots| shared::expire(slots, now, ttl)).flatten();
    ttl.saturating_sub(oldest.unwrap_or_default())
}

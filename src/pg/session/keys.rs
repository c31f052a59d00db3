//! Unwrapped keys: from this session's cache, from what all sessions share, or from the KMS.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::keyrings::keyring;
use super::{forget_if_stale, is_stale, kms, shared_keys};
use crate::core::ivf::index::Index;
use crate::core::ivf::key::{HeldPageKey, Identity, PageKey};
use crate::core::ivf::meta::Meta;
use crate::core::kdf::{DataKey, IndexKey};
use crate::core::secret::{RootKey, wipe_stack};
use crate::keys::cache::{Cache, Clock, HeldDataKey, HeldIndexKey, SystemClock};
use crate::keys::context::{Purpose, WrapContext};
use crate::kms::{Kms, KmsError, Token};
use crate::pg::catalog::{KeyRow, Keyring};
use crate::pg::error::PgError;
use crate::pg::raw::{lock, locked_memory, shmem, timer, xact};
use crate::pg::settings;

const SEARCH_ONLY: &str =
    "these credentials unwrap no data key of it; what tokens decide can be searched without";

thread_local! {
    static KEYS: RefCell<Cache<SystemClock>> = RefCell::new(Cache::new(SystemClock, locked_memory::GUARD));
}

/// Drops unwrapped keys at any time: one that is in use stays until it is not.
pub(super) fn forget_unused_keys() {
    KEYS.with(|keys| {
        if let Ok(mut keys) = keys.try_borrow_mut()
            && !keys.is_empty()
        {
            keys.clear();
            wipe_stack();
        }
    });
}

/// Drops this session's unwrapped keys, and what its clients logged in for.
pub fn forget_keys() {
    KEYS.with_borrow_mut(Cache::clear);
    kms::forget_clients();
    wipe_stack();
}

/// The KMS refused a key: all that the same one wraps go at once. What a session's own token may not do says nothing about
/// others.
fn denied(keyring: &Keyring, purpose: Purpose, why: &'static str) {
    let wrapping = keyring.wrapping_key(purpose);
    for purpose in Purpose::ALL.into_iter().filter(|other| keyring.wrapping_key(*other) == wrapping) {
        KEYS.with_borrow_mut(|keys| keys.deny(keyring.id, purpose, why));
        if !kms::has_token() {
            shared_keys::forget(keyring.id, purpose);
        }
    }
}

/// Wipes keys that are too old and sets the timer for the next ones.
pub(super) fn expire_in_time() {
    KEYS.with(|keys| {
        let Ok(mut keys) = keys.try_borrow_mut() else { return };
        if keys.is_empty() || timer::is_running() {
            return;
        }
        let ttl = settings::key_cache_ttl();
        keys.expire(ttl);
        // What used a key may have left parts of it on the stack.
        wipe_stack();
        if let Some(oldest) = keys.oldest() {
            timer::start(ttl.saturating_sub(oldest));
        }
    });
}

/// Takes a KMS token for this session, or none. Keys unwrapped with the old credentials are not for the new ones.
pub fn use_token(token: Option<Token>, is_local: bool) {
    if kms::replace_token(token, is_local) {
        forget_keys();
    }
}

/// The setting behind the token was reset.
pub fn token_taken() {
    use_token(None, false);
}

/// Runs one call about keys of a purpose at a keyring's KMS, with the name of their wrapping key; a denial drops what that one
/// wraps at once.
pub fn ask_kms<T>(
    keyring: &Keyring,
    purpose: Purpose,
    call: impl FnOnce(&dyn Kms, &str) -> Result<T, KmsError>,
) -> Result<T, PgError> {
    let kms = kms::open(keyring.kms_endpoint.as_deref());
    let answer = kms.and_then(|kms| kms::counted(|| call(&*kms, keyring.wrapping_key(purpose))));
    answer.map_err(|error| {
        if let KmsError::Denied(why) = error {
            denied(keyring, purpose, why);
        }
        // A cancel that is waiting is PostgreSQL's to report, in its own words.
        xact::check_interrupts();
        PgError::Kms(keyring.name.clone(), said(keyring, purpose, error))
    })
}

/// Where the index keys have a wrapping key of their own, data keys may be denied to a server that is to search only.
fn said(keyring: &Keyring, purpose: Purpose, error: KmsError) -> KmsError {
    match error {
        KmsError::Denied(_) if purpose == Purpose::Data && keyring.kms_search_key.is_some() => {
            KmsError::Denied(SEARCH_ONLY)
        }
        error => error,
    }
}

/// The active data key for sealing, with its version locked against retiring until the transaction ends.
pub fn writer_key(id: i32) -> Result<(Rc<Keyring>, u16, HeldDataKey), PgError> {
    loop {
        let keyring = keyring(id)?;
        let version = keyring.active_data()?.version;
        if lock_for_writing(id, version) {
            let key = data_key(&keyring, version)?;
            return Ok((keyring, version, key));
        }
    }
}

/// False when the catalog changed while the lock was waited for: look again.
fn lock_for_writing(id: i32, version: u16) -> bool {
    if lock::share(id, version) == lock::Acquired::Before {
        return true;
    }
    xact::accept_invalidations();
    !is_stale()
}

/// Before a value that is already sealed is stored: its key must not be retired, nor become so meanwhile.
/// A keyring that is not known yet passes, because a restore may bring it later.
pub fn require_storable(id: i32, version: u16) -> Result<(), PgError> {
    while !lock_for_writing(id, version) {
        forget_if_stale();
    }
    let keyring = match keyring(id) {
        Ok(keyring) => keyring,
        Err(PgError::UnknownKeyringId(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    match keyring.data_key(version) {
        Ok(row) => require_live(&keyring, row, Purpose::Data),
        Err(_) => Ok(()),
    }
}

fn require_live(keyring: &Keyring, row: &KeyRow, purpose: Purpose) -> Result<(), PgError> {
    if row.state.opens() {
        Ok(())
    } else {
        Err(PgError::KeyState(keyring.name.clone(), purpose.as_str(), row.version, row.state.as_str()))
    }
}

/// An unwrapped data key, from the cache or the KMS.
pub fn data_key(keyring: &Keyring, version: u16) -> Result<HeldDataKey, PgError> {
    let id = (keyring.id, version);
    let ttl = settings::key_cache_ttl();
    if let Some(key) = KEYS.with_borrow_mut(|keys| keys.data(id, ttl)) {
        return Ok(key);
    }
    let row = keyring.data_key(version)?;
    let (root, asked) = root_key(keyring, row, Purpose::Data)?;
    let key = DataKey::derive(&root, &keyring.uuid, Some(&row.commitment))
        .map_err(|error| PgError::Commitment(keyring.name.clone(), error))?;
    drop(root);
    let kept = KEYS.with_borrow_mut(|keys| keys.put_data(id, key, asked));
    wipe_stack();
    Ok(kept)
}

/// The key of an index's pages under a version of the keyring's data key.
pub fn page_key(keyring: &Keyring, version: u16, identity: &Identity) -> Result<HeldPageKey, PgError> {
    let id = (keyring.id, version);
    let ttl = settings::key_cache_ttl();
    if let Some(key) = KEYS.with_borrow(|keys| keys.page_key(id, identity, ttl)) {
        return Ok(key);
    }
    let data = data_key(keyring, version)?;
    let kept = derive_page_key(&data, version, id, identity);
    wipe_stack();
    Ok(kept)
}

/// A frame of its own, which the caller wipes: the key is moved from it.
#[inline(never)]
fn derive_page_key(data: &DataKey, version: u16, id: (i32, u16), identity: &Identity) -> HeldPageKey {
    let key = PageKey::derive(data, version, identity);
    KEYS.with_borrow_mut(|keys| keys.put_page_key(id, key))
}

/// The lists of an index, where this session has read its directory and has the keys still.
pub fn lists(keyring: i32, meta: &Meta) -> Option<Rc<Index>> {
    forget_if_stale();
    let ttl = settings::key_cache_ttl();
    KEYS.with_borrow(|keys| keys.lists(keyring, meta, ttl))
}

/// Keeps the lists of an index as long as the keys that open its directory.
pub fn keep_lists(keyring: i32, lists: &Rc<Index>) {
    KEYS.with_borrow_mut(|keys| keys.put_lists(keyring, lists));
}

/// An unwrapped index key, from the cache or the KMS.
pub fn index_key(keyring: &Keyring, row: &KeyRow) -> Result<HeldIndexKey, PgError> {
    let id = (keyring.id, row.version);
    let ttl = settings::key_cache_ttl();
    if let Some(key) = KEYS.with_borrow_mut(|keys| keys.index(id, ttl)) {
        return Ok(key);
    }
    let (root, asked) = root_key(keyring, row, Purpose::Index)?;
    let key = IndexKey::derive(&root, &keyring.uuid, Some(&row.commitment))
        .map_err(|error| PgError::Commitment(keyring.name.clone(), error))?;
    drop(root);
    let kept = KEYS.with_borrow_mut(|keys| keys.put_index(id, key, asked));
    wipe_stack();
    Ok(kept)
}

/// A root key and when the KMS was asked for it: from what all sessions share, or from the KMS.
fn root_key(keyring: &Keyring, row: &KeyRow, purpose: Purpose) -> Result<(RootKey, Duration), PgError> {
    require_live(keyring, row, purpose)?;
    if let Some(why) = KEYS.with_borrow_mut(|keys| keys.refusal(keyring.id, purpose)) {
        let refused = KmsError::Denied(why);
        return Err(PgError::Kms(keyring.name.clone(), said(keyring, purpose, refused)));
    }
    if let Some(found) = shared_keys::find(keyring, row, purpose) {
        return Ok(found);
    }
    let (asked, epoch) = (SystemClock.now(), shmem::epoch());
    let root = unwrapped(keyring, purpose, row)?;
    shared_keys::put(keyring, row, purpose, &root, asked, epoch);
    Ok((root, asked))
}

/// A root key from the KMS, whatever is cached.
pub fn unwrapped(keyring: &Keyring, purpose: Purpose, row: &KeyRow) -> Result<RootKey, PgError> {
    let context = WrapContext { keyring: keyring.uuid, purpose, version: row.version };
    ask_kms(keyring, purpose, |kms, name| kms.unwrap(name, &context, &row.wrapped))
}

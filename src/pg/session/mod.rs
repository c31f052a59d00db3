//! What this backend knows: keyrings as the catalog has them, and unwrapped keys.
//!
//! A change of our tables anywhere sets a flag; the next look-up then forgets everything. Nothing is held
//! borrowed while PostgreSQL or the KMS is called.

pub mod decrypt_log;
mod keyrings;
mod keys;
pub mod kms;
mod literals;
pub mod objects;
mod privileges;
pub mod shared_keys;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use pgrx::pg_sys;
use zeroize::Zeroizing;

use self::keyrings::Ids;
use self::keys::GUARD;
use crate::core::secret::wipe_stack;
use crate::keys::cache::{Cache, SystemClock};
use crate::pg::catalog::{Keyring, Tables};
use crate::pg::error::PgError;
use crate::pg::raw::{lock, shmem, xact};

pub use self::keyrings::{
    MAX_NAME_BYTES, catch_up_for_search, keyring, keyring_for_input, keyring_for_query, keyring_for_search,
    keyring_id, keyring_label,
};
pub use self::keys::{ask_kms, data_key, index_key, require_storable, token_taken, use_token, writer_key};
pub use self::literals::{has_made_literals, literal_made, maker};
pub use self::privileges::{Checked, Privilege, has, now, require, require_search};

struct Session {
    stale: Cell<bool>,
    /// This transaction has changed or flushed keys.
    flushing: Cell<bool>,
    /// The shared memory's count of flushes when this session last looked.
    epoch: Cell<u64>,
    generation: Cell<u64>,
    tables: Cell<Option<Tables>>,
    keyrings: RefCell<BTreeMap<i32, Rc<Keyring>>>,
    names: RefCell<HashMap<String, i32>>,
    ids: RefCell<Option<Rc<Ids>>>,
    keys: RefCell<Cache<SystemClock>>,
    /// Literals are in plans: sealed under the keyring that the session chose, for the role of the moment.
    literals: Cell<bool>,
    /// What only this process knows; drawn with the first literal.
    secret: RefCell<Option<Zeroizing<[u8; 32]>>>,
}

thread_local! {
    static SESSION: Session = Session {
        stale: Cell::new(false),
        flushing: Cell::new(false),
        epoch: Cell::new(0),
        generation: Cell::new(0),
        tables: Cell::new(None),
        keyrings: RefCell::default(),
        names: RefCell::default(),
        ids: RefCell::default(),
        keys: RefCell::new(Cache::new(SystemClock, GUARD)),
        literals: Cell::new(false),
        secret: RefCell::default(),
    };
}

/// A relation was changed, here or elsewhere; InvalidOid stands for all. Called at any time: touches no
/// catalog.
pub fn relation_changed(relation: pg_sys::Oid) {
    SESSION.with(|session| {
        let ours = session.tables.get().is_some_and(|tables| tables.contains(relation));
        if ours || relation == pg_sys::InvalidOid {
            session.stale.set(true);
            session.generation.set(session.generation.get() + 1);
            // At once, though the session may be idle: a key that is in use stays until it is not.
            if let Ok(mut keys) = session.keys.try_borrow_mut()
                && !keys.is_empty()
            {
                keys.clear();
                wipe_stack();
            }
        }
        // Literals in cached plans are sealed under the key of the day: have them sealed again.
        if ours {
            xact::reset_plans();
        }
    });
}

/// `pgseal.keyring` was set, or put back: literals in cached plans are of the keyring before.
pub fn setting_changed() {
    conclusions_changed();
    if SESSION.with(|session| session.literals.replace(false)) {
        xact::reset_plans();
    }
}

/// What was concluded from settings, grants or roles may be wrong now.
pub fn conclusions_changed() {
    SESSION.with(|session| session.generation.set(session.generation.get() + 1));
}

/// Changes whenever something that a filter was made from may have changed.
pub fn generation() -> u64 {
    SESSION.with(|session| session.generation.get())
}

/// The tables of this database; an error outside one with the extension.
pub fn tables() -> Result<Tables, PgError> {
    forget_if_stale();
    if let Some(tables) = SESSION.with(|session| session.tables.get()) {
        return Ok(tables);
    }
    let tables = Tables::find().ok_or_else(|| PgError::Catalog("its tables are missing".into()))?;
    SESSION.with(|session| session.tables.set(Some(tables)));
    Ok(tables)
}

fn forget_if_stale() {
    SESSION.with(|session| {
        let epoch = shmem::epoch();
        let flushed = session.epoch.replace(epoch) != epoch;
        if session.stale.replace(false) {
            session.tables.set(None);
            session.keyrings.borrow_mut().clear();
            session.names.borrow_mut().clear();
            session.ids.borrow_mut().take();
            keys::forget_keys();
            // Whoever flushes wipes the shared keys, except for a standby, where nobody does.
            if !flushed || xact::in_recovery() {
                shared_keys::forget(None);
            }
        } else if flushed {
            keys::forget_keys();
        }
    });
}

/// Tells every session, from commit on, to read the catalog and unwrap the keys anew.
pub fn invalidate() -> Result<(), PgError> {
    tables()?.invalidate();
    SESSION.with(|session| session.flushing.set(true));
    Ok(())
}

/// Before a transaction commits.
pub fn before_commit() {
    decrypt_log::statement_ended();
}

/// Before PREPARE TRANSACTION.
pub fn before_prepare() {
    decrypt_log::statement_ended();
    if SESSION.with(|session| session.flushing.get()) {
        PgError::PreparedKeys.raise();
    }
}

/// A transaction has ended. Its invalidation messages go out after this.
pub fn transaction_ended(committed: bool) {
    lock::transaction_ended();
    if !committed {
        decrypt_log::statement_ended();
    }
    SESSION.with(|session| {
        if session.flushing.replace(false) && committed {
            shared_keys::flush();
        }
    });
    keys::expire_in_time();
}

/// Forgets everything at the next look-up, in this session only.
pub fn forget() {
    SESSION.with(|session| session.stale.set(true));
    conclusions_changed();
}

/// Takes in what other sessions have committed, once for each execution: in an open transaction that has
/// its locks already, PostgreSQL does not.
pub fn catch_up() {
    xact::accept_invalidations();
}

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
mod permits;
mod privileges;
pub mod shared_keys;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use once_cell::unsync::OnceCell;
use pgrx::pg_sys;

use self::keyrings::Ids;
use crate::core::batch;
use crate::pg::catalog::{Keyring, Tables};
use crate::pg::error::PgError;
use crate::pg::raw::{lock, shmem, xact};

pub use self::keyrings::{
    MAX_NAME_BYTES, catch_up_for_search, keyring, keyring_for_input, keyring_for_query, keyring_for_search,
    keyring_id, keyring_label,
};
pub use self::keys::{
    ask_kms, data_key, index_key, keep_lists, lists, page_key, require_storable, token_taken, unwrapped,
    use_token, writer_key,
};
pub use self::kms::is_token_local;
pub use self::literals::{has_made_literals, holds_unbound, literal_made, maker, open_unbound, seal_unbound};
pub use self::permits::{borrow, lend};
pub use self::privileges::{Checked, Privilege, has, now, require, require_search};

/// What was read of the catalog since it last changed. Whoever holds it while the next one begins keeps its own.
#[derive(Default)]
struct Known {
    tables: OnceCell<Tables>,
    ids: OnceCell<Ids>,
    keyrings: RefCell<BTreeMap<i32, Rc<Keyring>>>,
    names: RefCell<HashMap<String, i32>>,
}

impl Known {
    /// An error outside a database with the extension.
    fn tables(&self) -> Result<&Tables, PgError> {
        let missing = || PgError::Catalog("its tables are missing".into());
        self.tables.get_or_try_init(|| Tables::find().ok_or_else(missing))
    }
}

#[derive(Default)]
struct Session {
    stale: Cell<bool>,
    /// This transaction has changed or flushed keys.
    flushing: Cell<bool>,
    /// The shared memory's count of flushes when this session last looked.
    epoch: Cell<u64>,
    generation: Cell<u64>,
    known: RefCell<Rc<Known>>,
}

thread_local! {
    static SESSION: Session = Session::default();
}

/// A relation was changed, here or elsewhere; InvalidOid stands for all. Called at any time: touches no
/// catalog.
pub fn relation_changed(relation: pg_sys::Oid) {
    SESSION.with(|session| {
        let ours = session.known.borrow().tables.get().is_some_and(|tables| tables.contains(relation));
        if ours || relation == pg_sys::InvalidOid {
            session.stale.set(true);
            session.generation.set(session.generation.get() + 1);
            // At once, though the session may be idle.
            keys::forget_unused_keys();
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
    if literals::taken_back() {
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

fn known() -> Rc<Known> {
    forget_if_stale();
    SESSION.with(|session| session.known.borrow().clone())
}

/// The tables of this database; an error outside one with the extension.
pub fn tables() -> Result<Tables, PgError> {
    known().tables().copied()
}

fn is_stale() -> bool {
    SESSION.with(|session| session.stale.get())
}

fn forget_if_stale() {
    SESSION.with(|session| {
        let epoch = shmem::epoch();
        let flushed = session.epoch.replace(epoch) != epoch;
        if session.stale.replace(false) {
            session.known.replace(Rc::default());
            keys::forget_keys();
            // Whoever flushes wipes the shared keys, except for a standby, where nobody does.
            if !flushed || xact::in_recovery() {
                shared_keys::forget_all();
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
    batch::end_batch();
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

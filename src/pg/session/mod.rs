//! What this backend knows: keyrings as the catalog has them, and unwrapped keys.
//!
//! A change of our tables anywhere sets a flag; the next look-up then forgets everything. Nothing is held
//! borrowed while PostgreSQL or the KMS is called.

pub mod decrypt_log;
pub mod kms;
pub mod objects;
pub mod shared_keys;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use pgrx::pg_sys;
use zeroize::Zeroizing;

use crate::core::filter::Binding;
use crate::core::kdf::{DataKey, IndexKey};
use crate::core::policy::Policy;
use crate::core::rng;
use crate::core::secret::{RootKey, wipe_stack};
use crate::keys::cache::{Cache, Clock, Guard, HeldDataKey, HeldIndexKey, SystemClock};
use crate::keys::context::{Purpose, WrapContext};
use crate::kms::KmsError;
use crate::pg::catalog::{KeyRow, Keyring, PrivilegeRow, Tables};
use crate::pg::error::PgError;
use crate::pg::raw::{lock, locked_memory, reveal, shmem, timer, xact};
use crate::pg::settings;

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

const GUARD: Guard = Guard { hold: locked_memory::hold_value, release: locked_memory::release_value };

/// Which keyrings there are, as far as choosing one needs it: there may be many.
struct Ids {
    first_two: Vec<i32>,
    default: Option<i32>,
}

impl Ids {
    fn only(&self) -> Option<i32> {
        if let [only] = self.first_two.as_slice() { Some(*only) } else { None }
    }
}

/// A keyring's name is an identifier: NAMEDATALEN - 1.
pub const MAX_NAME_BYTES: usize = 63;

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

/// A privilege on a keyring.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Seal values.
    Encrypt,
    /// Filter.
    Search,
    /// Read plaintext.
    Decrypt,
}

impl Privilege {
    fn name(self) -> &'static str {
        match self {
            Privilege::Encrypt => "encrypt",
            Privilege::Search => "search",
            Privilege::Decrypt => "decrypt",
        }
    }

    fn in_row(self, row: &PrivilegeRow) -> bool {
        match self {
            Privilege::Encrypt => row.encrypt,
            Privilege::Search => row.search,
            Privilege::Decrypt => row.decrypt,
        }
    }
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

/// Who seals literals now: this process, for the current role. Nobody else can say so.
pub fn maker() -> Result<Zeroizing<Vec<u8>>, PgError> {
    SESSION.with(|session| {
        let mut secret = session.secret.borrow_mut();
        if secret.is_none() {
            *secret = Some(Zeroizing::new(rng::bytes()?));
        }
        let secret = secret.as_ref().map(|secret| secret.as_slice()).unwrap_or_default();
        Ok(Zeroizing::new([secret, &xact::current_role().to_u32().to_be_bytes()].concat()))
    })
}

/// This process has sealed literals, so that one may be its own.
pub fn has_made_literals() -> bool {
    SESSION.with(|session| session.secret.borrow().is_some())
}

/// A literal is sealed, for a plan perhaps.
pub fn literal_made() {
    SESSION.with(|session| session.literals.set(true));
    reveal::literal_made();
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
            forget_keys();
            // Whoever flushes wipes the shared keys, except for a standby, where nobody does.
            if !flushed || xact::in_recovery() {
                shared_keys::forget(None);
            }
        } else if flushed {
            forget_keys();
        }
    });
}

/// Drops this session's unwrapped keys, and what its clients logged in for.
pub fn forget_keys() {
    SESSION.with(|session| session.keys.borrow_mut().clear());
    kms::forget_clients();
    wipe_stack();
}

/// The KMS refused a keyring: its keys go at once. What a session's own token may not do says nothing about others.
pub fn denied(keyring: i32) {
    SESSION.with(|session| session.keys.borrow_mut().deny(keyring));
    if !kms::has_token() {
        shared_keys::forget(Some(keyring));
    }
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
    expire_in_time();
}

/// Wipes keys that are too old and sets the timer for the next ones.
fn expire_in_time() {
    SESSION.with(|session| {
        let Ok(mut keys) = session.keys.try_borrow_mut() else { return };
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

/// Forgets everything at the next look-up, in this session only.
pub fn forget() {
    SESSION.with(|session| session.stale.set(true));
    conclusions_changed();
}

/// A keyring by id.
pub fn keyring(id: i32) -> Result<Rc<Keyring>, PgError> {
    // pg_upgrade makes what comes before our tables by its name, literals of views among it.
    let tables = tables().map_err(|_| PgError::UnknownKeyringId(id))?;
    if let Some(keyring) = SESSION.with(|session| session.keyrings.borrow().get(&id).cloned()) {
        return Ok(keyring);
    }
    let keyring = Rc::new(tables.keyring(id)?);
    SESSION.with(|session| session.keyrings.borrow_mut().insert(id, keyring.clone()));
    Ok(keyring)
}

/// How messages name a keyring: by its name where it is known here.
pub fn keyring_label(id: i32) -> String {
    keyring(id).map_or_else(|_| id.to_string(), |keyring| format!("\"{}\"", keyring.name))
}

/// A keyring's id by name.
pub fn keyring_id(name: &str) -> Result<i32, PgError> {
    // No keyring has a longer name, and no message needs to quote it.
    if name.len() > MAX_NAME_BYTES {
        return Err(PgError::UnknownKeyring(name[..name.floor_char_boundary(MAX_NAME_BYTES)].into()));
    }
    let tables = tables()?;
    if let Some(id) = SESSION.with(|session| session.names.borrow().get(name).copied()) {
        return Ok(id);
    }
    let id = tables.keyring_by_name(name).ok_or_else(|| PgError::UnknownKeyring(name.into()))?;
    SESSION.with(|session| session.names.borrow_mut().insert(name.into(), id));
    Ok(id)
}

fn ids() -> Result<Rc<Ids>, PgError> {
    let tables = tables()?;
    if let Some(ids) = SESSION.with(|session| session.ids.borrow().clone()) {
        return Ok(ids);
    }
    let first_two = tables.keyring_ids(2);
    let ids = Rc::new(Ids { first_two, default: tables.default_keyring() });
    SESSION.with(|session| session.ids.borrow_mut().replace(ids.clone()));
    Ok(ids)
}

/// The keyring for a new value whose column is unknown: the setting's, else the database's default.
pub fn keyring_for_input() -> Result<i32, PgError> {
    match settings::keyring() {
        Some(name) => keyring_id(&name),
        None => ids()?.default.ok_or(PgError::NoKeyring),
    }
}

/// The keyring that answers where no column names one: the setting's, else the only one there is, else
/// `None`: each value's own.
pub fn keyring_for_search() -> Result<Option<i32>, PgError> {
    match settings::keyring() {
        Some(name) => keyring_id(&name).map(Some),
        None => Ok(ids()?.only()),
    }
}

/// A keyring that can seal a query for whichever keyrings answer: the session's choice, else one that the
/// role may search.
pub fn keyring_for_query() -> Result<i32, PgError> {
    if let Some(chosen) = keyring_for_search()? {
        return Ok(chosen);
    }
    let mut refused = PgError::NoKeyring;
    for id in ids()?.default.into_iter().chain(tables()?.keyring_ids(usize::MAX)) {
        match require(&*keyring(id)?, Privilege::Search) {
            Ok(()) => return Ok(id),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Takes in what other sessions have committed, once for each execution: in an open transaction that has
/// its locks already, PostgreSQL does not.
pub fn catch_up() {
    xact::accept_invalidations();
}

/// Also what has committed without its message having arrived: rows under a newer index key, or, where the session
/// chooses the keyring, of a new keyring, may be visible already.
pub fn catch_up_for_search(id: i32, binding: Binding) -> Result<(), PgError> {
    catch_up();
    let tables = tables()?;
    let newer_key = tables.newest_index(id) != keyring(id)?.newest_index();
    if newer_key || (binding == Binding::Session && tables.keyring_ids(2).len() != ids()?.first_two.len()) {
        forget();
    }
    Ok(())
}

/// Does the role have the privilege? Superusers have all.
pub fn has(keyring: &Keyring, privilege: Privilege) -> bool {
    let role = xact::current_role();
    let granted = |row: &PrivilegeRow| {
        privilege.in_row(row)
            && row.role.number().is_some_and(|grantee| {
                grantee == pg_sys::InvalidOid || xact::has_privileges_of(role, grantee)
            })
    };
    xact::is_superuser(role) || keyring.privileges.iter().any(granted)
}

/// Refuses a role without the privilege.
pub fn require(keyring: &Keyring, privilege: Privilege) -> Result<(), PgError> {
    match has(keyring, privilege) {
        true => Ok(()),
        false => Err(PgError::Privilege(keyring.name.clone(), privilege.name())),
    }
}

/// Refuses a role that may not ask this: with `search` alone only what `declared` finds searchable.
pub fn require_search(
    keyring: &Keyring,
    declared: impl FnOnce(&Policy) -> Result<bool, PgError>,
) -> Result<(), PgError> {
    Looking::default().permit(keyring, declared)
}

/// Whether a call site has run in this execution.
#[derive(Default)]
pub struct Started(bool);

impl Started {
    /// [`catch_up`] the first time.
    pub fn once(&mut self) {
        if !std::mem::replace(&mut self.0, true) {
            catch_up();
        }
    }
}

/// The role and the generation: what a conclusion about privileges depends on.
pub fn now() -> (pg_sys::Oid, u64) {
    (xact::current_role(), generation())
}

/// A privilege that this role was found to have; looked up anew when role, keyring or grants change.
#[derive(Default)]
pub struct Allowed(Option<(i32, pg_sys::Oid, u64)>);

impl Allowed {
    /// The first use in an execution: see [`catch_up`].
    pub fn start(&self) {
        if self.0.is_none() {
            catch_up();
        }
    }

    /// [`require`], for call sites that ask for every row.
    pub fn require(&mut self, keyring: &Keyring, privilege: Privilege) -> Result<(), PgError> {
        let now = Some((keyring.id, xact::current_role(), generation()));
        if self.0 != now {
            require(keyring, privilege)?;
            self.0 = now;
        }
        Ok(())
    }
}

/// What a role was found to be allowed to look at; looked up anew when role, keyring or grants change.
#[derive(Default)]
pub struct Looking {
    of: Option<(i32, pg_sys::Oid, u64)>,
    everywhere: bool,
}

impl Looking {
    /// The first use in an execution: see [`catch_up`].
    pub fn start(&self) {
        if self.of.is_none() {
            catch_up();
        }
    }

    /// The role was found to have `decrypt`.
    pub fn is_everywhere(&self) -> bool {
        self.everywhere
    }

    /// `search` lets a role look where `declared` finds the keyring's policy to be, `decrypt` with it everywhere.
    pub fn permit(
        &mut self,
        keyring: &Keyring,
        declared: impl FnOnce(&Policy) -> Result<bool, PgError>,
    ) -> Result<(), PgError> {
        let now = Some((keyring.id, xact::current_role(), generation()));
        if self.of != now {
            require(keyring, Privilege::Search)?;
            *self = Looking { of: now, everywhere: has(keyring, Privilege::Decrypt) };
        }
        match self.everywhere || declared(&keyring.active_index()?.1)? {
            true => Ok(()),
            false => Err(PgError::Undeclared(keyring.name.clone())),
        }
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
    SESSION.with(|session| !session.stale.get())
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
    match row.state.opens() {
        true => Ok(()),
        false => {
            Err(PgError::KeyState(keyring.name.clone(), purpose.as_str(), row.version, row.state.as_str()))
        }
    }
}

/// An unwrapped data key, from the cache or the KMS.
pub fn data_key(keyring: &Keyring, version: u16) -> Result<HeldDataKey, PgError> {
    let id = (keyring.id, version);
    let ttl = settings::key_cache_ttl();
    if let Some(key) = SESSION.with(|session| session.keys.borrow_mut().data(id, ttl)) {
        return Ok(key);
    }
    let row = keyring.data_key(version)?;
    let (root, asked) = root_key(keyring, row, Purpose::Data)?;
    let key = DataKey::derive(&root, &keyring.uuid, Some(&row.commitment))
        .map_err(|error| PgError::Commitment(keyring.name.clone(), error))?;
    drop(root);
    let kept = SESSION.with(|session| session.keys.borrow_mut().put_data(id, key, asked));
    wipe_stack();
    Ok(kept)
}

/// An unwrapped index key, from the cache or the KMS.
pub fn index_key(keyring: &Keyring, row: &KeyRow) -> Result<HeldIndexKey, PgError> {
    let id = (keyring.id, row.version);
    let ttl = settings::key_cache_ttl();
    if let Some(key) = SESSION.with(|session| session.keys.borrow_mut().index(id, ttl)) {
        return Ok(key);
    }
    let (root, asked) = root_key(keyring, row, Purpose::Index)?;
    let key = IndexKey::derive(&root, &keyring.uuid, Some(&row.commitment))
        .map_err(|error| PgError::Commitment(keyring.name.clone(), error))?;
    drop(root);
    let kept = SESSION.with(|session| session.keys.borrow_mut().put_index(id, key, asked));
    wipe_stack();
    Ok(kept)
}

/// A root key and when the KMS was asked for it: from what all sessions share, or from the KMS.
fn root_key(keyring: &Keyring, row: &KeyRow, purpose: Purpose) -> Result<(RootKey, Duration), PgError> {
    require_live(keyring, row, purpose)?;
    if SESSION.with(|session| session.keys.borrow_mut().is_denied(keyring.id)) {
        return Err(PgError::Kms(keyring.name.clone(), KmsError::Denied("it was refused a moment ago")));
    }
    if let Some(found) = shared_keys::find(keyring, row, purpose) {
        return Ok(found);
    }
    let (asked, epoch) = (SystemClock.now(), shmem::epoch());
    let context = WrapContext { keyring: keyring.uuid, purpose, version: row.version };
    let root = kms::with(keyring, |kms| kms.unwrap(&keyring.kms_key, &context, &row.wrapped))?;
    shared_keys::put(keyring, row, purpose, &root, asked, epoch);
    Ok((root, asked))
}

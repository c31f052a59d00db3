//! What this backend knows: keyrings as the catalog has them, and unwrapped keys.
//!
//! A change of our tables anywhere sets a flag; the next look-up then forgets everything. Nothing is held
//! borrowed while PostgreSQL or the KMS is called.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use pgrx::pg_sys;

use super::catalog::{KeyRow, Keyring, PrivilegeRow, Tables};
use super::counters::{self, Counter};
use super::error::PgError;
use super::guc;
use super::raw::{lock, xact};
use crate::core::filter::Binding;
use crate::core::kdf::{DataKey, IndexKey};
use crate::core::policy::Policy;
use crate::core::secret::RootKey;
use crate::keys::cache::{Cache, SystemClock};
use crate::keys::context::{Purpose, WrapContext};
use crate::kms::{self, Class, Kms, KmsError};

struct Session {
    stale: Cell<bool>,
    generation: Cell<u64>,
    tables: Cell<Option<Tables>>,
    keyrings: RefCell<BTreeMap<i32, Rc<Keyring>>>,
    names: RefCell<HashMap<String, i32>>,
    ids: RefCell<Option<Rc<Ids>>>,
    keys: RefCell<Cache<SystemClock>>,
}

/// Which keyrings there are, as far as choosing one needs it.
struct Ids {
    all: Vec<i32>,
    default: Option<i32>,
}

impl Ids {
    fn only(&self) -> Option<i32> {
        if let [only] = self.all.as_slice() { Some(*only) } else { None }
    }
}

thread_local! {
    static SESSION: Session = Session {
        stale: Cell::new(false),
        generation: Cell::new(0),
        tables: Cell::new(None),
        keyrings: RefCell::default(),
        names: RefCell::default(),
        ids: RefCell::default(),
        keys: RefCell::new(Cache::new(SystemClock)),
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
        }
        // Literals in cached plans are sealed under the key of the day: have them sealed again.
        if ours {
            xact::reset_plans();
        }
    });
}

/// `pgseal.keyring` was set.
pub fn setting_changed() {
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
        if session.stale.replace(false) {
            session.tables.set(None);
            session.keyrings.borrow_mut().clear();
            session.names.borrow_mut().clear();
            session.ids.borrow_mut().take();
            session.keys.borrow_mut().clear();
        }
    });
}

/// Forgets everything at the next look-up, in this session only.
pub fn forget() {
    SESSION.with(|session| session.stale.set(true));
    setting_changed();
}

/// A keyring by id.
pub fn keyring(id: i32) -> Result<Rc<Keyring>, PgError> {
    let tables = tables()?;
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
    let all = tables.keyring_ids(usize::MAX);
    let default = all.iter().find(|(_, default)| *default).map(|(id, _)| *id);
    let ids = Rc::new(Ids { all: all.into_iter().map(|(id, _)| id).collect(), default });
    SESSION.with(|session| session.ids.borrow_mut().replace(ids.clone()));
    Ok(ids)
}

/// The keyring for a new value whose column is unknown: the setting's, else the database's default.
pub fn keyring_for_input() -> Result<i32, PgError> {
    match guc::keyring() {
        Some(name) => keyring_id(&name),
        None => ids()?.default.ok_or(PgError::NoKeyring),
    }
}

/// The keyring that answers where no column names one: the setting's, else the only one there is, else
/// `None`: each value's own.
pub fn keyring_for_search() -> Result<Option<i32>, PgError> {
    match guc::keyring() {
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
    let ids = ids()?;
    let mut refused = PgError::NoKeyring;
    for id in ids.default.iter().chain(&ids.all) {
        match require(&*keyring(*id)?, Privilege::Search) {
            Ok(()) => return Ok(*id),
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
    if newer_key || (binding == Binding::Session && tables.keyring_ids(2).len() != ids()?.all.len().min(2)) {
        forget();
    }
    Ok(())
}

/// Does the role have the privilege? Superusers have all.
pub fn has(keyring: &Keyring, privilege: Privilege) -> bool {
    let role = xact::current_role();
    let granted = |row: &PrivilegeRow| {
        privilege.in_row(row) && (row.role == pg_sys::InvalidOid || xact::has_privileges_of(role, row.role))
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
pub fn writer_key(id: i32) -> Result<(Rc<Keyring>, u16, Rc<DataKey>), PgError> {
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
pub fn data_key(keyring: &Keyring, version: u16) -> Result<Rc<DataKey>, PgError> {
    let id = (keyring.id, version);
    let ttl = guc::key_cache_ttl();
    if let Some(key) = SESSION.with(|session| session.keys.borrow_mut().data(id, ttl)) {
        return Ok(key);
    }
    let row = keyring.data_key(version)?;
    let asked = SESSION.with(|session| session.keys.borrow().now());
    let root = unwrap(keyring, row, Purpose::Data)?;
    let key = DataKey::derive(&root, &keyring.uuid, Some(&row.commitment))
        .map_err(|error| PgError::Commitment(keyring.name.clone(), error))?;
    Ok(SESSION.with(|session| session.keys.borrow_mut().put_data(id, key, asked)))
}

/// An unwrapped index key, from the cache or the KMS.
pub fn index_key(keyring: &Keyring, row: &KeyRow) -> Result<Rc<IndexKey>, PgError> {
    let id = (keyring.id, row.version);
    let ttl = guc::key_cache_ttl();
    if let Some(key) = SESSION.with(|session| session.keys.borrow_mut().index(id, ttl)) {
        return Ok(key);
    }
    let asked = SESSION.with(|session| session.keys.borrow().now());
    let root = unwrap(keyring, row, Purpose::Index)?;
    let key = IndexKey::derive(&root, &keyring.uuid, Some(&row.commitment))
        .map_err(|error| PgError::Commitment(keyring.name.clone(), error))?;
    Ok(SESSION.with(|session| session.keys.borrow_mut().put_index(id, key, asked)))
}

fn unwrap(keyring: &Keyring, row: &KeyRow, purpose: Purpose) -> Result<RootKey, PgError> {
    require_live(keyring, row, purpose)?;
    if SESSION.with(|session| session.keys.borrow_mut().is_denied(keyring.id)) {
        return Err(PgError::Kms(keyring.name.clone(), KmsError::Denied("it was refused a moment ago")));
    }
    let context = WrapContext { keyring: keyring.uuid, purpose, version: row.version };
    with_kms(keyring, |kms| kms.unwrap(&keyring.kms_key, &context, &row.wrapped))
}

/// Runs one call of a KMS, for `pgseal.stat`.
pub fn counted<T>(call: impl FnOnce() -> Result<T, KmsError>) -> Result<T, KmsError> {
    let started = Instant::now();
    let outcome = call();
    counters::count(Counter::KmsCalls);
    counters::add(Counter::KmsMicroseconds, started.elapsed().as_micros() as u64);
    if outcome.is_err() {
        counters::count(Counter::KmsFailures);
    }
    outcome
}

/// Runs one call at a keyring's KMS; a denial drops the keyring's unwrapped keys at once.
pub fn with_kms<T>(
    keyring: &Keyring,
    call: impl FnOnce(&dyn Kms) -> Result<T, KmsError>,
) -> Result<T, PgError> {
    let kms = open_kms(keyring.kms_endpoint.as_deref());
    kms.and_then(|kms| counted(|| call(&*kms))).map_err(|error| {
        if error.class() == Class::Denied {
            SESSION.with(|session| session.keys.borrow_mut().deny(keyring.id));
        }
        // A cancel that is waiting is PostgreSQL's to report, in its own words.
        xact::check_interrupts();
        PgError::Kms(keyring.name.clone(), error)
    })
}

/// The client for an endpoint, or for the server's default one.
pub fn open_kms(endpoint: Option<&str>) -> Result<Box<dyn Kms>, KmsError> {
    let default = guc::kms_endpoint();
    let endpoint =
        endpoint.or(default.as_deref()).ok_or(KmsError::Setting("pgseal.kms_endpoint is not set"))?;
    if let (Some(path), Some(data)) = (endpoint.strip_prefix("file://"), xact::data_directory())
        && resolved(Path::new(path)).starts_with(resolved(Path::new(&data)))
    {
        return Err(KmsError::Endpoint("key files inside the data directory would be in every backup"));
    }
    kms::open(endpoint, &guc::kms_settings())
}

/// The path without links and `..`, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    path.ancestors().find_map(|existing| existing.canonicalize().ok()).unwrap_or_default()
}

//! The keys of an index's pages.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::core::envelope::Envelope;
use crate::core::ivf::key::HeldPageKey;
use crate::core::ivf::meta::Meta;
use crate::core::vector::elements;
use crate::kms::Class;
use crate::pg::catalog::Keyring;
use crate::pg::error::PgError;
use crate::pg::session;
use crate::pg::values::seal::VECTOR;
use zeroize::Zeroizing;

/// How long a backend puts rows aside after a KMS did not answer: so many seconds of waiting a row would be too many.
const PAUSE: Duration = Duration::from_secs(30);

thread_local! {
    static AWAY: RefCell<HashMap<i32, Instant>> = RefCell::default();
}

/// The keys of one index. The session keeps them, and drops them when their time is over.
pub struct Keys {
    meta: Meta,
    keyring: i32,
}

impl Keys {
    /// Of an index whose first page says this.
    pub fn new(meta: &Meta, keyring: i32) -> Self {
        Keys { meta: *meta, keyring }
    }

    /// Whose.
    pub fn keyring(&self) -> i32 {
        self.keyring
    }

    /// Opens pages that this version seals.
    pub fn of_version(&self, version: u16) -> Result<HeldPageKey, PgError> {
        let mut keyring = session::keyring(self.keyring)?;
        if keyring.data_key(version).is_err() {
            // A page may be there before the message of the rotation that made its key.
            session::forget();
            keyring = session::keyring(self.keyring)?;
        }
        session::page_key(&keyring, version, &self.meta.identity(keyring.uuid))
    }

    /// Seals pages: the active version, which is not retired before the transaction ends.
    pub fn active(&self) -> Result<HeldPageKey, PgError> {
        let (keyring, version, _) = session::writer_key(self.keyring)?;
        session::page_key(&keyring, version, &self.meta.identity(keyring.uuid))
    }
}

/// The elements of a stored value, whoever asks: they do not leave the index, and to build one is its owner's affair.
pub fn elements_of(value: &[u8], meta: &Meta) -> Result<Zeroizing<Vec<f32>>, PgError> {
    let envelope = Envelope::parse(value)?;
    let head = envelope.head();
    VECTOR.require(&head)?;
    let mut keyring: Rc<Keyring> = session::keyring(head.keyring)?;
    if keyring.data_key(head.data_version).is_err() {
        session::forget();
        keyring = session::keyring(head.keyring)?;
    }
    let key = session::data_key(&keyring, head.data_version)?;
    let opened = envelope.open(&key, &keyring.uuid)?;
    let elements = Zeroizing::new(elements::from_bytes(opened.content())?);
    elements::check_declared(meta.layout.dimensions, elements.len())?;
    Ok(elements)
}

/// What a key is needed for, or `None` where there is none to be had now: the row is put aside.
pub fn if_there<T>(keyring: i32, work: impl FnOnce() -> Result<T, PgError>) -> Result<Option<T>, PgError> {
    let is_away = |since: &Instant| since.elapsed() < PAUSE;
    if AWAY.with_borrow(|away| away.get(&keyring).is_some_and(is_away)) {
        return Ok(None);
    }
    match work() {
        Ok(done) => Ok(Some(done)),
        Err(PgError::Kms(_, error)) if error.class() != Class::Cancelled => {
            AWAY.with_borrow_mut(|away| away.insert(keyring, Instant::now()));
            Ok(None)
        }
        Err(PgError::UnknownKeyringId(_) | PgError::UnknownKey(..)) => Ok(None),
        Err(error) => Err(error),
    }
}

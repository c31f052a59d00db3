//! Which keyring answers: by its id, by its name, or where none is named.

use std::rc::Rc;

use super::privileges::{Privilege, require};
use super::{Known, catch_up, forget, known, tables};
use crate::core::filter::Binding;
use crate::pg::catalog::Keyring;
use crate::pg::error::PgError;
use crate::pg::settings;

/// A keyring's name is an identifier: NAMEDATALEN - 1.
pub const MAX_NAME_BYTES: usize = 63;

/// Which keyrings there are, as far as choosing one needs it: there may be many.
pub(super) struct Ids {
    first_two: Vec<i32>,
    default: Option<i32>,
}

impl Ids {
    fn only(&self) -> Option<i32> {
        if let [only] = self.first_two.as_slice() { Some(*only) } else { None }
    }
}

/// A keyring by id.
pub fn keyring(id: i32) -> Result<Rc<Keyring>, PgError> {
    // pg_upgrade makes what comes before our tables by its name, literals of views among it.
    let known = known();
    let tables = known.tables().map_err(|_| PgError::UnknownKeyringId(id))?;
    if let Some(keyring) = known.keyrings.borrow().get(&id) {
        return Ok(keyring.clone());
    }
    let keyring = Rc::new(tables.keyring(id)?);
    known.keyrings.borrow_mut().insert(id, keyring.clone());
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
    let known = known();
    let tables = known.tables()?;
    if let Some(id) = known.names.borrow().get(name) {
        return Ok(*id);
    }
    let id = tables.keyring_by_name(name).ok_or_else(|| PgError::UnknownKeyring(name.into()))?;
    known.names.borrow_mut().insert(name.into(), id);
    Ok(id)
}

impl Known {
    fn ids(&self) -> Result<&Ids, PgError> {
        self.ids.get_or_try_init(|| {
            let tables = self.tables()?;
            Ok(Ids { first_two: tables.keyring_ids(2), default: tables.default_keyring() })
        })
    }
}

/// The keyring for a new value whose column is unknown: the setting's, else the database's default.
pub fn keyring_for_input() -> Result<i32, PgError> {
    match settings::keyring() {
        Some(name) => keyring_id(&name),
        None => known().ids()?.default.ok_or(PgError::NoKeyring),
    }
}

/// The keyring that answers where no column names one: the setting's, else the only one there is, else
/// `None`: each value's own.
pub fn keyring_for_search() -> Result<Option<i32>, PgError> {
    match settings::keyring() {
        Some(name) => keyring_id(&name).map(Some),
        None => Ok(known().ids()?.only()),
    }
}

/// A keyring that can seal a query for whichever keyrings answer: the session's choice, else one that the
/// role may search.
pub fn keyring_for_query() -> Result<i32, PgError> {
    if let Some(chosen) = keyring_for_search()? {
        return Ok(chosen);
    }
    let mut refused = PgError::NoKeyring;
    let default = known().ids()?.default;
    for id in default.into_iter().chain(tables()?.keyring_ids(usize::MAX)) {
        match require(&*keyring(id)?, Privilege::Search) {
            Ok(()) => return Ok(id),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Also what has committed without its message having arrived: rows under a newer index key, or, where the session
/// chooses the keyring, of a new keyring, may be visible already.
pub fn catch_up_for_search(id: i32, binding: Binding) -> Result<(), PgError> {
    catch_up();
    let tables = tables()?;
    let newer_key = tables.newest_index(id) != keyring(id)?.newest_index();
    if newer_key
        || (binding == Binding::Session && tables.keyring_ids(2).len() != known().ids()?.first_two.len())
    {
        forget();
    }
    Ok(())
}

//! Making keyrings and their key versions. These functions run as the extension's owner and are revoked
//! from PUBLIC.

use std::collections::HashSet;

use pgrx::{notice, warning};

use crate::core::Uuid;
use crate::core::kdf::{DataKey, IndexKey};
use crate::core::modifier;
use crate::core::policy::{Policy, Scheme};
use crate::core::rng;
use crate::core::secret::RootKey;
use crate::core::token::Tokenizer;
use crate::keys::context::{Purpose, WrapContext};
use crate::keys::state::KeyState;
use crate::kms::KmsError;
use crate::pg::catalog::{self, Keyring, NewKey};
use crate::pg::error::PgError;
use crate::pg::raw::array;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::record;
use crate::pg::raw::xact;
use crate::pg::session::kms;
use crate::pg::session::{self, MAX_NAME_BYTES, Privilege};
use crate::pg::settings;
use crate::pg::values::seal::{self, JSONB};

/// Name of the wrapping key where `create_keyring` is given none.
const DEFAULT_KMS_KEY: &str = "pgseal";

/// `create_keyring(name text, searchable text[], kms_key text, kms_endpoint text, kms_search_key text)`. That of 0.2.0 has no
/// last argument.
pub fn create_keyring(call: Call) -> Returned {
    create(call, None, call.optional_text(4)?)
}

/// `create_numbered_keyring(name text, searchable text[], kms_key text, kms_endpoint text, id int4)`.
pub fn create_numbered_keyring(call: Call) -> Returned {
    create(call, (!call.is_null(4)).then(|| call.int4(4)), None)
}

fn create(call: Call, wanted: Option<i32>, search_key: Option<String>) -> Returned {
    xact::require_writable(c"pgseal.create_keyring()");
    require_coordinator()?;
    let name = call.optional_text(0)?.ok_or_else(|| PgError::Argument("a keyring needs a name".into()))?;
    check_name(&name)?;
    let policy = policy_argument(call, 1, Scheme::Decide)?;
    let kms_key = call.optional_text(2)?.unwrap_or_else(|| DEFAULT_KMS_KEY.into());
    let endpoint = call.optional_text(3)?;
    let tables = session::tables()?;
    if tables.keyring_by_name(&name).is_some() {
        return Err(PgError::KeyringExists(name));
    }
    if let Some(endpoint) = &endpoint {
        require_known_endpoint(endpoint)?;
    }
    let at_kms = |error: KmsError| PgError::Kms(name.clone(), error);
    let service = kms::open(endpoint.as_deref()).map_err(at_kms)?;
    for key in search_key.iter().chain([&kms_key]) {
        kms::counted(|| service.ensure_key(key)).map_err(at_kms)?;
    }
    warn_of_key_files(endpoint.as_deref());
    if endpoint.is_none() && catalog::is_endpoint_of_session()? {
        warning!(
            "pgseal.kms_endpoint is set in this session alone: other sessions will not find the keyring's KMS. Set it in \
             postgresql.conf, or give create_keyring a kms_endpoint"
        );
    }

    let tags: HashSet<i32> = tables.keyring_ids(usize::MAX).into_iter().map(modifier::tag).collect();
    let has_free_tags = wanted.is_none() && tags.len() < modifier::TAGS;
    // A column of vectors tells keyrings apart by their tags.
    let has_own_tag = |id| modifier::tag(id) != 0 && !tags.contains(&modifier::tag(id));
    let taken = |id| tables.keyring_exists(id) || has_free_tags && !has_own_tag(id);
    let (id, uuid) = new_identity(wanted, taken)?;
    let new_key = |purpose, wrapping: &str| {
        new_key(uuid, purpose, 1, |context, root| {
            kms::counted(|| service.wrap(wrapping, context, root)).map_err(at_kms)
        })
    };
    let data = new_key(Purpose::Data, &kms_key)?;
    let index = new_key(Purpose::Index, search_key.as_ref().unwrap_or(&kms_key))?;
    catalog::insert_keyring(id, uuid, &name, endpoint.as_deref(), &kms_key)?;
    // Databases that have not been updated to 0.3.0 have no place for it.
    if search_key.is_some() {
        catalog::set_search_key(id, search_key.as_deref())?;
    }
    catalog::insert_data_key(id, &data)?;
    catalog::insert_index_key(id, &index, &policy)?;
    catalog::insert_all_privileges(id, xact::outer_role())?;
    session::invalidate()?;
    Ok(Some(id.into()))
}

/// Versions that a worker of Citus made would be other keys than the coordinator's of the same number.
fn require_coordinator() -> Result<(), PgError> {
    if catalog::is_worker()? { Err(PgError::Worker) } else { Ok(()) }
}

fn check_name(name: &str) -> Result<(), PgError> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(PgError::Argument(format!("a keyring's name has 1 to {MAX_NAME_BYTES} bytes")));
    }
    // A type modifier that is a number means the keyring's id.
    if name.parse::<i32>().is_ok() || name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PgError::Argument("a keyring's name is not a number".into()));
    }
    Ok(())
}

/// `before` is what the tokens of the keyring are for so far.
fn policy_argument(call: Call, index: usize, before: Scheme) -> Result<Policy, PgError> {
    let paths = if call.is_null(index) { Vec::new() } else { array::texts(call.datum(index))? };
    let paths: Option<Vec<String>> = paths.into_iter().collect();
    let paths = paths.ok_or_else(|| PgError::Argument("a searchable path is NULL".into()))?;
    Ok(Policy::from_paths(settings::token_scheme(before), &paths)?)
}

/// The server's credentials go to the endpoint, so a new one is for superusers to name, not for those who may only
/// create keyrings.
fn require_known_endpoint(endpoint: &str) -> Result<(), PgError> {
    let trusted = xact::is_superuser(xact::outer_role()) && !xact::runs_for_an_owner()
        || settings::kms_endpoint().as_deref() == Some(endpoint)
        || catalog::is_endpoint_in_use(endpoint)?;
    if trusted { Ok(()) } else { Err(PgError::NewEndpoint) }
}

fn warn_of_key_files(endpoint: Option<&str>) {
    let default = settings::kms_endpoint();
    if endpoint.or(default.as_deref()).is_some_and(|endpoint| endpoint.starts_with("file://")) {
        warning!(
            "this keyring's wrapping key is a file on the database server: for development and tests only"
        );
    }
}

/// The id stands in every value, so it comes from the uuid, which two databases never share. The types of a schema that was
/// restored without its rows name one already.
fn new_identity(wanted: Option<i32>, taken: impl Fn(i32) -> bool) -> Result<(i32, Uuid), PgError> {
    if wanted.is_some_and(|id| id <= 0 || taken(id)) {
        return Err(PgError::Argument("the id is not positive, or is that of another keyring".into()));
    }
    loop {
        let mut uuid: Uuid = rng::bytes()?;
        if let Some(id) = wanted {
            uuid[..4].copy_from_slice(&id.to_be_bytes());
        }
        uuid[6] = uuid[6] & 0x0F | 0x40;
        uuid[8] = uuid[8] & 0x3F | 0x80;
        let id = i32::from_be_bytes([uuid[0] & 0x7F, uuid[1], uuid[2], uuid[3]]);
        if id > 0 && !taken(id) {
            return Ok((id, uuid));
        }
    }
}

/// A fresh root key as `wrap` gives it back from the KMS.
fn new_key(
    keyring: Uuid,
    purpose: Purpose,
    version: u16,
    wrap: impl FnOnce(&WrapContext, &RootKey) -> Result<Vec<u8>, PgError>,
) -> Result<NewKey, PgError> {
    let root = rng::root_key()?;
    let wrapped = wrap(&WrapContext { keyring, purpose, version }, &root)?;
    let commitment = match purpose {
        Purpose::Data => DataKey::commitment(&root, &keyring),
        Purpose::Index => IndexKey::commitment(&root, &keyring),
    };
    Ok(NewKey { version, wrapped, commitment })
}

/// `keyring_named(name text)`: its id; an error where there is none.
pub fn keyring_named(call: Call) -> Returned {
    let name = call.optional_text(0)?.ok_or_else(|| PgError::UnknownKeyring(String::new()))?;
    Ok(Some(session::keyring_id(&name)?.into()))
}

/// `set_default_keyring(name text)`; NULL leaves the database without one.
pub fn set_default_keyring(call: Call) -> Returned {
    xact::require_writable(c"pgseal.set_default_keyring()");
    let id = call.optional_text(0)?.map(|name| session::keyring_id(&name)).transpose()?;
    catalog::set_default_keyring(id)?;
    session::invalidate()?;
    Ok(None)
}

/// `rotate_key(keyring text)`: a new data key for new values.
pub fn rotate_key(call: Call) -> Returned {
    xact::require_writable(c"pgseal.rotate_key()");
    let keyring = locked_keyring(call)?;
    let version = catalog::next_data_version(&keyring)?;
    let key = next_key(&keyring, Purpose::Data, version)?;
    catalog::insert_data_key(keyring.id, &key)?;
    session::invalidate()?;
    notice!(
        "new values of keyring \"{}\" use data key version {version}; rows already stored are encrypted anew by CALL pgseal.reencrypt(table, column)",
        keyring.name
    );
    Ok(Some(i32::from(version).into()))
}

/// `rotate_index_key(keyring text)`: a new index key, with the same searchable paths.
pub fn rotate_index_key(call: Call) -> Returned {
    xact::require_writable(c"pgseal.rotate_index_key()");
    let keyring = locked_keyring(call)?;
    let policy = Policy::clone(&keyring.active_index()?.1);
    let scheme = settings::token_scheme(policy.scheme);
    let policy = policy.renewed(scheme);
    new_index_key(&keyring, &policy)
}

/// `searchable_values(encrypted_jsonb)`: for each searchable scalar its declared path, and a number that equal values share.
pub fn searchable_values(call: Call) -> Returned {
    with_searchable_values(call, |values| {
        record::rows(call, values.iter().map(|(path, number)| [(*path).into(), number.cast_signed().into()]))
    })
}

/// Paths whose tokens do not show how common a value is are left out.
pub fn with_searchable_values(call: Call, show: impl FnOnce(&[(&str, u64)]) -> Returned) -> Returned {
    let value = seal::open_for(call.varlena(0).bytes(), &JSONB, Privilege::Decrypt)?;
    let (row, policy) = value.keyring.active_index()?;
    let key = session::index_key(&value.keyring, row)?;
    let tokenizer = Tokenizer { version: row.version, key: &key, policy };
    let mut found = tokenizer.values(value.datum()?.bytes())?;
    found.retain(|(path, _)| !policy.hides_frequency(path));
    show(&found)
}

/// `set_searchable(keyring text, searchable text[])`: a new index key, with these searchable paths.
pub fn set_searchable(call: Call) -> Returned {
    xact::require_writable(c"pgseal.set_searchable()");
    let keyring = locked_keyring(call)?;
    let policy = policy_argument(call, 1, keyring.active_index()?.1.scheme)?;
    let version = new_index_key(&keyring, &policy)?;
    if !policy.is_empty() {
        notice!(
            "searchable paths with few different values, such as booleans, are easily guessed from their tokens; pgseal.check_searchable(table, column) tells which"
        );
    }
    Ok(version)
}

/// Older versions keep their policy, so that rows with their tokens are found until they have new ones.
fn new_index_key(keyring: &Keyring, policy: &Policy) -> Returned {
    let version = catalog::next_index_version(keyring)?;
    let key = next_key(keyring, Purpose::Index, version)?;
    catalog::insert_index_key(keyring.id, &key, policy)?;
    session::invalidate()?;
    notice!(
        "new values of keyring \"{}\" use index key version {version}; rows already stored get new tokens by CALL pgseal.reencrypt(table, column)",
        keyring.name
    );
    Ok(Some(i32::from(version).into()))
}

/// The keyring as it is once no other session can change its keys.
fn locked_keyring(call: Call) -> Result<std::rc::Rc<Keyring>, PgError> {
    require_coordinator()?;
    let id = session::keyring_id(&call.text(0)?)?;
    catalog::lock_keyring(id)?;
    session::forget();
    session::keyring(id)
}

fn next_key(keyring: &Keyring, purpose: Purpose, version: u16) -> Result<NewKey, PgError> {
    new_key(keyring.uuid, purpose, version, |context, root| {
        session::ask_kms(keyring, purpose, |kms, name| kms.wrap(name, context, root))
    })
}

/// `rewrap_keys(keyring text)`: every key under the newest version of the KMS key; no row is touched.
pub fn rewrap_keys(call: Call) -> Returned {
    xact::require_writable(c"pgseal.rewrap_keys()");
    let keyring = locked_keyring(call)?;
    let data = keyring.data_keys.iter().map(|row| (Purpose::Data, row));
    let index = keyring.index_keys.iter().map(|(row, _)| (Purpose::Index, row));
    let mut count = 0;
    for (purpose, row) in data.chain(index).filter(|(_, row)| !row.wrapped.is_empty()) {
        let context = WrapContext { keyring: keyring.uuid, purpose, version: row.version };
        let wrapped =
            session::ask_kms(&keyring, purpose, |kms, name| kms.rewrap(name, &context, &row.wrapped))?;
        catalog::update_wrapped(keyring.id, purpose, row.version, &wrapped)?;
        count += 1;
    }
    session::invalidate()?;
    Ok(Some(count.into()))
}

/// `set_search_key(keyring text, kms_search_key text)`: the index keys are wrapped by that key from now on, by the one of the
/// data keys where it is NULL; no row is touched.
pub fn set_search_key(call: Call) -> Returned {
    xact::require_writable(c"pgseal.set_search_key()");
    let keyring = locked_keyring(call)?;
    let search_key = call.optional_text(1)?;
    let wrapping = search_key.as_ref().unwrap_or(&keyring.kms_key);
    session::ask_kms(&keyring, Purpose::Index, |kms, _| kms.ensure_key(wrapping))?;
    let mut count = 0;
    for (row, _) in keyring.index_keys.iter().filter(|(row, _)| !row.wrapped.is_empty()) {
        let root = session::unwrapped(&keyring, Purpose::Index, row)?;
        let context = WrapContext { keyring: keyring.uuid, purpose: Purpose::Index, version: row.version };
        let wrapped =
            session::ask_kms(&keyring, Purpose::Index, |kms, _| kms.wrap(wrapping, &context, &root))?;
        catalog::update_wrapped(keyring.id, Purpose::Index, row.version, &wrapped)?;
        count += 1;
    }
    catalog::set_search_key(keyring.id, search_key.as_deref())?;
    session::invalidate()?;
    Ok(Some(count.into()))
}

/// `check_active_keys(keyring int4)`: does the KMS unwrap the active keys, and are they the ones that were wrapped?
/// A superuser may go without a KMS that does not answer. Reading the keyring checks every policy.
pub fn check_active_keys(call: Call) -> Returned {
    session::forget();
    let keyring = session::keyring(call.int4(0))?;
    if keyring.kms_endpoint.is_some() && xact::runs_for_an_owner() {
        return Err(PgError::NewEndpoint);
    }
    match unwrap_active(&keyring) {
        Err(PgError::Kms(_, error)) if is_silent(&error) && xact::is_superuser(xact::outer_role()) => {
            warning!(
                "whether the KMS opens the keys of keyring \"{}\" was not checked: {error}",
                keyring.name
            );
            Ok(None)
        }
        checked => checked.map(|()| None),
    }
}

/// The KMS has not said anything about the key.
fn is_silent(error: &KmsError) -> bool {
    use KmsError::{File, Local, Setting, TimedOut, Unreachable};
    matches!(error, Unreachable(_) | TimedOut | Local(_) | File { .. } | Setting(_))
}

fn unwrap_active(keyring: &Keyring) -> Result<(), PgError> {
    let other = |error| PgError::Commitment(keyring.name.clone(), error);
    let data = keyring.active_data()?;
    DataKey::derive(
        &session::unwrapped(keyring, Purpose::Data, data)?,
        &keyring.uuid,
        Some(&data.commitment),
    )
    .map_err(other)?;
    let index = &keyring.active_index()?.0;
    IndexKey::derive(
        &session::unwrapped(keyring, Purpose::Index, index)?,
        &keyring.uuid,
        Some(&index.commitment),
    )
    .map_err(other)?;
    Ok(())
}

/// `may_become(text, text)`: may a key version go from one state to the other?
pub fn may_become(call: Call) -> Returned {
    let (from, to) = (KeyState::parse(&call.text(0)?)?, KeyState::parse(&call.text(1)?)?);
    Ok(Some(from.may_become(to).into()))
}

/// `flush_keys()`: every session drops its unwrapped keys at its next statement after this commits.
pub fn flush_keys(_: Call) -> Returned {
    session::invalidate()?;
    Ok(None)
}

/// `key_tables_changed()`: statement trigger on our tables, for changes that no function made.
pub fn key_tables_changed(_: Call) -> Returned {
    session::invalidate()?;
    Ok(Some(pgrx::pg_sys::Datum::from(0)))
}

//! A session's way to the KMS: its clients, which keep what they logged in for, and its own token if it has one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use crate::keys::context::{Purpose, WrapContext};
use crate::kms::{self, Class, Kms, KmsError, Settings, Token};
use crate::pg::catalog::Keyring;
use crate::pg::counters::{self, Counter};
use crate::pg::error::PgError;
use crate::pg::raw::array;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::varlena;
use crate::pg::raw::xact;
use crate::pg::session;
use crate::pg::settings;

/// Clients kept; a session that meets more endpoints begins anew.
const CLIENTS: usize = 64;

const NO_TOKEN: KmsError = KmsError::Setting(
    "the session's own token is not here; with one, SET max_parallel_workers_per_gather = 0, without, RESET pgseal.kms_token_given",
);

/// A client and what it was made with.
struct Client {
    kms: Rc<dyn Kms>,
    settings: Settings,
    authorities: Option<SystemTime>,
}

thread_local! {
    static CLIENTS_BY_ENDPOINT: RefCell<BTreeMap<String, Client>> = const { RefCell::new(BTreeMap::new()) };
    static TOKEN: RefCell<Option<Rc<Token>>> = const { RefCell::new(None) };
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
pub fn with<T>(keyring: &Keyring, call: impl FnOnce(&dyn Kms) -> Result<T, KmsError>) -> Result<T, PgError> {
    attempt(keyring, call).map_err(|error| PgError::Kms(keyring.name.clone(), error))
}

fn attempt<T>(keyring: &Keyring, call: impl FnOnce(&dyn Kms) -> Result<T, KmsError>) -> Result<T, KmsError> {
    let kms = open(keyring.kms_endpoint.as_deref());
    kms.and_then(|kms| counted(|| call(&*kms))).inspect_err(|error| {
        if error.class() == Class::Denied {
            session::denied(keyring.id);
        }
        // A cancel that is waiting is PostgreSQL's to report, in its own words.
        xact::check_interrupts();
    })
}

/// The client for an endpoint, or for the server's default one.
pub fn open(endpoint: Option<&str>) -> Result<Rc<dyn Kms>, KmsError> {
    let default = settings::kms_endpoint();
    let endpoint =
        endpoint.or(default.as_deref()).ok_or(KmsError::Setting("pgseal.kms_endpoint is not set"))?;
    if let (Some(path), Some(data)) = (endpoint.strip_prefix("file://"), xact::data_directory())
        && resolved(Path::new(path)).starts_with(resolved(&data))
    {
        return Err(KmsError::Endpoint("key files inside the data directory would be in every backup"));
    }
    let settings = Settings { token: TOKEN.with_borrow(Clone::clone), ..settings::kms_settings() };
    if has_token() && settings.token.is_none() {
        return Err(NO_TOKEN);
    }
    let authorities = settings.ca_file.as_deref().and_then(changed);
    CLIENTS_BY_ENDPOINT.with_borrow_mut(|clients| {
        if let Some(client) = clients.get(endpoint)
            && client.settings == settings
            && client.authorities == authorities
        {
            return Ok(client.kms.clone());
        }
        let kms = kms::open(endpoint, &settings)?;
        if clients.len() >= CLIENTS {
            clients.clear();
        }
        clients.insert(endpoint.to_owned(), Client { kms: kms.clone(), settings, authorities });
        Ok(kms)
    })
}

/// When a file was last changed.
fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// The path without links and `..`, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    path.ancestors().find_map(|existing| existing.canonicalize().ok()).unwrap_or_default()
}

/// Drops every client, and with them what they logged in for.
pub fn forget_clients() {
    CLIENTS_BY_ENDPOINT.with_borrow_mut(BTreeMap::clear);
}

/// The session has a token of its own: what it unwraps is for nobody else, and it takes nothing from others. So it is
/// in a parallel worker, which gets the setting but not the token.
pub fn has_token() -> bool {
    settings::is_token_given()
}

/// `kms_endpoint()`: the setting; NULL where it is not set.
pub fn kms_endpoint(_: Call) -> Returned {
    Ok(settings::kms_endpoint().map(|endpoint| varlena(endpoint.as_bytes()).datum()))
}

/// `set_kms_token(token text)`; NULL goes back to the server's credentials. The setting behind it makes RESET ALL,
/// DISCARD ALL and a rollback take the token away.
pub fn set_kms_token(call: Call) -> Returned {
    let text = call.optional_text(0)?.map(zeroize::Zeroizing::new);
    let token = text.as_ref().map(|text| {
        let token = Token::parse(text);
        token.ok_or_else(|| PgError::Argument("a KMS token is one word of printable ASCII".into()))
    });
    let token = token.transpose()?;
    replace_token(token);
    settings::set_token_given(TOKEN.with_borrow(Option::is_some));
    Ok(None)
}

/// The setting behind the token was reset.
pub fn token_taken() {
    replace_token(None);
}

/// Keys unwrapped with the old credentials are not for the new ones.
fn replace_token(token: Option<Token>) {
    let taken = token.is_some();
    let before = TOKEN.replace(token.map(Rc::new));
    if before.is_some() || taken {
        forget_clients();
        session::forget_keys();
    }
}

/// `kms_problem(keyring text)`: asks the keyring's KMS for its active data key, whatever is cached. `{}` where all is
/// well, else what is wrong and what to do.
pub fn kms_problem(call: Call) -> Returned {
    let keyring = session::keyring(session::keyring_id(&call.text(0)?)?)?;
    let row = keyring.active_data()?;
    let context = WrapContext { keyring: keyring.uuid, purpose: Purpose::Data, version: row.version };
    let outcome = attempt(&keyring, |kms| kms.unwrap(&keyring.kms_key, &context, &row.wrapped).map(drop));
    let problem = outcome.err().map(|error| PgError::Kms(keyring.name.clone(), error));
    let texts: Vec<String> = problem
        .map(|problem| vec![problem.to_string(), problem.hint().unwrap_or_default().to_owned()])
        .unwrap_or_default();
    let texts: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
    Ok(Some(array::of_texts(&texts).datum()))
}

//! A session's way to the KMS: its clients, which keep what they logged in for, and its own token if it has one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use crate::kms::{self, Kms, KmsError, Settings, Token};
use crate::pg::counters::{self, Counter};
use crate::pg::raw::xact;
use crate::pg::settings;

/// Clients kept; a session that meets more endpoints begins anew.
const CLIENTS: usize = 64;

const NO_TOKEN: KmsError = KmsError::Setting(
    "the session's own token is not here; with one, SET max_parallel_workers_per_gather = 0, without, RESET pgseal.kms_token_given",
);

/// A client and what it was made with.
struct Connected {
    kms: Rc<dyn Kms>,
    settings: Settings,
    authorities: Option<SystemTime>,
}

thread_local! {
    static CLIENTS_BY_ENDPOINT: RefCell<BTreeMap<String, Connected>> = const { RefCell::new(BTreeMap::new()) };
    static TOKEN: RefCell<Option<Rc<Token>>> = const { RefCell::new(None) };
    /// The token is the transaction's.
    static IS_LOCAL: Cell<bool> = const { Cell::new(false) };
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

/// The client for an endpoint, or for the server's default one.
pub fn open(endpoint: Option<&str>) -> Result<Rc<dyn Kms>, KmsError> {
    let default = settings::kms_endpoint();
    let endpoint =
        endpoint.or(default.as_deref()).ok_or(KmsError::Endpoint("pgseal.kms_endpoint is not set"))?;
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
        clients.insert(endpoint.to_owned(), Connected { kms: kms.clone(), settings, authorities });
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

/// The token ends with the transaction.
pub fn is_token_local() -> bool {
    IS_LOCAL.get()
}

/// Takes another token, or none; is anything different now?
pub fn replace_token(token: Option<Token>, is_local: bool) -> bool {
    IS_LOCAL.set(is_local);
    let taken = token.is_some();
    TOKEN.replace(token.map(Rc::new)).is_some() || taken
}

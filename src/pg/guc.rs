//! Settings. Credentials only ever by reference: the name of a file, never the secret.

use std::ffi::{CStr, CString};
use std::path::PathBuf;
use std::time::Duration;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

use super::raw::xact;
use crate::kms::{Settings, VaultLogin};

static KMS_ENDPOINT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static KMS_TOKEN_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static KMS_CA_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static KMS_TIMEOUT_MS: GucSetting<i32> = GucSetting::<i32>::new(3_000);
static KEY_CACHE_TTL_S: GucSetting<i32> = GucSetting::<i32>::new(300);
static KEYRING: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static ACCEPT_SEALED: GucSetting<bool> = GucSetting::<bool>::new(true);

/// Defines every setting; from `_PG_init`.
pub fn define() {
    text(
        c"pgseal.kms_endpoint",
        c"Where the keys that wrap this database's keys are.",
        c"file:///directory, or vault+https://host:port/mount. A keyring may have an endpoint of its own.",
        &KMS_ENDPOINT,
        GucContext::Suset,
    );
    text(
        c"pgseal.kms_token_file",
        c"File that holds the token for the KMS.",
        c"Read for every KMS call, so that it can be replaced at any time.",
        &KMS_TOKEN_FILE,
        GucContext::Suset,
    );
    text(
        c"pgseal.kms_ca_file",
        c"File of the certificate authorities (PEM) that the KMS's certificate must come from.",
        c"Without it the public ones are used.",
        &KMS_CA_FILE,
        GucContext::Suset,
    );
    GucRegistry::define_int_guc(
        c"pgseal.kms_timeout",
        c"Longest time that one KMS call may take.",
        c"Retries are inside it.",
        &KMS_TIMEOUT_MS,
        100,
        60_000,
        GucContext::Suset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pgseal.key_cache_ttl",
        c"How long a session keeps an unwrapped key, counted from when it was unwrapped.",
        c"Zero asks the KMS for every value: for tests only.",
        &KEY_CACHE_TTL_S,
        0,
        3_600,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    define_keyring();
    GucRegistry::define_bool_guc(
        c"pgseal.accept_sealed",
        c"Accept values that arrive already encrypted, as a restore needs it.",
        c"Switch it off for application roles: ALTER ROLE app SET pgseal.accept_sealed = off.",
        &ACCEPT_SEALED,
        GucContext::Userset,
        GucFlags::default(),
    );
    xact::reserve_settings();
}

fn text(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<Option<CString>>,
    context: GucContext,
) {
    GucRegistry::define_string_guc(name, short, long, setting, context, GucFlags::default());
}

/// A change of `pgseal.keyring` makes filters look again at which keyring they are for.
fn define_keyring() {
    xact::define_watched_setting(
        c"pgseal.keyring",
        c"Keyring for values and filters whose column does not name one.",
        c"Not an isolation between tenants: row-level security is.",
        &KEYRING,
    );
}

/// `pgseal.kms_endpoint`, where set.
pub fn kms_endpoint() -> Option<String> {
    string(&KMS_ENDPOINT)
}

/// `pgseal.keyring`, where set.
pub fn keyring() -> Option<String> {
    string(&KEYRING)
}

/// `pgseal.accept_sealed`.
pub fn accept_sealed() -> bool {
    ACCEPT_SEALED.get()
}

/// `pgseal.key_cache_ttl`.
pub fn key_cache_ttl() -> Duration {
    Duration::from_secs(KEY_CACHE_TTL_S.get() as u64)
}

/// What a KMS client needs to know.
pub fn kms_settings() -> Settings {
    let vault =
        VaultLogin { token_file: string(&KMS_TOKEN_FILE).map(PathBuf::from), ..VaultLogin::default() };
    Settings {
        ca_file: string(&KMS_CA_FILE).map(PathBuf::from),
        vault,
        ..Settings::new(Duration::from_millis(KMS_TIMEOUT_MS.get() as u64), xact::interrupted)
    }
}

/// An empty setting counts as none.
fn string(setting: &GucSetting<Option<CString>>) -> Option<String> {
    let text = setting.get()?.to_string_lossy().into_owned();
    (!text.is_empty()).then_some(text)
}

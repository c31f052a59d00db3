//! Settings. Credentials only ever by reference: the name of a file, never the secret.

use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

use crate::core::ivf::search::{Late, Options};
use crate::core::policy::Scheme;
use crate::core::vector::quantiser::EPSILON;
use crate::keys::shared::WAYS;
use crate::kms::{Settings, VaultAuth, VaultLogin};
use crate::pg::raw::encoding::shown;
use crate::pg::raw::{reveal, setting, xact};

static KMS_ENDPOINT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static KMS_TOKEN_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static KMS_CA_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static KMS_AUTH: GucSetting<KmsAuth> = GucSetting::<KmsAuth>::new(KmsAuth::token);
static KMS_AUTH_MOUNT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static KMS_ROLE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static KMS_SECRET_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static KMS_NAMESPACE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static TOKEN_GIVEN: GucSetting<bool> = GucSetting::<bool>::new(false);
static LOG_DECRYPTS: GucSetting<LogDecrypts> = GucSetting::<LogDecrypts>::new(LogDecrypts::off);
static SHARED_KEYS: GucSetting<i32> = GucSetting::<i32>::new(1_024);
static KMS_TIMEOUT_MS: GucSetting<i32> = GucSetting::<i32>::new(3_000);
static KEY_CACHE_TTL_S: GucSetting<i32> = GucSetting::<i32>::new(300);
static KEYRING: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static IVF_ORDER: GucSetting<IvfOrder> = GucSetting::<IvfOrder>::new(IvfOrder::complete);
static IVF_PATIENCE: GucSetting<i32> = GucSetting::<i32>::new(24);
static IVF_EPSILON: GucSetting<f64> = GucSetting::<f64>::new(EPSILON as f64);
static TOKENS: GucSetting<Tokens> = GucSetting::<Tokens>::new(Tokens::auto);
static RECHECK: GucSetting<Recheck> = GucSetting::<Recheck>::new(Recheck::auto);
static ACCEPT_SEALED: GucSetting<bool> = GucSetting::<bool>::new(true);

/// Values of `pgseal.kms_auth`.
#[derive(Clone, Copy, PostgresGucEnum)]
#[allow(non_camel_case_types, reason = "they are spelt so in the configuration")]
enum KmsAuth {
    token,
    approle,
    kubernetes,
}

/// Values of `pgseal.log_decrypts`.
#[derive(Clone, Copy, PartialEq, PostgresGucEnum)]
#[allow(non_camel_case_types, reason = "they are spelt so in the configuration")]
enum LogDecrypts {
    off,
    statement,
}

/// Values of `pgseal.tokens`.
#[derive(Clone, Copy, PostgresGucEnum)]
#[allow(non_camel_case_types, reason = "they are spelt so in the configuration")]
enum Tokens {
    auto,
    decide,
    narrow,
}

/// Values of `pgseal.recheck`.
#[derive(Clone, Copy, PartialEq, PostgresGucEnum)]
#[allow(non_camel_case_types, reason = "they are spelt so in the configuration")]
enum Recheck {
    auto,
    always,
}

/// Values of `pgseal.ivf_order`.
#[derive(Clone, Copy, PostgresGucEnum)]
#[allow(non_camel_case_types, reason = "they are spelt so in the configuration")]
enum IvfOrder {
    complete,
    strict,
    relaxed,
}

/// Defines every setting; what is called when one of them changes is in raw. From `_PG_init`.
pub fn define() {
    text(
        c"pgseal.kms_endpoint",
        c"Where the keys that wrap this database's keys are.",
        c"Such as vault+https://host:port/mount or file:///directory. A keyring may have an endpoint of its own.",
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
    define_log_in();
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
    GucRegistry::define_enum_guc(
        c"pgseal.log_decrypts",
        c"Log who decrypts how many values under which keys.",
        c"statement: a line at the first value of a statement and one with the counts at its end; never a value.",
        &LOG_DECRYPTS,
        GucContext::Suset,
        GucFlags::default(),
    );
    define_tokens();
    define_token();
    define_reveal();
    if xact::is_preloading() {
        define_shared_keys();
    }
    define_ivf();
    setting::reserve_prefix();
}

/// How to log in to Vault and OpenBao.
fn define_log_in() {
    GucRegistry::define_enum_guc(
        c"pgseal.kms_auth",
        c"How to log in to Vault or OpenBao.",
        c"token: with pgseal.kms_token_file. approle, kubernetes: with pgseal.kms_role and pgseal.kms_secret_file.",
        &KMS_AUTH,
        GucContext::Suset,
        GucFlags::default(),
    );
    text(
        c"pgseal.kms_auth_mount",
        c"Where the log-in method is mounted in Vault or OpenBao.",
        c"Without it: approle or kubernetes.",
        &KMS_AUTH_MOUNT,
        GucContext::Suset,
    );
    text(
        c"pgseal.kms_role",
        c"AppRole's role id, or the Kubernetes role.",
        c"The secret to it is in pgseal.kms_secret_file.",
        &KMS_ROLE,
        GucContext::Suset,
    );
    text(
        c"pgseal.kms_secret_file",
        c"File with AppRole's secret id, or with the service account's token for Kubernetes.",
        c"Read at every log-in. For Kubernetes the pod's own token where it is not set.",
        &KMS_SECRET_FILE,
        GucContext::Suset,
    );
    text(
        c"pgseal.kms_namespace",
        c"Namespace in Vault or OpenBao.",
        c"An endpoint may name another one: vault+https://host:port/mount?namespace=team-a",
        &KMS_NAMESPACE,
        GucContext::Suset,
    );
}

/// How tokens are made, and whether they decide.
fn define_tokens() {
    GucRegistry::define_enum_guc(
        c"pgseal.tokens",
        c"What the tokens of index keys made from now on are for.",
        c"narrow: where to look, 8 bytes each. decide: 16 bytes, with which most filters need not decrypt the rows that they find. auto: as before, at first decide.",
        &TOKENS,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"pgseal.recheck",
        c"Which of the rows that the token index finds are decrypted to be compared.",
        c"auto: those that tokens do not decide. always: all.",
        &RECHECK,
        GucContext::Suset,
        GucFlags::default(),
    );
}

/// PostgreSQL allows a setting of this kind only while the library is being preloaded.
fn define_shared_keys() {
    GucRegistry::define_int_guc(
        c"pgseal.shared_keys",
        c"Number of unwrapped keys that all sessions share.",
        c"A keyring has at least two. Zero shares none; 88 bytes each.",
        &SHARED_KEYS,
        0,
        1_048_576,
        GucContext::Postmaster,
        GucFlags::default(),
    );
}

/// How a scan of a sealed index searches; none depends on what one index is like.
fn define_ivf() {
    GucRegistry::define_enum_guc(
        c"pgseal.ivf_order",
        c"What a scan of a sealed index does with a row that it finds too late for its place.",
        c"complete: it comes after all others. strict: it does not come. relaxed: it comes at once.",
        &IVF_ORDER,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pgseal.ivf_patience",
        c"How many lists of a sealed index in a row may bring nothing near before a scan stops reading more.",
        c"The more, the fewer near rows are missed, and the longer it takes.",
        &IVF_PATIENCE,
        0,
        1_000_000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_float_guc(
        c"pgseal.ivf_epsilon",
        c"How many standard errors below its estimate a row's distance is thought to be possible.",
        c"The more, the fewer near rows are missed, and the more rows are decrypted.",
        &IVF_EPSILON,
        0.0,
        1_000_000.0,
        GucContext::Userset,
        GucFlags::default(),
    );
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
    setting::define_watched(
        c"pgseal.keyring",
        c"Keyring for values and filters whose column does not name one.",
        c"Not an isolation between tenants: row-level security is.",
        &KEYRING,
    );
}

/// Stands for the session's token, which no setting may hold.
fn define_token() {
    setting::define_token(
        c"pgseal.kms_token_given",
        c"The session has a KMS token of its own.",
        c"pgseal.set_kms_token(...) sets it; resetting it takes the token away.",
        &TOKEN_GIVEN,
    );
}

fn define_reveal() {
    reveal::define_setting(
        c"pgseal.reveal",
        c"Return encrypted columns of SELECT and RETURNING decrypted, as jsonb and text.",
        c"By SET, in connection options, or by a superuser for a role or a database. The library must be loaded before: session_preload_libraries = 'pgseal'.",
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

/// `pgseal.tokens`, for the next index key after one with `before`.
pub fn token_scheme(before: Scheme) -> Scheme {
    match TOKENS.get() {
        Tokens::auto => before,
        Tokens::decide => Scheme::Decide,
        Tokens::narrow => Scheme::Narrow,
    }
}

/// `pgseal.recheck` is always.
pub fn rechecks_always() -> bool {
    RECHECK.get() == Recheck::always
}

/// `pgseal.accept_sealed`.
pub fn accept_sealed() -> bool {
    ACCEPT_SEALED.get()
}

/// `pgseal.key_cache_ttl`.
pub fn key_cache_ttl() -> Duration {
    Duration::from_secs(KEY_CACHE_TTL_S.get() as u64)
}

/// `pgseal.log_decrypts` is not off.
pub fn logs_decrypts() -> bool {
    LOG_DECRYPTS.get() != LogDecrypts::off
}

/// `pgseal.shared_keys`, in whole buckets.
pub fn shared_keys() -> usize {
    (SHARED_KEYS.get() as usize).next_multiple_of(WAYS)
}

/// `pgseal.kms_token_given`.
pub fn is_token_given() -> bool {
    TOKEN_GIVEN.get()
}

/// Puts the session's token under the rules of settings: RESET ALL, DISCARD ALL and a rollback take it away, and the
/// transaction's end one that is local.
pub fn set_token_given(given: bool, is_local: bool) {
    setting::set_boolean(c"pgseal.kms_token_given", given, is_local);
}

/// What a KMS client needs to know.
pub fn kms_settings() -> Settings {
    let vault = VaultLogin {
        auth: match KMS_AUTH.get() {
            KmsAuth::token => VaultAuth::Token,
            KmsAuth::approle => VaultAuth::AppRole,
            KmsAuth::kubernetes => VaultAuth::Kubernetes,
        },
        token_file: path(&KMS_TOKEN_FILE),
        mount: string(&KMS_AUTH_MOUNT),
        role: string(&KMS_ROLE),
        secret_file: path(&KMS_SECRET_FILE),
        namespace: string(&KMS_NAMESPACE),
    };
    Settings {
        ca_file: path(&KMS_CA_FILE),
        vault,
        ..Settings::new(Duration::from_millis(KMS_TIMEOUT_MS.get() as u64), xact::interrupted)
    }
}

/// An empty setting counts as none. What is not UTF-8 names nothing that exists.
fn string(setting: &GucSetting<Option<CString>>) -> Option<String> {
    let text = shown(setting.get()?.to_bytes());
    (!text.is_empty()).then_some(text)
}

/// The name of a file, byte by byte.
fn path(setting: &GucSetting<Option<CString>>) -> Option<PathBuf> {
    let bytes = setting.get()?.into_bytes();
    (!bytes.is_empty()).then(|| OsString::from_vec(bytes).into())
}

/// `pgseal.ivf_order`, `pgseal.ivf_patience` and `pgseal.ivf_epsilon`.
pub fn ivf_options() -> Options {
    Options {
        epsilon: IVF_EPSILON.get() as f32,
        patience: IVF_PATIENCE.get() as usize,
        late: match IVF_ORDER.get() {
            IvfOrder::complete => Late::AtEnd,
            IvfOrder::strict => Late::Never,
            IvfOrder::relaxed => Late::AtOnce,
        },
        ..Options::default()
    }
}

/// `pgseal.ivf_patience`.
pub fn ivf_patience() -> u32 {
    IVF_PATIENCE.get() as u32
}

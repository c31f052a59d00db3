//! Clients of the customer's key management service, one per file behind [`Kms`]. No PostgreSQL here.
//!
//! A call blocks, is bounded by [`Settings::timeout`] and notices a cancel; nothing is kept open between
//! calls. Never call from the postmaster, per row, in a GIN support function or while planning.

#![forbid(unsafe_code)]

mod address;
mod aws;
mod azure;
mod error;
mod file;
mod gcp;
mod http;
mod oauth;
mod transport;
mod vault;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use zeroize::Zeroizing;

use self::http::Watch;
use crate::core::secret::RootKey;
use crate::keys::context::WrapContext;

pub use aws::AwsKms;
pub use azure::AzureKms;
pub use error::{Class, KmsError};
pub use file::FileKms;
pub use gcp::GcpKms;
pub use vault::{VaultAuth, VaultKms, VaultLogin};

/// Characters of base64 for 32 bytes.
const KEY_TEXT_BYTES: usize = 44;
/// Bytes of the longest token; a JSON web token has a few thousand.
const TOKEN_LIMIT: usize = 8 * 1024;
/// Bytes of the longest KMS key name.
const NAME_BYTES: usize = 128;

/// One key management service. `key` is the name of a KMS key there, `context` what the wrapped key belongs to.
pub trait Kms {
    /// Readies `key` for a new keyring: makes it where the service is a directory, else checks that it is there
    /// and fit for use. Call it once, before the first [`Kms::wrap`].
    fn ensure_key(&self, key: &str) -> Result<(), KmsError>;

    /// Encrypts `root` under the newest version of `key`, bound to `context`.
    fn wrap(&self, key: &str, context: &WrapContext, root: &RootKey) -> Result<Vec<u8>, KmsError>;

    /// The root key back. [`KmsError::Denied`] where `key` or `context` is not the one it was wrapped with.
    fn unwrap(&self, key: &str, context: &WrapContext, wrapped: &[u8]) -> Result<RootKey, KmsError>;

    /// The same root key under the newest version of `key`.
    fn rewrap(&self, key: &str, context: &WrapContext, wrapped: &[u8]) -> Result<Vec<u8>, KmsError>;
}

/// A service that encrypts and decrypts, and knows nothing more. `data` is authenticated with the key, not stored.
trait Cipher {
    /// The time for one operation starts.
    fn begin(&self) -> Watch;
    fn encrypt(&self, watch: Watch, key: &str, data: &[u8], root: &RootKey) -> Result<Vec<u8>, KmsError>;
    fn decrypt(&self, watch: Watch, key: &str, data: &[u8], wrapped: &[u8]) -> Result<RootKey, KmsError>;
}

/// In place of a context in [`Kms::ensure_key`]; no context is like it.
const CHECK: &[u8] = b"app=pgseal,check";

impl<T: Cipher> Kms for T {
    /// Encrypts nothing of value and decrypts it again: what keyrings need, and no permission more.
    fn ensure_key(&self, key: &str) -> Result<(), KmsError> {
        let watch = self.begin();
        let wrapped = self.encrypt(watch, key, CHECK, &RootKey::zeroed())?;
        self.decrypt(watch, key, CHECK, &wrapped).map(|_| ())
    }

    fn wrap(&self, key: &str, context: &WrapContext, root: &RootKey) -> Result<Vec<u8>, KmsError> {
        self.encrypt(self.begin(), key, &context.bytes(), root)
    }

    fn unwrap(&self, key: &str, context: &WrapContext, wrapped: &[u8]) -> Result<RootKey, KmsError> {
        self.decrypt(self.begin(), key, &context.bytes(), wrapped)
    }

    fn rewrap(&self, key: &str, context: &WrapContext, wrapped: &[u8]) -> Result<Vec<u8>, KmsError> {
        let watch = self.begin();
        let root = self.decrypt(watch, key, &context.bytes(), wrapped)?;
        self.encrypt(watch, key, &context.bytes(), &root)
    }
}

/// How to reach a service. Credentials are named here, never held, but for a token that a session brought along.
#[derive(Clone)]
pub struct Settings {
    /// Longest time for one operation, retries and log-ins included; more than zero. A name lookup is not
    /// bounded by it.
    pub timeout: Duration,
    /// PEM file of the only authorities to trust; without it those of Mozilla (webpki-roots).
    pub ca_file: Option<PathBuf>,
    /// Whether to give up now; asked at most every 50 ms and expected to stay true once it is.
    pub interrupted: fn() -> bool,
    /// The process's environment, where the clouds' own tools look for credentials.
    pub variable: fn(&str) -> Option<String>,
    /// How to log in to Vault and OpenBao.
    pub vault: VaultLogin,
    /// A session's own bearer token; used instead of all other credentials.
    pub token: Option<Rc<Token>>,
}

/// A token as it goes into a header. Wiped when dropped.
pub struct Token(Zeroizing<String>);

impl Token {
    /// One word of printable ASCII, at most 8 KiB; spaces and line ends around it are dropped.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        (word && text.len() <= TOKEN_LIMIT).then(|| Token(Zeroizing::new(text.to_owned())))
    }

    fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Settings {
    /// Whether a client made with one will do for the other; a token is compared by identity.
    fn eq(&self, other: &Self) -> bool {
        let tokens = (self.token.as_ref().map(Rc::as_ptr), other.token.as_ref().map(Rc::as_ptr));
        self.timeout == other.timeout
            && self.ca_file == other.ca_file
            && self.vault == other.vault
            && tokens.0 == tokens.1
    }
}

impl Settings {
    /// What most settings are; `interrupted` and `variable` have no sensible default elsewhere.
    pub fn new(timeout: Duration, interrupted: fn() -> bool) -> Self {
        Settings {
            timeout,
            ca_file: None,
            interrupted,
            variable: |name| std::env::var(name).ok(),
            vault: VaultLogin::default(),
            token: None,
        }
    }
}

/// The client for `endpoint`, by its scheme. Reads files but does not connect. A client may keep a credential that
/// it logged in for, and renews it by itself; it is for one process and one thread.
pub fn open(endpoint: &str, settings: &Settings) -> Result<Rc<dyn Kms>, KmsError> {
    let Some((scheme, rest)) = endpoint.split_once("://") else {
        return Err(KmsError::Endpoint("it does not start with a scheme such as file:// or vault+https://"));
    };
    match scheme {
        "file" => Ok(Rc::new(FileKms::open(rest)?)),
        "vault+https" => Ok(Rc::new(VaultKms::open(true, rest, settings)?)),
        "vault+http" => Ok(Rc::new(VaultKms::open(false, rest, settings)?)),
        "aws-kms" => Ok(Rc::new(AwsKms::open(rest, settings)?)),
        "gcp-kms" => Ok(Rc::new(GcpKms::open(rest, settings)?)),
        "azure-kv" => Ok(Rc::new(AzureKms::open(rest, settings)?)),
        _ => Err(KmsError::Endpoint(
            "its scheme is none of file, vault+https, vault+http, aws-kms, gcp-kms and azure-kv",
        )),
    }
}

/// Passes the names that are safe as a file name and as a URL segment.
fn check_name(key: &str) -> Result<(), KmsError> {
    if is_segment(key) && key.len() <= NAME_BYTES {
        return Ok(());
    }
    Err(KmsError::Setting(
        "a KMS key name has 1 to 128 letters, digits, dots, underscores and hyphens and does not start with a dot",
    ))
}

/// One or more of `[A-Za-z0-9._-]`, no dot first.
fn is_segment(text: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(safe)
}

/// All of `source`, or `None` when it has more than `limit` bytes. One buffer, so no copy stays behind.
fn read_bounded(source: &mut impl Read, limit: usize) -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut buffer = Zeroizing::new(vec![0; limit + 1]);
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok((filled <= limit).then_some(buffer))
}

/// The one token that a file holds.
fn read_token(path: &Path, what: KmsError) -> Result<Token, KmsError> {
    let bytes = read_file(path, TOKEN_LIMIT, what)?;
    std::str::from_utf8(&bytes).ok().and_then(Token::parse).ok_or(what)
}

/// A small regular file; `what` is the error otherwise. Looks first, because opening a pipe would hang.
fn read_file(path: &Path, limit: usize, what: KmsError) -> Result<Zeroizing<Vec<u8>>, KmsError> {
    let regular = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    if !regular {
        return Err(what);
    }
    let read = std::fs::File::open(path).and_then(|mut file| read_bounded(&mut file, limit));
    read.ok().flatten().ok_or(what)
}

/// Takes a string out of an answer, so that it is wiped.
fn take(data: &mut Value, name: &str) -> Option<Zeroizing<String>> {
    match data.get_mut(name).map(Value::take) {
        Some(Value::String(text)) => Some(Zeroizing::new(text)),
        _ => None,
    }
}

/// A root key as base64.
fn key_text(root: &RootKey) -> Result<Zeroizing<String>, KmsError> {
    let mut bytes = Zeroizing::new([0; KEY_TEXT_BYTES]);
    let encoded = STANDARD.encode_slice(root.expose(), bytes.as_mut_slice());
    let text = encoded.ok().and_then(|length| std::str::from_utf8(&bytes[..length]).ok());
    text.map(|text| Zeroizing::new(text.to_owned())).ok_or(KmsError::Local("a key could not be encoded"))
}

/// A root key from base64; `None` unless exactly 32 bytes.
fn key_from_text(text: &str) -> Option<RootKey> {
    if text.len() != KEY_TEXT_BYTES {
        return None;
    }
    // The decoder asks for room for a text without padding.
    let mut bytes = Zeroizing::new([0; 33]);
    let length = STANDARD.decode_slice(text, bytes.as_mut_slice()).ok()?;
    RootKey::from_slice(&bytes[..length])
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::assert_not_impl_any;
    use std::fmt::{Debug, Display};

    assert_not_impl_any!(Token: Debug, Display, Clone, PartialEq, serde::Serialize);

    fn settings() -> Settings {
        let mut settings = Settings::new(Duration::from_secs(1), || false);
        settings.vault.token_file = Some("/nonexistent".into());
        settings
    }

    #[test]
    fn endpoints_open_by_scheme() {
        for good in [
            "file:///k",
            "vault+http://127.0.0.1:8200/transit",
            "vault+https://vault.example:8200/transit",
            "aws-kms://eu-west-1",
            "gcp-kms://projects/p/locations/l/keyRings/r",
            "azure-kv://name.vault.azure.net",
        ] {
            assert!(open(good, &settings()).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/dir",
            "http://127.0.0.1:8200/transit",
            "FILE:///k",
            "vault://h:1/m",
            "aws-kms://",
            "gcp-kms://",
            "azure-kv://",
        ] {
            assert!(matches!(open(bad, &settings()), Err(KmsError::Endpoint(_))), "{bad}");
        }
    }

    #[test]
    fn names_cannot_leave_their_place() {
        let long = "k".repeat(129);
        for bad in
            ["", ".", "..", ".k", "a/b", "a b", "a%2fb", "k\0", "k\n", "schl\u{fc}ssel", "a?b", long.as_str()]
        {
            assert!(matches!(check_name(bad), Err(KmsError::Setting(_))), "{bad:?}");
        }
        for good in ["k", "tenant-7.main_key", &long[..128]] {
            assert_eq!(check_name(good), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn keys_as_text_are_exact() {
        let root = crate::core::rng::root_key().unwrap();
        let text = key_text(&root).unwrap();
        assert_eq!(key_from_text(&text).unwrap().expose(), root.expose());
        for bad in ["", &text[..43], &text[..40], &format!("{}!", &text[..43]), &"A".repeat(44)] {
            assert!(key_from_text(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn reading_stops_at_the_limit() {
        assert_eq!(read_bounded(&mut &b"four"[..], 4).unwrap().unwrap().as_slice(), b"four");
        assert!(read_bounded(&mut &b"fives"[..], 4).unwrap().is_none());
        assert!(read_bounded(&mut std::io::repeat(7), 4).unwrap().is_none());
    }
}

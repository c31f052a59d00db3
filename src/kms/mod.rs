//! Clients of the customer's key management service, one per file behind [`Kms`]. No PostgreSQL here.
//!
//! A call blocks, is bounded by [`Settings::timeout`] and notices a cancel; nothing is kept open between
//! calls. Never call from the postmaster, per row, in a GIN support function or while planning.

#![forbid(unsafe_code)]

mod address;
mod aws;
mod azure;
mod body;
mod error;
mod file;
mod files;
mod gcp;
mod http;
mod oauth;
mod settings;
mod text;
mod transport;
mod vault;

use std::rc::Rc;

use self::http::Watch;
use crate::core::secret::RootKey;
use crate::keys::context::WrapContext;

pub use aws::AwsKms;
pub use azure::AzureKms;
pub use error::{Class, KmsError};
pub use file::FileKms;
pub use gcp::GcpKms;
pub use settings::{Environment, Settings, Token};
pub use vault::{VaultAuth, VaultKms, VaultLogin};

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
}

//! What can go wrong with a KMS. Every text is fixed: no URL, key name, token or remote body can get in.

/// A failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KmsError {
    /// The endpoint's text is not usable.
    #[error("invalid KMS endpoint: {0}")]
    Endpoint(&'static str),
    /// Another setting or a key name is not usable.
    #[error("invalid KMS setting: {0}")]
    Setting(&'static str),
    /// The KMS answered and said no; trying again does not help. Cached keys must go.
    #[error("the KMS denied the request: {0}")]
    Denied(&'static str),
    /// No answer, or one that says to come back later. Cached keys may serve until they expire.
    #[error("the KMS is unreachable: {0}")]
    Unreachable(&'static str),
    /// The time of [`super::Settings::timeout`] was up.
    #[error("the KMS did not answer in time")]
    TimedOut,
    /// [`super::Settings::interrupted`] said so.
    #[error("the call to the KMS was canceled")]
    Cancelled,
    /// The answer is not one of this API, or larger than any can be.
    #[error("invalid answer from the KMS: {0}")]
    Response(&'static str),
    /// Something on this server: a key or token file, its permissions, its content.
    #[error("KMS files on this server: {0}")]
    Local(&'static str),
}

/// What a caller does about a [`KmsError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The setting is wrong (22023).
    Setting,
    /// Access was refused (28000); drop the keyring's cached keys.
    Denied,
    /// The service, or what this server needs to use it, is not working now (58030).
    Unavailable,
    /// The user gave up (57014).
    Cancelled,
}

/// What a service means that cannot decrypt a stored key.
pub(super) const FOREIGN: KmsError = KmsError::Denied("wrong KMS key or context");

impl KmsError {
    /// The class.
    pub fn class(&self) -> Class {
        match self {
            KmsError::Endpoint(_) | KmsError::Setting(_) => Class::Setting,
            KmsError::Denied(_) => Class::Denied,
            KmsError::Cancelled => Class::Cancelled,
            KmsError::Unreachable(_) | KmsError::TimedOut | KmsError::Response(_) | KmsError::Local(_) => {
                Class::Unavailable
            }
        }
    }
}

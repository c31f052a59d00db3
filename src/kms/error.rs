//! What can go wrong with a KMS. Every text is fixed but for names of files on this server, which settings name too: no URL,
//! key name, token or remote body can get in.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    /// The same of a file or directory that has a name, with what the system says.
    #[error("KMS files on this server: {what}: {}{}", path.display(), said(*reason))]
    File {
        /// What cannot be done.
        what: &'static str,
        /// With which.
        path: PathBuf,
        /// Why.
        reason: Option<ErrorKind>,
    },
}

fn said(reason: Option<ErrorKind>) -> String {
    match reason {
        None => String::new(),
        Some(ErrorKind::NotFound) => ": it does not exist".into(),
        Some(reason) => format!(": {reason}"),
    }
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
/// A stored key that does not look like one of this service: mostly the endpoint was changed.
pub(super) const OF_ANOTHER_KMS: KmsError = KmsError::Denied("the stored key was not wrapped by this KMS");

impl KmsError {
    /// The class.
    pub fn class(&self) -> Class {
        match self {
            KmsError::Endpoint(_) | KmsError::Setting(_) => Class::Setting,
            KmsError::Denied(_) => Class::Denied,
            KmsError::Cancelled => Class::Cancelled,
            KmsError::Unreachable(_)
            | KmsError::TimedOut
            | KmsError::Response(_)
            | KmsError::Local(_)
            | KmsError::File { .. } => Class::Unavailable,
        }
    }

    /// The stored key is to be unwrapped by another key, or somewhere else.
    pub fn is_foreign(&self) -> bool {
        [FOREIGN, OF_ANOTHER_KMS].contains(self)
    }

    /// The error of this server about the file or directory that it was met with.
    pub(super) fn at(self, path: &Path, reason: Option<ErrorKind>) -> Self {
        match self {
            KmsError::Local(what) => KmsError::File { what, path: path.into(), reason },
            other => other,
        }
    }
}

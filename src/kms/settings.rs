//! How services are reached and what with.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::VaultLogin;

/// Bytes of the longest token; a JSON web token has a few thousand.
pub(super) const TOKEN_LIMIT: usize = 8 * 1024;

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

    pub(super) fn as_str(&self) -> &str {
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

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::assert_not_impl_any;
    use std::fmt::{Debug, Display};

    assert_not_impl_any!(Token: Debug, Display, Clone, PartialEq, serde::Serialize);
}

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
    /// Where the clouds' own tools look for credentials.
    pub environment: Environment,
    /// How to log in to Vault and OpenBao.
    pub vault: VaultLogin,
    /// A session's own bearer token; used instead of all other credentials.
    pub token: Option<Rc<Token>>,
}

/// Environment variables, those of the process or a test's own.
#[derive(Clone, Copy)]
pub struct Environment(fn(&str) -> Option<String>);

impl Environment {
    /// Variables as `look_up` knows them.
    pub fn new(look_up: fn(&str) -> Option<String>) -> Self {
        Environment(look_up)
    }

    /// A variable; an empty one counts as none. Wiped, because many are secret.
    pub(super) fn variable(self, name: &str) -> Option<Zeroizing<String>> {
        (self.0)(name).map(Zeroizing::new).filter(|value| !value.is_empty())
    }
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
    /// What most settings are; `interrupted` has no sensible default.
    pub fn new(timeout: Duration, interrupted: fn() -> bool) -> Self {
        Settings {
            timeout,
            ca_file: None,
            interrupted,
            environment: Environment::new(|name| std::env::var(name).ok()),
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

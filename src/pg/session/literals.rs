//! Literals that this session seals into plans, and how it knows its own again.

use zeroize::Zeroizing;

use super::SESSION;
use crate::core::rng;
use crate::pg::error::PgError;
use crate::pg::raw::{reveal, xact};

/// Who seals literals now: this process, for the current role. Nobody else can say so.
pub fn maker() -> Result<Zeroizing<Vec<u8>>, PgError> {
    SESSION.with(|session| {
        let mut secret = session.secret.borrow_mut();
        if secret.is_none() {
            *secret = Some(Zeroizing::new(rng::bytes()?));
        }
        let secret = secret.as_ref().map(|secret| secret.as_slice()).unwrap_or_default();
        Ok(Zeroizing::new([secret, &xact::current_role().to_u32().to_be_bytes()].concat()))
    })
}

/// This process has sealed literals, so that one may be its own.
pub fn has_made_literals() -> bool {
    SESSION.with(|session| session.secret.borrow().is_some())
}

/// A literal is sealed, for a plan perhaps.
pub fn literal_made() {
    SESSION.with(|session| session.literals.set(true));
    reveal::literal_made();
}

//! Literals that this session seals into plans, and how it knows its own again.

use std::cell::Cell;

use once_cell::unsync::OnceCell;
use zeroize::Zeroizing;

use crate::core::rng;
use crate::pg::error::PgError;
use crate::pg::raw::{reveal, xact};

thread_local! {
    /// Literals are in plans: sealed under the keyring that the session chose, for the role of the moment.
    static IN_PLANS: Cell<bool> = const { Cell::new(false) };
    /// What only this process knows; drawn with the first literal.
    static SECRET: OnceCell<Zeroizing<[u8; 32]>> = const { OnceCell::new() };
}

/// Who seals literals now: this process, for the current role. Nobody else can say so.
pub fn maker() -> Result<Zeroizing<Vec<u8>>, PgError> {
    SECRET.with(|secret| {
        let secret = secret.get_or_try_init(|| rng::bytes().map(Zeroizing::new))?;
        Ok(Zeroizing::new([secret.as_slice(), &xact::current_role().to_u32().to_be_bytes()].concat()))
    })
}

/// This process has sealed literals, so that one may be its own.
pub fn has_made_literals() -> bool {
    SECRET.with(|secret| secret.get().is_some())
}

/// A literal is sealed, for a plan perhaps.
pub fn literal_made() {
    IN_PLANS.set(true);
    reveal::literal_made();
}

/// Were literals sealed for plans that are to be made again?
pub(super) fn taken_back() -> bool {
    IN_PLANS.take()
}

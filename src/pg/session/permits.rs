//! What a role lends to one statement that runs as another role: its privileges on keyrings, for what the statement itself
//! calls with the permit that it gets as a parameter. Code of others in the statement, triggers say, is shown no parameters.

use std::cell::{Cell, RefCell};

use pgrx::pg_sys;
use subtle::ConstantTimeEq;

use crate::core::rng;
use crate::pg::error::PgError;
use crate::pg::raw::xact;

const PERMIT_BYTES: usize = 32;

thread_local! {
    /// The permits of the statements that run, and who lends.
    static LENT: RefCell<Vec<([u8; PERMIT_BYTES], pg_sys::Oid)>> = const { RefCell::new(Vec::new()) };
    static LENDER: Cell<Option<pg_sys::Oid>> = const { Cell::new(None) };
}

/// The role whose privileges on keyrings count now.
pub fn role() -> pg_sys::Oid {
    LENDER.get().unwrap_or_else(xact::current_role)
}

/// Runs a statement that is given a permit for the privileges of the current role, void once it has ended.
pub fn lend<T>(statement: impl FnOnce(&[u8]) -> T) -> Result<T, PgError> {
    let permit = rng::bytes()?;
    LENT.with_borrow_mut(|lent| lent.push((permit, xact::current_role())));
    let _ended = AtEnd(|| {
        LENT.with_borrow_mut(Vec::pop);
    });
    Ok(statement(&permit))
}

/// Does something with the privileges that were lent to a statement. No SQL of anybody may run in it.
pub fn borrow<T>(permit: &[u8], work: impl FnOnce() -> Result<T, PgError>) -> Result<T, PgError> {
    let lender = LENT.with_borrow(|lent| {
        let found = lent.iter().find(|(known, _)| known.ct_eq(permit).into());
        found.map(|(_, lender)| *lender)
    });
    let lender =
        lender.ok_or_else(|| PgError::Argument("this is no permit of a statement that runs".into()))?;
    let before = LENDER.replace(Some(lender));
    let _ended = AtEnd(|| LENDER.set(before));
    work()
}

/// Is called however the work ends, by an error of PostgreSQL too.
struct AtEnd<F: FnMut()>(F);

impl<F: FnMut()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

//! `pgseal.keyring` chooses among the values of a column without keyring: those of other keyrings are NULL in every
//! comparison. Nothing else is hidden by it.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::core::header::{HEADER_BYTES, parse_head};
use crate::pg::error::PgError;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::choice::was_planned_without;
use crate::pg::raw::node::Expr;
use crate::pg::raw::reveal::copies_in;
use crate::pg::session::{self, objects};
use crate::pg::settings;

/// The session's choice as a call site last saw it.
#[derive(Default)]
struct Choice {
    generation: Option<u64>,
    keyring: Option<i32>,
}

impl Choice {
    fn now(&mut self) -> Result<Option<i32>, PgError> {
        if self.generation != Some(session::generation()) {
            self.keyring = setting()?;
            self.generation = Some(session::generation());
        }
        Ok(self.keyring)
    }
}

fn setting() -> Result<Option<i32>, PgError> {
    settings::keyring().map(|name| session::keyring_id(&name)).transpose()
}

/// `chosen(encrypted_*)`: the value, or NULL where the session has chosen another keyring.
pub fn chosen(call: Call) -> Returned {
    Ok(is_chosen(call)?.then(|| call.datum(0)))
}

/// `each(encrypted_*)`: the value as it is, which stops the planner's search for what the session chooses among.
pub fn each(call: Call) -> Returned {
    Ok(Some(call.datum(0)))
}

/// `answers(encrypted_*)`: the same as a question; a NULL is nobody's.
pub fn answers(call: Call) -> Returned {
    Ok(Some((call.is_null(0) || is_chosen(call)?).into()))
}

fn is_chosen(call: Call) -> Result<bool, PgError> {
    let (head, _) = parse_head(call.prefix(0, HEADER_BYTES).bytes())?;
    let chosen = call.with_cache(Choice::now)?;
    Ok(chosen.is_none_or(|chosen| chosen == head.keyring))
}

/// `chosen(value)` where the extension has it for such a value.
pub fn in_chosen(value: Expr) -> Option<Expr> {
    call_on(c"chosen", value)
}

/// `each(value)`, likewise.
pub fn in_each(value: Expr) -> Option<Expr> {
    call_on(c"each", value)
}

/// `answers(value)`, likewise.
pub fn in_answers(value: Expr) -> Option<Expr> {
    call_on(c"answers", value)
}

fn call_on(name: &'static CStr, value: Expr) -> Option<Expr> {
    let function = objects::function(name, &[value.base_type()])?;
    Expr::of_function(function, &[value.below_domain()])
}

/// The value in `chosen(value)`.
pub fn chosen_value(call: Expr) -> Option<Expr> {
    value_in(c"chosen", call)
}

/// The value in `each(value)`.
pub fn each_value(call: Expr) -> Option<Expr> {
    value_in(c"each", call)
}

fn value_in(name: &'static CStr, call: Expr) -> Option<Expr> {
    let function = objects::function(name, &[call.base_type()])?;
    call.arguments_of(function)?.first().copied()
}

/// The value is of a type for which this database has `chosen`.
pub fn is_sealed(value: Expr) -> bool {
    has_choices(value.base_type())
}

fn has_choices(of: pg_sys::Oid) -> bool {
    objects::function(c"chosen", &[of]).is_some()
}

/// Refuses a comparison where nothing could say that `chosen` belongs around a value, if it matters: its plan was made while
/// the library was not there yet, or the database does not have `chosen` before its update.
pub fn require_seen(call: Call, index: usize, keyring: i32) -> Result<(), PgError> {
    // What checks a constraint has no plan.
    let blind = was_planned_without() && !copies_in() && call.needs_choice(index);
    let old = !call.argument_column(index).is_bound() && !has_choices(call.argument_type(index));
    if !blind && !old || setting()?.is_none_or(|chosen| chosen == keyring) {
        return Ok(());
    }
    Err(if blind { PgError::PlannedBefore } else { PgError::NotUpdated })
}

//! What the hook after parse analysis makes of literals that were sealed when the parser read them: beside an encrypted value
//! they become plain, elsewhere those without a keyring get the one of their column.

use pgrx::pg_sys;
use zeroize::Zeroizing;

use crate::core::header::{Content, parse_head};
use crate::pg::error::PgError;
use crate::pg::raw::datum::{Varlena, detoast, type_id_name, varlena};
use crate::pg::session;
use crate::pg::values::seal::{self, Kind};
use crate::pg::values::{column, plain_vector};

/// The plaintext of a literal that this session has sealed for the current role, as a datum of the plain type; `None` for
/// every other value.
pub fn plain(literal: pg_sys::Datum) -> Result<Option<Varlena>, PgError> {
    let literal = detoast(literal);
    if let Some((content, plaintext)) = session::open_unbound(literal.bytes()) {
        return datum(content, &plaintext).map(Some);
    }
    let Ok((head, _)) = parse_head(literal.bytes()) else { return Ok(None) };
    if !head.transit || !session::has_made_literals() {
        return Ok(None);
    }
    match seal::open_any_literal(literal.bytes()) {
        Ok(value) if value.is_own() => value.datum().map(Some),
        // It stays as it came in, and is refused where it is used.
        _ => Ok(None),
    }
}

fn datum(content: Content, plaintext: &[u8]) -> Result<Varlena, PgError> {
    if content != Content::Vector {
        return Ok(varlena(plaintext));
    }
    let head = plain_vector::head(plaintext.len())?;
    Ok(varlena(&Zeroizing::new([head.as_slice(), plaintext].concat())))
}

/// A literal without a keyring, sealed for the column that this modifier of its type says, or for the session's keyring;
/// `None` for every other value.
pub fn bound(literal: pg_sys::Datum, of: pg_sys::Oid, typmod: i32) -> Result<Option<Varlena>, PgError> {
    let literal = detoast(literal);
    let Some((content, plaintext)) = session::open_unbound(literal.bytes()) else { return Ok(None) };
    let column = Kind::named(&type_id_name(of)).column(typmod);
    let keyring = match column::keyring(column)? {
        Some(keyring) => keyring,
        None => session::keyring_for_input()?,
    };
    seal::seal_literal(keyring, content, &plaintext).map(Some)
}

/// Refuses a row or a value of another type that holds a literal without a keyring.
pub fn refuse_inside(other: pg_sys::Datum) -> Result<(), PgError> {
    if session::holds_unbound(detoast(other).bytes()) { Err(PgError::NoKeyring) } else { Ok(()) }
}

//! `@>`, `@@` and the two halves they are rewritten into: the token match, which sees bytes only, and the
//! exact half, which decrypts.

use pgrx::pg_sys::Datum;

use crate::core::filter::{Binding, Filter};
use crate::core::header::{HEADER_BYTES, TokenSection, parse_head};
use crate::core::token::marker;
use crate::pg::error::PgError;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::Owned;
use crate::pg::search::recheck::{OpenDocument, OpenFilter};
use crate::pg::values::choice;
use crate::pg::values::seal::{self, JSONB};

/// `token_match(encrypted_jsonb, encrypted_filter)`, operator `@~`.
///
/// LEAKPROOF: it reads the value's header and tokens, and every malformed value counts as a match, so that
/// no outcome but true, false and NULL depends on the row. NULL for a value of another keyring.
pub fn token_match(call: Call) -> Returned {
    let bytes = call.varlena(1);
    let Ok(filter) = Filter::parse(bytes.bytes()) else { return boolean(true) };
    let mut value = call.prefix(0, TokenSection::AT_ONCE.end());
    let Ok((head, section)) = parse_head(value.bytes()) else { return boolean(true) };
    if filter.every_keyring() {
        return boolean(true);
    }
    if head.keyring != filter.keyring() {
        return Ok(None);
    }
    if value.bytes().len() < section.tokens().end {
        value = call.prefix(0, section.tokens().end);
    }
    let Some(tokens) = value.bytes().get(section.tokens()) else { return boolean(true) };
    let marker = marker(head.keyring, head.index_version);
    let admitted = filter.admits(marker, |key| section.has_key(tokens, key));
    if admitted || !filter.has_nulls() { boolean(admitted) } else { Ok(None) }
}

/// `exact_match(encrypted_*, encrypted_filter)`, operator `@>#`: decrypts and asks jsonb, unless tokens decide. A filter of the
/// session is for the values that the session chooses.
pub fn exact_match(call: Call) -> Returned {
    ask(call, |filter, keyring| match filter.binding() {
        Binding::Fixed => keyring == filter.keyring(),
        Binding::Session => match call.argument_column(0) {
            column if column.is_bound() => column.takes(keyring),
            _ => filter.every_keyring() || keyring == filter.keyring(),
        },
    })
}

/// `exact_match_any(encrypted_*, encrypted_filter)`, operator `@>|`: the same for a list that is not known while it is
/// planned. With ANY, nothing is in an empty one, not even NULL.
pub fn exact_match_any(call: Call) -> Returned {
    if call.is_null(1) {
        return Ok(None);
    }
    if Filter::parse(call.varlena(1).bytes())?.is_empty_list() {
        return boolean(false);
    }
    if call.is_null(0) { Ok(None) } else { exact_match(call) }
}

/// `exact_differ(encrypted_*, encrypted_filter)`, operator `!@>#`: NOT `@>#`.
pub fn exact_differ(call: Call) -> Returned {
    exact_match(call).map(opposite)
}

/// `exact_differ_any(encrypted_*, encrypted_filter)`, operator `!@>|`: NOT `@>|`.
pub fn exact_differ_any(call: Call) -> Returned {
    exact_match_any(call).map(opposite)
}

fn opposite(answer: Option<Datum>) -> Option<Datum> {
    answer.map(|answer| (answer.value() & 0xFF == 0).into())
}

/// `matches(encrypted_jsonb, encrypted_filter)`, operator `@@`, where it was not rewritten: of something computed, each
/// value answers by its own keyring, unless the filter names one.
pub fn matches(call: Call) -> Returned {
    ask(call, |filter, keyring| filter.binding() == Binding::Session || keyring == filter.keyring())
}

fn ask(call: Call, answers: impl FnOnce(&Filter<'_>, i32) -> bool) -> Returned {
    let bytes = call.varlena(1);
    let filter = Filter::parse(bytes.bytes())?;
    let at_once = if filter.decides() { TokenSection::AT_ONCE.end() } else { HEADER_BYTES };
    let mut front = call.prefix(0, at_once);
    let (head, section) = parse_head(front.bytes())?;
    if !answers(&filter, head.keyring) {
        return Ok(None);
    }
    seal::with_kind(call, |kind, open: &mut OpenFilter| {
        open.open(&filter)?;
        if filter.decides() && section.decides() {
            if front.bytes().len() < section.end() {
                front = call.prefix(0, section.end());
            }
            if open.is_decided(&filter, front.bytes(), kind)? {
                return boolean(true);
            }
        }
        open.load(call.varlena(0).bytes(), kind)?;
        Ok(open.answer()?.map(Into::into))
    })
}

/// `contains(encrypted_jsonb, jsonb)`, operator `@>`, where it was not rewritten; and
/// `exact_match(encrypted_jsonb, jsonb)`, its exact half where the query is not a constant.
pub fn contains(call: Call) -> Returned {
    let (value, query) = (call.varlena(0), call.varlena(1));
    choice::require_seen(call, 0, parse_head(value.bytes())?.0.keyring)?;
    call.with_cache(|open: &mut OpenDocument| {
        open.load(value.bytes(), &JSONB, |policy| Ok(policy.declares(query.bytes())?))?;
        Ok(Some(open.document.contains(&Owned::new(query.bytes())?).into()))
    })
}

/// `unsupported(...)`: behind operators that must not fall back to something that answers wrongly.
pub fn unsupported(_: Call) -> Returned {
    Err(PgError::Unsupported)
}

/// The same behind operators of vectors.
pub fn unsupported_vector(_: Call) -> Returned {
    Err(PgError::UnsupportedVector)
}

fn boolean(value: bool) -> Returned {
    Ok(Some(value.into()))
}

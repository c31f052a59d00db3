//! Operators that look into a document or change it: decrypt, ask jsonb, seal the result under the same
//! keyring. Results are not tokenised, so they are always rechecked.

use crate::core::header::{Content, HEADER_BYTES, Head, parse_head};
use crate::core::jsonb::is_scalar;
use crate::core::policy::Policy;
use crate::core::text_query::Accessor;
use crate::pg::error::PgError;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::jsonb::{self, Function};
use crate::pg::raw::text::{self, TextFunction};
use crate::pg::session::{self, Checked, Privilege};
use crate::pg::values::accessor;
use crate::pg::values::choice;
use crate::pg::values::seal::{self, JSONB, OpenValue, TEXT};

/// `encrypted_jsonb -> text`.
pub fn field(call: Call) -> Returned {
    part(call, Content::Jsonb, Accessor::Field)
}

/// `encrypted_jsonb -> int4`.
pub fn element(call: Call) -> Returned {
    part(call, Content::Jsonb, Accessor::Element)
}

/// `encrypted_jsonb #> text[]`.
pub fn path(call: Call) -> Returned {
    part(call, Content::Jsonb, Accessor::Path)
}

/// `encrypted_jsonb ->> text`.
pub fn field_text(call: Call) -> Returned {
    part(call, Content::Text, Accessor::Field)
}

/// `encrypted_jsonb ->> int4`.
pub fn element_text(call: Call) -> Returned {
    part(call, Content::Text, Accessor::Element)
}

/// `encrypted_jsonb #>> text[]`.
pub fn path_text(call: Call) -> Returned {
    part(call, Content::Text, Accessor::Path)
}

fn part(call: Call, content: Content, accessor: Accessor) -> Returned {
    let argument = call.datum(1);
    let value = open_to_look(call, |policy| accessor::is_declared(accessor, argument, policy))?;
    let document = value.datum()?.datum();
    let (as_jsonb, as_text) = accessor::functions(accessor);
    let searches = !call.with_cache(|checked: &mut Checked| checked.has(&value.keyring, Privilege::Decrypt));
    let only_scalars = searches && !value.keyring.active_index()?.1.covers_everything();
    // With `search` alone an object or array must not come out, not even sealed: its path does not declare what is below.
    if only_scalars && as_jsonb.varlena(document, argument).is_some_and(|part| !is_scalar(part.bytes())) {
        return Err(PgError::Undeclared(value.keyring.name.clone()));
    }
    let function = if content == Content::Text { as_text } else { as_jsonb };
    match function.varlena(document, argument) {
        Some(part) => Ok(Some(seal::seal_part(&value, content, part.bytes(), searches)?.datum())),
        None => Ok(None),
    }
}

/// `encrypted_jsonb ? text`.
pub fn exists(call: Call) -> Returned {
    has_key(call, jsonb::EXISTS)
}

/// `encrypted_jsonb ?| text[]`.
pub fn exists_any(call: Call) -> Returned {
    has_key(call, jsonb::EXISTS_ANY)
}

/// `encrypted_jsonb ?& text[]`.
pub fn exists_all(call: Call) -> Returned {
    has_key(call, jsonb::EXISTS_ALL)
}

fn has_key(call: Call, function: Function) -> Returned {
    // Which keys a document has is declared nowhere; only with everything declared is nothing new told.
    choice::require_seen(call, 0, head(call, 0)?.keyring)?;
    let value = open_to_look(call, |policy| Ok(policy.covers_everything()))?;
    Ok(Some(function.boolean(value.datum()?.datum(), call.datum(1)).into()))
}

/// `encrypted_jsonb || jsonb`.
pub fn concat(call: Call) -> Returned {
    changed(call, jsonb::CONCAT, call.varlena(1).datum())
}

/// `encrypted_jsonb || encrypted_jsonb`, sealed under the left one's keyring. The right one must not lose its context.
pub fn concat_sealed(call: Call) -> Returned {
    let value = open_for(call, Privilege::Encrypt)?;
    let right = seal::open_to_move(call.varlena(1).bytes(), &JSONB, value.keyring.id)?;
    // Whether two values are bound to the same context would tell who guesses one.
    if right.is_bound() {
        session::require(&right.keyring, Privilege::Decrypt)?;
    }
    value.require_same_context(&right)?;
    change(&value, jsonb::CONCAT, right.datum()?.datum())
}

/// `encrypted_jsonb - text`.
pub fn delete(call: Call) -> Returned {
    changed(call, jsonb::DELETE, call.datum(1))
}

/// `encrypted_jsonb - text[]`.
pub fn delete_all(call: Call) -> Returned {
    changed(call, jsonb::DELETE_ALL, call.datum(1))
}

/// `encrypted_jsonb - int4`.
pub fn delete_element(call: Call) -> Returned {
    changed(call, jsonb::DELETE_ELEMENT, call.datum(1))
}

/// `encrypted_jsonb #- text[]`.
pub fn delete_path(call: Call) -> Returned {
    changed(call, jsonb::DELETE_PATH, call.datum(1))
}

fn changed(call: Call, function: Function, argument: pgrx::pg_sys::Datum) -> Returned {
    change(&open_for(call, Privilege::Encrypt)?, function, argument)
}

fn change(value: &OpenValue, function: Function, argument: pgrx::pg_sys::Datum) -> Returned {
    match function.varlena(value.datum()?.datum(), argument) {
        Some(document) => Ok(Some(seal::seal_changed(value, document.bytes())?.datum())),
        None => Ok(None),
    }
}

/// The header of an argument, of which no more is read.
fn head(call: Call, index: usize) -> Result<Head, PgError> {
    Ok(parse_head(call.prefix(index, HEADER_BYTES).bytes())?.0)
}

/// Order and patterns of `encrypted_text` and text: PostgreSQL's own, on the decrypted text.
fn on_decrypted(call: Call, function: TextFunction) -> Returned {
    let value = call.varlena(0);
    choice::require_seen(call, 0, parse_head(value.bytes())?.0.keyring)?;
    let opened =
        call.with_cache(|checked: &mut Checked| seal::open_datum(value.bytes(), &TEXT, None, checked))?;
    Ok(Some(function.boolean(call, opened.datum(), call.datum(1)).into()))
}

/// `encrypted_text < text`.
pub fn text_lt(call: Call) -> Returned {
    on_decrypted(call, text::LESS)
}

/// `encrypted_text <= text`.
pub fn text_le(call: Call) -> Returned {
    on_decrypted(call, text::LESS_OR_EQUAL)
}

/// `encrypted_text > text`.
pub fn text_gt(call: Call) -> Returned {
    on_decrypted(call, text::GREATER)
}

/// `encrypted_text >= text`.
pub fn text_ge(call: Call) -> Returned {
    on_decrypted(call, text::GREATER_OR_EQUAL)
}

/// `encrypted_text LIKE text`.
pub fn text_like(call: Call) -> Returned {
    on_decrypted(call, text::LIKE)
}

/// `encrypted_text NOT LIKE text`.
pub fn text_not_like(call: Call) -> Returned {
    on_decrypted(call, text::NOT_LIKE)
}

/// `encrypted_text ILIKE text`.
pub fn text_ilike(call: Call) -> Returned {
    on_decrypted(call, text::ILIKE)
}

/// `encrypted_text NOT ILIKE text`.
pub fn text_not_ilike(call: Call) -> Returned {
    on_decrypted(call, text::NOT_ILIKE)
}

/// `encrypted_text ~ text`.
pub fn text_regex(call: Call) -> Returned {
    on_decrypted(call, text::REGEX)
}

/// `encrypted_text !~ text`.
pub fn text_not_regex(call: Call) -> Returned {
    on_decrypted(call, text::NOT_REGEX)
}

/// `encrypted_text ~* text`.
pub fn text_iregex(call: Call) -> Returned {
    on_decrypted(call, text::IREGEX)
}

/// `encrypted_text !~* text`.
pub fn text_not_iregex(call: Call) -> Returned {
    on_decrypted(call, text::NOT_IREGEX)
}

/// Decrypts argument 0 for a role that looks into it.
fn open_to_look(
    call: Call,
    declared: impl FnOnce(&Policy) -> Result<bool, PgError>,
) -> Result<OpenValue, PgError> {
    let bytes = call.varlena(0);
    call.with_cache(|checked: &mut Checked| {
        seal::locate_to_look(bytes.bytes(), &JSONB, checked, declared)?.open()
    })
}

fn open_for(call: Call, privilege: Privilege) -> Result<OpenValue, PgError> {
    call.with_cache(Checked::start);
    seal::open_for(call.varlena(0).bytes(), &JSONB, privilege)
}

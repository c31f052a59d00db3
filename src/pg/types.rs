//! Input, output and casts of `encrypted_jsonb` and `encrypted_text`.
//!
//! PostgreSQL tells the input function which column a value is for only in COPY. Literals, parameters and
//! DEFAULTs arrive without it; they are sealed at once, with the *transit* flag, and the column's length
//! coercion seals them anew when the statement runs.

use std::ffi::CStr;

use pgrx::{PgSqlErrorCode, PgTryBuilder};

use super::error::PgError;
use super::guc;
use super::raw::array;
use super::raw::call::{Call, Returned};
use super::raw::datum::{Varlena, cstring, jsonb_from_text, jsonb_to_text, name, varlena};
use super::session::{self, Allowed, Privilege};
use super::values;
use crate::core::envelope::{Content, Envelope, HEADER_BYTES, Head, Options, parse_head};
use crate::core::text_form;

/// What distinguishes the two types.
struct Kind {
    name: &'static str,
    contents: &'static [Content],
}

const JSONB: Kind = Kind { name: "encrypted_jsonb", contents: &[Content::Jsonb, Content::JsonText] };
const TEXT: Kind = Kind { name: "encrypted_text", contents: &[Content::Text] };

/// `encrypted_jsonb_in(cstring, oid, int4)`.
pub fn jsonb_in(call: Call) -> Returned {
    let text = call.cstring(0);
    if let Some(sealed) = sealed_text(text, call.int4(2), &JSONB)? {
        return Ok(Some(sealed.datum()));
    }
    let document = parse_json(text)?;
    seal_input(Content::Jsonb, document.bytes(), call.int4(2))
}

/// `encrypted_text_in(cstring, oid, int4)`.
pub fn text_in(call: Call) -> Returned {
    let text = call.cstring(0);
    match sealed_text(text, call.int4(2), &TEXT)? {
        Some(sealed) => Ok(Some(sealed.datum())),
        None => seal_input(Content::Text, text.to_bytes(), call.int4(2)),
    }
}

/// With a column's keyring the value is final; without one it is in transit.
fn seal_input(content: Content, plaintext: &[u8], typmod: i32) -> Returned {
    if typmod > 0 {
        return Ok(Some(values::seal(typmod, content, plaintext, false, Options::default())?.datum()));
    }
    // A random nonce would break GROUP BY and DISTINCT of an expression with a text literal.
    let options = Options { deterministic: content == Content::Text, ..Options::default() };
    let keyring = session::keyring_for_input()?;
    Ok(Some(values::seal(keyring, content, plaintext, true, options)?.datum()))
}

/// jsonb's own errors quote the document, which would put it into the server log.
fn parse_json(text: &CStr) -> Result<Varlena, PgError> {
    PgTryBuilder::new(|| Ok(jsonb_from_text(text)))
        .catch_when(PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION, |_| Err(PgError::Json))
        .catch_when(PgSqlErrorCode::ERRCODE_UNTRANSLATABLE_CHARACTER, |_| Err(PgError::Json))
        .execute()
}

/// A value in its text form; `None` for plain text.
fn sealed_text(text: &CStr, typmod: i32, kind: &Kind) -> Result<Option<Varlena>, PgError> {
    let Some(decoded) = text_form::decode(text.to_bytes()) else { return Ok(None) };
    let bytes = decoded?;
    let envelope = Envelope::parse(&bytes).map_err(PgError::SealedText)?;
    accept_sealed(&envelope.head(), typmod, kind)?;
    Ok(Some(varlena(&bytes)))
}

/// Takes a sealed value as it is. Only its structure can be checked: no key is needed to restore a dump.
fn accept_sealed(head: &Head, typmod: i32, kind: &Kind) -> Result<(), PgError> {
    if !guc::accept_sealed() {
        return Err(PgError::SealedRefused);
    }
    if !kind.contents.contains(&head.content) {
        return Err(PgError::OtherContent(kind.name));
    }
    if typmod > 0 && typmod != head.keyring {
        return Err(wrong_keyring(head.keyring, typmod));
    }
    session::require_storable(head.keyring, head.data_version)
}

/// `encrypted_jsonb_recv(internal, oid, int4)`.
pub fn jsonb_recv(call: Call) -> Returned {
    recv(call, &JSONB)
}

/// `encrypted_text_recv(internal, oid, int4)`.
pub fn text_recv(call: Call) -> Returned {
    recv(call, &TEXT)
}

fn recv(call: Call, kind: &Kind) -> Returned {
    let bytes = call.message();
    accept_sealed(&Envelope::parse(&bytes)?.head(), call.int4(2), kind)?;
    Ok(Some(varlena(&bytes).datum()))
}

/// `encrypted_*_out`: always ciphertext.
pub fn out(call: Call) -> Returned {
    Ok(Some(cstring(&text_form::encode(call.varlena(0).bytes()))))
}

/// `encrypted_*_send`: the bytes as they are stored.
pub fn send(call: Call) -> Returned {
    Ok(Some(varlena(call.varlena(0).bytes()).datum()))
}

/// `encrypted_typmod_in(cstring[])`: a keyring by name, or by number as a dump writes it. A number that is
/// not known passes, because a dump creates tables before it restores keyrings.
pub fn typmod_in(call: Call) -> Returned {
    let modifiers = array::cstrings(call.datum(0));
    let [keyring] = modifiers.as_slice() else {
        return Err(PgError::Argument("the type takes one modifier: the keyring".into()));
    };
    let id = match keyring.parse::<i32>() {
        Ok(id) if id > 0 => id,
        Ok(_) => return Err(PgError::Argument("a keyring number is positive".into())),
        Err(_) => session::keyring_id(keyring)?,
    };
    Ok(Some(id.into()))
}

/// `encrypted_typmod_out(int4)`.
pub fn typmod_out(call: Call) -> Returned {
    Ok(Some(cstring(&format!("({})", call.int4(0)))))
}

/// `coerce(encrypted_jsonb, int4, bool)`: the length coercion to a column's keyring.
pub fn coerce_jsonb(call: Call) -> Returned {
    coerce(call, Content::Jsonb)
}

/// `coerce(encrypted_text, int4, bool)`.
pub fn coerce_text(call: Call) -> Returned {
    coerce(call, Content::Text)
}

fn coerce(call: Call, content: Content) -> Returned {
    let column = call.int4(1);
    let head = head(call)?;
    if !head.transit && (column <= 0 || head.keyring == column) {
        session::require_storable(head.keyring, head.data_version)?;
        return Ok(Some(call.datum(0)));
    }
    if !head.transit {
        return Err(wrong_keyring(head.keyring, column));
    }
    // Whoever may write the literal may have it moved: the plaintext stays inside.
    let value = values::open_unchecked(call.varlena(0).bytes())?;
    session::require(&value.keyring, Privilege::Encrypt)?;
    let plaintext = match content {
        Content::Text => value.content().to_vec(),
        _ => value.datum().bytes().to_vec(),
    };
    let plaintext = zeroize::Zeroizing::new(plaintext);
    Ok(Some(values::seal(column, content, &plaintext, false, Options::default())?.datum()))
}

fn wrong_keyring(value: i32, column: i32) -> PgError {
    PgError::WrongKeyring { value: session::keyring_label(value), column: session::keyring_label(column) }
}

/// The header of argument 0, of which no more is read.
fn head(call: Call) -> Result<Head, PgError> {
    Ok(parse_head(call.prefix(0, HEADER_BYTES).bytes())?.0)
}

/// `seal(jsonb, int4, bool)`: the assignment cast, where the column's keyring is known.
pub fn seal_jsonb(call: Call) -> Returned {
    seal_assigned(call.int4(1), Content::Jsonb, call.varlena(0).bytes())
}

/// `seal(json, int4, bool)`.
pub fn seal_json(call: Call) -> Returned {
    let document = parse_json(&super::raw::xact::c_string(&call.text(0)?))?;
    seal_assigned(call.int4(1), Content::Jsonb, document.bytes())
}

/// `seal(text, int4, bool)`.
pub fn seal_text(call: Call) -> Returned {
    seal_assigned(call.int4(1), Content::Text, call.varlena(0).bytes())
}

/// `seal(bpchar, int4, bool)`: as the cast to text, without the padding.
pub fn seal_bpchar(call: Call) -> Returned {
    let padded = call.varlena(0);
    let length = padded.bytes().iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    seal_assigned(call.int4(1), Content::Text, &padded.bytes()[..length])
}

fn seal_assigned(typmod: i32, content: Content, plaintext: &[u8]) -> Returned {
    let keyring = if typmod > 0 { typmod } else { session::keyring_for_input()? };
    Ok(Some(values::seal(keyring, content, plaintext, false, Options::default())?.datum()))
}

/// `encrypt(jsonb, keyring text, context text)`.
pub fn encrypt_jsonb(call: Call) -> Returned {
    encrypt(call, Content::Jsonb)
}

/// `encrypt(text, keyring text, context text)`.
pub fn encrypt_text(call: Call) -> Returned {
    encrypt(call, Content::Text)
}

fn encrypt(call: Call, content: Content) -> Returned {
    let Some(plaintext) = call.optional(0) else { return Ok(None) };
    let keyring = match call.optional_text(1)? {
        Some(name) => session::keyring_id(&name)?,
        None => session::keyring_for_input()?,
    };
    let context = call.optional_text(2)?;
    let options = Options { context: context.as_deref().map(str::as_bytes), ..Options::default() };
    Ok(Some(values::seal(keyring, content, plaintext.bytes(), false, options)?.datum()))
}

/// `decrypt(encrypted_jsonb [, context text])` and `decrypt(encrypted_text [, context text])`.
pub fn decrypt(call: Call) -> Returned {
    Ok(Some(decrypted(call)?.datum()))
}

/// `decrypt_as_text(encrypted_jsonb)`: for the casts to text, varchar and bpchar.
pub fn decrypt_jsonb_as_text(call: Call) -> Returned {
    Ok(Some(varlena(jsonb_to_text(decrypted(call)?).as_bytes()).datum()))
}

/// `decrypt_as_name(encrypted_jsonb)`.
pub fn decrypt_jsonb_as_name(call: Call) -> Returned {
    Ok(Some(name(varlena(jsonb_to_text(decrypted(call)?).as_bytes()))))
}

/// `decrypt_as_name(encrypted_text)`.
pub fn decrypt_text_as_name(call: Call) -> Returned {
    Ok(Some(name(decrypted(call)?)))
}

fn decrypted(call: Call) -> Result<Varlena, PgError> {
    let context = match call.count() {
        2 => call.optional_text(1)?,
        _ => None,
    };
    let context = context.as_deref().map(str::as_bytes);
    let value = call.varlena(0);
    call.with_cache(|allowed: &mut Allowed| values::open_datum(value.bytes(), context, allowed))
}

/// `key_version(encrypted_*)`: the data key version; needs no key.
pub fn key_version(call: Call) -> Returned {
    Ok(Some(i32::from(head(call)?.data_version).into()))
}

/// `index_key_version(encrypted_*)`, 0 for a value without tokens.
pub fn index_key_version(call: Call) -> Returned {
    Ok(Some(i32::from(head(call)?.index_version).into()))
}

/// `keyring_id(encrypted_*)`.
pub fn keyring_id(call: Call) -> Returned {
    Ok(Some(head(call)?.keyring.into()))
}

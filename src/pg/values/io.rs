//! Input and output of `encrypted_jsonb` and `encrypted_text`, and what vectors share with them.
//!
//! PostgreSQL tells the input function which column a value is for only in COPY. Literals, parameters and
//! DEFAULTs arrive without it; they are sealed at once, with the *transit* flag, and the column's length
//! coercion seals them anew when the statement runs.

use crate::core::envelope::{Envelope, Options};
use crate::core::header::{Content, DECIDING_FORMAT, FORMAT, Head, parse_head};
use crate::core::modifier::Column;
use crate::core::text_form;
use crate::pg::error::PgError;
use crate::pg::raw::array;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::{Varlena, cstring, fill_cstring, fill_varlena, type_name, varlena};
use crate::pg::raw::definition::literal_is_seen;
use crate::pg::raw::encoding::{self, c_text};
use crate::pg::raw::reveal;
use crate::pg::session::{self, Checked, Privilege};
use crate::pg::settings;
use crate::pg::values::casts::{for_column, head, parse_json};
use crate::pg::values::seal::{self, JSONB, Kind, TEXT};
use crate::pg::values::{column, vector};

/// `encrypted_jsonb_in(cstring, oid, int4)`.
pub fn jsonb_in(call: Call) -> Returned {
    let (text, typmod, seen) = (call.cstring(0), call.int4(2), literal_is_seen());
    Call::without_context(|| match text_form::decode(text.to_bytes()) {
        Some(decoded) => sealed_text(call, decoded?, typmod, &JSONB),
        None => seal_input(Content::Jsonb, parse_json(text)?.bytes(), JSONB.column(typmod), seen),
    })
}

/// `encrypted_text_in(cstring, oid, int4)`.
pub fn text_in(call: Call) -> Returned {
    let (text, typmod, seen) = (call.cstring(0), call.int4(2), literal_is_seen());
    Call::without_context(|| match text_form::decode(text.to_bytes()) {
        Some(decoded) => sealed_text(call, decoded?, typmod, &TEXT),
        None => seal_input(Content::Text, text.to_bytes(), TEXT.column(typmod), seen),
    })
}

/// With a column's keyring the value is final; without one it is in transit. A literal that the hook after parse analysis
/// has seen needs no keyring before that.
pub fn seal_input(content: Content, plaintext: &[u8], column: Column, seen: bool) -> Returned {
    vector::check_declared(column, content, plaintext.len())?;
    if let Some(keyring) = column::keyring(column)? {
        return Ok(Some(seal::seal(keyring, content, plaintext, false, Options::default())?.datum()));
    }
    match sealed_for_any(content, plaintext) {
        Err(error) if seen && error.is_for_want_of_a_key() => {
            Ok(Some(varlena(&session::seal_unbound(content, plaintext)?).datum()))
        }
        sealed => Ok(Some(sealed?.datum())),
    }
}

fn sealed_for_any(content: Content, plaintext: &[u8]) -> Result<Varlena, PgError> {
    let keyring = session::keyring_for_input()?;
    if reveal::copies_in() {
        // No length coercion comes after it.
        seal::seal(keyring, content, plaintext, false, Options::default())
    } else {
        seal::seal_literal(keyring, content, plaintext)
    }
}

/// A value that arrives sealed, in its text form.
pub fn sealed_text(call: Call, bytes: Vec<u8>, typmod: i32, kind: &Kind) -> Returned {
    let envelope = Envelope::parse(&bytes).map_err(PgError::SealedText)?;
    accept_sealed(call, &envelope.head(), kind, PgError::OtherContentText)?;
    for_column(varlena(&bytes), kind, envelope.head(), kind.column(typmod))
}

/// Takes a sealed value as it is: no key is needed to restore a dump. So it may be forged, hence is for whoever may write
/// such values. A keyring that is not known yet passes, because a restore may bring it later.
fn accept_sealed(
    call: Call,
    head: &Head,
    kind: &Kind,
    other: fn(&'static str) -> PgError,
) -> Result<(), PgError> {
    if !settings::accept_sealed() {
        return Err(PgError::SealedRefused);
    }
    if !kind.holds(head.content) {
        return Err(other(kind.name));
    }
    match session::keyring(head.keyring) {
        Err(PgError::UnknownKeyringId(_)) => Ok(()),
        Err(error) => Err(error),
        Ok(keyring) => call.with_cache(|checked: &mut Checked| checked.require(&keyring, Privilege::Encrypt)),
    }
}

/// `encrypted_jsonb_recv(internal, oid, int4)`: a sealed value, or what jsonb sends, which has JSON behind its first byte.
pub fn jsonb_recv(call: Call) -> Returned {
    let (bytes, typmod) = (call.message(), call.int4(2));
    Call::without_context(|| match bytes {
        [JSONB_VERSION, document @ ..] if begins_json(document) => {
            let document = parse_json(&c_text(&encoding::from_client(document)?)?)?;
            seal_input(Content::Jsonb, document.bytes(), JSONB.column(typmod), false)
        }
        _ => sealed_bytes(call, bytes, typmod, &JSONB),
    })
}

/// The first byte of what jsonb sends (utils/adt/jsonb.c).
const JSONB_VERSION: u8 = 1;

/// Where JSON begins, a sealed value has the number of its cipher suite and flags: no bit of them that flips makes JSON.
fn begins_json(document: &[u8]) -> bool {
    let first = document.trim_ascii_start().first();
    first.is_some_and(|first| b"{[\"-0123456789tfn".contains(first))
}

/// `encrypted_text_recv(internal, oid, int4)`: a sealed value, or a text. Every sealed value has zero bytes, no text has one;
/// of a sealed value that was cut before them the first byte is left.
pub fn text_recv(call: Call) -> Returned {
    let (bytes, typmod) = (call.message(), call.int4(2));
    Call::without_context(|| {
        if bytes.contains(&0) || matches!(bytes.first(), Some(&(FORMAT | DECIDING_FORMAT))) {
            return sealed_bytes(call, bytes, typmod, &TEXT);
        }
        seal_input(Content::Text, &encoding::from_client(bytes)?, TEXT.column(typmod), false)
    })
}

/// A value that arrives sealed, in binary form.
pub fn sealed_bytes(call: Call, bytes: &[u8], typmod: i32, kind: &Kind) -> Returned {
    let envelope = Envelope::parse(bytes)?;
    accept_sealed(call, &envelope.head(), kind, PgError::OtherContent)?;
    for_column(varlena(bytes), kind, envelope.head(), kind.column(typmod))
}

/// `encrypted_*_out`: always ciphertext, for whoever stores or sends it; a cast through text would take it for the value.
pub fn out(call: Call) -> Returned {
    if let Some(target) = call.io_cast() {
        return Err(PgError::IoCast(type_name(target)));
    }
    let value = shown(call)?;
    let length = text_form::text_bytes(value.bytes().len());
    Ok(Some(fill_cstring(length, |room| text_form::encode(value.bytes(), room))))
}

/// `sealed_text(encrypted_*)`: the output as a text, for who wants to keep the sealed form.
pub fn as_sealed_text(call: Call) -> Returned {
    let value = call.varlena(0);
    let length = text_form::text_bytes(value.bytes().len());
    let Ok(text) = fill_varlena(length, |room| {
        text_form::encode(value.bytes(), room);
        Ok::<(), std::convert::Infallible>(())
    });
    Ok(Some(text.datum()))
}

/// `encrypted_*_send`: the bytes as they are stored.
pub fn send(call: Call) -> Returned {
    Ok(Some(varlena(shown(call)?.bytes()).datum()))
}

/// A value that is written out. While `pgseal.reveal` is on no ciphertext reaches the client in silence; literals in
/// definitions that PostgreSQL prints are in transit, and who writes the call out has asked for it.
fn shown(call: Call) -> Result<Varlena, PgError> {
    let value = call.varlena(0);
    match reveal::refusal_to_show() {
        Some(refusal) if call.argument_expression(0).is_none() => {
            if parse_head(value.bytes()).is_ok_and(|(head, _)| head.transit) {
                Ok(value)
            } else {
                Err(refusal)
            }
        }
        _ => Ok(value),
    }
}

/// `encrypted_typmod_in(cstring[])`: a keyring by name, or by number as a dump writes it. A number that is
/// not known passes, because a dump creates tables before it restores keyrings.
pub fn typmod_in(call: Call) -> Returned {
    let modifiers = array::cstrings(call.datum(0))?;
    let [keyring] = modifiers.as_slice() else {
        return Err(PgError::Argument("the type takes one modifier: the keyring".into()));
    };
    Ok(Some(keyring_number(keyring)?.into()))
}

/// The keyring that a type modifier names, by its name or by a number.
pub fn keyring_number(keyring: &str) -> Result<i32, PgError> {
    match keyring.parse::<i32>() {
        Ok(id) if id > 0 => Ok(id),
        Ok(_) => Err(PgError::Argument("a keyring number is positive".into())),
        Err(_) => session::keyring_id(keyring),
    }
}

/// `encrypted_typmod_out(int4)`.
pub fn typmod_out(call: Call) -> Returned {
    Ok(Some(cstring(&format!("({})", call.int4(0)))))
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

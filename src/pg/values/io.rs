//! Input and output of `encrypted_jsonb` and `encrypted_text`, and what vectors share with them.
//!
//! PostgreSQL tells the input function which column a value is for only in COPY. Literals, parameters and
//! DEFAULTs arrive without it; they are sealed at once, with the *transit* flag, and the column's length
//! coercion seals them anew when the statement runs.

use crate::core::envelope::{Envelope, Options};
use crate::core::header::{Content, Head, parse_head};
use crate::core::modifier::Column;
use crate::core::text_form;
use crate::pg::error::PgError;
use crate::pg::raw::array;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::{Varlena, cstring, fill_cstring, fill_varlena, type_name, varlena};
use crate::pg::raw::reveal;
use crate::pg::session::{self, Checked, Privilege};
use crate::pg::settings;
use crate::pg::values::casts::{for_column, head, parse_json};
use crate::pg::values::seal::{self, JSONB, Kind, TEXT};
use crate::pg::values::{column, vector};

/// `encrypted_jsonb_in(cstring, oid, int4)`.
pub fn jsonb_in(call: Call) -> Returned {
    let (text, typmod) = (call.cstring(0), call.int4(2));
    Call::without_context(|| match text_form::decode(text.to_bytes()) {
        Some(decoded) => sealed_text(call, decoded?, typmod, &JSONB),
        None => seal_input(Content::Jsonb, parse_json(text)?.bytes(), JSONB.column(typmod)),
    })
}

/// `encrypted_text_in(cstring, oid, int4)`.
pub fn text_in(call: Call) -> Returned {
    let (text, typmod) = (call.cstring(0), call.int4(2));
    Call::without_context(|| match text_form::decode(text.to_bytes()) {
        Some(decoded) => sealed_text(call, decoded?, typmod, &TEXT),
        None => seal_input(Content::Text, text.to_bytes(), TEXT.column(typmod)),
    })
}

/// With a column's keyring the value is final; without one it is in transit.
pub fn seal_input(content: Content, plaintext: &[u8], column: Column) -> Returned {
    vector::check_declared(column, content, plaintext.len())?;
    if let Some(keyring) = column::keyring(column)? {
        return Ok(Some(seal::seal(keyring, content, plaintext, false, Options::default())?.datum()));
    }
    let keyring = session::keyring_for_input()?;
    let sealed = if reveal::copies_in() {
        // No length coercion comes after it.
        seal::seal(keyring, content, plaintext, false, Options::default())?
    } else {
        seal::seal_literal(keyring, content, plaintext)?
    };
    Ok(Some(sealed.datum()))
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

/// `encrypted_jsonb_recv(internal, oid, int4)`.
pub fn jsonb_recv(call: Call) -> Returned {
    recv(call, &JSONB)
}

/// `encrypted_text_recv(internal, oid, int4)`.
pub fn text_recv(call: Call) -> Returned {
    recv(call, &TEXT)
}

fn recv(call: Call, kind: &Kind) -> Returned {
    let (bytes, typmod) = (call.message(), call.int4(2));
    Call::without_context(|| sealed_bytes(call, bytes, typmod, kind))
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

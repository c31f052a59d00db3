//! Casts to and from `encrypted_jsonb` and `encrypted_text`, and the functions that do the same when they are called.

use std::ffi::CStr;

use pgrx::{PgSqlErrorCode as Code, PgTryBuilder, pg_sys};
use zeroize::Zeroizing;

use crate::core::envelope::{Envelope, Options};
use crate::core::header::{Content, HEADER_BYTES, Head, parse_head};
use crate::core::memory;
use crate::core::modifier::Column;
use crate::core::text_form;
use crate::core::vector::elements;
use crate::pg::error::PgError;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::choice::was_planned_without;
use crate::pg::raw::datum::{
    self, Varlena, detoast, from_text, jsonb_from_text, jsonb_to_text, name, type_name,
};
use crate::pg::raw::encoding::c_text;
use crate::pg::raw::node::Expr;
use crate::pg::raw::text;
use crate::pg::session::{self, Checked, Privilege};
use crate::pg::values::seal::{self, JSONB, Kind, OpenValue, TEXT};
use crate::pg::values::{column, vector};

/// `coerce(encrypted_*, int4, bool)`: the length coercion to a column's keyring; -1 where the column names none.
pub fn coerce(call: Call) -> Returned {
    let head = head(call)?;
    let kind = seal::with_kind(call, |kind, (): &mut ()| kind);
    let column = kind.column(call.int4(1));
    kind.require(&head)?;
    if head.transit {
        return if column.is_bound() {
            for_column(call.varlena(0), kind, head, column)
        } else {
            for_any_column(call.varlena(0), kind, head)
        };
    }
    // A part of a document, which a role that may only search has as well: storing it is writing. A vector has no parts.
    if head.index_version == 0 && head.content != Content::Vector {
        require_writer(head.keyring)?;
    }
    // The datum stays as it is, out of line or not.
    for_column_sealed(call.datum(0), head, column)
}

/// A sealed value as a column takes it: one in transit is sealed anew under the column's keyring.
pub fn for_column(value: Varlena, kind: &Kind, head: Head, column: Column) -> Returned {
    match column::keyring(column) {
        Ok(Some(keyring)) if head.transit => {
            seal_anew(&seal::open_to_move(value.bytes(), kind, keyring)?, head, keyring, column)
        }
        Err(error) if head.transit => Err(error),
        // A restore may bring the keyring later.
        _ => for_column_sealed(value.datum(), head, column),
    }
}

/// A literal, of a DEFAULT perhaps, as a column without a keyring takes it: final, under the keyring that its session
/// chose. A dump of values stored in transit long ago may be restored before its keys are there, or without a KMS.
fn for_any_column(value: Varlena, kind: &Kind, head: Head) -> Returned {
    require_writer(head.keyring)?;
    match seal::open_to_move(value.bytes(), kind, head.keyring) {
        Ok(opened) => seal_anew(&opened, head, head.keyring, Column::ANY),
        Err(PgError::UnknownKeyringId(_) | PgError::Kms(..)) => {
            for_column_sealed(value.datum(), head, Column::ANY)
        }
        Err(error) => Err(error),
    }
}

fn seal_anew(opened: &OpenValue, head: Head, keyring: i32, column: Column) -> Returned {
    let (content, plaintext) = match head.content {
        Content::Text | Content::Vector => (head.content, Zeroizing::new(memory::copy(opened.content())?)),
        // JSON text becomes what this server writes.
        Content::Jsonb | Content::JsonText => {
            (Content::Jsonb, Zeroizing::new(memory::copy(opened.datum()?.bytes())?))
        }
    };
    vector::check_declared(column, content, plaintext.len())?;
    Ok(Some(seal::seal(keyring, content, &plaintext, false, Options::default())?.datum()))
}

/// Refuses a role without `encrypt`; a keyring that is not known yet passes, because a restore may bring it later.
fn require_writer(keyring: i32) -> Result<(), PgError> {
    match session::keyring(keyring) {
        Ok(keyring) => session::require(&keyring, Privilege::Encrypt),
        Err(PgError::UnknownKeyringId(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A value that stays as it is must be of the column's keyring, and its key not retired.
fn for_column_sealed(value: pg_sys::Datum, head: Head, column: Column) -> Returned {
    if !column.takes(head.keyring) {
        let (value, column) = (session::keyring_label(head.keyring), column::label(column));
        return Err(PgError::WrongKeyring { value, column });
    }
    if column.dimensions.is_some() {
        let envelope = detoast(value);
        // What compression or padding hides is as long as it is.
        let length = Envelope::parse(envelope.bytes())?.content_length();
        length.map_or(Ok(()), |length| vector::check_declared(column, head.content, length))?;
    }
    session::require_storable(head.keyring, head.data_version)?;
    Ok(Some(value))
}

/// The header of argument 0, of which no more is read.
pub fn head(call: Call) -> Result<Head, PgError> {
    Ok(parse_head(call.prefix(0, HEADER_BYTES).bytes())?.0)
}

/// `seal(jsonb, int4, bool)`: the assignment cast, where the column's keyring is known.
pub fn seal_jsonb(call: Call) -> Returned {
    seal_cast(call, &JSONB, Content::Jsonb, call.varlena(0).bytes())
}

/// `seal(json, int4, bool)`.
pub fn seal_json(call: Call) -> Returned {
    let document = parse_json(&c_text(call.varlena(0).bytes())?)?;
    seal_cast(call, &JSONB, Content::Jsonb, document.bytes())
}

/// `seal(text, int4, bool)`.
pub fn seal_text(call: Call) -> Returned {
    let text = call.varlena(0);
    if call.argument_expression(0).is_some_and(Expr::is_literal) {
        refuse_sealed(text.bytes())?;
    }
    seal_cast(call, &TEXT, Content::Text, text.bytes())
}

/// A client that sends a sealed value where it was told of text: sealed again, it would be no value of anybody's.
fn refuse_sealed(text: &[u8]) -> Result<(), PgError> {
    match text_form::decode(text) {
        Some(Ok(bytes)) if Envelope::parse(&bytes).is_ok() => Err(PgError::SealedAsText),
        _ => Ok(()),
    }
}

/// `seal(bpchar, int4, bool)`: as the cast to text, without the padding.
pub fn seal_bpchar(call: Call) -> Returned {
    let padded = call.varlena(0);
    let length = padded.bytes().iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    seal_cast(call, &TEXT, Content::Text, &padded.bytes()[..length])
}

/// A cast that is written out and knows no column is like a literal: its column may come later.
pub fn seal_cast(call: Call, kind: &Kind, content: Content, plaintext: &[u8]) -> Returned {
    let (column, explicit) = (kind.column(call.int4(1)), call.boolean(2));
    vector::check_declared(column, content, plaintext.len())?;
    let keyring = match column::keyring(column)? {
        Some(keyring) => keyring,
        None => session::keyring_for_input()?,
    };
    let transit = !column.is_bound() && explicit;
    let maker = session::maker()?;
    let options = Options { maker: transit.then_some(maker.as_slice()), ..Options::default() };
    Ok(Some(seal::seal(keyring, content, plaintext, transit, options)?.datum()))
}

/// `encrypt(jsonb, keyring text, context text)`.
pub fn encrypt_jsonb(call: Call) -> Returned {
    let Some(plaintext) = call.optional(0) else { return Ok(None) };
    encrypt(call, Content::Jsonb, plaintext.bytes())
}

/// `encrypt(text, keyring text, context text)`.
pub fn encrypt_text(call: Call) -> Returned {
    let Some(plaintext) = call.optional(0) else { return Ok(None) };
    encrypt(call, Content::Text, plaintext.bytes())
}

/// What the overloads of `encrypt` share: keyring and context are arguments 1 and 2.
pub fn encrypt(call: Call, content: Content, plaintext: &[u8]) -> Returned {
    let keyring = match call.optional_text(1)? {
        Some(name) => session::keyring_id(&name)?,
        None => session::keyring_for_input()?,
    };
    let context = call.optional_text(2)?;
    let options = Options { context: context.as_deref().map(str::as_bytes), ..Options::default() };
    Ok(Some(seal::seal(keyring, content, plaintext, false, options)?.datum()))
}

/// `decrypt(encrypted_* [, context text])`.
pub fn decrypt(call: Call) -> Returned {
    Ok(Some(decrypted(call)?.datum()))
}

/// `plain(encrypted_*, int4, boolean)`: the cast to what the value was made from. Written out it decrypts. Implied it refuses:
/// where the value goes to the client, the planner has put `plain(encrypted_*)` in its place (`raw::plain`).
pub fn plain_cast(call: Call) -> Returned {
    require_written(call)?;
    let (declared, value) = (call.int4(1), decrypted(call)?);
    if let (Ok(declared), &[low, high, ..]) = (usize::try_from(declared), value.bytes()) {
        elements::check_declared(declared, usize::from(u16::from_ne_bytes([low, high])))?;
    }
    Ok(Some(value.datum()))
}

fn require_written(call: Call) -> Result<(), PgError> {
    if call.boolean(2) {
        Ok(())
    } else if was_planned_without() {
        Err(PgError::PlannedBefore)
    } else {
        Err(PgError::IoCast(type_name(call.result_type())))
    }
}

/// `plain_varchar(encrypted_text, int4, boolean)`: the same to varchar, with its length.
pub fn plain_varchar(call: Call) -> Returned {
    require_written(call)?;
    Ok(Some(text::cut(decrypted(call)?, call.int4(1))))
}

/// `assigned(jsonb, encrypted_jsonb, int4)`: a document of which a part was assigned, sealed for its column; where that names
/// no keyring, under the one of the document that it was.
pub fn assigned(call: Call) -> Returned {
    let Some(document) = call.optional(0) else { return Ok(None) };
    let before =
        call.optional(1).map(|before| Ok::<_, PgError>(parse_head(before.bytes())?.0)).transpose()?;
    before.as_ref().map_or(Ok(()), |before| JSONB.require(before))?;
    let keyring = match (column::keyring(JSONB.column(call.int4(2)))?, before) {
        (Some(keyring), _) => keyring,
        (None, Some(before)) => before.keyring,
        (None, None) => session::keyring_for_input()?,
    };
    Ok(Some(seal::seal(keyring, Content::Jsonb, document.bytes(), false, Options::default())?.datum()))
}

/// `decrypt_as_*(encrypted_jsonb)`: as the cast of PostgreSQL's own from jsonb.
pub fn jsonb_as(call: Call) -> Returned {
    match datum::jsonb_as(decrypted(call)?, call.result_type()) {
        Some(value) => Ok(Some(value)),
        None => Err(PgError::IoCast(type_name(call.result_type()))),
    }
}

/// `decrypt_as_text(encrypted_jsonb)`: for the casts to text, varchar and bpchar.
pub fn decrypt_jsonb_as_text(call: Call) -> Returned {
    Ok(Some(jsonb_to_text(decrypted(call)?).datum()))
}

/// `decrypt_as_name(encrypted_jsonb)`.
pub fn decrypt_jsonb_as_name(call: Call) -> Returned {
    Ok(Some(name(jsonb_to_text(decrypted(call)?))))
}

/// `decrypt_as_name(encrypted_text)`.
pub fn decrypt_text_as_name(call: Call) -> Returned {
    Ok(Some(name(decrypted(call)?)))
}

/// `decrypt_as_*(encrypted_text)`: what the text means as another type. PostgreSQL's own error would quote it.
pub fn decrypt_as(call: Call) -> Returned {
    Ok(Some(read_as(&c_text(decrypted(call)?.bytes())?, call.result_type())?))
}

/// Reads a text as the input function of a type does; the error does not quote it.
pub fn read_as(text: &CStr, of: pg_sys::Oid) -> Result<pg_sys::Datum, PgError> {
    let read = PgTryBuilder::new(|| Ok(Call::without_quotation(|| from_text(text, of))));
    let read = UNREADABLE.into_iter().fold(read, |read, code| {
        read.catch_when(code, move |_| Err(PgError::Unreadable(type_name(of), code)))
    });
    read.execute()
}

/// How input functions refuse a text.
const UNREADABLE: [Code; 8] = [
    Code::ERRCODE_INVALID_TEXT_REPRESENTATION,
    Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
    Code::ERRCODE_INVALID_DATETIME_FORMAT,
    Code::ERRCODE_DATETIME_FIELD_OVERFLOW,
    Code::ERRCODE_INTERVAL_FIELD_OVERFLOW,
    Code::ERRCODE_INVALID_TIME_ZONE_DISPLACEMENT_VALUE,
    Code::ERRCODE_INVALID_PARAMETER_VALUE,
    Code::ERRCODE_UNTRANSLATABLE_CHARACTER,
];

fn decrypted(call: Call) -> Result<Varlena, PgError> {
    let context = match call.count() {
        2 => call.optional_text(1)?,
        _ => None,
    };
    let context = context.as_deref().map(str::as_bytes);
    let value = call.varlena(0);
    seal::with_kind(call, |kind, checked: &mut Checked| {
        seal::open_datum(value.bytes(), kind, context, checked)
    })
}

/// jsonb's own errors quote the document, which would put it into the server log.
pub fn parse_json(text: &CStr) -> Result<Varlena, PgError> {
    PgTryBuilder::new(|| Ok(Call::without_quotation(|| jsonb_from_text(text))))
        .catch_when(Code::ERRCODE_INVALID_TEXT_REPRESENTATION, |_| Err(PgError::Json))
        .catch_when(Code::ERRCODE_UNTRANSLATABLE_CHARACTER, |_| Err(PgError::Json))
        .execute()
}

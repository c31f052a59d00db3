//! `encrypted_vector`: input, type modifiers, casts and functions of embeddings. The content is their elements, which are
//! checked before they are sealed.

use pgrx::{notice, pg_sys};
use zeroize::Zeroizing;

use crate::core::envelope::Envelope;
use crate::core::header::Content;
use crate::core::modifier::{self, Bound, Column};
use crate::core::text_form;
use crate::core::vector::distance::{self, Metric};
use crate::core::vector::elements::{self, ELEMENT_BYTES, MAX_DIMENSIONS, VectorError};
use crate::pg::error::PgError;
use crate::pg::raw::array;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::{Varlena, cstring};
use crate::pg::raw::definition::literal_is_seen;
use crate::pg::session::{Checked, Privilege};
use crate::pg::values::seal::{self, VECTOR};
use crate::pg::values::{casts, column, io, plain_vector};

/// Refuses a vector of another length than its column declares; everything else has none.
pub fn check_declared(column: Column, content: Content, bytes: usize) -> Result<(), PgError> {
    match column.dimensions {
        Some(declared) if content == Content::Vector => {
            Ok(elements::check_declared(declared, bytes / ELEMENT_BYTES)?)
        }
        _ => Ok(()),
    }
}

/// `encrypted_vector_in(cstring, oid, int4)`.
pub fn vector_in(call: Call) -> Returned {
    let (text, typmod, seen) = (call.cstring(0).to_bytes(), call.int4(2), literal_is_seen());
    Call::without_context(|| match text_form::decode(text) {
        Some(decoded) => io::sealed_text(call, decoded?, typmod, &VECTOR),
        None => {
            // What is no UTF-8 is no number either.
            let text = std::str::from_utf8(text).map_err(|_| VectorError::Syntax(None))?;
            seal_input(&Zeroizing::new(elements::parse_text(text)?), typmod, seen)
        }
    })
}

/// `encrypted_vector_recv(internal, oid, int4)`: a sealed value, or what pgvector's types send. Their third and fourth byte
/// are zero, where a sealed value says what it holds.
pub fn vector_recv(call: Call) -> Returned {
    let (bytes, typmod) = (call.message(), call.int4(2));
    Call::without_context(|| {
        if bytes.get(2..4) != Some(&[0, 0]) {
            return io::sealed_bytes(call, bytes, typmod, &VECTOR);
        }
        let elements =
            plain_vector::half_from_binary(bytes).unwrap_or_else(|| elements::from_binary(bytes))?;
        seal_input(&Zeroizing::new(elements), typmod, false)
    })
}

fn seal_input(elements: &[f32], typmod: i32, seen: bool) -> Returned {
    let plaintext = Zeroizing::new(elements::to_bytes(elements)?);
    io::seal_input(Content::Vector, &plaintext, VECTOR.column(typmod), seen)
}

/// `vector_typmod_in(cstring[])`: a keyring by name or number, and how many dimensions.
pub fn typmod_in(call: Call) -> Returned {
    let modifiers = array::cstrings(call.datum(0))?;
    let (keyring, dimensions) = match modifiers.as_slice() {
        [keyring] => (keyring, 0),
        [keyring, dimensions] => (keyring, declared(dimensions)?),
        _ => {
            let usage = "the type takes one or two modifiers: the keyring, and the number of dimensions";
            return Err(PgError::Argument(usage.into()));
        }
    };
    let number = io::keyring_number(keyring)?;
    let tag = modifier::tag(number);
    if tag == 0 {
        let unnameable = format!(
            "a column of vectors cannot name keyring \"{keyring}\", whose number is a multiple of 131072"
        );
        return Err(PgError::Argument(unnameable));
    }
    match column::keyring_of_tag(tag) {
        Err(error @ PgError::SharedTag(..)) => return Err(error),
        // As a dump has it that is restored before its keyrings; or somebody who thinks of pgvector's type.
        Err(PgError::UnknownKeyringId(_)) if dimensions == 0 && number as usize <= MAX_DIMENSIONS => {
            notice!(
                "there is no keyring {number} yet; dimensions are the second modifier: encrypted_vector(keyring, {number})"
            );
        }
        _ => (),
    }
    Ok(Some(modifier::of_vectors(tag, dimensions).into()))
}

fn declared(dimensions: &str) -> Result<usize, PgError> {
    let refused = |why: String| Err(PgError::Argument(format!("dimensions for type encrypted_vector {why}")));
    match dimensions.parse::<i64>() {
        Err(_) => refused("are a number, after the keyring: encrypted_vector(keyring, 384)".into()),
        Ok(..=0) => refused("must be at least 1".into()),
        Ok(number) if number as usize > MAX_DIMENSIONS => refused(format!("cannot exceed {MAX_DIMENSIONS}")),
        Ok(number) => Ok(number as usize),
    }
}

/// `vector_typmod_out(int4)`: the keyring's number as it is known here, so that another database finds the same keyring.
pub fn typmod_out(call: Call) -> Returned {
    let column = VECTOR.column(call.int4(0));
    let Bound::Tag(tag) = column.bound else { return Ok(Some(cstring(""))) };
    let keyring = column::keyring_of_tag(tag).unwrap_or(tag);
    let text = match column.dimensions {
        Some(dimensions) => format!("({keyring},{dimensions})"),
        None => format!("({keyring})"),
    };
    Ok(Some(cstring(&text)))
}

/// `keyring_of_typmod(encrypted_vector, int4)`: the keyring that a column is bound to; NULL where it is to none, or to one
/// that is not there or not the only one with its tag.
pub fn keyring_of_typmod(call: Call) -> Returned {
    match column::keyring(VECTOR.column(call.int4(0))) {
        Ok(keyring) => Ok(keyring.map(Into::into)),
        Err(PgError::UnknownKeyringId(_) | PgError::SharedTag(..)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `seal(vector, int4, bool)`: the assignment cast.
pub fn seal_vector(call: Call) -> Returned {
    seal_elements(call, plain_vector::elements(call.varlena(0).bytes())?)
}

/// `seal(halfvec, int4, bool)`.
pub fn seal_halfvec(call: Call) -> Returned {
    seal_elements(call, plain_vector::half_elements(call.varlena(0).bytes())?)
}

/// `seal(real[], int4, bool)` and the other arrays of numbers that pgvector takes.
pub fn seal_array(call: Call) -> Returned {
    let elements = Zeroizing::new(array::float4s(call.datum(0))?);
    elements::check(&elements)?;
    seal_elements(call, elements.to_vec())
}

fn seal_elements(call: Call, elements: Vec<f32>) -> Returned {
    let plaintext = Zeroizing::new(elements::to_bytes(&Zeroizing::new(elements))?);
    casts::seal_cast(call, &VECTOR, Content::Vector, &plaintext)
}

/// `encrypt(vector, keyring text, context text)`.
pub fn encrypt_vector(call: Call) -> Returned {
    let Some(value) = call.optional(0) else { return Ok(None) };
    let elements = Zeroizing::new(plain_vector::elements(value.bytes())?);
    casts::encrypt(call, Content::Vector, &Zeroizing::new(elements::to_bytes(&elements)?))
}

/// Reads the elements of sealed vectors, one after the other, into one buffer.
#[derive(Default)]
pub struct Reader {
    content: Zeroizing<Vec<u8>>,
    elements: Zeroizing<Vec<f32>>,
}

impl Reader {
    /// Decrypts a value whose key is at hand. A context is not asked for, as in every comparison.
    pub fn read(&mut self, value: seal::Located<'_>) -> Result<&[f32], PgError> {
        if let Some(length) = value.bare_length() {
            self.content.resize(length, 0);
            value.open_into(&mut self.content)?;
            elements::read_bytes(&self.content, &mut self.elements)?;
        } else {
            elements::read_bytes(value.open()?.content(), &mut self.elements)?;
        }
        Ok(&self.elements)
    }
}

/// What a call site of a distance keeps.
#[derive(Default)]
struct Asking {
    checked: Checked,
    reader: Reader,
    query: Zeroizing<Vec<f32>>,
    /// The datum that the query was read from, and says what another one is compared with.
    datum: Vec<u8>,
}

impl Asking {
    fn ask(&mut self, query: &[u8]) -> Result<(), PgError> {
        if self.datum != query {
            self.query = Zeroizing::new(plain_vector::elements(query)?);
            self.datum = query.to_vec();
        }
        Ok(())
    }

    fn distance(&mut self, value: &[u8], metric: Metric) -> Result<f64, PgError> {
        let value = seal::locate_to_read(value, &VECTOR, &mut self.checked)?;
        let elements = self.reader.read(value)?;
        if elements.len() != self.query.len() {
            return Err(PgError::DifferentDimensions(elements.len(), self.query.len()));
        }
        Ok(metric.distance(elements, &self.query))
    }
}

fn distance(call: Call, metric: Metric) -> Returned {
    let (value, query) = (call.varlena(0), call.varlena(1));
    let distance = call.with_cache(|asking: &mut Asking| {
        asking.ask(query.bytes())?;
        asking.distance(value.bytes(), metric)
    });
    Ok(Some(float8(distance?)))
}

/// `encrypted_vector <-> vector`.
pub fn l2_distance(call: Call) -> Returned {
    distance(call, Metric::L2)
}

/// `encrypted_vector <#> vector`.
pub fn negative_inner_product(call: Call) -> Returned {
    distance(call, Metric::InnerProduct)
}

/// `encrypted_vector <=> vector`.
pub fn cosine_distance(call: Call) -> Returned {
    distance(call, Metric::Cosine)
}

/// `encrypted_vector <+> vector`.
pub fn l1_distance(call: Call) -> Returned {
    distance(call, Metric::L1)
}

/// `vector_dims(encrypted_vector)`: needs no key, unless the value is compressed or padded.
pub fn dimensions(call: Call) -> Returned {
    let value = call.varlena(0);
    let envelope = Envelope::parse(value.bytes())?;
    VECTOR.require(&envelope.head())?;
    let dimensions = match envelope.content_length() {
        Some(length) => length / ELEMENT_BYTES,
        None => read(call, value, |elements| elements.len())?,
    };
    Ok(Some((dimensions as i32).into()))
}

/// `vector_norm(encrypted_vector)`.
pub fn norm(call: Call) -> Returned {
    Ok(Some(float8(read(call, call.varlena(0), distance::norm)?)))
}

fn read<T>(call: Call, value: Varlena, work: impl FnOnce(&[f32]) -> T) -> Result<T, PgError> {
    call.with_cache(|asking: &mut Asking| {
        let value = seal::locate_to_read(value.bytes(), &VECTOR, &mut asking.checked)?;
        Ok(work(asking.reader.read(value)?))
    })
}

/// `l2_normalize(encrypted_vector)`: sealed again under the same keyring; a vector of zeros stays.
pub fn normalize(call: Call) -> Returned {
    call.with_cache(Checked::start);
    let value = seal::open_for(call.varlena(0).bytes(), &VECTOR, Privilege::Encrypt)?;
    let mut elements = Zeroizing::new(elements::from_bytes(value.content())?);
    distance::normalize(&mut elements);
    let plaintext = Zeroizing::new(elements::to_bytes(&elements)?);
    Ok(Some(seal::seal_part(&value, Content::Vector, &plaintext, false)?.datum()))
}

fn float8(number: f64) -> pg_sys::Datum {
    pg_sys::Datum::from(number.to_bits())
}

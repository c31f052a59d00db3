//! pgvector's own datums, read and written as their bytes: this library is never linked with pgvector.
//!
//! Behind the length word of a `vector`: its number of elements (int2), two bytes that are zero, float4 elements. Of a
//! `halfvec` the same with elements of two bytes (IEEE 754 binary16). Numbers are in the server's byte order.

use std::cmp::Ordering;

use crate::core::memory::{self, OutOfMemory};
use crate::core::vector::elements::{self, ELEMENT_BYTES, MAX_DIMENSIONS, VectorError};

const HEAD_BYTES: usize = 4;
const HALF_BYTES: usize = 2;

/// What stands before the elements of a `vector` with a sealed content of so many bytes.
pub fn head(content_bytes: usize) -> Result<[u8; HEAD_BYTES], VectorError> {
    let dimensions = content_bytes / ELEMENT_BYTES;
    if !content_bytes.is_multiple_of(ELEMENT_BYTES) {
        return Err(VectorError::Binary);
    }
    match dimensions {
        0 => Err(VectorError::NoDimension),
        1..=MAX_DIMENSIONS => {
            let [low, high] = (dimensions as i16).to_ne_bytes();
            Ok([low, high, 0, 0])
        }
        _ => Err(VectorError::TooManyDimensions),
    }
}

/// The elements of a `vector`, from the bytes behind its length word.
pub fn elements(datum: &[u8]) -> Result<Vec<f32>, VectorError> {
    let (body, []) = body(datum, ELEMENT_BYTES)?.as_chunks() else { return Err(VectorError::Binary) };
    checked(body.iter().map(|element| f32::from_ne_bytes(*element)), body.len())
}

/// The elements of a `halfvec`.
pub fn half_elements(datum: &[u8]) -> Result<Vec<f32>, VectorError> {
    let (body, []) = body(datum, HALF_BYTES)?.as_chunks() else { return Err(VectorError::Binary) };
    checked(body.iter().map(|element| from_half(u16::from_ne_bytes(*element))), body.len())
}

/// The elements of a `halfvec` in its binary form, where the bytes can be nothing else.
pub fn half_from_binary(bytes: &[u8]) -> Option<Result<Vec<f32>, VectorError>> {
    let ([high, low, 0, 0], body) = bytes.split_first_chunk::<HEAD_BYTES>()? else { return None };
    let count = usize::from(u16::from_be_bytes([*high, *low]));
    let (body, []) = body.as_chunks() else { return None };
    let is_half = count > 0 && body.len() == count;
    is_half.then(|| checked(body.iter().map(|element| from_half(u16::from_be_bytes(*element))), count))
}

/// The numbers that a vector's sealed content is made of.
fn numbers(content: &[u8]) -> impl Iterator<Item = f32> {
    content.as_chunks().0.iter().map(|element| f32::from_ne_bytes(*element))
}

/// pgvector's order of two contents: by the first number that differs, then by how many there are.
pub fn order(left: &[u8], right: &[u8]) -> Ordering {
    let pairs = numbers(left).zip(numbers(right));
    let mut orders = pairs.map(|(left, right)| left.partial_cmp(&right).unwrap_or(Ordering::Equal));
    orders.find(|order| order.is_ne()).unwrap_or_else(|| left.len().cmp(&right.len()))
}

/// The same bytes for contents that are equal: zero has two forms.
pub fn hashable(content: &[u8]) -> Result<Vec<u8>, OutOfMemory> {
    let mut bytes = memory::room(content.len())?;
    bytes.extend(numbers(content).flat_map(|number| (number + 0.0).to_ne_bytes()));
    Ok(bytes)
}

fn body(datum: &[u8], element_bytes: usize) -> Result<&[u8], VectorError> {
    let ([low, high, ..], body) = datum.split_first_chunk::<HEAD_BYTES>().ok_or(VectorError::Binary)?;
    let count = usize::try_from(i16::from_ne_bytes([*low, *high])).unwrap_or(0);
    (body.len() == count * element_bytes).then_some(body).ok_or(VectorError::Binary)
}

fn checked(numbers: impl Iterator<Item = f32>, count: usize) -> Result<Vec<f32>, VectorError> {
    let mut all = memory::room(count).map_err(|_| OutOfMemory)?;
    all.extend(numbers);
    elements::check(&all)?;
    Ok(all)
}

/// Every binary16 is a binary32.
fn from_half(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let (exponent, fraction) = (u32::from(half >> 10 & 0x1F), u32::from(half & 0x3FF));
    let magnitude = match exponent {
        // Subnormal: a multiple of 2^-24.
        0 => (fraction as f32 / (1 << 24) as f32).to_bits(),
        0x1F => 0x7F80_0000 | fraction << 13,
        _ => (exponent + 127 - 15) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

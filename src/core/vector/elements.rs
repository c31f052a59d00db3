//! The elements of a vector: IEEE 754 binary32 numbers, all finite, from 1 to 16,000 of them, as in pgvector.
//!
//! No error quotes an element: a vector is as telling as the text it was made from.

use crate::core::memory::{self, OutOfMemory};

/// Elements of one vector, at most.
pub const MAX_DIMENSIONS: usize = 16_000;
/// Bytes of one element.
pub const ELEMENT_BYTES: usize = 4;
/// Bytes of pgvector's binary form before the elements: their number and two zero bytes.
const BINARY_HEAD_BYTES: usize = 4;

/// Why something is not a vector. The texts are pgvector's; so is each SQLSTATE that is named here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VectorError {
    /// 22P02, and the detail that goes with it where there is one.
    #[error("invalid input syntax for type vector")]
    Syntax(Option<&'static str>),
    /// 22003: a number that no float4 can hold.
    #[error("a number is out of range for type vector")]
    OutOfRange,
    /// 22000.
    #[error("NaN not allowed in vector")]
    NotANumber,
    /// 22000.
    #[error("infinite value not allowed in vector")]
    Infinite,
    /// 22000.
    #[error("vector must have at least 1 dimension")]
    NoDimension,
    /// 54000.
    #[error("vector cannot have more than {MAX_DIMENSIONS} dimensions")]
    TooManyDimensions,
    /// 22000: the declared number, and the one that came.
    #[error("expected {0} dimensions, not {1}")]
    OtherDimensions(usize, usize),
    /// 22000: of a binary form; pgvector says the number.
    #[error("expected unused to be 0")]
    Unused,
    /// 22P03: bytes that are cut short or too many.
    #[error("invalid binary form of a vector")]
    Binary,
    /// 53200.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// Reads pgvector's text form, `[1,2,3]`.
///
/// Two things are stricter than in pgvector, which hands each number to `strtof`: hexadecimal numbers and NaN with a
/// payload are syntax errors.
pub fn parse_text(text: &str) -> Result<Vec<f32>, VectorError> {
    const START: VectorError = VectorError::Syntax(Some("Vector contents must start with \"[\"."));
    const END: VectorError = VectorError::Syntax(Some("Junk after closing right brace."));
    let inside = skip_space(text).strip_prefix('[').ok_or(START)?;
    if skip_space(inside).starts_with(']') {
        return Err(VectorError::NoDimension);
    }
    let (inside, rest) = inside.split_once(']').ok_or(VectorError::Syntax(None))?;
    let mut elements = Vec::new();
    for number in inside.split(',') {
        if elements.len() == MAX_DIMENSIONS {
            return Err(VectorError::TooManyDimensions);
        }
        memory::push(&mut elements, parse_number(number.trim_matches(is_space))?)?;
    }
    skip_space(rest).is_empty().then_some(elements).ok_or(END)
}

/// Reads the content of a sealed vector: little-endian elements that were checked before they were sealed.
pub fn from_bytes(bytes: &[u8]) -> Result<Vec<f32>, VectorError> {
    let mut elements = memory::room(bytes.len() / ELEMENT_BYTES)?;
    read_bytes(bytes, &mut elements)?;
    Ok(elements)
}

/// The same into a buffer that is used again for every row; what was in it is gone.
pub fn read_bytes(bytes: &[u8], elements: &mut Vec<f32>) -> Result<(), VectorError> {
    let (chunks, []) = bytes.as_chunks::<ELEMENT_BYTES>() else { return Err(VectorError::Binary) };
    elements.clear();
    elements.try_reserve(chunks.len()).map_err(|_| OutOfMemory)?;
    elements.extend(chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)));
    check(elements)
}

/// The content to seal.
pub fn to_bytes(elements: &[f32]) -> Result<Vec<u8>, OutOfMemory> {
    let mut bytes = memory::room(elements.len() * ELEMENT_BYTES)?;
    bytes.extend(elements.iter().flat_map(|element| element.to_le_bytes()));
    Ok(bytes)
}

/// Reads pgvector's binary form: number of elements (int2), two zero bytes, the elements; all big-endian.
pub fn from_binary(bytes: &[u8]) -> Result<Vec<f32>, VectorError> {
    let ([count_high, count_low, unused @ ..], body) =
        bytes.split_first_chunk::<BINARY_HEAD_BYTES>().ok_or(VectorError::Binary)?;
    // Signed on the wire: a negative number is none.
    let count = usize::try_from(i16::from_be_bytes([*count_high, *count_low])).unwrap_or(0);
    check_dimensions(count)?;
    if *unused != [0, 0] {
        return Err(VectorError::Unused);
    }
    let (chunks, []) = body.as_chunks::<ELEMENT_BYTES>() else { return Err(VectorError::Binary) };
    if chunks.len() != count {
        return Err(VectorError::Binary);
    }
    let mut elements = memory::room(count)?;
    elements.extend(chunks.iter().map(|chunk| f32::from_be_bytes(*chunk)));
    check(&elements)?;
    Ok(elements)
}

/// Writes what [`from_binary`] reads; `elements` have passed [`check`].
pub fn to_binary(elements: &[f32]) -> Result<Vec<u8>, OutOfMemory> {
    let mut bytes = memory::room(BINARY_HEAD_BYTES + elements.len() * ELEMENT_BYTES)?;
    bytes.extend((elements.len() as i16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(elements.iter().flat_map(|element| element.to_be_bytes()));
    Ok(bytes)
}

/// Are these the elements of a vector?
pub fn check(elements: &[f32]) -> Result<(), VectorError> {
    check_dimensions(elements.len())?;
    // Without a branch for each, it takes a quarter of the time.
    if elements.iter().fold(true, |all, element| all & element.is_finite()) {
        return Ok(());
    }
    elements.iter().try_for_each(|element| check_element(*element))
}

/// Refuses a vector of another number of elements than was declared.
pub fn check_declared(declared: usize, actual: usize) -> Result<(), VectorError> {
    (declared == actual).then_some(()).ok_or(VectorError::OtherDimensions(declared, actual))
}

fn check_dimensions(count: usize) -> Result<(), VectorError> {
    match count {
        0 => Err(VectorError::NoDimension),
        1..=MAX_DIMENSIONS => Ok(()),
        _ => Err(VectorError::TooManyDimensions),
    }
}

fn check_element(element: f32) -> Result<(), VectorError> {
    if element.is_nan() {
        Err(VectorError::NotANumber)
    } else if element.is_infinite() {
        Err(VectorError::Infinite)
    } else {
        Ok(())
    }
}

fn parse_number(number: &str) -> Result<f32, VectorError> {
    let element: f32 = number.parse().map_err(|_| VectorError::Syntax(None))?;
    let is_overflow = element.is_infinite() && number.contains(|c: char| c.is_ascii_digit());
    if is_overflow {
        return Err(VectorError::OutOfRange);
    }
    check_element(element)?;
    Ok(element)
}

fn skip_space(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SYNTAX: VectorError = VectorError::Syntax(None);

    #[test]
    fn text_is_read_as_pgvector_reads_it() {
        let cases: [(&str, &[f32]); 5] = [
            ("[1,2,3]", &[1.0, 2.0, 3.0]),
            (" \t[ 1 ,\n-2.5e1,\x0b+.5 ] \x0c\r", &[1.0, -25.0, 0.5]),
            ("[1e-50]", &[0.0]),
            ("[3.4028235e38]", &[f32::MAX]),
            ("[0.1,5.]", &[0.1, 5.0]),
        ];
        for (text, elements) in cases {
            assert_eq!(parse_text(text).as_deref(), Ok(elements), "{text}");
        }
    }

    #[test]
    fn text_that_is_no_vector_has_the_error_of_pgvector() {
        use VectorError::*;
        let cases = [
            ("[]", NoDimension),
            ("[ ]", NoDimension),
            ("[1,]", SYNTAX),
            ("[,1]", SYNTAX),
            ("[1", SYNTAX),
            ("[1,", SYNTAX),
            ("[", SYNTAX),
            ("[1 2]", SYNTAX),
            ("[1a]", SYNTAX),
            ("[a]", SYNTAX),
            ("[0x10]", SYNTAX),
            ("[[1]]", SYNTAX),
            ("[1e400]", OutOfRange),
            ("[-1e400]", OutOfRange),
            ("[NaN]", NotANumber),
            ("[inf]", Infinite),
            ("[1,-Infinity]", Infinite),
        ];
        for (text, error) in cases {
            assert_eq!(parse_text(text), Err(error), "{text}");
        }
        for text in ["", "1,2", "{1}"] {
            assert!(
                matches!(parse_text(text), Err(Syntax(Some(detail))) if detail.contains("start")),
                "{text}"
            );
        }
        assert!(matches!(parse_text("[1]x"), Err(Syntax(Some(detail))) if detail.contains("Junk")));
    }

    #[test]
    fn text_has_at_most_16_000_elements() {
        let of = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        assert_eq!(parse_text(&of(16_000)).map(|elements| elements.len()), Ok(16_000));
        assert_eq!(parse_text(&of(16_001)), Err(VectorError::TooManyDimensions));
    }

    #[test]
    fn a_binary_form_is_big_endian_and_checked() {
        let bytes = [0, 2, 0, 0, 0x3f, 0x80, 0, 0, 0xc0, 0, 0, 0];
        assert_eq!(from_binary(&bytes), Ok(vec![1.0, -2.0]));
        assert_eq!(to_binary(&[1.0, -2.0]), Ok(bytes.to_vec()));
        assert_eq!(from_binary(&bytes[..11]), Err(VectorError::Binary));
        assert_eq!(from_binary(&bytes[..8]), Err(VectorError::Binary));
        assert_eq!(from_binary(&[0, 0, 0, 0]), Err(VectorError::NoDimension));
        assert_eq!(from_binary(&[0xff, 0xff, 0, 0]), Err(VectorError::NoDimension));
        assert_eq!(from_binary(&[0x7f, 0xff, 0, 0]), Err(VectorError::TooManyDimensions));
        assert_eq!(from_binary(&[0, 1, 0, 1, 0, 0, 0, 0]), Err(VectorError::Unused));
        assert_eq!(from_binary(&[0, 1, 0, 0, 0x7f, 0x80, 0, 0]), Err(VectorError::Infinite));
    }

    #[test]
    fn sealed_content_is_checked_when_it_is_read() {
        assert_eq!(from_bytes(&[0, 0, 0x80, 0x3f]), Ok(vec![1.0]));
        assert_eq!(from_bytes(&[0, 0, 0x80]), Err(VectorError::Binary));
        assert_eq!(from_bytes(&[]), Err(VectorError::NoDimension));
        assert_eq!(from_bytes(&f32::NAN.to_le_bytes()), Err(VectorError::NotANumber));
    }

    proptest! {
        #[test]
        fn elements_come_back_from_all_three_forms(
            elements in proptest::collection::vec(proptest::num::f32::NORMAL | proptest::num::f32::ZERO, 1..50),
        ) {
            let printed: Vec<String> = elements.iter().map(f32::to_string).collect();
            prop_assert_eq!(&parse_text(&format!("[{}]", printed.join(","))).unwrap(), &elements);
            prop_assert_eq!(&from_bytes(&to_bytes(&elements).unwrap()).unwrap(), &elements);
            prop_assert_eq!(&from_binary(&to_binary(&elements).unwrap()).unwrap(), &elements);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[\\[\\], 0-9.einfaN+-]{0,40}") {
            let _ = parse_text(&text);
        }
    }
}

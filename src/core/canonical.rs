//! One byte string per jsonb scalar: two scalars that jsonb calls equal have equal bytes, and no others.
//!
//! Strings are their UTF-8 bytes, without Unicode normalisation, because jsonb compares bytes.

/// What a token or filter leaf is about; the byte is part of every token, so it never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// JSON null.
    Null = 0,
    /// JSON false.
    False = 1,
    /// JSON true.
    True = 2,
    /// A number, see [`number`].
    Number = 3,
    /// A string, or a whole text value.
    String = 4,
    /// An object without keys; has no token.
    EmptyObject = 5,
    /// An array without elements; has no token.
    EmptyArray = 6,
    /// Not a value: a bucket of a range, see [`super::range`].
    Bucket = 8,
    /// Not a value: the bits that keep the paths of short tokens apart. 7 is reserved for key existence.
    Path = 9,
}

impl Kind {
    /// A value that is no container.
    pub fn is_scalar(self) -> bool {
        !matches!(self, Kind::EmptyObject | Kind::EmptyArray | Kind::Bucket | Kind::Path)
    }
}

/// The bytes are not a finite number in the form jsonb stores.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a finite numeric in its stored form")]
pub struct NumberError;

/// Sign and exponent, before the digits of a canonical number.
pub const NUMBER_HEAD_BYTES: usize = 5;
/// Digits of a numeric, before and behind the point, at most (numeric.h).
const MAX_DIGITS: usize = 131_072 + 16_383;

const SHORT_FORM: u16 = 0x8000;
const FORM_MASK: u16 = 0xC000;
const SPECIAL: u16 = 0xC000;
const NEGATIVE_LONG: u16 = 0x4000;
const NEGATIVE_SHORT: u16 = 0x2000;

/// Appends the canonical form of a stored numeric: sign (0 or 1), exponent of ten (i32 big-endian),
/// then the decimal digits without leading or trailing zeros. Zero is sign 0, exponent 0, no digits.
///
/// `stored` is the numeric without its length word (numeric.c, `NumericShort` and `NumericLong`).
pub fn number(stored: &[u8], out: &mut Vec<u8>) -> Result<(), NumberError> {
    let (negative, weight, groups) = parts(stored)?;
    let digits = decimal_digits(groups)?;
    let last_group = i32::from(weight) + 1 - (groups.len() / 2) as i32;
    push_decimal(negative, &digits, last_group * 4, out);
    Ok(())
}

/// [`number`] for a number as PostgreSQL prints it: sign, digits, and no exponent. `None` for other text.
pub fn printed_number(text: &str) -> Option<Vec<u8>> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(unsigned) => (true, unsigned),
        None => (false, text),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = [whole, fraction].concat();
    if whole.is_empty() || digits.len() > MAX_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut out = Vec::with_capacity(NUMBER_HEAD_BYTES + digits.len());
    push_decimal(negative, digits.as_bytes(), -(fraction.len() as i32), &mut out);
    Some(out)
}

/// `digits` times ten to the power `exponent`.
fn push_decimal(negative: bool, digits: &[u8], exponent: i32, out: &mut Vec<u8>) {
    let leading = digits.iter().take_while(|digit| **digit == b'0').count();
    let significant = &digits[leading..];
    let trailing = significant.iter().rev().take_while(|digit| **digit == b'0').count();
    let kept = &significant[..significant.len() - trailing];
    if kept.is_empty() {
        out.extend_from_slice(&[0; NUMBER_HEAD_BYTES]);
        return;
    }
    out.push(u8::from(negative));
    out.extend_from_slice(&(exponent + trailing as i32).to_be_bytes());
    out.extend_from_slice(kept);
}

/// Sign, weight of the first base-10000 digit, and the digits' bytes.
fn parts(stored: &[u8]) -> Result<(bool, i16, &[u8]), NumberError> {
    let (head, rest) = split_u16(stored)?;
    match head & FORM_MASK {
        SPECIAL => Err(NumberError),
        SHORT_FORM => {
            // Seven bits, sign-extended.
            let weight = ((head << 9) as i16) >> 9;
            Ok((head & NEGATIVE_SHORT != 0, weight, rest))
        }
        sign => {
            let (weight, digits) = split_u16(rest)?;
            Ok((sign == NEGATIVE_LONG, weight as i16, digits))
        }
    }
}

fn split_u16(bytes: &[u8]) -> Result<(u16, &[u8]), NumberError> {
    let (head, rest) = bytes.split_first_chunk::<2>().ok_or(NumberError)?;
    Ok((u16::from_le_bytes(*head), rest))
}

fn decimal_digits(groups: &[u8]) -> Result<Vec<u8>, NumberError> {
    let mut digits = Vec::with_capacity(groups.len() * 2);
    let pairs = groups.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(NumberError);
    }
    for pair in pairs {
        let group = u16::from_le_bytes([pair[0], pair[1]]);
        if group > 9999 {
            return Err(NumberError);
        }
        digits.extend([group / 1000, group / 100 % 10, group / 10 % 10, group % 10].map(|d| b'0' + d as u8));
    }
    Ok(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(negative: bool, scale: u16, weight: i16, groups: &[u16]) -> Vec<u8> {
        let sign = if negative { NEGATIVE_SHORT } else { 0 };
        let head = SHORT_FORM | sign | scale << 7 | (weight as u16 & 0x7F);
        [head].iter().chain(groups).flat_map(|n| n.to_le_bytes()).collect()
    }

    fn long(negative: bool, weight: i16, groups: &[u16]) -> Vec<u8> {
        let head = if negative { NEGATIVE_LONG } else { 0 };
        [head, weight as u16].iter().chain(groups).flat_map(|n| n.to_le_bytes()).collect()
    }

    fn canonical(stored: &[u8]) -> (u8, i32, String) {
        let mut out = Vec::new();
        number(stored, &mut out).unwrap();
        let exponent = i32::from_be_bytes(out[1..5].try_into().unwrap());
        (out[0], exponent, String::from_utf8(out[5..].to_vec()).unwrap())
    }

    #[test]
    fn equal_numbers_of_different_scale_have_one_form() {
        let one = (0, 0, "1".to_string());
        assert_eq!(canonical(&short(false, 0, 0, &[1])), one);
        assert_eq!(canonical(&short(false, 2, 0, &[1])), one);
        assert_eq!(canonical(&long(false, 0, &[1])), one);
    }

    #[test]
    fn fractions_and_large_exponents_keep_their_value() {
        assert_eq!(canonical(&short(false, 2, 0, &[1, 1000])), (0, -1, "11".into()));
        assert_eq!(canonical(&short(true, 2, -1, &[100])), (1, -2, "1".into()));
        assert_eq!(canonical(&long(false, 100, &[1])), (0, 400, "1".into()));
        assert_eq!(canonical(&short(false, 0, 1, &[12, 3400])), (0, 2, "1234".into()));
    }

    #[test]
    fn zero_has_no_sign_and_no_digits() {
        assert_eq!(canonical(&short(false, 0, 0, &[])), (0, 0, String::new()));
        assert_eq!(canonical(&short(true, 3, 0, &[])), (0, 0, String::new()));
    }

    #[test]
    fn a_printed_number_has_the_form_of_the_stored_one() {
        let printed = |text: &str| printed_number(text).map(|out| (out[0], out[4] as i8, out[5..].to_vec()));
        assert_eq!(printed("1.10"), Some((0, -1, b"11".to_vec())));
        assert_eq!(printed("-0.001"), Some((1, -3, b"1".to_vec())));
        assert_eq!(printed("12340000"), Some((0, 4, b"1234".to_vec())));
        assert_eq!(printed("0.00"), printed("-0"));
        for none in ["", "-", ".5", "1e5", "+1", " 1", "1.2.3", "0x1", "NaN"] {
            assert_eq!(printed_number(none), None, "{none}");
        }
    }

    #[test]
    fn special_values_and_cut_bytes_are_refused() {
        for bad in [&[][..], &[0], &[0, 0xC0], &[0, 0], &[0, 0x80, 1], &[0, 0x80, 0x10, 0x27]] {
            assert_eq!(number(bad, &mut Vec::new()), Err(NumberError));
        }
    }
}

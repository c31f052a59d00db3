//! Case folding of strings, for filters that do not look at case.
//!
//! Full Unicode folding without normalisation. Unicode never changes the folding of a character it has
//! assigned; the version of the library is pinned, because a newer one may fold characters that are not assigned
//! today, which would need a token scheme of its own.

use unicase::UniCase;

use super::memory::{self, OutOfMemory};

/// Bytes that are folded at once.
const PIECE: usize = 4096;

/// The folded bytes of a string; bytes that are not UTF-8 stay as they are: filters ask for folded ones in UTF8 databases only.
pub fn fold(text: &[u8]) -> Result<Vec<u8>, OutOfMemory> {
    let Ok(mut rest) = std::str::from_utf8(text) else { return memory::copy(text) };
    let mut folded = memory::room(text.len())?;
    // In pieces: the library writes to a string of its own, and folds each character for itself.
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(rest.floor_char_boundary(PIECE));
        memory::append(&mut folded, UniCase::unicode(piece).to_folded_case().as_bytes())?;
        rest = tail;
    }
    Ok(folded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_folded_as_unicode_says() {
        for (one, other) in
            [("BERLIN", "berlin"), ("Straße", "STRASSE"), ("ΌΣΟΣ", "όσος"), ("Ǆ", "ǆ"), ("ﬃ", "FFI")]
        {
            assert_eq!(fold(one.as_bytes()), fold(other.as_bytes()), "{one}");
        }
        assert_ne!(fold("é".as_bytes()), fold("e\u{301}".as_bytes()));
        assert_ne!(fold("I".as_bytes()), fold("ı".as_bytes()));
        assert_eq!(fold(&[0xFF]), Ok(vec![0xFF]));
    }

    #[test]
    fn folding_twice_changes_nothing() {
        for character in (0..=char::MAX as u32).filter_map(char::from_u32) {
            let once = fold(character.to_string().as_bytes()).unwrap();
            assert_eq!(fold(&once).unwrap(), once, "{character:?}");
        }
    }

    #[test]
    fn a_long_text_is_folded_as_its_characters_are() {
        let long = "aßΣİ𐐀".repeat(PIECE);
        let alone: Vec<u8> = long.chars().flat_map(|one| fold(one.to_string().as_bytes()).unwrap()).collect();
        assert_eq!(fold(long.as_bytes()), Ok(alone));
    }
}

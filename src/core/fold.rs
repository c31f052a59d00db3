//! Case folding of strings, for filters that do not look at case.
//!
//! Full Unicode folding without normalisation. Unicode never changes the folding of a character it has
//! assigned; the version of the library is pinned, because a newer one may fold characters that are not assigned
//! today, which would need a token scheme of its own.

use unicase::UniCase;

/// The folded bytes of a string; bytes that are not UTF-8 stay as they are: filters ask for folded ones in UTF8 databases only.
pub fn fold(text: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(text) {
        Ok(text) => UniCase::unicode(text).to_folded_case().into_bytes(),
        Err(_) => text.to_vec(),
    }
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
        assert_eq!(fold(&[0xFF]), [0xFF]);
    }

    #[test]
    fn folding_twice_changes_nothing() {
        for character in (0..=char::MAX as u32).filter_map(char::from_u32) {
            let once = fold(character.to_string().as_bytes());
            assert_eq!(fold(&once), once, "{character:?}");
        }
    }
}

//! Names and keys as text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use zeroize::Zeroizing;

use super::KmsError;
use crate::core::secret::RootKey;

/// Characters of base64 for 32 bytes.
const KEY_TEXT_BYTES: usize = 44;
/// Bytes of the longest KMS key name.
const NAME_BYTES: usize = 128;

/// Passes the names that are safe as a file name and as a URL segment.
pub(super) fn check_name(key: &str) -> Result<(), KmsError> {
    if is_segment(key) && key.len() <= NAME_BYTES {
        return Ok(());
    }
    Err(KmsError::Setting(
        "a KMS key name has 1 to 128 letters, digits, dots, underscores and hyphens and does not start with a dot",
    ))
}

/// One or more of `[A-Za-z0-9._-]`, no dot first.
pub(super) fn is_segment(text: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(safe)
}

/// Takes a string out of an answer, so that it is wiped.
pub(super) fn take(data: &mut Value, name: &str) -> Option<Zeroizing<String>> {
    match data.get_mut(name).map(Value::take) {
        Some(Value::String(text)) => Some(Zeroizing::new(text)),
        _ => None,
    }
}

/// A root key as base64, for a KMS to wrap.
pub(super) fn key_text(root: &RootKey) -> Result<Zeroizing<String>, KmsError> {
    let mut bytes = Zeroizing::new([0; KEY_TEXT_BYTES]);
    let encoded = STANDARD.encode_slice(root.expose(), bytes.as_mut_slice());
    let text = encoded.ok().and_then(|length| std::str::from_utf8(&bytes[..length]).ok());
    text.map(|text| Zeroizing::new(text.to_owned())).ok_or(KmsError::Local("a key could not be encoded"))
}

/// A root key from base64; `None` unless exactly 32 bytes.
pub(super) fn key_from_text(text: &str) -> Option<RootKey> {
    if text.len() != KEY_TEXT_BYTES {
        return None;
    }
    // The decoder asks for room for a text without padding.
    let mut bytes = Zeroizing::new([0; 33]);
    let length = STANDARD.decode_slice(text, bytes.as_mut_slice()).ok()?;
    RootKey::from_slice(&bytes[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place() {
        let long = "k".repeat(129);
        for bad in
            ["", ".", "..", ".k", "a/b", "a b", "a%2fb", "k\0", "k\n", "schl\u{fc}ssel", "a?b", long.as_str()]
        {
            assert!(matches!(check_name(bad), Err(KmsError::Setting(_))), "{bad:?}");
        }
        for good in ["k", "tenant-7.main_key", &long[..128]] {
            assert_eq!(check_name(good), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn keys_as_text_are_exact() {
        let root = crate::core::rng::root_key().unwrap();
        let text = key_text(&root).unwrap();
        assert_eq!(key_from_text(&text).unwrap().expose(), root.expose());
        for bad in ["", &text[..43], &text[..40], &format!("{}!", &text[..43]), &"A".repeat(44)] {
            assert!(key_from_text(bad).is_none(), "{bad}");
        }
    }
}

//! The text form of a sealed value: `pgseal:` and base64 (RFC 4648, with padding).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What every sealed value starts with in text; no JSON document does.
pub const PREFIX: &str = "pgseal:";

/// The characters after `pgseal:` are not base64.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text after \"pgseal:\" is not base64")]
pub struct TextFormError;

/// Writes a value as text.
pub fn encode(value: &[u8]) -> String {
    let mut text = String::with_capacity(PREFIX.len() + value.len().div_ceil(3) * 4);
    text.push_str(PREFIX);
    STANDARD.encode_string(value, &mut text);
    text
}

/// `None` when the text is no sealed value but a plain one.
pub fn decode(text: &[u8]) -> Option<Result<Vec<u8>, TextFormError>> {
    let encoded = text.strip_prefix(PREFIX.as_bytes())?;
    Some(STANDARD.decode(encoded).map_err(|_| TextFormError))
}

//! The text form of a sealed value: `pgseal:` and base64 (RFC 4648, with padding).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::memory::{self, OutOfMemory};

/// What every sealed value starts with in text; no JSON document does.
pub const PREFIX: &str = "pgseal:";

/// Text that is no sealed value after all.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextFormError {
    /// The characters after `pgseal:`.
    #[error("the text after \"pgseal:\" is not base64")]
    Base64,
    /// No room for the value.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// Bytes of the text of a value of so many bytes.
pub fn text_bytes(value: usize) -> usize {
    PREFIX.len() + value.div_ceil(3) * 4
}

/// Writes a value as text into `room`, which has [`text_bytes`].
pub fn encode(value: &[u8], room: &mut [u8]) {
    let (prefix, encoded) = room.split_at_mut(PREFIX.len());
    prefix.copy_from_slice(PREFIX.as_bytes());
    let written = STANDARD.encode_slice(value, encoded);
    debug_assert_eq!(written, Ok(encoded.len()));
}

/// `None` when the text is no sealed value but a plain one.
pub fn decode(text: &[u8]) -> Option<Result<Vec<u8>, TextFormError>> {
    text.strip_prefix(PREFIX.as_bytes()).map(decode_base64)
}

fn decode_base64(encoded: &[u8]) -> Result<Vec<u8>, TextFormError> {
    let mut value = memory::zeroed(base64::decoded_len_estimate(encoded.len()))?;
    let length = STANDARD.decode_slice(encoded, &mut value).map_err(|_| TextFormError::Base64)?;
    value.truncate(length);
    Ok(value)
}

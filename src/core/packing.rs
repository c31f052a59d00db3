//! What may be done to the content before it is sealed: DEFLATE, and padding that hides its length.
//!
//! Part of format 1, but nothing in SQL asks for it so far: values that have it are read, and keep it when they are sealed
//! anew.

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress as deflate, create_comp_flags_from_zip_params,
};
use zeroize::Zeroizing;

use super::bytes::Reader;
use super::memory::{self, OutOfMemory};

/// Content of one value after decompression, at most: jsonb itself ends at 256 MB.
pub const MAX_CONTENT: usize = 256 << 20;

/// What was packed is not what [`pad`] or [`compress`] made, or there is no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// Other bytes.
    #[error("the content is not packed as its flags say")]
    Malformed,
    /// No room for what was packed.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// Padmé (Nikitin et al. 2019): only the top bits of a length stay visible.
pub fn padded_length(length: usize) -> usize {
    if length < 2 {
        return length;
    }
    let exponent = length.ilog2();
    let kept = exponent.checked_ilog2().unwrap_or(0) + 1;
    length.next_multiple_of(1 << exponent.saturating_sub(kept))
}

/// Pads what stands in `out` from `body` on.
pub fn pad(out: &mut Vec<u8>, body: usize) {
    out.push(0x80);
    let length = padded_length(out.len() - body);
    out.resize(body + length, 0);
}

/// Undoes [`pad`].
pub fn unpad(inner: &mut Vec<u8>) -> Result<(), UnpackError> {
    let end = inner.iter().rposition(|byte| *byte != 0);
    match end {
        Some(end) if inner[end] == 0x80 => {
            inner.truncate(end);
            Ok(())
        }
        _ => Err(UnpackError::Malformed),
    }
}

/// Its length (u32 big-endian) and raw DEFLATE; `None` where that does not make it shorter.
pub fn compress(plaintext: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, OutOfMemory> {
    const LEVEL: i32 = 6;
    const LENGTH_BYTES: usize = 4;
    // Room for what is shorter, and no more.
    let Some(length) = plaintext.len().checked_sub(1 + LENGTH_BYTES) else { return Ok(None) };
    let mut out = Zeroizing::new(memory::zeroed(LENGTH_BYTES + length)?);
    let (front, deflated) = out.split_at_mut(LENGTH_BYTES);
    front.copy_from_slice(&(plaintext.len() as u32).to_be_bytes());
    let flags = create_comp_flags_from_zip_params(LEVEL, 0, 0);
    let done = deflate(&mut CompressorOxide::new(flags), plaintext, deflated, TDEFLFlush::Finish);
    let (TDEFLStatus::Done, _, length) = done else { return Ok(None) };
    out.truncate(LENGTH_BYTES + length);
    Ok(Some(out))
}

/// Undoes [`compress`].
pub fn decompress(stored: &[u8]) -> Result<Zeroizing<Vec<u8>>, UnpackError> {
    let mut reader = Reader::new(stored);
    let length = reader.u32().ok_or(UnpackError::Malformed)? as usize;
    if length > MAX_CONTENT {
        return Err(UnpackError::Malformed);
    }
    // One buffer of the final size: growing would leave copies of the plaintext behind.
    let mut inflated = Zeroizing::new(memory::zeroed(length)?);
    let chunks = std::iter::once(reader.rest());
    let written = miniz_oxide::inflate::decompress_slice_iter_to_slice(&mut inflated, chunks, false, true);
    (written == Ok(length)).then_some(inflated).ok_or(UnpackError::Malformed)
}

//! The 16 bytes at the start of every value, as [`super::envelope`] describes them, and the tokens behind them.

use std::ops::Range;

use super::bytes::UnknownCode;

/// First byte of every value.
pub const FORMAT: u8 = 1;
/// XAES-256-GCM with a compact nonce.
pub const SUITE: u8 = 1;
/// Bytes before the tokens.
pub const HEADER_BYTES: usize = 16;
/// Bytes of a token.
pub const TOKEN_BYTES: usize = 8;
/// The bit that every token has and no marker.
pub const TOKEN_BIT: u64 = 1 << 63;
/// Tokens of one value, at most.
pub const MAX_TOKENS: usize = u16::MAX as usize;

/// Where the header has the data key version.
pub const DATA_VERSION: Range<usize> = 8..10;

/// The ciphertext begins with a context tag.
pub(super) const BOUND: u8 = 1 << 0;
/// The content is its length and raw DEFLATE.
pub(super) const COMPRESSED: u8 = 1 << 1;
/// What is sealed ends in padding.
pub(super) const PADDED: u8 = 1 << 2;
/// [`Head::transit`].
pub(super) const TRANSIT: u8 = 1 << 7;

/// What the plaintext of a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Content {
    /// A jsonb datum as a little-endian server holds it, without its length word.
    Jsonb = 1,
    /// JSON text, what a big-endian server writes.
    JsonText = 2,
    /// Little-endian float4 elements.
    Vector = 3,
    /// UTF-8 text.
    Text = 4,
}

impl TryFrom<u8> for Content {
    type Error = UnknownCode;

    fn try_from(code: u8) -> Result<Self, UnknownCode> {
        match code {
            1 => Ok(Content::Jsonb),
            2 => Ok(Content::JsonText),
            3 => Ok(Content::Vector),
            4 => Ok(Content::Text),
            _ => Err(UnknownCode),
        }
    }
}

/// Why bytes are not a value of format 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Shorter than its own counts say.
    #[error("the value is cut short")]
    Truncated,
    /// The first byte names a format this version does not read.
    #[error("the value has an unknown format")]
    UnknownFormat,
    /// The second byte names a cipher suite this version does not read.
    #[error("the value has an unknown cipher suite")]
    UnknownSuite,
    /// A reserved bit or byte is not zero.
    #[error("a reserved bit of the value is set")]
    Reserved,
    /// The content code is none that is stored.
    #[error("the value has an unknown content")]
    UnknownContent,
    /// A keyring id or key version that does not exist.
    #[error("the value names an impossible key")]
    ImpossibleKey,
    /// Tokens out of order, repeated, without their top bit, or on a value that is not tokenised.
    #[error("the value has malformed tokens")]
    Tokens,
}

/// The header fields that the caller chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What the plaintext is.
    pub content: Content,
    /// Keyring id, positive.
    pub keyring: i32,
    /// Data key version, from 1.
    pub data_version: u16,
    /// Index key version, 0 for a value without tokens that must always be rechecked.
    pub index_version: u16,
    /// Sealed before its column was known; the column's length coercion seals it anew.
    pub transit: bool,
}

impl Head {
    /// Where a value of so many tokens has them.
    pub fn token_section(count: usize) -> Range<usize> {
        HEADER_BYTES..HEADER_BYTES + TOKEN_BYTES * count
    }
}

/// Header and number of tokens, from the first [`HEADER_BYTES`] of a value; the rest may be missing.
pub fn parse_head(bytes: &[u8]) -> Result<(Head, usize), FormatError> {
    let head: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(FormatError::Truncated)?;
    if head[0] != FORMAT {
        return Err(FormatError::UnknownFormat);
    }
    if head[1] != SUITE {
        return Err(FormatError::UnknownSuite);
    }
    if head[2] & !(BOUND | COMPRESSED | PADDED | TRANSIT) != 0 || head[14..] != [0, 0] {
        return Err(FormatError::Reserved);
    }
    let keyring = i32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let [data_version, index_version, count] =
        [8, 10, 12].map(|at| u16::from_be_bytes([head[at], head[at + 1]]));
    if keyring <= 0 || data_version == 0 {
        return Err(FormatError::ImpossibleKey);
    }
    if index_version == 0 && count > 0 {
        return Err(FormatError::Tokens);
    }
    let content = Content::try_from(head[3]).map_err(|_| FormatError::UnknownContent)?;
    let transit = head[2] & TRANSIT != 0;
    let head = Head { content, keyring, data_version, index_version, transit };
    Ok((head, count.into()))
}

/// The tokens in `section`, which is a multiple of eight bytes.
pub fn tokens_of(section: &[u8]) -> impl ExactSizeIterator<Item = u64> + '_ {
    section.chunks_exact(8).map(|t| u64::from_be_bytes([t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]]))
}

/// Appends header and tokens.
pub(super) fn push_head(out: &mut Vec<u8>, head: Head, flags: u8, tokens: &[u64]) {
    out.extend_from_slice(&[FORMAT, SUITE, flags, head.content as u8]);
    out.extend_from_slice(&head.keyring.to_be_bytes());
    for number in [head.data_version, head.index_version, tokens.len() as u16, 0] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    for token in tokens {
        out.extend_from_slice(&token.to_be_bytes());
    }
}

//! The 16 bytes at the start of every value, as [`super::envelope`] describes them, and the tokens behind them.

use std::ops::Range;

use super::bytes::UnknownCode;

/// First byte of a value without tokens, or whose tokens are keys of the index and no more.
pub const FORMAT: u8 = 1;
/// First byte of a value whose tokens decide.
pub const DECIDING_FORMAT: u8 = 2;
/// XAES-256-GCM with a compact nonce.
pub const SUITE: u8 = 1;
/// Bytes before the tokens.
pub const HEADER_BYTES: usize = 16;
/// Bytes of a key of the index, which is a token of format 1.
pub const KEY_BYTES: usize = 8;
/// Bytes of a token of format 2; the first [`KEY_BYTES`] are its key.
pub const TOKEN_BYTES: usize = 16;
/// Bytes of the tag behind the tokens of format 2.
pub const TOKEN_TAG_BYTES: usize = 16;
/// The bit that every token has, and no marker.
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

/// Why bytes are not a value.
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

/// Where a value has its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenSection {
    count: usize,
    decides: bool,
}

impl TokenSection {
    /// The section of as many tokens as are read with the header in one piece.
    pub const AT_ONCE: TokenSection = TokenSection { count: 64, decides: true };

    /// Tokens of format 2, with a tag behind them.
    pub fn decides(self) -> bool {
        self.decides
    }

    /// Number of tokens.
    pub fn count(self) -> usize {
        self.count
    }

    /// The tokens.
    pub fn tokens(self) -> Range<usize> {
        HEADER_BYTES..HEADER_BYTES + self.stride() * self.count
    }

    /// Where what the index key has made ends: the tokens, and the tag of those that decide.
    pub fn end(self) -> usize {
        self.tokens().end + if self.decides { TOKEN_TAG_BYTES } else { 0 }
    }

    /// The keys in the bytes of the tokens, ascending.
    pub fn keys(self, tokens: &[u8]) -> impl ExactSizeIterator<Item = u64> + '_ {
        tokens.chunks_exact(self.stride()).map(key_of)
    }

    /// Is the key among the tokens in these bytes?
    pub fn has_key(self, tokens: &[u8], key: u64) -> bool {
        if self.decides {
            let tokens = tokens.as_chunks::<TOKEN_BYTES>().0;
            tokens.binary_search_by(|token| key_of(token).cmp(&key)).is_ok()
        } else {
            tokens.as_chunks::<KEY_BYTES>().0.binary_search(&key.to_be_bytes()).is_ok()
        }
    }

    fn stride(self) -> usize {
        if self.decides { TOKEN_BYTES } else { KEY_BYTES }
    }
}

/// The first bytes of a token, of which there are enough.
fn key_of(token: &[u8]) -> u64 {
    token.first_chunk().map_or(0, |key| u64::from_be_bytes(*key))
}

/// The tokens of a value: ascending, each once.
#[derive(Debug, PartialEq, Eq)]
pub struct TokenSet {
    /// Of format 1 the first half alone.
    tokens: Vec<u128>,
    tag: Option<[u8; TOKEN_TAG_BYTES]>,
}

impl TokenSet {
    /// Of a value that is not tokenised.
    pub const NONE: TokenSet = TokenSet { tokens: Vec::new(), tag: None };

    /// Those of format 1.
    pub fn of_keys(keys: &[u64]) -> Self {
        TokenSet { tokens: keys.iter().map(|key| u128::from(*key) << 64).collect(), tag: None }
    }

    /// Tokens with the tag of those that decide.
    pub(super) fn new(tokens: Vec<u128>, tag: Option<[u8; TOKEN_TAG_BYTES]>) -> Self {
        TokenSet { tokens, tag }
    }

    /// The keys, ascending.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.tokens.iter().map(|token| (token >> 64) as u64)
    }

    /// Number of tokens.
    pub fn count(&self) -> usize {
        self.tokens.len()
    }

    /// Where a value has them.
    pub(super) fn section(&self) -> TokenSection {
        TokenSection { count: self.tokens.len(), decides: self.tag.is_some() }
    }
}

/// Header and place of the tokens, from the first [`HEADER_BYTES`] of a value; the rest may be missing.
pub fn parse_head(bytes: &[u8]) -> Result<(Head, TokenSection), FormatError> {
    let head: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(FormatError::Truncated)?;
    let decides = match head[0] {
        FORMAT => false,
        DECIDING_FORMAT => true,
        _ => return Err(FormatError::UnknownFormat),
    };
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
    if index_version == 0 && count > 0 || decides && count == 0 {
        return Err(FormatError::Tokens);
    }
    let content = Content::try_from(head[3]).map_err(|_| FormatError::UnknownContent)?;
    let transit = head[2] & TRANSIT != 0;
    let head = Head { content, keyring, data_version, index_version, transit };
    Ok((head, TokenSection { count: count.into(), decides }))
}

/// Appends header and tokens.
pub(super) fn push_head(out: &mut Vec<u8>, head: Head, flags: u8, tokens: &TokenSet) {
    let section = tokens.section();
    let format = if section.decides { DECIDING_FORMAT } else { FORMAT };
    out.extend_from_slice(&[format, SUITE, flags, head.content as u8]);
    out.extend_from_slice(&head.keyring.to_be_bytes());
    for number in [head.data_version, head.index_version, section.count as u16, 0] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    for token in &tokens.tokens {
        out.extend_from_slice(&token.to_be_bytes()[..section.stride()]);
    }
    out.extend_from_slice(tokens.tag.as_ref().map_or(&[], |tag| tag.as_slice()));
}

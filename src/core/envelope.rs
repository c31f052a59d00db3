//! The bytes of a value. Everything that PostgreSQL stores of an encrypted column is this.
//!
//! ```text
//! off len                                   all integers big-endian
//! 0   1   format  = 1, or 2 where tokens decide
//! 1   1   suite   = 1   XAES-256-GCM with a compact nonce (2 committing, 3 GCM-SIV: reserved)
//! 2   1   flags   bit0 context-bound, bit1 compressed, bit2 padded, bit7 transit; the rest zero
//! 3   1   content 1 jsonb binary (little-endian), 2 JSON text, 3 float4 vector, 4 text
//! 4   4   keyring id, positive
//! 8   2   data key version, from 1
//! 10  2   index key version, 0 = not tokenised
//! 12  2   n, number of tokens
//! 14  2   zero
//! 16  8n  tokens, strictly ascending, top bit set; in format 2 16n, and 16 bytes of tag: [`super::token`]
//! ..  16  nonce
//! ..  m   ciphertext
//! ..  16  tag
//! ```
//! AAD: length-prefixed domain label, the 16 header bytes as they stand (transit included: whoever flips it
//! could have a value sealed anew under another keyring), keyring uuid, tokens with their tag.
//!
//! Inside the ciphertext: 16 bytes of context tag where bound, then the content. Compressed content is its
//! length (u32) and raw DEFLATE (RFC 1951); padded content ends in 0x80 and zeros (ISO/IEC 7816-4) up to
//! its Padmé length. A float4 vector is its elements, IEEE 754 binary32 little-endian.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Uuid;
use super::aead::{AeadError, COMPACT_NONCE_BYTES, NONCE_BYTES, TAG_BYTES, expand_nonce};
use super::batch;
use super::bytes::joined;
use super::header::{
    BOUND, COMPRESSED, DATA_VERSION, FormatError, HEADER_BYTES, Head, KEY_BYTES, MAX_TOKENS, PADDED,
    TOKEN_BIT, TOKEN_BYTES, TRANSIT, TokenSection, TokenSet, parse_head, push_head,
};
use super::kdf::DataKey;
use super::memory::{self, OutOfMemory};
use super::packing::{MAX_CONTENT, UnpackError, compress, decompress, pad, padded_length, unpad};
use super::rng::{self, RandomError};

const CONTEXT_TAG_BYTES: usize = 16;
const AAD_LABEL: &[u8] = b"pgseal/v1/aad/value";
const TRANSIT_DOMAIN: &[u8] = b"transit";
const MAKER_DOMAIN: &[u8] = b"maker";
/// What a maker's proof leaves of a nonce.
const NONCE_FREE_BYTES: usize = COMPACT_NONCE_BYTES / 2;

/// Why a value could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// No nonce could be drawn.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// More than [`MAX_CONTENT`] bytes.
    #[error("the value is larger than {MAX_CONTENT} bytes")]
    TooLarge,
    /// No room for it.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// Why a value could not be opened. The first two carry one text for all causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The tag or what it protects does not fit this key.
    #[error("the value does not authenticate")]
    Authentication,
    /// The value is bound to a context and the caller gave none or another one.
    #[error("the value is bound to another context")]
    Context,
    /// No room for its content.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

impl From<AeadError> for OpenError {
    fn from(_: AeadError) -> Self {
        OpenError::Authentication
    }
}

impl From<UnpackError> for OpenError {
    fn from(error: UnpackError) -> Self {
        match error {
            UnpackError::Malformed => OpenError::Authentication,
            UnpackError::OutOfMemory(error) => error.into(),
        }
    }
}

/// Why a value could not be sealed under another key.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The old key does not open it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new key does not seal it.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Options of one value.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// Bind the value: only `decrypt` with the same context opens it.
    pub context: Option<&'a [u8]>,
    /// Store DEFLATE of the content where that is shorter. The length then depends on the content. Not set from SQL so far.
    pub compress: bool,
    /// Hide the exact length behind its Padmé length, at most 12 % longer. Not set from SQL so far.
    pub pad: bool,
    /// Equal input gives equal bytes; for literals whose column is not known yet, never for storage.
    pub deterministic: bool,
    /// A secret that the nonce proves to have been there: [`Envelope::is_made_by`].
    pub maker: Option<&'a [u8]>,
    /// To be compared and never stored: only [`Envelope::open_compared`] opens it.
    pub compared: bool,
}

/// Nonce, additional data and tag.
type Beside<'a> = ([u8; NONCE_BYTES], Vec<u8>, &'a [u8; TAG_BYTES]);

/// A value whose structure has been checked, but not its tag.
#[derive(Clone, Copy)]
pub struct Envelope<'a> {
    bytes: &'a [u8],
    head: Head,
    section: TokenSection,
}

/// The content of an opened value with what is needed to seal it again the same way.
pub struct Opened {
    inner: Zeroizing<Vec<u8>>,
    start: usize,
    context_tag: Option<[u8; CONTEXT_TAG_BYTES]>,
    compressed: bool,
    padded: bool,
}

impl<'a> Envelope<'a> {
    /// Checks every length, reserved bit and the order of the tokens. Total: never panics.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let (head, section) = parse_head(bytes)?;
        let envelope = Envelope { bytes, head, section };
        let inside = if envelope.flags() & BOUND != 0 { CONTEXT_TAG_BYTES } else { 0 };
        if bytes.len() < envelope.sealed_start() + COMPACT_NONCE_BYTES + inside + TAG_BYTES {
            return Err(FormatError::Truncated);
        }
        envelope.check_tokens()?;
        Ok(envelope)
    }

    /// The header fields.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The caller must give a context to read it.
    pub fn is_bound(&self) -> bool {
        self.flags() & BOUND != 0
    }

    /// The keys of the tokens, ascending.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = u64> + 'a {
        self.section.keys(&self.bytes[self.section.tokens()])
    }

    /// Decrypts; the context is not looked at, see [`Opened::require_context`].
    pub fn open(&self, key: &DataKey, keyring: &Uuid) -> Result<Opened, OpenError> {
        let mut inner = Zeroizing::new(memory::zeroed(self.body().len())?);
        self.decrypt(key, keyring, &mut inner)?;
        Opened::unwrap_content(inner, self.flags())
    }

    /// The same for a value that was sealed to be compared, and for no other.
    pub fn open_compared(&self, key: &DataKey, keyring: &Uuid) -> Result<Opened, OpenError> {
        let mut inner = Zeroizing::new(memory::zeroed(self.body().len())?);
        let (nonce, aad, tag) = self.beside(keyring)?;
        key.filter.open(&nonce, &aad, self.body(), tag, &mut inner).map_err(OpenError::from)?;
        Opened::unwrap_content(inner, self.flags())
    }

    /// Was a value that authenticated, and neither compressed nor padded, sealed by who has this secret?
    pub fn is_made_by(&self, opened: &Opened, key: &DataKey, keyring: &Uuid, maker: &[u8]) -> bool {
        let (front, sealed) = self.bytes.split_at(self.sealed_start());
        let Some(nonce) = sealed.first_chunk::<COMPACT_NONCE_BYTES>() else { return false };
        let (free, proof) = nonce.split_at(NONCE_FREE_BYTES);
        let made = proof_of(maker, key, &aad(front, keyring), free, &opened.inner);
        self.flags() & (COMPRESSED | PADDED) == 0 && bool::from(proof.ct_eq(&made))
    }

    /// Length of the content where nothing but the content is inside: neither bound, compressed nor padded.
    pub fn bare_length(&self) -> Option<usize> {
        (self.flags() & (BOUND | COMPRESSED | PADDED) == 0).then(|| self.body().len())
    }

    /// Length of the content, where neither compression nor padding hides it.
    pub fn content_length(&self) -> Option<usize> {
        let context = if self.is_bound() { CONTEXT_TAG_BYTES } else { 0 };
        (self.flags() & (COMPRESSED | PADDED) == 0).then(|| self.body().len() - context)
    }

    /// Appends the value to `out` as `new` seals it: the header but for the data key version, the tokens, the length and
    /// what is inside stay. On error `out` ends in bytes that mean nothing.
    pub fn renew(
        &self,
        old: &DataKey,
        new: &DataKey,
        keyring: &Uuid,
        data_version: u16,
        out: &mut Vec<u8>,
    ) -> Result<(), RenewError> {
        let (start, head) = (out.len(), self.sealed_start());
        // In place from here on: growing would leave a copy of the plaintext behind.
        out.try_reserve(self.bytes.len()).map_err(|_| SealError::from(OutOfMemory))?;
        out.resize(start + self.bytes.len(), 0);
        let (front, sealed) = out[start..].split_at_mut(head);
        front.copy_from_slice(&self.bytes[..head]);
        front[DATA_VERSION].copy_from_slice(&data_version.to_be_bytes());
        let nonce = batch::fresh_nonce().map_err(SealError::from)?;
        let (nonce_room, sealed) = sealed.split_at_mut(COMPACT_NONCE_BYTES);
        nonce_room.copy_from_slice(&nonce);
        let (body, tag) = sealed.split_at_mut(self.body().len());
        self.decrypt(old, keyring, body)?;
        let sealed = new.aead.seal(&expand_nonce(&nonce), &aad(front, keyring), body);
        tag.copy_from_slice(&sealed.map_err(|_| SealError::TooLarge)?);
        Ok(())
    }

    /// Decrypts a value that has a [`Envelope::bare_length`] into `out` of that length, without a copy.
    pub fn open_bare(&self, key: &DataKey, keyring: &Uuid, out: &mut [u8]) -> Result<(), OpenError> {
        if self.bare_length() != Some(out.len()) {
            return Err(OpenError::Authentication);
        }
        self.decrypt(key, keyring, out)
    }

    fn decrypt(&self, key: &DataKey, keyring: &Uuid, out: &mut [u8]) -> Result<(), OpenError> {
        let (nonce, aad, tag) = self.beside(keyring)?;
        Ok(key.aead.open(&nonce, &aad, self.body(), tag, out)?)
    }

    /// What is needed beside the ciphertext; `parse` has checked that all is there.
    fn beside(&self, keyring: &Uuid) -> Result<Beside<'a>, OpenError> {
        let (front, sealed) = self.bytes.split_at(self.sealed_start());
        let (Some(nonce), Some(tag)) = (sealed.first_chunk(), sealed.last_chunk()) else {
            return Err(OpenError::Authentication);
        };
        Ok((expand_nonce(nonce), aad(front, keyring), tag))
    }

    /// The ciphertext without nonce and tag; `parse` has checked that all three are there.
    fn body(&self) -> &'a [u8] {
        &self.bytes[self.sealed_start() + COMPACT_NONCE_BYTES..self.bytes.len() - TAG_BYTES]
    }

    fn flags(&self) -> u8 {
        self.bytes[2]
    }

    fn sealed_start(&self) -> usize {
        self.section.end()
    }

    fn check_tokens(&self) -> Result<(), FormatError> {
        let tokens = &self.bytes[self.section.tokens()];
        let is_ascending = if self.section.decides() {
            tokens.as_chunks::<TOKEN_BYTES>().0.is_sorted_by(|one, next| one < next)
        } else {
            tokens.as_chunks::<KEY_BYTES>().0.is_sorted_by(|one, next| one < next)
        };
        let has_bit = self.keys().next().is_none_or(|first| first >= TOKEN_BIT);
        (is_ascending && has_bit).then_some(()).ok_or(FormatError::Tokens)
    }
}

/// Seals `plaintext` as a value: of format 2 where the tokens decide, else of format 1.
pub fn seal(
    key: &DataKey,
    keyring: &Uuid,
    head: Head,
    tokens: &TokenSet,
    plaintext: &[u8],
    options: Options<'_>,
) -> Result<Vec<u8>, SealError> {
    let tag = options.context.map(|context| key.context_tag(context));
    seal_tagged(key, keyring, head, tokens, plaintext, tag, options)
}

/// Seals `plaintext` with the compression, padding and context binding of an opened value.
pub fn reseal(
    key: &DataKey,
    keyring: &Uuid,
    head: Head,
    tokens: &TokenSet,
    opened: &Opened,
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    reseal_as(None, key, keyring, head, tokens, opened, plaintext)
}

/// The same for a part of it, with a secret for [`Envelope::is_made_by`].
pub fn seal_part(
    maker: &[u8],
    key: &DataKey,
    keyring: &Uuid,
    head: Head,
    opened: &Opened,
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    reseal_as(Some(maker), key, keyring, head, &TokenSet::NONE, opened, plaintext)
}

fn reseal_as(
    maker: Option<&[u8]>,
    key: &DataKey,
    keyring: &Uuid,
    head: Head,
    tokens: &TokenSet,
    opened: &Opened,
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    let options = Options { compress: opened.compressed, pad: opened.padded, maker, ..Options::default() };
    seal_tagged(key, keyring, head, tokens, plaintext, opened.context_tag, options)
}

fn seal_tagged(
    key: &DataKey,
    keyring: &Uuid,
    head: Head,
    tokens: &TokenSet,
    plaintext: &[u8],
    context_tag: Option<[u8; CONTEXT_TAG_BYTES]>,
    options: Options<'_>,
) -> Result<Vec<u8>, SealError> {
    if plaintext.len() > MAX_CONTENT || tokens.count() > MAX_TOKENS {
        return Err(SealError::TooLarge);
    }
    let compressed = if options.compress { compress(plaintext)? } else { None };
    let content = compressed.as_ref().map_or(plaintext, |bytes| bytes.as_slice());
    let mut flags = if head.transit { TRANSIT } else { 0 };
    flags |= if context_tag.is_some() { BOUND } else { 0 };
    flags |= if compressed.is_some() { COMPRESSED } else { 0 };
    flags |= if options.pad { PADDED } else { 0 };

    let sealed_start = tokens.section().end();
    let room = COMPACT_NONCE_BYTES + padded_length(CONTEXT_TAG_BYTES + content.len() + 1) + TAG_BYTES;
    // One allocation: growing would leave a copy of the plaintext behind.
    let mut out = memory::room(sealed_start + room)?;
    push_head(&mut out, head, flags, tokens);
    let aad = aad(&out, keyring);
    // What is only passed on shares nothing with stored values.
    let mut nonce = if options.maker.is_none() { batch::fresh_nonce()? } else { rng::bytes()? };
    out.extend_from_slice(&nonce);
    let body = out.len();
    out.extend_from_slice(context_tag.as_ref().map_or(&[], |tag| tag.as_slice()));
    out.extend_from_slice(content);
    if options.pad {
        pad(&mut out, body);
    }
    if options.deterministic {
        // Over the very bytes that are sealed, context tag and DEFLATE output too.
        let domain = Zeroizing::new([TRANSIT_DOMAIN, options.maker.unwrap_or_default()].concat());
        nonce = key.synthetic_nonce(&domain, &aad, &out[body..]);
    }
    if let Some(maker) = options.maker {
        let (free, proof) = nonce.split_at_mut(NONCE_FREE_BYTES);
        proof.copy_from_slice(&proof_of(maker, key, &aad, free, &out[body..]));
    }
    out[body - COMPACT_NONCE_BYTES..body].copy_from_slice(&nonce);
    let (nonce, inside) = (expand_nonce(&nonce), &mut out[body..]);
    let sealed = if options.compared {
        key.filter.seal(&nonce, &aad, inside)
    } else {
        key.aead.seal(&nonce, &aad, inside)
    };
    let tag = sealed.map_err(|_| SealError::TooLarge)?;
    out.extend_from_slice(&tag);
    Ok(out)
}

/// The second half of a nonce; it depends on all that is sealed, so that equal nonces mean equal values.
fn proof_of(maker: &[u8], key: &DataKey, aad: &[u8], free: &[u8], body: &[u8]) -> [u8; NONCE_FREE_BYTES] {
    let domain = Zeroizing::new([MAKER_DOMAIN, free, maker].concat());
    let mac = key.synthetic_nonce(&domain, aad, body);
    let mut proof = [0; NONCE_FREE_BYTES];
    proof.copy_from_slice(&mac[..NONCE_FREE_BYTES]);
    proof
}

impl Opened {
    /// The plaintext.
    pub fn content(&self) -> &[u8] {
        &self.inner[self.start..]
    }

    /// Bound to a context.
    pub fn is_bound(&self) -> bool {
        self.context_tag.is_some()
    }

    /// Compares the caller's context with the one the value is bound to, in constant time.
    /// A value without a context refuses every context, so that a missing binding is noticed.
    pub fn require_context(&self, key: &DataKey, context: Option<&[u8]>) -> Result<(), OpenError> {
        let matches = match (&self.context_tag, context) {
            (None, None) => true,
            (Some(tag), Some(context)) => bool::from(tag.ct_eq(&key.context_tag(context))),
            _ => false,
        };
        matches.then_some(()).ok_or(OpenError::Context)
    }

    /// Refuses a bound value that is added to this one, unless both are bound to the same context under the same keyring.
    pub fn require_same_context(&self, added: &Opened) -> Result<(), OpenError> {
        let matches = match (&self.context_tag, &added.context_tag) {
            (_, None) => true,
            (Some(tag), Some(other)) => bool::from(tag.ct_eq(other)),
            (None, Some(_)) => false,
        };
        matches.then_some(()).ok_or(OpenError::Context)
    }

    fn unwrap_content(mut inner: Zeroizing<Vec<u8>>, flags: u8) -> Result<Self, OpenError> {
        if flags & PADDED != 0 {
            unpad(&mut inner)?;
        }
        let context_tag = if flags & BOUND != 0 {
            Some(*inner.first_chunk().ok_or(OpenError::Authentication)?)
        } else {
            None
        };
        let mut start = context_tag.map_or(0, |tag| tag.len());
        let compressed = flags & COMPRESSED != 0;
        if compressed {
            inner = decompress(&inner[start..])?;
            start = 0;
        }
        Ok(Opened { inner, start, context_tag, compressed, padded: flags & PADDED != 0 })
    }
}

/// `head` is the header and the tokens as they are stored; the header says how many tokens follow.
fn aad(head: &[u8], keyring: &Uuid) -> Vec<u8> {
    let (header, tokens) = head.split_at(HEADER_BYTES);
    joined(&[AAD_LABEL, header, keyring, tokens])
}

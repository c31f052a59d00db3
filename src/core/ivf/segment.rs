//! Sealed bytes on a page.
//!
//! AAD of a segment: `pgseal/v1/aad/ivf || index uuid || keyring uuid || kind || format || closed || version || list ||
//! generation || block || number of the segment || its rows || what it vouches for in the clear`, integers big-endian.

use std::ops::Range;

use crate::core::aead::TAG_BYTES;
use crate::core::memory;
use crate::core::rng;

use super::key::{PAGE_FORMAT, PageKey};
use super::layout::{DATA_AT, PageBytes, SALT_BYTES, SEGMENT_HEAD_BYTES};
use super::page::{PageError, head};

const AAD_LABEL: &[u8] = b"pgseal/v1/aad/ivf";
const NONCE_BYTES: usize = SEGMENT_HEAD_BYTES - TAG_BYTES;

/// What a segment is named by besides its page.
pub(super) struct Named {
    /// From 0.
    pub number: usize,
    /// Rows in it.
    pub rows: usize,
    /// The clear bytes of the page that it vouches for.
    pub clear: Range<usize>,
}

/// Opens the segment at `at` into `out`, which is as long as its plaintext.
pub(super) fn open(
    page: &PageBytes,
    block: u32,
    key: &PageKey,
    at: usize,
    named: &Named,
    out: &mut [u8],
) -> Result<(), PageError> {
    let aad = aad(page, block, key, named)?;
    let (nonce, sealed) = page[at..].split_at(NONCE_BYTES);
    let (tag, body) = sealed.split_first_chunk::<TAG_BYTES>().ok_or(PageError::Authentication)?;
    Ok(key.aead.open(&nonce_of(page, nonce), &aad, &body[..out.len()], tag, out)?)
}

/// Opens the segment at `at` where it stands; after an error nothing is left there.
pub(super) fn open_in_place(
    page: &mut PageBytes,
    block: u32,
    key: &PageKey,
    (at, bytes): (usize, usize),
    named: &Named,
) -> Result<(), PageError> {
    let aad = aad(page, block, key, named)?;
    let nonce = nonce_of(page, &page[at..at + NONCE_BYTES]);
    let (tag, body) =
        page[at + NONCE_BYTES..].split_first_chunk_mut::<TAG_BYTES>().ok_or(PageError::Authentication)?;
    Ok(key.aead.open_in_place(&nonce, &aad, tag, &mut body[..bytes])?)
}

/// Seals `plain`, which is ciphertext after this, as the segment at `at`. The page's salt and what the segment vouches for
/// stand on the page already.
pub(super) fn seal(
    page: &mut PageBytes,
    block: u32,
    key: &PageKey,
    at: usize,
    named: &Named,
    plain: &mut [u8],
) -> Result<(), PageError> {
    let nonce = rng::bytes::<NONCE_BYTES>()?;
    let aad = aad(page, block, key, named)?;
    let tag = key.aead.seal(&nonce_of(page, &nonce), &aad, plain)?;
    let (front, body) = page[at..][..SEGMENT_HEAD_BYTES + plain.len()].split_at_mut(SEGMENT_HEAD_BYTES);
    front[..NONCE_BYTES].copy_from_slice(&nonce);
    front[NONCE_BYTES..].copy_from_slice(&tag);
    body.copy_from_slice(plain);
    Ok(())
}

/// Draws the salt of a page that is written anew.
pub(super) fn draw_salt(page: &mut PageBytes) -> Result<(), PageError> {
    page[DATA_AT..DATA_AT + SALT_BYTES].copy_from_slice(&rng::bytes::<SALT_BYTES>()?);
    Ok(())
}

fn nonce_of(page: &PageBytes, own: &[u8]) -> [u8; SALT_BYTES + NONCE_BYTES] {
    let mut nonce = [0; SALT_BYTES + NONCE_BYTES];
    nonce[..SALT_BYTES].copy_from_slice(&page[DATA_AT..DATA_AT + SALT_BYTES]);
    nonce[SALT_BYTES..].copy_from_slice(own);
    nonce
}

fn aad(page: &PageBytes, block: u32, key: &PageKey, named: &Named) -> Result<Vec<u8>, PageError> {
    let (head, clear) = (head(page)?, &page[named.clear.clone()]);
    let mut aad = memory::room(AAD_LABEL.len() + 64 + clear.len())?;
    for part in [AAD_LABEL, &key.identity.index, &key.identity.keyring] {
        aad.extend_from_slice(part);
    }
    aad.extend_from_slice(&[head.kind as u8, PAGE_FORMAT, u8::from(head.closed)]);
    aad.extend_from_slice(&key.version.to_be_bytes());
    for number in [head.list, head.generation, block, named.number as u32, named.rows as u32] {
        aad.extend_from_slice(&number.to_be_bytes());
    }
    aad.extend_from_slice(clear);
    Ok(aad)
}

//! From the 32 random bytes that the KMS wraps to the keys that are used: HKDF-SHA-256 (RFC 5869).
//!
//! `PRK = HKDF-Extract(salt = keyring uuid, root key)`, then one `HKDF-Expand` per label.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Uuid;
use super::aead::Xaes256Gcm;
use super::batch::BatchAead;
use super::header::{TOKEN_BYTES, TOKEN_TAG_BYTES};
use super::secret::{RootKey, Secret};

/// HMAC-SHA-256 with a prepared key (RFC 2104).
pub type HmacSha256 = Hmac<Sha256>;

/// Proves that an unwrapped key is the one that was wrapped; not secret, stored beside the wrapped key.
pub type Commitment = [u8; 32];

const DATA_AEAD: &[u8] = b"pgseal/v1/data/aead";
const DATA_COMMIT: &[u8] = b"pgseal/v1/data/commit";
const DATA_CONTEXT: &[u8] = b"pgseal/v1/data/context";
const DATA_FILTER: &[u8] = b"pgseal/v1/data/filter";
const DATA_IVF: &[u8] = b"pgseal/v1/data/ivf";
const INDEX_TOKEN: &[u8] = b"pgseal/v1/index/token";
const INDEX_TAG: &[u8] = b"pgseal/v1/index/tag";
const INDEX_FILTER: &[u8] = b"pgseal/v1/index/filter";
const INDEX_COMMIT: &[u8] = b"pgseal/v1/index/commit";

/// The unwrapped key is not the one this keyring version was created with.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the unwrapped key does not match its commitment")]
pub struct CommitmentMismatch;

/// Everything derived from one data key version.
pub struct DataKey {
    /// Seals values.
    pub aead: BatchAead,
    /// Seals literals that are only compared; its own key so that none can ever pass for a value.
    pub filter: Xaes256Gcm,
    // Has taken the keyring uuid and the label in already.
    context: HmacSha256,
    nonce: HmacSha256,
    // HMAC under the secret from which each index of vectors expands its own key.
    ivf: HmacSha256,
}

/// Everything derived from one index key version.
pub struct IndexKey {
    /// Seals the questions of filters.
    pub filter: Xaes256Gcm,
    token: HmacSha256,
    // Has taken the keyring uuid in already.
    tag: HmacSha256,
    nonce: HmacSha256,
}

impl DataKey {
    /// Derives the keys and, where `expected` is given, refuses a root key of another commitment.
    pub fn derive(
        root: &RootKey,
        keyring: &Uuid,
        expected: Option<&Commitment>,
    ) -> Result<Self, CommitmentMismatch> {
        let prk = Prk::extract(root, keyring);
        prk.check(DATA_COMMIT, expected)?;
        let (filter, nonce) = prk.sealer(DATA_FILTER);
        Ok(DataKey {
            aead: BatchAead::new(Xaes256Gcm::new(&prk.expand(DATA_AEAD))),
            filter,
            context: mac(keyring).chain_update(DATA_CONTEXT),
            nonce,
            ivf: mac(prk.expand::<32>(DATA_IVF).expose()),
        })
    }

    /// The commitment to store when `root` becomes a data key of `keyring`; it is public.
    pub fn commitment(root: &RootKey, keyring: &Uuid) -> Commitment {
        *Prk::extract(root, keyring).expand(DATA_COMMIT).expose()
    }

    /// 16 bytes that stand for the caller's context inside the ciphertext:
    /// HMAC-SHA-256(keyring uuid, `pgseal/v1/data/context` || context). No version's key goes in, because a
    /// value that is sealed again under the next key keeps its tag without anybody knowing the context.
    pub fn context_tag(&self, context: &[u8]) -> [u8; 16] {
        truncated(self.context.clone().chain_update(context))
    }

    /// A nonce that depends on nothing but `domain`, `aad` and `plaintext`: equal input seals to equal bytes.
    pub fn synthetic_nonce(&self, domain: &[u8], aad: &[u8], plaintext: &[u8]) -> [u8; 16] {
        synthetic_nonce(&self.nonce, [domain, aad, plaintext])
    }

    /// The key of an index of vectors: HKDF-Expand with `info` from a secret of its own label.
    pub fn ivf_key(&self, info: &[u8]) -> Xaes256Gcm {
        // RFC 5869, 2.3: of 32 bytes the only block is HMAC(PRK, info || 1).
        let block = self.ivf.clone().chain_update(info).chain_update([1]).finalize();
        let mut bytes = Zeroizing::new([0; 32]);
        bytes.copy_from_slice(&block.into_bytes());
        Xaes256Gcm::new(&Secret::take(&mut bytes))
    }
}

impl IndexKey {
    /// Derives the keys and, where `expected` is given, refuses a root key of another commitment.
    pub fn derive(
        root: &RootKey,
        keyring: &Uuid,
        expected: Option<&Commitment>,
    ) -> Result<Self, CommitmentMismatch> {
        let prk = Prk::extract(root, keyring);
        prk.check(INDEX_COMMIT, expected)?;
        let (filter, nonce) = prk.sealer(INDEX_FILTER);
        Ok(IndexKey {
            filter,
            token: mac(prk.expand::<32>(INDEX_TOKEN).expose()),
            tag: mac(prk.expand::<32>(INDEX_TAG).expose()).chain_update(keyring),
            nonce,
        })
    }

    /// The commitment to store when `root` becomes an index key of `keyring`; it is public.
    pub fn commitment(root: &RootKey, keyring: &Uuid) -> Commitment {
        *Prk::extract(root, keyring).expand(INDEX_COMMIT).expose()
    }

    /// HMAC-SHA-256 of `message`, first 16 bytes, big-endian.
    pub fn prf(&self, message: &[u8]) -> u128 {
        u128::from_be_bytes(truncated(self.token.clone().chain_update(message)))
    }

    /// The tag of all tokens of a value, which nobody without the key can make for others.
    pub fn tag(&self, version: u16, tokens: &[u128]) -> [u8; TOKEN_TAG_BYTES] {
        let mac = self.tag.clone().chain_update(version.to_be_bytes());
        truncated(tokens.iter().fold(mac, |mac, token| mac.chain_update(token.to_be_bytes())))
    }

    /// Is this, tokens and the tag behind them, what the key has made as one?
    pub fn vouches_for(&self, version: u16, section: &[u8]) -> bool {
        let Some((tokens, tag)) = section.split_last_chunk::<TOKEN_TAG_BYTES>() else { return false };
        let mac = self.tag.clone().chain_update(version.to_be_bytes()).chain_update(tokens);
        tokens.len().is_multiple_of(TOKEN_BYTES) && bool::from(truncated(mac).ct_eq(tag))
    }

    /// [`DataKey::synthetic_nonce`] for filters.
    pub fn synthetic_nonce(&self, domain: &[u8], aad: &[u8], plaintext: &[u8]) -> [u8; 16] {
        synthetic_nonce(&self.nonce, [domain, aad, plaintext])
    }
}

fn synthetic_nonce(key: &HmacSha256, parts: [&[u8]; 3]) -> [u8; 16] {
    truncated(parts.iter().fold(key.clone(), |mac, part| {
        mac.chain_update((part.len() as u64).to_be_bytes()).chain_update(part)
    }))
}

struct Prk(Hkdf<Sha256>);

impl Prk {
    fn extract(root: &RootKey, keyring: &Uuid) -> Self {
        Prk(Hkdf::new(Some(keyring), root.expose()))
    }

    fn expand<const N: usize>(&self, label: &[u8]) -> Secret<N> {
        const { assert!(N <= 255 * 32) };
        let mut out = Secret::zeroed();
        let expanded = self.0.expand(label, out.expose_mut());
        debug_assert!(expanded.is_ok(), "HKDF refuses only more than 255 blocks");
        out
    }

    /// A key that seals, and one for its deterministic nonces.
    fn sealer(&self, label: &[u8]) -> (Xaes256Gcm, HmacSha256) {
        let both: Secret<64> = self.expand(label);
        let (seal, nonce) = both.expose().split_at(32);
        let mut first = Zeroizing::new([0; 32]);
        first.copy_from_slice(seal);
        (Xaes256Gcm::new(&Secret::take(&mut first)), mac(nonce))
    }

    fn check(&self, label: &[u8], expected: Option<&Commitment>) -> Result<(), CommitmentMismatch> {
        let Some(expected) = expected else { return Ok(()) };
        let actual: Secret<32> = self.expand(label);
        if bool::from(actual.expose().ct_eq(expected)) { Ok(()) } else { Err(CommitmentMismatch) }
    }
}

pub(super) fn mac(key: &[u8]) -> HmacSha256 {
    let mut block = Zeroizing::new([0; 64]);
    block[..key.len()].copy_from_slice(key);
    // RFC 2104 pads a short key with zeros to the block size, so this is the same HMAC key.
    HmacSha256::new((&*block).into())
}

fn truncated(mac: HmacSha256) -> [u8; 16] {
    let full = mac.finalize().into_bytes();
    let mut out = [0; 16];
    out.copy_from_slice(&full[..16]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::assert_not_impl_any;
    use std::fmt::{Debug, Display};

    assert_not_impl_any!(DataKey: Debug, Display, Clone, PartialEq, serde::Serialize);
    assert_not_impl_any!(IndexKey: Debug, Display, Clone, PartialEq, serde::Serialize);

    #[test]
    fn an_index_key_is_what_hkdf_expands() {
        let (root, keyring) = (RootKey::zeroed(), [7; 16]);
        let key = DataKey::derive(&root, &keyring, None).unwrap().ivf_key(b"info");
        let secret: Secret<32> = Prk::extract(&root, &keyring).expand(DATA_IVF);
        let mut expanded = Secret::zeroed();
        Hkdf::<Sha256>::from_prk(secret.expose()).unwrap().expand(b"info", expanded.expose_mut()).unwrap();
        let mut sealed = [1, 2, 3];
        let tag = key.seal(&[0; 24], b"", &mut sealed).unwrap();
        let mut opened = [0; 3];
        assert_eq!(Xaes256Gcm::new(&expanded).open(&[0; 24], b"", &sealed, &tag, &mut opened), Ok(()));
        assert_eq!(opened, [1, 2, 3]);
    }
}

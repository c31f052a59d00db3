//! XAES-256-GCM (C2SP, <https://c2sp.org/XAES-256-GCM>): AES-256-GCM with a 24-byte nonce.
//!
//! A value stores 16 random nonce bytes and puts 8 zero bytes before them ([`expand_nonce`]), so that a
//! key may seal 2^48 values before two of them share a nonce with probability 2^-33. Never use the zero
//! prefix for anything but values and filters. How values share a part of it, and their subkey, is in [`super::batch`].
//!
//! Long messages go through ring, which takes half the time for a page of an index; short ones through RustCrypto, where the
//! preparation of a key is cheaper. Both are given the subkey of one nonce only.

use aes::Aes256;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Key};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, UnboundKey};
use zeroize::{Zeroize, Zeroizing};

use super::secret::Secret;

/// Bytes of a full XAES nonce.
pub const NONCE_BYTES: usize = 24;
/// Bytes of a nonce as a value stores it.
pub const COMPACT_NONCE_BYTES: usize = 16;
/// Bytes of the GCM tag.
pub const TAG_BYTES: usize = 16;

/// Bytes of a nonce that the subkey is derived from; the others are GCM's nonce.
pub(super) const PREFIX_BYTES: usize = 12;
/// Bytes from which on a message goes through ring.
const LONG: usize = 1024;

/// The tag did not match, or the input is too long for GCM. One error for every cause.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("authentication failed")]
pub struct AeadError;

/// An AEAD key with its derivation state. The key schedule wipes itself.
pub struct Xaes256Gcm {
    cipher: Aes256,
    k1: Zeroizing<[u8; 16]>,
}

impl Xaes256Gcm {
    /// Prepares `key`: K1 = AES(key, 0^128) doubled in GF(2^128), as CMAC's first subkey (SP 800-38B).
    pub fn new(key: &Secret<32>) -> Self {
        let cipher = Aes256::new(key.expose().into());
        let mut k1 = Zeroizing::new([0; 16]);
        encrypt_block(&cipher, &mut k1);
        let doubled = u128::from_be_bytes(*k1);
        let reduced = (doubled << 1) ^ if doubled >> 127 == 1 { 0x87 } else { 0 };
        *k1 = reduced.to_be_bytes();
        Xaes256Gcm { cipher, k1 }
    }

    /// Encrypts `data` in place and returns the tag.
    pub fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], AeadError> {
        if data.len() >= LONG {
            let sealed = self.seal_long(nonce, aad, data);
            wipe_frame();
            return sealed;
        }
        let tag = self.subkey(nonce).encrypt_inout_detached(&tail(nonce).into(), aad, data.into());
        tag.map(Into::into).map_err(|_| AeadError)
    }

    /// Decrypts `data` into `out` of the same length; on error `out` is wiped.
    pub fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        data: &[u8],
        tag: &[u8; TAG_BYTES],
        out: &mut [u8],
    ) -> Result<(), AeadError> {
        if data.len() != out.len() {
            return Err(AeadError);
        }
        if data.len() >= LONG {
            out.copy_from_slice(data);
            return self.open_in_place(nonce, aad, tag, out);
        }
        let buffer = InOutBuf::new(data, out).map_err(|_| AeadError)?;
        self.open_short(nonce, aad, tag, buffer).inspect_err(|_| out.zeroize())
    }

    /// Decrypts `data` where it stands; on error it is wiped.
    pub fn open_in_place(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        tag: &[u8; TAG_BYTES],
        data: &mut [u8],
    ) -> Result<(), AeadError> {
        if data.len() >= LONG {
            let opened = self.open_long(nonce, aad, tag, data);
            wipe_frame();
            return opened.inspect_err(|_| data.zeroize());
        }
        self.open_short(nonce, aad, tag, InOutBuf::from(&mut *data)).inspect_err(|_| data.zeroize())
    }

    #[inline(always)]
    fn open_short(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        tag: &[u8; TAG_BYTES],
        data: InOutBuf<'_, '_, u8>,
    ) -> Result<(), AeadError> {
        let opened = self.subkey(nonce).decrypt_inout_detached(&tail(nonce).into(), aad, data, tag.into());
        opened.map_err(|_| AeadError)
    }

    // Not inlined: what ring leaves on the stack lies below the caller, who wipes it.
    #[inline(never)]
    fn seal_long(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], AeadError> {
        seal_with(&self.ring_subkey(nonce)?, nonce, aad, data)
    }

    #[inline(never)]
    fn open_long(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        tag: &[u8; TAG_BYTES],
        data: &mut [u8],
    ) -> Result<(), AeadError> {
        open_with(&self.ring_subkey(nonce)?, nonce, aad, data, tag)
    }

    #[inline(always)]
    pub(super) fn ring_subkey(&self, nonce: &[u8; NONCE_BYTES]) -> Result<LessSafeKey, AeadError> {
        let mut key = self.derive(nonce);
        let unbound = UnboundKey::new(&AES_256_GCM, &key);
        key.as_mut_slice().zeroize();
        Ok(LessSafeKey::new(unbound.map_err(|_| AeadError)?))
    }

    // Inlined so that the key schedule is made where it is used: a move would leave a copy behind.
    #[inline(always)]
    fn subkey(&self, nonce: &[u8; NONCE_BYTES]) -> Aes256Gcm {
        let mut key = self.derive(nonce);
        let gcm = Aes256Gcm::new(&key);
        key.as_mut_slice().zeroize();
        gcm
    }

    /// AES(key, M1 ^ K1) || AES(key, M2 ^ K1).
    #[inline(always)]
    fn derive(&self, nonce: &[u8; NONCE_BYTES]) -> Key<Aes256Gcm> {
        let mut key = Key::<Aes256Gcm>::default();
        for (counter, half) in key.chunks_exact_mut(16).enumerate() {
            let mut block = [0, counter as u8 + 1, b'X', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            block[4..].copy_from_slice(&nonce[..PREFIX_BYTES]);
            for (byte, mask) in block.iter_mut().zip(self.k1.iter()) {
                *byte ^= mask;
            }
            encrypt_block(&self.cipher, &mut block);
            half.copy_from_slice(&block);
            block.zeroize();
        }
        key
    }
}

/// GCM's nonce below the subkey.
fn tail(nonce: &[u8; NONCE_BYTES]) -> [u8; NONCE_BYTES - PREFIX_BYTES] {
    std::array::from_fn(|at| nonce[PREFIX_BYTES + at])
}

#[inline(always)]
pub(super) fn seal_with(
    key: &LessSafeKey,
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    data: &mut [u8],
) -> Result<[u8; TAG_BYTES], AeadError> {
    let tail = ring::aead::Nonce::assume_unique_for_key(tail(nonce));
    let tag = key.seal_in_place_separate_tag(tail, Aad::from(aad), data).map_err(|_| AeadError)?;
    tag.as_ref().try_into().map_err(|_| AeadError)
}

/// On error what stands in `data` is to be wiped.
#[inline(always)]
pub(super) fn open_with(
    key: &LessSafeKey,
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    data: &mut [u8],
    tag: &[u8; TAG_BYTES],
) -> Result<(), AeadError> {
    let tail = ring::aead::Nonce::assume_unique_for_key(tail(nonce));
    let opened = key.open_in_place_separate_tag(tail, Aad::from(aad), (*tag).into(), data, 0..);
    opened.map(|_| ()).map_err(|_| AeadError)
}

/// Bytes of stack that ring's calls use, at most: it does not wipe a key's schedule, nor what it moves.
const FRAME_BYTES: usize = 6 * 1024;

/// Overwrites the stack below the caller that a call before has used.
#[inline(never)]
pub(super) fn wipe_frame() {
    std::hint::black_box(&mut [0_u64; FRAME_BYTES / size_of::<u64>()]);
}

fn encrypt_block(cipher: &Aes256, block: &mut [u8; 16]) {
    use aes::cipher::BlockCipherEncrypt;
    cipher.encrypt_block(block.into());
}

/// The 24-byte nonce of a stored 16-byte one: 8 zero bytes first.
pub fn expand_nonce(stored: &[u8; COMPACT_NONCE_BYTES]) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[NONCE_BYTES - COMPACT_NONCE_BYTES..].copy_from_slice(stored);
    nonce
}

//! XAES-256-GCM (C2SP, <https://c2sp.org/XAES-256-GCM>): AES-256-GCM with a 24-byte nonce.
//!
//! A value stores 16 random nonce bytes and puts 8 zero bytes before them ([`expand_nonce`]), so that a
//! key may seal 2^48 values before two of them share a nonce with probability 2^-33. Never use the zero
//! prefix for anything but values and filters.

use aes::Aes256;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use zeroize::{Zeroize, Zeroizing};

use super::secret::Secret;

/// Bytes of a full XAES nonce.
pub const NONCE_BYTES: usize = 24;
/// Bytes of a nonce as a value stores it.
pub const COMPACT_NONCE_BYTES: usize = 16;
/// Bytes of the GCM tag.
pub const TAG_BYTES: usize = 16;

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
        let (gcm, tail) = self.subkey(nonce);
        let tag = gcm.encrypt_inout_detached(&tail, aad, data.into());
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
        let (gcm, tail) = self.subkey(nonce);
        let buffer = InOutBuf::new(data, out).map_err(|_| AeadError)?;
        let opened = gcm.decrypt_inout_detached(&tail, aad, buffer, tag.into());
        opened.map_err(|_| {
            out.zeroize();
            AeadError
        })
    }

    /// AES-256-GCM under AES(key, M1 ^ K1) || AES(key, M2 ^ K1), with the nonce's last 12 bytes.
    // Inlined so that the key schedule is made where it is used: a move would leave a copy behind.
    #[inline(always)]
    fn subkey(&self, nonce: &[u8; NONCE_BYTES]) -> (Aes256Gcm, Nonce<aes_gcm::aead::consts::U12>) {
        let mut key = Key::<Aes256Gcm>::default();
        for (counter, half) in key.chunks_exact_mut(16).enumerate() {
            let mut block = [0, counter as u8 + 1, b'X', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            block[4..].copy_from_slice(&nonce[..12]);
            for (byte, mask) in block.iter_mut().zip(self.k1.iter()) {
                *byte ^= mask;
            }
            encrypt_block(&self.cipher, &mut block);
            half.copy_from_slice(&block);
            block.zeroize();
        }
        let gcm = Aes256Gcm::new(&key);
        key.as_mut_slice().zeroize();
        let mut tail = Nonce::default();
        tail.copy_from_slice(&nonce[12..]);
        (gcm, tail)
    }
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

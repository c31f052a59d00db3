//! Key bytes that cannot be printed, compared or copied by accident and are wiped when dropped.

use zeroize::{Zeroize, ZeroizeOnDrop};

/// `N` secret bytes. Deliberately neither `Debug`, `Clone` nor `PartialEq`.
pub struct Secret<const N: usize>(Box<[u8; N]>);

/// A data key or index key as it comes out of the KMS: 32 random bytes.
pub type RootKey = Secret<32>;

impl<const N: usize> Secret<N> {
    /// Takes the bytes over and wipes the caller's array.
    pub fn take(bytes: &mut [u8; N]) -> Self {
        let secret = Secret(Box::new(*bytes));
        bytes.zeroize();
        secret
    }

    /// Copies `bytes`, or gives `None` when they are not exactly `N`.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut secret = Secret(Box::new([0; N]));
        if bytes.len() != N {
            return None;
        }
        secret.0.copy_from_slice(bytes);
        Some(secret)
    }

    /// Hands the bytes to a primitive or to the KMS; never store or print what this returns.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// The bytes for a primitive that fills them in place.
    pub fn expose_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }

    /// All zero, to be filled by [`Secret::expose_mut`].
    pub fn zeroed() -> Self {
        Secret(Box::new([0; N]))
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<const N: usize> ZeroizeOnDrop for Secret<N> {}

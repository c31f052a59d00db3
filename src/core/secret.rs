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

/// Bytes of stack below a caller that [`wipe_stack`] overwrites: deeper than a KMS call under TLS goes.
const STACK_BYTES: usize = 128 * 1024;

/// Overwrites the stack that calls before this one used: a key that is moved, and round keys that do not fit into
/// registers, leave a copy behind, which nothing else wipes.
#[inline(never)]
pub fn wipe_stack() {
    let mut used = [0; STACK_BYTES];
    used.zeroize();
    std::hint::black_box(&used);
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::assert_not_impl_any;
    use std::fmt::{Debug, Display};

    assert_not_impl_any!(RootKey: Debug, Display, Clone, PartialEq, serde::Serialize);

    #[test]
    fn a_secret_has_exactly_its_bytes() {
        assert!(RootKey::from_slice(&[0; 31]).is_none());
        assert!(RootKey::from_slice(&[7; 32]).is_some_and(|key| *key.expose() == [7; 32]));
    }
}

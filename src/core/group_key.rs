//! Hashes of plaintexts for grouping and joining: under a key of one process, so that nobody can compute one, and none means
//! anything once the process has ended.

use hmac::Mac;
use zeroize::Zeroizing;

use super::kdf::{HmacSha256, mac};
use super::rng::{self, RandomError};

/// A key that is nowhere but here.
pub struct GroupKey(HmacSha256);

impl GroupKey {
    /// A random one.
    pub fn new() -> Result<Self, RandomError> {
        let key = Zeroizing::new(rng::bytes::<32>()?);
        Ok(GroupKey(mac(key.as_slice())))
    }

    /// The hash of what equal values have in common.
    pub fn hash(&self, common: &[u8]) -> u32 {
        let tag = self.0.clone().chain_update(common).finalize().into_bytes();
        u32::from_be_bytes([tag[0], tag[1], tag[2], tag[3]])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::GroupKey;

    #[test]
    fn hash_depends_on_the_key_and_the_content() {
        let (key, other) = (GroupKey::new().unwrap(), GroupKey::new().unwrap());
        let of = |key: &GroupKey| (0..8u8).map(|byte| key.hash(&[byte])).collect::<Vec<_>>();
        assert_eq!(of(&key), of(&key));
        assert_ne!(of(&key), of(&other));
        assert_ne!(key.hash(b"a"), key.hash(b"b"));
    }
}

//! Random bytes, from the operating system for every use: kept bytes would be drawn twice by two clones of a machine that
//! are resumed from one snapshot of it, or by a forked child and its parent.

use super::secret::RootKey;

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct RandomError;

/// `N` random bytes, for nonces and salts.
pub fn bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| RandomError)?;
    Ok(bytes)
}

/// A fresh data or index key.
pub fn root_key() -> Result<RootKey, RandomError> {
    let mut key = RootKey::zeroed();
    getrandom::fill(key.expose_mut()).map_err(|_| RandomError)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn a_million_nonces_never_repeat() {
        let mut seen = HashSet::with_capacity(1_000_000);
        for _ in 0..1_000_000 {
            assert!(seen.insert(super::bytes::<16>().unwrap()));
        }
    }
}

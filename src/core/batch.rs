//! Stored values have nonces of 16 random bytes, the first 4 of which the values of one batch share: one subkey seals and opens
//! them all, and to prepare it takes longer than to decrypt 500 bytes.
//!
//! With N values in batches of at most B, two values under one subkey have the same nonce with a probability of less than
//! N²/2^129 + NB/2^97: as if nothing was shared, and the pairs within batches. 2^48 values: 2^-32. Who sees the 4 bytes sees
//! which values were sealed by one transaction.

use std::cell::{Cell, RefCell};

use ring::aead::LessSafeKey;
use zeroize::Zeroize;

use super::aead::{
    AeadError, COMPACT_NONCE_BYTES, NONCE_BYTES, PREFIX_BYTES, TAG_BYTES, Xaes256Gcm, open_with, seal_with,
    wipe_frame,
};
use super::rng::{self, RandomError};

/// Bytes that the nonces of a batch share: those that the subkey comes from.
const SHARED_BYTES: usize = PREFIX_BYTES - (NONCE_BYTES - COMPACT_NONCE_BYTES);
/// Values of a batch at most, B.
const MOST: u32 = 1 << 16;

/// What the nonces of a batch begin with, and how many more may.
type Batch = ([u8; SHARED_BYTES], u32);

thread_local! {
    static BATCH: Cell<Batch> = const { Cell::new(([0; SHARED_BYTES], 0)) };
}

/// A nonce of the batch, or of the next one.
pub fn fresh_nonce() -> Result<[u8; COMPACT_NONCE_BYTES], RandomError> {
    let mut nonce: [u8; COMPACT_NONCE_BYTES] = rng::bytes()?;
    let (shared, left) = BATCH.get();
    if left == 0 {
        let first = *nonce.first_chunk().unwrap_or(&shared);
        BATCH.set((first, MOST - 1));
    } else {
        nonce[..SHARED_BYTES].copy_from_slice(&shared);
        BATCH.set((shared, left - 1));
    }
    Ok(nonce)
}

/// The next nonce begins another batch: what is sealed from here on belongs to something else.
pub fn end_batch() {
    BATCH.set(Default::default());
}

/// XAES-256-GCM for values: as [`Xaes256Gcm`], and the subkey of one batch is kept.
pub struct BatchAead {
    aead: Xaes256Gcm,
    kept: RefCell<Kept>,
}

/// The subkey of the nonces that begin alike, made when such a one comes twice in a row: a part of a document, sealed under a
/// nonce of its own, does not take the subkey of the documents away. Always ring's, which is slower to prepare and faster to use.
#[derive(Default)]
struct Kept {
    last: [u8; PREFIX_BYTES],
    prefix: [u8; PREFIX_BYTES],
    // ring does not wipe it: the server's memory is wiped when it is freed, the stack below.
    subkey: Option<LessSafeKey>,
}

impl BatchAead {
    /// Nothing is kept yet.
    pub fn new(aead: Xaes256Gcm) -> Self {
        BatchAead { aead, kept: RefCell::default() }
    }

    /// [`Xaes256Gcm::seal`].
    pub fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], AeadError> {
        match self.kept.borrow_mut().subkey_of(&self.aead, nonce) {
            None => self.aead.seal(nonce, aad, data),
            Some(subkey) => seal_with(subkey, nonce, aad, data),
        }
    }

    /// [`Xaes256Gcm::open`].
    pub fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        data: &[u8],
        tag: &[u8; TAG_BYTES],
        out: &mut [u8],
    ) -> Result<(), AeadError> {
        match self.kept.borrow_mut().subkey_of(&self.aead, nonce) {
            None => self.aead.open(nonce, aad, data, tag, out),
            Some(_) if data.len() != out.len() => Err(AeadError),
            Some(subkey) => {
                out.copy_from_slice(data);
                open_with(subkey, nonce, aad, out, tag).inspect_err(|_| out.zeroize())
            }
        }
    }
}

impl Kept {
    /// `None` where neither the kept subkey nor the nonce before has this start.
    fn subkey_of(&mut self, aead: &Xaes256Gcm, nonce: &[u8; NONCE_BYTES]) -> Option<&LessSafeKey> {
        let is_kept = self.subkey.is_some() && self.prefix == nonce[..PREFIX_BYTES];
        let again = self.last == nonce[..PREFIX_BYTES];
        self.last.copy_from_slice(&nonce[..PREFIX_BYTES]);
        if !is_kept && !again {
            return None;
        }
        if !is_kept {
            self.prefix = self.last;
            self.make(aead, nonce);
            wipe_frame();
        }
        self.subkey.as_ref()
    }

    // A frame of its own, which the caller wipes: the key is moved from it.
    #[inline(never)]
    fn make(&mut self, aead: &Xaes256Gcm, nonce: &[u8; NONCE_BYTES]) {
        self.subkey = aead.ring_subkey(nonce).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::core::secret::Secret;

    fn start(nonce: &[u8; COMPACT_NONCE_BYTES]) -> [u8; SHARED_BYTES] {
        *nonce.first_chunk().unwrap()
    }

    #[test]
    fn a_batch_shares_its_start_and_nothing_else() {
        end_batch();
        let nonces: Vec<_> = (0..1000).map(|_| fresh_nonce().unwrap()).collect();
        assert_eq!(nonces.iter().map(start).collect::<HashSet<_>>().len(), 1);
        let rest = nonces.iter().map(|nonce| &nonce[SHARED_BYTES..]);
        assert_eq!(rest.collect::<HashSet<_>>().len(), 1000);
    }

    #[test]
    fn another_batch_starts_otherwise() {
        let starts: HashSet<_> = (0..100)
            .map(|_| {
                end_batch();
                start(&fresh_nonce().unwrap())
            })
            .collect();
        assert!(starts.len() > 95, "{}", starts.len());
    }

    #[test]
    fn a_kept_subkey_is_that_of_the_nonce() {
        let aead = || Xaes256Gcm::new(&Secret::take(&mut [7; 32]));
        let (plain, batch) = (aead(), BatchAead::new(aead()));
        let aad = b"aad";
        // Twice the same start, another one, and back, in every order and length.
        for (at, start) in [1_u8, 1, 1, 2, 1, 1, 2, 2].into_iter().enumerate() {
            for length in [0, 1, 100, 1023, 1024, 5000] {
                let mut nonce = [start; NONCE_BYTES];
                nonce[PREFIX_BYTES..].fill(at as u8);
                let mut sealed = [vec![9; length], vec![9; length]];
                let tags = [
                    plain.seal(&nonce, aad, &mut sealed[0]).unwrap(),
                    batch.seal(&nonce, aad, &mut sealed[1]).unwrap(),
                ];
                assert_eq!((tags[0], &sealed[0]), (tags[1], &sealed[1]), "{at}, {length}");
                let mut out = vec![0; length];
                batch.open(&nonce, aad, &sealed[0], &tags[0], &mut out).unwrap();
                assert_eq!(out, vec![9; length]);
                let mut bad = tags[0];
                bad[0] ^= 1;
                out.fill(1);
                assert_eq!(batch.open(&nonce, aad, &sealed[0], &bad, &mut out), Err(AeadError));
                assert_eq!(out, vec![0; length], "wiped");
                assert_eq!(batch.open(&nonce, b"other", &sealed[0], &tags[0], &mut out), Err(AeadError));
            }
        }
    }

    #[test]
    fn a_batch_ends_by_itself() {
        end_batch();
        let starts: HashSet<_> = (0..=MOST).map(|_| start(&fresh_nonce().unwrap())).collect();
        assert_eq!(starts.len(), 2);
    }
}

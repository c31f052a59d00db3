//! Random bytes from the operating system through a small per-thread buffer.
//!
//! A system call costs more than sealing a small value, so 512 bytes are drawn at a time. The buffer is
//! tied to the process id, so that a forked child never repeats its parent's bytes, and lives one second,
//! so that a machine restored from a snapshot does not go on with it. Bytes are wiped as they are handed out.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use zeroize::Zeroize;

use super::secret::RootKey;

const BUFFER_BYTES: usize = 512;
const BUFFER_LIFE: Duration = Duration::from_secs(1);

struct Buffer {
    process: u32,
    filled: Option<Instant>,
    used: usize,
    bytes: [u8; BUFFER_BYTES],
}

thread_local! {
    static BUFFER: RefCell<Buffer> =
        const { RefCell::new(Buffer { process: 0, filled: None, used: BUFFER_BYTES, bytes: [0; BUFFER_BYTES] }) };
}

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct RandomError;

impl Buffer {
    fn refill(&mut self) -> Result<(), RandomError> {
        getrandom::fill(&mut self.bytes).map_err(|_| RandomError)?;
        self.process = std::process::id();
        self.filled = Some(Instant::now());
        self.used = 0;
        Ok(())
    }

    fn is_fresh(&self) -> bool {
        self.process == std::process::id() && self.filled.is_some_and(|filled| filled.elapsed() < BUFFER_LIFE)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], RandomError> {
        if self.used + N > BUFFER_BYTES || !self.is_fresh() {
            self.refill()?;
        }
        let source = &mut self.bytes[self.used..self.used + N];
        let mut out = [0; N];
        out.copy_from_slice(source);
        source.zeroize();
        self.used += N;
        Ok(out)
    }
}

/// `N` random bytes, at most 512, for nonces and salts.
pub fn bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    const { assert!(N <= BUFFER_BYTES) };
    BUFFER.with_borrow_mut(|buffer| buffer.take())
}

/// A fresh data or index key, drawn straight from the operating system and never buffered.
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

    #[test]
    fn bytes_handed_out_are_wiped_from_the_buffer() {
        let nonce = super::bytes::<16>().unwrap();
        let left = super::BUFFER.with_borrow(|b| b.bytes);
        assert!(!left.windows(16).any(|window| window == nonce));
    }

    #[test]
    fn another_process_id_drops_the_buffer() {
        super::bytes::<16>().unwrap();
        let before = super::BUFFER.with_borrow_mut(|b| {
            b.process = u32::MAX;
            b.bytes
        });
        super::bytes::<16>().unwrap();
        assert_ne!(before[32..], super::BUFFER.with_borrow(|b| b.bytes)[32..]);
    }
}

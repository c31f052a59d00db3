//! Bytes that are put together from parts, and taken apart again: numbers are big-endian, and a part of any length
//! stands after its length (u32), so that no two lists of parts have the same bytes.

/// A byte that stands for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an unknown code")]
pub struct UnknownCode;

/// Bytes that a part takes with its length.
pub fn prefixed_bytes(part: &[u8]) -> usize {
    size_of::<u32>() + part.len()
}

/// Appends a part after its length.
pub fn put_prefixed(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u32).to_be_bytes());
    out.extend_from_slice(part);
}

/// All parts, each after its length: what a seal authenticates beside the plaintext.
pub fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|part| prefixed_bytes(part)).sum());
    parts.iter().for_each(|part| put_prefixed(&mut out, part));
    out
}

/// Reads bytes that may be anything from their front; `None` where too few are left.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// From the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    /// So many bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// What [`put_prefixed`] has put there.
    pub fn prefixed(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_parts_read_back_and_no_cut_does() {
        let parts = [&b"label"[..], b"", &[0xFF; 300]];
        let bytes = joined(&parts);
        let read = |bytes| {
            let mut reader = Reader::new(bytes);
            let parts = [reader.prefixed()?, reader.prefixed()?, reader.prefixed()?];
            reader.is_empty().then_some(parts)
        };
        assert_eq!(read(&bytes), Some(parts));
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), None, "{end}");
        }
    }

    #[test]
    fn numbers_are_big_endian_and_a_length_may_lie() {
        let mut reader = Reader::new(&[7, 0, 2, 0, 0, 1, 0, 9]);
        assert_eq!((reader.u8(), reader.u16(), reader.u32()), (Some(7), Some(2), Some(256)));
        assert_eq!((reader.u16(), reader.rest()), (None, &[9][..]));
        assert_eq!(Reader::new(&[0xFF; 8]).prefixed(), None);
    }

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(joined(&[b"ab", b"c"]), joined(&[b"a", b"bc"]));
        assert_ne!(joined(&[b"a", b""]), joined(&[b"a"]));
    }
}

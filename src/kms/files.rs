//! Small files and answers, read whole and bounded.

use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use super::KmsError;
use super::settings::{TOKEN_LIMIT, Token};

/// All of `source`, or `None` when it has more than `limit` bytes. One buffer, so no copy stays behind.
pub(super) fn read_bounded(
    source: &mut impl Read,
    limit: usize,
) -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut buffer = Zeroizing::new(vec![0; limit + 1]);
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok((filled <= limit).then_some(buffer))
}

/// The one token that a file holds.
pub(super) fn read_token(path: &Path, what: KmsError) -> Result<Token, KmsError> {
    let bytes = read_file(path, TOKEN_LIMIT, what.clone())?;
    std::str::from_utf8(&bytes).ok().and_then(Token::parse).ok_or_else(|| what.at(path, None))
}

/// A small regular file; `what` is the error otherwise. Looks first, because opening a pipe would hang.
pub(super) fn read_file(path: &Path, limit: usize, what: KmsError) -> Result<Zeroizing<Vec<u8>>, KmsError> {
    let read = std::fs::metadata(path).and_then(|metadata| {
        if !metadata.is_file() {
            return Ok(None);
        }
        std::fs::File::open(path).and_then(|mut file| read_bounded(&mut file, limit))
    });
    match read {
        Ok(bytes) => bytes.ok_or_else(|| what.at(path, None)),
        Err(error) => Err(what.at(path, Some(error.kind()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_stops_at_the_limit() {
        assert_eq!(read_bounded(&mut &b"four"[..], 4).unwrap().unwrap().as_slice(), b"four");
        assert!(read_bounded(&mut &b"fives"[..], 4).unwrap().is_none());
        assert!(read_bounded(&mut std::io::repeat(7), 4).unwrap().is_none());
    }
}

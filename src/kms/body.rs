//! Bodies of requests. Each gets room for all of it before it is written, so that growing leaves no copy behind.

use std::io::Write;

use serde::ser::{Serialize, SerializeMap, Serializer};
use zeroize::Zeroizing;

use super::KmsError;

/// The header of a JSON body.
pub(super) const JSON: (&str, &str) = ("content-type", "application/json");
/// The header of what [`form`] makes.
pub(super) const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");

/// Names and texts.
pub(super) type Pairs<'a> = &'a [(&'a str, &'a str)];

/// A JSON object of `texts`.
pub(super) fn json(texts: Pairs) -> Result<Zeroizing<Vec<u8>>, KmsError> {
    json_with(texts, &[])
}

/// A JSON object of `texts` and, after them, of `objects` of texts.
pub(super) fn json_with(texts: Pairs, objects: &[(&str, Pairs)]) -> Result<Zeroizing<Vec<u8>>, KmsError> {
    let object = Object { texts, objects };
    let mut room = Counted(0);
    let mut body = Zeroizing::new(Vec::new());
    let written = serde_json::to_writer(&mut room, &object).and_then(|()| {
        body.reserve_exact(room.0);
        serde_json::to_writer(&mut *body, &object)
    });
    written.map_err(|_| KmsError::Local("a request could not be written")).map(|()| body)
}

struct Object<'a> {
    texts: Pairs<'a>,
    objects: &'a [(&'a str, Pairs<'a>)],
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, text) in self.texts {
            map.serialize_entry(name, text)?;
        }
        for (name, texts) in self.objects {
            map.serialize_entry(name, &Object { texts, objects: &[] })?;
        }
        map.end()
    }
}

/// Counts the bytes that are written to it.
struct Counted(usize);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `start` and `fields` as an HTML form sends them; room for each byte escaped.
pub(super) fn form(start: &str, fields: &[(&str, &str)]) -> Zeroizing<String> {
    let room: usize = fields.iter().map(|(name, value)| name.len() + 3 * value.len() + 2).sum();
    let mut text = Zeroizing::new(String::with_capacity(start.len() + room));
    text.push_str(start);
    for (name, value) in fields {
        for part in ["&", name, "="] {
            text.push_str(part);
        }
        for byte in value.bytes() {
            push_encoded(&mut text, byte);
        }
    }
    text
}

fn push_encoded(text: &mut String, byte: u8) {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        text.push(byte.into());
        return;
    }
    let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble)].into();
    text.push('%');
    text.push(digit(byte >> 4));
    text.push(digit(byte & 15));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_escaped_and_never_grows() {
        let pairs: Pairs = &[("e", "z")];
        let body = json_with(&[("A", "x\"\\\n"), ("B", "\u{fc}")], &[("C", pairs), ("D", &[])]).unwrap();
        let text = "{\"A\":\"x\\\"\\\\\\n\",\"B\":\"\u{fc}\",\"C\":{\"e\":\"z\"},\"D\":{}}";
        assert_eq!(std::str::from_utf8(&body), Ok(text));
        assert_eq!(body.capacity(), body.len());
    }
}

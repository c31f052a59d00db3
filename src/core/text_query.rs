//! The question "is the text at this path equal to that one?", as `->>`, `#>>` and `encrypted_text` ask it.
//!
//! Inside a filter it is sealed as: accessor (u8), number of steps (u32), per step its length (u32) and
//! bytes, then the text. All integers are big-endian.

use zeroize::Zeroizing;

use super::bytes::{Reader, UnknownCode, prefixed_bytes, put_prefixed};
use super::canonical::{Kind, printed_number};
use super::jsonb::{MAX_DEPTH, path_bytes};
use super::memory::{self, OutOfMemory};
use super::policy::Policy;
use super::token::QueryLeaf;

/// Ways to read a path with numbers in it, at most: each number is a key or a position.
const MAX_READINGS: usize = 16;

/// Which operator reads the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Accessor {
    /// The value is the text.
    Whole = 0,
    /// `->> text`: one step, a key.
    Field = 1,
    /// `->> int4`: one step, the position in decimal.
    Element = 2,
    /// `#>> text[]`: any number of steps, each a key or a position.
    Path = 3,
}

impl TryFrom<u8> for Accessor {
    type Error = UnknownCode;

    fn try_from(code: u8) -> Result<Self, UnknownCode> {
        match code {
            0 => Ok(Accessor::Whole),
            1 => Ok(Accessor::Field),
            2 => Ok(Accessor::Element),
            3 => Ok(Accessor::Path),
            _ => Err(UnknownCode),
        }
    }
}

/// What to compare and with what; `D` holds the bytes.
#[derive(PartialEq, Eq)]
pub struct TextQuery<D> {
    /// How the text is reached.
    pub accessor: Accessor,
    /// The accessor's argument.
    pub steps: Vec<D>,
    /// What the text must equal.
    pub text: D,
}

impl<D: AsRef<[u8]>> TextQuery<D> {
    /// The value itself is the text.
    pub fn is_whole(&self) -> bool {
        self.accessor == Accessor::Whole
    }

    /// The plaintext of a filter.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, OutOfMemory> {
        let text = self.text.as_ref();
        let steps: usize = self.steps.iter().map(|step| prefixed_bytes(step.as_ref())).sum();
        let mut out = Zeroizing::new(memory::room(5 + steps + text.len())?);
        out.push(self.accessor as u8);
        out.extend_from_slice(&(self.steps.len() as u32).to_be_bytes());
        self.steps.iter().for_each(|step| put_prefixed(&mut out, step.as_ref()));
        out.extend_from_slice(text);
        Ok(out)
    }

    /// The same query, with what `hold` makes of its bytes.
    pub fn held_as<H>(self, hold: impl Fn(D) -> Result<H, OutOfMemory>) -> Result<TextQuery<H>, OutOfMemory> {
        let steps = memory::try_collect(self.steps.into_iter().map(&hold))?;
        Ok(TextQuery { accessor: self.accessor, steps, text: hold(self.text)? })
    }

    /// Is the text that of an object or array? It tells what is below, of which the path says nothing.
    fn is_of_container(&self) -> bool {
        !self.is_whole() && matches!(self.text.as_ref().first(), Some(b'{' | b'['))
    }

    /// The scalars of which a document has one where the text is equal. `None` where that cannot be said: the
    /// text of an object or array, or a path with too many readings.
    pub fn leaves(&self) -> Option<Vec<QueryLeaf>> {
        if self.is_of_container() {
            return None;
        }
        let text = self.text.as_ref();
        let values =
            if self.is_whole() { vec![(Kind::String, text.to_vec())] } else { scalars_printed_as(text) };
        let leaf = |steps: &[Option<&[u8]>], kind: Kind, value: &[u8]| {
            let keys = steps.iter().flatten().map(|key| key.to_vec()).collect();
            QueryLeaf::new(keys, path_bytes(steps), kind, value.to_vec())
        };
        let readings = self.readings()?;
        let leaves = readings
            .iter()
            .flat_map(|steps| values.iter().map(|(kind, value)| leaf(steps, *kind, value)))
            .collect();
        Some(leaves)
    }

    /// Is what the accessor reads searchable, in every reading?
    pub fn is_declared(&self, policy: &Policy) -> bool {
        if self.is_of_container() {
            return policy.covers_everything();
        }
        self.readings().is_some_and(|readings| {
            readings.iter().all(|steps| {
                let keys: Vec<&[u8]> = steps.iter().flatten().copied().collect();
                policy.covers_scalar(&keys, path_bytes(steps).len())
            })
        })
    }

    fn readings(&self) -> Option<Vec<Vec<Option<&[u8]>>>> {
        match self.accessor {
            Accessor::Whole => Some(vec![Vec::new()]),
            // One step is read, so no more may be asked about.
            Accessor::Field | Accessor::Element if self.steps.len() != 1 => None,
            Accessor::Field => Some(vec![self.steps.iter().map(|step| Some(step.as_ref())).collect()]),
            // A scalar document is an array of one in jsonb.
            Accessor::Element => Some(vec![vec![None]]),
            Accessor::Path if self.steps.is_empty() => Some(vec![vec![None]]),
            Accessor::Path => self.path_readings(),
        }
    }

    fn path_readings(&self) -> Option<Vec<Vec<Option<&[u8]>>>> {
        // Nothing is searchable so deep.
        if self.steps.len() > MAX_DEPTH {
            return None;
        }
        let mut readings = vec![Vec::new()];
        for step in self.steps.iter().map(AsRef::as_ref) {
            let as_position = is_position(step).then(|| with_step(&readings, None));
            readings = with_step(&readings, Some(step));
            readings.extend(as_position.unwrap_or_default());
            if readings.len() > MAX_READINGS {
                return None;
            }
        }
        Some(readings)
    }
}

impl<'a> TextQuery<&'a [u8]> {
    /// Reads what [`TextQuery::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let accessor = Accessor::try_from(reader.u8()?).ok()?;
        let mut steps = Vec::new();
        for _ in 0..reader.u32()? {
            steps.push(reader.prefixed()?);
        }
        Some(TextQuery { accessor, steps, text: reader.rest() })
    }
}

fn with_step<'a>(readings: &[Vec<Option<&'a [u8]>>], step: Option<&'a [u8]>) -> Vec<Vec<Option<&'a [u8]>>> {
    readings.iter().map(|steps| steps.iter().copied().chain([step]).collect()).collect()
}

/// What strtol may read whole; jsonb then takes it for a position in an array.
fn is_position(step: &[u8]) -> bool {
    let blank = step.iter().take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r')).count();
    let step = &step[blank..];
    let digits = step.strip_prefix(b"-").or(step.strip_prefix(b"+")).unwrap_or(step);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// The scalars that jsonb prints as this text. JSON null gives no text at all.
fn scalars_printed_as(text: &[u8]) -> Vec<(Kind, Vec<u8>)> {
    let mut scalars = vec![(Kind::String, text.to_vec())];
    match text {
        b"true" => scalars.push((Kind::True, Vec::new())),
        b"false" => scalars.push((Kind::False, Vec::new())),
        _ => {
            let number = std::str::from_utf8(text).ok().and_then(printed_number);
            scalars.extend(number.map(|digits| (Kind::Number, digits)));
        }
    }
    scalars
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path<'a>(steps: &[&'a str], text: &'a str) -> TextQuery<&'a [u8]> {
        let steps = steps.iter().map(|step| step.as_bytes()).collect();
        TextQuery { accessor: Accessor::Path, steps, text: text.as_bytes() }
    }

    #[test]
    fn the_sealed_form_reads_back_and_cut_bytes_are_refused() {
        let query = path(&["a", "", "0"], "x");
        let encoded = query.encode().unwrap();
        assert!(TextQuery::decode(&encoded) == Some(query));
        for end in 0..encoded.len() - 1 {
            assert!(TextQuery::decode(&encoded[..end]).is_none(), "{end}");
        }
        assert!(TextQuery::decode(&[4, 0, 0, 0, 0]).is_none());
    }

    #[test]
    fn a_text_may_be_a_string_a_number_or_a_boolean() {
        let count = |text| path(&["a"], text).leaves().map(|leaves| leaves.len());
        assert_eq!(count("x"), Some(1));
        assert_eq!(count("7.0"), Some(2));
        assert_eq!(count("true"), Some(2));
        assert_eq!(count(""), Some(1));
        assert_eq!(count("{}"), None);
    }

    #[test]
    fn a_number_in_a_path_is_a_key_or_a_position() {
        let count = |steps: &[&str]| path(steps, "x").leaves().map(|leaves| leaves.len());
        assert_eq!(count(&["a", "0"]), Some(2));
        assert_eq!(count(&["-1", " 2"]), Some(4));
        assert_eq!(count(&["\t\n\x0B\x0C\r +2"]), Some(2));
        assert_eq!(count(&["\u{a0}2", "+ 2", "2 "]), Some(1));
        assert_eq!(count(&["1x", ""]), Some(1));
        assert_eq!(count(&["1", "2", "3", "4"]), Some(16));
        assert_eq!(count(&["1", "2", "3", "4", "5"]), None);
    }

    #[test]
    fn every_reading_must_be_declared() {
        let policy = |paths: &[&str]| Policy::from_paths(paths).unwrap();
        assert!(path(&["a", "0"], "x").is_declared(&policy(&["$.a", r#"$.a."0""#])));
        assert!(!path(&["a", "0"], "x").is_declared(&policy(&["$.a"])));
        assert!(path(&["a"], "x").is_declared(&policy(&["$.*"])));
        assert!(!path(&["a"], r#"{"b": 1}"#).is_declared(&policy(&["$.a"])));
        assert!(path(&["a"], r#"{"b": 1}"#).is_declared(&policy(&["$.**"])));
        let two_keys = TextQuery { accessor: Accessor::Field, steps: vec![&b"a"[..], b"b"], text: &b"x"[..] };
        assert!(!two_keys.is_declared(&policy(&["$.**"])));
    }
}

//! The question "is the text at this path equal to one of those?", as `->>`, `#>>` and `encrypted_text` ask it.
//!
//! Inside a filter it is sealed as: accessor (u8), whether a NULL is among the texts (u8), number of steps (u32), then the
//! steps and the texts, each after its length (u32). All integers are big-endian.

use zeroize::Zeroizing;

use super::bytes::{Reader, UnknownCode, prefixed_bytes, put_prefixed};
use super::canonical::{Kind, printed_number};
use super::jsonb::{MAX_DEPTH, path_bytes};
use super::memory::{self, OutOfMemory};
use super::policy::Policy;
use super::token::QueryLeaf;

/// Ways to read a path with numbers in it, at most: each number is a key or a position.
const MAX_READINGS: usize = 16;
/// Scalars that one question narrows by, at most: elements of a list, each with every type and reading.
const MAX_SCALARS: usize = 1 << 14;

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
    /// Several of these, one after the other: each step is a [`Link`].
    Chain = 4,
}

/// What one step of [`Accessor::Chain`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link<'a> {
    /// `-> text`: the key.
    Field(&'a [u8]),
    /// `-> int4`: the position in decimal.
    Element(&'a [u8]),
    /// One step of `#> text[]`: a key or a position.
    Path(&'a [u8]),
}

impl<'a> Link<'a> {
    /// As a step of the chain.
    pub fn encode(self) -> Vec<u8> {
        let (code, step) = match self {
            Link::Field(step) => (b'.', step),
            Link::Element(step) => (b'[', step),
            Link::Path(step) => (b'#', step),
        };
        [&[code], step].concat()
    }

    /// Reads what [`Link::encode`] wrote.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (code, step) = bytes.split_first()?;
        match code {
            b'.' => Some(Link::Field(step)),
            b'[' => Some(Link::Element(step)),
            b'#' => Some(Link::Path(step)),
            _ => None,
        }
    }
}

impl TryFrom<u8> for Accessor {
    type Error = UnknownCode;

    fn try_from(code: u8) -> Result<Self, UnknownCode> {
        match code {
            0 => Ok(Accessor::Whole),
            1 => Ok(Accessor::Field),
            2 => Ok(Accessor::Element),
            3 => Ok(Accessor::Path),
            4 => Ok(Accessor::Chain),
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
    /// What the text must equal one of: ascending by bytes, each once.
    pub texts: Vec<D>,
    /// As with ANY, no match is NULL where a NULL is in the list.
    pub has_null: bool,
}

impl<D: AsRef<[u8]>> TextQuery<D> {
    /// Is the text this one?
    pub fn of_one(accessor: Accessor, steps: Vec<D>, text: D) -> Self {
        TextQuery { accessor, steps, texts: vec![text], has_null: false }
    }

    /// Is the text one of these, of which `None` is a NULL?
    pub fn of_list(
        accessor: Accessor,
        steps: Vec<D>,
        list: impl IntoIterator<Item = Option<D>>,
    ) -> Result<Self, OutOfMemory> {
        let (mut texts, mut has_null) = (Vec::new(), false);
        for text in list {
            match text {
                Some(text) => memory::push(&mut texts, text)?,
                None => has_null = true,
            }
        }
        texts.sort_unstable_by(|one: &D, other| one.as_ref().cmp(other.as_ref()));
        texts.dedup_by(|one, other| one.as_ref() == other.as_ref());
        Ok(TextQuery { accessor, steps, texts, has_null })
    }

    /// The value itself is the text.
    pub fn is_whole(&self) -> bool {
        self.accessor == Accessor::Whole
    }

    /// What the answer is for a value with this text; `None` is NULL.
    pub fn answer(&self, text: &[u8]) -> Option<bool> {
        let found = self.texts.binary_search_by(|one| one.as_ref().cmp(text)).is_ok();
        (found || !self.has_null).then_some(found)
    }

    /// The plaintext of a filter.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, OutOfMemory> {
        let parts = || self.steps.iter().chain(&self.texts).map(AsRef::as_ref);
        let mut out = Zeroizing::new(memory::room(6 + parts().map(prefixed_bytes).sum::<usize>())?);
        out.extend_from_slice(&[self.accessor as u8, self.has_null.into()]);
        out.extend_from_slice(&(self.steps.len() as u32).to_be_bytes());
        parts().for_each(|part| put_prefixed(&mut out, part));
        Ok(out)
    }

    /// The same query, with what `hold` makes of its bytes.
    pub fn held_as<H>(self, hold: impl Fn(D) -> Result<H, OutOfMemory>) -> Result<TextQuery<H>, OutOfMemory> {
        let steps = memory::try_collect(self.steps.into_iter().map(&hold))?;
        let texts = memory::try_collect(self.texts.into_iter().map(&hold))?;
        Ok(TextQuery { accessor: self.accessor, steps, texts, has_null: self.has_null })
    }

    /// Is one of the texts that of an object or array? It tells what is below, of which the path says nothing.
    fn is_of_container(&self) -> bool {
        let container = |text: &D| matches!(text.as_ref().first(), Some(b'{' | b'['));
        !self.is_whole() && self.texts.iter().any(container)
    }

    /// The scalars of which a document has one where the text is equal. `None` where that cannot be said: the
    /// text of an object or array, a path with too many readings, or too many of all.
    pub fn leaves(&self) -> Option<Vec<QueryLeaf>> {
        if self.is_of_container() {
            return None;
        }
        let readings = self.readings()?;
        if self.texts.len() * readings.len() > MAX_SCALARS {
            return None;
        }
        let leaf = |steps: &[Option<&[u8]>], kind: Kind, value: Vec<u8>| {
            let keys = steps.iter().flatten().map(|key| key.to_vec()).collect();
            let leaf = QueryLeaf::new(keys, path_bytes(steps), kind, value);
            // Which of several elements is meant, and with how many digits a number is printed, no token tells.
            let decides = steps.iter().all(Option::is_some) && kind != Kind::Number;
            if decides { leaf.deciding() } else { leaf }
        };
        let printed = |text: &D| {
            let text = text.as_ref();
            if self.is_whole() { vec![(Kind::String, text.to_vec())] } else { scalars_printed_as(text) }
        };
        let leaves = self
            .texts
            .iter()
            .flat_map(printed)
            .flat_map(|(kind, value)| readings.iter().map(move |steps| leaf(steps, kind, value.clone())));
        Some(leaves.collect())
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
            Accessor::Chain if self.steps.is_empty() => Some(vec![vec![None]]),
            Accessor::Chain => self.chain_readings(),
        }
    }

    /// A position in what an operator before it has read: there a scalar is an array of one again.
    fn chain_readings(&self) -> Option<Vec<Vec<Option<&[u8]>>>> {
        if self.steps.len() > MAX_DEPTH {
            return None;
        }
        let mut readings = vec![Vec::new()];
        for step in &self.steps {
            let (as_key, as_position, as_itself) = match Link::decode(step.as_ref())? {
                Link::Field(key) => (Some(key), false, false),
                Link::Element(_) => (None, true, !readings.iter().any(Vec::is_empty)),
                Link::Path(step) => (Some(step), is_position(step), false),
            };
            let mut read = Vec::new();
            if let Some(key) = as_key {
                read.extend(with_step(&readings, Some(key)));
            }
            if as_position {
                read.extend(with_step(&readings, None));
            }
            if as_itself {
                read.extend(readings);
            }
            readings = read;
            if readings.len() > MAX_READINGS {
                return None;
            }
        }
        Some(readings)
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
        let has_null = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let (mut steps, mut texts) = (Vec::new(), Vec::new());
        for _ in 0..reader.u32()? {
            steps.push(reader.prefixed()?);
        }
        while !reader.is_empty() {
            texts.push(reader.prefixed()?);
        }
        Some(TextQuery { accessor, steps, texts, has_null })
    }
}

fn with_step<'a>(readings: &[Vec<Option<&'a [u8]>>], step: Option<&'a [u8]>) -> Vec<Vec<Option<&'a [u8]>>> {
    readings.iter().map(|steps| steps.iter().copied().chain([step]).collect()).collect()
}

/// What strtol may read whole; jsonb then takes it for a position in an array.
pub fn is_position(step: &[u8]) -> bool {
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
    use crate::core::policy::Scheme;

    fn path<'a>(steps: &[&'a str], text: &'a str) -> TextQuery<&'a [u8]> {
        let steps = steps.iter().map(|step| step.as_bytes()).collect();
        TextQuery::of_one(Accessor::Path, steps, text.as_bytes())
    }

    #[test]
    fn the_sealed_form_reads_back_and_cut_bytes_are_refused() {
        let query = path(&["a", "", "0"], "x");
        let encoded = query.encode().unwrap();
        assert!(TextQuery::decode(&encoded) == Some(query));
        // Without its one text it asks for none.
        let whole = encoded.len() - 5;
        for end in (0..encoded.len()).filter(|end| *end != whole) {
            assert!(TextQuery::decode(&encoded[..end]).is_none(), "{end}");
        }
        assert!(TextQuery::decode(&[5, 0, 0, 0, 0, 0]).is_none());
        assert!(TextQuery::decode(&[3, 2, 0, 0, 0, 0]).is_none());
    }

    fn list<'a>(texts: &[Option<&'a str>]) -> TextQuery<&'a [u8]> {
        let texts = texts.iter().map(|text| text.map(str::as_bytes));
        TextQuery::of_list(Accessor::Field, vec![&b"a"[..]], texts).unwrap()
    }

    #[test]
    fn a_list_holds_each_text_once_and_answers_as_any_does() {
        let query = list(&[Some("y"), None, Some("x"), Some("y"), Some("")]);
        assert_eq!(query.texts, [&b""[..], b"x", b"y"]);
        assert!(
            TextQuery::decode(&query.encode().unwrap())
                == Some(list(&[None, Some("x"), Some(""), Some("y")]))
        );
        assert_eq!([query.answer(b"x"), query.answer(b"z")], [Some(true), None]);
        let query = list(&[Some("x")]);
        assert_eq!([query.answer(b"x"), query.answer(b"z")], [Some(true), Some(false)]);
        assert_eq!([list(&[None]).answer(b"x"), list(&[]).answer(b"x")], [None, Some(false)]);
    }

    #[test]
    fn a_list_narrows_by_all_its_texts_or_not_at_all() {
        let count = |texts: &[Option<&str>]| list(texts).leaves().map(|leaves| leaves.len());
        assert_eq!(count(&[Some("x"), Some("7"), None]), Some(3));
        assert_eq!(count(&[Some("x"), Some("{}")]), None);
        assert_eq!(count(&[]), Some(0));
        let many: Vec<String> = (0..=MAX_SCALARS).map(|at| at.to_string()).collect();
        assert_eq!(count(&many.iter().map(|text| Some(text.as_str())).collect::<Vec<_>>()), None);
    }

    #[test]
    fn a_chain_reads_each_step_as_its_operator_does() {
        let readings = |links: &[Link<'_>]| {
            let steps = links.iter().map(|link| link.encode()).collect();
            let query = TextQuery::of_one(Accessor::Chain, steps, b"x".to_vec());
            let readings = query.readings()?;
            Some(
                readings
                    .iter()
                    .map(|steps| steps.iter().map(Option::is_some).collect())
                    .collect::<Vec<Vec<_>>>(),
            )
        };
        let (key, at, step) = (Link::Field(b"0"), Link::Element(b"0"), Link::Path(b"0"));
        assert_eq!(readings(&[]), Some(vec![vec![false]]));
        assert_eq!(readings(&[key, key]), Some(vec![vec![true, true]]));
        assert_eq!(readings(&[at]), Some(vec![vec![false]]));
        assert_eq!(readings(&[key, at]), Some(vec![vec![true, false], vec![true]]));
        assert_eq!(readings(&[step, key]), Some(vec![vec![true, true], vec![false, true]]));
        assert_eq!(readings(&[key, at, at, at, at, at]), None);
        assert_eq!([Link::decode(b"a"), Link::decode(b"")], [None, None]);
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
        let policy = |paths: &[&str]| Policy::from_paths(Scheme::Decide, paths).unwrap();
        assert!(path(&["a", "0"], "x").is_declared(&policy(&["$.a", r#"$.a."0""#])));
        assert!(!path(&["a", "0"], "x").is_declared(&policy(&["$.a"])));
        assert!(path(&["a"], "x").is_declared(&policy(&["$.*"])));
        assert!(!path(&["a"], r#"{"b": 1}"#).is_declared(&policy(&["$.a"])));
        assert!(path(&["a"], r#"{"b": 1}"#).is_declared(&policy(&["$.**"])));
        let two_keys = TextQuery::of_one(Accessor::Field, vec![&b"a"[..], b"b"], &b"x"[..]);
        assert!(!two_keys.is_declared(&policy(&["$.**"])));
    }
}

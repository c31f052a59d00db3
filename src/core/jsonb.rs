//! Walks the binary form of a jsonb document (PostgreSQL's utils/jsonb.h) and hands out its scalars.
//!
//! Only the little-endian form is read; it is the same in every PostgreSQL version since 9.4.

use std::ops::Range;

use super::bytes::{prefixed_bytes, put_prefixed};
use super::canonical::{Kind, NumberError, number};
use super::memory::OutOfMemory;

/// Containers inside one another, at most.
pub const MAX_DEPTH: usize = 1024;

/// Step byte before an object key: the key's length (u32 big-endian) and bytes follow.
const KEY_STEP: u8 = 1;
/// Step byte for any element of an array. A scalar document is an array of one in jsonb.
const ELEMENT_STEP: u8 = 2;
/// The only step of a scalar document, where it is told from an array.
const ITSELF_STEP: u8 = 3;

/// The path of a scalar document, where it is told from an array.
pub const ITSELF: &[u8] = &[ITSELF_STEP];
/// The path of an element of an array that is the document, and of a scalar document where it is not told from one.
pub const TOP_ELEMENT: &[u8] = &[ELEMENT_STEP];

/// The steps of a path: object keys, and `None` for any element of an array.
pub fn path_bytes(steps: &[Option<&[u8]>]) -> Vec<u8> {
    let mut path = Vec::new();
    for step in steps {
        match step {
            Some(key) => push_key(&mut path, key),
            None => path.push(ELEMENT_STEP),
        }
    }
    path
}

fn push_key(path: &mut Vec<u8>, key: &[u8]) {
    path.push(KEY_STEP);
    put_prefixed(path, key);
}

/// Bytes that an object key takes in a path.
pub fn key_bytes(key: &[u8]) -> usize {
    1 + prefixed_bytes(key)
}

/// Why a document could not be walked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonbError {
    /// Not the bytes that PostgreSQL writes.
    #[error("malformed jsonb bytes")]
    Malformed,
    /// More than [`MAX_DEPTH`] containers inside one another.
    #[error("the document is nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// No room for a path in it.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

impl From<NumberError> for JsonbError {
    fn from(_: NumberError) -> Self {
        JsonbError::Malformed
    }
}

/// One scalar of a document and where it stands.
pub struct Leaf<'a> {
    /// The object keys on the way, array steps left out.
    pub keys: &'a [&'a [u8]],
    /// The steps as they go into a token: unambiguous for every key.
    pub path: &'a [u8],
    /// What the scalar is.
    pub kind: Kind,
    /// Its canonical bytes.
    pub value: &'a [u8],
    /// It is the whole document.
    pub is_itself: bool,
}

/// Calls `visit` for every scalar; empty objects and arrays have none.
pub fn walk<E: From<JsonbError>>(
    document: &[u8],
    mut visit: impl FnMut(Leaf<'_>) -> Result<(), E>,
) -> Result<(), E> {
    walk_with_empties(document, |leaf| if leaf.kind.is_scalar() { visit(leaf) } else { Ok(()) })
}

/// Calls `visit` for every scalar and every empty object or array.
pub fn walk_with_empties<E: From<JsonbError>>(
    document: &[u8],
    visit: impl FnMut(Leaf<'_>) -> Result<(), E>,
) -> Result<(), E> {
    walk_as_query(document, visit).map(|_| ())
}

/// The same; does every document contain this one that has each of its scalars at the place where it stands here? Not what
/// has an empty object or array, and not what wants several scalars below one element of an array.
pub fn walk_as_query<E: From<JsonbError>>(
    document: &[u8],
    visit: impl FnMut(Leaf<'_>) -> Result<(), E>,
) -> Result<bool, E> {
    let is_itself = is_scalar(document);
    let (keys, path, value) = (Vec::new(), Vec::new(), Vec::new());
    let mut walker = Walker { keys, path, value, depth: 0, is_itself, leaves: 0, falls_apart: true, visit };
    walker.container(document)?;
    Ok(walker.falls_apart)
}

/// Does every string of the document, keys too, pass `test`? However deep it is.
pub fn all_strings(document: &[u8], test: impl Fn(&[u8]) -> bool) -> Result<bool, JsonbError> {
    let mut containers = vec![document];
    while let Some(bytes) = containers.pop() {
        let mut entries = Entries::of(bytes)?;
        for _ in 0..entries.count {
            match entries.next()? {
                (STRING, text) if !test(text) => return Ok(false),
                (CONTAINER, inner) => containers.push(inner),
                _ => (),
            }
        }
    }
    Ok(true)
}

/// [`all_strings`] for UTF-8, in less time: strings that stand side by side are looked at as one.
pub fn is_utf8(document: &[u8]) -> Result<bool, JsonbError> {
    let mut containers = vec![document];
    while let Some(bytes) = containers.pop() {
        let mut entries = Entries::of(bytes)?;
        let mut run: Range<usize> = 0..0;
        for _ in 0..entries.count {
            let (kind, place) = entries.next_place()?;
            let data = &bytes[place.clone()];
            match kind {
                // No string may end within a character that the next one goes on with.
                STRING if data.first().is_some_and(|byte| byte & 0xC0 == 0x80) => return Ok(false),
                STRING if place.start == run.end => run.end = place.end,
                STRING if str::from_utf8(&bytes[run.clone()]).is_err() => return Ok(false),
                STRING => run = place,
                CONTAINER => containers.push(data),
                _ => (),
            }
        }
        if str::from_utf8(&bytes[run]).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Is the document a scalar, neither object nor array?
pub fn is_scalar(document: &[u8]) -> bool {
    word(document, 0).is_ok_and(|head| head & SCALAR != 0)
}

/// Is it an object or array with nothing in it?
pub fn is_empty(document: &[u8]) -> bool {
    word(document, 0).is_ok_and(|head| head & (SCALAR | COUNT_MASK) == 0)
}

const SCALAR: u32 = 0x1000_0000;
const COUNT_MASK: u32 = 0x0FFF_FFFF;
const OBJECT: u32 = 0x2000_0000;
const ARRAY: u32 = 0x4000_0000;

const LENGTH_MASK: u32 = 0x0FFF_FFFF;
const TYPE_MASK: u32 = 0x7000_0000;
const HAS_OFFSET: u32 = 0x8000_0000;

const STRING: u32 = 0x0000_0000;
const NUMERIC: u32 = 0x1000_0000;
const FALSE: u32 = 0x2000_0000;
const TRUE: u32 = 0x3000_0000;
const NULL: u32 = 0x4000_0000;
const CONTAINER: u32 = 0x5000_0000;

struct Walker<'a, F> {
    keys: Vec<&'a [u8]>,
    path: Vec<u8>,
    value: Vec<u8>,
    depth: usize,
    is_itself: bool,
    /// Scalars and empty containers that were visited.
    leaves: usize,
    falls_apart: bool,
    visit: F,
}

impl<'a, F> Walker<'a, F> {
    fn container<E: From<JsonbError>>(&mut self, bytes: &'a [u8]) -> Result<(), E>
    where
        F: FnMut(Leaf<'_>) -> Result<(), E>,
    {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(JsonbError::TooDeep.into());
        }
        let head = word(bytes, 0)?;
        let count = (head & COUNT_MASK) as usize;
        match head & (OBJECT | ARRAY) {
            OBJECT if count == 0 => self.leaf(Kind::EmptyObject, None)?,
            ARRAY if count == 0 => self.leaf(Kind::EmptyArray, None)?,
            OBJECT => self.object(bytes, count)?,
            ARRAY => self.array(bytes, count)?,
            _ => return Err(JsonbError::Malformed.into()),
        }
        self.depth -= 1;
        Ok(())
    }

    fn array<E: From<JsonbError>>(&mut self, bytes: &'a [u8], count: usize) -> Result<(), E>
    where
        F: FnMut(Leaf<'_>) -> Result<(), E>,
    {
        let mut entries = Entries::new(bytes, count)?;
        let parent = self.path.len();
        self.path.push(ELEMENT_STEP);
        for _ in 0..count {
            let (kind, data) = entries.next()?;
            let before = self.leaves;
            self.value(kind, data)?;
            self.falls_apart &= self.leaves == before + 1;
        }
        self.path.truncate(parent);
        Ok(())
    }

    /// All keys stand first, then all values in the same order.
    fn object<E: From<JsonbError>>(&mut self, bytes: &'a [u8], count: usize) -> Result<(), E>
    where
        F: FnMut(Leaf<'_>) -> Result<(), E>,
    {
        let mut keys = Entries::new(bytes, count * 2)?;
        let mut values = keys.skip(count)?;
        let parent = self.path.len();
        for _ in 0..count {
            let (STRING, key) = keys.next()? else { return Err(JsonbError::Malformed.into()) };
            self.path.try_reserve(key_bytes(key)).map_err(|_| JsonbError::from(OutOfMemory))?;
            push_key(&mut self.path, key);
            self.keys.push(key);
            let (kind, data) = values.next()?;
            self.value(kind, data)?;
            self.keys.pop();
            self.path.truncate(parent);
        }
        Ok(())
    }

    fn value<E: From<JsonbError>>(&mut self, kind: u32, data: &'a [u8]) -> Result<(), E>
    where
        F: FnMut(Leaf<'_>) -> Result<(), E>,
    {
        match kind {
            CONTAINER => self.container(data),
            STRING => self.leaf(Kind::String, Some(data)),
            NULL => self.leaf(Kind::Null, None),
            FALSE => self.leaf(Kind::False, None),
            TRUE => self.leaf(Kind::True, None),
            NUMERIC => {
                self.value.clear();
                number(numeric(data)?, &mut self.value).map_err(JsonbError::from)?;
                self.leaf(Kind::Number, None)
            }
            _ => Err(JsonbError::Malformed.into()),
        }
    }

    /// `borrowed` is a string's bytes; a number's stand in the scratch buffer, other scalars have none.
    fn leaf<E>(&mut self, kind: Kind, borrowed: Option<&[u8]>) -> Result<(), E>
    where
        F: FnMut(Leaf<'_>) -> Result<(), E>,
    {
        let value = match kind {
            Kind::Number => &self.value,
            _ => borrowed.unwrap_or_default(),
        };
        self.leaves += 1;
        self.falls_apart &= kind.is_scalar();
        (self.visit)(Leaf { keys: &self.keys, path: &self.path, kind, value, is_itself: self.is_itself })
    }
}

/// The JEntry array of a container: yields each child's type bits and bytes.
#[derive(Clone)]
struct Entries<'a> {
    bytes: &'a [u8],
    data: usize,
    next: usize,
    count: usize,
    offset: usize,
}

impl<'a> Entries<'a> {
    /// All children of a container, keys first.
    fn of(bytes: &'a [u8]) -> Result<Self, JsonbError> {
        let head = word(bytes, 0)?;
        let count = (head & COUNT_MASK) as usize;
        Self::new(bytes, if head & OBJECT == 0 { count } else { count * 2 })
    }

    fn new(bytes: &'a [u8], count: usize) -> Result<Self, JsonbError> {
        let data = 4 + count * 4;
        if bytes.len() < data {
            return Err(JsonbError::Malformed);
        }
        Ok(Entries { bytes, data, next: 0, count, offset: 0 })
    }

    /// A copy of this walk that starts `steps` children later.
    fn skip(&self, steps: usize) -> Result<Self, JsonbError> {
        let mut later = self.clone();
        for _ in 0..steps {
            later.next()?;
        }
        Ok(later)
    }

    fn next(&mut self) -> Result<(u32, &'a [u8]), JsonbError> {
        self.next_place().map(|(kind, place)| (kind, &self.bytes[place]))
    }

    /// The type bits of the next child, and where its bytes stand in the container.
    fn next_place(&mut self) -> Result<(u32, Range<usize>), JsonbError> {
        if self.next == self.count {
            return Err(JsonbError::Malformed);
        }
        let entry = word(self.bytes, 4 + self.next * 4)?;
        self.next += 1;
        let number = (entry & LENGTH_MASK) as usize;
        let end = if entry & HAS_OFFSET != 0 { number } else { self.offset + number };
        let kind = entry & TYPE_MASK;
        // Numerics and containers start on a multiple of four; the padding counts into their length.
        let start = match kind {
            NUMERIC | CONTAINER => self.offset.next_multiple_of(4),
            _ => self.offset,
        };
        self.offset = end;
        let place = self.data + start..self.data + end;
        let is_inside = place.start <= place.end && place.end <= self.bytes.len();
        is_inside.then_some((kind, place)).ok_or(JsonbError::Malformed)
    }
}

/// A numeric without its length word, which must say four bytes of header and the length there is.
fn numeric(data: &[u8]) -> Result<&[u8], JsonbError> {
    let (head, stored) = data.split_first_chunk::<4>().ok_or(JsonbError::Malformed)?;
    let is_whole = u32::from_le_bytes(*head) as usize == data.len() << 2;
    if is_whole { Ok(stored) } else { Err(JsonbError::Malformed) }
}

fn word(bytes: &[u8], at: usize) -> Result<u32, JsonbError> {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    word.map(|word| u32::from_le_bytes(*word)).ok_or(JsonbError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `{"a": [1, "x"], "b": null}` as PostgreSQL 15 stores it.
    const SAMPLE: &str =
        "020000200100008001000000200000500000004061620000020000400a0000100100000020000000008001007800";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|i| u8::from_str_radix(&text[i * 2..i * 2 + 2], 16).unwrap()).collect()
    }

    fn leaves(document: &[u8]) -> Result<usize, JsonbError> {
        let mut count = 0;
        walk(document, |_| {
            count += 1;
            Ok(())
        })
        .map(|()| count)
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = leaves(&bytes);
            let _ = all_strings(&bytes, |_| true);
            let _ = is_utf8(&bytes);
        }

        #[test]
        fn utf8_side_by_side_is_utf8_one_by_one(parts in proptest::collection::vec(part(), 0..8)) {
            let document = array(&parts);
            prop_assert_eq!(is_utf8(&document), all_strings(&document, |text| str::from_utf8(text).is_ok()));
        }

        #[test]
        fn a_flipped_byte_never_panics(at in 0usize..44, value in any::<u8>()) {
            let mut bytes = hex(SAMPLE);
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = leaves(&bytes);
        }
    }

    /// Type bits and bytes of an array's element: characters, pieces of some, and what stands between strings.
    fn part() -> impl Strategy<Value = (u32, &'static [u8])> {
        let pieces = ["a", "é", "€", "𝄞"].map(str::as_bytes);
        let text = (0..pieces.len(), 0..5_usize, 0..5_usize).prop_map(move |(of, from, to)| {
            let piece = pieces[of];
            (STRING, &piece[from.min(to).min(piece.len())..from.max(to).min(piece.len())])
        });
        prop_oneof![8 => text, 1 => Just((NULL, &[][..])), 1 => Just((NUMERIC, &[0xFF; 8][..]))]
    }

    fn array(parts: &[(u32, &[u8])]) -> Vec<u8> {
        let (mut heads, mut data) = ((ARRAY | parts.len() as u32).to_le_bytes().to_vec(), Vec::new());
        for (kind, bytes) in parts {
            let start = data.len();
            if *kind == NUMERIC {
                data.resize(start.next_multiple_of(4), 0);
            }
            data.extend_from_slice(bytes);
            heads.extend((kind | (data.len() - start) as u32).to_le_bytes());
        }
        [heads, data].concat()
    }

    #[test]
    fn halves_of_a_character_are_no_two_strings() {
        let [first, second] = [&"é".as_bytes()[..1], &"é".as_bytes()[1..]];
        assert_eq!(is_utf8(&array(&[(STRING, first), (STRING, second)])), Ok(false));
        assert_eq!(is_utf8(&array(&[(STRING, "é".as_bytes()), (STRING, b""), (STRING, b"x")])), Ok(true));
    }

    #[test]
    fn empty_containers_have_no_leaves() {
        assert_eq!(leaves(&OBJECT.to_le_bytes()), Ok(0));
        assert_eq!(leaves(&ARRAY.to_le_bytes()), Ok(0));
    }

    #[test]
    fn every_key_and_string_is_tested_however_deep() {
        let head = [OBJECT | 1, STRING | 1, STRING | 2].map(u32::to_le_bytes).concat();
        let object = [&head, &b"kvw"[..]].concat();
        let deep = (0..2 * MAX_DEPTH).fold(object, |inner, _| {
            let head = [ARRAY | 1, CONTAINER | inner.len() as u32].map(u32::to_le_bytes);
            [head.concat(), inner].concat()
        });
        let without = |unwanted: &'static [u8]| all_strings(&deep, move |text| text != unwanted);
        assert_eq!(without(b"v"), Ok(true));
        for unwanted in [&b"k"[..], b"vw"] {
            assert_eq!(without(unwanted), Ok(false));
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let mut bytes = ARRAY.to_le_bytes().to_vec();
        for _ in 0..MAX_DEPTH {
            let mut outer = (ARRAY | 1).to_le_bytes().to_vec();
            outer.extend((CONTAINER | bytes.len() as u32).to_le_bytes());
            outer.extend(bytes);
            bytes = outer;
        }
        assert_eq!(leaves(&bytes), Err(JsonbError::TooDeep));
    }
}

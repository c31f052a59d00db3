//! The query side: a filter says which tokens a row must have and holds the sealed query for the recheck.
//!
//! A filter is a conjunction of groups; a row passes when it has one GIN key (token or marker) of each.
//! Passing is necessary, and not sufficient. Where the groups are all that is asked, a row with a token of each that decides is
//! an answer. A filter lives in plans and in memory, and is never stored:
//!
//! ```text
//! off len                                   all integers big-endian
//! 0   4   format 2, suite 1, flags (bit0 session keyring, bit1 every keyring, bit2 no match is NULL,
//!         bit3 an empty list, bit4 every object or every array, bit5 tokens decide), content 5
//! 4   4   keyring id
//! 8   2   index key version that sealed the query
//! 10  2   newest index key version known when it was made
//! 12  2   number of groups
//! 14  1   what the query is; 15: zero
//! 16  ..  per group: number of keys (u16), the keys ascending (u64 each); where tokens decide, number of
//!         those (u16), ascending (16 bytes each)
//! ..  16  nonce, then ciphertext and 16 bytes of tag
//! ```
//! The nonce depends on key and query only, so that equal filters are equal() to the planner.

use zeroize::Zeroizing;

use super::Uuid;
use super::aead::{COMPACT_NONCE_BYTES, TAG_BYTES, expand_nonce};
use super::bytes::{Reader, joined};
use super::envelope::OpenError;
use super::groups::{Group, Groups};
use super::header::{FormatError, HEADER_BYTES, KEY_BYTES, SUITE, TOKEN_BYTES};
use super::kdf::IndexKey;
use super::memory::{self, OutOfMemory};
use super::question::{Question, QuestionKind};

/// Content code of a filter.
pub const CONTENT: u8 = 5;
/// First byte of a filter; that of 0.2.0 was 1.
const FORMAT: u8 = 2;
const SESSION: u8 = 1 << 0;
const EVERY_KEYRING: u8 = 1 << 1;
const NULLS: u8 = 1 << 2;
const EMPTY: u8 = 1 << 3;
const CONTAINERS: u8 = 1 << 4;
const DECIDES: u8 = 1 << 5;
const FLAGS: u8 = SESSION | EVERY_KEYRING | NULLS | EMPTY | CONTAINERS | DECIDES;
/// Keys that one search through the index looks for, at most: for each row that it finds GIN looks at all of them several
/// times, and to begin another search costs as much as some of that.
const PART_KEYS: usize = 16;
const AAD_LABEL: &[u8] = b"pgseal/v1/aad/filter";
const NONCE_DOMAIN: &[u8] = b"filter";

const IDENTITY_BYTES: usize = HEADER_BYTES + COMPACT_NONCE_BYTES + TAG_BYTES;
/// See [`Filter::identity`].
pub type Identity = [u8; IDENTITY_BYTES];

/// Who chose the keyring of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// The column or the caller: final.
    Fixed,
    /// The session's setting, or the only keyring there was: looked at again in every execution.
    Session,
}

/// A filter whose structure has been checked.
#[derive(Clone, Copy)]
pub struct Filter<'a> {
    bytes: &'a [u8],
    kind: QuestionKind,
    sealed_start: usize,
}

/// Everything that goes into a filter beside the question.
pub struct Parts<'a> {
    /// Keyring id, positive.
    pub keyring: i32,
    /// Who chose it.
    pub binding: Binding,
    /// Version of the index key that seals the question.
    pub sealed_by: u16,
    /// Newest index key version known.
    pub newest_index: u16,
    /// What it narrows by.
    pub groups: &'a Groups,
}

/// Makes the bytes of a filter. An equal question with equal parts gives equal bytes.
pub fn seal<D: AsRef<[u8]>>(
    key: &IndexKey,
    uuid: &Uuid,
    question: &Question<D>,
    parts: &Parts<'_>,
) -> Result<Vec<u8>, OpenError> {
    let mut flags = if parts.binding == Binding::Session { SESSION } else { 0 };
    flags |= if question.has_nulls() { NULLS } else { 0 };
    flags |= if question.is_empty_list() { EMPTY } else { 0 };
    flags |= if question.is_of_every_container() { CONTAINERS } else { 0 };
    flags |= if parts.groups.decide() { DECIDES } else { 0 };
    let mut body = question.encode()?;
    let size = |group: &Group| 4 + KEY_BYTES * group.keys.len() + TOKEN_BYTES * group.deciding.len();
    let sealed = COMPACT_NONCE_BYTES + body.len() + TAG_BYTES;
    let mut out = memory::room(HEADER_BYTES + parts.groups.all.iter().map(size).sum::<usize>() + sealed)?;
    out.extend_from_slice(&[FORMAT, SUITE, flags, CONTENT]);
    out.extend_from_slice(&parts.keyring.to_be_bytes());
    for number in [parts.sealed_by, parts.newest_index, parts.groups.all.len() as u16] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&[question.kind() as u8, 0]);
    for group in &parts.groups.all {
        out.extend_from_slice(&(group.keys.len() as u16).to_be_bytes());
        out.extend(group.keys.iter().flat_map(|key| key.to_be_bytes()));
        if parts.groups.decide() {
            out.extend_from_slice(&(group.deciding.len() as u16).to_be_bytes());
            out.extend(group.deciding.iter().flat_map(|token| token.to_be_bytes()));
        }
    }
    let aad = aad(parts.keyring, parts.sealed_by, question.kind(), uuid);
    let nonce = key.synthetic_nonce(NONCE_DOMAIN, &aad, &body);
    out.extend_from_slice(&nonce);
    let tag = key.filter.seal(&expand_nonce(&nonce), &aad, &mut body)?;
    out.extend_from_slice(&body);
    out.extend_from_slice(&tag);
    Ok(out)
}

impl<'a> Filter<'a> {
    /// Checks the structure. Total: never panics.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let head: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(FormatError::Truncated)?;
        if head[..2] != [FORMAT, SUITE] {
            return Err(FormatError::UnknownFormat);
        }
        if head[3] != CONTENT {
            return Err(FormatError::UnknownContent);
        }
        if head[2] & !FLAGS != 0 || head[15] != 0 {
            return Err(FormatError::Reserved);
        }
        let kind = QuestionKind::try_from(head[14]).map_err(|_| FormatError::Reserved)?;
        let count = u16::from_be_bytes([head[12], head[13]]);
        let sealed_start = groups_end(bytes, count.into(), head[2] & DECIDES != 0)?;
        if bytes.len() < sealed_start + COMPACT_NONCE_BYTES + TAG_BYTES {
            return Err(FormatError::Truncated);
        }
        Ok(Filter { bytes, kind, sealed_start })
    }

    /// The keyring whose key sealed the query, and whose rows pass unless [`Filter::every_keyring`].
    pub fn keyring(&self) -> i32 {
        i32::from_be_bytes([self.bytes[4], self.bytes[5], self.bytes[6], self.bytes[7]])
    }

    /// Version of the index key that sealed the query.
    pub fn sealed_by(&self) -> u16 {
        u16::from_be_bytes([self.bytes[8], self.bytes[9]])
    }

    /// Newest index key version known when the filter was made.
    pub fn newest_index(&self) -> u16 {
        u16::from_be_bytes([self.bytes[10], self.bytes[11]])
    }

    /// What it asks.
    pub fn kind(&self) -> QuestionKind {
        self.kind
    }

    /// Who chose the keyring.
    pub fn binding(&self) -> Binding {
        if self.bytes[2] & SESSION != 0 { Binding::Session } else { Binding::Fixed }
    }

    /// Values of every keyring are compared, each with its own key; the filter then has no groups.
    pub fn every_keyring(&self) -> bool {
        self.bytes[2] & EVERY_KEYRING != 0
    }

    /// Not to match is NULL.
    pub fn has_nulls(&self) -> bool {
        self.bytes[2] & NULLS != 0
    }

    /// It asks for one of nothing: no, whatever is asked.
    pub fn is_empty_list(&self) -> bool {
        self.bytes[2] & EMPTY != 0
    }

    /// Every object, or every array, contains what it asks for.
    pub fn is_of_every_container(&self) -> bool {
        self.bytes[2] & CONTAINERS != 0
    }

    /// The groups of keys.
    pub fn groups(&self) -> impl Iterator<Item = impl ExactSizeIterator<Item = u64> + 'a> + 'a {
        self.groups_with_tokens().map(|(keys, _)| keys.iter().map(|key| u64::from_be_bytes(*key)))
    }

    fn groups_with_tokens(&self) -> impl Iterator<Item = GroupBytes<'a>> + 'a {
        let mut reader = Reader::new(&self.bytes[HEADER_BYTES..self.sealed_start]);
        let decides = self.decides();
        std::iter::from_fn(move || group_in(&mut reader, decides))
    }

    /// A row with a token of each group that decides is an answer.
    pub fn decides(&self) -> bool {
        self.bytes[2] & DECIDES != 0
    }

    /// Number of groups.
    pub fn group_count(&self) -> usize {
        u16::from_be_bytes([self.bytes[12], self.bytes[13]]).into()
    }

    /// The same query for values of every keyring: no groups.
    pub fn for_every_keyring(&self) -> Result<Vec<u8>, OutOfMemory> {
        let mut out = memory::room(HEADER_BYTES + self.bytes.len() - self.sealed_start)?;
        out.extend_from_slice(&self.bytes[..HEADER_BYTES]);
        out[2] = out[2] & !DECIDES | EVERY_KEYRING;
        out[12..14].fill(0);
        out.extend_from_slice(&self.bytes[self.sealed_start..]);
        Ok(out)
    }

    /// Says which question it is, whatever it narrows by: its header, and nonce and tag of the sealed question.
    pub fn identity(&self) -> Identity {
        let mut identity = [0; IDENTITY_BYTES];
        let (header, sealed) = identity.split_at_mut(HEADER_BYTES);
        let (nonce, tag) = sealed.split_at_mut(COMPACT_NONCE_BYTES);
        header.copy_from_slice(&self.bytes[..HEADER_BYTES]);
        nonce.copy_from_slice(&self.bytes[self.sealed_start..][..COMPACT_NONCE_BYTES]);
        tag.copy_from_slice(&self.bytes[self.bytes.len() - TAG_BYTES..]);
        identity
    }

    /// More keys stand for one condition than a search through the index should look for at once.
    pub fn is_long(&self) -> bool {
        self.group_count() == 1 && self.groups().any(|group| group.len() > PART_KEYS)
    }

    /// Filters of which one lets a value through where this one does: of one group of keys, some each. Without the question.
    pub fn parts(&self) -> Result<Vec<Vec<u8>>, OutOfMemory> {
        let Some((keys, _)) = self.groups_with_tokens().next().filter(|_| self.is_long()) else {
            return Ok(vec![self.part(self.bytes[2], &[&self.bytes[HEADER_BYTES..self.sealed_start]])?]);
        };
        let parts = keys.len().div_ceil(PART_KEYS);
        memory::try_collect(keys.chunks(keys.len().div_ceil(parts)).map(|keys| {
            let count = (keys.len() as u16).to_be_bytes();
            self.part(self.bytes[2] & !DECIDES, &[&count, keys.as_flattened()])
        }))
    }

    /// The same header but for its flags, these groups, and nothing that opens.
    fn part(&self, flags: u8, groups: &[&[u8]]) -> Result<Vec<u8>, OutOfMemory> {
        let length: usize = groups.iter().map(|bytes| bytes.len()).sum();
        let mut out = memory::zeroed(HEADER_BYTES + length + COMPACT_NONCE_BYTES + TAG_BYTES)?;
        out[..HEADER_BYTES].copy_from_slice(&self.bytes[..HEADER_BYTES]);
        out[2] = flags;
        let mut rest = &mut out[HEADER_BYTES..];
        for bytes in groups {
            let (room, behind) = rest.split_at_mut(bytes.len());
            room.copy_from_slice(bytes);
            rest = behind;
        }
        Ok(out)
    }

    /// Decrypts the question, for [`Question::decode`].
    pub fn open(&self, key: &IndexKey, uuid: &Uuid) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let body_start = self.sealed_start + COMPACT_NONCE_BYTES;
        let (Some(nonce), Some((body, tag))) = (
            self.bytes[self.sealed_start..].first_chunk(),
            self.bytes[body_start..].split_last_chunk::<TAG_BYTES>(),
        ) else {
            return Err(OpenError::Authentication);
        };
        let aad = aad(self.keyring(), self.sealed_by(), self.kind, uuid);
        let mut query = Zeroizing::new(memory::zeroed(body.len())?);
        key.filter.open(&expand_nonce(nonce), &aad, body, tag, &mut query)?;
        Ok(query)
    }

    /// Does a value with these tokens and this marker pass every group? Bytes only, no key.
    pub fn admits(&self, marker: u64, has_token: impl Fn(u64) -> bool) -> bool {
        self.groups().all(|mut group| group.any(|key| key == marker || has_token(key)))
    }

    /// Is a value of the filter's keyring with these tokens, which are those of format 2, an answer? If the index key vouches
    /// for them. Markers never decide, and no groups do not.
    pub fn is_decided_by(&self, tokens: &[u8]) -> bool {
        let tokens = tokens.as_chunks::<TOKEN_BYTES>().0;
        // The shorter list is searched for in the longer one.
        let meets = |(_, deciding): GroupBytes<'_>| {
            let (few, many) =
                if deciding.len() <= tokens.len() { (deciding, tokens) } else { (tokens, deciding) };
            few.iter().any(|token| many.binary_search(token).is_ok())
        };
        self.decides() && self.group_count() > 0 && self.groups_with_tokens().all(meets)
    }
}

/// The keys of a group, and its tokens that decide.
type GroupBytes<'a> = (&'a [[u8; KEY_BYTES]], &'a [[u8; TOKEN_BYTES]]);

/// The group that comes next.
fn group_in<'a>(reader: &mut Reader<'a>, decides: bool) -> Option<GroupBytes<'a>> {
    let keys = counted(reader)?;
    let deciding = if decides { counted(reader)? } else { &[] };
    Some((keys, deciding))
}

fn counted<'a, const N: usize>(reader: &mut Reader<'a>) -> Option<&'a [[u8; N]]> {
    let count = usize::from(reader.u16()?);
    Some(reader.take(N * count)?.as_chunks().0)
}

/// Where the groups end; there is a whole header.
fn groups_end(bytes: &[u8], count: usize, decides: bool) -> Result<usize, FormatError> {
    let mut reader = Reader::new(&bytes[HEADER_BYTES..]);
    for _ in 0..count {
        group_in(&mut reader, decides).ok_or(FormatError::Truncated)?;
    }
    Ok(bytes.len() - reader.rest().len())
}

/// Groups and flags stay outside: they are refreshed without sealing the query again.
fn aad(keyring: i32, sealed_by: u16, kind: QuestionKind, uuid: &Uuid) -> Vec<u8> {
    let numbers = [&keyring.to_be_bytes()[..], &sealed_by.to_be_bytes(), &[kind as u8]].concat();
    joined(&[AAD_LABEL, uuid, &numbers])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::*;
    use crate::core::secret::Secret;

    /// A filter of groups of so many keys, each with a token that decides.
    fn made(sizes: &[u64], decide: bool) -> Vec<u8> {
        let keys = |size: u64| (0..size).map(|at| at * 3 + (1 << 63)).collect::<Vec<_>>();
        let group = |size: &u64| Group {
            keys: keys(*size),
            deciding: keys(*size).into_iter().map(|key| u128::from(key) << 64).collect(),
        };
        let groups = Groups::new(sizes.iter().map(group).collect(), decide);
        let key = IndexKey::derive(&Secret::take(&mut [7; 32]), &[3; 16], None).unwrap();
        let parts =
            Parts { keyring: 5, binding: Binding::Fixed, sealed_by: 1, newest_index: 2, groups: &groups };
        seal(&key, &[3; 16], &Question::Contains(b"document"), &parts).unwrap()
    }

    fn groups_of(filter: &[u8]) -> Vec<Vec<u64>> {
        Filter::parse(filter).unwrap().groups().map(Iterator::collect).collect()
    }

    #[test]
    fn parts_have_all_keys_of_a_long_group_once() {
        for (length, decide) in [(1, true), (16, true), (17, true), (33, false), (1000, true), (8192, false)]
        {
            let bytes = made(&[length], decide);
            let filter = Filter::parse(&bytes).unwrap();
            assert_eq!((filter.is_long(), filter.decides()), (length > 16, decide));
            let parts = filter.parts().unwrap();
            assert_eq!(parts.len() as u64, length.div_ceil(16));
            let found = parts.iter().flat_map(|bytes| {
                let part = Filter::parse(bytes).unwrap();
                assert_eq!((part.keyring(), part.newest_index(), part.group_count()), (5, 2, 1));
                assert!(!part.is_long());
                groups_of(bytes).concat()
            });
            assert_eq!(found.collect::<Vec<_>>(), groups_of(&bytes).concat());
        }
    }

    #[test]
    fn other_filters_are_one_part_with_the_same_groups() {
        for sizes in [&[][..], &[1, 2], &[40, 40]] {
            for decide in [false, true] {
                let bytes = made(sizes, decide);
                let [part] =
                    <[Vec<u8>; 1]>::try_from(Filter::parse(&bytes).unwrap().parts().unwrap()).unwrap();
                assert_eq!(groups_of(&part), groups_of(&bytes));
                assert!(part.len() <= bytes.len());
            }
        }
    }
}

//! The query side: a filter says which tokens a row must have and holds the sealed query for the recheck.
//!
//! A filter is a conjunction of groups; a row passes when it has one GIN key (token or marker) of each.
//! Passing is necessary, never sufficient. A filter lives in plans and in memory, and is never stored:
//!
//! ```text
//! off len                                   all integers big-endian
//! 0   4   format 1, suite 1, flags (bit0 session keyring, bit1 every keyring, bit2 no match is NULL,
//!         bit3 an empty list, bit4 every object or every array), content 5
//! 4   4   keyring id
//! 8   2   data key version that sealed the query
//! 10  2   newest index key version known when it was made
//! 12  2   number of groups
//! 14  1   what the query is; 15: zero
//! 16  ..  per group: number of keys (u16), the keys ascending (u64 each)
//! ..  16  nonce, then ciphertext and 16 bytes of tag
//! ```
//! The nonce depends on key and query only, so that equal filters are equal() to the planner.

use zeroize::Zeroizing;

use super::Uuid;
use super::aead::{COMPACT_NONCE_BYTES, TAG_BYTES, expand_nonce};
use super::bytes::{Reader, joined};
use super::envelope::OpenError;
use super::groups::Groups;
use super::header::{FORMAT, FormatError, HEADER_BYTES, SUITE, TOKEN_BYTES, tokens_of};
use super::kdf::DataKey;
use super::memory::{self, OutOfMemory};
use super::question::{Question, QuestionKind};

/// Content code of a filter.
pub const CONTENT: u8 = 5;
const SESSION: u8 = 1 << 0;
const EVERY_KEYRING: u8 = 1 << 1;
const NULLS: u8 = 1 << 2;
const EMPTY: u8 = 1 << 3;
const CONTAINERS: u8 = 1 << 4;
/// Keys that one search through the index looks for, at most: for each row that it finds GIN looks at all of them several
/// times, and to begin another search costs as much as some of that.
const PART_KEYS: usize = 16;
/// Bytes before the keys of a group.
const GROUP_HEAD_BYTES: usize = 2;
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
    /// Version of the data key that seals the question.
    pub data_version: u16,
    /// Newest index key version known.
    pub index_version: u16,
    /// What it narrows by.
    pub groups: &'a Groups,
}

/// Makes the bytes of a filter. An equal question with equal parts gives equal bytes.
pub fn seal<D: AsRef<[u8]>>(
    key: &DataKey,
    uuid: &Uuid,
    question: &Question<D>,
    parts: &Parts<'_>,
) -> Result<Vec<u8>, OpenError> {
    let mut flags = if parts.binding == Binding::Session { SESSION } else { 0 };
    flags |= if question.has_nulls() { NULLS } else { 0 };
    flags |= if question.is_empty_list() { EMPTY } else { 0 };
    flags |= if question.is_of_every_container() { CONTAINERS } else { 0 };
    let mut body = question.encode()?;
    let groups: usize = parts.groups.iter().map(|group| GROUP_HEAD_BYTES + TOKEN_BYTES * group.len()).sum();
    let sealed = COMPACT_NONCE_BYTES + body.len() + TAG_BYTES;
    let mut out = memory::room(HEADER_BYTES + groups + sealed)?;
    out.extend_from_slice(&[FORMAT, SUITE, flags, CONTENT]);
    out.extend_from_slice(&parts.keyring.to_be_bytes());
    for number in [parts.data_version, parts.index_version, parts.groups.len() as u16] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&[question.kind() as u8, 0]);
    for group in parts.groups {
        out.extend_from_slice(&(group.len() as u16).to_be_bytes());
        out.extend(group.iter().flat_map(|key| key.to_be_bytes()));
    }
    let aad = aad(parts.keyring, parts.data_version, question.kind(), uuid);
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
        if head[2] & !(SESSION | EVERY_KEYRING | NULLS | EMPTY | CONTAINERS) != 0 || head[15] != 0 {
            return Err(FormatError::Reserved);
        }
        let kind = QuestionKind::try_from(head[14]).map_err(|_| FormatError::Reserved)?;
        let count = u16::from_be_bytes([head[12], head[13]]);
        let sealed_start = groups_end(bytes, count.into())?;
        if bytes.len() < sealed_start + COMPACT_NONCE_BYTES + TAG_BYTES {
            return Err(FormatError::Truncated);
        }
        Ok(Filter { bytes, kind, sealed_start })
    }

    /// The keyring whose key sealed the query, and whose rows pass unless [`Filter::every_keyring`].
    pub fn keyring(&self) -> i32 {
        i32::from_be_bytes([self.bytes[4], self.bytes[5], self.bytes[6], self.bytes[7]])
    }

    /// Version of the data key that sealed the query.
    pub fn data_version(&self) -> u16 {
        u16::from_be_bytes([self.bytes[8], self.bytes[9]])
    }

    /// Newest index key version known when the filter was made.
    pub fn index_version(&self) -> u16 {
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
        let mut reader = Reader::new(&self.bytes[HEADER_BYTES..self.sealed_start]);
        std::iter::from_fn(move || group_in(&mut reader).map(tokens_of))
    }

    /// Number of groups.
    pub fn group_count(&self) -> usize {
        u16::from_be_bytes([self.bytes[12], self.bytes[13]]).into()
    }

    /// The same query for values of every keyring: no groups.
    pub fn for_every_keyring(&self) -> Result<Vec<u8>, OutOfMemory> {
        let mut out = memory::room(HEADER_BYTES + self.bytes.len() - self.sealed_start)?;
        out.extend_from_slice(&self.bytes[..HEADER_BYTES]);
        out[2] |= EVERY_KEYRING;
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
        let keys = &self.bytes[HEADER_BYTES..self.sealed_start];
        let (count, long) = keys.split_at(keys.len().min(GROUP_HEAD_BYTES));
        if !self.is_long() {
            return Ok(vec![self.part(&[count, long])?]);
        }
        let parts = (long.len() / TOKEN_BYTES).div_ceil(PART_KEYS);
        let of_part = (long.len() / TOKEN_BYTES).div_ceil(parts);
        let chunks = long.chunks(of_part * TOKEN_BYTES);
        memory::try_collect(chunks.map(|keys| {
            let count = (keys.len() / TOKEN_BYTES) as u16;
            self.part(&[&count.to_be_bytes(), keys])
        }))
    }

    /// The same header, these groups, and nothing that opens.
    fn part(&self, groups: &[&[u8]]) -> Result<Vec<u8>, OutOfMemory> {
        let length: usize = groups.iter().map(|bytes| bytes.len()).sum();
        let mut out = memory::zeroed(HEADER_BYTES + length + COMPACT_NONCE_BYTES + TAG_BYTES)?;
        out[..HEADER_BYTES].copy_from_slice(&self.bytes[..HEADER_BYTES]);
        let mut rest = &mut out[HEADER_BYTES..];
        for bytes in groups {
            let (room, behind) = rest.split_at_mut(bytes.len());
            room.copy_from_slice(bytes);
            rest = behind;
        }
        Ok(out)
    }

    /// Decrypts the question, for [`Question::decode`].
    pub fn open(&self, key: &DataKey, uuid: &Uuid) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let body_start = self.sealed_start + COMPACT_NONCE_BYTES;
        let (Some(nonce), Some((body, tag))) = (
            self.bytes[self.sealed_start..].first_chunk(),
            self.bytes[body_start..].split_last_chunk::<TAG_BYTES>(),
        ) else {
            return Err(OpenError::Authentication);
        };
        let aad = aad(self.keyring(), self.data_version(), self.kind, uuid);
        let mut query = Zeroizing::new(memory::zeroed(body.len())?);
        key.filter.open(&expand_nonce(nonce), &aad, body, tag, &mut query)?;
        Ok(query)
    }

    /// Does a value with these tokens and this marker pass every group? Bytes only, no key.
    pub fn admits(&self, marker: u64, has_token: impl Fn(u64) -> bool) -> bool {
        self.groups().all(|mut group| group.any(|key| key == marker || has_token(key)))
    }
}

/// The keys of the group that comes next.
fn group_in<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let count = reader.u16()?;
    reader.take(TOKEN_BYTES * usize::from(count))
}

/// Where the groups end; there is a whole header.
fn groups_end(bytes: &[u8], count: usize) -> Result<usize, FormatError> {
    let mut reader = Reader::new(&bytes[HEADER_BYTES..]);
    for _ in 0..count {
        group_in(&mut reader).ok_or(FormatError::Truncated)?;
    }
    Ok(bytes.len() - reader.rest().len())
}

/// Groups and flags stay outside: they are refreshed without sealing the query again.
fn aad(keyring: i32, data_version: u16, kind: QuestionKind, uuid: &Uuid) -> Vec<u8> {
    let numbers = [&keyring.to_be_bytes()[..], &data_version.to_be_bytes(), &[kind as u8]].concat();
    joined(&[AAD_LABEL, uuid, &numbers])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::*;
    use crate::core::secret::Secret;

    fn made(groups: &Groups) -> Vec<u8> {
        let key = DataKey::derive(&Secret::take(&mut [7; 32]), &[3; 16], None).unwrap();
        let parts = Parts { keyring: 5, binding: Binding::Fixed, data_version: 1, index_version: 2, groups };
        seal(&key, &[3; 16], &Question::Contains(b"document"), &parts).unwrap()
    }

    #[test]
    fn parts_have_all_keys_of_a_long_group_once() {
        for length in [1, 16, 17, 33, 1000, 8192] {
            let keys: Vec<u64> = (0..length).map(|at| at * 3 + (1 << 63)).collect();
            let bytes = made(&vec![keys.clone()]);
            let filter = Filter::parse(&bytes).unwrap();
            assert_eq!(filter.is_long(), length > 16);
            let parts = filter.parts().unwrap();
            assert_eq!(parts.len() as u64, length.div_ceil(16));
            let found = parts.iter().flat_map(|part| {
                let part = Filter::parse(part).unwrap();
                assert_eq!((part.keyring(), part.index_version(), part.group_count()), (5, 2, 1));
                assert!(!part.is_long());
                part.groups().flatten().collect::<Vec<_>>()
            });
            assert_eq!(found.collect::<Vec<_>>(), keys);
        }
    }

    #[test]
    fn other_filters_are_one_part_with_the_same_groups() {
        let long: Vec<u64> = (0..40).collect();
        for groups in [Groups::new(), vec![vec![1], vec![2, 3]], vec![long.clone(), long]] {
            let bytes = made(&groups);
            let [part] = <[Vec<u8>; 1]>::try_from(Filter::parse(&bytes).unwrap().parts().unwrap()).unwrap();
            let found: Vec<Vec<u64>> =
                Filter::parse(&part).unwrap().groups().map(Iterator::collect).collect();
            assert_eq!(found, groups);
            assert!(part.len() <= bytes.len());
        }
    }
}

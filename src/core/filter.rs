//! The query side: a filter says which tokens a row must have and holds the sealed query for the recheck.
//!
//! A filter is a conjunction of groups; a row passes when it has one GIN key (token or marker) of each.
//! Passing is necessary, never sufficient. A filter lives in plans and in memory, and is never stored:
//!
//! ```text
//! off len                                   all integers big-endian
//! 0   4   format 1, suite 1, flags (bit0 session keyring, bit1 every keyring, bit2 no match is NULL), content 5
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
use super::between::Between;
use super::bytes::{Reader, joined, prefixed_bytes, put_prefixed};
use super::envelope::OpenError;
use super::header::{FORMAT, FormatError, HEADER_BYTES, SUITE, TOKEN_BYTES, tokens_of};
use super::kdf::DataKey;
use super::memory::{self, OutOfMemory};
use super::token::{MAX_LEAVES, QueryLeaf, Tokenizer, marker};

/// Content code of a filter.
pub const CONTENT: u8 = 5;
/// Conditions that one filter narrows by, at most; the recheck answers the rest.
pub const MAX_GROUPS: usize = MAX_LEAVES;
/// Documents of one "contains one of these" that it narrows by, at most.
pub const MAX_ALTERNATIVES: usize = 16 * MAX_KEYS;
/// Keys over all groups, at most.
pub const MAX_KEYS: usize = 1024;

const SESSION: u8 = 1 << 0;
const EVERY_KEYRING: u8 = 1 << 1;
const NULLS: u8 = 1 << 2;
const AAD_LABEL: &[u8] = b"pgseal/v1/aad/filter";
const NONCE_DOMAIN: &[u8] = b"filter";

/// What the sealed query is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Query {
    /// One jsonb document that the value must contain.
    Contains = 1,
    /// Several documents, each after its length (u32); the value must contain one of them. An empty one is NULL.
    ContainsAny = 2,
    /// A [`super::text_query::TextQuery`].
    Text = 3,
    /// One jsonb document that the value must contain, strings compared without looking at case.
    Casefold = 4,
    /// A [`super::between::Between`].
    Between = 5,
}

/// Who chose the keyring of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// The column or the caller: final.
    Fixed,
    /// The session's setting, or the only keyring there was: looked at again in every execution.
    Session,
}

/// One index key version as a query sees it.
pub struct QueryVersion<'a> {
    /// Version number, from 1.
    pub version: u16,
    /// Its key and policy; `None` for a version that no longer makes tokens.
    pub tokenizer: Option<Tokenizer<'a>>,
}

/// Groups of keys, each ascending.
pub type Groups = Vec<Vec<u64>>;

/// A filter whose structure has been checked.
#[derive(Clone, Copy)]
pub struct Filter<'a> {
    bytes: &'a [u8],
    query: Query,
    sealed_start: usize,
}

/// The groups for the leaves of one query under every index key version of a keyring.
///
/// A version whose policy leaves a path out answers with its marker, as do version 0 (not tokenised) and
/// the version after the newest (made by a rotation that this session has not seen yet): never fewer rows.
pub fn groups(keyring: i32, versions: &[QueryVersion<'_>], leaves: &[QueryLeaf]) -> Groups {
    let mut groups = Groups::new();
    let mut keys = 0;
    for leaf in leaves {
        let Some(group) = group(keyring, versions, std::slice::from_ref(leaf)) else { continue };
        // Leaving a group out only widens the filter.
        if keys + group.len() <= MAX_KEYS && groups.len() < MAX_GROUPS {
            keys += group.len();
            groups.push(group);
        }
    }
    groups.sort_unstable();
    groups
}

/// The one group for "contains one of these": every alternative gives the keys of its narrowest leaf.
pub fn any_group(keyring: i32, versions: &[QueryVersion<'_>], alternatives: &[Vec<QueryLeaf>]) -> Groups {
    let mut union = Vec::new();
    for leaves in alternatives {
        let groups = leaves.iter().filter_map(|leaf| group(keyring, versions, std::slice::from_ref(leaf)));
        let narrowest = groups.min_by_key(Vec::len);
        match narrowest {
            Some(keys) => union.extend(keys),
            None => return Groups::new(),
        }
    }
    union.sort_unstable();
    union.dedup();
    match union.len() > MAX_KEYS {
        true => Groups::new(),
        false => vec![union],
    }
}

/// The one group for "holds one of these scalars", or none.
pub fn leaf_group(keyring: i32, versions: &[QueryVersion<'_>], alternatives: &[QueryLeaf]) -> Groups {
    group(keyring, versions, alternatives).filter(|keys| keys.len() <= MAX_KEYS).into_iter().collect()
}

/// The one group for "holds a number or time between these bounds", or none.
pub fn range_group(keyring: i32, versions: &[QueryVersion<'_>], between: &Between) -> Groups {
    let tokens = |version: &QueryVersion<'_>| {
        version.tokenizer.as_ref()?.query_range(&between.keys(), between.bounds())
    };
    group_of(keyring, versions, tokens).filter(|keys| keys.len() <= MAX_KEYS).into_iter().collect()
}

/// The keys of which a value that holds one of `leaves` has one. `None` when no version covers them all:
/// every row passes.
fn group(keyring: i32, versions: &[QueryVersion<'_>], leaves: &[QueryLeaf]) -> Option<Vec<u64>> {
    group_of(keyring, versions, |version| version.tokens(leaves))
}

/// The tokens that each version gives, with the markers of those that give none.
fn group_of<'v, 'k: 'v>(
    keyring: i32,
    versions: &'v [QueryVersion<'k>],
    tokens_of: impl Fn(&'v QueryVersion<'k>) -> Option<Vec<u64>>,
) -> Option<Vec<u64>> {
    let newest = versions.iter().map(|v| v.version).max().unwrap_or(0);
    let mut keys = vec![marker(keyring, 0)];
    keys.extend(newest.checked_add(1).map(|next| marker(keyring, next)));
    let mut covered = false;
    for version in versions {
        match tokens_of(version) {
            Some(tokens) => {
                covered = true;
                keys.extend(tokens);
            }
            None => keys.push(marker(keyring, version.version)),
        }
    }
    keys.sort_unstable();
    keys.dedup();
    covered.then_some(keys)
}

impl QueryVersion<'_> {
    /// `None` where the policy leaves out one of the scalars.
    fn tokens(&self, leaves: &[QueryLeaf]) -> Option<Vec<u64>> {
        let tokenizer = self.tokenizer.as_ref()?;
        let tokens = leaves.iter().map(|leaf| tokenizer.query(leaf)).collect::<Option<Vec<_>>>()?;
        Some(tokens.concat())
    }
}

/// Everything that goes into a filter beside the sealed query.
pub struct Parts<'a> {
    /// Keyring id, positive.
    pub keyring: i32,
    /// Who chose it.
    pub binding: Binding,
    /// Version of the data key that seals the query.
    pub data_version: u16,
    /// Newest index key version known.
    pub index_version: u16,
    /// What `query` is.
    pub kind: Query,
    /// The query's plaintext.
    pub query: &'a [u8],
    /// From [`groups`] or [`any_group`].
    pub groups: &'a Groups,
    /// A document of the query is NULL, so that no match is NULL and not false.
    pub nulls: bool,
}

/// Makes the bytes of a filter. Equal parts give equal bytes.
pub fn seal(key: &DataKey, uuid: &Uuid, parts: &Parts<'_>) -> Result<Vec<u8>, OpenError> {
    let mut flags = if parts.binding == Binding::Session { SESSION } else { 0 };
    flags |= if parts.nulls { NULLS } else { 0 };
    let groups: usize = parts.groups.iter().map(|group| 2 + TOKEN_BYTES * group.len()).sum();
    let sealed = COMPACT_NONCE_BYTES + parts.query.len() + TAG_BYTES;
    let mut out = memory::room(HEADER_BYTES + groups + sealed)?;
    out.extend_from_slice(&[FORMAT, SUITE, flags, CONTENT]);
    out.extend_from_slice(&parts.keyring.to_be_bytes());
    for number in [parts.data_version, parts.index_version, parts.groups.len() as u16] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&[parts.kind as u8, 0]);
    for group in parts.groups {
        out.extend_from_slice(&(group.len() as u16).to_be_bytes());
        out.extend(group.iter().flat_map(|key| key.to_be_bytes()));
    }
    let aad = aad(parts.keyring, parts.data_version, parts.kind, uuid);
    let nonce = key.synthetic_nonce(NONCE_DOMAIN, &aad, parts.query);
    out.extend_from_slice(&nonce);
    let mut body = Zeroizing::new(memory::copy(parts.query)?);
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
        if head[2] & !(SESSION | EVERY_KEYRING | NULLS) != 0 || head[15] != 0 {
            return Err(FormatError::Reserved);
        }
        let query = match head[14] {
            1 => Query::Contains,
            2 => Query::ContainsAny,
            3 => Query::Text,
            4 => Query::Casefold,
            5 => Query::Between,
            _ => return Err(FormatError::Reserved),
        };
        let count = u16::from_be_bytes([head[12], head[13]]);
        let sealed_start = groups_end(bytes, count.into())?;
        if bytes.len() < sealed_start + COMPACT_NONCE_BYTES + TAG_BYTES {
            return Err(FormatError::Truncated);
        }
        Ok(Filter { bytes, query, sealed_start })
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

    /// What the query is.
    pub fn query(&self) -> Query {
        self.query
    }

    /// Who chose the keyring.
    pub fn binding(&self) -> Binding {
        match self.bytes[2] & SESSION != 0 {
            true => Binding::Session,
            false => Binding::Fixed,
        }
    }

    /// Values of every keyring are compared, each with its own key; the filter then has no groups.
    pub fn every_keyring(&self) -> bool {
        self.bytes[2] & EVERY_KEYRING != 0
    }

    /// Not to match is NULL.
    pub fn has_nulls(&self) -> bool {
        self.bytes[2] & NULLS != 0
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

    /// Decrypts the query.
    pub fn open(&self, key: &DataKey, uuid: &Uuid) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let body_start = self.sealed_start + COMPACT_NONCE_BYTES;
        let (Some(nonce), Some((body, tag))) = (
            self.bytes[self.sealed_start..].first_chunk(),
            self.bytes[body_start..].split_last_chunk::<TAG_BYTES>(),
        ) else {
            return Err(OpenError::Authentication);
        };
        let aad = aad(self.keyring(), self.data_version(), self.query, uuid);
        let mut query = Zeroizing::new(memory::zeroed(body.len())?);
        key.filter.open(&expand_nonce(nonce), &aad, body, tag, &mut query)?;
        Ok(query)
    }

    /// Does a value with these tokens and this marker pass every group? Bytes only, no key.
    pub fn admits(&self, marker: u64, has_token: impl Fn(u64) -> bool) -> bool {
        self.groups().all(|mut group| group.any(|key| key == marker || has_token(key)))
    }
}

/// Joins the documents of a [`Query::ContainsAny`].
pub fn join_documents(documents: &[&[u8]]) -> Result<Zeroizing<Vec<u8>>, OutOfMemory> {
    let length = documents.iter().map(|document| prefixed_bytes(document)).sum();
    let mut out = Zeroizing::new(memory::room(length)?);
    documents.iter().for_each(|document| put_prefixed(&mut out, document));
    Ok(out)
}

/// What [`join_documents`] joined.
pub fn split_documents(joined: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut reader = Reader::new(joined);
    std::iter::from_fn(move || reader.prefixed())
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
fn aad(keyring: i32, data_version: u16, query: Query, uuid: &Uuid) -> Vec<u8> {
    let numbers = [&keyring.to_be_bytes()[..], &data_version.to_be_bytes(), &[query as u8]].concat();
    joined(&[AAD_LABEL, uuid, &numbers])
}

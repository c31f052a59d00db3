//! Blind-index tokens: bits that stand for one value at one path.
//!
//! ```text
//! message = scheme u8 || kind u8 || len(path) u32 || path || salt number u16 || len(value) u32 || value
//! token   = HMAC-SHA-256(token key, message)[0..8], of scheme 2 [0..16], with the top bit set
//! tag     = HMAC-SHA-256(tag key, keyring uuid || index key version u16 || all tokens of the value)[0..16], scheme 2 only
//! ```
//! All integers are big-endian. The first 8 bytes of a token are its key in the index. A path with `bits` b keeps the low b
//! bits of them, fills the 63 - b above from the HMAC of the path alone, so that short keys of two paths never meet, and takes
//! the other 8 bytes from there too, so that they tell no more of the value.
//!
//! A key of 63 bits may meet that of another value, by chance or because somebody looked for one. 127 bits do not, so a token of
//! scheme 2 says that this value stands at this place, if the tag says that the tokens belong together. There the path of a
//! scalar that is the whole document is one of its own: in scheme 1 it is that of an array's element.
//!
//! Beside tokens every value has one *marker*, keyring id << 16 | index key version, with the top bit clear.

use super::bytes::{prefixed_bytes, put_prefixed};
use super::canonical::Kind;
use super::fold::fold;
use super::header::{MAX_TOKENS, TOKEN_BIT, TokenSet};
use super::jsonb::{ITSELF, JsonbError, Leaf, TOP_ELEMENT, key_bytes, path_bytes, walk, walk_as_query};
use super::kdf::IndexKey;
use super::memory::{self, OutOfMemory};
use super::policy::{FULL_BITS, MAX_PATH_BYTES, PathRule, Policy, Scheme};
use super::range::{Bounds, Bucket, Scalar, bucket_bytes};
use super::rng::{self, RandomError};

/// Leaves that one query narrows by; the recheck answers the rest.
pub const MAX_LEAVES: usize = 256;
/// Bytes of leaves that one query narrows by; the recheck answers the rest.
const MAX_QUERY_BYTES: usize = 1 << 20;

/// Why a document has no tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The document itself.
    #[error(transparent)]
    Document(#[from] JsonbError),
    /// More distinct searchable values than a value can carry.
    #[error("the document has more than {MAX_TOKENS} distinct searchable values")]
    TooMany,
    /// No salt could be drawn.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// No room for what is hashed.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// One index key version with its policy.
pub struct Tokenizer<'a> {
    /// The version.
    pub version: u16,
    /// Its key.
    pub key: &'a IndexKey,
    /// What it makes searchable.
    pub policy: &'a Policy,
}

/// A scalar of a query, to be tokenised under several index key versions.
#[derive(PartialEq, Eq)]
pub struct QueryLeaf {
    keys: Vec<Vec<u8>>,
    path: Vec<u8>,
    kind: Kind,
    value: Vec<u8>,
    folded: bool,
    /// A document that is this scalar is meant too, where its path is told from that of an array's element.
    or_itself: bool,
    /// A document that holds it is an answer.
    decides: bool,
}

impl QueryLeaf {
    /// A scalar of this kind with these canonical bytes, at these object keys and this path, that a document which is an
    /// answer may hold.
    pub fn new(keys: Vec<Vec<u8>>, path: Vec<u8>, kind: Kind, value: Vec<u8>) -> Self {
        let or_itself = path == TOP_ELEMENT;
        QueryLeaf { keys, path, kind, value, folded: false, or_itself, decides: false }
    }

    /// The same where every document that holds it is an answer.
    pub fn deciding(self) -> Self {
        QueryLeaf { decides: true, ..self }
    }

    /// The same, compared without looking at case.
    pub fn folded(self) -> Self {
        QueryLeaf { folded: self.kind == Kind::String, ..self }
    }
}

/// The scalars of a query document, without duplicates.
#[derive(Default)]
pub struct QueryLeaves {
    /// Each.
    pub leaves: Vec<QueryLeaf>,
    /// Every document that holds all of them contains the query.
    pub decide: bool,
}

impl QueryLeaves {
    /// The same, compared without looking at case.
    pub fn folded(self) -> Self {
        let leaves = self.leaves.into_iter().map(QueryLeaf::folded).collect();
        QueryLeaves { leaves, ..self }
    }
}

/// The tokens of which a document that holds a scalar has one.
#[derive(Debug, PartialEq, Eq)]
pub struct AskedTokens {
    /// Of scheme 1 the first half alone.
    pub tokens: Vec<u128>,
    /// A document with one of them is an answer.
    pub decide: bool,
}

impl AskedTokens {
    /// Their keys in the index.
    pub fn keys(&self) -> impl Iterator<Item = u64> + '_ {
        self.tokens.iter().map(|token| (token >> 64) as u64)
    }
}

impl Tokenizer<'_> {
    /// The tokens of a jsonb document, ascending and without duplicates.
    pub fn document(&self, document: &[u8]) -> Result<TokenSet, TokenError> {
        if self.policy.is_empty() {
            return Ok(TokenSet::NONE);
        }
        let mut tokens = Vec::new();
        let mut message = Vec::new();
        walk(document, |leaf| self.push(&leaf, &mut message, &mut tokens))?;
        self.finish(tokens)
    }

    /// The token of a whole text where the policy declares `$`.
    pub fn text(&self, text: &[u8]) -> Result<TokenSet, TokenError> {
        let mut tokens = Vec::new();
        let leaf = Leaf { keys: &[], path: &[], kind: Kind::String, value: text, is_itself: false };
        self.push(&leaf, &mut Vec::new(), &mut tokens)?;
        self.finish(tokens)
    }

    fn finish(&self, mut tokens: Vec<u128>) -> Result<TokenSet, TokenError> {
        tokens.sort_unstable();
        tokens.dedup();
        if tokens.len() > MAX_TOKENS {
            return Err(TokenError::TooMany);
        }
        let decide = self.policy.scheme == Scheme::Decide && !tokens.is_empty();
        let tag = decide.then(|| self.key.tag(self.version, &tokens));
        Ok(TokenSet::new(tokens, tag))
    }

    /// Every token that a document holding `leaf` may carry. `None`, which only widens a filter, when the policy leaves its
    /// path out or there is no memory.
    pub fn query(&self, asked: &QueryLeaf) -> Option<AskedTokens> {
        let keys: Vec<&[u8]> = asked.keys.iter().map(Vec::as_slice).collect();
        let (path, kind, value) = (&asked.path, asked.kind, &asked.value);
        let leaf = Leaf { keys: &keys, path, kind, value, is_itself: false };
        let rule = self.rule(&leaf)?;
        if asked.folded && !rule.casefold {
            return None;
        }
        let mut message = Vec::new();
        if let Some(bucket) = finest_bucket(rule, &leaf) {
            let token = self.bucket(leaf.keys, bucket, &mut message).ok()?;
            return Some(AskedTokens { tokens: vec![token], decide: false });
        }
        let is_told_apart = asked.or_itself && self.policy.scheme == Scheme::Decide;
        let itself = is_told_apart.then_some(Leaf { is_itself: true, ..leaf });
        let tokens = [Some(leaf), itself].into_iter().flatten().flat_map(|leaf| {
            (0..rule.spread).map(|salt| self.token(rule, &leaf, salt, &mut message).ok()).collect::<Vec<_>>()
        });
        let tokens = tokens.collect::<Option<Vec<_>>>()?;
        // Short tokens meet, and so do those of strings that differ in case alone.
        let is_folded = rule.casefold && kind == Kind::String && !asked.folded;
        let decide =
            asked.decides && self.policy.scheme == Scheme::Decide && rule.bits == FULL_BITS && !is_folded;
        Some(AskedTokens { tokens, decide })
    }

    /// For each searchable scalar of a document: the declared path, and a number that equal values share.
    pub fn values(&self, document: &[u8]) -> Result<Vec<(&str, u64)>, TokenError> {
        let mut values = Vec::new();
        let mut message = Vec::new();
        walk(document, |leaf| {
            if let Some(rule) = self.rule(&leaf) {
                let number = self.prf(leaf.kind, &[], 0, leaf.value, &mut message)?;
                memory::push(&mut values, (rule.path(), (number >> 64) as u64))?;
            }
            Ok::<(), TokenError>(())
        })?;
        Ok(values)
    }

    fn push(&self, leaf: &Leaf<'_>, message: &mut Vec<u8>, out: &mut Vec<u128>) -> Result<(), TokenError> {
        let Some(rule) = self.rule(leaf) else { return Ok(()) };
        match buckets(rule, leaf) {
            Some(buckets) => {
                for bucket in buckets {
                    out.push(self.bucket(leaf.keys, bucket, message)?);
                }
            }
            None => out.push(self.token(rule, leaf, random_salt(rule.spread)?, message)?),
        }
        // Bounds memory before duplicates are dropped.
        if out.len() > 8 * MAX_TOKENS {
            out.sort_unstable();
            out.dedup();
            if out.len() > MAX_TOKENS {
                return Err(TokenError::TooMany);
            }
        }
        Ok(())
    }

    fn rule(&self, leaf: &Leaf<'_>) -> Option<&PathRule> {
        let rule = self.policy.rule_for(leaf.keys)?;
        let bytes = match finest_bucket(rule, leaf) {
            Some(_) => keys_bytes(leaf.keys),
            None => leaf.path.len(),
        };
        (bytes <= MAX_PATH_BYTES).then_some(rule)
    }

    /// The tokens of which a document that holds a scalar between the bounds has one, at these keys.
    pub fn query_range(&self, keys: &[&[u8]], bounds: &Bounds) -> Option<AskedTokens> {
        let rule = (keys_bytes(keys) <= MAX_PATH_BYTES).then(|| self.policy.rule_for(keys)).flatten()?;
        let range = rule.range.as_ref().filter(|range| range.domain == bounds.domain)?;
        let mut message = Vec::new();
        let buckets = range.cover(bounds).into_iter();
        let tokens =
            buckets.map(|bucket| self.bucket(keys, bucket, &mut message).ok()).collect::<Option<_>>()?;
        Some(AskedTokens { tokens, decide: false })
    }

    /// Arrays on the way are left out: a range is asked about the keys alone.
    fn bucket(&self, keys: &[&[u8]], bucket: Bucket, message: &mut Vec<u8>) -> Result<u128, OutOfMemory> {
        let bits = self.prf(Kind::Bucket, &path_of_keys(keys), 0, &bucket_bytes(bucket), message)?;
        Ok(self.token_of(bits))
    }

    /// What a value stores of these bits.
    fn token_of(&self, bits: u128) -> u128 {
        let kept = match self.policy.scheme {
            Scheme::Narrow => !u128::from(u64::MAX),
            Scheme::Decide => u128::MAX,
        };
        (bits | u128::from(TOKEN_BIT) << 64) & kept
    }

    fn token(
        &self,
        rule: &PathRule,
        leaf: &Leaf<'_>,
        salt: u16,
        message: &mut Vec<u8>,
    ) -> Result<u128, OutOfMemory> {
        let folded;
        let value = if rule.casefold && leaf.kind == Kind::String {
            folded = fold(leaf.value)?;
            &folded
        } else {
            leaf.value
        };
        let path = if leaf.is_itself && self.policy.scheme == Scheme::Decide { ITSELF } else { leaf.path };
        let value = self.prf(leaf.kind, path, salt, value, message)?;
        if rule.bits == FULL_BITS {
            return Ok(self.token_of(value));
        }
        let path = self.prf(Kind::Path, path, 0, &[], message)?;
        let kept = ((1u128 << rule.bits) - 1) << 64;
        Ok(self.token_of((path & !kept) | (value & kept)))
    }

    fn prf(
        &self,
        kind: Kind,
        path: &[u8],
        salt: u16,
        value: &[u8],
        message: &mut Vec<u8>,
    ) -> Result<u128, OutOfMemory> {
        message.clear();
        message.try_reserve(4 + prefixed_bytes(path) + prefixed_bytes(value)).map_err(|_| OutOfMemory)?;
        message.extend_from_slice(&[self.policy.scheme as u8, kind as u8]);
        put_prefixed(message, path);
        message.extend_from_slice(&salt.to_be_bytes());
        put_prefixed(message, value);
        Ok(self.key.prf(message))
    }
}

/// Length of [`path_of_keys`].
fn keys_bytes(keys: &[&[u8]]) -> usize {
    keys.iter().map(|key| key_bytes(key)).sum()
}

fn path_of_keys(keys: &[&[u8]]) -> Vec<u8> {
    path_bytes(&keys.iter().copied().map(Some).collect::<Vec<_>>())
}

fn finest_bucket(rule: &PathRule, leaf: &Leaf<'_>) -> Option<Bucket> {
    let range = rule.range.as_ref()?;
    Some(range.bucket(&Scalar::of(range.domain, range.reading, leaf.kind, leaf.value)?))
}

fn buckets(rule: &PathRule, leaf: &Leaf<'_>) -> Option<Vec<Bucket>> {
    let range = rule.range.as_ref()?;
    Some(range.buckets(&Scalar::of(range.domain, range.reading, leaf.kind, leaf.value)?))
}

/// The scalars of a query document, without duplicates.
pub fn query_leaves(query: &[u8]) -> Result<QueryLeaves, JsonbError> {
    let mut leaves: Vec<QueryLeaf> = Vec::new();
    let (mut left, mut is_whole) = (MAX_QUERY_BYTES, true);
    let falls_apart = walk_as_query(query, |leaf| {
        if !leaf.kind.is_scalar() {
            return Ok(());
        }
        let size = 2 * leaf.path.len() + leaf.value.len();
        if leaves.len() == MAX_LEAVES || size > left {
            is_whole = false;
            return Ok(());
        }
        left -= size;
        let keys = leaf.keys.iter().map(|key| key.to_vec()).collect();
        let asked = QueryLeaf::new(keys, leaf.path.to_vec(), leaf.kind, leaf.value.to_vec()).deciding();
        let asked = QueryLeaf { or_itself: leaf.is_itself, ..asked };
        if !leaves.contains(&asked) {
            leaves.push(asked);
        }
        Ok::<(), JsonbError>(())
    })?;
    Ok(QueryLeaves { leaves, decide: falls_apart && is_whole })
}

/// The GIN key that every value of this keyring and index key version has.
pub fn marker(keyring: i32, index_version: u16) -> u64 {
    u64::from(keyring.unsigned_abs()) << 16 | u64::from(index_version)
}

/// A salt number in 0..spread; the bias of the modulo is below 2^-58.
fn random_salt(spread: u16) -> Result<u16, RandomError> {
    if spread == 1 {
        return Ok(0);
    }
    let random = u64::from_be_bytes(rng::bytes::<8>()?);
    Ok((random % u64::from(spread)) as u16)
}

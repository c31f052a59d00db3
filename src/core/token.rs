//! Blind-index tokens: 64 bits that stand for one value at one path.
//!
//! ```text
//! message = scheme u8 || kind u8 || len(path) u32 || path || salt number u16 || len(value) u32 || value
//! token   = HMAC-SHA-256(token key, message)[0..8] with the top bit set
//! ```
//! All integers are big-endian. A path with `bits` b keeps the low b bits and fills the 63 - b above them
//! from the HMAC of the path alone, so that short tokens of two paths never meet.
//!
//! Beside tokens every value has one *marker*, keyring id << 16 | index key version, with the top bit clear.

use super::bytes::{prefixed_bytes, put_prefixed};
use super::canonical::Kind;
use super::fold::fold;
use super::header::{MAX_TOKENS, TOKEN_BIT};
use super::jsonb::{JsonbError, Leaf, key_bytes, path_bytes, walk};
use super::kdf::IndexKey;
use super::memory::{self, OutOfMemory};
use super::policy::{FULL_BITS, MAX_PATH_BYTES, PathRule, Policy, SCHEME};
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
    /// The version's key.
    pub key: &'a IndexKey,
    /// What the version makes searchable.
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
}

impl QueryLeaf {
    /// A scalar of this kind with these canonical bytes, at these object keys and this path.
    pub fn new(keys: Vec<Vec<u8>>, path: Vec<u8>, kind: Kind, value: Vec<u8>) -> Self {
        QueryLeaf { keys, path, kind, value, folded: false }
    }

    /// The same, compared without looking at case.
    pub fn folded(self) -> Self {
        QueryLeaf { folded: self.kind == Kind::String, ..self }
    }
}

impl Tokenizer<'_> {
    /// The tokens of a jsonb document, ascending and without duplicates.
    pub fn document(&self, document: &[u8]) -> Result<Vec<u64>, TokenError> {
        if self.policy.is_empty() {
            return Ok(Vec::new());
        }
        let mut tokens = Vec::new();
        let mut message = Vec::new();
        walk(document, |leaf| self.push(&leaf, &mut message, &mut tokens))?;
        finish(tokens)
    }

    /// The token of a whole text where the policy declares `$`.
    pub fn text(&self, text: &[u8]) -> Result<Vec<u64>, TokenError> {
        let mut tokens = Vec::new();
        let leaf = Leaf { keys: &[], path: &[], kind: Kind::String, value: text };
        self.push(&leaf, &mut Vec::new(), &mut tokens)?;
        finish(tokens)
    }

    /// Every token that a document holding `leaf` may carry. `None`, which only widens a filter, when the policy leaves its
    /// path out or there is no memory.
    pub fn query(&self, leaf: &QueryLeaf) -> Option<Vec<u64>> {
        let folded = leaf.folded;
        let keys: Vec<&[u8]> = leaf.keys.iter().map(Vec::as_slice).collect();
        let leaf = Leaf { keys: &keys, path: &leaf.path, kind: leaf.kind, value: &leaf.value };
        let rule = self.rule(&leaf)?;
        if folded && !rule.casefold {
            return None;
        }
        let mut message = Vec::new();
        if let Some(bucket) = finest_bucket(rule, &leaf) {
            return Some(vec![self.bucket(leaf.keys, bucket, &mut message).ok()?]);
        }
        (0..rule.spread).map(|salt| self.token(rule, &leaf, salt, &mut message).ok()).collect()
    }

    /// For each searchable scalar of a document: the declared path, and a number that equal values share.
    pub fn values(&self, document: &[u8]) -> Result<Vec<(&str, u64)>, TokenError> {
        let mut values = Vec::new();
        let mut message = Vec::new();
        walk(document, |leaf| {
            if let Some(rule) = self.rule(&leaf) {
                let number = self.prf(leaf.kind, &[], 0, leaf.value, &mut message)?;
                memory::push(&mut values, (rule.path(), number))?;
            }
            Ok::<(), TokenError>(())
        })?;
        Ok(values)
    }

    fn push(&self, leaf: &Leaf<'_>, message: &mut Vec<u8>, out: &mut Vec<u64>) -> Result<(), TokenError> {
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
    pub fn query_range(&self, keys: &[&[u8]], bounds: &Bounds) -> Option<Vec<u64>> {
        let rule = (keys_bytes(keys) <= MAX_PATH_BYTES).then(|| self.policy.rule_for(keys)).flatten()?;
        let range = rule.range.as_ref().filter(|range| range.domain == bounds.domain)?;
        let mut message = Vec::new();
        range.cover(bounds).into_iter().map(|bucket| self.bucket(keys, bucket, &mut message).ok()).collect()
    }

    /// Arrays on the way are left out: a range is asked about the keys alone.
    fn bucket(&self, keys: &[&[u8]], bucket: Bucket, message: &mut Vec<u8>) -> Result<u64, OutOfMemory> {
        Ok(TOKEN_BIT | self.prf(Kind::Bucket, &path_of_keys(keys), 0, &bucket_bytes(bucket), message)?)
    }

    fn token(
        &self,
        rule: &PathRule,
        leaf: &Leaf<'_>,
        salt: u16,
        message: &mut Vec<u8>,
    ) -> Result<u64, OutOfMemory> {
        let folded;
        let value = if rule.casefold && leaf.kind == Kind::String {
            folded = fold(leaf.value)?;
            &folded
        } else {
            leaf.value
        };
        let value = self.prf(leaf.kind, leaf.path, salt, value, message)?;
        if rule.bits == FULL_BITS {
            return Ok(TOKEN_BIT | value);
        }
        let path = self.prf(Kind::Path, leaf.path, 0, &[], message)?;
        let kept = (1 << rule.bits) - 1;
        Ok(TOKEN_BIT | (path & !kept) | (value & kept))
    }

    fn prf(
        &self,
        kind: Kind,
        path: &[u8],
        salt: u16,
        value: &[u8],
        message: &mut Vec<u8>,
    ) -> Result<u64, OutOfMemory> {
        message.clear();
        message.try_reserve(4 + prefixed_bytes(path) + prefixed_bytes(value)).map_err(|_| OutOfMemory)?;
        message.extend_from_slice(&[SCHEME, kind as u8]);
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
pub fn query_leaves(query: &[u8]) -> Result<Vec<QueryLeaf>, JsonbError> {
    let mut leaves: Vec<QueryLeaf> = Vec::new();
    let mut left = MAX_QUERY_BYTES;
    walk(query, |leaf| {
        let size = 2 * leaf.path.len() + leaf.value.len();
        if leaves.len() == MAX_LEAVES || size > left {
            return Ok(());
        }
        left -= size;
        let keys = leaf.keys.iter().map(|key| key.to_vec()).collect();
        let leaf = QueryLeaf::new(keys, leaf.path.to_vec(), leaf.kind, leaf.value.to_vec());
        if !leaves.contains(&leaf) {
            leaves.push(leaf);
        }
        Ok::<(), JsonbError>(())
    })?;
    Ok(leaves)
}

/// The GIN key that every value of this keyring and index key version has.
pub fn marker(keyring: i32, index_version: u16) -> u64 {
    u64::from(keyring.unsigned_abs()) << 16 | u64::from(index_version)
}

fn finish(mut tokens: Vec<u64>) -> Result<Vec<u64>, TokenError> {
    tokens.sort_unstable();
    tokens.dedup();
    if tokens.len() > MAX_TOKENS { Err(TokenError::TooMany) } else { Ok(tokens) }
}

/// A salt number in 0..spread; the bias of the modulo is below 2^-58.
fn random_salt(spread: u16) -> Result<u16, RandomError> {
    if spread == 1 {
        return Ok(0);
    }
    let random = u64::from_be_bytes(rng::bytes::<8>()?);
    Ok((random % u64::from(spread)) as u16)
}

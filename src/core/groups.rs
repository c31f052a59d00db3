//! What a filter narrows by: a conjunction of groups of GIN keys (tokens and markers), of which a row must have one each.

use super::between::Between;
use super::token::{MAX_LEAVES, QueryLeaf, Tokenizer, marker};

/// Conditions that one filter narrows by, at most; the recheck answers the rest.
pub const MAX_GROUPS: usize = MAX_LEAVES;
/// Documents of one "contains one of these" that it narrows by, at most.
pub const MAX_ALTERNATIVES: usize = 16 * MAX_KEYS;
/// Keys over all groups, at most.
pub const MAX_KEYS: usize = 1024;
/// Keys of the one group for a list of texts or documents: some thousand elements under several index key versions. GIN's work to
/// begin a search grows with the square of it.
pub const MAX_LIST_KEYS: usize = 8 * MAX_KEYS;

/// One index key version as a query sees it.
pub struct QueryVersion<'a> {
    /// Version number, from 1.
    pub version: u16,
    /// Its key and policy; `None` for a version that no longer makes tokens.
    pub tokenizer: Option<Tokenizer<'a>>,
}

/// Groups of keys, each ascending.
pub type Groups = Vec<Vec<u64>>;

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
    if union.len() > MAX_LIST_KEYS { Groups::new() } else { vec![union] }
}

/// The one group for "holds one of these scalars", or none.
pub fn leaf_group(keyring: i32, versions: &[QueryVersion<'_>], alternatives: &[QueryLeaf]) -> Groups {
    group(keyring, versions, alternatives).filter(|keys| keys.len() <= MAX_LIST_KEYS).into_iter().collect()
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

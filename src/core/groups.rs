//! What a filter narrows by: a conjunction of groups of GIN keys (tokens and markers), of which a row must have one each.

use super::between::Between;
use super::token::{AskedTokens, MAX_LEAVES, QueryLeaf, QueryLeaves, Tokenizer, marker};

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

/// Keys (tokens and markers) of which a row must have one.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// Ascending.
    pub keys: Vec<u64>,
    /// Tokens of which one is enough to know that the condition holds, ascending.
    pub deciding: Vec<u128>,
}

/// What a filter narrows by.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Of which a row must have one key each.
    pub all: Vec<Group>,
    /// They are all that is asked, so that a row with a deciding token of each is an answer.
    decide: bool,
}

impl Groups {
    /// `decide` is true where they are all that is asked. Nothing is ever all.
    pub fn new(all: Vec<Group>, decide: bool) -> Self {
        let can = !all.is_empty() && all.iter().all(|group| !group.deciding.is_empty());
        Groups { all, decide: decide && can }
    }

    /// A row with a deciding token of each is an answer.
    pub fn decide(&self) -> bool {
        self.decide
    }
}

/// The groups for the leaves of one query under every index key version of a keyring.
///
/// A version whose policy leaves a path out answers with its marker, as do version 0 (not tokenised) and
/// the version after the newest (made by a rotation that this session has not seen yet): never fewer rows.
pub fn groups(keyring: i32, versions: &[QueryVersion<'_>], asked: &QueryLeaves) -> Groups {
    let mut groups = Vec::new();
    let (mut keys, mut decide) = (0, asked.decide);
    for leaf in &asked.leaves {
        let group = group(keyring, versions, std::slice::from_ref(leaf));
        // Leaving a group out only widens the filter.
        match group.filter(|group| keys + group.keys.len() <= MAX_KEYS && groups.len() < MAX_GROUPS) {
            Some(group) => {
                keys += group.keys.len();
                groups.push(group);
            }
            None => decide = false,
        }
    }
    groups.sort_unstable();
    Groups::new(groups, decide)
}

/// The one group for "contains one of these": every alternative gives the keys of its narrowest leaf. Where it has no other
/// leaf, they decide.
pub fn any_group(keyring: i32, versions: &[QueryVersion<'_>], alternatives: &[QueryLeaves]) -> Groups {
    let mut union = Group::default();
    for asked in alternatives {
        let groups =
            asked.leaves.iter().filter_map(|leaf| group(keyring, versions, std::slice::from_ref(leaf)));
        let Some(narrowest) = groups.min_by_key(|group| group.keys.len()) else { return Groups::default() };
        union.keys.extend(narrowest.keys);
        if asked.decide && asked.leaves.len() == 1 {
            union.deciding.extend(narrowest.deciding);
        }
    }
    let union = union.in_order();
    if union.keys.len() > MAX_LIST_KEYS { Groups::default() } else { Groups::new(vec![union], true) }
}

/// The one group for "holds one of these scalars", or none.
pub fn leaf_group(keyring: i32, versions: &[QueryVersion<'_>], alternatives: &[QueryLeaf]) -> Groups {
    one_group(group(keyring, versions, alternatives), MAX_LIST_KEYS)
}

/// The one group for "holds a number or time between these bounds", or none.
pub fn range_group(keyring: i32, versions: &[QueryVersion<'_>], between: &Between) -> Groups {
    let asked = |version: &QueryVersion<'_>| {
        Some(vec![version.tokenizer.as_ref()?.query_range(&between.keys(), between.bounds())?])
    };
    one_group(group_of(keyring, versions, asked), MAX_KEYS)
}

fn one_group(group: Option<Group>, most: usize) -> Groups {
    Groups::new(group.filter(|group| group.keys.len() <= most).into_iter().collect(), true)
}

/// The keys of which a value that holds one of `leaves` has one. `None` when no version covers them all:
/// every row passes.
fn group(keyring: i32, versions: &[QueryVersion<'_>], leaves: &[QueryLeaf]) -> Option<Group> {
    group_of(keyring, versions, |version| version.tokens(leaves))
}

/// The tokens that each version gives, with the markers of those that give none.
fn group_of<'v, 'k: 'v>(
    keyring: i32,
    versions: &'v [QueryVersion<'k>],
    tokens_of: impl Fn(&'v QueryVersion<'k>) -> Option<Vec<AskedTokens>>,
) -> Option<Group> {
    let newest = versions.iter().map(|v| v.version).max().unwrap_or(0);
    let mut group = Group { keys: vec![marker(keyring, 0)], deciding: Vec::new() };
    group.keys.extend(newest.checked_add(1).map(|next| marker(keyring, next)));
    let mut covered = false;
    for version in versions {
        let Some(asked) = tokens_of(version) else {
            group.keys.push(marker(keyring, version.version));
            continue;
        };
        covered = true;
        for tokens in asked {
            group.keys.extend(tokens.keys());
            group.deciding.extend(tokens.tokens.into_iter().filter(|_| tokens.decide));
        }
    }
    covered.then(|| group.in_order())
}

impl Group {
    fn in_order(mut self) -> Self {
        self.keys.sort_unstable();
        self.keys.dedup();
        self.deciding.sort_unstable();
        self.deciding.dedup();
        self
    }
}

impl QueryVersion<'_> {
    /// `None` where the policy leaves out one of the scalars.
    fn tokens(&self, leaves: &[QueryLeaf]) -> Option<Vec<AskedTokens>> {
        let tokenizer = self.tokenizer.as_ref()?;
        leaves.iter().map(|leaf| tokenizer.query(leaf)).collect()
    }
}

//! How often index keys (tokens and markers) occur, and what that says of a filter. Needs no key.

use std::collections::HashMap;

use super::filter::Filter;
use super::header::{HEADER_BYTES, TOKEN_BIT, parse_head};
use super::token::marker;

/// Keys between two prunings: bounds the memory of a count to a few times as many entries.
const BUCKET: u64 = 1 << 20;

/// One value in so many has a key that is kept however many there are: a little rarer than one in a thousand, since
/// this is a sample.
const OFTEN: u64 = 1_250;
/// Keys that are kept for that reason, at most: the planner reads them all.
const MOST: usize = 5_000;

/// Counts keys with an error of at most one in [`BUCKET`] (Manku and Motwani 2002, Lossy Counting).
#[derive(Default)]
pub struct KeyCounter {
    counts: HashMap<u64, (u64, u64)>,
    seen: u64,
}

/// Keys in signed order, each with the share of the values that have it.
#[derive(Default)]
pub struct KeyFrequencies {
    /// As int8, ascending.
    pub keys: Vec<i64>,
    /// As many shares, 0 to 1.
    pub shares: Vec<f32>,
}

impl KeyCounter {
    /// One value has this key.
    pub fn add(&mut self, key: u64) {
        self.seen += 1;
        let bucket = self.seen / BUCKET;
        self.counts.entry(key).or_insert((0, bucket)).0 += 1;
        if self.seen.is_multiple_of(BUCKET) {
            self.counts.retain(|_, (count, missed)| *count + *missed > bucket);
        }
    }

    /// The `most` commonest keys that occur in more than one of `values` values, and beyond them all that one value in
    /// [`OFTEN`] has, up to [`MOST`]. Markers all count as common: one that is missing stands for no value.
    pub fn finish(self, values: u64, most: usize) -> KeyFrequencies {
        let least = 2.max(9 * self.seen / BUCKET);
        let kept = |key: u64, count: u64| count >= least || key & TOKEN_BIT == 0;
        let counts = self.counts.into_iter().map(|(key, (count, _))| (key, count));
        let mut common: Vec<(u64, u64)> = counts.filter(|(key, count)| kept(*key, *count)).collect();
        // Commonest first, markers before all; equal counts by key, so that the outcome is always the same.
        common.sort_unstable_by_key(|(key, count)| (key & TOKEN_BIT, std::cmp::Reverse(*count), *key));
        let often = common.partition_point(|(key, count)| key & TOKEN_BIT == 0 || count * OFTEN >= values);
        common.truncate(most.max(often.min(MOST)));
        common.sort_unstable_by_key(|(key, _)| *key as i64);
        KeyFrequencies {
            keys: common.iter().map(|(key, _)| *key as i64).collect(),
            shares: common.iter().map(|(_, count)| (*count as f64 / values.max(1) as f64) as f32).collect(),
        }
    }
}

impl KeyFrequencies {
    /// The share of values with this key, where it is among the common ones.
    pub fn share(&self, key: u64) -> Option<f64> {
        let at = self.keys.binary_search(&(key as i64)).ok()?;
        self.shares.get(at).map(|share| f64::from(*share))
    }

    /// The smallest share of a token here, 1 where there is none.
    pub fn least(&self) -> f64 {
        // Tokens have the sign bit, markers have not.
        let tokens = self.keys.iter().zip(&self.shares).filter(|(key, _)| **key < 0);
        tokens.map(|(_, share)| f64::from(*share)).fold(1.0, f64::min)
    }

    /// The share of values whose tokens a filter lets through; `rare` is that of a token not among these.
    pub fn selectivity(&self, filter: &Filter<'_>, rare: f64) -> f64 {
        if filter.every_keyring() {
            return 1.0;
        }
        if filter.group_count() == 0 {
            return self.keyring_share(filter.keyring());
        }
        let key_share = |key: u64| match key & TOKEN_BIT {
            0 => self.share(key).unwrap_or(0.0),
            _ => self.share(key).unwrap_or(rare),
        };
        filter.groups().map(|group| group.map(key_share).sum::<f64>().min(1.0)).product()
    }

    /// The share of values of a keyring: of all its markers.
    fn keyring_share(&self, keyring: i32) -> f64 {
        let first = self.keys.partition_point(|key| *key < marker(keyring, 0) as i64);
        let end = self.keys.partition_point(|key| *key <= marker(keyring, u16::MAX) as i64);
        let share: f64 = self.shares[first..end].iter().map(|share| f64::from(*share)).sum();
        share.min(1.0)
    }
}

/// The values of a sample of rows.
#[derive(Default)]
pub struct Sample {
    keys: KeyCounter,
    nulls: u64,
    values: u64,
    bytes: u64,
}

impl Sample {
    /// A row without a value.
    pub fn add_null(&mut self) {
        self.nulls += 1;
    }

    /// A value of this stored size; `read` lends its first bytes. A malformed one has no keys.
    pub fn add(&mut self, size: usize, read: impl Fn(usize, &mut dyn FnMut(&[u8]))) {
        self.values += 1;
        self.bytes += size as u64;
        let mut found = None;
        read(HEADER_BYTES, &mut |bytes| {
            let Ok((head, section)) = parse_head(bytes) else { return };
            found = Some(section);
            self.keys.add(marker(head.keyring, head.index_version));
        });
        let Some(section) = found.filter(|section| section.count() > 0) else { return };
        read(section.tokens().end, &mut |bytes| {
            let tokens = bytes.get(section.tokens()).unwrap_or_default();
            section.keys(tokens).for_each(|key| self.keys.add(key));
        });
    }

    /// No row at all.
    pub fn is_empty(&self) -> bool {
        self.nulls + self.values == 0
    }

    /// Share of rows without a value.
    pub fn null_share(&self) -> f32 {
        (self.nulls as f64 / (self.nulls + self.values).max(1) as f64) as f32
    }

    /// Average stored size, in bytes.
    pub fn width(&self) -> i32 {
        (self.bytes / self.values.max(1)) as i32
    }

    /// The `most` commonest keys.
    pub fn finish(self, most: usize) -> KeyFrequencies {
        self.keys.finish(self.values, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(keys: impl IntoIterator<Item = u64>) -> KeyCounter {
        let mut counter = KeyCounter::default();
        keys.into_iter().for_each(|key| counter.add(key));
        counter
    }

    #[test]
    fn common_keys_come_with_their_share_and_no_single_tokens() {
        let (often, once, mark) = (TOKEN_BIT | 7, TOKEN_BIT | 8, marker(5, 1));
        let found = count([often, often, often, once, mark]).finish(6, 10);
        assert_eq!(found.share(often), Some(0.5));
        assert_eq!(found.share(once), None);
        assert!(found.share(mark).is_some());
        assert_eq!(found.least(), 0.5);
        assert!(found.keys.is_sorted());
    }

    #[test]
    fn the_commonest_are_kept_where_there_are_too_many() {
        let keys = (0..100u64).flat_map(|key| std::iter::repeat_n(TOKEN_BIT | key, key as usize));
        let found = count(keys).finish(1_000_000, 10);
        assert_eq!(found.keys.len(), 10);
        assert!(found.share(TOKEN_BIT | 99).is_some_and(|share| (share - 0.000099).abs() < 1e-9));
        assert_eq!(found.share(TOKEN_BIT | 89), None);
    }

    #[test]
    fn keys_of_one_value_in_a_thousand_are_kept_however_many() {
        let keys = (0..3000u64).flat_map(|key| std::iter::repeat_n(TOKEN_BIT | key, 30));
        assert_eq!(count(keys).finish(30_000, 1000).keys.len(), 3000);
        let too_many = (0..6000u64).flat_map(|key| std::iter::repeat_n(TOKEN_BIT | key, 30));
        assert_eq!(count(too_many).finish(30_000, 1000).keys.len(), MOST);
    }

    #[test]
    fn memory_stays_bounded_and_common_keys_survive() {
        let keys = (0..5 * BUCKET).map(|at| if at % 100 == 0 { TOKEN_BIT } else { TOKEN_BIT | at });
        let counter = count(keys);
        assert!(counter.counts.len() < 3 * BUCKET as usize);
        let found = counter.finish(5 * BUCKET, 10);
        assert_eq!(found.keys, [TOKEN_BIT as i64]);
        assert!((found.shares[0] - 0.01).abs() < 0.0001);
    }
}

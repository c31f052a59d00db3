//! What a search remembers of the rows that it has scored.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::core::memory;

use super::page::{PageError, Tid};
use crate::core::vector::quantiser::Bound;

/// Estimates that decide at least.
const LEAST_ESTIMATES: usize = 10;
/// Rows with the least upper bounds that decide which others are near.
const NEAREST: usize = 16;
/// Rows that come near at first when more are asked for.
const FIRST_PORTION: usize = 256;
/// Rows that are kept at first; then eight times as many whenever pages are read again.
const FIRST_KEPT: usize = 1 << 10;
/// Estimates that are kept for when more of them decide, at most.
const MOST_ESTIMATES: usize = 1 << 19;

/// A row that may be near.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    lower: f32,
    block: u32,
    offset: u16,
}

/// Rows by their lower bounds, as many as memory is meant to hold. Most are never looked at: only those that may be among
/// the nearest are kept in order.
pub(super) struct Candidates {
    near: BinaryHeap<Reverse<Candidate>>,
    /// In no order.
    far: Vec<Candidate>,
    /// No bound in `far` is less.
    floor: f32,
    /// The least upper bounds, the largest of them on top: whoever is beyond all of them is far.
    uppers: BinaryHeap<Estimate>,
    /// Rows that come near when all others are used up.
    portion: usize,
    most: usize,
    /// Rows that are kept for now: whoever asks for few of them needs no more.
    kept: usize,
    /// The least bound of those that were dropped.
    dropped: Option<f32>,
}

/// The best estimates, which decide how many lists are read.
pub(super) struct Best {
    wanted: usize,
    /// Of all rows, with the number of the list among those that were read.
    all: Vec<(f32, u32)>,
    /// The best of them, the worst on top.
    heap: BinaryHeap<Estimate>,
    /// The last list that brought one of the best.
    pub gain: usize,
}

#[derive(Clone, Copy)]
struct Estimate(f32);

impl Candidates {
    /// At most so many.
    pub fn new(most: usize) -> Self {
        Candidates {
            near: BinaryHeap::new(),
            far: Vec::new(),
            floor: f32::INFINITY,
            uppers: BinaryHeap::new(),
            portion: FIRST_PORTION,
            most,
            kept: FIRST_KEPT.min(most),
            dropped: None,
        }
    }

    /// Makes room for as many more as a page has.
    pub fn reserve(&mut self, rows: usize) -> Result<(), PageError> {
        if self.far.len() + self.near.len() + rows > 2 * self.kept.max(rows) {
            self.drop_far();
        }
        let room = self.near.try_reserve(rows).and_then(|()| self.far.try_reserve(rows));
        Ok(room.map_err(|_| memory::OutOfMemory)?)
    }

    /// Are these rows all beyond some that were dropped?
    pub fn are_far(&self, bounds: &[Bound]) -> bool {
        self.dropped.is_some_and(|beyond| bounds.iter().all(|bound| bound.lower >= beyond))
    }

    /// Adds a row, for which there is room.
    pub fn add(&mut self, bound: Bound, tid: Tid) {
        if self.are_far(&[bound]) {
            return;
        }
        let candidate = Candidate { lower: bound.lower, block: tid.block, offset: tid.offset };
        let upper = Estimate(bound.estimate + (bound.estimate - bound.lower));
        let worst = self.uppers.peek().filter(|_| self.uppers.len() >= NEAREST);
        if worst.is_some_and(|worst| bound.lower > worst.0) {
            self.floor = self.floor.min(bound.lower);
            self.far.push(candidate);
            return;
        }
        if worst.is_none_or(|worst| upper < *worst) {
            if self.uppers.len() >= NEAREST {
                self.uppers.pop();
            }
            self.uppers.push(upper);
        }
        self.near.push(Reverse(candidate));
    }

    /// The least bound of those that were dropped, for which there is more room now.
    pub fn take_dropped(&mut self) -> Option<f32> {
        let floor = self.dropped.take()?;
        self.kept = self.kept.saturating_mul(8).min(self.most);
        Some(floor)
    }

    /// Keeps no more than there may be.
    pub fn shrink(&mut self) {
        if self.near.len() + self.far.len() > self.kept {
            self.drop_far();
        }
    }

    /// Keeps the nearest candidates only.
    fn drop_far(&mut self) {
        self.far.extend(self.near.drain().map(|Reverse(candidate)| candidate));
        if self.far.len() > self.kept {
            let (_, nearest_dropped, _) = self.far.select_nth_unstable(self.kept);
            let bound = nearest_dropped.lower;
            self.dropped = Some(self.dropped.map_or(bound, |dropped| dropped.min(bound)));
            self.far.truncate(self.kept);
        }
        self.floor = self.far.iter().fold(f32::INFINITY, |floor, candidate| floor.min(candidate.lower));
    }

    /// Takes the nearest one.
    pub fn pop(&mut self) -> Option<Tid> {
        let is_known = |near: &Reverse<Candidate>, floor| near.0.lower <= floor;
        if !self.far.is_empty() && !self.near.peek().is_some_and(|near| is_known(near, self.floor)) {
            self.bring_near();
        }
        self.near.pop().map(|Reverse(candidate)| Tid { block: candidate.block, offset: candidate.offset })
    }

    /// Puts the nearest of those that are far in order with the others.
    fn bring_near(&mut self) {
        let count = self.portion.min(self.far.len());
        self.portion = self.portion.saturating_mul(2);
        self.floor = f32::INFINITY;
        if count < self.far.len() {
            let (_, next, _) = self.far.select_nth_unstable(count);
            self.floor = next.lower;
        }
        self.near.extend(self.far.drain(..count).map(Reverse));
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.near.clear();
        self.far.clear();
        self.floor = f32::INFINITY;
        self.dropped = None;
    }

    /// The least bound of all that nobody has looked at.
    pub fn least(&self) -> Option<f32> {
        let near = self.near.peek().map(|Reverse(candidate)| candidate.lower);
        let far = (!self.far.is_empty()).then_some(self.floor);
        near.into_iter().chain(far).chain(self.dropped).reduce(f32::min)
    }
}

impl Best {
    /// None yet.
    pub fn new() -> Self {
        Best { wanted: LEAST_ESTIMATES, all: Vec::new(), heap: BinaryHeap::new(), gain: 0 }
    }

    /// From now on at least so many estimates decide.
    pub fn want(&mut self, rows: usize) {
        if rows <= self.wanted {
            return;
        }
        // Twice as many, so that this is not done anew for every row.
        self.wanted = 2 * rows;
        if self.all.len() > self.wanted {
            self.all.select_nth_unstable_by(self.wanted - 1, |a, b| a.0.total_cmp(&b.0));
        }
        let best = &self.all[..self.all.len().min(self.wanted)];
        self.gain = best.iter().map(|(_, list)| *list).max().unwrap_or(0) as usize;
        self.heap = best.iter().map(|(estimate, _)| Estimate(*estimate)).collect();
    }

    /// Makes room for the estimates of a page.
    pub fn reserve(&mut self, rows: usize) -> Result<(), PageError> {
        Ok(self.all.try_reserve(rows).map_err(|_| memory::OutOfMemory)?)
    }

    /// Adds an estimate of a row in a list, for which there is room.
    pub fn add(&mut self, estimate: f32, list: usize) {
        let is_best =
            self.heap.len() < self.wanted || self.heap.peek().is_some_and(|worst| estimate < worst.0);
        if is_best {
            self.gain = list;
            self.heap.push(Estimate(estimate));
        }
        if self.heap.len() > self.wanted {
            self.heap.pop();
        }
        if self.all.len() < MOST_ESTIMATES {
            self.all.push((estimate, list as u32));
        }
    }
}

impl Candidate {
    fn key(&self) -> (Estimate, u32, u16) {
        (Estimate(self.lower), self.block, self.offset)
    }
}

/// Numbers that have no NaN among them, ordered.
macro_rules! ordered {
    ($type:ty, |$a:ident, $b:ident| $order:expr) => {
        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                let ($a, $b) = (self, other);
                $order
            }
        }
        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other) == Ordering::Equal
            }
        }
        impl Eq for $type {}
    };
}

pub(super) use ordered;

ordered!(Estimate, |a, b| a.0.total_cmp(&b.0));
ordered!(Candidate, |a, b| a.key().cmp(&b.key()));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::vector::testing::Random;

    const ROWS: u32 = 20_000;

    /// Offers all rows that are not nearer than `floor` and have not come yet, as pages of a hundred.
    fn offer(candidates: &mut Candidates, lowers: &[f32], floor: f32, come: &[u32]) {
        for (block, lower) in (0..).zip(lowers) {
            if block % 100 == 0 {
                candidates.reserve(100).unwrap();
            }
            if *lower >= floor && !come.contains(&block) {
                candidates.add(Bound { estimate: lower + 1.0, lower: *lower }, Tid { block, offset: 1 });
            }
        }
        candidates.shrink();
    }

    #[test]
    fn who_asks_for_more_gets_them_in_order_by_reading_again() {
        let mut random = Random::new(3);
        let mut lowers: Vec<f32> = (0..ROWS).map(|_| random.below(1 << 20) as f32).collect();
        lowers[7] = f32::INFINITY;
        let mut candidates = Candidates::new(usize::MAX);
        let (mut come, mut reads, mut floor) = (Vec::new(), 0, Some(f32::NEG_INFINITY));
        while let Some(least) = floor {
            offer(&mut candidates, &lowers, least, &come);
            come.extend(std::iter::from_fn(|| candidates.pop().map(|tid| tid.block)));
            reads += 1;
            floor = candidates.take_dropped();
        }
        assert_eq!((come.len(), reads), (ROWS as usize, 3), "1,024 rows, then 8,192, then all");
        assert!(come.is_sorted_by(|a, b| lowers[*a as usize] <= lowers[*b as usize]));
    }

    #[test]
    fn a_row_without_an_upper_limit_is_kept_where_none_was_dropped() {
        let mut candidates = Candidates::new(usize::MAX);
        let tid = Tid { block: 1, offset: 1 };
        candidates.reserve(1).unwrap();
        candidates.add(Bound { estimate: f32::INFINITY, lower: f32::INFINITY }, tid);
        assert_eq!(candidates.pop(), Some(tid));
    }
}

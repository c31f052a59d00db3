//! What a search remembers of the rows that it has scored.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::core::memory;

use super::page::{PageError, Tid};

/// Estimates that decide at least.
const LEAST_ESTIMATES: usize = 10;
/// Estimates that are kept for when more of them decide, at most.
const MOST_ESTIMATES: usize = 1 << 19;

/// A row that may be near.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    lower: f32,
    block: u32,
    offset: u16,
}

/// Rows by their lower bounds, as many as memory is meant to hold.
pub(super) struct Candidates {
    heap: BinaryHeap<Reverse<Candidate>>,
    fresh: Vec<Candidate>,
    most: usize,
    /// The least bound of those that were dropped.
    pub dropped: Option<f32>,
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
        Candidates { heap: BinaryHeap::new(), fresh: Vec::new(), most, dropped: None }
    }

    /// Adds a row.
    pub fn add(&mut self, lower: f32, tid: Tid) -> Result<(), PageError> {
        if self.fresh.len() >= 2 * self.most {
            self.drop_far();
        }
        Ok(memory::push(&mut self.fresh, Candidate { lower, block: tid.block, offset: tid.offset })?)
    }

    /// Takes in what was added.
    pub fn merge(&mut self) {
        if self.heap.len() + self.fresh.len() > self.most {
            self.fresh.extend(self.heap.drain().map(|Reverse(candidate)| candidate));
            self.drop_far();
        }
        self.heap.extend(self.fresh.drain(..).map(Reverse));
    }

    /// Keeps the nearest candidates of those that were added.
    fn drop_far(&mut self) {
        let (_, nearest_dropped, _) = self.fresh.select_nth_unstable(self.most);
        let bound = nearest_dropped.lower;
        self.dropped = Some(self.dropped.map_or(bound, |dropped| dropped.min(bound)));
        self.fresh.truncate(self.most);
    }

    /// Takes the nearest one.
    pub fn pop(&mut self) -> Option<Tid> {
        self.heap.pop().map(|Reverse(candidate)| Tid { block: candidate.block, offset: candidate.offset })
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.heap.clear();
        self.dropped = None;
    }

    /// The least bound of all that nobody has looked at.
    pub fn least(&self) -> Option<f32> {
        let nearest = self.heap.peek().map(|Reverse(candidate)| candidate.lower);
        match (nearest, self.dropped) {
            (Some(nearest), Some(dropped)) => Some(nearest.min(dropped)),
            (nearest, dropped) => nearest.or(dropped),
        }
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

    /// Adds an estimate of a row in a list.
    pub fn add(&mut self, estimate: f32, list: usize) -> Result<(), PageError> {
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
            memory::push(&mut self.all, (estimate, list as u32))?;
        }
        Ok(())
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

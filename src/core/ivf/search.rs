//! A search: rows in the order of their exact distance, found by the bounds of their codes, for as long as the caller asks.
//!
//! Rows wait in a heap by the lower bound of their distance. The nearest is looked at in the table, and a row comes out once
//! its exact distance is not above the next lower bound. Lists are read from the nearest centroid on, until
//! [`Options::patience`] lists in a row have brought nothing among the best estimates, of which there are as many as rows
//! have come out, and ten at least; whoever asks for more rows makes it go on. Rows without a code are looked at first.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashSet};

use zeroize::{Zeroize, Zeroizing};

use crate::core::memory;
use crate::core::vector::quantiser::{BATCH, Bound, EPSILON, Query, Toward};

use super::candidates::{Best, Candidates, ordered};
use super::index::Index;
use super::layout::{PAGE_BYTES, PageBytes};
use super::list;
use super::meta::Meta;
use super::page::{self, Kind, PageError, Rows as PageRows, Tid};
use super::source::{Pages, Rows};

/// Lists that are read at least.
const LEAST_LISTS: usize = 8;

/// What becomes of a row that turns out to be nearer than one that came out already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// It comes after all others, so no row is missing and only a short answer has rows out of order.
    AtEnd,
    /// It does not come.
    Never,
    /// It comes at once, out of order.
    AtOnce,
}

/// How to search.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Standard errors that a bound lies below its estimate: the more, the fewer rows are missed and the more are looked at.
    pub epsilon: f32,
    /// Lists in a row that may bring nothing.
    pub patience: usize,
    /// What becomes of late rows.
    pub late: Late,
    /// Rows that are looked at in the table, at most.
    pub most_visits: u64,
    /// Rows that wait in memory to be looked at, 16 bytes each, at most and one at least; when they are used up, the pages
    /// are read again for those that were farther.
    pub most_candidates: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            epsilon: EPSILON,
            patience: 24,
            late: Late::AtEnd,
            most_visits: u64::MAX,
            most_candidates: 1 << 19,
        }
    }
}

/// A row that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Where it is.
    pub tid: Tid,
    /// Its exact distance.
    pub distance: f64,
}

/// What a search has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effort {
    /// Lists that were read.
    pub lists: u64,
    /// Pages that were read.
    pub pages: u64,
    /// Rows that were scored by their codes.
    pub scored: u64,
    /// Rows that were looked at in the table.
    pub visits: u64,
}

/// A search that goes on as long as rows are asked for.
pub struct Search {
    meta: Meta,
    options: Options,
    /// Nothing is nearer than another to NULL or, under the cosine, to zero.
    query: Option<Query>,
    /// Lists by the distance of their centroids, and how many of them were read.
    ranked: Ranked,
    read: usize,
    started: bool,
    /// While pages are read again: the least bound of the rows there was no room for.
    again: Option<f32>,
    candidates: Candidates,
    best: Best,
    waiting: BinaryHeap<Reverse<Exact>>,
    seen: HashSet<Tid>,
    late: BinaryHeap<Reverse<Exact>>,
    last: f64,
    emitted: usize,
    effort: Effort,
    /// The page that was read; a closed one is opened where it stands.
    page: Box<Zeroizing<PageBytes>>,
    /// The rows of an open one, in the clear.
    blocks: Zeroizing<Vec<u8>>,
    /// Is anything in the clear?
    is_opened: bool,
}

/// Lists in the order of their centroids' distance, of which the first are in order.
struct Ranked {
    lists: Vec<RankedList>,
    in_order: usize,
}

#[derive(Clone, Copy)]
struct RankedList {
    list: u32,
    first: Option<u32>,
    toward: Option<Toward>,
}

#[derive(Clone, Copy)]
struct Exact(Hit);

impl Search {
    /// A search for the rows nearest to `query`, a vector of the index's dimensions; without one, for all rows. It keeps
    /// nothing of the index that is secret: a search may wait longer than keys may be kept.
    pub fn new(index: &Index, query: Option<&[f32]>, options: Options) -> Self {
        let quantiser = index.quantiser();
        let query = query.and_then(|query| quantiser.prepare(query));
        let query = query.map(|query| quantiser.query(query, options.epsilon));
        Search {
            meta: *index.meta(),
            options,
            ranked: Ranked::new(index, query.as_ref()),
            query,
            read: 0,
            started: false,
            again: None,
            candidates: Candidates::new(options.most_candidates.max(1)),
            best: Best::new(),
            waiting: BinaryHeap::new(),
            seen: HashSet::new(),
            late: BinaryHeap::new(),
            last: f64::NEG_INFINITY,
            emitted: 0,
            effort: Effort::default(),
            page: Box::new(Zeroizing::new([0; PAGE_BYTES])),
            blocks: Zeroizing::default(),
            is_opened: false,
        }
    }

    /// What it has done.
    pub fn effort(&self) -> Effort {
        self.effort
    }

    /// The next row. After an error the search is over.
    pub fn next<R: Rows>(&mut self, source: &mut R) -> Result<Option<Hit>, R::Error> {
        let next = self.find_next(source);
        if std::mem::take(&mut self.is_opened) {
            self.page.zeroize();
            self.blocks.zeroize();
        }
        next
    }

    fn find_next<R: Rows>(&mut self, source: &mut R) -> Result<Option<Hit>, R::Error> {
        self.gather(source)?;
        loop {
            if let Some(hit) = self.settled() {
                if let Some(hit) = self.in_order(hit) {
                    self.emitted += 1;
                    return Ok(Some(hit));
                }
            } else if self.effort.visits >= self.options.most_visits && self.candidates.least().is_some() {
                self.candidates.clear();
            } else if let Some(tid) = self.candidates.pop() {
                self.visit(source, tid)?;
            } else if !self.read_more(source)? {
                return Ok(self.late.pop().map(|Reverse(Exact(hit))| hit));
            }
        }
    }

    /// Reads the rows without a code, once, and lists as long as they bring something.
    fn gather<R: Rows>(&mut self, source: &mut R) -> Result<(), R::Error> {
        if !self.started {
            self.started = true;
            self.read_unassigned(source)?;
        }
        self.best.want(self.emitted + 1);
        while self.read < self.ranked.lists.len() && !self.is_enough() {
            self.read_next_list(source)?;
        }
        Ok(())
    }

    fn is_enough(&self) -> bool {
        self.read >= LEAST_LISTS.max(self.best.gain + self.options.patience + 1)
    }

    /// What is left to be read when all candidates are used up; `false` where nothing is.
    fn read_more<R: Rows>(&mut self, source: &mut R) -> Result<bool, R::Error> {
        if self.effort.visits >= self.options.most_visits {
            return Ok(false);
        }
        if let Some(floor) = self.candidates.take_dropped() {
            self.read_again(source, floor)?;
            return Ok(true);
        }
        let is_left = self.read < self.ranked.lists.len();
        if is_left {
            self.read_next_list(source)?;
        }
        Ok(is_left)
    }

    /// Reads everything again for the candidates that there was no room for.
    fn read_again<R: Rows>(&mut self, source: &mut R, floor: f32) -> Result<(), R::Error> {
        self.again = Some(floor);
        self.read_unassigned(source)?;
        for number in 0..self.read {
            self.read_list(source, number)?;
        }
        self.again = None;
        self.candidates.shrink();
        Ok(())
    }

    fn read_next_list<R: Rows>(&mut self, source: &mut R) -> Result<(), R::Error> {
        self.read_list(source, self.read)?;
        self.candidates.shrink();
        self.read += 1;
        self.effort.lists += 1;
        Ok(())
    }

    fn read_unassigned<R: Rows>(&mut self, source: &mut R) -> Result<(), R::Error> {
        let mut chain = Walk::new(self.meta.unassigned.first);
        while let Some(block) = chain.next {
            source.read(block, &mut self.page)?;
            self.effort.pages += 1;
            let rows = PageRows::parse(&self.page, &self.meta.layout)?;
            chain.go_on(rows.head().kind == Kind::Unassigned, rows.head().next, source)?;
            self.add_unscored()?;
        }
        self.candidates.shrink();
        Ok(())
    }

    /// Reads the list that is `number`th by distance.
    fn read_list<R: Rows>(&mut self, source: &mut R, number: usize) -> Result<(), R::Error> {
        let RankedList { list, first, toward } = self.ranked.get(number);
        let mut chain = Walk::new(first);
        while let Some(block) = chain.next {
            source.read(block, &mut self.page)?;
            self.effort.pages += 1;
            let head = page::head(&self.page)?;
            let belongs =
                head.kind == Kind::List && head.list == list && head.generation == self.meta.generation;
            chain.go_on(belongs, head.next, source)?;
            match toward {
                Some(toward) if head.rows > 0 => self.score(source, block, number, toward)?,
                _ => self.add_unscored()?,
            }
        }
        Ok(())
    }

    /// Adds the rows of the page that was read, about which nothing is known.
    fn add_unscored(&mut self) -> Result<(), PageError> {
        let rows = PageRows::parse(&self.page, &self.meta.layout)?;
        let unknown = Bound { estimate: f32::INFINITY, lower: f32::NEG_INFINITY };
        self.candidates.reserve(rows.head().rows.into())?;
        for (tid, _) in rows.iter().filter(|(_, dead)| !dead) {
            if is_wanted(self.again, &self.seen, f32::NEG_INFINITY, tid) {
                self.candidates.add(unknown, tid);
            }
        }
        Ok(())
    }

    /// Scores the rows of the page that was read.
    fn score<R: Rows>(
        &mut self,
        source: &mut R,
        block: u32,
        number: usize,
        toward: Toward,
    ) -> Result<(), R::Error> {
        let (layout, Some(query)) = (self.meta.layout, self.query.as_mut()) else { return Ok(()) };
        let key = source.key(page::head(&self.page)?.version)?;
        self.is_opened = true;
        let (rows, blocks) = list::open_in_place(&mut self.page, block, &key, &mut self.blocks)?;
        self.effort.scored += u64::from(rows.head().rows);
        // Of a single list no estimate decides anything.
        let counts = self.again.is_none() && self.ranked.lists.len() > 1;
        self.candidates.reserve(rows.head().rows.into())?;
        self.best.reserve(if counts { rows.head().rows.into() } else { 0 })?;
        let width = layout.rows.width;
        let mut bounds = [Bound::default(); BATCH];
        for (block, starts) in blocks.chunks_exact(layout.rows.block_bytes()).zip((0..).step_by(width)) {
            query.score(&layout.rows, block, toward, &mut bounds);
            let bounds = &bounds[..width];
            if !counts && self.candidates.are_far(bounds) {
                continue;
            }
            // The last block has fewer rows than bounds.
            for ((tid, dead), bound) in rows.iter().skip(starts).zip(bounds) {
                if !dead && is_wanted(self.again, &self.seen, bound.lower, tid) {
                    self.candidates.add(*bound, tid);
                }
                if !dead && counts {
                    self.best.add(bound.estimate, number);
                }
            }
        }
        Ok(())
    }

    fn visit<R: Rows>(&mut self, source: &mut R, tid: Tid) -> Result<(), R::Error> {
        self.seen.try_reserve(1).map_err(|_| PageError::OutOfMemory(memory::OutOfMemory))?;
        // A row can stand in two lists: one that moves is in the new place first.
        if !self.seen.insert(tid) {
            return Ok(());
        }
        self.effort.visits += 1;
        if let Some(distance) = source.distance(tid)? {
            // NaN comes last, whatever its sign.
            let distance = if distance.is_nan() { f64::NAN } else { distance };
            self.waiting.push(Reverse(Exact(Hit { tid, distance })));
        }
        Ok(())
    }

    /// The nearest row that was looked at, where no candidate can be nearer.
    fn settled(&mut self) -> Option<Hit> {
        let Reverse(Exact(nearest)) = self.waiting.peek()?;
        let is_settled = match (self.candidates.least(), &self.query) {
            (Some(bound), Some(query)) => nearest.distance <= query.distance(bound),
            _ => true,
        };
        is_settled.then(|| self.waiting.pop()).flatten().map(|Reverse(Exact(hit))| hit)
    }

    /// The row, unless it is late and has to wait or go.
    fn in_order(&mut self, hit: Hit) -> Option<Hit> {
        let is_late = hit.distance < self.last;
        if !is_late {
            self.last = hit.distance;
            return Some(hit);
        }
        match self.options.late {
            Late::AtEnd => {
                self.late.push(Reverse(Exact(hit)));
                None
            }
            Late::Never => None,
            Late::AtOnce => Some(hit),
        }
    }
}

/// Is the row to be a candidate? The first time each is; the next time those that were neither kept nor looked at.
fn is_wanted(again: Option<f32>, seen: &HashSet<Tid>, lower: f32, tid: Tid) -> bool {
    again.is_none_or(|floor| lower >= floor && !seen.contains(&tid))
}

impl Ranked {
    /// Lists that are put in order first; then twice as many each time. Most searches read fewer.
    const FIRST: usize = 64;

    fn new(index: &Index, query: Option<&Query>) -> Self {
        let ranked = |list| RankedList {
            list: list as u32,
            first: index.chain(list).first,
            toward: query.map(|query| query.toward(index.centroid(list))),
        };
        Ranked { lists: (0..index.lists()).map(ranked).collect(), in_order: 0 }
    }

    /// The list that is `number`th by distance.
    fn get(&mut self, number: usize) -> RankedList {
        let base = |ranked: &RankedList| ranked.toward.map_or(0.0, Toward::base);
        let by_distance = |a: &RankedList, b: &RankedList| base(a).total_cmp(&base(b));
        while self.in_order <= number {
            let more = self.in_order.max(Self::FIRST).min(self.lists.len() - self.in_order);
            let rest = &mut self.lists[self.in_order..];
            if more < rest.len() {
                rest.select_nth_unstable_by(more, by_distance);
            }
            rest[..more].sort_by(by_distance);
            self.in_order += more;
        }
        self.lists[number]
    }
}

/// Along a chain of pages, of which there are no more than blocks.
struct Walk {
    next: Option<u32>,
    pages: u32,
    blocks: u32,
}

impl Walk {
    fn new(first: Option<u32>) -> Self {
        Walk { next: first, pages: 0, blocks: 0 }
    }

    fn go_on<P: Pages>(&mut self, belongs: bool, next: Option<u32>, source: &mut P) -> Result<(), P::Error> {
        if !belongs {
            return Err(PageError::Malformed("a page of another list").into());
        }
        self.pages += 1;
        if self.pages > self.blocks {
            // An index grows while it is read.
            self.blocks = source.blocks()?;
        }
        if self.pages > self.blocks {
            return Err(PageError::Malformed("a chain without an end").into());
        }
        self.next = next;
        Ok(())
    }
}

ordered!(Exact, |a, b| a.0.distance.total_cmp(&b.0.distance).then(a.0.tid.cmp(&b.0.tid)));

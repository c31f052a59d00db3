//! Scans: rows in the order of their distance, which is computed from the rows themselves.

use zeroize::Zeroizing;

use crate::core::ivf::key::HeldPageKey;
use crate::core::ivf::layout::PageBytes;
use crate::core::ivf::page::Tid;
use crate::core::ivf::search::Search;
use crate::core::ivf::source;
use crate::core::vector::distance::{Metric, norm};
use crate::pg::counters::{self, Counter};
use crate::pg::error::PgError;
use crate::pg::ivf::keys::Keys;
use crate::pg::ivf::pages::{self, Trouble};
use crate::pg::ivf::shape;
use crate::pg::raw::datum::detoast;
use crate::pg::raw::index_am::{Effort, Order};
use crate::pg::raw::index_page::{Bytes, Index};
use crate::pg::raw::index_rows::Rows;
use crate::pg::raw::xact;
use crate::pg::session::{self, Checked, Privilege};
use crate::pg::settings;
use crate::pg::values::plain_vector;
use crate::pg::values::seal::{self, VECTOR};
use crate::pg::values::vector::Reader;

/// What a scan keeps.
pub struct Scan {
    index: Index,
    keyring: i32,
    question: Option<Question>,
    /// `None` before the first row was asked for.
    running: Option<Running>,
    /// What has been done: lists read, rows scored, rows visited, as counters have them.
    done: [u64; 3],
}

/// What the rows are compared with; there is none for NULL, to which nothing has a distance.
struct Question {
    metric: Metric,
    keyring: i32,
    query: Zeroizing<Vec<f32>>,
    /// Nothing has a direction beside it.
    is_zero: bool,
    checked: Checked,
    reader: Reader,
}

struct Running {
    search: Search,
    keys: Keys,
}

impl Scan {
    /// A scan that has not started.
    pub fn new(index: Index) -> Self {
        Scan { index, keyring: 0, question: None, running: None, done: [0; 3] }
    }

    /// It starts, or starts anew.
    pub fn restart(&mut self, order: &Order) -> Result<(), PgError> {
        self.running = None;
        self.keyring = shape::keyring(self.index)?;
        let question = order
            .argument
            .map(|query| Question::new(shape::metric(self.index)?, self.keyring, detoast(query).bytes()));
        self.question = question.transpose()?;
        self.permit()
    }

    /// The next row. The role may have changed since the one before: a cursor leaves the function that opened it.
    pub fn next(&mut self, rows: &mut Rows) -> Result<Option<Tid>, PgError> {
        self.permit()?;
        let mut running = match self.running.take() {
            Some(running) => running,
            None => self.start()?,
        };
        let mut source = Source::new(self.index, &running.keys, self.question.as_mut(), rows);
        let before = running.search.effort();
        let hit = running.search.next(&mut source);
        let block = source.block;
        let done = running.search.effort();
        self.count([done.lists - before.lists, done.scored - before.scored, done.visits - before.visits]);
        let hit = hit.map_err(|trouble| trouble.named(self.index, block))?;
        self.running = Some(running);
        Ok(hit.map(|hit| hit.tid))
    }

    fn count(&mut self, more: [u64; 3]) {
        let names = [Counter::IndexLists, Counter::IndexRowsScored, Counter::IndexRowsVisited];
        for ((count, name), more) in self.done.iter_mut().zip(names).zip(more) {
            *count += more;
            counters::add(name, more);
        }
    }

    /// For EXPLAIN (ANALYZE).
    pub fn effort(&self) -> Effort {
        [c"Index Lists Read", c"Index Rows Scored", c"Index Rows Visited"]
            .into_iter()
            .zip(self.done)
            .collect()
    }

    /// The snapshot has been taken by now: what it sees is in the pages that are read from here on.
    fn start(&mut self) -> Result<Running, PgError> {
        let meta = pages::meta(self.index, &mut Bytes::boxed())?;
        let keys = Keys::new(&meta, self.keyring);
        if let Some(question) = &self.question
            && question.query.len() != meta.layout.dimensions
        {
            return Err(PgError::DifferentDimensions(meta.layout.dimensions, question.query.len()));
        }
        let lists = shape::lists(self.index, &meta, &keys)?;
        let query = self.question.as_ref().map(|question| question.query.as_slice());
        Ok(Running { search: Search::new(&lists, query, settings::ivf_options()), keys })
    }

    /// Distances to chosen points give a vector away.
    fn permit(&mut self) -> Result<(), PgError> {
        let Some(question) = &mut self.question else { return Ok(()) };
        question.checked.start();
        question.checked.require(&*session::keyring(question.keyring)?, Privilege::Decrypt)
    }
}

impl Question {
    fn new(metric: Metric, keyring: i32, query: &[u8]) -> Result<Self, PgError> {
        let query = Zeroizing::new(plain_vector::elements(query)?);
        let is_zero = norm(&query) == 0.0;
        Ok(Question {
            metric,
            keyring,
            query,
            is_zero,
            checked: Checked::default(),
            reader: Reader::default(),
        })
    }

    /// `None` for what has no direction: as in pgvector's, it is in no index of cosines.
    fn distance(&mut self, value: &[u8]) -> Result<Option<f64>, PgError> {
        let value = seal::locate_to_read(value, &VECTOR, &mut self.checked)?;
        let elements = self.reader.read(value)?;
        if elements.len() != self.query.len() {
            return Err(PgError::DifferentDimensions(elements.len(), self.query.len()));
        }
        let distance = self.metric.distance(elements, &self.query);
        Ok((self.is_zero || !distance.is_nan()).then_some(distance))
    }
}

/// The index and its table, for one step of a search: between two of them no key is kept here.
struct Source<'a> {
    index: Index,
    keys: &'a Keys,
    /// Of the page before.
    key: Option<HeldPageKey>,
    question: Option<&'a mut Question>,
    rows: &'a mut Rows,
    /// The page that was read last.
    block: u32,
    /// How many there are, as far as is known.
    pages: u32,
}

impl<'a> Source<'a> {
    fn new(index: Index, keys: &'a Keys, question: Option<&'a mut Question>, rows: &'a mut Rows) -> Self {
        Source { index, keys, key: None, question, rows, block: 0, pages: 0 }
    }
}

impl source::Pages for Source<'_> {
    type Error = Trouble;

    fn blocks(&mut self) -> Result<u32, Trouble> {
        Ok(self.index.pages())
    }

    fn read(&mut self, block: u32, page: &mut PageBytes) -> Result<(), Trouble> {
        xact::check_interrupts();
        self.block = block;
        pages::read(self.index, block, page, &mut self.pages)
    }

    fn key(&mut self, version: u16) -> Result<HeldPageKey, Trouble> {
        match self.key.take().filter(|key| key.version() == version) {
            Some(key) => Ok(self.key.insert(key).clone()),
            None => Ok(self.key.insert(self.keys.of_version(version)?).clone()),
        }
    }
}

impl source::Rows for Source<'_> {
    fn distance(&mut self, tid: Tid) -> Result<Option<f64>, Trouble> {
        xact::check_interrupts();
        let question = &mut self.question;
        let distance = self.rows.read(tid, |value| match question {
            Some(question) => question.distance(detoast(value).bytes()),
            None => Ok(Some(0.0)),
        });
        Ok(distance.map_err(|error| error.of_row(self.index.name(), tid))?.flatten())
    }
}

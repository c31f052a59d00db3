//! The exact half of a search: an opened filter is asked of decrypted values.

use std::rc::Rc;

use pgrx::pg_sys;

use crate::core::between::Between;
use crate::core::filter::{Filter, Identity};
use crate::core::header::{Content, parse_head};
use crate::core::memory::{self, OutOfMemory};
use crate::core::policy::Policy;
use crate::core::question::Question;
use crate::core::range::Reading;
use crate::core::text_query::{Accessor, Link, TextQuery};
use crate::pg::catalog::Keyring;
use crate::pg::error::PgError;
use crate::pg::raw::array;
use crate::pg::raw::datum::Owned;
use crate::pg::raw::jsonb::{self, Function};
use crate::pg::search::filters;
use crate::pg::session::Checked;
use crate::pg::settings;
use crate::pg::values::accessor;
use crate::pg::values::seal::{self, Kind};

/// A decrypted value whose room is used again for the next, and what the role may look at.
#[derive(Default)]
pub struct OpenDocument {
    /// The value as a datum: jsonb or text.
    pub document: Owned,
    /// Of its keyring.
    pub checked: Checked,
    /// The keyring and index key version.
    made_by: Option<(Rc<Keyring>, u16)>,
}

impl OpenDocument {
    /// How the loaded value's times are read.
    pub fn reading(&self, between: &Between) -> Reading {
        let made_by = self.made_by.as_ref();
        made_by.map_or(Reading::Iso8601, |(keyring, version)| keyring.reading(*version, &between.keys()))
    }

    /// Decrypts a value that the role looks into; the plaintext stays inside.
    pub fn load(
        &mut self,
        value: &[u8],
        kind: &Kind,
        declared: impl FnOnce(&Policy) -> Result<bool, PgError>,
    ) -> Result<(), PgError> {
        let located = seal::locate_to_look(value, kind, &mut self.checked, declared)?;
        self.made_by = Some((located.keyring.clone(), parse_head(value)?.0.index_version));
        match located.bare_length() {
            Some(length) => self.document.fill(length, |room| located.open_into(room)),
            None => {
                self.document = Owned::new(located.open()?.datum()?.bytes())?;
                Ok(())
            }
        }
    }
}

/// An opened filter, ready for the recheck.
pub struct OpenFilter {
    of: Option<Identity>,
    question: Question<Owned>,
    /// How the text in a document is reached, where the question is about one.
    way: Vec<Step>,
    value: OpenDocument,
}

impl Default for OpenFilter {
    fn default() -> Self {
        OpenFilter {
            of: None,
            question: Question::ContainsAny(Vec::new()),
            way: Vec::new(),
            value: OpenDocument::default(),
        }
    }
}

impl OpenFilter {
    /// Opens `filter`, only when it is another one than before.
    pub fn open(&mut self, filter: &Filter<'_>) -> Result<(), PgError> {
        let identity = filter.identity();
        if self.of == Some(identity) {
            return Ok(());
        }
        self.of = None;
        filters::with_question(filter, |question| {
            if let Question::Text(query) = &question {
                self.way = way_of(query)?;
            }
            self.question = match question.held_as(Owned::new)? {
                Question::Casefold(document) => Question::Casefold(jsonb::casefolded(&document)?),
                question => question,
            };
            Ok(())
        })?;
        self.of = Some(identity);
        Ok(())
    }

    /// Do the tokens of a value say that the answer is yes? `front` has its header and tokens, of a value whose tokens decide.
    /// The role must be one that may have it decrypted.
    pub fn is_decided(&mut self, filter: &Filter<'_>, front: &[u8], kind: &Kind) -> Result<bool, PgError> {
        let (head, section) = parse_head(front)?;
        let Some(tokens) = front.get(section.tokens()) else { return Ok(false) };
        if head.keyring != filter.keyring() || !filter.is_decided_by(tokens) || settings::rechecks_always() {
            return Ok(false);
        }
        self.require_kind(kind)?;
        seal::vouches_for(front, kind, &mut self.value.checked, |policy| {
            Ok(self.question.is_declared(policy)?)
        })
    }

    /// Decrypts a value for the recheck.
    pub fn load(&mut self, value: &[u8], kind: &Kind) -> Result<(), PgError> {
        self.require_kind(kind)?;
        self.value.load(value, kind, |policy| Ok(self.question.is_declared(policy)?))
    }

    /// Only our own operators get here with a filter of the other kind; jsonb's functions trust their input.
    fn require_kind(&self, kind: &Kind) -> Result<(), PgError> {
        if kind.holds(Content::Text) != self.question.is_of_text() {
            return Err(PgError::Argument("the filter is not one for values of this type".into()));
        }
        Ok(())
    }

    /// What the question's answer is for the loaded value; `None` is NULL.
    pub fn answer(&self) -> Result<Option<bool>, PgError> {
        let document = &self.value.document;
        Ok(match &self.question {
            Question::Contains(query) => Some(document.contains(query)),
            Question::ContainsAny(queries) => {
                let contained = queries.iter().flatten().any(|query| document.contains(query));
                (contained || !self.question.has_nulls()).then_some(contained)
            }
            Question::Casefold(query) => Some(jsonb::casefolded(document)?.contains(query)),
            Question::Text(query) => text_equals(query, &self.way, document),
            Question::Between(between) => Some(between.holds(document.bytes(), self.value.reading(between))?),
        })
    }
}

/// Compares the text in `value`, a jsonb or, for the whole, a text; NULL where there is none.
fn text_equals(query: &TextQuery<Owned>, way: &[Step], value: &Owned) -> Option<bool> {
    let Some((last, before)) = way.split_last() else { return query.answer(value.bytes()) };
    let mut document = value.datum();
    for step in before {
        document = step.part().varlena(document, step.argument())?.datum();
    }
    query.answer(last.text().varlena(document, last.argument())?.bytes())
}

/// One call of jsonb's functions behind an accessor, with its argument.
struct Step {
    accessor: Accessor,
    argument: Owned,
    /// The argument where it is passed by value.
    position: i32,
}

impl Step {
    fn part(&self) -> Function {
        accessor::functions(self.accessor).0
    }

    fn text(&self) -> Function {
        accessor::functions(self.accessor).1
    }

    fn argument(&self) -> pg_sys::Datum {
        if self.accessor == Accessor::Element { self.position.into() } else { self.argument.datum() }
    }

    fn of_field(key: &[u8]) -> Result<Self, OutOfMemory> {
        Ok(Step { accessor: Accessor::Field, argument: Owned::new(key)?, position: 0 })
    }

    fn of_element(digits: &[u8]) -> Self {
        let position = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        let position = position.unwrap_or_default();
        Step { accessor: Accessor::Element, argument: Owned::default(), position }
    }

    fn of_path(steps: &[&[u8]]) -> Result<Self, OutOfMemory> {
        let argument = Owned::new(array::of_texts(steps).bytes())?;
        Ok(Step { accessor: Accessor::Path, argument, position: 0 })
    }
}

/// The calls that reach the text; none where the value is the text.
fn way_of(query: &TextQuery<&[u8]>) -> Result<Vec<Step>, OutOfMemory> {
    let first = query.steps.first().copied().unwrap_or_default();
    match query.accessor {
        Accessor::Whole => Ok(Vec::new()),
        Accessor::Field => Ok(vec![Step::of_field(first)?]),
        Accessor::Element => Ok(vec![Step::of_element(first)]),
        Accessor::Path => Ok(vec![Step::of_path(&query.steps)?]),
        Accessor::Chain if query.steps.is_empty() => Ok(vec![Step::of_path(&[])?]),
        Accessor::Chain => {
            let links = query.steps.iter().filter_map(|step| Link::decode(step));
            memory::try_collect(links.map(|link| match link {
                Link::Field(key) => Step::of_field(key),
                Link::Element(digits) => Ok(Step::of_element(digits)),
                Link::Path(step) => Step::of_path(&[step]),
            }))
        }
    }
}

//! The exact half of a search: an opened filter is asked of decrypted values.

use std::rc::Rc;

use crate::core::between::Between;
use crate::core::filter::Filter;
use crate::core::header::{Content, parse_head};
use crate::core::memory::{self, OutOfMemory};
use crate::core::policy::Policy;
use crate::core::question::Question;
use crate::core::range::Reading;
use crate::core::text_query::{Accessor, TextQuery};
use crate::pg::catalog::Keyring;
use crate::pg::error::PgError;
use crate::pg::raw::array;
use crate::pg::raw::datum::Owned;
use crate::pg::raw::jsonb;
use crate::pg::search::filters;
use crate::pg::session::Checked;
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
    bytes: Vec<u8>,
    question: Question<Owned>,
    /// What jsonb's function behind the accessor takes, where the question is about a text in a document.
    argument: Owned,
    value: OpenDocument,
}

impl Default for OpenFilter {
    fn default() -> Self {
        OpenFilter {
            bytes: Vec::new(),
            question: Question::ContainsAny(Vec::new()),
            argument: Owned::default(),
            value: OpenDocument::default(),
        }
    }
}

impl OpenFilter {
    /// Opens `filter`, only when it is another one than before.
    pub fn open(&mut self, filter: &Filter<'_>, bytes: &[u8]) -> Result<(), PgError> {
        if self.bytes == bytes {
            return Ok(());
        }
        self.bytes.clear();
        filters::with_question(filter, |question| {
            if let Question::Text(query) = &question {
                self.argument = argument_of(query)?;
            }
            self.question = match question.held_as(Owned::new)? {
                Question::Casefold(document) => Question::Casefold(jsonb::casefolded(&document)?),
                question => question,
            };
            Ok(())
        })?;
        self.bytes = memory::copy(bytes)?;
        Ok(())
    }

    /// Decrypts a value for the recheck.
    pub fn load(&mut self, value: &[u8], kind: &Kind) -> Result<(), PgError> {
        // Only our own operators get here with a filter of the other kind; jsonb's functions trust their input.
        if kind.holds(Content::Text) != self.question.is_of_text() {
            return Err(PgError::Argument("the filter is not one for values of this type".into()));
        }
        self.value.load(value, kind, |policy| Ok(self.question.is_declared(policy)?))
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
            Question::Text(query) => text_equals(query, &self.argument, document),
            Question::Between(between) => Some(between.holds(document.bytes(), self.value.reading(between))?),
        })
    }
}

/// Compares the text in `value`, a jsonb or, for the whole, a text; NULL where there is none.
fn text_equals(query: &TextQuery<Owned>, argument: &Owned, value: &Owned) -> Option<bool> {
    let argument = match query.accessor {
        Accessor::Whole => return Some(value.bytes() == query.text.bytes()),
        Accessor::Field | Accessor::Path => argument.datum(),
        Accessor::Element => position(query).into(),
    };
    let (_, as_text) = accessor::functions(query.accessor);
    as_text.varlena(value.datum(), argument).map(|text| text.bytes() == query.text.bytes())
}

fn position(query: &TextQuery<Owned>) -> i32 {
    let digits = query.steps.first().and_then(|step| std::str::from_utf8(step.bytes()).ok());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_default()
}

/// A position is passed by value and is not among these.
fn argument_of(query: &TextQuery<&[u8]>) -> Result<Owned, OutOfMemory> {
    match query.accessor {
        Accessor::Field => Owned::new(query.steps.first().copied().unwrap_or_default()),
        Accessor::Path => Owned::new(array::of_texts(&query.steps).bytes()),
        Accessor::Element | Accessor::Whole => Ok(Owned::default()),
    }
}

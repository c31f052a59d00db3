//! What a filter asks of a value: one shape, from the arguments in SQL to the exact answer.
//!
//! Inside a filter one document is sealed as it is, and several each after its length (u32 big-endian), of which an empty
//! one is NULL; how the other questions are sealed stands in [`super::text_query`] and [`super::between`].

use zeroize::Zeroizing;

use super::between::Between;
use super::bytes::{Reader, UnknownCode, prefixed_bytes, put_prefixed};
use super::groups::{Groups, MAX_ALTERNATIVES, QueryVersion, any_group, groups, leaf_group, range_group};
use super::jsonb::{JsonbError, is_empty};
use super::memory::{self, OutOfMemory};
use super::policy::Policy;
use super::text_query::TextQuery;
use super::token::{QueryLeaves, query_leaves};

/// A question; `D` holds its documents and texts, borrowed or ready for who answers.
#[derive(PartialEq, Eq)]
pub enum Question<D> {
    /// Does the value contain this jsonb document?
    Contains(D),
    /// Does it contain one of these? With a NULL, `None`, the answer is NULL in place of no.
    ContainsAny(Vec<Option<D>>),
    /// Is the text at a place of it one of these? With a NULL among them the answer is NULL in place of no.
    Text(TextQuery<D>),
    /// Does it contain this jsonb document, strings compared without looking at case?
    Casefold(D),
    /// Is a number or time at a path of it between bounds?
    Between(Between),
}

/// Which question it is, as the header of a filter says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum QuestionKind {
    /// [`Question::Contains`].
    Contains = 1,
    /// [`Question::ContainsAny`].
    ContainsAny = 2,
    /// [`Question::Text`].
    Text = 3,
    /// [`Question::Casefold`].
    Casefold = 4,
    /// [`Question::Between`].
    Between = 5,
}

impl TryFrom<u8> for QuestionKind {
    type Error = UnknownCode;

    fn try_from(code: u8) -> Result<Self, UnknownCode> {
        match code {
            1 => Ok(QuestionKind::Contains),
            2 => Ok(QuestionKind::ContainsAny),
            3 => Ok(QuestionKind::Text),
            4 => Ok(QuestionKind::Casefold),
            5 => Ok(QuestionKind::Between),
            _ => Err(UnknownCode),
        }
    }
}

impl<D: AsRef<[u8]>> Question<D> {
    /// Which question it is.
    pub fn kind(&self) -> QuestionKind {
        match self {
            Question::Contains(_) => QuestionKind::Contains,
            Question::ContainsAny(_) => QuestionKind::ContainsAny,
            Question::Text(_) => QuestionKind::Text,
            Question::Casefold(_) => QuestionKind::Casefold,
            Question::Between(_) => QuestionKind::Between,
        }
    }

    /// The answer is NULL in place of no.
    pub fn has_nulls(&self) -> bool {
        match self {
            Question::ContainsAny(documents) => documents.iter().any(Option::is_none),
            Question::Text(query) => query.has_null,
            _ => false,
        }
    }

    /// It asks for one of an empty list.
    pub fn is_empty_list(&self) -> bool {
        match self {
            Question::ContainsAny(documents) => documents.is_empty(),
            Question::Text(query) => query.texts.is_empty() && !query.has_null,
            _ => false,
        }
    }

    /// It asks for an empty object or array, which all others contain.
    pub fn is_of_every_container(&self) -> bool {
        matches!(self, Question::Contains(document) if is_empty(document.as_ref()))
    }

    /// It is about a text as a whole, not about a document.
    pub fn is_of_text(&self) -> bool {
        matches!(self, Question::Text(query) if query.is_whole())
    }

    /// Is all that it asks about searchable?
    pub fn is_declared(&self, policy: &Policy) -> Result<bool, JsonbError> {
        match self {
            Question::Contains(document) | Question::Casefold(document) => policy.declares(document.as_ref()),
            Question::ContainsAny(documents) => documents
                .iter()
                .flatten()
                .try_fold(true, |declared, document| Ok(declared && policy.declares(document.as_ref())?)),
            Question::Text(query) => Ok(query.is_declared(policy)),
            Question::Between(between) => Ok(between.is_declared(policy)),
        }
    }

    /// What a filter with it narrows by, under all index key versions of a keyring.
    pub fn groups(&self, keyring: i32, versions: &[QueryVersion<'_>]) -> Result<Groups, JsonbError> {
        Ok(match self {
            Question::Contains(document) => groups(keyring, versions, &query_leaves(document.as_ref())?),
            Question::ContainsAny(documents) => match alternatives(documents)? {
                Some(alternatives) => any_group(keyring, versions, &alternatives),
                None => Groups::default(),
            },
            Question::Text(query) => match query.leaves() {
                Some(leaves) => leaf_group(keyring, versions, &leaves),
                None => Groups::default(),
            },
            Question::Casefold(document) => {
                groups(keyring, versions, &query_leaves(document.as_ref())?.folded())
            }
            Question::Between(between) => range_group(keyring, versions, between),
        })
    }

    /// The plaintext of a filter.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, OutOfMemory> {
        match self {
            Question::Contains(document) | Question::Casefold(document) => {
                memory::copy(document.as_ref()).map(Zeroizing::new)
            }
            Question::ContainsAny(documents) => encode_all(documents),
            Question::Text(query) => query.encode(),
            Question::Between(between) => Ok(between.encode()),
        }
    }

    /// The same question, with what `hold` makes of its documents and texts.
    pub fn held_as<H>(self, hold: impl Fn(D) -> Result<H, OutOfMemory>) -> Result<Question<H>, OutOfMemory> {
        Ok(match self {
            Question::Contains(document) => Question::Contains(hold(document)?),
            Question::ContainsAny(documents) => {
                let documents = documents.into_iter().map(|document| document.map(&hold).transpose());
                Question::ContainsAny(memory::try_collect(documents)?)
            }
            Question::Text(query) => Question::Text(query.held_as(hold)?),
            Question::Casefold(document) => Question::Casefold(hold(document)?),
            Question::Between(between) => Question::Between(between),
        })
    }
}

impl<'a> Question<&'a [u8]> {
    /// Reads what [`Question::encode`] wrote; `None` for anything else.
    pub fn decode(kind: QuestionKind, bytes: &'a [u8]) -> Result<Option<Self>, OutOfMemory> {
        Ok(match kind {
            QuestionKind::Contains => Some(Question::Contains(bytes)),
            QuestionKind::ContainsAny => decode_all(bytes)?.map(Question::ContainsAny),
            QuestionKind::Text => TextQuery::decode(bytes).map(Question::Text),
            QuestionKind::Casefold => Some(Question::Casefold(bytes)),
            QuestionKind::Between => Between::decode(bytes).map(Question::Between),
        })
    }
}

/// The scalars of each document; `None` for more documents than a filter narrows by.
fn alternatives<D: AsRef<[u8]>>(documents: &[Option<D>]) -> Result<Option<Vec<QueryLeaves>>, JsonbError> {
    if documents.iter().flatten().count() > MAX_ALTERNATIVES {
        return Ok(None);
    }
    documents
        .iter()
        .flatten()
        .map(|document| query_leaves(document.as_ref()))
        .collect::<Result<_, _>>()
        .map(Some)
}

fn encode_all<D: AsRef<[u8]>>(documents: &[Option<D>]) -> Result<Zeroizing<Vec<u8>>, OutOfMemory> {
    let bytes = || documents.iter().map(|document| document.as_ref().map_or(&[][..], AsRef::as_ref));
    let mut out = Zeroizing::new(memory::room(bytes().map(prefixed_bytes).sum())?);
    bytes().for_each(|document| put_prefixed(&mut out, document));
    Ok(out)
}

fn decode_all(bytes: &[u8]) -> Result<Option<Vec<Option<&[u8]>>>, OutOfMemory> {
    let (mut reader, mut documents) = (Reader::new(bytes), Vec::new());
    while !reader.is_empty() {
        let Some(document) = reader.prefixed() else { return Ok(None) };
        memory::push(&mut documents, (!document.is_empty()).then_some(document))?;
    }
    Ok(Some(documents))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::range::{Bounds, Domain, Scalar};
    use crate::core::text_query::Accessor;

    fn questions() -> Vec<Question<&'static [u8]>> {
        let texts = [Some(&b"x"[..]), None, Some(b"")];
        let text = TextQuery::of_list(Accessor::Path, vec![&b"a"[..], b""], texts).unwrap();
        let bounds = Bounds { domain: Domain::Times, low: Some(Scalar::Time(7)), high: None };
        vec![
            Question::Contains(b"document"),
            Question::ContainsAny(vec![Some(b"one"), None, Some(b"other")]),
            Question::ContainsAny(Vec::new()),
            Question::Text(text),
            Question::Casefold(b"document"),
            Question::Between(Between::new("$.a", bounds).unwrap()),
        ]
    }

    #[test]
    fn a_question_reads_back_as_it_was_asked() {
        for question in questions() {
            let bytes = question.encode().unwrap();
            assert!(Question::decode(question.kind(), &bytes).unwrap().as_ref() == Some(&question));
            assert_eq!(QuestionKind::try_from(question.kind() as u8), Ok(question.kind()));
        }
    }

    #[test]
    fn a_question_is_the_same_however_it_is_held() {
        for (question, again) in questions().into_iter().zip(questions()) {
            let held = question.held_as(memory::copy).unwrap();
            assert_eq!((held.kind(), held.encode()), (again.kind(), again.encode()));
        }
    }

    #[test]
    fn cut_documents_are_no_question() {
        let bytes = questions()[1].encode().unwrap();
        for end in [1, 3, 5, bytes.len() - 1] {
            assert!(Question::decode(QuestionKind::ContainsAny, &bytes[..end]) == Ok(None), "{end}");
        }
    }

    #[test]
    fn sealed_documents_stand_after_their_length_and_null_is_empty() {
        let question = Question::ContainsAny(vec![Some(&b"ab"[..]), None]);
        assert_eq!(**question.encode().unwrap(), *b"\0\0\0\x02ab\0\0\0\0");
        assert!(question.has_nulls());
        assert!(!Question::ContainsAny(vec![Some(&b"ab"[..])]).has_nulls());
    }
}

//! `encrypted_filter`: made from a query once per execution, matched against tokens without a key, and
//! opened again for the exact half.

use std::rc::Rc;

use zeroize::Zeroizing;

use crate::core::between::Between;
use crate::core::filter::{self, Binding, Filter, Parts, Query, join_documents};
use crate::core::groups::{
    Groups, MAX_ALTERNATIVES, QueryVersion, any_group, groups, leaf_group, range_group,
};
use crate::core::header::{Content, FormatError, parse_head};
use crate::core::memory::{self, OutOfMemory};
use crate::core::policy::Policy;
use crate::core::range::Reading;
use crate::core::text_query::{Accessor, TextQuery};
use crate::core::token::{QueryLeaf, Tokenizer, query_leaves};
use crate::pg::catalog::Keyring;
use crate::pg::counters::{self, Counter};
use crate::pg::error::PgError;
use crate::pg::raw::array;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::{Owned, Varlena, cstring, varlena};
use crate::pg::raw::{encoding, jsonb};
use crate::pg::session::{self, Looking};
use crate::pg::values::accessor::{self, TextAt};
use crate::pg::values::seal::{self, Kind};

/// Whose values a filter is for, and who said so.
#[derive(Clone, Copy)]
pub struct Target {
    /// The keyring whose keys make the filter.
    pub keyring: i32,
    /// Final, or looked at again in every execution.
    pub binding: Binding,
}

/// What was made from the last arguments of a call site, for which role and in which state of the session.
#[derive(Default)]
pub struct Remembered {
    now: Option<(pgrx::pg_sys::Oid, u64)>,
    inputs: Vec<Zeroizing<Vec<u8>>>,
    output: Option<Vec<u8>>,
}

impl Remembered {
    /// The output for `inputs`, made only where they or the session have changed.
    fn get(
        &mut self,
        inputs: &[&[u8]],
        make: impl FnOnce() -> Result<Option<Vec<u8>>, PgError>,
    ) -> Result<Option<&[u8]>, PgError> {
        if self.now != Some(session::now()) || !self.were(inputs) {
            self.inputs.clear();
            self.output = make()?;
            self.now = Some(session::now());
            // Without memory for them they are looked at anew.
            let copies = inputs.iter().map(|input| memory::copy(input).map(Zeroizing::new));
            self.inputs = copies.collect::<Result<_, _>>()?;
        }
        Ok(self.output.as_deref())
    }

    fn were(&self, inputs: &[&[u8]]) -> bool {
        self.inputs.len() == inputs.len() && self.inputs.iter().zip(inputs).all(|(kept, now)| **kept == **now)
    }
}

/// Makes the filter that asks `kind` about these documents, or about one encoded text query.
pub fn make(target: Target, kind: Query, documents: &[&[u8]]) -> Result<Vec<u8>, PgError> {
    session::catch_up_for_search(target.keyring, target.binding)?;
    seal(target, kind, documents)
}

/// The same for a plan, where `refresh` stands around the filter and looks for newer index keys in every execution.
pub fn make_planned(target: Target, kind: Query, documents: &[&[u8]]) -> Result<Vec<u8>, PgError> {
    session::catch_up();
    seal(target, kind, documents)
}

fn seal(target: Target, kind: Query, documents: &[&[u8]]) -> Result<Vec<u8>, PgError> {
    // Case is folded as Unicode says, and tokens with it.
    if kind == Query::Casefold && !encoding::is_utf8() {
        return Err(PgError::CaseNeedsUtf8);
    }
    let keyring = session::keyring(target.keyring)?;
    let asked: Vec<&[u8]> = documents.iter().copied().filter(|document| !document.is_empty()).collect();
    session::require_search(&keyring, |policy| is_declared(kind, &asked, policy))?;
    let groups = query_groups(&keyring, kind, &asked)?;
    let joined;
    let query = match kind {
        Query::ContainsAny => {
            joined = join_documents(documents)?;
            &joined
        }
        _ => documents.first().copied().unwrap_or_default(),
    };
    counters::count(Counter::FiltersMade);
    let data_version = keyring.active_data()?.version;
    let key = session::data_key(&keyring, data_version)?;
    let parts = Parts {
        keyring: keyring.id,
        binding: target.binding,
        data_version,
        index_version: keyring.newest_index(),
        kind,
        query,
        groups: &groups,
        nulls: asked.len() < documents.len(),
    };
    Ok(filter::seal(&key, &keyring.uuid, &parts)?)
}

/// Does the query ask about searchable paths only?
fn is_declared(kind: Query, documents: &[&[u8]], policy: &Policy) -> Result<bool, PgError> {
    match kind {
        Query::Text => Ok(text_query(documents)?.is_declared(policy)),
        Query::Between => Ok(between(documents)?.is_declared(policy)),
        Query::Contains | Query::ContainsAny | Query::Casefold => {
            all_declared(documents.iter().copied(), policy)
        }
    }
}

fn all_declared<'a>(mut documents: impl Iterator<Item = &'a [u8]>, policy: &Policy) -> Result<bool, PgError> {
    documents.try_fold(true, |declared, document| Ok(declared && policy.declares(document)?))
}

fn text_query<'a>(documents: &[&'a [u8]]) -> Result<TextQuery<'a>, PgError> {
    let query = documents.first().and_then(|query| TextQuery::decode(query));
    query.ok_or(PgError::Sealed(FormatError::UnknownContent))
}

fn between(documents: &[&[u8]]) -> Result<Between, PgError> {
    let query = documents.first().and_then(|query| Between::decode(query));
    query.ok_or(PgError::Sealed(FormatError::UnknownContent))
}

fn query_groups(keyring: &Keyring, kind: Query, documents: &[&[u8]]) -> Result<Groups, PgError> {
    // Only versions that still make tokens need their key.
    let live = keyring.index_keys.iter().filter(|(row, _)| row.state.opens());
    let keys = live
        .map(|(row, policy)| Ok((row.version, session::index_key(keyring, row)?, policy)))
        .collect::<Result<Vec<_>, PgError>>()?;
    let versions: Vec<QueryVersion<'_>> = keyring
        .index_keys
        .iter()
        .map(|(row, _)| {
            let live = keys.iter().find(|(version, ..)| *version == row.version);
            let tokenizer = live.map(|(_, key, policy)| Tokenizer { key, policy });
            QueryVersion { version: row.version, tokenizer }
        })
        .collect();
    if kind == Query::Text {
        let leaves = text_query(documents)?.leaves();
        return Ok(leaves.map_or_else(Groups::new, |leaves| leaf_group(keyring.id, &versions, &leaves)));
    }
    if kind == Query::Between {
        return Ok(range_group(keyring.id, &versions, &between(documents)?));
    }
    if documents.len() > MAX_ALTERNATIVES {
        return Ok(Groups::new());
    }
    let mut leaves =
        documents.iter().map(|document| query_leaves(document)).collect::<Result<Vec<_>, _>>()?;
    if kind == Query::Casefold {
        leaves =
            leaves.into_iter().map(|leaves| leaves.into_iter().map(QueryLeaf::folded).collect()).collect();
    }
    Ok(match kind {
        Query::ContainsAny => any_group(keyring.id, &versions, &leaves),
        _ => groups(keyring.id, &versions, leaves.first().map_or(&[][..], Vec::as_slice)),
    })
}

/// Where no column names the keyring: the session's choice, looked at again in every execution.
pub fn session_target() -> Result<Target, PgError> {
    Ok(Target { keyring: session::keyring_for_query()?, binding: Binding::Session })
}

/// A filter for the session's choice of keyring, or for values of every keyring.
fn make_for_session(kind: Query, documents: &[&[u8]]) -> Result<Vec<u8>, PgError> {
    session::catch_up();
    let made = make(session_target()?, kind, documents)?;
    match session::keyring_for_search()? {
        Some(_) => Ok(made),
        None => Ok(Filter::parse(&made)?.for_every_keyring()?),
    }
}

/// The filter for a keyring that the caller names, or for the session's.
pub fn make_named(name: Option<&str>, kind: Query, documents: &[&[u8]]) -> Result<Vec<u8>, PgError> {
    match name {
        Some(name) => make(fixed(session::keyring_id(name)?), kind, documents),
        None => make_for_session(kind, documents),
    }
}

/// The filter for the keyring that a rewrite has put there; 0 is the session's.
pub fn make_numbered(keyring: i32, kind: Query, documents: &[&[u8]]) -> Result<Vec<u8>, PgError> {
    match keyring {
        0 => make_for_session(kind, documents),
        keyring => make(fixed(keyring), kind, documents),
    }
}

/// `filter(jsonb, keyring text)`.
pub fn filter(call: Call) -> Returned {
    filter_of(call, Query::Contains)
}

/// A keyring argument as part of what a filter depends on; NULL is none of the names.
pub fn named_key(name: &Option<String>) -> Vec<u8> {
    name.as_ref().map_or_else(Vec::new, |name| [b"=", name.as_bytes()].concat())
}

fn filter_of(call: Call, kind: Query) -> Returned {
    let Some(query) = call.optional(0) else { return Ok(None) };
    let named = call.optional_text(1)?;
    remember(call, &[&named_key(&named), query.bytes()], || {
        make_named(named.as_deref(), kind, &[query.bytes()])
    })
}

/// `filter_casefold(jsonb, keyring text)`.
pub fn filter_casefold(call: Call) -> Returned {
    filter_of(call, Query::Casefold)
}

/// `filter_for(jsonb, keyring int4)`: what a rewritten operator with a parameter calls; 0 is the session's.
pub fn filter_for(call: Call) -> Returned {
    let (query, keyring) = (call.varlena(0), call.int4(1));
    remember(call, &[&keyring.to_be_bytes(), query.bytes()], || {
        make_numbered(keyring, Query::Contains, &[query.bytes()])
    })
}

/// `filter_text(accessor int4, steps text[], value text, keyring int4)`: what a rewritten `=` with a parameter
/// calls; keyring 0 is the session's.
pub fn filter_text(call: Call) -> Returned {
    let value = call.varlena(2);
    remember_text(call, value.bytes(), || encode_argument(call, value.bytes()))
}

/// `filter_text(accessor int4, steps text[], value encrypted_text, keyring int4)`.
pub fn filter_sealed_text(call: Call) -> Returned {
    let value = call.varlena(2);
    remember_text(call, value.bytes(), || {
        let value = accessor::open_literal(value.bytes())?;
        encode_argument(call, value.content())
    })
}

fn remember_text(
    call: Call,
    value: &[u8],
    encode: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, PgError>,
) -> Returned {
    let (steps, keyring) = (call.varlena(1), call.int4(3));
    let inputs = [&call.int4(0).to_be_bytes(), steps.bytes(), &keyring.to_be_bytes(), value];
    remember(call, &inputs, || make_numbered(keyring, Query::Text, &[&encode()?]))
}

fn encode_argument(call: Call, text: &[u8]) -> Result<Zeroizing<Vec<u8>>, PgError> {
    let accessor = Accessor::try_from(call.int4(0) as u8).unwrap_or(Accessor::Path);
    let steps = array::steps(call.datum(1))?.unwrap_or_default();
    let steps = memory::collect(steps.iter().map(Varlena::bytes))?;
    Ok(TextQuery { accessor, steps, text }.encode()?)
}

/// `filter_any(jsonb[], keyring text)`. As with ANY, no match is NULL where an element is.
pub fn filter_any(call: Call) -> Returned {
    if call.is_null(0) {
        return Ok(None);
    }
    let elements = array::documents(call.datum(0))?;
    let bytes = elements.iter().map(|element| element.as_ref().map_or(&[][..], Varlena::bytes));
    let documents = memory::collect(bytes)?;
    let named = call.optional_text(1)?;
    let joined = join_documents(&documents)?;
    remember(call, &[&named_key(&named), &joined], || {
        make_named(named.as_deref(), Query::ContainsAny, &documents)
    })
}

/// The keyring of a column or a caller.
fn fixed(keyring: i32) -> Target {
    Target { keyring, binding: Binding::Fixed }
}

/// The filter from the arguments that a call site had last, made anew where they or the session have changed.
pub fn remember(call: Call, inputs: &[&[u8]], make: impl FnOnce() -> Result<Vec<u8>, PgError>) -> Returned {
    call.with_cache(|remembered: &mut Remembered| {
        let made = remembered.get(inputs, || make().map(Some))?;
        Ok(made.map(|filter| varlena(filter).datum()))
    })
}

/// `refresh(encrypted_filter)`: the filter as it must be for this execution, the same one nearly always.
///
/// Looks at the index keys as of now and, where the session chose the keyring, at its choice as of now.
pub fn refresh(call: Call) -> Returned {
    let filter = call.varlena(0);
    call.with_cache(|remembered: &mut Remembered| {
        let renewed = remembered.get(&[filter.bytes()], || renew(filter.bytes()))?;
        Ok(Some(renewed.map_or(call.datum(0), |filter| varlena(filter).datum())))
    })
}

/// `None` where the filter is still right. It may have been made for a role that was allowed more.
fn renew(bytes: &[u8]) -> Result<Option<Vec<u8>>, PgError> {
    let filter = Filter::parse(bytes)?;
    session::catch_up_for_search(filter.keyring(), filter.binding())?;
    let chosen = match filter.binding() {
        Binding::Fixed => Some(filter.keyring()),
        Binding::Session => session::keyring_for_search()?,
    };
    let Some(keyring) = chosen else { return Ok(Some(filter.for_every_keyring()?)) };
    if keyring == filter.keyring() && !filter.every_keyring() {
        require_asking(&filter)?;
        if session::keyring(keyring)?.newest_index() == filter.index_version() {
            return Ok(None);
        }
    }
    remake(&filter, Target { keyring, binding: filter.binding() }).map(Some)
}

/// Refuses a role that may not ask what the filter asks.
fn require_asking(filter: &Filter<'_>) -> Result<(), PgError> {
    let keyring = session::keyring(filter.keyring())?;
    session::require_search(&keyring, |policy| {
        let query = open_query(filter)?;
        is_declared(filter.query(), &asked(filter, &query)?, policy)
    })
}

/// The documents of an opened query.
fn asked<'a>(filter: &Filter<'_>, query: &'a [u8]) -> Result<Vec<&'a [u8]>, OutOfMemory> {
    match filter.query() {
        Query::ContainsAny => memory::collect(filter::split_documents(query)),
        _ => Ok(vec![query]),
    }
}

/// `filter_in(encrypted_filter, keyring int4)`: a filter that names no keyring takes that of its column.
pub fn filter_in_column(call: Call) -> Returned {
    let (filter, column) = (call.varlena(0), call.int4(1));
    call.with_cache(|remembered: &mut Remembered| {
        let bound = remembered.get(&[&column.to_be_bytes(), filter.bytes()], || {
            let parsed = Filter::parse(filter.bytes())?;
            match parsed.binding() {
                Binding::Fixed => Ok(None),
                Binding::Session => remake(&parsed, fixed(column)).map(Some),
            }
        })?;
        Ok(Some(bound.map_or(call.datum(0), |filter| varlena(filter).datum())))
    })
}

/// The same query for another keyring or newer index keys.
pub fn remake(filter: &Filter<'_>, target: Target) -> Result<Vec<u8>, PgError> {
    let query = open_query(filter)?;
    make(target, filter.query(), &asked(filter, &query)?)
}

fn open_query(filter: &Filter<'_>) -> Result<Zeroizing<Vec<u8>>, PgError> {
    let keyring = session::keyring(filter.keyring())?;
    let key = session::data_key(&keyring, filter.data_version())?;
    Ok(filter.open(&key, &keyring.uuid)?)
}

/// An opened filter, ready for the recheck.
#[derive(Default)]
pub struct OpenFilter {
    bytes: Vec<u8>,
    question: Question,
    value: OpenDocument,
}

/// What a filter asks of the plaintext.
enum Question {
    /// Does it contain one of these documents? If not, the answer is the other.
    Contains(Vec<Owned>, Option<bool>),
    /// Is the text at a path this one?
    Text(TextAt),
    /// Does it, with all strings case-folded, contain this folded document?
    Casefold(Owned),
    /// Is a number or time at a path between bounds?
    Between(Between),
}

impl Default for Question {
    fn default() -> Self {
        Question::Contains(Vec::new(), Some(false))
    }
}

impl Question {
    fn is_declared(&self, policy: &Policy) -> Result<bool, PgError> {
        match self {
            Question::Contains(documents, _) => all_declared(documents.iter().map(Owned::bytes), policy),
            Question::Text(text) => text.is_declared(policy),
            Question::Casefold(document) => Ok(policy.declares(document.bytes())?),
            Question::Between(between) => Ok(between.is_declared(policy)),
        }
    }

    /// Of a text as a whole, not of a document.
    fn is_of_text(&self) -> bool {
        matches!(self, Question::Text(text) if text.is_whole())
    }
}

/// A decrypted value whose room is used again for the next, and what the role may look at.
#[derive(Default)]
pub struct OpenDocument {
    /// The value as a datum: jsonb or text.
    pub document: Owned,
    /// Of its keyring.
    pub looking: Looking,
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
        let located = seal::locate_to_look(value, kind, &mut self.looking, declared)?;
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

impl OpenFilter {
    /// Opens `filter`, only when it is another one than before.
    pub fn open(&mut self, filter: &Filter<'_>, bytes: &[u8]) -> Result<(), PgError> {
        if self.bytes == bytes {
            return Ok(());
        }
        let query = open_query(filter)?;
        self.bytes.clear();
        self.question = match filter.query() {
            Query::Contains => Question::Contains(vec![Owned::new(&query)?], Some(false)),
            Query::ContainsAny => {
                let mut documents = Vec::new();
                for document in filter::split_documents(&query).filter(|document| !document.is_empty()) {
                    memory::push(&mut documents, Owned::new(document)?)?;
                }
                Question::Contains(documents, (!filter.has_nulls()).then_some(false))
            }
            Query::Text => Question::Text(TextAt::new(&text_query(&[&query])?)?),
            Query::Casefold => Question::Casefold(jsonb::casefolded(&Owned::new(&query)?)?),
            Query::Between => Question::Between(between(&[&query])?),
        };
        self.bytes = memory::copy(bytes)?;
        Ok(())
    }

    /// Decrypts a value for the recheck.
    pub fn load(&mut self, value: &[u8], kind: &Kind) -> Result<(), PgError> {
        // Only our own operators get here with a filter of the other kind; jsonb's functions trust their input.
        if kind.holds(Content::Text) != self.question.is_of_text() {
            return Err(PgError::Argument("the filter is not one for values of this type".into()));
        }
        self.value.load(value, kind, |policy| self.question.is_declared(policy))
    }

    /// What the query says of the loaded value; `None` is NULL.
    pub fn answer(&self) -> Result<Option<bool>, PgError> {
        let document = &self.value.document;
        Ok(match &self.question {
            Question::Contains(documents, otherwise) => {
                let contained = documents.iter().any(|query| document.contains(query));
                if contained { Some(true) } else { *otherwise }
            }
            Question::Text(text) => text.equals(document),
            Question::Casefold(query) => Some(jsonb::casefolded(document)?.contains(query)),
            Question::Between(between) => Some(between.holds(document.bytes(), self.value.reading(between))?),
        })
    }
}

/// `encrypted_filter_in(cstring)`: refused, with what to write instead.
pub fn filter_in(_: Call) -> Returned {
    Err(PgError::FilterText)
}

/// `encrypted_filter_out(encrypted_filter)`: no plaintext and no token, so that plans may be shown.
pub fn filter_out(call: Call) -> Returned {
    let bytes = call.varlena(0);
    let filter = Filter::parse(bytes.bytes())?;
    let owner = match filter.every_keyring() {
        true => "every keyring".to_owned(),
        false => session::keyring(filter.keyring())
            .map_or_else(|_| filter.keyring().to_string(), |k| k.name.clone()),
    };
    let groups = match filter.group_count() {
        1 => "1 group".to_owned(),
        count => format!("{count} groups"),
    };
    Ok(Some(cstring(&format!("<filter: {owner}, {groups}>"))))
}

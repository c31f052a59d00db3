//! `encrypted_filter`: made from a question once per execution, matched against tokens without a key, and opened again
//! for the exact half.

use pgrx::pg_sys::Datum;
use zeroize::Zeroizing;

use crate::core::filter::{self, Binding, Filter, Parts};
use crate::core::groups::{Groups, QueryVersion};
use crate::core::header::{Content, FormatError};
use crate::core::memory;
use crate::core::question::Question;
use crate::core::text_query::{Accessor, TextQuery};
use crate::core::token::Tokenizer;
use crate::pg::catalog::Keyring;
use crate::pg::counters::{self, Counter};
use crate::pg::error::PgError;
use crate::pg::raw::array;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::{Owned, Varlena, cstring, varlena};
use crate::pg::raw::definition;
use crate::pg::raw::encoding;
use crate::pg::session;
use crate::pg::settings;
use crate::pg::values::accessor;
use crate::pg::values::seal::OpenValue;

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
    output: Option<Owned>,
}

impl Remembered {
    /// The output for `inputs`, made only where they or the session have changed.
    fn get(
        &mut self,
        inputs: &[&[u8]],
        make: impl FnOnce() -> Result<Option<Vec<u8>>, PgError>,
    ) -> Result<Option<&Owned>, PgError> {
        if self.now != Some(session::now()) || !self.were(inputs) {
            self.inputs.clear();
            self.output = make()?.map(|made| Owned::new(&made)).transpose()?;
            self.now = Some(session::now());
            // Without memory for them they are looked at anew.
            let copies = inputs.iter().map(|input| memory::copy(input).map(Zeroizing::new));
            self.inputs = copies.collect::<Result<_, _>>()?;
        }
        Ok(self.output.as_ref())
    }

    fn were(&self, inputs: &[&[u8]]) -> bool {
        self.inputs.len() == inputs.len() && self.inputs.iter().zip(inputs).all(|(kept, now)| **kept == **now)
    }
}

/// Makes the filter that asks a question.
pub fn make<D: AsRef<[u8]>>(target: Target, question: &Question<D>) -> Result<Vec<u8>, PgError> {
    session::catch_up_for_search(target.keyring, target.binding)?;
    seal(target, question)
}

/// The same for a plan, where `refresh` stands around the filter and looks for newer index keys in every execution.
pub fn make_planned<D: AsRef<[u8]>>(target: Target, question: &Question<D>) -> Result<Vec<u8>, PgError> {
    session::catch_up();
    seal(target, question)
}

fn seal<D: AsRef<[u8]>>(target: Target, question: &Question<D>) -> Result<Vec<u8>, PgError> {
    // Case is folded as Unicode says, and tokens with it.
    if matches!(question, Question::Casefold(_)) && !encoding::is_utf8() {
        return Err(PgError::CaseNeedsUtf8);
    }
    let keyring = session::keyring(target.keyring)?;
    session::require_search(&keyring, |policy| Ok(question.is_declared(policy)?))?;
    let groups = groups(&keyring, question)?;
    counters::count(Counter::FiltersMade);
    let row = &keyring.active_index()?.0;
    let key = session::index_key(&keyring, row)?;
    let parts = Parts {
        keyring: keyring.id,
        binding: target.binding,
        sealed_by: row.version,
        newest_index: keyring.newest_index(),
        groups: &groups,
    };
    Ok(filter::seal(&key, &keyring.uuid, question, &parts)?)
}

fn groups<D: AsRef<[u8]>>(keyring: &Keyring, question: &Question<D>) -> Result<Groups, PgError> {
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
            let tokenizer = live.map(|(version, key, policy)| Tokenizer { version: *version, key, policy });
            QueryVersion { version: row.version, tokenizer }
        })
        .collect();
    Ok(question.groups(keyring.id, &versions)?)
}

/// Where no column names the keyring: the session's choice, looked at again in every execution.
pub fn session_target() -> Result<Target, PgError> {
    Ok(Target { keyring: session::keyring_for_query()?, binding: Binding::Session })
}

/// A filter for the session's choice of keyring, or for values of every keyring.
fn make_for_session<D: AsRef<[u8]>>(question: &Question<D>) -> Result<Vec<u8>, PgError> {
    session::catch_up();
    let made = make(session_target()?, question)?;
    match session::keyring_for_search()? {
        Some(_) => Ok(made),
        None => Ok(Filter::parse(&made)?.for_every_keyring()?),
    }
}

/// The filter for a keyring that the caller names, or for the session's.
pub fn make_named<D: AsRef<[u8]>>(name: Option<&str>, question: &Question<D>) -> Result<Vec<u8>, PgError> {
    match name {
        Some(name) => make(fixed(session::keyring_id(name)?), question),
        None => make_for_session(question),
    }
}

/// The filter for the keyring that a rewrite has put there; 0 is the session's.
pub fn make_numbered<D: AsRef<[u8]>>(keyring: i32, question: &Question<D>) -> Result<Vec<u8>, PgError> {
    if keyring == 0 { make_for_session(question) } else { make(fixed(keyring), question) }
}

/// A keyring argument as part of what a filter depends on; NULL is none of the names.
pub fn named_key(name: &Option<String>) -> Vec<u8> {
    name.as_ref().map_or_else(Vec::new, |name| [b"=", name.as_bytes()].concat())
}

/// `filter(jsonb, keyring text)`.
pub fn filter(call: Call) -> Returned {
    filter_of(call, Question::Contains)
}

/// `filter_casefold(jsonb, keyring text)`.
pub fn filter_casefold(call: Call) -> Returned {
    filter_of(call, Question::Casefold)
}

fn filter_of(call: Call, question: impl FnOnce(Varlena) -> Question<Varlena>) -> Returned {
    let Some(document) = call.optional(0) else { return Ok(None) };
    let named = call.optional_text(1)?;
    remember(call, &[&named_key(&named), document.bytes()], || {
        make_named(named.as_deref(), &question(document))
    })
}

/// `filter_for(jsonb, keyring int4)`: what a rewritten operator with a parameter calls; 0 is the session's.
pub fn filter_for(call: Call) -> Returned {
    let (document, keyring) = (call.varlena(0), call.int4(1));
    remember(call, &[&keyring.to_be_bytes(), document.bytes()], || {
        make_numbered(keyring, &Question::Contains(document))
    })
}

/// `filter_any(jsonb[], keyring text)`. As with ANY, no match is NULL where an element is.
pub fn filter_any(call: Call) -> Returned {
    if call.is_null(0) {
        return Ok(None);
    }
    let question = Question::ContainsAny(array::documents(call.datum(0))?);
    let named = call.optional_text(1)?;
    remember(call, &[&named_key(&named), &question.encode()?], || make_named(named.as_deref(), &question))
}

/// `filter_any_for(jsonb[], keyring int4)`: what a rewritten `@> ANY` with a parameter calls; 0 is the session's.
pub fn filter_any_for(call: Call) -> Returned {
    let (list, keyring) = (call.varlena(0), call.int4(1));
    lend(call, &[&keyring.to_be_bytes(), list.bytes()], || {
        make_numbered(keyring, &Question::ContainsAny(array::documents(list.datum())?))
    })
}

/// `filter_text(accessor int4, steps text[], value text, keyring int4)`: what a rewritten `=` with a parameter
/// calls; keyring 0 is the session's.
pub fn filter_text(call: Call) -> Returned {
    let text = call.varlena(2);
    remember_text(call, text, |part| part.filter([Some(text.bytes())]))
}

/// `filter_text(accessor int4, steps text[], value encrypted_text, keyring int4)`.
pub fn filter_sealed_text(call: Call) -> Returned {
    let sealed = call.varlena(2);
    remember_text(call, sealed, |part| {
        let opened = accessor::open_literal(sealed.bytes())?;
        part.filter([Some(opened.content())])
    })
}

/// `filter_text_any(accessor int4, steps text[], list text[], keyring int4)`: what a rewritten `= ANY` with a parameter
/// calls.
pub fn filter_text_any(call: Call) -> Returned {
    let list = call.varlena(2);
    remember_list(call, list, |part| {
        let texts = array::values(list.datum())?;
        part.filter(texts.iter().map(|text| text.as_ref().map(Varlena::bytes)))
    })
}

/// `filter_text_any(accessor int4, steps text[], list encrypted_text[], keyring int4)`.
pub fn filter_sealed_text_any(call: Call) -> Returned {
    let list = call.varlena(2);
    remember_list(call, list, |part| {
        let opened = accessor::open_literals(&array::values(list.datum())?)?;
        part.filter(opened.iter().map(|text| text.as_ref().map(OpenValue::content)))
    })
}

/// The text in a value that a rewritten comparison is about, and whose values.
struct TextPart {
    accessor: Accessor,
    steps: Vec<Varlena>,
    keyring: i32,
}

impl TextPart {
    /// From the first, second and last argument.
    fn of(call: Call) -> Result<Self, PgError> {
        let accessor = Accessor::try_from(call.int4(0) as u8).unwrap_or(Accessor::Path);
        let steps = array::steps(call.datum(1))?.unwrap_or_default();
        Ok(TextPart { accessor, steps, keyring: call.int4(3) })
    }

    fn numbers(call: Call) -> [u8; 8] {
        let [a, b, c, d] = call.int4(0).to_be_bytes();
        let [e, f, g, h] = call.int4(3).to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }

    fn filter<'a>(&'a self, list: impl IntoIterator<Item = Option<&'a [u8]>>) -> Result<Vec<u8>, PgError> {
        let steps = memory::collect(self.steps.iter().map(Varlena::bytes))?;
        let query = TextQuery::of_list(self.accessor, steps, list)?;
        make_numbered(self.keyring, &Question::Text(query))
    }
}

fn remember_text(
    call: Call,
    text: Varlena,
    make: impl FnOnce(&TextPart) -> Result<Vec<u8>, PgError>,
) -> Returned {
    let (numbers, steps) = (TextPart::numbers(call), call.varlena(1));
    remember(call, &[&numbers, steps.bytes(), text.bytes()], || make(&TextPart::of(call)?))
}

fn remember_list(
    call: Call,
    list: Varlena,
    make: impl FnOnce(&TextPart) -> Result<Vec<u8>, PgError>,
) -> Returned {
    let (numbers, steps) = (TextPart::numbers(call), call.varlena(1));
    lend(call, &[&numbers, steps.bytes(), list.bytes()], || make(&TextPart::of(call)?))
}

/// The keyring of a column or a caller.
fn fixed(keyring: i32) -> Target {
    Target { keyring, binding: Binding::Fixed }
}

/// The filter from the arguments that a call site had last, made anew where they or the session have changed.
pub fn remember(call: Call, inputs: &[&[u8]], make: impl FnOnce() -> Result<Vec<u8>, PgError>) -> Returned {
    call.with_cache(|remembered: &mut Remembered| {
        let made = remembered.get(inputs, || make().map(Some))?;
        Ok(made.map(copied))
    })
}

/// The same without a copy, since one of a list is long: for calls that a rewrite has written, whose result is used up before
/// the next one.
fn lend(call: Call, inputs: &[&[u8]], make: impl FnOnce() -> Result<Vec<u8>, PgError>) -> Returned {
    if !call.keeps_cache() {
        return remember(call, inputs, make);
    }
    call.with_cache(|remembered: &mut Remembered| {
        let made = remembered.get(inputs, || make().map(Some))?;
        Ok(made.map(Owned::datum))
    })
}

fn copied(filter: &Owned) -> Datum {
    varlena(filter.bytes()).datum()
}

/// `refresh(encrypted_filter)`: the filter as it must be for this execution, the same one nearly always.
///
/// Looks at the index keys as of now and, where the session chose the keyring, at its choice as of now.
pub fn refresh(call: Call) -> Returned {
    let filter = call.varlena(0);
    call.with_cache(|site: &mut Refreshing| {
        let is_constant = *site.is_constant.get_or_insert_with(|| {
            call.argument_expression(0).is_some_and(|filter| filter.constant_datum().is_some())
        });
        let inputs: &[&[u8]] = if is_constant { &[] } else { &[filter.bytes()] };
        let renewed = site.remembered.get(inputs, || renew(filter.bytes()))?;
        Ok(Some(renewed.map_or(call.datum(0), copied)))
    })
}

/// What a call of `refresh` keeps.
#[derive(Default)]
struct Refreshing {
    /// The filter stands in the plan: it is the same in every call.
    is_constant: Option<bool>,
    remembered: Remembered,
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
        if session::keyring(keyring)?.newest_index() == filter.newest_index() {
            return Ok(None);
        }
    }
    remake(&filter, Target { keyring, binding: filter.binding() }).map(Some)
}

/// Refuses a role that may not ask what the filter asks.
fn require_asking(filter: &Filter<'_>) -> Result<(), PgError> {
    let keyring = session::keyring(filter.keyring())?;
    session::require_search(&keyring, |policy| {
        with_question(filter, |question| Ok(question.is_declared(policy)?))
    })
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
        Ok(Some(bound.map_or(call.datum(0), copied)))
    })
}

/// The same question for another keyring or newer index keys.
pub fn remake(filter: &Filter<'_>, target: Target) -> Result<Vec<u8>, PgError> {
    with_question(filter, |question| make(target, &question))
}

/// Opens the question in a filter.
pub fn with_question<R>(
    filter: &Filter<'_>,
    work: impl FnOnce(Question<&[u8]>) -> Result<R, PgError>,
) -> Result<R, PgError> {
    let keyring = session::keyring(filter.keyring())?;
    let key = session::index_key(&keyring, keyring.index_key(filter.sealed_by())?)?;
    let plaintext = filter.open(&key, &keyring.uuid)?;
    work(Question::decode(filter.kind(), &plaintext)?.ok_or(FormatError::UnknownContent)?)
}

/// `filter_parts(encrypted_filter)`: filters of which one lets a value through where it does, each with few keys.
pub fn filter_parts(call: Call) -> Returned {
    let filter = call.varlena(0);
    let parts: Vec<Option<Vec<u8>>> = Filter::parse(filter.bytes())?.parts()?.into_iter().map(Some).collect();
    Ok(Some(array::of_values(&parts, call.result_element_type()).datum()))
}

/// `encrypted_filter_in(cstring)`: refused, with what to write instead; but for a literal that the hook after parse analysis
/// takes for a jsonpath.
pub fn filter_in(call: Call) -> Returned {
    if definition::literal_is_seen() {
        let text = session::seal_unbound(Content::Text, call.cstring(0).to_bytes())?;
        return Ok(Some(varlena(&text).datum()));
    }
    Err(PgError::FilterText)
}

/// `encrypted_filter_out(encrypted_filter)`: no plaintext and no token, so that plans may be shown.
pub fn filter_out(call: Call) -> Returned {
    let bytes = call.varlena(0);
    let filter = Filter::parse(bytes.bytes())?;
    let owner = if filter.every_keyring() {
        "every keyring".to_owned()
    } else {
        session::keyring(filter.keyring()).map_or_else(|_| filter.keyring().to_string(), |k| k.name.clone())
    };
    let groups = match filter.group_count() {
        1 => "1 group".to_owned(),
        count => format!("{count} groups"),
    };
    let how = if filter.decides() && !settings::rechecks_always() { "decided" } else { "rechecked" };
    Ok(Some(cstring(&format!("<filter: {owner}, {groups}, {how}>"))))
}

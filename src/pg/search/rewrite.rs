//! Planner support: `c @> q` becomes `(c @~ filter) AND (c @># filter)`, so that the first half can use the
//! index and run before row-level security's policy, and the second keeps the answer exact.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::core::filter::{Binding, Filter};
use crate::core::modifier;
use crate::core::question::Question;
use crate::core::text_query::{Accessor, TextQuery};
use crate::pg::error::PgError;
use crate::pg::raw::array;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::{Varlena, varlena};
use crate::pg::raw::encoding::utf8;
use crate::pg::raw::node::{Expr, SimplifyRequest, simplify_request};
use crate::pg::search::between::{self, Given};
use crate::pg::search::filters::{self, Target};
use crate::pg::search::objects::Objects;
use crate::pg::session;
use crate::pg::values::seal::OpenValue;
use crate::pg::values::{accessor, choice};

/// A value that something is asked about.
struct Asked {
    value: Expr,
    answers: Answers,
}

/// Whose values answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    /// Those of the column's keyring; there are no others.
    Column(i32),
    /// Those that the session's setting chooses, in a column without keyring.
    Session,
    /// Each, by its own keyring: something computed.
    Each,
}

impl Asked {
    fn of(request: &SimplifyRequest, value: Expr) -> Self {
        if let Some(value) = choice::chosen_value(value) {
            return Asked { value, answers: Answers::Session };
        }
        let marked = choice::each_value(value);
        let value = marked.unwrap_or(value);
        let answers = match value.column().bound {
            modifier::Bound::Id(keyring) => Answers::Column(keyring),
            _ if marked.is_some() => Answers::Each,
            _ if request.is_chosen_among(value) => Answers::Session,
            _ => Answers::Each,
        };
        Asked { value, answers }
    }

    /// As the functions that make filters take it; 0 is the session's.
    fn keyring(&self) -> i32 {
        match self.answers {
            Answers::Column(keyring) => keyring,
            _ => 0,
        }
    }

    fn target(&self) -> Result<Target, PgError> {
        match self.answers {
            Answers::Column(keyring) => Ok(Target { keyring, binding: Binding::Fixed }),
            _ => filters::session_target(),
        }
    }

    /// `value @~ ANY (filter_parts(filter))` and `value @>| filter`, of a list that is not known yet.
    fn halves_of_list(&self, objects: &Objects, filter: Expr) -> Option<(Expr, Expr)> {
        let narrow = objects.operator_any(c"@~", self.value.copy(), filter.copy())?;
        Some((narrow, objects.operator(c"@>|", self.value.copy(), filter)?))
    }

    /// `value @~ filter`, or `value @~ ANY (filter_parts(filter))` of a long one, and `value @># query`, which is the filter
    /// itself or what it was made from.
    fn halves(&self, objects: &Objects, filter: Expr, query: Option<Expr>) -> Option<(Expr, Expr)> {
        let narrow = if is_long(objects, filter) {
            objects.operator_any(c"@~", self.value.copy(), filter.copy())?
        } else {
            objects.operator(c"@~", self.value.copy(), filter.copy())?
        };
        let (value, query) = match (self.answers, query) {
            // A filter says itself whose values it is for.
            (_, None) => (self.value.copy(), filter),
            (Answers::Session, Some(query)) => match choice::in_chosen(self.value) {
                Some(chosen) => (chosen, query),
                None => (self.value.copy(), filter),
            },
            (_, Some(query)) => (self.value.copy(), query),
        };
        Some((narrow, objects.operator(c"@>#", value, query.copy())?))
    }
}

/// What a support function answers: the rewritten call, or the call as it is but for the session's choices.
fn answered(request: &SimplifyRequest, rewritten: Result<Option<Expr>, PgError>) -> Returned {
    let rewritten = match rewritten {
        // Then there is no value either.
        Err(PgError::NoKeyring) => None,
        rewritten => rewritten?,
    };
    let answer = rewritten.or_else(|| request.with_choices());
    Ok(Some(answer.map_or(pg_sys::Datum::from(0), Expr::datum)))
}

/// `operator_support(internal)`: for operators that no index answers.
pub fn operator_support(call: Call) -> Returned {
    let Some(request) = simplify_request(call.datum(0)) else { return not_rewritten() };
    answered(&request, Ok(None))
}

/// `chosen_support(internal)`: a part of a document is chosen with the document, before anything decrypts it.
pub fn chosen_support(call: Call) -> Returned {
    let Some(request) = simplify_request(call.datum(0)) else { return not_rewritten() };
    let chosen = request.argument(0).and_then(chosen_whole);
    Ok(Some(chosen.map_or(pg_sys::Datum::from(0), Expr::datum)))
}

fn chosen_whole(part: Expr) -> Option<Expr> {
    let whole = part.whole()?;
    let chosen = match whole.whole() {
        Some(_) => chosen_whole(whole)?,
        None => choice::in_chosen(whole)?,
    };
    Some(part.with_first_argument(chosen))
}

/// `contains_support(internal)`: for `encrypted_jsonb @> jsonb`.
pub fn contains_support(call: Call) -> Returned {
    let Some(request) = simplify_request(call.datum(0)) else { return not_rewritten() };
    answered(&request, contains(&request))
}

fn contains(request: &SimplifyRequest) -> Result<Option<Expr>, PgError> {
    let Some((value, query)) = request.two_arguments() else { return Ok(None) };
    let asked = Asked::of(request, value);
    let Some(objects) = Objects::beside(value).filter(|_| asked.answers != Answers::Each) else {
        return Ok(None);
    };
    let (filter, query) = match query.constant() {
        Some(document) => {
            let filter = filters::make_planned(asked.target()?, &Question::Contains(document))?;
            (refreshed(&objects, filter), None)
        }
        // Made for each row, a filter is asked by the index alone.
        None => (filter_for(&objects, query, asked.keyring()), query.has_columns().then_some(query)),
    };
    Ok(filter.and_then(|filter| both(asked.halves(&objects, filter, query))))
}

/// `matches_support(internal)`: for `encrypted_jsonb @@ encrypted_filter`.
pub fn matches_support(call: Call) -> Returned {
    let Some(request) = simplify_request(call.datum(0)) else { return not_rewritten() };
    let rewritten = matches(&request)?;
    Ok(Some(rewritten.map_or(pg_sys::Datum::from(0), Expr::datum)))
}

fn matches(request: &SimplifyRequest) -> Result<Option<Expr>, PgError> {
    let (Some(value), Some(filter)) = (request.argument(0), request.argument(1)) else { return Ok(None) };
    let asked = Asked::of(request, value);
    let Some(objects) = Objects::beside(value).filter(|_| asked.answers != Answers::Each) else {
        return Ok(None);
    };
    let filter = for_column(&objects, &asked, filter)?;
    // The filter still says which keyring answers.
    if value.must_run_once() || filter.must_run_once() {
        return Ok(objects.operator(c"@>#", asked.value, filter));
    }
    Ok(both(asked.halves(&objects, filter, None)))
}

/// `equal_support(internal)`: for `=` between `encrypted_text` and `encrypted_text` or text.
///
/// `(c ->> 'k') = v` becomes `((c @~ filter) OR NULL) AND (c @># filter)`: `=` is NULL where the key is missing,
/// the token match is false there.
pub fn equal_support(call: Call) -> Returned {
    let Some(request) = simplify_request(call.datum(0)) else { return not_rewritten() };
    answered(&request, equal(&request))
}

fn equal(request: &SimplifyRequest) -> Result<Option<Expr>, PgError> {
    let Some((side, objects)) = sides(request) else { return Ok(None) };
    Ok(side.filter(&objects)?.and_then(|filter| side.rewritten(&objects, filter)))
}

/// The side of `=` or `<>` that a filter can be asked of.
fn sides(request: &SimplifyRequest) -> Option<(TextSide, Objects)> {
    let (left, right) = request.two_arguments().filter(|_| !request.has_loose_collation())?;
    let side = TextSide::of(request, left, right).or_else(|| TextSide::of(request, right, left))?;
    let objects = Objects::beside(side.asked.value).filter(|_| side.asked.answers != Answers::Each)?;
    Some((side, objects))
}

/// `differ_support(internal)`: for `<>`, which is NOT `=`: `c !@># filter`.
pub fn differ_support(call: Call) -> Returned {
    let Some(request) = simplify_request(call.datum(0)) else { return not_rewritten() };
    answered(&request, differ(&request))
}

fn differ(request: &SimplifyRequest) -> Result<Option<Expr>, PgError> {
    let Some((side, objects)) = sides(request) else { return Ok(None) };
    let filter = side.filter(&objects)?;
    Ok(filter.and_then(|filter| objects.operator(c"!@>#", side.asked.value.copy(), filter)))
}

/// `equal_any_support(internal)`: for `equal_any(encrypted_text, list)`, as the planner hook writes `= ANY`.
pub fn equal_any_support(call: Call) -> Returned {
    let Some(request) = simplify_request(call.datum(0)) else { return not_rewritten() };
    answered(&request, equal_any(&request))
}

fn equal_any(request: &SimplifyRequest) -> Result<Option<Expr>, PgError> {
    let Some((value, list)) = request.value_and_list() else { return Ok(None) };
    let Some(objects) = list.element_type().and_then(|_| Objects::beside(value)) else { return Ok(None) };
    let side = TextSide::of(request, value, list).filter(|side| side.asked.answers != Answers::Each);
    let Some(side) = side.filter(|_| !is_known_empty(list)) else { return Ok(None) };
    Ok(side.filter(&objects)?.and_then(|filter| side.rewritten(&objects, filter)))
}

/// `contains_any_support(internal)`: for `contains_any(encrypted_jsonb, jsonb[])`, as the planner hook writes `@> ANY`.
pub fn contains_any_support(call: Call) -> Returned {
    let Some(request) = simplify_request(call.datum(0)) else { return not_rewritten() };
    answered(&request, contains_any(&request))
}

fn contains_any(request: &SimplifyRequest) -> Result<Option<Expr>, PgError> {
    let Some((value, list)) = request.value_and_list() else { return Ok(None) };
    let asked = Asked::of(request, value);
    let objects = Objects::beside(value).filter(|_| asked.answers != Answers::Each && !is_known_empty(list));
    let Some(objects) = objects else { return Ok(None) };
    if let Some(question) = known_documents(&[list])? {
        let filter = refreshed(&objects, filters::make_planned(asked.target()?, &question)?);
        return Ok(filter.and_then(|filter| both(asked.halves(&objects, filter, None))));
    }
    let types = [pg_sys::JSONBARRAYOID, pg_sys::INT4OID];
    let arguments = [list.copy(), Expr::of_int4(asked.keyring())];
    let filter = objects.filter_call(c"filter_any_for", &types, &arguments);
    Ok(filter.and_then(|filter| both(asked.halves_of_list(&objects, filter))))
}

/// Nothing is in it, not even NULL, or in none at all.
fn is_known_empty(list: Expr) -> bool {
    list.is_null_constant() || list.constant().is_some_and(|list| array::length(list.datum()) == 0)
}

/// A text that a column has or holds, and the text, or list of texts, that it is compared with.
struct TextSide {
    asked: Asked,
    accessor: Accessor,
    steps: Vec<Vec<u8>>,
    text: Expr,
}

impl TextSide {
    /// `None` where the filter would have to be made for each pair of rows, or the path for each row.
    fn of(request: &SimplifyRequest, sealed: Expr, text: Expr) -> Option<Self> {
        let asked_type = text.element_type().unwrap_or(text.base_type());
        let is_text = asked_type == pg_sys::TEXTOID;
        if !is_text && (text.has_columns() || asked_type != sealed.base_type()) {
            return None;
        }
        let column = choice::chosen_value(sealed).or_else(|| choice::each_value(sealed)).unwrap_or(sealed);
        if column.is_column() && sealed.base_type() != pg_sys::TEXTOID {
            let asked = Asked::of(request, sealed);
            return Some(TextSide { asked, accessor: Accessor::Whole, steps: Vec::new(), text });
        }
        let (document, accessor, steps) = accessor::text_source(column)?;
        let asked = Asked::of(request, document);
        (!asked.value.must_run_once()).then_some(TextSide { asked, accessor, steps, text })
    }

    fn filter(&self, objects: &Objects) -> Result<Option<Expr>, PgError> {
        let Some(asked) = self.text.constant() else { return Ok(self.filter_call(objects)) };
        let is_list = self.text.element_type().is_some();
        let texts = if is_list { array::values(asked.datum())? } else { vec![Some(asked)] };
        let is_text = [pg_sys::TEXTOID, pg_sys::TEXTARRAYOID].contains(&self.text.base_type());
        if is_text {
            return self.constant_filter(objects, texts.iter().map(|text| text.as_ref().map(Varlena::bytes)));
        }
        let opened = accessor::open_literals(&texts)?;
        self.constant_filter(objects, opened.iter().map(|text| text.as_ref().map(OpenValue::content)))
    }

    fn constant_filter<'a>(
        &'a self,
        objects: &Objects,
        list: impl IntoIterator<Item = Option<&'a [u8]>>,
    ) -> Result<Option<Expr>, PgError> {
        let steps = self.steps.iter().map(Vec::as_slice).collect();
        let question = Question::Text(TextQuery::of_list(self.accessor, steps, list)?);
        Ok(refreshed(objects, filters::make_planned(self.asked.target()?, &question)?))
    }

    /// `filter_text(accessor, steps, text, keyring)` or `filter_text_any(accessor, steps, list, keyring)`, with 0 for the
    /// session's keyring.
    fn filter_call(&self, objects: &Objects) -> Option<Expr> {
        let steps: Vec<&[u8]> = self.steps.iter().map(Vec::as_slice).collect();
        let arguments = [
            Expr::of_int4(self.accessor as i32),
            Expr::of_texts(array::of_texts(&steps)),
            self.text.copy(),
            Expr::of_int4(self.asked.keyring()),
        ];
        let types = [pg_sys::INT4OID, pg_sys::TEXTARRAYOID, self.text.base_type(), pg_sys::INT4OID];
        let name = if self.text.element_type().is_some() { c"filter_text_any" } else { c"filter_text" };
        objects.filter_call(name, &types, &arguments)
    }

    fn rewritten(&self, objects: &Objects, filter: Expr) -> Option<Expr> {
        let is_open_list = self.text.element_type().is_some() && self.text.constant().is_none();
        let (narrow, exact) = if is_open_list {
            self.asked.halves_of_list(objects, filter)?
        } else {
            self.asked.halves(objects, filter, None)?
        };
        Some(match self.accessor {
            Accessor::Whole => narrow.and(exact),
            _ => narrow.or_null().and(exact),
        })
    }
}

/// `filter_support(internal)`: folds `pgseal.filter(constant)` so that plans show no plaintext.
pub fn filter_support(call: Call) -> Returned {
    fold(call, known_document)
}

/// `filter_any_support(internal)`: the same for `pgseal.filter_any(constant)`.
pub fn filter_any_support(call: Call) -> Returned {
    fold(call, known_documents)
}

/// `filter_casefold_support(internal)`: the same for `pgseal.filter_casefold(constant)`.
pub fn filter_casefold_support(call: Call) -> Returned {
    fold(call, known_casefold)
}

/// `filter_between_support(internal)`: the same for `pgseal.filter_between` with constants.
pub fn filter_between_support(call: Call) -> Returned {
    fold(call, known_between)
}

/// What a call asks, where the planner knows all of it. The arguments are those before the keyring.
type Known = fn(&[Expr]) -> Result<Option<Question<Varlena>>, PgError>;

fn constant(arguments: &[Expr]) -> Option<Varlena> {
    arguments.first().and_then(|argument| argument.constant())
}

fn known_document(arguments: &[Expr]) -> Result<Option<Question<Varlena>>, PgError> {
    Ok(constant(arguments).map(Question::Contains))
}

fn known_casefold(arguments: &[Expr]) -> Result<Option<Question<Varlena>>, PgError> {
    Ok(constant(arguments).map(Question::Casefold))
}

fn known_documents(arguments: &[Expr]) -> Result<Option<Question<Varlena>>, PgError> {
    let documents = constant(arguments).map(|documents| array::documents(documents.datum())).transpose()?;
    Ok(documents.map(Question::ContainsAny))
}

fn known_between(arguments: &[Expr]) -> Result<Option<Question<Varlena>>, PgError> {
    let [path, low, high] = arguments else { return Ok(None) };
    let known = |bound: &Expr| bound.is_null_constant() || bound.constant_datum().is_some();
    let Some(path) = path.constant().filter(|_| known(low) && known(high)) else { return Ok(None) };
    let given = Given::of(low.base_type());
    let asked = between::asked(&utf8(path.bytes())?, given, low.constant_datum(), high.constant_datum())?;
    Ok(Some(Question::Between(asked)))
}

/// `between_support(internal)`: `between(c, path, low, high)` becomes `(c @~ filter) AND (c @># filter)`.
pub fn between_support(call: Call) -> Returned {
    let Some(request) = simplify_request(call.datum(0)) else { return not_rewritten() };
    answered(&request, between(&request))
}

fn between(request: &SimplifyRequest) -> Result<Option<Expr>, PgError> {
    let arguments: Vec<Expr> = (0..4).map_while(|index| request.argument(index)).collect();
    let [value, path, low, high] = arguments.as_slice() else { return Ok(None) };
    if path.constant().is_none() || arguments.iter().any(|argument| argument.must_run_once()) {
        return Ok(None);
    }
    let asked = Asked::of(request, *value);
    let Some(objects) = Objects::beside(*value).filter(|_| asked.answers != Answers::Each) else {
        return Ok(None);
    };
    let filter = range_filter(&objects, &asked, [*path, *low, *high])?;
    Ok(filter.and_then(|filter| both(asked.halves(&objects, filter, None))))
}

fn range_filter(objects: &Objects, asked: &Asked, bounds: [Expr; 3]) -> Result<Option<Expr>, PgError> {
    let [path, low, high] = bounds;
    if let Some(question) = known_between(&bounds)? {
        return Ok(refreshed(objects, filters::make_planned(asked.target()?, &question)?));
    }
    let bound_type = low.base_type();
    let keyring = Expr::of_int4(asked.keyring());
    let types = [pg_sys::TEXTOID, bound_type, bound_type, pg_sys::INT4OID];
    Ok(objects.filter_call(c"filter_between_for", &types, &[path.copy(), low.copy(), high.copy(), keyring]))
}

/// Only where the keyring, the last argument, is a constant as well, or the session's choice.
fn fold(call: Call, known: Known) -> Returned {
    let Some(request) = simplify_request(call.datum(0)) else { return not_rewritten() };
    let arguments: Vec<Expr> = (0..4).map_while(|index| request.argument(index)).collect();
    let Some((keyring, asked)) = arguments.split_last() else { return not_rewritten() };
    let Some(question) = known(asked)? else { return not_rewritten() };
    let filter = match keyring.constant() {
        Some(name) => {
            let keyring = session::keyring_id(&utf8(name.bytes())?)?;
            filters::make_planned(Target { keyring, binding: Binding::Fixed }, &question)?
        }
        None if keyring.is_null_constant() => {
            let made = filters::session_target().and_then(|target| filters::make_planned(target, &question));
            // It may stand beside a column of another keyring, which then answers; else the execution fails.
            let Ok(filter) = made else { return not_rewritten() };
            filter
        }
        None => return not_rewritten(),
    };
    let rewritten =
        Objects::of_filter_type(request.result_type()).and_then(|objects| refreshed(&objects, filter));
    Ok(Some(rewritten.map_or(pg_sys::Datum::from(0), Expr::datum)))
}

fn not_rewritten() -> Returned {
    Ok(Some(pg_sys::Datum::from(0)))
}

/// `refresh(<constant filter>)`.
fn refreshed(objects: &Objects, filter: Vec<u8>) -> Option<Expr> {
    let constant = objects.filter_constant(varlena(&filter))?;
    objects.filter_call(c"refresh", &[objects.filter], &[constant])
}

/// The constant filter in `refresh(<constant filter>)`.
fn constant_in(objects: &Objects, filter: Expr) -> Option<Varlena> {
    let refresh = objects.function(c"refresh", &[objects.filter])?;
    filter.arguments_of(refresh)?.first()?.constant()
}

/// A constant filter with more keys than one search through the index should look for.
fn is_long(objects: &Objects, filter: Expr) -> bool {
    let constant = constant_in(objects, filter);
    constant.is_some_and(|bytes| Filter::parse(bytes.bytes()).is_ok_and(|filter| filter.is_long()))
}

/// `filter_for(query, keyring)`, with 0 for the session's keyring.
fn filter_for(objects: &Objects, query: Expr, keyring: i32) -> Option<Expr> {
    let keyring = Expr::of_int4(keyring);
    objects.filter_call(c"filter_for", &[pg_sys::JSONBOID, pg_sys::INT4OID], &[query.copy(), keyring])
}

/// A filter that names no keyring, on a column that has one: the column's.
fn for_column(objects: &Objects, asked: &Asked, filter: Expr) -> Result<Expr, PgError> {
    let Answers::Column(column) = asked.answers else { return Ok(filter) };
    if let Some(named) = named_for_column(objects, column, filter)? {
        return Ok(named);
    }
    let Some(constant) = constant_in(objects, filter) else {
        return Ok(in_column(objects, column, filter));
    };
    let folded = Filter::parse(constant.bytes())?;
    if folded.binding() == Binding::Fixed {
        return Ok(filter);
    }
    let target = Target { keyring: column, binding: Binding::Fixed };
    Ok(refreshed(objects, filters::remake(&folded, target)?).unwrap_or(filter))
}

/// `filter_in(filter, keyring)`.
fn in_column(objects: &Objects, column: i32, filter: Expr) -> Expr {
    let types = [objects.filter, pg_sys::INT4OID];
    let arguments = [filter.copy(), Expr::of_int4(column)];
    objects.filter_call(c"filter_in", &types, &arguments).unwrap_or(filter)
}

/// The functions that make filters: name, what they ask, and the type of each argument before the keyring.
const MAKERS: [(&CStr, Known, &[pg_sys::Oid]); 6] = [
    (c"filter", known_document, &[pg_sys::JSONBOID]),
    (c"filter_any", known_documents, &[pg_sys::JSONBARRAYOID]),
    (c"filter_casefold", known_casefold, &[pg_sys::JSONBOID]),
    (c"filter_between", known_between, &[pg_sys::TEXTOID, pg_sys::NUMERICOID, pg_sys::NUMERICOID]),
    (c"filter_between", known_between, &[pg_sys::TEXTOID, pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID]),
    (c"filter_between", known_between, &[pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::TEXTOID]),
];

/// A call that makes a filter and names no keyring, as if it named that of the column.
fn named_for_column(objects: &Objects, column: i32, filter: Expr) -> Result<Option<Expr>, PgError> {
    for (name, known, asked_types) in MAKERS {
        let types = [asked_types, &[pg_sys::TEXTOID]].concat();
        let made = objects.function(name, &types).and_then(|maker| filter.arguments_of(maker));
        let Some(arguments) = made else { continue };
        let Some((keyring, asked)) = arguments.split_last() else { continue };
        if !keyring.is_null_constant() {
            return Ok(None);
        }
        if let Some(question) = known(asked)? {
            let target = Target { keyring: column, binding: Binding::Fixed };
            return Ok(refreshed(objects, filters::make_planned(target, &question)?));
        }
        let named = Expr::of_text(&session::keyring(column)?.name);
        let arguments: Vec<Expr> = asked.iter().map(|argument| argument.copy()).chain([named]).collect();
        return Ok(objects.filter_call(name, &types, &arguments));
    }
    Ok(None)
}

/// `(value @~ filter) AND (value @># filter-or-query)`.
fn both(halves: Option<(Expr, Expr)>) -> Option<Expr> {
    halves.map(|(narrow, exact)| narrow.and(exact))
}

//! Planner support: `c @> q` becomes `(c @~ filter) AND (c @># filter)`, so that the first half can use the
//! index and run before row-level security's policy, and the second keeps the answer exact.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::error::PgError;
use super::filters::{self, Target};
use super::ranges::{self, Bound, Given};
use super::raw::array;
use super::raw::call::{Call, Returned};
use super::raw::datum::{Varlena, varlena};
use super::raw::encoding::utf8;
use super::raw::node::{Expr, Objects, simplify_request};
use super::{session, texts};
use crate::core::filter::{Binding, Filter, Query};
use crate::core::text_query::{Accessor, TextQuery};

/// `contains_support(internal)`: for `encrypted_jsonb @> jsonb`.
pub fn contains_support(call: Call) -> Returned {
    let Some((value, query)) = two_arguments(call) else { return not_rewritten() };
    let Some(objects) = Objects::beside(value) else { return not_rewritten() };
    let rewritten = match query.constant() {
        Some(document) => {
            let target = match target(value) {
                // Then there is no value either.
                Err(PgError::NoKeyring) => return not_rewritten(),
                target => target?,
            };
            let filter = filters::make_planned(target, Query::Contains, &[document.bytes()])?;
            halves(&objects, value, refreshed(&objects, filter), None)
        }
        None => halves(&objects, value, filter_for(&objects, query, value.typmod()), Some(query)),
    };
    Ok(Some(rewritten.map_or(pg_sys::Datum::from(0), Expr::datum)))
}

/// `matches_support(internal)`: for `encrypted_jsonb @@ encrypted_filter`.
pub fn matches_support(call: Call) -> Returned {
    let Some(request) = simplify_request(call.datum(0)) else { return not_rewritten() };
    let (Some(value), Some(filter)) = (request.argument(0), request.argument(1)) else {
        return not_rewritten();
    };
    let Some(objects) = Objects::beside(value) else { return not_rewritten() };
    let rewritten = match value.must_run_once() || filter.must_run_once() {
        false => halves(&objects, value, Some(for_column(&objects, value, filter)?), None),
        // The column still says which keyring answers.
        true if value.typmod() > 0 => objects.operator(c"@>#", value, for_column(&objects, value, filter)?),
        true => None,
    };
    Ok(Some(rewritten.map_or(pg_sys::Datum::from(0), Expr::datum)))
}

/// `equal_support(internal)`: for `=` between `encrypted_text` and `encrypted_text` or text.
///
/// `(c ->> 'k') = v` becomes `((c @~ filter) OR NULL) AND (c @># filter)`: `=` is NULL where the key is missing,
/// the token match is false there.
pub fn equal_support(call: Call) -> Returned {
    let Some((left, right)) = two_arguments(call) else { return not_rewritten() };
    let Some(asked) = TextSide::of(left, right).or_else(|| TextSide::of(right, left)) else {
        return not_rewritten();
    };
    let Some(objects) = Objects::beside(asked.value) else { return not_rewritten() };
    let filter = match asked.filter(&objects) {
        Err(PgError::NoKeyring) => return not_rewritten(),
        filter => filter?,
    };
    let rewritten = filter.and_then(|filter| asked.halves(&objects, filter));
    Ok(Some(rewritten.map_or(pg_sys::Datum::from(0), Expr::datum)))
}

/// A text that a column has or holds, and what it is compared with.
struct TextSide {
    value: Expr,
    accessor: Accessor,
    steps: Vec<Vec<u8>>,
    text: Expr,
}

impl TextSide {
    /// `None` where the filter would have to be made for each pair of rows, or the path for each row.
    fn of(sealed: Expr, text: Expr) -> Option<Self> {
        let is_text = text.base_type() == pg_sys::TEXTOID;
        if !is_text && (text.has_columns() || text.base_type() != sealed.base_type()) {
            return None;
        }
        if sealed.is_column() && sealed.base_type() != pg_sys::TEXTOID {
            return Some(TextSide { value: sealed, accessor: Accessor::Whole, steps: Vec::new(), text });
        }
        let (value, accessor, argument) = texts::text_part(sealed)?;
        let steps = texts::steps(accessor, argument.constant_datum()?)?;
        (!value.must_run_once()).then_some(TextSide { value, accessor, steps, text })
    }

    fn filter(&self, objects: &Objects) -> Result<Option<Expr>, PgError> {
        let Some(text) = self.text.constant() else { return Ok(self.filter_call(objects)) };
        let opened;
        let text = match self.text.base_type() == pg_sys::TEXTOID {
            true => text.bytes(),
            false => {
                opened = texts::open_literal(text.bytes())?;
                opened.content()
            }
        };
        let steps = self.steps.iter().map(Vec::as_slice).collect();
        let query = TextQuery { accessor: self.accessor, steps, text }.encode();
        let filter = filters::make_planned(target(self.value)?, Query::Text, &[&query])?;
        Ok(refreshed(objects, filter))
    }

    /// `filter_text(accessor, steps, text, keyring)`, with 0 for the session's keyring.
    fn filter_call(&self, objects: &Objects) -> Option<Expr> {
        let steps: Vec<&[u8]> = self.steps.iter().map(Vec::as_slice).collect();
        let arguments = [
            objects.int4_constant(self.accessor as i32),
            objects.texts_constant(array::of_texts(&steps)),
            self.text.copy(),
            objects.int4_constant(self.value.typmod().max(0)),
        ];
        let types = [pg_sys::INT4OID, pg_sys::TEXTARRAYOID, self.text.base_type(), pg_sys::INT4OID];
        objects.filter_call(c"filter_text", &types, &arguments)
    }

    fn halves(&self, objects: &Objects, filter: Expr) -> Option<Expr> {
        let (narrow, exact) = two_halves(objects, self.value, filter, filter)?;
        Some(match self.accessor {
            Accessor::Whole => narrow.and(exact),
            _ => narrow.or_null().and(exact),
        })
    }
}

/// `filter_support(internal)`: folds `pgseal.filter(constant)` so that plans show no plaintext.
pub fn filter_support(call: Call) -> Returned {
    fold(call, Query::Contains)
}

/// `filter_any_support(internal)`: the same for `pgseal.filter_any(constant)`.
pub fn filter_any_support(call: Call) -> Returned {
    fold(call, Query::ContainsAny)
}

/// `filter_casefold_support(internal)`: the same for `pgseal.filter_casefold(constant)`.
pub fn filter_casefold_support(call: Call) -> Returned {
    fold(call, Query::Casefold)
}

/// `filter_between_support(internal)`: the same for `pgseal.filter_between` with constants.
pub fn filter_between_support(call: Call) -> Returned {
    fold(call, Query::Between)
}

/// What a call asks, where the planner knows all of it. The arguments are those before the keyring.
fn known_question(kind: Query, arguments: &[Expr]) -> Result<Option<Vec<Vec<u8>>>, PgError> {
    if let [path, low, high] = arguments {
        let Some((path, given, low, high)) = known_bounds(*path, *low, *high)? else { return Ok(None) };
        return Ok(Some(vec![ranges::encode(&path, given, low, high)?.to_vec()]));
    }
    let Some(asked) = arguments.first().and_then(|argument| argument.constant()) else { return Ok(None) };
    if kind != Query::ContainsAny {
        return Ok(Some(vec![asked.bytes().to_vec()]));
    }
    let documents = array::documents(asked.datum());
    let bytes =
        |document: &Option<Varlena>| document.map(|document| document.bytes().to_vec()).unwrap_or_default();
    Ok(Some(documents.iter().map(bytes).collect()))
}

/// The path and bounds where the planner knows all of them.
fn known_bounds(path: Expr, low: Expr, high: Expr) -> Result<Option<Asked>, PgError> {
    let known = |bound: Expr| bound.is_null_constant() || bound.constant_datum().is_some();
    let Some(path) = path.constant().filter(|_| known(low) && known(high)) else { return Ok(None) };
    let given = Given::of(low.base_type());
    Ok(Some((utf8(path.bytes())?, given, low.constant_datum(), high.constant_datum())))
}

/// Path and bounds of a range.
type Asked = (String, Given, Bound, Bound);

/// `between_support(internal)`: `between(c, path, low, high)` becomes `(c @~ filter) AND (c @># filter)`.
pub fn between_support(call: Call) -> Returned {
    let Some(request) = simplify_request(call.datum(0)) else { return not_rewritten() };
    let arguments: Vec<Expr> = (0..4).map_while(|index| request.argument(index)).collect();
    let [value, path, low, high] = arguments.as_slice() else { return not_rewritten() };
    if path.constant().is_none() || arguments.iter().any(|argument| argument.must_run_once()) {
        return not_rewritten();
    }
    let Some(objects) = Objects::beside(*value) else { return not_rewritten() };
    let filter = match range_filter(&objects, *value, [*path, *low, *high]) {
        Err(PgError::NoKeyring) => return not_rewritten(),
        filter => filter?,
    };
    let rewritten = halves(&objects, *value, filter, None);
    Ok(Some(rewritten.map_or(pg_sys::Datum::from(0), Expr::datum)))
}

fn range_filter(objects: &Objects, value: Expr, asked: [Expr; 3]) -> Result<Option<Expr>, PgError> {
    let [path, low, high] = asked;
    if let Some((path, given, low, high)) = known_bounds(path, low, high)? {
        let query = ranges::encode(&path, given, low, high)?;
        return Ok(refreshed(objects, filters::make_planned(target(value)?, Query::Between, &[&query])?));
    }
    let bound_type = low.base_type();
    let keyring = objects.int4_constant(value.typmod().max(0));
    let types = [pg_sys::TEXTOID, bound_type, bound_type, pg_sys::INT4OID];
    Ok(objects.filter_call(c"filter_between_for", &types, &[path.copy(), low.copy(), high.copy(), keyring]))
}

/// Only where the keyring, the last argument, is a constant as well, or the session's choice.
fn fold(call: Call, kind: Query) -> Returned {
    let Some(request) = simplify_request(call.datum(0)) else { return not_rewritten() };
    let arguments: Vec<Expr> = (0..4).map_while(|index| request.argument(index)).collect();
    let Some((keyring, asked)) = arguments.split_last() else { return not_rewritten() };
    let Some(documents) = known_question(kind, asked)? else { return not_rewritten() };
    let documents: Vec<&[u8]> = documents.iter().map(Vec::as_slice).collect();
    let filter = match keyring.constant() {
        Some(name) => {
            let keyring = session::keyring_id(&utf8(name.bytes())?)?;
            filters::make_planned(Target { keyring, binding: Binding::Fixed }, kind, &documents)?
        }
        None if keyring.is_null_constant() => {
            let made =
                filters::session_target().and_then(|target| filters::make_planned(target, kind, &documents));
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

/// Both arguments of a call that may be rewritten: neither may be evaluated twice at a cost or with
/// different results.
fn two_arguments(call: Call) -> Option<(Expr, Expr)> {
    let request = simplify_request(call.datum(0))?;
    let (left, right) = (request.argument(0)?, request.argument(1)?);
    (!left.must_run_once() && !right.must_run_once()).then_some((left, right))
}

fn not_rewritten() -> Returned {
    Ok(Some(pg_sys::Datum::from(0)))
}

/// The keyring that answers for `value`: its column's, or what the session will have chosen.
fn target(value: Expr) -> Result<Target, PgError> {
    match value.typmod() {
        typmod if typmod > 0 => Ok(Target { keyring: typmod, binding: Binding::Fixed }),
        _ => filters::session_target(),
    }
}

/// `refresh(<constant filter>)`.
fn refreshed(objects: &Objects, filter: Vec<u8>) -> Option<Expr> {
    let constant = objects.filter_constant(varlena(&filter));
    objects.filter_call(c"refresh", &[objects.filter], &[constant])
}

/// `filter_for(query, keyring)`, with 0 for the session's keyring.
fn filter_for(objects: &Objects, query: Expr, typmod: i32) -> Option<Expr> {
    let keyring = objects.int4_constant(typmod.max(0));
    objects.filter_call(c"filter_for", &[pg_sys::JSONBOID, pg_sys::INT4OID], &[query.copy(), keyring])
}

/// A filter that names no keyring, on a column that has one: the column's.
fn for_column(objects: &Objects, value: Expr, filter: Expr) -> Result<Expr, PgError> {
    if value.typmod() <= 0 {
        return Ok(filter);
    }
    if let Some(named) = named_for_column(objects, value.typmod(), filter)? {
        return Ok(named);
    }
    let folded = filter.arguments_of(objects.function(c"refresh", &[objects.filter]));
    let Some(constant) = folded.and_then(|arguments| arguments.first()?.constant()) else {
        let column = objects.int4_constant(value.typmod());
        let types = [objects.filter, pg_sys::INT4OID];
        return Ok(objects.filter_call(c"filter_in", &types, &[filter.copy(), column]).unwrap_or(filter));
    };
    let folded = Filter::parse(constant.bytes())?;
    if folded.binding() == Binding::Fixed {
        return Ok(filter);
    }
    let target = Target { keyring: value.typmod(), binding: Binding::Fixed };
    Ok(refreshed(objects, filters::remake(&folded, target)?).unwrap_or(filter))
}

/// The functions that make filters: name, what they ask, and the type of each argument before the keyring.
const MAKERS: [(&CStr, Query, &[pg_sys::Oid]); 6] = [
    (c"filter", Query::Contains, &[pg_sys::JSONBOID]),
    (c"filter_any", Query::ContainsAny, &[pg_sys::JSONBARRAYOID]),
    (c"filter_casefold", Query::Casefold, &[pg_sys::JSONBOID]),
    (c"filter_between", Query::Between, &[pg_sys::TEXTOID, pg_sys::NUMERICOID, pg_sys::NUMERICOID]),
    (c"filter_between", Query::Between, &[pg_sys::TEXTOID, pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID]),
    (c"filter_between", Query::Between, &[pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::TEXTOID]),
];

/// A call that makes a filter and names no keyring, as if it named that of the column.
fn named_for_column(objects: &Objects, column: i32, filter: Expr) -> Result<Option<Expr>, PgError> {
    for (name, kind, asked_types) in MAKERS {
        let types = [asked_types, &[pg_sys::TEXTOID]].concat();
        let Some(arguments) = filter.arguments_of(objects.function(name, &types)) else { continue };
        let Some((keyring, asked)) = arguments.split_last() else { continue };
        if !keyring.is_null_constant() {
            return Ok(None);
        }
        if let Some(documents) = known_question(kind, asked)? {
            let documents: Vec<&[u8]> = documents.iter().map(Vec::as_slice).collect();
            let target = Target { keyring: column, binding: Binding::Fixed };
            return Ok(refreshed(objects, filters::make_planned(target, kind, &documents)?));
        }
        let named = objects.text_constant(&session::keyring(column)?.name);
        let arguments: Vec<Expr> = asked.iter().map(|argument| argument.copy()).chain([named]).collect();
        return Ok(objects.filter_call(name, &types, &arguments));
    }
    Ok(None)
}

/// `(value @~ filter) AND (value @># filter-or-query)`.
fn halves(objects: &Objects, value: Expr, filter: Option<Expr>, query: Option<Expr>) -> Option<Expr> {
    let filter = filter?;
    let (narrow, exact) = two_halves(objects, value, filter, query.unwrap_or(filter))?;
    Some(narrow.and(exact))
}

/// `value @~ filter` and `value @># query`.
fn two_halves(objects: &Objects, value: Expr, filter: Expr, query: Expr) -> Option<(Expr, Expr)> {
    let narrow = objects.operator(c"@~", value.copy(), filter.copy())?;
    let exact = objects.operator(c"@>#", value.copy(), query.copy())?;
    Some((narrow, exact))
}

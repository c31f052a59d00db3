//! What is decrypted for no more than a comparison is compared sealed, through the token index: `decrypt(m) @> '{...}'`,
//! `m::jsonb ->> 'k' = 'x'`, `decrypt(body) IN (...)`. Only columns that name a keyring: among the values of others the
//! session's setting would choose.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::core::modifier::Bound;
use crate::pg::raw::jsonb;
use crate::pg::raw::node::Expr;
use crate::pg::session::objects;
use crate::pg::values::accessor;

/// Functions behind operators of text and jsonb (catalog/pg_proc.dat).
const TEXT_EQUAL: u32 = 67;
const TEXT_DIFFERS: u32 = 157;
const JSONB_EQUAL: u32 = 4043;
const JSONB_CONTAINS: u32 = 4046;
const JSONB_CONTAINED: u32 = 4050;

/// Those that read a part as jsonb and as text, with ours of the same meaning.
const PARTS: [(u32, &CStr); 3] = [(3478, c"field"), (3215, c"element"), (3217, c"path")];
const TEXTS: [(u32, &CStr); 3] = [(3214, c"field_text"), (3216, c"element_text"), (3940, c"path_text")];

/// What the planner hook writes in place of a comparison of something decrypted; `None` leaves it.
pub fn compared(comparison: Expr) -> Option<Expr> {
    let (function, operands) = comparison.call()?;
    let [left, right] = operands.as_slice() else { return None };
    let new = match function.to_u32() {
        TEXT_EQUAL => text_compared(c"equal", *left, *right),
        TEXT_DIFFERS => text_compared(c"differ", *left, *right),
        JSONB_EQUAL => return equal(comparison, *left, *right).or_else(|| equal(comparison, *right, *left)),
        JSONB_CONTAINS => contains(*left, *right),
        JSONB_CONTAINED => contains(*right, *left),
        _ => None,
    };
    new.map(|new| new.collated_as(comparison))
}

/// The sealed text that is decrypted for an operator with ANY or ALL, and our function behind it.
pub fn listed(function: pg_sys::Oid, value: Expr) -> Option<(Expr, pg_sys::Oid)> {
    let name = match function.to_u32() {
        TEXT_EQUAL => c"equal",
        TEXT_DIFFERS => c"differ",
        _ => return None,
    };
    let value = sealed_text(value)?;
    Some((value, objects::function(name, &[value.base_type(), pg_sys::TEXTOID])?))
}

fn text_compared(name: &'static CStr, left: Expr, right: Expr) -> Option<Expr> {
    let (sealed, other) = sealed_text(left)
        .map(|sealed| (sealed, right))
        .or_else(|| sealed_text(right).map(|sealed| (sealed, left)))?;
    // A join can hash what is decrypted.
    if other.has_columns() || other.must_run_once() {
        return None;
    }
    let function = objects::function(name, &[sealed.base_type(), pg_sys::TEXTOID])?;
    Expr::of_function(function, &[sealed, other])
}

fn contains(value: Expr, query: Expr) -> Option<Expr> {
    let document = opened(value, c"decrypt").or_else(|| opened(value, c"plain"))?;
    if !document.is_column() || query.has_columns() || query.must_run_once() {
        return None;
    }
    let function = objects::function(c"contains", &[document.base_type(), pg_sys::JSONBOID])?;
    Expr::of_function(function, &[document.below_domain(), query])
}

/// A document contains what it holds at its keys: `(m @> '{"k": q}' OR NULL) AND decrypt(m) -> 'k' = q`.
fn equal(comparison: Expr, part: Expr, query: Expr) -> Option<Expr> {
    let query = query.folded().constant()?;
    let (document, keys) = accessor::key_source(sealed_document(part)?)?;
    if !document.is_column() {
        return None;
    }
    let keyed = jsonb::at_keys(&keys, query).ok()?;
    let function = objects::function(c"contains", &[document.base_type(), pg_sys::JSONBOID])?;
    let narrow =
        Expr::of_function(function, &[document.below_domain(), Expr::of_type(pg_sys::JSONBOID, keyed)?])?;
    Some(narrow.or_null().and(comparison.copy()))
}

/// The sealed text of which `text` is what it is decrypted to.
fn sealed_text(text: Expr) -> Option<Expr> {
    let text = text.below_relabelling();
    if let Some(value) = opened(text, c"decrypt").or_else(|| opened(text, c"plain")) {
        let is_text = value.is_column() || value.whole().is_some();
        // A cast to varchar is the same function.
        let as_text = [pg_sys::TEXTOID, pg_sys::VARCHAROID].contains(&text.base_type());
        return (is_text && as_text).then(|| value.below_domain());
    }
    part_of(text, &TEXTS)
}

/// The sealed document or part of which `document` is what it is decrypted to.
fn sealed_document(document: Expr) -> Option<Expr> {
    if let Some(value) = opened(document, c"decrypt").or_else(|| opened(document, c"plain")) {
        return Some(value.below_domain());
    }
    if let Some((whole, steps)) = document.subscripts() {
        return part(c"path", whole, steps);
    }
    part_of(document, &PARTS)
}

fn part_of(read: Expr, operators: &[(u32, &'static CStr)]) -> Option<Expr> {
    let (function, arguments) = read.call()?;
    let (_, name) = operators.iter().find(|(known, _)| *known == function.to_u32())?;
    let [document, argument] = arguments.as_slice() else { return None };
    part(name, *document, argument.folded())
}

fn part(name: &'static CStr, document: Expr, argument: Expr) -> Option<Expr> {
    argument.constant_datum()?;
    let document = sealed_document(document)?;
    let function = objects::function(name, &[document.base_type(), argument.base_type()])?;
    Expr::of_function(function, &[document, argument])
}

/// The value in `<name>(value)`, of a column that names its keyring, or a part of one.
fn opened(call: Expr, name: &'static CStr) -> Option<Expr> {
    let (function, arguments) = call.call()?;
    let [value] = arguments.as_slice() else { return None };
    if function.to_u32() < pg_sys::FirstNormalObjectId
        || objects::function(name, &[value.base_type()]) != Some(function)
    {
        return None;
    }
    let mut whole = *value;
    while let Some(document) = whole.whole() {
        whole = document;
    }
    let is_bound = matches!(whole.column().bound, Bound::Id(_));
    (whole.is_column() && is_bound).then_some(*value)
}

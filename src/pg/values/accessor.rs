//! Equality of texts: of `encrypted_text`, and of what `->>` and `#>>` read from a document.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::core::header::parse_head;
use crate::core::memory::{self, OutOfMemory};
use crate::core::policy::Policy;
use crate::core::text_query::{Accessor, Link, TextQuery, is_position};
use crate::pg::error::PgError;
use crate::pg::raw::array;
use crate::pg::raw::call::Call;
use crate::pg::raw::datum::{Varlena, detoast};
use crate::pg::raw::jsonb::{self, Function};
use crate::pg::raw::node::Expr;
use crate::pg::session::{Checked, Privilege, objects};
use crate::pg::values::seal::{self, OpenValue, TEXT};

/// jsonb's functions behind an accessor: for the part itself and for its text. The whole has none of its own.
pub fn functions(accessor: Accessor) -> (Function, Function) {
    match accessor {
        Accessor::Element => (jsonb::ELEMENT, jsonb::ELEMENT_TEXT),
        Accessor::Path => (jsonb::PATH, jsonb::PATH_TEXT),
        Accessor::Field | Accessor::Whole | Accessor::Chain => (jsonb::FIELD, jsonb::FIELD_TEXT),
    }
}

/// How the operators that look into a document take their argument apart; `None` for a path that is NULL
/// somewhere or no list.
pub fn steps(accessor: Accessor, argument: pg_sys::Datum) -> Result<Option<Vec<Vec<u8>>>, OutOfMemory> {
    Ok(match accessor {
        Accessor::Whole | Accessor::Chain => Some(Vec::new()),
        Accessor::Field => Some(vec![memory::copy(detoast(argument).bytes())?]),
        Accessor::Element => Some(vec![(argument.value() as i32).to_string().into_bytes()]),
        Accessor::Path => {
            let steps = array::steps(argument)?;
            steps
                .map(|steps| memory::try_collect(steps.iter().map(|step| memory::copy(step.bytes()))))
                .transpose()?
        }
    })
}

/// Is what the operator reads searchable?
pub fn is_declared(accessor: Accessor, argument: pg_sys::Datum, policy: &Policy) -> Result<bool, PgError> {
    let Some(steps) = steps(accessor, argument)? else { return Ok(false) };
    Ok(TextQuery::of_one(accessor, steps, Vec::new()).is_declared(policy))
}

/// Where a sealed side of a comparison comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `->>` or `#>>`, which has looked at the privileges itself.
    Part,
    /// Typed into the statement, or a parameter.
    Literal,
    /// A column, or what a function returned.
    Value,
}

/// Which side argument `index` of a comparison is.
pub fn side(call: Call, index: usize) -> Side {
    match call.argument_expression(index) {
        Some(argument) if argument.is_literal() => Side::Literal,
        Some(argument) if text_part(argument).is_some() => Side::Part,
        _ => Side::Value,
    }
}

impl Side {
    /// Decrypts a value from there for a role that compares it.
    pub fn open(self, bytes: &[u8], checked: &mut Checked) -> Result<OpenValue, PgError> {
        let (head, _) = parse_head(bytes)?;
        match self {
            // Sealed for this statement: the role has typed or sent it.
            Side::Literal if head.transit => seal::open_literal(bytes),
            Side::Part => seal::open_for(bytes, &TEXT, Privilege::Search),
            _ => {
                let declared = |policy: &Policy| Ok(policy.covers_scalar(&[], 0));
                seal::locate_to_look(bytes, &TEXT, checked, declared)?.open()
            }
        }
    }
}

/// The document, accessor and its argument where `expression` is a call of `->>` or `#>>`.
pub fn text_part(expression: Expr) -> Option<(Expr, Accessor, Expr)> {
    part_by([c"field_text", c"element_text", c"path_text"], expression)
}

/// The same for `->` and `#>`.
fn part(expression: Expr) -> Option<(Expr, Accessor, Expr)> {
    part_by([c"field", c"element", c"path"], expression)
}

fn part_by(names: [&'static CStr; 3], expression: Expr) -> Option<(Expr, Accessor, Expr)> {
    let (function, arguments) = expression.call()?;
    let [document, argument] = arguments.as_slice() else { return None };
    let accessors = [
        (pg_sys::TEXTOID, Accessor::Field),
        (pg_sys::INT4OID, Accessor::Element),
        (pg_sys::TEXTARRAYOID, Accessor::Path),
    ];
    names.into_iter().zip(accessors).find_map(|(name, (argument_type, accessor))| {
        let known = objects::function(name, &[document.base_type(), argument_type]);
        (known == Some(function)).then_some((*document, accessor, *argument))
    })
}

/// The document that a text is read from, and how: through as many operators as have constant arguments.
pub fn text_source(expression: Expr) -> Option<(Expr, Accessor, Vec<Vec<u8>>)> {
    let (mut document, accessor, argument) = text_part(expression)?;
    let last = steps(accessor, argument.constant_datum()?).ok()??;
    let mut before = Vec::new();
    while let Some((whole, accessor, argument)) = part(document) {
        let Some(steps) = argument.constant_datum().and_then(|argument| steps(accessor, argument).ok()?)
        else {
            break;
        };
        before.push((accessor, steps));
        document = whole;
    }
    if before.is_empty() {
        return Some((document, accessor, last));
    }
    let calls = before.into_iter().rev().chain([(accessor, last)]);
    let links = calls.flat_map(|(accessor, steps)| steps.into_iter().map(move |step| link(accessor, &step)));
    Some((document, Accessor::Chain, links.collect()))
}

/// The document that a part is read from by keys alone, and the keys.
pub fn key_source(expression: Expr) -> Option<(Expr, Vec<Vec<u8>>)> {
    let (mut document, mut calls) = (expression, Vec::new());
    while let Some((whole, accessor, argument)) = part(document) {
        let steps = steps(accessor, argument.constant_datum()?).ok()??;
        if accessor == Accessor::Element
            || accessor == Accessor::Path && steps.iter().any(|step| is_position(step))
        {
            return None;
        }
        calls.push(steps);
        document = whole;
    }
    Some((document, calls.into_iter().rev().flatten().collect()))
}

fn link(accessor: Accessor, step: &[u8]) -> Vec<u8> {
    match accessor {
        Accessor::Element => Link::Element(step).encode(),
        Accessor::Path => Link::Path(step).encode(),
        Accessor::Field | Accessor::Whole | Accessor::Chain => Link::Field(step).encode(),
    }
}

/// The plaintext side of a comparison that was typed or sent as `encrypted_text`.
pub fn open_literal(bytes: &[u8]) -> Result<OpenValue, PgError> {
    Side::Literal.open(bytes, &mut Checked::default())
}

/// The same of a list; a NULL is `None`.
pub fn open_literals(list: &[Option<Varlena>]) -> Result<Vec<Option<OpenValue>>, PgError> {
    let mut checked = Checked::default();
    let mut open = |sealed: &Varlena| Side::Literal.open(sealed.bytes(), &mut checked);
    memory::try_collect(list.iter().map(|sealed| sealed.as_ref().map(&mut open).transpose()))
}

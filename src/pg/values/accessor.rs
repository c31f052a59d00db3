//! Equality of texts: of `encrypted_text`, and of what `->>` and `#>>` read from a document.

use pgrx::pg_sys;

use crate::core::header::parse_head;
use crate::core::memory::{self, OutOfMemory};
use crate::core::policy::Policy;
use crate::core::text_query::{Accessor, TextQuery};
use crate::pg::error::PgError;
use crate::pg::raw::array;
use crate::pg::raw::call::Call;
use crate::pg::raw::datum::detoast;
use crate::pg::raw::jsonb::{self, Function};
use crate::pg::raw::node::Expr;
use crate::pg::session::{Checked, Privilege, objects};
use crate::pg::values::seal::{self, OpenValue, TEXT};

/// jsonb's functions behind an accessor: for the part itself and for its text. The whole has none of its own.
pub fn functions(accessor: Accessor) -> (Function, Function) {
    match accessor {
        Accessor::Element => (jsonb::ELEMENT, jsonb::ELEMENT_TEXT),
        Accessor::Path => (jsonb::PATH, jsonb::PATH_TEXT),
        Accessor::Field | Accessor::Whole => (jsonb::FIELD, jsonb::FIELD_TEXT),
    }
}

/// How the operators that look into a document take their argument apart; `None` for a path that is NULL
/// somewhere or no list.
pub fn steps(accessor: Accessor, argument: pg_sys::Datum) -> Result<Option<Vec<Vec<u8>>>, OutOfMemory> {
    Ok(match accessor {
        Accessor::Whole => Some(Vec::new()),
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
    Ok(TextQuery { accessor, steps, text: Vec::new() }.is_declared(policy))
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
    let (function, arguments) = expression.call()?;
    let [document, argument] = arguments.as_slice() else { return None };
    let accessors = [
        (c"field_text", pg_sys::TEXTOID, Accessor::Field),
        (c"element_text", pg_sys::INT4OID, Accessor::Element),
        (c"path_text", pg_sys::TEXTARRAYOID, Accessor::Path),
    ];
    accessors.into_iter().find_map(|(name, argument_type, accessor)| {
        let known = objects::function(name, &[document.base_type(), argument_type]);
        (known == Some(function)).then_some((*document, accessor, *argument))
    })
}

/// The plaintext side of a comparison that was typed or sent as `encrypted_text`.
pub fn open_literal(bytes: &[u8]) -> Result<OpenValue, PgError> {
    Side::Literal.open(bytes, &mut Checked::default())
}

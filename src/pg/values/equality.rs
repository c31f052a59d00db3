//! `=` and `<>` of `encrypted_text` and text, and of `encrypted_jsonb` and jsonb.

use std::rc::Rc;

use pgrx::pg_sys;

use crate::core::header::{Head, parse_head};
use crate::core::policy::Policy;
use crate::pg::error::PgError;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::{Owned, Varlena};
use crate::pg::raw::node::Expr;
use crate::pg::raw::{jsonb, text};
use crate::pg::session::{Checked, Privilege};
use crate::pg::values::accessor::{self, Side};
use crate::pg::values::grouping::Opened;
use crate::pg::values::seal::{self, JSONB, OpenValue, TEXT};
use crate::pg::values::{choice, grouping};

/// `encrypted_text = encrypted_text`.
pub fn equal_sealed(call: Call) -> Returned {
    if call.groups() {
        return Ok(Some(grouping::are_equal(call, &TEXT)?.into()));
    }
    compare(call, true, text_operand(call, 0)?, text_operand(call, 1)?)
}

/// `encrypted_text <> encrypted_text`.
pub fn differ_sealed(call: Call) -> Returned {
    compare(call, false, text_operand(call, 0)?, text_operand(call, 1)?)
}

/// `encrypted_text = text`.
pub fn equal_text(call: Call) -> Returned {
    compare(call, true, text_operand(call, 0)?, Operand::Plain(call.varlena(1)))
}

/// `encrypted_text <> text`.
pub fn differ_text(call: Call) -> Returned {
    compare(call, false, text_operand(call, 0)?, Operand::Plain(call.varlena(1)))
}

/// `text = encrypted_text`.
pub fn text_equal(call: Call) -> Returned {
    compare(call, true, Operand::Plain(call.varlena(0)), text_operand(call, 1)?)
}

/// `text <> encrypted_text`.
pub fn text_differ(call: Call) -> Returned {
    compare(call, false, Operand::Plain(call.varlena(0)), text_operand(call, 1)?)
}

/// `encrypted_jsonb = encrypted_jsonb`.
pub fn equal_documents(call: Call) -> Returned {
    if call.groups() {
        return Ok(Some(grouping::are_equal(call, &JSONB)?.into()));
    }
    Ok(Some(are_equal_documents(call)?.into()))
}

/// `encrypted_jsonb <> encrypted_jsonb`, and either side jsonb.
pub fn differ_documents(call: Call) -> Returned {
    Ok(Some((!are_equal_documents(call)?).into()))
}

/// `encrypted_jsonb = jsonb` and the other way round.
pub fn equal_document(call: Call) -> Returned {
    Ok(Some(are_equal_documents(call)?.into()))
}

fn are_equal_documents(call: Call) -> Result<bool, PgError> {
    let (left, right) = (document(call, 0)?, document(call, 1)?);
    Ok(jsonb::order(&left, &right).is_eq())
}

/// What a call site knows about its two documents.
#[derive(Default)]
struct Documents {
    sides: [Checked; 2],
    opened: Opened,
}

/// A side of a comparison of documents. Whole ones tell all: with `search` alone where everything is declared.
fn document(call: Call, index: usize) -> Result<Rc<Owned>, PgError> {
    let value = call.varlena(index);
    if call.argument_type(index) == pg_sys::JSONBOID {
        return Ok(Rc::new(Owned::new(value.bytes())?));
    }
    let (head, _) = parse_head(value.bytes())?;
    let origin = origin(call, index, head);
    let is_literal = call.argument_expression(origin).is_some_and(Expr::is_literal);
    if is_literal && head.transit {
        let opened = seal::open_for(value.bytes(), &JSONB, Privilege::Search)?;
        return Ok(Rc::new(Owned::new(opened.datum()?.bytes())?));
    }
    choice::require_seen(call, origin, head.keyring)?;
    call.with_cache(|site: &mut Documents| {
        let Documents { sides, opened } = site;
        let checked = &mut sides[origin];
        let mut open = || -> Result<Owned, PgError> {
            let declared = |policy: &Policy| Ok(policy.covers_everything());
            let opened = seal::locate_to_look(value.bytes(), &JSONB, checked, declared)?.open()?;
            Ok(Owned::new(opened.datum()?.bytes())?)
        };
        grouping::joined(call.datum(index), &JSONB, opened, &mut open).unwrap_or_else(|| Ok(Rc::new(open()?)))
    })
}

enum Operand {
    Plain(Varlena),
    Sealed(OpenValue),
    Joined(Rc<Owned>),
}

impl Operand {
    fn bytes(&self) -> &[u8] {
        match self {
            Operand::Plain(text) => text.bytes(),
            Operand::Sealed(value) => value.content(),
            Operand::Joined(value) => value.bytes(),
        }
    }

    fn datum(&self) -> Result<pg_sys::Datum, PgError> {
        match self {
            Operand::Plain(text) => Ok(text.datum()),
            Operand::Sealed(value) => Ok(value.datum()?.datum()),
            Operand::Joined(value) => Ok(value.datum()),
        }
    }
}

/// A text brings a collation, as a column has it or COLLATE says. Ours have none: they are equal by their bytes.
fn compare(call: Call, wanted: bool, left: Operand, right: Operand) -> Returned {
    let has_text = matches!(left, Operand::Plain(_)) || matches!(right, Operand::Plain(_));
    let by_bytes = !has_text || call.has_default_collation();
    let equal = if by_bytes {
        left.bytes() == right.bytes()
    } else {
        text::EQUAL.boolean(call, left.datum()?, right.datum()?)
    };
    Ok(Some((equal == wanted).into()))
}

/// What a call site knows about its two sealed arguments.
#[derive(Default)]
struct Sides {
    of: [Option<(Side, Checked)>; 2],
    opened: Opened,
}

/// Which argument of the statement a value is: in a list that is hashed, literals are what it has.
fn origin(call: Call, index: usize, head: Head) -> usize {
    if call.searches_list() { head.transit.into() } else { index }
}

/// A sealed side of a comparison.
fn text_operand(call: Call, index: usize) -> Result<Operand, PgError> {
    let bytes = call.varlena(index);
    let (head, _) = parse_head(bytes.bytes())?;
    let origin = origin(call, index, head);
    call.with_cache(|sides: &mut Sides| {
        let Sides { of, opened } = sides;
        let (side, checked) =
            of[origin].get_or_insert_with(|| (accessor::side(call, origin), Checked::default()));
        if *side == Side::Literal {
            return Ok(Operand::Sealed(side.open(bytes.bytes(), checked)?));
        }
        choice::require_seen(call, origin, head.keyring)?;
        let open = || Ok(Owned::new(side.open(bytes.bytes(), checked)?.content())?);
        match grouping::joined(call.datum(index), &TEXT, opened, open) {
            Some(joined) => Ok(Operand::Joined(joined?)),
            None => Ok(Operand::Sealed(side.open(bytes.bytes(), checked)?)),
        }
    })
}

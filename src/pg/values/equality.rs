//! `=` and `<>` of `encrypted_text` and text.

use pgrx::pg_sys;

use crate::core::header::parse_head;
use crate::pg::error::PgError;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::Varlena;
use crate::pg::raw::text;
use crate::pg::session::Checked;
use crate::pg::values::accessor::{self, Side};
use crate::pg::values::choice;
use crate::pg::values::seal::OpenValue;

/// `encrypted_text = encrypted_text`.
pub fn equal_sealed(call: Call) -> Returned {
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

enum Operand {
    Plain(Varlena),
    Sealed(OpenValue),
}

impl Operand {
    fn bytes(&self) -> &[u8] {
        match self {
            Operand::Plain(text) => text.bytes(),
            Operand::Sealed(value) => value.content(),
        }
    }

    fn datum(&self) -> Result<pg_sys::Datum, PgError> {
        match self {
            Operand::Plain(text) => Ok(text.datum()),
            Operand::Sealed(value) => Ok(value.datum()?.datum()),
        }
    }
}

/// A text brings a collation, as a column has it or COLLATE says. Ours have none: they are equal by their bytes.
fn compare(call: Call, wanted: bool, left: Operand, right: Operand) -> Returned {
    let by_bytes =
        matches!((&left, &right), (Operand::Sealed(_), Operand::Sealed(_))) || call.has_default_collation();
    let equal = if by_bytes {
        left.bytes() == right.bytes()
    } else {
        text::EQUAL.boolean(call, left.datum()?, right.datum()?)
    };
    Ok(Some((equal == wanted).into()))
}

/// What a call site knows about its two sealed arguments.
#[derive(Default)]
struct Sides([Option<(Side, Checked)>; 2]);

/// A sealed side of a comparison.
fn text_operand(call: Call, index: usize) -> Result<Operand, PgError> {
    let bytes = call.varlena(index);
    let value = call.with_cache(|sides: &mut Sides| {
        let (side, checked) =
            sides.0[index].get_or_insert_with(|| (accessor::side(call, index), Checked::default()));
        if *side != Side::Literal {
            choice::require_seen(call, index, parse_head(bytes.bytes())?.0.keyring)?;
        }
        side.open(bytes.bytes(), checked)
    })?;
    Ok(Operand::Sealed(value))
}

//! PostgreSQL's own comparisons of texts, in the collation that a call brings.

use std::cmp::Ordering;

use pgrx::pg_sys;

use super::call::Call;
use super::datum::{Owned, Varlena, call2};

/// The order of two texts in the database's collation.
pub fn order(left: &Owned, right: &Owned) -> Ordering {
    if left.bytes() == right.bytes() {
        return Ordering::Equal;
    }
    // SAFETY: both are aligned text datums with a 4-byte length word, and are only read.
    let order = unsafe {
        call2(pg_sys::bttextcmp, left.datum(), right.datum(), pg_sys::DEFAULT_COLLATION_OID).value() as i32
    };
    order.cmp(&0)
}

/// A text as the explicit cast to `varchar(n)` cuts it; a negative modifier is none.
pub fn cut(text: Varlena, modifier: i32) -> pg_sys::Datum {
    // SAFETY: `varchar(varchar, int4, boolean)` takes a text as it is, and returns one.
    unsafe {
        pg_sys::OidFunctionCall3Coll(
            pg_sys::Oid::from_u32(pg_sys::F_VARCHAR_VARCHAR_INT4_BOOL),
            pg_sys::InvalidOid,
            text.datum(),
            modifier.into(),
            true.into(),
        )
    }
}

/// A function of two texts that answers true or false.
#[derive(Clone, Copy)]
pub struct TextFunction(unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum);

/// `text = text`.
pub const EQUAL: TextFunction = TextFunction(pg_sys::texteq);
/// `text < text`.
pub const LESS: TextFunction = TextFunction(pg_sys::text_lt);
/// `text <= text`.
pub const LESS_OR_EQUAL: TextFunction = TextFunction(pg_sys::text_le);
/// `text > text`.
pub const GREATER: TextFunction = TextFunction(pg_sys::text_gt);
/// `text >= text`.
pub const GREATER_OR_EQUAL: TextFunction = TextFunction(pg_sys::text_ge);
/// `text LIKE text`.
pub const LIKE: TextFunction = TextFunction(pg_sys::textlike);
/// `text NOT LIKE text`.
pub const NOT_LIKE: TextFunction = TextFunction(pg_sys::textnlike);
/// `text ILIKE text`.
pub const ILIKE: TextFunction = TextFunction(pg_sys::texticlike);
/// `text NOT ILIKE text`.
pub const NOT_ILIKE: TextFunction = TextFunction(pg_sys::texticnlike);
/// `text ~ text`.
pub const REGEX: TextFunction = TextFunction(pg_sys::textregexeq);
/// `text !~ text`.
pub const NOT_REGEX: TextFunction = TextFunction(pg_sys::textregexne);
/// `text ~* text`.
pub const IREGEX: TextFunction = TextFunction(pg_sys::texticregexeq);
/// `text !~* text`.
pub const NOT_IREGEX: TextFunction = TextFunction(pg_sys::texticregexne);

impl TextFunction {
    /// Its answer in the collation of `call`.
    pub fn boolean(self, call: Call, left: pg_sys::Datum, right: pg_sys::Datum) -> bool {
        // SAFETY: each constant's function takes two texts, of which both datums are one, and returns a boolean.
        unsafe { call2(self.0, left, right, call.collation()).value() & 0xFF != 0 }
    }
}

//! `= ANY (list)`, IN, `<> ALL` and `@> ANY`: no support function is asked about them, so the planner hook writes calls of
//! these functions in their place, which are rewritten as `=` and `@>` are. Not rewritten, each value is opened once.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::core::memory;
use crate::core::text_query::{Accessor, TextQuery};
use crate::pg::error::PgError;
use crate::pg::raw::array;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::{Owned, Varlena};
use crate::pg::raw::lists::ListTest;
use crate::pg::raw::node::Expr;
use crate::pg::search::decrypted;
use crate::pg::search::recheck::OpenDocument;
use crate::pg::session::{Checked, objects};
use crate::pg::values::accessor::{self, Side};
use crate::pg::values::seal::{JSONB, OpenValue};

/// What the planner hook writes in place of an operator with ANY or ALL; `None` leaves it.
pub fn rewritten(test: &ListTest) -> Option<Expr> {
    let (operand, function) = if test.function.to_u32() < pg_sys::FirstNormalObjectId {
        decrypted::listed(test.function, test.value)?
    } else {
        (test.value, test.function)
    };
    let (value, of) = (operand.base_type(), test.list.element_type()?);
    let is = |name: &'static CStr| objects::function(name, &[value, of]) == Some(function);
    let call = |name: &'static CStr| {
        let function = objects::function(name, &[value, test.list.base_type()])?;
        Expr::of_function(function, &[operand.below_domain(), test.list])
    };
    match test.any {
        true if is(c"equal") => call(c"equal_any"),
        true if is(c"contains") => call(c"contains_any"),
        false if is(c"differ") => Some(call(c"equal_any")?.negated()),
        _ => None,
    }
}

/// A list of texts as a call site last saw it.
#[derive(Default)]
struct Texts {
    bytes: Option<Vec<u8>>,
    query: Option<TextQuery<Owned>>,
    side: Option<(Side, Checked)>,
}

/// `equal_any(encrypted_text, text[])`, where it was not rewritten.
pub fn equal_any(call: Call) -> Returned {
    any_text(call, |texts, list| texts.hold(list.iter().map(|text| text.as_ref().map(Varlena::bytes))))
}

/// `equal_any(encrypted_text, encrypted_text[])`.
pub fn equal_any_sealed(call: Call) -> Returned {
    any_text(call, |texts, list| {
        let opened = accessor::open_literals(list)?;
        texts.hold(opened.iter().map(|text| text.as_ref().map(OpenValue::content)))
    })
}

impl Texts {
    fn hold<'a>(&mut self, list: impl IntoIterator<Item = Option<&'a [u8]>>) -> Result<(), PgError> {
        let query = TextQuery::of_list(Accessor::Whole, Vec::new(), list)?;
        self.query = Some(query.held_as(Owned::new)?);
        Ok(())
    }
}

fn any_text(call: Call, hold: fn(&mut Texts, &[Option<Varlena>]) -> Result<(), PgError>) -> Returned {
    let Some(list) = call.optional(1) else { return Ok(None) };
    if array::length(list.datum()) == 0 {
        return Ok(Some(false.into()));
    }
    let Some(value) = call.optional(0) else { return Ok(None) };
    call.with_cache(|texts: &mut Texts| {
        if texts.bytes.as_deref() != Some(list.bytes()) {
            texts.bytes = None;
            hold(texts, &array::values(list.datum())?)?;
            texts.bytes = Some(memory::copy(list.bytes())?);
        }
        let (side, checked) = texts.side.get_or_insert_with(|| (accessor::side(call, 0), Checked::default()));
        let opened = side.open(value.bytes(), checked)?;
        let answer = texts.query.as_ref().and_then(|query| query.answer(opened.content()));
        Ok(answer.map(Into::into))
    })
}

/// A list of documents as a call site last saw it, and the value that is looked at.
#[derive(Default)]
struct Documents {
    bytes: Option<Vec<u8>>,
    documents: Vec<Option<Owned>>,
    open: OpenDocument,
}

/// `contains_any(encrypted_jsonb, jsonb[])`, where it was not rewritten.
pub fn contains_any(call: Call) -> Returned {
    let Some(list) = call.optional(1) else { return Ok(None) };
    if array::length(list.datum()) == 0 {
        return Ok(Some(false.into()));
    }
    let Some(value) = call.optional(0) else { return Ok(None) };
    call.with_cache(|site: &mut Documents| {
        if site.bytes.as_deref() != Some(list.bytes()) {
            site.bytes = None;
            let held = array::documents(list.datum())?;
            let held = held.iter().map(|one| one.as_ref().map(|one| Owned::new(one.bytes())).transpose());
            site.documents = memory::try_collect(held)?;
            site.bytes = Some(memory::copy(list.bytes())?);
        }
        let Documents { documents, open, .. } = site;
        open.load(value.bytes(), &JSONB, |policy| {
            let mut asked = documents.iter().flatten();
            asked.try_fold(true, |all, one| Ok(all && policy.declares(one.bytes())?))
        })?;
        let found = documents.iter().flatten().any(|one| open.document.contains(one));
        let is_known = found || documents.iter().all(Option::is_some);
        Ok(is_known.then(|| found.into()))
    })
}

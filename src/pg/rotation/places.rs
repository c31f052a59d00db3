//! Which keys the values of a column are under, for retire_key, drop_keyring and audit: they look at tables of everybody.

use std::collections::BTreeMap;
use std::ffi::CString;

use pgrx::pg_sys;

use crate::core::header::{HEADER_BYTES, Head, parse_head};
use crate::core::text_form;
use crate::pg::error::PgError;
use crate::pg::raw::array;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::varlena;
use crate::pg::raw::record::{self, Field};
use crate::pg::raw::{column, confine, encoding, role, xact};
use crate::pg::session;

/// What a header says of the keys of a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Keys {
    /// Its keyring's id.
    pub keyring: i32,
    /// Version of the data key.
    pub data_version: u16,
    /// Version of the index key, 0 for none.
    pub index_version: u16,
    /// The value waits to be sealed for its column.
    pub transit: bool,
}

/// `column_keys(regclass, column text)`: for all keys that values of a column have together, how many values have them;
/// NULL for those of malformed values.
pub fn column_keys(call: Call) -> Returned {
    record::rows(
        call,
        count_keys(call)?.into_iter().map(|(keys, count)| {
            [
                Field::Int4(keys.map(|keys| keys.keyring)),
                Field::Int4(keys.map(|keys| keys.data_version.into())),
                Field::Int4(keys.map(|keys| keys.index_version.into())),
                Field::Boolean(keys.map(|keys| keys.transit)),
                count.into(),
            ]
        }),
    )
}

/// Of arrays, composites and ranges the values that their text quotes.
pub fn count_keys(call: Call) -> Result<BTreeMap<Option<Keys>, i64>, PgError> {
    let relation = pg_sys::Oid::from(call.int4(0) as u32);
    let name = call.text(1)?;
    let column = CString::new(name.as_str()).map_err(|_| PgError::Encoding)?;
    let mut counts = BTreeMap::new();
    let mut count = |head: Option<Head>| *counts.entry(head.map(Keys::of)).or_default() += 1;
    let found = column::read(relation, &column, |value| match value.prefix(HEADER_BYTES) {
        Some(bytes) => count(parse_head(bytes.bytes()).ok().map(|(head, _)| head)),
        None => heads(&value.text()).for_each(|head| count(Some(head))),
    });
    if !found {
        return Err(PgError::Argument(format!("there is no column \"{name}\"")));
    }
    Ok(counts)
}

impl Keys {
    fn of(head: Head) -> Self {
        let Head { keyring, data_version, index_version, transit, .. } = head;
        Keys { keyring, data_version, index_version, transit }
    }
}

/// `text_holds_key(text, keyring int4, version int4)`: does this text, say of a DEFAULT or a view, quote a
/// value of that data key version?
pub fn text_holds_key(call: Call) -> Returned {
    let text = call.varlena(0);
    let (keyring, version) = (call.int4(1), call.int4(2));
    let held =
        heads(text.bytes()).any(|head| head.keyring == keyring && i32::from(head.data_version) == version);
    Ok(Some(held.into()))
}

/// Of the values that a text quotes.
fn heads(text: &[u8]) -> impl Iterator<Item = Head> {
    let words = text.split(|byte| !(byte.is_ascii_alphanumeric() || b":+/=".contains(byte)));
    words.flat_map(starts).filter_map(|encoded| {
        let bytes = text_form::decode(encoded)?.ok()?;
        parse_head(&bytes).ok().map(|(head, _)| head)
    })
}

/// What begins with the prefix, anywhere in a word.
fn starts(word: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..word.len()).map(|at| &word[at..]).filter(|rest| rest.starts_with(text_form::PREFIX.as_bytes()))
}

/// `confined(statement text, tid, tid, table regclass)`: runs a statement that may run a table owner's code, which cannot
/// get at more rights than the owner has: as the owner where the current role has more. Its third parameter lends the
/// current role's privileges on keyrings to what the statement itself calls.
pub fn confined(call: Call) -> Returned {
    let statement = encoding::c_text(call.varlena(0).bytes())?;
    let [start, stop] = [1, 2].map(|index| (!call.is_null(index)).then(|| call.datum(index)));
    let owner = if call.is_null(3) { None } else { lesser_owner((call.int4(3) as u32).into())? };
    let result =
        session::lend(|permit| confine::run(&statement, owner, [start, stop, Some(varlena(permit).datum())]));
    Ok(result?.map(|text| varlena(&text).datum()))
}

/// The owner of a table, where that one has not all rights of the current role: then this role must have all of the owner's.
fn lesser_owner(table: pg_sys::Oid) -> Result<Option<pg_sys::Oid>, PgError> {
    let current = xact::current_role();
    let owner = role::lasting_owner(table).filter(|owner| !xact::has_privileges_of(*owner, current));
    if owner.is_none_or(|owner| role::may_become(current, owner)) {
        Ok(owner)
    } else {
        Err(PgError::NotOwner)
    }
}

/// `page_values(regclass, column text, page int8, item int4)`: the values of a page, each at the number of its row, or of
/// one row, for whoever may select all of them.
pub fn page_values(call: Call) -> Returned {
    let relation = pg_sys::Oid::from(call.int4(0) as u32);
    let column = encoding::c_text(call.varlena(1).bytes())?;
    if !column::is_readable(relation, &column) {
        return Err(PgError::Unselectable(encoding::shown(column.to_bytes())));
    }
    // Bytes of another column would become sealed values.
    let Some(pages) = column::pages(relation, &column, call.result_element_type()) else {
        return Err(PgError::Argument("the column is not of this type, or in no table".into()));
    };
    let page = u32::try_from(call.datum(2).value()).ok().filter(|page| *page < pages);
    let only = (!call.is_null(3)).then(|| call.int4(3));
    let mut values = Vec::new();
    let mut keep = |number: u16, value: column::Value| {
        if only.is_none_or(|only| only == i32::from(number)) {
            values.resize(usize::from(number).max(values.len()), None);
            values[usize::from(number) - 1] = value.bytes();
        }
    };
    if let Some(page) = page {
        column::read_page(relation, &column, page, &mut keep);
    }
    Ok(Some(array::of_values(&values, call.result_element_type()).datum()))
}

//! Which keys the values of a column are under, for retire_key, drop_keyring and audit: they look at tables of everybody.

use std::collections::BTreeMap;
use std::ffi::CString;

use pgrx::pg_sys;

use super::error::PgError;
use super::raw::array;
use super::raw::call::{Call, Returned};
use super::raw::column;
use crate::core::envelope::{HEADER_BYTES, Head, parse_head};
use crate::core::text_form;

/// `column_keys(regclass, column text)`: a line "keyring data-key index-key transit count" for each key, the first four
/// empty for malformed values. Of arrays, composites and ranges the values that their text quotes.
pub fn column_keys(call: Call) -> Returned {
    let relation = pg_sys::Oid::from(call.int4(0) as u32);
    let name = call.text(1)?;
    let column = CString::new(name.as_str()).map_err(|_| PgError::Encoding)?;
    let mut counts = BTreeMap::<Option<[i32; 4]>, u64>::new();
    let mut count = |head: Option<Head>| *counts.entry(head.map(numbers)).or_default() += 1;
    let found = column::read(relation, &column, |value| match value.prefix(HEADER_BYTES) {
        Some(bytes) => count(parse_head(bytes.bytes()).ok().map(|(head, _)| head)),
        None => heads(&value.text()).for_each(|head| count(Some(head))),
    });
    if !found {
        return Err(PgError::Argument(format!("there is no column \"{name}\"")));
    }
    let lines: Vec<String> = counts.into_iter().map(line).collect();
    let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
    Ok(Some(array::of_texts(&lines).datum()))
}

fn numbers(head: Head) -> [i32; 4] {
    [head.keyring, head.data_version.into(), head.index_version.into(), head.transit.into()]
}

fn line((numbers, count): (Option<[i32; 4]>, u64)) -> String {
    let words = numbers.map_or_else(Default::default, |numbers| numbers.map(|number| number.to_string()));
    format!("{} {count}", words.join(" "))
}

/// `text_holds_key(text, keyring int4, version int4)`: does this text, say of a DEFAULT or a view, quote a
/// value of that data key version?
pub fn text_holds_key(call: Call) -> Returned {
    let text = call.text(0)?;
    let (keyring, version) = (call.int4(1), call.int4(2));
    let held = heads(&text).any(|head| head.keyring == keyring && i32::from(head.data_version) == version);
    Ok(Some(held.into()))
}

/// Of the values that a text quotes.
fn heads(text: &str) -> impl Iterator<Item = Head> {
    text.match_indices(text_form::PREFIX).filter_map(|(at, _)| {
        let encoded = text[at..].split(|c: char| !(c.is_ascii_alphanumeric() || ":+/=".contains(c))).next();
        let decoded = encoded.and_then(|encoded| text_form::decode(encoded.as_bytes()));
        decoded.and_then(Result::ok).and_then(|bytes| parse_head(&bytes).ok()).map(|(head, _)| head)
    })
}

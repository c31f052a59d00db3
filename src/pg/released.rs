//! What definitions of 0.1.0 and 0.2.0 call: in the arrays that those definitions read, until they are updated, and in
//! procedures that are still running then.

use crate::core::header::{HEADER_BYTES, parse_head};
use crate::core::memory;
use crate::pg::keyrings::{manage, monitor};
use crate::pg::raw::array;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::varlena;
use crate::pg::rotation::places::{self, Keys};
use crate::pg::rotation::{in_place, verify};
use crate::pg::values::seal::{JSONB, Kind, TEXT};

/// `rewrite_pages(regclass, int2, int8, int8, boolean)`: three counts, then all busy pages.
pub fn rewrite_pages(call: Call) -> Returned {
    let done = in_place::renew_pages(call)?;
    let mut numbers = vec![done.rewritten, done.left, done.elsewhere];
    numbers.extend(done.busy.into_iter().map(i64::from));
    Ok(Some(array::of_int8s(&numbers).datum()))
}

/// `check_value(encrypted_jsonb, text, boolean)`.
pub fn check_jsonb(call: Call) -> Returned {
    check(call, &JSONB)
}

/// `check_value(encrypted_text, text, boolean)`.
pub fn check_text(call: Call) -> Returned {
    check(call, &TEXT)
}

/// Result, keyring, key version and finding; empty where there is none.
fn check(call: Call, kind: &Kind) -> Returned {
    let Some(verdict) = verify::verdict(call, kind)? else { return Ok(None) };
    let keyring = verdict.head.map_or_else(String::new, |head| head.keyring.to_string());
    let version = verdict.head.map_or_else(String::new, |head| head.data_version.to_string());
    texts(&[verdict.result, &keyring, &version, &verdict.finding])
}

/// `column_keys(regclass, text)`: "keyring data-key index-key transit count"; the first four are empty for malformed values.
pub fn column_keys(call: Call) -> Returned {
    let counts = places::count_keys(call)?;
    let lines: Vec<String> = counts
        .into_iter()
        .map(|(keys, count)| match keys {
            Some(Keys { keyring, data_version, index_version, transit }) => {
                format!("{keyring} {data_version} {index_version} {} {count}", i32::from(transit))
            }
            None => format!("    {count}"),
        })
        .collect();
    texts(&lines.iter().map(String::as_str).collect::<Vec<_>>())
}

/// `kms_problem(text)`: what is wrong and what to do; nothing where all is well.
pub fn kms_problem(call: Call) -> Returned {
    match monitor::problem_of_kms(&call.text(0)?)? {
        Some(problem) => texts(&[&problem.to_string(), &problem.hint().unwrap_or_default()]),
        None => texts(&[]),
    }
}

/// `searchable_values(encrypted_jsonb)`: path, line end, number.
pub fn searchable_values(call: Call) -> Returned {
    manage::with_searchable_values(call, |values| {
        let mut datums = memory::room(values.len())?;
        let lines = values.iter().map(|(path, number)| format!("{path}\n{number:x}"));
        datums.extend(lines.map(|line| varlena(line.as_bytes()).datum()));
        Ok(Some(array::of_text_datums(&mut datums).datum()))
    })
}

/// `head_of(encrypted_*)`: keyring, data key version, index key version and whether the value is in transit, as numbers;
/// NULL where the bytes are no value. Needs no key.
pub fn head_of(call: Call) -> Returned {
    let Ok((head, _)) = parse_head(call.prefix(0, HEADER_BYTES).bytes()) else { return Ok(None) };
    let numbers = [head.keyring, head.data_version.into(), head.index_version.into(), head.transit.into()];
    let numbers = numbers.map(|number| number.to_string());
    texts(&numbers.each_ref().map(String::as_str))
}

fn texts(elements: &[&str]) -> Returned {
    let elements: Vec<&[u8]> = elements.iter().map(|text| text.as_bytes()).collect();
    Ok(Some(array::of_texts(&elements).datum()))
}

//! Re-encryption without new row versions: only where nothing but the data key of a value changes.

use std::time::Duration;

use super::error::PgError;
use super::raw::array;
use super::raw::call::{Call, Returned};
use super::raw::in_place::{Page, Patch, Replaced, Table, Value};
use super::values;
use crate::core::envelope::{HEADER_BYTES, parse_head};

/// Rounds over pages that somebody looks at, and the pause before each.
const ROUNDS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(20);
/// A page that others change again and again is left to UPDATE.
const ATTEMPTS: u32 = 5;

/// What was done to pages.
#[derive(Default)]
struct Done {
    /// Values whose bytes were replaced.
    rewritten: i64,
    /// Values that only UPDATE can renew, and what could not be read.
    left: i64,
    /// Values stored out of line, renewed already or not.
    elsewhere: i64,
    /// Pages that somebody looked at all the time.
    busy: Vec<u32>,
}

/// `rewrite_pages(table regclass, column int2, first_page int8, end_page int8, index boolean)`: how many values were
/// renewed in place, are left for UPDATE, are stored out of line; then the pages that somebody held all the time.
pub fn rewrite_pages(call: Call) -> Returned {
    let column = i32::from(call.datum(1).value() as i16);
    let table = Table::open((call.int4(0) as u32).into(), column).map_err(PgError::InPlace)?;
    let index = call.boolean(4);
    let number = |at: usize| u32::try_from(call.datum(at).value() as i64).unwrap_or(u32::MAX);
    let mut todo: Vec<u32> = (number(2)..number(3).min(table.pages())).collect();
    let mut done = Done::default();
    for round in 0..ROUNDS {
        if round > 0 {
            std::thread::sleep(PAUSE);
        }
        for number in std::mem::take(&mut todo) {
            let page = table.page(number);
            if !rewrite(&page, index, &mut done) {
                todo.push(number);
            }
            page.release();
        }
        if todo.is_empty() {
            break;
        }
    }
    done.busy = todo;
    table.close();
    let counts = [done.rewritten, done.left, done.elsewhere].into_iter();
    let all: Vec<i64> = counts.chain(done.busy.into_iter().map(i64::from)).collect();
    Ok(Some(array::of_int8s(&all).datum()))
}

/// False where somebody looks at the page.
fn rewrite(page: &Page<'_>, index: bool, done: &mut Done) -> bool {
    for _ in 0..ATTEMPTS {
        let copy = page.copy();
        let mut seen = Done::default();
        let patches: Vec<Patch> =
            page.values(&copy).into_iter().filter_map(|value| renew(&value, index, &mut seen)).collect();
        let replaced = if patches.is_empty() { Replaced::Done } else { page.replace(&copy, &patches) };
        match replaced {
            Replaced::Done => {
                done.rewritten += patches.len() as i64;
                done.left += seen.left;
                done.elsewhere += seen.elsewhere;
                return true;
            }
            Replaced::Busy => return false,
            Replaced::Changed => {}
        }
    }
    done.left += 1;
    true
}

fn renew(value: &Value<'_>, index: bool, seen: &mut Done) -> Option<Patch> {
    let (offset, old) = match value {
        Value::Inline(offset, old) => (*offset, *old),
        Value::Elsewhere => {
            seen.elsewhere += 1;
            return None;
        }
    };
    match renewed(old, index) {
        Ok(None) => None,
        Ok(Some(new)) if differs_in_key_only(old, &new) => Some(Patch { offset, old: old.to_vec(), new }),
        // UPDATE says why, unless it is a row version that nobody needs any more.
        Ok(Some(_)) | Err(_) => {
            seen.left += 1;
            None
        }
    }
}

/// `None` where the value is current.
fn renewed(old: &[u8], index: bool) -> Result<Option<Vec<u8>>, PgError> {
    match values::is_current(old, index)? {
        true => Ok(None),
        false => Ok(Some(values::rotate(old, index)?.bytes().to_vec())),
    }
}

/// Same length, header but for the data key version, and tokens: no index, constraint or reader can tell.
fn differs_in_key_only(old: &[u8], new: &[u8]) -> bool {
    const VERSION: std::ops::Range<usize> = 8..10;
    let Ok((_, tokens)) = parse_head(old) else { return false };
    let end = HEADER_BYTES + 8 * tokens;
    old.len() == new.len()
        && old[..VERSION.start] == new[..VERSION.start]
        && old[VERSION.end..end] == new[VERSION.end..end]
}

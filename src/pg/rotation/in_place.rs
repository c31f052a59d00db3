//! Re-encryption without new row versions: only where nothing but the data key of a value changes.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use pgrx::pg_sys::TransactionId;

use crate::core::header::{DATA_VERSION, parse_head};
use crate::pg::catalog::{self, Keyring};
use crate::pg::error::PgError;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::heap_page::{Page, PageImage, Patch, Replaced, Table, Value};
use crate::pg::raw::table::Since;
use crate::pg::raw::{lock, record, xact};
use crate::pg::rotation::pace;
use crate::pg::session;
use crate::pg::values::seal::Renewer;

/// Rounds over pages that somebody looks at, and the pause before each.
const ROUNDS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(20);
/// A page that others change again and again is left to UPDATE.
const ATTEMPTS: u32 = 5;

/// What was done to pages.
#[derive(Default)]
pub struct Done {
    /// Values whose bytes were replaced.
    pub rewritten: i64,
    /// Values that only UPDATE can renew, and what could not be read.
    pub left: i64,
    /// Values stored out of line, renewed already or not.
    pub elsewhere: i64,
    /// Pages that somebody looked at all the time.
    pub busy: Vec<u32>,
}

/// `rewrite_pages(table regclass, column int2, first_page int8, end_page int8, index boolean)`: how many values were
/// renewed in place, are left for UPDATE, are stored out of line; then the first page that somebody held all the time.
pub fn rewrite_pages(call: Call) -> Returned {
    let done = renew_pages(call)?;
    let busy_page = done.busy.first().copied().map(i64::from);
    record::row(call, [done.rewritten.into(), done.left.into(), done.elsewhere.into(), busy_page.into()])
}

/// Whoever owns the table may call it, as reencrypt does: everything that makes it safe is looked at here.
pub fn renew_pages(call: Call) -> Result<Done, PgError> {
    xact::require_writable(c"pgseal.rewrite_pages()");
    let (oid, column) = ((call.int4(0) as u32).into(), call.datum(1).value() as i16);
    let table = Table::open(oid, column.into()).map_err(PgError::InPlace)?;
    // Under the lock, because an index may have been made since the last batch.
    if let Some(problem) = catalog::in_place_problem(oid, column)? {
        return Err(PgError::InPlaceProblem(problem));
    }
    let index = call.boolean(4);
    let number = |at: usize| u32::try_from(call.datum(at).value() as i64).unwrap_or(u32::MAX);
    let mut todo: Vec<u32> = (number(2)..number(3).min(table.pages())).collect();
    let (mut done, mut work) = (Done::default(), Work::default());
    for round in 0..ROUNDS {
        if round > 0 {
            pace::wait_for_page(PAUSE);
        }
        for number in std::mem::take(&mut todo) {
            let page = table.page(number);
            if !work.rewrite(&page, index, round + 1 == ROUNDS, &mut done)? {
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
    Ok(done)
}

/// Bytes for one page, and the keys that the values before had: mostly those of the next one, too.
#[derive(Default)]
struct Work {
    copy: PageImage,
    renewer: Option<Renewer>,
    goals: Goals,
    /// New values, one after the other, and where in the page each comes.
    bytes: Vec<u8>,
    places: Vec<(usize, Range<usize>)>,
    /// The last transaction that made a key of theirs.
    horizon: TransactionId,
}

/// Data keys that values may be renewed to, and the transaction that made each: bytes in a page have no version of their
/// own, hence every snapshot that may read it has to see their key.
#[derive(Default)]
struct Goals(HashMap<(i32, u16), TransactionId>);

impl Goals {
    fn require(&mut self, keyring: &Keyring, version: u16) -> Result<TransactionId, PgError> {
        if let Some(writer) = self.0.get(&(keyring.id, version)) {
            return Ok(*writer);
        }
        let writer = match session::tables()?.data_key_since(keyring.id, version) {
            Some(Since::Ever) => TransactionId::INVALID,
            Some(Since::Committed(writer)) => writer,
            Some(Since::Uncommitted) => return Err(PgError::UncommittedKey(keyring.name.clone(), version)),
            None => return Err(PgError::UnknownKey(keyring.name.clone(), "data", version)),
        };
        if writer != TransactionId::INVALID {
            require_new_snapshots(keyring, version, writer)?;
        }
        // From here on no older snapshot comes back: who takes one over needs its owner's transaction to be open.
        self.0.insert((keyring.id, version), writer);
        Ok(writer)
    }
}

fn require_new_snapshots(keyring: &Keyring, version: u16, writer: TransactionId) -> Result<(), PgError> {
    let older: Vec<String> = lock::with_older_snapshots(writer).iter().map(lock::Running::name).collect();
    let own = lock::is_unseen(writer).then(lock::own_process);
    if older.is_empty() && own.is_none() {
        return Ok(());
    }
    let sessions: Vec<i32> = catalog::sessions_of(&older)?.into_iter().chain(own).collect();
    Err(PgError::OlderSnapshots(keyring.name.clone(), version, format!("{sessions:?}")))
}

impl Work {
    /// False where somebody looks at the page. The `last` time it may keep what is in its free space.
    fn rewrite(
        &mut self,
        page: &Page<'_>,
        index: bool,
        last: bool,
        done: &mut Done,
    ) -> Result<bool, PgError> {
        // Keys may have been flushed or changed since the last page.
        self.renewer = None;
        for _ in 0..ATTEMPTS {
            page.copy(&mut self.copy);
            let (left, elsewhere) = self.renew_all(page, index)?;
            let patches: Vec<Patch<'_>> = self
                .places
                .iter()
                .map(|(at, new)| Patch { offset: *at, new: &self.bytes[new.clone()] })
                .collect();
            let nothing = patches.is_empty() && self.copy.is_hole_clean();
            let replaced =
                if nothing { Replaced::Done } else { page.replace(&self.copy, &patches, self.horizon) };
            match replaced {
                Replaced::Busy if !(last && patches.is_empty()) => return Ok(false),
                Replaced::Done | Replaced::Busy => {
                    done.rewritten += patches.len() as i64;
                    done.left += left;
                    done.elsewhere += elsewhere;
                    return Ok(true);
                }
                Replaced::Changed => {}
            }
        }
        done.left += 1;
        Ok(true)
    }

    /// How many values are left for UPDATE, and how many are stored out of line.
    fn renew_all(&mut self, page: &Page<'_>, index: bool) -> Result<(i64, i64), PgError> {
        let (mut left, mut elsewhere) = (0, 0);
        self.bytes.clear();
        self.places.clear();
        self.horizon = TransactionId::INVALID;
        for value in page.values(&self.copy) {
            let (offset, old) = match value {
                Value::Inline(offset, old) => (offset, old),
                Value::Elsewhere => {
                    elsewhere += 1;
                    continue;
                }
            };
            let start = self.bytes.len();
            match renew(old, index, &mut self.renewer, &mut self.goals, &mut self.bytes) {
                Ok(Renewed::Current) => {}
                Ok(Renewed::Appended(writer)) if differs_in_key_only(old, &self.bytes[start..]) => {
                    self.places.push((offset, start..self.bytes.len()));
                    self.horizon = lock::later(self.horizon, writer);
                }
                // The next value would only wait for the KMS again, or be under the same key.
                Err(
                    error @ (PgError::Kms(..) | PgError::UncommittedKey(..) | PgError::OlderSnapshots(..)),
                ) => return Err(error),
                // UPDATE says why, unless it is a row version that nobody needs any more.
                Ok(_) | Err(_) => {
                    self.bytes.truncate(start);
                    left += 1;
                }
            }
        }
        Ok((left, elsewhere))
    }
}

enum Renewed {
    /// There is nothing to do.
    Current,
    /// The new value is at the end of the bytes; this transaction made its key.
    Appended(TransactionId),
    /// More than the data key has to change.
    Otherwise,
}

fn renew(
    old: &[u8],
    index: bool,
    known: &mut Option<Renewer>,
    goals: &mut Goals,
    out: &mut Vec<u8>,
) -> Result<Renewed, PgError> {
    let (head, _) = parse_head(old)?;
    *known = known.take().filter(|renewer| renewer.fits(&head));
    let keyring = match known {
        Some(renewer) => renewer.keyring.clone(),
        None => session::keyring(head.keyring)?,
    };
    if keyring.is_active_for(&head, index)? {
        return Ok(Renewed::Current);
    }
    if !keyring.keeps_tokens(&head, index)? {
        return Ok(Renewed::Otherwise);
    }
    let renewer = match known {
        Some(renewer) => renewer,
        None => known.insert(Renewer::of(&head)?),
    };
    let writer = goals.require(&renewer.keyring, renewer.to)?;
    renewer.renew(old, out)?;
    Ok(Renewed::Appended(writer))
}

/// Same length, header but for the data key version, and tokens: no index, constraint or reader can tell.
fn differs_in_key_only(old: &[u8], new: &[u8]) -> bool {
    let Ok((_, section)) = parse_head(old) else { return false };
    let end = section.end();
    old.len() == new.len()
        && old[..DATA_VERSION.start] == new[..DATA_VERSION.start]
        && old[DATA_VERSION.end..end] == new[DATA_VERSION.end..end]
}

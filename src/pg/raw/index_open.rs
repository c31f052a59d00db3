//! Opens an index of ours by its oid, as functions get it from SQL.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::encoding::shown_c;
use super::index_page::Index;
use super::index_rows::Rows;
use super::{version, xact};
use crate::pg::error::PgError;

/// The access method's name.
const NAME: &CStr = c"sealed_ivf";

/// An index and its table, locked against whatever else moves rows in it, until the end of the transaction. Meanwhile the
/// table's owner is the role, as in REINDEX: a predicate may call that role's functions.
pub struct Maintained {
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    caller: pg_sys::Oid,
    context: i32,
    settings: i32,
}

/// Shows `look` an index, valid or not; nothing where there is none of this number any more.
pub fn read(index: pg_sys::Oid, look: impl FnOnce(Index) -> Result<(), PgError>) -> Result<(), PgError> {
    // SAFETY: opened and closed here; if anything raises, transaction abort cleans up.
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        let relation = pg_sys::try_relation_open(index, lock);
        if relation.is_null() {
            return Ok(());
        }
        let done = if is_ours(relation) { look(Index::new(relation)) } else { Err(no_index()) };
        pg_sys::relation_close(relation, lock);
        done
    }
}

/// # Safety
/// The relation is open.
unsafe fn is_ours(relation: pg_sys::Relation) -> bool {
    // SAFETY: as the caller says; a syscache lookup, NULL for a method that is gone.
    unsafe {
        let class = &*(*relation).rd_rel;
        let name = pg_sys::get_am_name(class.relam);
        class.relkind as u8 == pg_sys::RELKIND_INDEX && !name.is_null() && CStr::from_ptr(name) == NAME
    }
}

fn no_index() -> PgError {
    PgError::Argument("it is no index of access method sealed_ivf".into())
}

/// How long a table is waited for that somebody else maintains, where `lock_timeout` does not say.
const LONGEST: Duration = Duration::from_secs(60);
/// Between two looks at it.
const PAUSE_US: i64 = 20_000;

/// Locks a table as vacuum does, without a place in the queue: behind an autovacuum that would cancel it.
fn wait_for(table: pg_sys::Oid, index: pg_sys::Oid) -> Result<(), PgError> {
    // SAFETY: a plain setting, in ms.
    let longest = match unsafe { pg_sys::LockTimeout } {
        set @ 1.. => Duration::from_millis(set as u64),
        _ => LONGEST,
    };
    let since = Instant::now();
    // SAFETY: locks a relation until the end of the transaction, or does nothing.
    while !unsafe { pg_sys::ConditionalLockRelationOid(table, pg_sys::ShareUpdateExclusiveLock as i32) } {
        if since.elapsed() >= longest {
            // SAFETY: a syscache lookup; NULL for a relation that is gone.
            let name = unsafe { shown_c(pg_sys::get_rel_name(index)) };
            return Err(PgError::Maintained(name));
        }
        xact::check_interrupts();
        // SAFETY: sleeps.
        unsafe { pg_sys::pg_usleep(PAUSE_US) };
    }
    Ok(())
}

impl Maintained {
    /// For the owner of the table.
    pub fn open(index: pg_sys::Oid) -> Result<Self, PgError> {
        // SAFETY: syscache lookups, and relations that stay open until `close` or the end of the transaction. The lock is
        // vacuum's: neither it, nor CREATE INDEX CONCURRENTLY, nor another of these runs beside it.
        unsafe {
            let table = pg_sys::IndexGetRelation(index, true);
            if table == pg_sys::InvalidOid {
                return Err(no_index());
            }
            if !version::owns(table) {
                return Err(PgError::NotOwner);
            }
            wait_for(table, index)?;
            let table = pg_sys::table_open(table, pg_sys::NoLock as i32);
            let index = pg_sys::index_open(index, pg_sys::RowExclusiveLock as i32);
            if !is_ours(index) {
                return Err(no_index());
            }
            let (mut caller, mut context) = (pg_sys::InvalidOid, 0);
            pg_sys::GetUserIdAndSecContext(&mut caller, &mut context);
            let restricted = context | pg_sys::SECURITY_RESTRICTED_OPERATION as i32;
            pg_sys::SetUserIdAndSecContext((*(*table).rd_rel).relowner, restricted);
            let settings = pg_sys::NewGUCNestLevel();
            Ok(Maintained { table, index, caller, context, settings })
        }
    }

    /// The index.
    pub fn index(&self) -> Index {
        // SAFETY: open until `close`.
        unsafe { Index::new(self.index) }
    }

    /// The rows of its table that the running statement sees.
    pub fn rows(&self) -> Result<Rows, PgError> {
        // SAFETY: both are open; a running statement has a snapshot.
        unsafe {
            let context = pg_sys::CurrentMemoryContext;
            Rows::open(self.table, self.index, pg_sys::GetActiveSnapshot(), context)
        }
    }

    /// Closes both, for the role that opened them; the locks stay.
    pub fn close(self) {
        // SAFETY: opened by `open`. After an error the (sub)transaction's abort does what is done here.
        unsafe {
            pg_sys::AtEOXact_GUC(false, self.settings);
            pg_sys::SetUserIdAndSecContext(self.caller, self.context);
            pg_sys::relation_close(self.index, pg_sys::NoLock as i32);
            pg_sys::relation_close(self.table, pg_sys::NoLock as i32);
        }
    }
}

//! Reads rows of our own tables with the newest snapshot there is, without SQL: safe inside the planner,
//! inside STABLE functions and in every isolation level.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::datum::{Varlena, detoast};
use super::encoding::{shown_c, utf8};
use crate::pg::error::PgError;

/// Which rows, by the leading column of the given index.
pub enum Key<'a> {
    /// All of them.
    All,
    /// An int4 column, by attribute number, equal to this.
    Int4(i16, i32),
    /// An oid column, by attribute number, equal to this.
    Oid(i16, pg_sys::Oid),
    /// A name column, by attribute number, equal to this.
    Name(i16, &'a CStr),
}

/// A row under the scan, valid inside the reading closure only.
pub struct Row {
    tuple: pg_sys::HeapTuple,
    description: pg_sys::TupleDesc,
}

/// Since when a row is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// Every snapshot on every server sees it.
    Ever,
    /// This transaction has written it, and committed.
    Committed(pg_sys::TransactionId),
    /// The present transaction has written it.
    Uncommitted,
}

/// Reads at most `limit` rows of `relation`. `index` is a unique index whose first column `key` names.
pub fn read<T>(
    relation: pg_sys::Oid,
    index: pg_sys::Oid,
    key: Key<'_>,
    limit: usize,
    mut read: impl FnMut(&Row) -> T,
) -> Vec<T> {
    let mut found = Vec::new();
    // SAFETY: relation and index are open tables of this extension; the scan key names an int4 or name
    // column with the equality function of that type; the tuple is read before the next is fetched.
    // A NULL snapshot asks for a fresh catalog snapshot. If `read` raises, transaction abort cleans up.
    unsafe {
        let table = pg_sys::table_open(relation, pg_sys::AccessShareLock as i32);
        let mut scan_key = pg_sys::ScanKeyData::default();
        let keys = prepare(&mut scan_key, &key);
        let scan = pg_sys::systable_beginscan(table, index, true, std::ptr::null_mut(), keys, &mut scan_key);
        while found.len() < limit {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            found.push(read(&Row { tuple, description: (*table).rd_att }));
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(table, pg_sys::AccessShareLock as i32);
    }
    found
}

unsafe fn prepare(scan_key: &mut pg_sys::ScanKeyData, key: &Key<'_>) -> i32 {
    let (column, function, datum) = match key {
        Key::All => return 0,
        Key::Int4(column, value) => (*column, pg_sys::F_INT4EQ, pg_sys::Datum::from(*value)),
        Key::Oid(column, value) => (*column, pg_sys::F_OIDEQ, pg_sys::Datum::from(*value)),
        Key::Name(column, name) => (*column, pg_sys::F_NAMEEQ, pg_sys::Datum::from(name.as_ptr())),
    };
    // SAFETY: `scan_key` is writable; the function fits the column's type.
    unsafe {
        pg_sys::ScanKeyInit(
            scan_key,
            column,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::Oid::from(function),
            datum,
        );
    }
    1
}

impl Row {
    fn value(&self, column: i32) -> Option<pg_sys::Datum> {
        let mut null = false;
        // SAFETY: the tuple matches its descriptor and `column` is one of its attributes.
        let datum = unsafe { pg_sys::heap_getattr(self.tuple, column, self.description, &mut null) };
        (!null).then_some(datum)
    }

    /// Who made this version of it.
    pub fn since(&self) -> Since {
        // SAFETY: a tuple on its page, hence with the transaction that wrote it; looks at shared memory inside a
        // transaction. What others have not committed yet, no scan of ours sees.
        unsafe {
            let header = &*(*self.tuple).t_data;
            let xmin = header.t_choice.t_heap.t_xmin;
            let frozen = pg_sys::HEAP_XMIN_FROZEN as u16;
            if header.t_infomask & frozen == frozen || xmin < pg_sys::TransactionId::FIRST_NORMAL {
                return Since::Ever;
            }
            if pg_sys::TransactionIdIsCurrentTransactionId(xmin) {
                Since::Uncommitted
            } else {
                Since::Committed(xmin)
            }
        }
    }

    /// An int4 or oid column that is never NULL.
    pub fn int4(&self, column: i32) -> i32 {
        self.value(column).map_or(0, |datum| datum.value() as i32)
    }

    /// The type of a column.
    pub fn type_of(&self, column: i32) -> pg_sys::Oid {
        // SAFETY: `column` is one of the attributes of the descriptor.
        unsafe { pg_sys::SPI_gettypeid(self.description, column) }
    }

    /// How many columns the table has, dropped ones too.
    pub fn columns(&self) -> i32 {
        // SAFETY: the descriptor is that of the relation that is open as long as the row.
        unsafe { (*self.description).natts }
    }

    /// An oid column.
    pub fn oid(&self, column: i32) -> pg_sys::Oid {
        pg_sys::Oid::from(self.int4(column) as u32)
    }

    /// A boolean column.
    pub fn boolean(&self, column: i32) -> bool {
        self.value(column).is_some_and(|datum| datum.value() & 0xFF != 0)
    }

    /// A uuid column that is never NULL.
    pub fn uuid(&self, column: i32) -> [u8; 16] {
        // SAFETY: a uuid is 16 bytes by reference.
        self.value(column).map_or([0; 16], |datum| unsafe { *datum.cast_mut_ptr::<[u8; 16]>() })
    }

    /// A name column that is never NULL, as messages show it.
    pub fn name(&self, column: i32) -> String {
        let Some(datum) = self.value(column) else { return String::new() };
        // SAFETY: a name is NUL-terminated inside its 64 bytes.
        unsafe { shown_c(datum.cast_mut_ptr()) }
    }

    /// A bytea, text or jsonb column.
    pub fn varlena(&self, column: i32) -> Option<Varlena> {
        self.value(column).map(detoast)
    }

    /// A text column.
    pub fn text(&self, column: i32) -> Result<Option<String>, PgError> {
        self.varlena(column).map(|text| utf8(text.bytes())).transpose()
    }
}

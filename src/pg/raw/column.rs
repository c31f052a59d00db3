//! Reads a column of any table without the planner: that would run functions of the table's owner, of its expression
//! indexes for one, as whoever looks.

use std::ffi::CStr;

use pgrx::{PgMemoryContexts, pg_sys};

use super::datum::{Varlena, prefix};
use super::xact;

/// A value under the scan, valid inside the reading closure only.
#[derive(Clone, Copy)]
pub struct Value {
    datum: pg_sys::Datum,
    kind: pg_sys::Oid,
    plain: bool,
}

/// Shows `read` every value but NULL of the rows that the running statement sees, those of children not. False if there
/// is no such column in a table that is there still.
pub fn read(relation: pg_sys::Oid, column: &CStr, mut read: impl FnMut(Value)) -> bool {
    let mut short = PgMemoryContexts::new("values of a column");
    // SAFETY: the relation is opened and closed here; the tuple is read before the next is fetched, and what reading it
    // allocates is freed after it. If anything raises, transaction abort cleans up.
    unsafe {
        let table = pg_sys::try_relation_open(relation, pg_sys::AccessShareLock as i32);
        if table.is_null() {
            return true;
        }
        let number = pg_sys::get_attnum(relation, column.as_ptr());
        if number > 0 {
            let kind = pg_sys::get_atttype(relation, number);
            let plain = is_plain(kind);
            let flags = pg_sys::ScanOptions::SO_TYPE_SEQSCAN
                | pg_sys::ScanOptions::SO_ALLOW_STRAT
                | pg_sys::ScanOptions::SO_ALLOW_SYNC
                | pg_sys::ScanOptions::SO_ALLOW_PAGEMODE;
            let (snapshot, none) = (pg_sys::GetActiveSnapshot(), std::ptr::null_mut());
            let scan = pg_sys::heap_beginscan(table, snapshot, 0, none, std::ptr::null_mut(), flags);
            loop {
                xact::check_interrupts();
                let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
                if tuple.is_null() {
                    break;
                }
                let mut null = false;
                let datum = pg_sys::heap_getattr(tuple, number.into(), (*table).rd_att, &mut null);
                if !null {
                    short.switch_to(|_| read(Value { datum, kind, plain }));
                    short.reset();
                }
            }
            pg_sys::heap_endscan(scan);
        }
        pg_sys::relation_close(table, pg_sys::AccessShareLock as i32);
        number > 0
    }
}

/// A base type of variable length that holds no other, or a domain over one.
fn is_plain(kind: pg_sys::Oid) -> bool {
    // SAFETY: syscache lookups of a type that exists.
    unsafe {
        let base = pg_sys::getBaseType(kind);
        pg_sys::get_typtype(base) as u8 == pg_sys::TYPTYPE_BASE
            && pg_sys::get_typlen(base) == -1
            && pg_sys::get_element_type(base) == pg_sys::InvalidOid
    }
}

impl Value {
    /// Its first bytes, or all where it has fewer; `None` where it is not of a plain type.
    pub fn prefix(&self, bytes: usize) -> Option<Varlena> {
        self.plain.then(|| prefix(self.datum, bytes))
    }

    /// As text. Output functions are the server's and its extensions' own: only superusers can make others.
    pub fn text(&self) -> Vec<u8> {
        let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
        // SAFETY: the datum is of this type, which exists as long as its column; the string is copied.
        unsafe {
            pg_sys::getTypeOutputInfo(self.kind, &mut output, &mut is_varlena);
            let text = pg_sys::OidOutputFunctionCall(output, self.datum);
            CStr::from_ptr(text).to_bytes().to_vec()
        }
    }
}

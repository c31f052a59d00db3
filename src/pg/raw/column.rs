//! Reads a column of any table without the planner: that would run functions of the table's owner, of its expression
//! indexes for one, as whoever looks.

use std::ffi::CStr;

use pgrx::{PgMemoryContexts, pg_sys};

use super::datum::{Varlena, detoast, prefix};
use super::table::{self, Key};
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
    scan(relation, column, None, |_, value| read(value))
}

/// The same of one page, with the number of each row in it.
pub fn read_page(relation: pg_sys::Oid, column: &CStr, page: u32, read: impl FnMut(u16, Value)) -> bool {
    scan(relation, column, Some(page), read)
}

/// How many pages a table has whose column is of this type, or of a domain over it; `None` where it is no such table.
pub fn pages(relation: pg_sys::Oid, column: &CStr, base: pg_sys::Oid) -> Option<u32> {
    // SAFETY: the relation is opened and closed here; the rest are syscache lookups.
    unsafe {
        let table = pg_sys::table_open(relation, pg_sys::AccessShareLock as i32);
        let number = pg_sys::get_attnum(relation, column.as_ptr());
        let fits = (*(*table).rd_rel).relam == pg_sys::HEAP_TABLE_AM_OID
            && number > 0
            && pg_sys::getBaseType(pg_sys::get_atttype(relation, number)) == base;
        let pages =
            fits.then(|| pg_sys::RelationGetNumberOfBlocksInFork(table, pg_sys::ForkNumber::MAIN_FORKNUM));
        pg_sys::table_close(table, pg_sys::AccessShareLock as i32);
        pages
    }
}

fn scan(relation: pg_sys::Oid, column: &CStr, page: Option<u32>, mut read: impl FnMut(u16, Value)) -> bool {
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
                | pg_sys::ScanOptions::SO_ALLOW_PAGEMODE
                | if page.is_none() { pg_sys::ScanOptions::SO_ALLOW_SYNC } else { 0 };
            let (snapshot, none) = (pg_sys::GetActiveSnapshot(), std::ptr::null_mut());
            let scan = pg_sys::heap_beginscan(table, snapshot, 0, none, std::ptr::null_mut(), flags);
            if let Some(page) = page {
                pg_sys::heap_setscanlimits(scan, page, 1);
            }
            loop {
                xact::check_interrupts();
                let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
                if tuple.is_null() {
                    break;
                }
                let mut null = false;
                let datum = pg_sys::heap_getattr(tuple, number.into(), (*table).rd_att, &mut null);
                if !null {
                    let number = (*tuple).t_self.ip_posid;
                    short.switch_to(|_| read(number, Value { datum, kind, plain }));
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

/// May the current role see every value of the column, in the table or through one that it is a partition or child of?
pub fn is_readable(relation: pg_sys::Oid, column: &CStr) -> bool {
    // SAFETY: syscache lookups; the names of the constants are PostgreSQL's own.
    let itself = unsafe {
        let (role, right) = (pg_sys::GetUserId(), pg_sys::ACL_SELECT as pg_sys::AclMode);
        let number = pg_sys::get_attnum(relation, column.as_ptr());
        let granted = pg_sys::pg_class_aclcheck(relation, role, right) == pg_sys::AclResult::ACLCHECK_OK
            || (number > 0
                && pg_sys::pg_attribute_aclcheck(relation, number, role, right)
                    == pg_sys::AclResult::ACLCHECK_OK);
        let all_rows = pg_sys::check_enable_rls(relation, pg_sys::InvalidOid, true)
            != pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32;
        granted && all_rows
    };
    itself || parents(relation).into_iter().any(|parent| is_readable(parent, column))
}

/// What a table is a partition or child of.
fn parents(relation: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    // pg_inherits and pg_inherits_relid_seqno_index, whose oids are part of PostgreSQL's catalog headers.
    let (inherits, by_child) = (pg_sys::Oid::from(2611), pg_sys::Oid::from(2680));
    table::read(inherits, by_child, Key::Oid(1, relation), usize::MAX, |row| row.oid(2))
}

impl Value {
    /// All of it, copied; `None` where it is not of a plain type.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        self.plain.then(|| detoast(self.datum).bytes().to_vec())
    }

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

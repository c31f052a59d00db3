//! Row versions as bytes: who wrote them, and where a value is. Nothing outside the bytes is ever read.

use std::mem::offset_of;
use std::ops::Range;

use pgrx::{pg_sys, varlena};

/// `SizeofHeapTupleHeader`: what is always there.
const HEADER: usize = offset_of!(pg_sys::HeapTupleHeaderData, t_bits);
/// `MAXALIGN`.
const MAX_ALIGNMENT: usize = 8;
/// Length of a pointer to a value out of line, with its own two bytes of header.
const ON_DISK: usize = 2 + size_of::<pg_sys::varatt_external>();

/// How a column is laid out.
#[derive(Clone, Copy)]
pub struct Layout {
    /// `attlen`: -1 for a varlena, -2 for a cstring.
    pub length: i16,
    /// In bytes.
    pub alignment: usize,
}

/// What a row version has for a column.
#[derive(Debug, PartialEq, Eq)]
pub enum Attribute {
    /// NULL.
    Null,
    /// The bytes behind the length word are there.
    Inline(Range<usize>),
    /// Stored out of line or compressed by PostgreSQL, or the row is older than the column, or damaged.
    Elsewhere,
}

/// A row version.
pub struct Version<'a> {
    bytes: &'a [u8],
    data: usize,
}

impl<'a> Version<'a> {
    /// `None` where the header is none.
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        let data = usize::from(*bytes.get(offset_of!(pg_sys::HeapTupleHeaderData, t_hoff))?);
        let fits = (HEADER..=bytes.len()).contains(&data) && data.is_multiple_of(MAX_ALIGNMENT);
        fits.then_some(Version { bytes, data })
    }

    fn u16(&self, at: usize) -> u32 {
        self.bytes.get(at..at + 2).map_or(0, |bytes| u16::from_ne_bytes([bytes[0], bytes[1]]).into())
    }

    fn mask(&self) -> u32 {
        self.u16(offset_of!(pg_sys::HeapTupleHeaderData, t_infomask))
    }

    /// The transaction or subtransaction that wrote it has not come to its commit and never will: visible to nobody, and
    /// perhaps of columns that were rolled back with it.
    ///
    /// What an open transaction has written is like the table now: to change its columns takes AccessExclusiveLock to the
    /// end of the transaction, which stands against the lock that every reader of pages holds.
    pub fn is_aborted(&self) -> bool {
        let mask = self.mask();
        if mask & pg_sys::HEAP_XMIN_COMMITTED != 0 {
            return false;
        }
        let Some(xmin) = self.bytes.first_chunk().filter(|_| mask & pg_sys::HEAP_XMIN_INVALID == 0) else {
            return true;
        };
        let xmin = u32::from_ne_bytes(*xmin).into();
        // SAFETY: look at shared memory and the commit log, inside a transaction. In this order: a transaction is out of
        // progress only after its commit is logged.
        unsafe {
            !pg_sys::TransactionIdIsCurrentTransactionId(xmin)
                && !pg_sys::TransactionIdIsInProgress(xmin)
                && !pg_sys::TransactionIdDidCommit(xmin)
        }
    }

    /// The last of `columns`, which are the table's first ones.
    pub fn last_of(&self, columns: &[Layout]) -> Attribute {
        self.walk(columns).unwrap_or(Attribute::Elsewhere)
    }

    /// `None` where it would leave the row version.
    fn walk(&self, columns: &[Layout]) -> Option<Attribute> {
        let stored = self.u16(offset_of!(pg_sys::HeapTupleHeaderData, t_infomask2)) & pg_sys::HEAP_NATTS_MASK;
        let (last, before) = columns.split_last()?;
        if columns.len() > stored as usize {
            return None;
        }
        let mut at = self.data;
        for (number, column) in before.iter().enumerate() {
            if !self.is_null(number)? {
                at = column.start(self.bytes, at)?;
                at = at.checked_add(column.length(self.bytes.get(at..)?)?)?;
            }
        }
        if self.is_null(before.len())? {
            return Some(Attribute::Null);
        }
        let start = last.start(self.bytes, at)?;
        let value = self.bytes.get(start..)?;
        match Head::of(value)? {
            Head::Plain { header, length } if length <= value.len() => {
                Some(Attribute::Inline(start + header..start + length))
            }
            _ => None,
        }
    }

    fn is_null(&self, number: usize) -> Option<bool> {
        if self.mask() & pg_sys::HEAP_HASNULL == 0 {
            return Some(false);
        }
        let bits = self.bytes[..self.data].get(HEADER + number / 8)?;
        Some(bits & 1 << (number % 8) == 0)
    }
}

impl Layout {
    /// Where the value after `at` starts: a varlena with a short header, or without a header to align, at once.
    fn start(self, bytes: &[u8], at: usize) -> Option<usize> {
        match self.length {
            -1 if *bytes.get(at)? != 0 => Some(at),
            _ => at.checked_next_multiple_of(self.alignment),
        }
    }

    /// How long the value is that `value` starts with.
    fn length(self, value: &[u8]) -> Option<usize> {
        match self.length {
            -1 => Head::of(value).map(|head| head.length()),
            -2 => value.iter().position(|byte| *byte == 0).map(|end| end + 1),
            length => usize::try_from(length).ok(),
        }
    }
}

/// How a varlena starts.
enum Head {
    /// Neither compressed nor out of line; the length is that of all.
    Plain { header: usize, length: usize },
    /// Compressed, with this length, or out of line.
    Other { length: usize },
}

impl Head {
    fn of(value: &[u8]) -> Option<Self> {
        let mut start = [0; 4];
        let known = value.len().min(start.len());
        start[..known].copy_from_slice(value.get(..known).filter(|start| !start.is_empty())?);
        let word = u32::from_ne_bytes(start);
        let pointer = (&raw const word).cast();
        // SAFETY: none of these looks further than the four bytes of `word`.
        unsafe {
            if varlena::varatt_is_1b_e(pointer) {
                let on_disk =
                    u32::from(varlena::vartag_external(pointer)) == pg_sys::vartag_external::VARTAG_ONDISK;
                return on_disk.then_some(Head::Other { length: ON_DISK });
            }
            if varlena::varatt_is_1b(pointer) {
                return Some(Head::Plain { header: 1, length: varlena::varsize_1b(pointer) });
            }
            let length = varlena::varsize_4b(pointer);
            let head = if varlena::varatt_is_4b_c(pointer) {
                Head::Other { length }
            } else {
                Head::Plain { header: 4, length }
            };
            (length >= 4).then_some(head)
        }
    }

    fn length(&self) -> usize {
        match self {
            Head::Plain { length, .. } | Head::Other { length } => *length,
        }
    }
}

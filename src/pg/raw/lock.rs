//! Locks on key versions: writers share one to the end of their transaction, retiring takes it alone.

use std::cell::Cell;

use pgrx::pg_sys;

use super::version;

/// Fourth field of an advisory lock tag; 1 and 2 belong to pg_advisory_lock.
const LOCK_CLASS: u16 = 0x7073;

/// Did this transaction hold the lock before?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquired {
    /// No: somebody else may have held it, so what was read before may be stale.
    Now,
    /// Yes.
    Before,
}

/// Locks of no data key: what one session at a time does, and the lock of all data keys.
const RETIRING: (i32, u16) = (0, 0);
const ALL: (i32, u16) = (0, 1);
/// Locks that nobody waits for: whoever naps holds one, and its number says why.
const FIRST_MARK: u16 = 2;
/// A transaction that writes with more data keys than this takes the lock of all: the server has room for so many only.
const SINGLE_LOCKS: u32 = 32;

thread_local! {
    /// Locks of single data keys that this transaction has taken.
    static TAKEN: Cell<u32> = const { Cell::new(0) };
}

/// Shares the lock of a data key version until the end of the transaction.
pub fn share(keyring: i32, version: u16) -> Acquired {
    let taken = TAKEN.get();
    if taken >= SINGLE_LOCKS {
        return acquire(ALL, pg_sys::ShareLock);
    }
    let acquired = acquire((keyring, version), pg_sys::ShareLock);
    TAKEN.set(taken + u32::from(acquired == Acquired::Now));
    acquired
}

/// A transaction has ended, and with it its locks.
pub fn transaction_ended() {
    TAKEN.set(0);
}

/// Waits for every transaction that shares the lock, prepared ones included, and keeps new ones out. The lock of all
/// comes last: who holds that takes no other.
pub fn exclude(keyring: i32, version: u16) {
    acquire((keyring, version), pg_sys::ExclusiveLock);
    acquire(ALL, pg_sys::ExclusiveLock);
}

/// Whoever retires a key is alone until the end of its transaction; false where somebody else is.
pub fn retire_alone() -> bool {
    lock(RETIRING, pg_sys::ExclusiveLock, true) != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// Does something while pg_locks shows this mark to others.
pub fn while_marked(number: u16, work: impl FnOnce()) {
    let mark = (0, FIRST_MARK + number);
    acquire(mark, pg_sys::ShareLock);
    work();
    // SAFETY: taken above; an error in between ends the transaction, and with it the lock.
    unsafe { pg_sys::LockRelease(&tag(mark), pg_sys::ShareLock as i32, false) };
}

/// The mark that an advisory lock without a keyring is, as pg_locks names it.
pub fn mark_of(class: i32, number: i32) -> Option<u16> {
    let number = u16::try_from(number).ok().filter(|_| class == i32::from(LOCK_CLASS))?;
    number.checked_sub(FIRST_MARK)
}

fn acquire(what: (i32, u16), mode: u32) -> Acquired {
    match lock(what, mode, false) {
        pg_sys::LockAcquireResult::LOCKACQUIRE_OK => Acquired::Now,
        _ => Acquired::Before,
    }
}

fn lock(what: (i32, u16), mode: u32, at_once: bool) -> pg_sys::LockAcquireResult::Type {
    // SAFETY: the tag is valid for the call; the lock belongs to the current transaction.
    unsafe { pg_sys::LockAcquire(&tag(what), mode as i32, false, at_once) }
}

fn tag((keyring, version): (i32, u16)) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        // SAFETY: set before the first function of a session runs.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.into(),
        locktag_field2: keyring as u32,
        locktag_field3: version.into(),
        locktag_field4: LOCK_CLASS,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

/// A transaction of another session.
pub struct Running(pg_sys::VirtualTransactionId);

/// The transactions of this database that are running now, without vacuum's; prepared ones are not among them.
pub fn running_transactions() -> Vec<Running> {
    running(pg_sys::InvalidTransactionId)
}

/// Those with a snapshot that may not see what the transaction `writer`, which has committed, has written. It is enough
/// that an older transaction has not ended yet, be it a prepared one or one of another database: that holds back how
/// new a snapshot says it is.
pub fn with_older_snapshots(writer: pg_sys::TransactionId) -> Vec<Running> {
    running(writer)
}

/// Does the running statement not see what that transaction has written?
pub fn is_unseen(writer: pg_sys::TransactionId) -> bool {
    // SAFETY: a running statement has a snapshot; it is an MVCC one.
    unsafe { pg_sys::XidInMVCCSnapshot(writer, pg_sys::GetActiveSnapshot()) }
}

/// The process of this session.
pub fn own_process() -> i32 {
    // SAFETY: set when the process starts.
    unsafe { pg_sys::MyProcPid }
}

/// The later of two transactions, as far as there is any.
pub fn later(one: pg_sys::TransactionId, other: pg_sys::TransactionId) -> pg_sys::TransactionId {
    // SAFETY: compares numbers; no transaction precedes every other.
    if unsafe { pg_sys::TransactionIdPrecedes(one, other) } { other } else { one }
}

fn running(up_to: pg_sys::TransactionId) -> Vec<Running> {
    let mut count = 0;
    // SAFETY: the list is palloc'd with `count` entries; our own backend is never in it.
    unsafe {
        let list = pg_sys::GetCurrentVirtualXIDs(
            up_to,
            up_to != pg_sys::InvalidTransactionId,
            false,
            (pg_sys::PROC_IS_AUTOVACUUM | pg_sys::PROC_IN_VACUUM) as i32,
            &mut count,
        );
        let running = (0..count as usize).map(|at| Running(*list.add(at))).collect();
        pg_sys::pfree(list.cast());
        running
    }
}

impl Running {
    /// As pg_locks names it.
    pub fn name(&self) -> String {
        format!("{}/{}", version::backend(&self.0), self.0.localTransactionId)
    }

    /// It has ended by now.
    pub fn has_ended(&self) -> bool {
        // SAFETY: the id was valid a moment ago; one that is gone counts as ended.
        unsafe { pg_sys::VirtualXactLock(self.0, false) }
    }

    /// Waits for its end; a cancel interrupts.
    pub fn wait(&self) {
        // SAFETY: as above.
        unsafe { pg_sys::VirtualXactLock(self.0, true) };
    }
}

//! Pages of an index: buffers with their locks, and changes that generic WAL logs (bufmgr.h, generic_xlog.h).

use pgrx::pg_sys;

use super::encoding::shown_c;
use super::version;

/// Bytes of a page.
pub const PAGE: usize = pg_sys::BLCKSZ as usize;
/// Bytes of the header that PostgreSQL keeps at the start of each.
pub const HEADER: usize = std::mem::offset_of!(pg_sys::PageHeaderData, pd_linp);

const LOWER: usize = std::mem::offset_of!(pg_sys::PageHeaderData, pd_lower);
const UPPER: usize = std::mem::offset_of!(pg_sys::PageHeaderData, pd_upper);

/// What a page holds, aligned as PostgreSQL wants it.
#[repr(C, align(8))]
pub struct Bytes(pub [u8; PAGE]);

/// An index that PostgreSQL has opened, as long as the call runs that got it.
#[derive(Clone, Copy)]
pub struct Index(pg_sys::Relation);

/// The fork that a page is in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The index itself.
    Main,
    /// What an unlogged index is reset to after a crash.
    Init,
}

/// A page that nobody else reads or writes, until it is dropped.
///
/// After an error nothing is given back here: the transaction's abort does, and its counters are set back already.
pub struct Locked {
    buffer: pg_sys::Buffer,
    block: u32,
}

/// Changes of up to four locked pages, which happen and are logged as one, or not at all.
pub struct Change<'a> {
    state: *mut pg_sys::GenericXLogState,
    _pages: std::marker::PhantomData<&'a Locked>,
}

/// How much of a page a record has to hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The bytes that differ.
    Difference,
    /// All of it: a new page, or one whose ciphertext is new.
    Whole,
}

impl Default for Bytes {
    fn default() -> Self {
        Bytes([0; PAGE])
    }
}

impl Bytes {
    /// On the heap.
    pub fn boxed() -> Box<Self> {
        Box::default()
    }

    /// An empty page with so many bytes for the access method at its end.
    pub fn init(&mut self, special: usize) {
        // SAFETY: writes the page's own bytes, which are aligned.
        unsafe { pg_sys::PageInit(self.0.as_mut_ptr().cast(), PAGE, special) }
    }

    /// Nobody has written it: the server fell before the record that would have.
    pub fn is_new(&self) -> bool {
        self.word(UPPER) == 0
    }

    /// Between its header and the access method's own part, up to here there is data; the rest is zero.
    pub fn set_end(&mut self, end: usize) {
        self.0[LOWER..LOWER + 2].copy_from_slice(&(end as u16).to_ne_bytes());
    }

    fn word(&self, at: usize) -> usize {
        u16::from_ne_bytes([self.0[at], self.0[at + 1]]).into()
    }

    /// What the log leaves out must not keep anything.
    fn clear_hole(&mut self) {
        let (lower, upper) = (self.word(LOWER), self.word(UPPER));
        if let Some(hole) = self.0.get_mut(lower..upper) {
            hole.fill(0);
        }
    }
}

impl Index {
    /// # Safety
    /// The relation is an open index, and stays so while the value or a copy of it is used.
    pub unsafe fn new(relation: pg_sys::Relation) -> Self {
        Index(relation)
    }

    /// Its relation.
    pub fn relation(&self) -> pg_sys::Relation {
        self.0
    }

    /// Its oid.
    pub fn oid(&self) -> pg_sys::Oid {
        // SAFETY: an open relation.
        unsafe { (*self.0).rd_id }
    }

    /// Its name, as messages show it.
    pub fn name(&self) -> String {
        // SAFETY: an open relation has a pg_class row, with a name that ends with NUL.
        unsafe { shown_c((*(*self.0).rd_rel).relname.data.as_ptr()) }
    }

    /// The type modifier of its column, a domain's where the column is of one; negative where there is none.
    pub fn typmod(&self) -> i32 {
        // SAFETY: syscache lookups of an index that exists, which has one column.
        unsafe {
            let (mut of, mut typmod, mut collation) = (pg_sys::InvalidOid, -1, pg_sys::InvalidOid);
            pg_sys::get_atttypetypmodcoll(self.oid(), 1, &mut of, &mut typmod, &mut collation);
            pg_sys::getBaseTypeAndTypmod(of, &mut typmod);
            typmod
        }
    }

    /// What the support function of its operator class says; the class is a superuser's.
    pub fn support(&self) -> i32 {
        // SAFETY: an open index with one column; the function takes nothing and returns int4.
        unsafe {
            let function = pg_sys::index_getprocinfo(self.0, 1, 1);
            pg_sys::FunctionCall0Coll(function, pg_sys::InvalidOid).value() as i32
        }
    }

    /// How many pages it has now.
    pub fn pages(&self) -> u32 {
        // SAFETY: an open relation.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.0, pg_sys::ForkNumber::MAIN_FORKNUM) }
    }

    fn pin(&self, fork: Fork, block: u32, strategy: pg_sys::BufferAccessStrategy) -> pg_sys::Buffer {
        let normal = pg_sys::ReadBufferMode::RBM_NORMAL;
        // SAFETY: an open relation; a page that is not there, or damaged, is PostgreSQL's error.
        unsafe { pg_sys::ReadBufferExtended(self.0, fork.number(), block, normal, strategy) }
    }

    /// Copies a page.
    pub fn read(&self, block: u32, into: &mut Bytes) {
        self.read_with(block, std::ptr::null_mut(), &mut into.0);
    }

    /// The same to somewhere else.
    pub fn read_into(&self, block: u32, into: &mut [u8; PAGE]) {
        self.read_with(block, std::ptr::null_mut(), into);
    }

    /// The same with a ring of buffers, for who reads the whole index.
    pub fn read_with(&self, block: u32, strategy: pg_sys::BufferAccessStrategy, into: &mut [u8; PAGE]) {
        let buffer = self.pin(Fork::Main, block, strategy);
        // SAFETY: pinned, and locked while it is read; both sides have PAGE bytes.
        unsafe {
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let page = pg_sys::BufferGetPage(buffer).cast::<u8>();
            std::ptr::copy_nonoverlapping(page, into.as_mut_ptr(), PAGE);
            pg_sys::UnlockReleaseBuffer(buffer);
        }
    }

    /// Waits for a page.
    pub fn lock(&self, block: u32) -> Locked {
        let buffer = self.pin(Fork::Main, block, std::ptr::null_mut());
        // SAFETY: pinned.
        unsafe { pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_EXCLUSIVE as i32) }
        Locked { buffer, block }
    }

    /// A page, unless somebody has it.
    pub fn try_lock(&self, block: u32) -> Option<Locked> {
        let buffer = self.pin(Fork::Main, block, std::ptr::null_mut());
        // SAFETY: pinned; the pin goes where the lock is not to be had.
        unsafe {
            if pg_sys::ConditionalLockBuffer(buffer) {
                return Some(Locked { buffer, block });
            }
            pg_sys::ReleaseBuffer(buffer);
        }
        None
    }

    /// A new page of zeros at the end.
    pub fn extend(&self, fork: Fork) -> Locked {
        // SAFETY: an open relation that may be written; the buffer is pinned and locked.
        unsafe {
            let buffer = version::extend(self.0, fork.number());
            Locked { buffer, block: pg_sys::BufferGetBlockNumber(buffer) }
        }
    }

    /// A page that was recorded as free, which somebody may have taken since.
    pub fn take_free(&self) -> Option<u32> {
        // SAFETY: an open relation.
        let block = unsafe { pg_sys::GetFreeIndexPage(self.0) };
        // The map is not logged: it may know pages that are gone.
        (block != pg_sys::InvalidBlockNumber && block < self.pages()).then_some(block)
    }

    /// Records a page as free.
    pub fn record_free(&self, block: u32) {
        // SAFETY: an open relation that has the page.
        unsafe { pg_sys::RecordFreeIndexPage(self.0, block) }
    }

    /// Makes what was recorded findable.
    pub fn update_free_map(&self) {
        // SAFETY: an open relation.
        unsafe { pg_sys::IndexFreeSpaceMapVacuum(self.0) }
    }

    /// Logs all its pages, which were written without log, where the index is logged at all.
    pub fn log_all(&self) {
        if self.is_logged() {
            self.log(Fork::Main, self.pages());
        }
    }

    /// Logs the pages that an unlogged index is reset to: they have to be on every standby, too.
    pub fn log_init(&self, pages: u32) {
        self.log(Fork::Init, pages);
    }

    fn log(&self, fork: Fork, pages: u32) {
        // SAFETY: an open relation whose pages have PostgreSQL's header; takes the locks that it needs.
        unsafe { pg_sys::log_newpage_range(self.0, fork.number(), 0, pages, true) }
    }

    /// `RelationNeedsWAL`.
    fn is_logged(&self) -> bool {
        // SAFETY: an open relation.
        unsafe {
            let permanent = (*(*self.0).rd_rel).relpersistence as u8 == pg_sys::RELPERSISTENCE_PERMANENT;
            let always = pg_sys::wal_level >= pg_sys::WalLevel::WAL_LEVEL_REPLICA as i32;
            permanent && (always || !version::is_new(self.0))
        }
    }

    /// Begins to change pages.
    pub fn change<'a>(&self) -> Change<'a> {
        // SAFETY: an open relation.
        let state = unsafe { pg_sys::GenericXLogStart(self.0) };
        Change { state, _pages: std::marker::PhantomData }
    }
}

impl Fork {
    fn number(self) -> pg_sys::ForkNumber::Type {
        match self {
            Fork::Main => pg_sys::ForkNumber::MAIN_FORKNUM,
            Fork::Init => pg_sys::ForkNumber::INIT_FORKNUM,
        }
    }
}

impl Locked {
    /// Its number.
    pub fn block(&self) -> u32 {
        self.block
    }

    /// What it holds.
    pub fn bytes(&self) -> &Bytes {
        // SAFETY: a pinned and locked page of PAGE bytes, aligned as every buffer; nobody writes it but through `write`
        // and `Change::commit`, which borrow or end what could read it meanwhile.
        unsafe { &*pg_sys::BufferGetPage(self.buffer).cast::<Bytes>() }
    }

    /// Writes it without log, for an index that nobody else sees yet and that is logged as a whole.
    pub fn write(&mut self, bytes: &Bytes) {
        // SAFETY: as above, and locked exclusively.
        unsafe {
            let page = pg_sys::BufferGetPage(self.buffer).cast::<u8>();
            std::ptr::copy_nonoverlapping(bytes.0.as_ptr(), page, PAGE);
            pg_sys::MarkBufferDirty(self.buffer);
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: pinned and locked by whoever made it.
            unsafe { pg_sys::UnlockReleaseBuffer(self.buffer) }
        }
    }
}

impl<'a> Change<'a> {
    /// Changes a page, of which nothing is seen before [`Change::commit`].
    pub fn page<T>(&mut self, page: &'a Locked, extent: Extent, change: impl FnOnce(&mut Bytes) -> T) -> T {
        let flags = if extent == Extent::Whole { pg_sys::GENERIC_XLOG_FULL_IMAGE as i32 } else { 0 };
        // SAFETY: the state is open; the buffer is locked exclusively as long as it is. The image has PAGE bytes, aligned,
        // and is this page's own.
        let image = unsafe {
            &mut *pg_sys::GenericXLogRegisterBuffer(self.state, page.buffer, flags).cast::<Bytes>()
        };
        let done = change(image);
        image.clear_hole();
        done
    }

    /// Makes the changes, and logs them.
    pub fn commit(self) {
        let state = self.state;
        std::mem::forget(self);
        // SAFETY: the state is open, and ends here.
        unsafe { pg_sys::GenericXLogFinish(state) };
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the state is open, and ends here; nothing was changed.
            unsafe { pg_sys::GenericXLogAbort(self.state) }
        }
    }
}

//! COPY into encrypted columns: what PostgreSQL says about a line that it cannot load has the line in its CONTEXT, which
//! goes to the log and to whoever catches the error. Here it keeps the table, the number of the line and the column.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{fn_addr_eq, null_mut};

use cee_scape::call_with_sigsetjmp;
use pgrx::PgSqlErrorCode as Code;
use pgrx::{is_a, pg_guard, pg_sys};

use super::hook::Previous;
use super::version::CopyState;
use super::{definition, lookup};

static PREVIOUS: Previous<pg_sys::ProcessUtility_hook_type> = Previous::empty();

type ContextCallback = unsafe extern "C-unwind" fn(*mut c_void);

/// Installs the hook; from `_PG_init`.
pub fn install() {
    // SAFETY: once per process, on its only thread.
    unsafe {
        PREVIOUS.install(&raw mut pg_sys::ProcessUtility_hook, on_utility);
    }
}

unsafe extern "C-unwind" {
    // Without the guard of the bindings: an error passes as it came, with all its fields.
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        read_only: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        receiver: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
    // commands/copy.h: what adds the line to CONTEXT. The bindings' one has another address.
    fn CopyFromErrorCallback(state: *mut c_void);
    // utils/elog.h
    fn GetErrorContextStack() -> *mut c_char;
    fn errhidecontext(hide: bool) -> c_int;
    fn CopyErrorData() -> *mut pg_sys::ErrorData;
    fn FlushErrorState();
    fn ReThrowError(error: *mut pg_sys::ErrorData) -> !;
    // utils/palloc.h
    fn pfree(pointer: *mut c_void);
    fn pstrdup(text: *const c_char) -> *mut c_char;
}

/// A COPY into encrypted columns that runs, and the last error or message that was made in it.
struct Copying {
    /// Where the texts below are.
    memory: pg_sys::MemoryContext,
    /// What COPY added to its CONTEXT.
    said: *mut c_char,
    /// The same without the line.
    kept: *mut c_char,
    /// COPY itself raised it, for a value that it read, not code that it called.
    direct: bool,
}

unsafe extern "C-unwind" fn on_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: PostgreSQL passes a statement to be run; it is handed on as it came. An error jumps to `call_with_sigsetjmp`
    // or over this frame: nothing here needs to be dropped.
    unsafe {
        let run = || {
            let next = PREVIOUS.next().unwrap_or(standard_ProcessUtility);
            next(statement, text, read_only, context, parameters, environment, receiver, completion);
        };
        let utility = (*statement).utilityStmt;
        super::reveal::before_utility(utility);
        let outside = definition::enter(utility);
        if is_a(utility, pg_sys::NodeTag::T_CopyStmt) && reads_secrets(utility.cast()) {
            run_quietly(run)
        } else {
            run()
        }
        definition::leave(outside);
    }
}

/// Runs a COPY. Its errors go on without the line, its other messages go to the log without a CONTEXT that has it.
unsafe fn run_quietly(run: impl Fn()) {
    // SAFETY: as PG_TRY does it. The entry and what it points to stay on the stack until the list is what it was before.
    unsafe {
        let mut copying = Copying {
            memory: pg_sys::CurrentMemoryContext,
            said: null_mut(),
            kept: null_mut(),
            direct: false,
        };
        let copying = &raw mut copying;
        let (handler, outer) = (pg_sys::PG_exception_stack, pg_sys::error_context_stack);
        let mut entry =
            pg_sys::ErrorContextCallback { previous: outer, callback: Some(on_message), arg: copying.cast() };
        let entry = &raw mut entry;
        let failed = call_with_sigsetjmp(false, |jump| {
            pg_sys::PG_exception_stack = std::ptr::from_ref(jump).cast_mut().cast();
            pg_sys::error_context_stack = entry;
            run();
            0
        });
        pg_sys::PG_exception_stack = handler;
        pg_sys::error_context_stack = outer;
        if failed != 0 {
            pg_sys::CurrentMemoryContext = (*copying).memory;
            let error = CopyErrorData();
            FlushErrorState();
            shorten(error, copying);
            ReThrowError(error);
        }
    }
}

/// The table has an encrypted column, or it is a view, of which nobody knows where its triggers put what they get.
#[pg_guard]
unsafe extern "C-unwind" fn reads_secrets(copy: *mut pg_sys::CopyStmt) -> bool {
    // SAFETY: a COPY of a table or a query. The lock is the one that COPY takes next, so that the columns stay what they are.
    unsafe {
        let name = (*copy).relation;
        if !(*copy).is_from || name.is_null() || pg_sys::RecoveryInProgress() {
            return false;
        }
        let (lock, flags) = (pg_sys::RowExclusiveLock as i32, pg_sys::RVROption::RVR_MISSING_OK);
        let relation = pg_sys::RangeVarGetRelidExtended(name, lock, flags, None, null_mut());
        relation != pg_sys::InvalidOid
            && lookup::schema() != pg_sys::InvalidOid
            && (pg_sys::get_rel_relkind(relation) as u8 == pg_sys::RELKIND_VIEW || has_encrypted(relation))
    }
}

/// One of its columns is encrypted, or is a domain, an array or a row of what is.
unsafe fn has_encrypted(relation: pg_sys::Oid) -> bool {
    // SAFETY: the relation is locked, or a composite type; NULL where it is gone. It is closed after it was read.
    unsafe {
        let open = pg_sys::RelationIdGetRelation(relation);
        if open.is_null() {
            return false;
        }
        let columns = (*(*open).rd_rel).relnatts;
        pg_sys::RelationClose(open);
        (1..=columns).any(|column| is_encrypted(pg_sys::get_atttype(relation, column)))
    }
}

unsafe fn is_encrypted(of: pg_sys::Oid) -> bool {
    // SAFETY: syscache lookups; a dropped column has no type.
    unsafe {
        if of == pg_sys::InvalidOid {
            return false;
        }
        let base = pg_sys::getBaseType(of);
        let element = pg_sys::get_base_element_type(base);
        if element != pg_sys::InvalidOid {
            return is_encrypted(element);
        }
        let row = pg_sys::get_typ_typrelid(base);
        super::unbound::is_encrypted(base) || row != pg_sys::InvalidOid && has_encrypted(row)
    }
}

/// From here on, the COPY that has called an input function of ours shows its line to nobody.
pub fn hide_line() {
    // SAFETY: the list is PostgreSQL's; its first entry is COPY's own while it calls an input function, and gets the same
    // argument from now on.
    unsafe {
        let first = pg_sys::error_context_stack;
        if !first.is_null() && shows_line(first) {
            (*first).callback = Some(without_line);
        }
    }
}

unsafe fn shows_line(entry: *mut pg_sys::ErrorContextCallback) -> bool {
    // SAFETY: an entry of the list.
    unsafe { calls(entry, CopyFromErrorCallback) }
}

unsafe fn calls(entry: *mut pg_sys::ErrorContextCallback, callback: ContextCallback) -> bool {
    // SAFETY: an entry of the list.
    unsafe { (*entry).callback.is_some_and(|own| fn_addr_eq(own, callback)) }
}

/// COPY's own callback as it is for the binary format, of which it shows no data.
unsafe extern "C-unwind" fn without_line(state: *mut c_void) {
    // SAFETY: COPY's state, for which it is called while COPY runs; errors are made between lines of it, not in it.
    unsafe {
        let binary = &raw mut (*state.cast::<CopyState>()).options.binary;
        let was = binary.replace(true);
        CopyFromErrorCallback(state);
        binary.write(was);
    }
}

/// Called for every error and message that is made while the COPY runs, after COPY's own callback.
unsafe extern "C-unwind" fn on_message(copying: *mut c_void) {
    // SAFETY: `copying` stands on the stack below; the list is whole, and is put back.
    unsafe {
        let copying = copying.cast::<Copying>();
        for text in [&raw mut (*copying).said, &raw mut (*copying).kept] {
            let old = text.replace(null_mut());
            if !old.is_null() {
                pfree(old.cast());
            }
        }
        let first = pg_sys::error_context_stack;
        let mut entry = first;
        while !entry.is_null() && (*entry).previous.as_ref().is_none_or(|next| next.arg != copying.cast()) {
            entry = (*entry).previous;
        }
        if entry.is_null() || !(shows_line(entry) || calls(entry, without_line)) {
            return;
        }
        (*copying).direct = entry == first;
        let memory = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = (*copying).memory;
        (*copying).said = said_by((*entry).callback, (*entry).arg);
        (*copying).kept = said_by(Some(without_line), (*entry).arg);
        pg_sys::CurrentMemoryContext = memory;
        if shows_line(entry) {
            errhidecontext(true);
        }
    }
}

unsafe fn said_by(callback: Option<ContextCallback>, argument: *mut c_void) -> *mut c_char {
    // SAFETY: the list has one entry meanwhile; after an error PostgreSQL restores what the catching frame had.
    unsafe {
        let mut only = pg_sys::ErrorContextCallback { previous: null_mut(), callback, arg: argument };
        let list = pg_sys::error_context_stack;
        pg_sys::error_context_stack = &raw mut only;
        let text = GetErrorContextStack();
        pg_sys::error_context_stack = list;
        text
    }
}

/// Takes the line out of an error that COPY has ended with.
unsafe fn shorten(error: *mut pg_sys::ErrorData, copying: *const Copying) {
    // SAFETY: a copy of the error, whose texts are ours to change; strings of PostgreSQL end with NUL.
    unsafe {
        let (context, said, kept) = ((*error).context, (*copying).said, (*copying).kept);
        if context.is_null() || said.is_null() || kept.is_null() {
            return;
        }
        let length = CStr::from_ptr(context).count_bytes();
        let text = std::slice::from_raw_parts_mut(context.cast::<u8>(), length + 1);
        let [said, kept] = [said, kept].map(|text| CStr::from_ptr(text).to_bytes());
        let direct = (*copying).direct;
        if !replace_last(text, said, kept, direct) {
            return;
        }
        (*error).hide_ctx = false;
        if direct && quotes_input(error) {
            let message = c"invalid input, which is not shown because the table has encrypted columns";
            (*error).message = pstrdup(message.as_ptr());
            (*error).detail = null_mut();
            (*error).detail_log = null_mut();
            (*error).hint = null_mut();
        }
    }
}

/// Puts `kept` where `said` stands last in a text that ends with NUL; with `alone`, also what comes before it goes.
fn replace_last(text: &mut [u8], said: &[u8], kept: &[u8], alone: bool) -> bool {
    let Some(at) = text.windows(said.len()).rposition(|part| part == said) else { return false };
    let (start, rest) = (if alone { 0 } else { at }, at + said.len());
    // Never longer, unless a translation is odd.
    let kept = if start + kept.len() <= rest { kept } else { &[] };
    text.copy_within(rest.., start + kept.len());
    text[start..start + kept.len()].copy_from_slice(kept);
    true
}

/// Input functions quote the value that they refuse, which may be one of another column when a line has too few.
unsafe fn quotes_input(error: *const pg_sys::ErrorData) -> bool {
    // SAFETY: the untranslated message is a constant of PostgreSQL, or NULL.
    unsafe {
        let (code, id) = ((*error).sqlerrcode, (*error).message_id);
        let is = |one: Code| code == one as i32;
        if is(Code::ERRCODE_BAD_COPY_FILE_FORMAT) {
            return !id.is_null() && CStr::from_ptr(id).to_bytes().starts_with(b"column name mismatch");
        }
        let class = |one: Code| code & 0xFFF == one as i32 & 0xFFF;
        class(Code::ERRCODE_DATA_EXCEPTION)
            || class(Code::ERRCODE_SYNTAX_ERROR) && !is(Code::ERRCODE_INSUFFICIENT_PRIVILEGE)
            || class(Code::ERRCODE_INVALID_SCHEMA_NAME)
    }
}

//! How PostgreSQL calls our functions (fmgr.h, version-1 convention).

use std::any::TypeId;
use std::ffi::{CStr, c_char, c_int, c_void};

use pgrx::{PgMemoryContexts, pg_sys};

use super::datum::{Varlena, detoast, prefix};
use super::encoding;
use super::memory;
use super::node::Expr;
use crate::core::modifier::Column;
use crate::pg::error::PgError;

/// What an SQL function returns; `None` is NULL.
pub type Returned = Result<Option<pg_sys::Datum>, PgError>;

/// One call of an SQL function.
#[derive(Clone, Copy)]
pub struct Call(pg_sys::FunctionCallInfo);

/// Declares the C symbols of SQL functions: `sql_functions! { symbol => body; ... }`. Each body takes a
/// [`Call`] and gives [`Returned`]; its error is raised here, when nothing of the body is left to be dropped. What has no
/// result, hooks and readers of arguments, raises where it finds the error.
macro_rules! sql_functions {
    ($($symbol:ident => $body:path;)*) => { $(
        #[allow(unsafe_code, reason = "exports a symbol to PostgreSQL")]
        const _: () = {
            #[unsafe(export_name = concat!("pg_finfo_", stringify!($symbol)))]
            extern "C" fn info() -> &'static pgrx::pg_sys::Pg_finfo_record {
                &pgrx::pg_sys::Pg_finfo_record { api_version: 1 }
            }

            #[unsafe(export_name = stringify!($symbol))]
            #[pgrx::pg_guard]
            extern "C-unwind" fn call(fcinfo: pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum {
                // SAFETY: fmgr passes a valid call frame that outlives this function.
                unsafe { $crate::pg::raw::call::run(fcinfo, $body) }
            }
        };
    )* };
}
pub(crate) use sql_functions;

/// Runs `body` and hands its result or error to PostgreSQL.
///
/// # Safety
/// `fcinfo` is the frame that fmgr passed to the C symbol.
pub unsafe fn run(fcinfo: pg_sys::FunctionCallInfo, body: fn(Call) -> Returned) -> pg_sys::Datum {
    let _running = memory::begin();
    match body(Call(fcinfo)) {
        Ok(Some(datum)) => datum,
        Ok(None) => {
            // SAFETY: the caller vouches for the frame.
            unsafe { (*fcinfo).isnull = true };
            pg_sys::Datum::from(0)
        }
        Err(error) => error.raise(),
    }
}

unsafe extern "C-unwind" {
    // utils/elog.h, of which the bindings leave these out.
    fn geterrcode() -> c_int;
    fn errmsg(format: *const c_char, ...) -> c_int;
    fn errdetail(format: *const c_char, ...) -> c_int;
}

/// SQLSTATE class 22, data exceptions: the lowest 12 bits are the class.
const DATA_EXCEPTION: c_int = pgrx::PgSqlErrorCode::ERRCODE_DATA_EXCEPTION as c_int & 0xFFF;

unsafe extern "C-unwind" fn drop_quotation(_: *mut c_void) {
    // SAFETY: PostgreSQL calls it for the error that it is about to raise, which these functions change.
    unsafe {
        if geterrcode() & 0xFFF == DATA_EXCEPTION {
            errmsg(c"the text is not valid".as_ptr());
            errdetail(c"".as_ptr());
        }
    }
}

/// Puts the list of context callbacks back.
struct ContextEnd(*mut pg_sys::ErrorContextCallback);

impl Drop for ContextEnd {
    fn drop(&mut self) {
        // SAFETY: what it was before.
        unsafe { pg_sys::error_context_stack = self.0 }
    }
}

impl Call {
    /// The frame, for what else of PostgreSQL looks at it.
    pub(super) fn frame(&self) -> pg_sys::FunctionCallInfo {
        self.0
    }

    /// An error where the function was declared with fewer arguments than the library knows.
    fn argument(&self, index: usize) -> pg_sys::NullableDatum {
        if index >= self.count() {
            PgError::Arity.raise();
        }
        // SAFETY: the frame is valid while `Call` lives, and has nargs arguments.
        unsafe { *(*self.0).args.as_ptr().add(index) }
    }

    /// Number of arguments passed.
    pub fn count(&self) -> usize {
        // SAFETY: as in `argument`.
        unsafe { (*self.0).nargs as usize }
    }

    /// The argument is NULL or was not passed.
    pub fn is_null(&self, index: usize) -> bool {
        index >= self.count() || self.argument(index).isnull
    }

    /// The argument as PostgreSQL holds it; an error where it is NULL.
    pub fn datum(&self, index: usize) -> pg_sys::Datum {
        let argument = self.argument(index);
        if argument.isnull {
            PgError::Null.raise();
        }
        argument.value
    }

    /// An int4 or oid-sized argument.
    pub fn int4(&self, index: usize) -> i32 {
        self.datum(index).value() as i32
    }

    /// A boolean argument.
    pub fn boolean(&self, index: usize) -> bool {
        self.datum(index).value() & 0xFF != 0
    }

    /// A variable-length argument, detoasted and 4-byte aligned.
    pub fn varlena(&self, index: usize) -> Varlena {
        detoast(self.datum(index))
    }

    /// At least the first `bytes` bytes of a variable-length argument, or all of it when it is shorter;
    /// of a value stored out of line only what is needed is read.
    pub fn prefix(&self, index: usize, bytes: usize) -> Varlena {
        prefix(self.datum(index), bytes)
    }

    /// A variable-length argument that may be NULL.
    pub fn optional(&self, index: usize) -> Option<Varlena> {
        (!self.is_null(index)).then(|| self.varlena(index))
    }

    /// A text argument that must be UTF-8, as it always is in a database of that encoding.
    pub fn text(&self, index: usize) -> Result<String, PgError> {
        encoding::utf8(self.varlena(index).bytes())
    }

    /// A text argument that may be NULL.
    pub fn optional_text(&self, index: usize) -> Result<Option<String>, PgError> {
        if self.is_null(index) { Ok(None) } else { self.text(index).map(Some) }
    }

    /// Runs an input function's work. Its errors, and PostgreSQL's own below it, come without CONTEXT:
    /// COPY would quote the column there, which is the plaintext.
    pub fn without_context<T>(work: impl FnOnce() -> Result<T, PgError>) -> Result<T, PgError> {
        super::copy::hide_line();
        // SAFETY: the stack is PostgreSQL's to unwind; without callbacks it is only shorter. It is put back
        // on success alone: after an error PostgreSQL restores what the catching frame had.
        unsafe {
            let context = pg_sys::error_context_stack;
            pg_sys::error_context_stack = std::ptr::null_mut();
            let done = work()?;
            pg_sys::error_context_stack = context;
            Ok(done)
        }
    }

    /// Runs what may refuse a text with an error that quotes it: the quotation, as long as the text, goes before anybody
    /// copies it.
    pub fn without_quotation<T>(work: impl FnOnce() -> T) -> T {
        // SAFETY: the callback stands on the stack as long as it is in PostgreSQL's list, whatever ends `work`.
        unsafe {
            let mut quiet = pg_sys::ErrorContextCallback {
                previous: pg_sys::error_context_stack,
                callback: Some(drop_quotation),
                arg: std::ptr::null_mut(),
            };
            let _ended = ContextEnd(quiet.previous);
            pg_sys::error_context_stack = &raw mut quiet;
            work()
        }
    }

    /// A cstring argument, as input functions get it.
    pub fn cstring(&self, index: usize) -> &CStr {
        // SAFETY: an input function's first argument is a NUL-terminated string that outlives the call.
        let text = unsafe { CStr::from_ptr(self.datum(index).cast_mut_ptr()) };
        memory::expect(text.count_bytes());
        text
    }

    /// The rest of the message that a receive function gets as its first argument.
    pub fn message(&self) -> &[u8] {
        let buffer = self.pointer::<pg_sys::StringInfoData>(0);
        // SAFETY: fmgr passes the message, with cursor <= len.
        unsafe {
            let length = (*buffer).len - (*buffer).cursor;
            let start = pg_sys::pq_getmsgbytes(buffer, length).cast::<u8>();
            memory::expect(length as usize);
            std::slice::from_raw_parts(start, length as usize)
        }
    }

    /// A pointer argument (`internal`).
    pub fn pointer<T>(&self, index: usize) -> *mut T {
        self.datum(index).cast_mut_ptr()
    }

    /// What the type modifier of an argument says, as the parser knows it.
    pub fn argument_column(&self, index: usize) -> Column {
        self.argument_expression(index).map_or(Column::ANY, Expr::column)
    }

    /// An argument as the statement has it, where that is known.
    pub fn argument_expression(&self, index: usize) -> Option<Expr> {
        // SAFETY: flinfo is set for calls from the executor; fn_expr is NULL or the call's node tree.
        unsafe {
            let info = (*self.0).flinfo;
            if info.is_null() || (*info).fn_expr.is_null() {
                return None;
            }
            super::node::argument((*info).fn_expr, index)
        }
    }

    /// The executor compares values of its own accord, to group or to sort them: no expression says where they come from.
    pub fn groups(&self) -> bool {
        // SAFETY: as in `argument_expression`.
        unsafe {
            let info = (*self.0).flinfo;
            info.is_null() || (*info).fn_expr.is_null()
        }
    }

    /// The executor looks values up in a hash table of a list: either argument may be of the list, the other is argument 0.
    pub fn searches_list(&self) -> bool {
        // SAFETY: as in `argument_expression`; the tag is checked.
        unsafe {
            let info = (*self.0).flinfo;
            if info.is_null() || (*info).fn_expr.is_null() {
                return false;
            }
            let list = (*info).fn_expr.cast::<pg_sys::ScalarArrayOpExpr>();
            (*list).xpr.type_ == pg_sys::NodeTag::T_ScalarArrayOpExpr
                && (*list).hashfuncid != pg_sys::InvalidOid
        }
    }

    /// The type that an argument is declared as.
    pub fn argument_type(&self, index: usize) -> pg_sys::Oid {
        // SAFETY: none of our functions is called without flinfo; the function has the argument that it reads.
        unsafe {
            let (mut types, mut count) = (std::ptr::null_mut(), 0);
            pg_sys::get_func_signature((*(*self.0).flinfo).fn_oid, &mut types, &mut count);
            *types.add(index)
        }
    }

    /// The collation that the call brings.
    pub fn collation(&self) -> pg_sys::Oid {
        // SAFETY: as in `argument`.
        unsafe { (*self.0).fncollation }
    }

    /// It is the database's, in which texts of different bytes differ.
    pub fn has_default_collation(&self) -> bool {
        self.collation() == pg_sys::DEFAULT_COLLATION_OID
    }

    /// The session's setting may choose among the values of this argument, and the planner did not ask us about it.
    pub fn needs_choice(&self, index: usize) -> bool {
        // SAFETY: as in `argument_expression`.
        unsafe {
            let info = (*self.0).flinfo;
            !info.is_null() && super::node::needs_choice((*info).fn_expr, index)
        }
    }

    /// The type that an I/O cast reads this output function's text as; `None` where somebody else takes the text.
    pub fn io_cast(&self) -> Option<pg_sys::Oid> {
        // SAFETY: as in `argument_expression`; the executor hands a cast through text its own node.
        unsafe {
            let info = (*self.0).flinfo;
            if info.is_null() || (*info).fn_expr.is_null() {
                return None;
            }
            super::node::io_cast((*info).fn_expr)
        }
    }

    /// The type that the function returns.
    pub fn result_type(&self) -> pg_sys::Oid {
        // SAFETY: none of our functions is called without flinfo; a syscache lookup.
        unsafe { pg_sys::get_func_rettype((*(*self.0).flinfo).fn_oid) }
    }

    /// The type of the elements of the array that the function returns.
    pub fn result_element_type(&self) -> pg_sys::Oid {
        // SAFETY: a syscache lookup.
        unsafe { pg_sys::get_element_type(self.result_type()) }
    }

    /// What this call site keeps outlives the call.
    pub fn keeps_cache(&self) -> bool {
        // SAFETY: none of our functions is called without flinfo.
        unsafe { (*(*self.0).flinfo).fn_mcxt != pg_sys::CacheMemoryContext }
    }

    /// Works on what this call site keeps between calls of one execution (fn_extra). What PostgreSQL compares the elements of
    /// rows and arrays with stays for as long as the process, and keeps nothing.
    pub fn with_cache<T: Default + 'static, R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: none of our functions is called without flinfo; it lives as long as the call site, and fn_extra is only
        // ever set here, so it is NULL or a `Kept` of the type that it names. It is dropped with fn_mcxt. A call site does
        // not run again inside itself, so nobody else holds the `T` during `work`.
        unsafe {
            let info = (*self.0).flinfo;
            if !self.keeps_cache() {
                return work(&mut T::default());
            }
            if (*info).fn_extra.is_null() {
                let kept = Kept { of: TypeId::of::<T>(), value: T::default() };
                (*info).fn_extra =
                    PgMemoryContexts::For((*info).fn_mcxt).leak_and_drop_on_delete(kept).cast();
            }
            if *(*info).fn_extra.cast::<TypeId>() != TypeId::of::<T>() {
                return work(&mut T::default());
            }
            work(&mut (*(*info).fn_extra.cast::<Kept<T>>()).value)
        }
    }
}

/// What a call site keeps, behind the name of its type.
#[repr(C)]
struct Kept<T> {
    of: TypeId,
    value: T,
}

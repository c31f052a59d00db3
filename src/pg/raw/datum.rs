//! Variable-length datums (varatt.h): reading them without copies, and making new ones.

use std::ffi::CStr;

use pgrx::{direct_function_call_as_datum, pg_sys, varlena};
use zeroize::Zeroizing;

use super::encoding::shown_c;
use super::memory;
use crate::core::memory::{OutOfMemory, room};
use crate::pg::counters::{self, Counter};

/// A detoasted variable-length datum. Points into the argument or into a palloc'd copy; either lives
/// until the current memory context is reset, which outlives one function call.
#[derive(Clone, Copy)]
pub struct Varlena(*mut pg_sys::varlena);

impl Varlena {
    /// The bytes without the length word.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the pointer is a detoasted varlena that lives as long as the call that made `self`.
        unsafe { varlena::varlena_to_byte_slice(self.0) }
    }

    /// The datum itself.
    pub fn datum(&self) -> pg_sys::Datum {
        pg_sys::Datum::from(self.0)
    }
}

impl AsRef<[u8]> for Varlena {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// Detoasts, so that the bytes are 4-byte aligned after a 4-byte length word.
pub fn detoast(datum: pg_sys::Datum) -> Varlena {
    // SAFETY: the argument's declared type is variable-length, so the datum points to a varlena.
    unsafe {
        let pointer: *mut pg_sys::varlena = datum.cast_mut_ptr();
        // The usual case, without the cost of a guarded call.
        let whole = if varlena::varatt_is_4b_u(pointer) {
            Varlena(pointer)
        } else {
            if varlena::varatt_is_1b_e(pointer) {
                counters::count(Counter::ValuesFetched);
            }
            Varlena(pg_sys::pg_detoast_datum(pointer))
        };
        memory::expect(whole.bytes().len());
        whole
    }
}

/// A variable-length datum as it lies: what is stored out of line is its pointer, which names it as long as a snapshot sees it.
pub struct Stored(*const u8, usize);

impl Stored {
    /// Valid as long as the datum.
    pub fn of(datum: pg_sys::Datum) -> Self {
        /// Of varatt.h: all other pointers are into memory.
        const VARTAG_ONDISK: u8 = 18;
        // SAFETY: as in `detoast`; the byte behind the header of a pointer is its tag.
        unsafe {
            let start = datum.cast_mut_ptr::<u8>();
            if varlena::varatt_is_1b_e(start.cast()) && *start.add(1) != VARTAG_ONDISK {
                return Stored::of(detoast(datum).datum());
            }
            Stored(start, varlena::varsize_any(start.cast()))
        }
    }

    /// All of it, the length word too.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: a datum has as many bytes as it says.
        unsafe { std::slice::from_raw_parts(self.0, self.1) }
    }
}

/// The first `bytes` bytes, or everything when it is shorter or in line.
pub fn prefix(datum: pg_sys::Datum, bytes: usize) -> Varlena {
    // SAFETY: as in `detoast`. The slice reads an external value chunk by chunk.
    unsafe {
        let pointer: *mut pg_sys::varlena = datum.cast_mut_ptr();
        if varlena::varatt_is_1b_e(pointer) || varlena::varatt_is_4b_c(pointer) {
            return Varlena(pg_sys::pg_detoast_datum_slice(pointer, 0, bytes as i32));
        }
        Varlena(pointer)
    }
}

/// A new datum with these bytes, in the current memory context.
pub fn varlena(bytes: &[u8]) -> Varlena {
    let total = bytes.len() + pg_sys::VARHDRSZ;
    // SAFETY: palloc gives `total` writable bytes or raises an error; sizes are below 1 GB (MaxAllocSize).
    unsafe {
        let pointer = pg_sys::palloc(total).cast::<u8>();
        varlena::set_varsize_4b(pointer.cast(), total as i32);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), pointer.add(pg_sys::VARHDRSZ), bytes.len());
        Varlena(pointer.cast())
    }
}

/// A new datum of `length` bytes that `fill` writes, in the current memory context.
pub fn fill_varlena<E>(length: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Varlena, E> {
    let total = length + pg_sys::VARHDRSZ;
    // SAFETY: as in `varlena`; palloc0 has written every byte that `fill` may see.
    unsafe {
        let pointer = pg_sys::palloc0(total).cast::<u8>();
        varlena::set_varsize_4b(pointer.cast(), total as i32);
        fill(std::slice::from_raw_parts_mut(pointer.add(pg_sys::VARHDRSZ), length))?;
        Ok(Varlena(pointer.cast()))
    }
}

/// A new cstring in the current memory context; `text` holds no NUL.
pub fn cstring(text: &str) -> pg_sys::Datum {
    fill_cstring(text.len(), |room| room.copy_from_slice(text.as_bytes()))
}

/// A new cstring of `length` bytes that `fill` writes, none of them NUL, in the current memory context.
pub fn fill_cstring(length: usize, fill: impl FnOnce(&mut [u8])) -> pg_sys::Datum {
    // SAFETY: palloc0 has written every byte that `fill` may see, and the NUL behind them.
    unsafe {
        let pointer = pg_sys::palloc0(length + 1).cast::<u8>();
        fill(std::slice::from_raw_parts_mut(pointer, length));
        pg_sys::Datum::from(pointer)
    }
}

/// The same of a C string.
pub fn cstring_of(text: &CStr) -> pg_sys::Datum {
    // SAFETY: copies a string that ends with NUL into the current memory context.
    unsafe { pg_sys::Datum::from(pg_sys::pstrdup(text.as_ptr())) }
}

/// Reads text as the input function of a type does, with its errors.
pub fn from_text(text: &CStr, of: pg_sys::Oid) -> pg_sys::Datum {
    let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: every type has an input function; the string outlives the call.
    unsafe {
        pg_sys::getTypeInputInfo(of, &mut input, &mut parameter);
        pg_sys::OidInputFunctionCall(input, text.as_ptr().cast_mut(), parameter, -1)
    }
}

/// The name of a type as SQL writes it.
pub fn type_name(of: pg_sys::Oid) -> String {
    // SAFETY: format_type_be gives a NUL-terminated string for every oid.
    unsafe { shown_c(pg_sys::format_type_be(of)) }
}

/// The name of a type that exists, without its schema.
pub fn type_id_name(of: pg_sys::Oid) -> String {
    // SAFETY: a syscache entry, held while its name is copied.
    unsafe {
        let entry = pg_sys::typeidType(of);
        let name = CStr::from_ptr(pg_sys::typeTypeName(entry)).to_string_lossy().into_owned();
        pg_sys::ReleaseSysCache(entry);
        name
    }
}

/// Parses JSON text as `jsonb` input does, with its errors.
pub fn jsonb_from_text(text: &CStr) -> Varlena {
    // SAFETY: jsonb_in takes a cstring and returns a jsonb.
    let datum = unsafe { call1(pg_sys::jsonb_in, pg_sys::Datum::from(text.as_ptr())) };
    detoast(datum)
}

/// Writes a jsonb as text.
pub fn jsonb_to_text(jsonb: Varlena) -> Varlena {
    // SAFETY: jsonb_out takes a jsonb and returns a NUL-terminated string in the server encoding.
    unsafe { varlena(CStr::from_ptr(call1(pg_sys::jsonb_out, jsonb.datum()).cast_mut_ptr()).to_bytes()) }
}

/// What PostgreSQL's own cast makes of a jsonb; its errors do not quote it. `None` where there is no such cast.
pub fn jsonb_as(jsonb: Varlena, of: pg_sys::Oid) -> Option<pg_sys::Datum> {
    let mut function = pg_sys::InvalidOid;
    // SAFETY: a syscache lookup; a cast's function takes the value.
    unsafe {
        let context = pg_sys::CoercionContext::COERCION_EXPLICIT;
        let path = pg_sys::find_coercion_pathway(of, pg_sys::JSONBOID, context, &mut function);
        (path == pg_sys::CoercionPathType::COERCION_PATH_FUNC)
            .then(|| pg_sys::OidFunctionCall1Coll(function, pg_sys::InvalidOid, jsonb.datum()))
    }
}

/// A call frame with room for two arguments, on the stack: this call is made for every row.
#[repr(C)]
struct Frame {
    base: pg_sys::FunctionCallInfoBaseData,
    arguments: [pg_sys::NullableDatum; 2],
}

/// A variable-length datum in memory of our own, which is wiped when it is dropped.
#[derive(Default)]
pub struct Owned(Zeroizing<Vec<u64>>);

impl Owned {
    /// A datum with a copy of these bytes behind its length word.
    pub fn new(content: &[u8]) -> Result<Self, OutOfMemory> {
        let mut owned = Owned::default();
        owned.fill(content.len(), |room| {
            room.copy_from_slice(content);
            Ok::<(), OutOfMemory>(())
        })?;
        Ok(owned)
    }

    /// Takes another content of `length` bytes that `fill` writes, in the same room where it fits.
    pub fn fill<E: From<OutOfMemory>>(
        &mut self,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let total = length + pg_sys::VARHDRSZ;
        let words = total.div_ceil(size_of::<u64>());
        if self.0.capacity() < words {
            // Growing in place could leave a copy of the content before behind.
            self.0 = Zeroizing::new(room(words)?);
        }
        self.0.clear();
        self.0.resize(words, 0);
        // SAFETY: the vector has `total` initialised bytes, 8-byte aligned.
        unsafe {
            let start = self.0.as_mut_ptr().cast::<u8>();
            varlena::set_varsize_4b(start.cast(), total as i32);
            fill(std::slice::from_raw_parts_mut(start.add(pg_sys::VARHDRSZ), length))
        }
    }

    /// The datum, valid while `self` is neither filled again nor dropped.
    pub fn datum(&self) -> pg_sys::Datum {
        pg_sys::Datum::from(self.0.as_ptr())
    }

    /// The bytes behind the length word.
    pub fn bytes(&self) -> &[u8] {
        if self.0.is_empty() {
            return &[];
        }
        // SAFETY: `fill` has made this a varlena with a 4-byte length word.
        unsafe { varlena::varlena_to_byte_slice(self.0.as_ptr().cast()) }
    }

    /// jsonb's own `@>`; both are documents.
    pub fn contains(&self, query: &Owned) -> bool {
        // SAFETY: both are aligned jsonb datums with a 4-byte length word, and are only read.
        let answer =
            unsafe { call2(pg_sys::jsonb_contains, self.datum(), query.datum(), pg_sys::InvalidOid) };
        answer.value() & 0xFF != 0
    }
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// Calls a function of PostgreSQL's that does not ask by whom it is called.
///
/// # Safety
/// The arguments are of its types, and it does not return NULL.
pub unsafe fn call2(
    function: unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum,
    left: pg_sys::Datum,
    right: pg_sys::Datum,
    collation: pg_sys::Oid,
) -> pg_sys::Datum {
    // SAFETY: the caller's promise.
    unsafe { call2_or_null(function, left, right, collation) }.unwrap_or(pg_sys::Datum::from(0))
}

/// The same where it may return NULL.
///
/// # Safety
/// The arguments are of its types.
pub unsafe fn call2_or_null(
    function: unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum,
    left: pg_sys::Datum,
    right: pg_sys::Datum,
    collation: pg_sys::Oid,
) -> Option<pg_sys::Datum> {
    let argument = |value| pg_sys::NullableDatum { value, isnull: false };
    let mut frame = Frame { base: Default::default(), arguments: [argument(left), argument(right)] };
    frame.base.nargs = 2;
    frame.base.fncollation = collation;
    let call = &raw mut frame;
    // SAFETY: the caller's promise; the arguments stand right behind the frame's head, as its flexible array member.
    unsafe {
        let result = function(call.cast());
        (!(*call).base.isnull).then_some(result)
    }
}

/// A `name`, cut to NAMEDATALEN - 1 bytes at a character boundary.
pub fn name(text: Varlena) -> pg_sys::Datum {
    // SAFETY: text_name takes a text and returns a name.
    unsafe { call1(pg_sys::text_name, text.datum()) }
}

unsafe fn call1(
    function: unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum,
    argument: pg_sys::Datum,
) -> pg_sys::Datum {
    // SAFETY: the caller passes an argument of the function's type; none of ours returns NULL.
    unsafe { direct_function_call_as_datum(function, &[Some(argument)]) }.unwrap_or(pg_sys::Datum::from(0))
}

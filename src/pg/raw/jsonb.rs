//! PostgreSQL's own jsonb functions, so that every operator means exactly what it means for jsonb.

use std::cmp::Ordering;

use pgrx::pg_sys;

use super::datum::{Owned, Varlena, call2, call2_or_null, detoast, jsonb_from_text, jsonb_to_text, varlena};
use super::encoding::c_text;
use crate::core::fold::fold;
use crate::core::memory::OutOfMemory;
use crate::pg::error::PgError;

/// A jsonb function of two arguments: the document and what to look for.
#[derive(Clone, Copy)]
pub struct Function(unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum);

/// `jsonb -> text`.
pub const FIELD: Function = Function(pg_sys::jsonb_object_field);
/// `jsonb -> int4`.
pub const ELEMENT: Function = Function(pg_sys::jsonb_array_element);
/// `jsonb #> text[]`.
pub const PATH: Function = Function(pg_sys::jsonb_extract_path);
/// `jsonb ->> text`.
pub const FIELD_TEXT: Function = Function(pg_sys::jsonb_object_field_text);
/// `jsonb ->> int4`.
pub const ELEMENT_TEXT: Function = Function(pg_sys::jsonb_array_element_text);
/// `jsonb #>> text[]`.
pub const PATH_TEXT: Function = Function(pg_sys::jsonb_extract_path_text);
/// `jsonb ? text`.
pub const EXISTS: Function = Function(pg_sys::jsonb_exists);
/// `jsonb ?| text[]`.
pub const EXISTS_ANY: Function = Function(pg_sys::jsonb_exists_any);
/// `jsonb ?& text[]`.
pub const EXISTS_ALL: Function = Function(pg_sys::jsonb_exists_all);
/// `jsonb || jsonb`.
pub const CONCAT: Function = Function(pg_sys::jsonb_concat);
/// `jsonb - text`.
pub const DELETE: Function = Function(pg_sys::jsonb_delete);
/// `jsonb - text[]`.
pub const DELETE_ALL: Function = Function(pg_sys::jsonb_delete_array);
/// `jsonb - int4`.
pub const DELETE_ELEMENT: Function = Function(pg_sys::jsonb_delete_idx);
/// `jsonb #- text[]`.
pub const DELETE_PATH: Function = Function(pg_sys::jsonb_delete_path);

unsafe extern "C-unwind" {
    // utils/jsonfuncs.h, which the bindings leave out.
    fn transform_jsonb_string_values(
        document: *mut pg_sys::varlena,
        state: *mut std::ffi::c_void,
        action: unsafe extern "C-unwind" fn(
            *mut std::ffi::c_void,
            *mut std::ffi::c_char,
            i32,
        ) -> *mut pg_sys::varlena,
    ) -> *mut pg_sys::varlena;
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn fold_string(
    _state: *mut std::ffi::c_void,
    text: *mut std::ffi::c_char,
    length: i32,
) -> *mut pg_sys::varlena {
    // SAFETY: PostgreSQL passes a string of the document with its length.
    let text = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length as usize) };
    match fold(text) {
        Ok(folded) => varlena(&folded).datum().cast_mut_ptr(),
        Err(error) => PgError::from(error).raise(),
    }
}

/// A copy of the document with all strings, but no keys, case-folded.
pub fn casefolded(document: &Owned) -> Result<Owned, OutOfMemory> {
    // SAFETY: the datum is a jsonb; the guard turns a PostgreSQL error into a panic, as pgrx's own bindings do.
    let folded = unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            transform_jsonb_string_values(document.datum().cast_mut_ptr(), std::ptr::null_mut(), fold_string)
        })
    };
    Owned::new(detoast(pg_sys::Datum::from(folded)).bytes())
}

/// The document that holds `value` at these keys, each in the one before, and nothing else.
pub fn at_keys(keys: &[Vec<u8>], value: Varlena) -> Result<Varlena, PgError> {
    let mut text = Vec::new();
    for key in keys {
        text.extend_from_slice(b"{\"");
        key.iter().for_each(|byte| match byte {
            b'"' | b'\\' => text.extend_from_slice(&[b'\\', *byte]),
            0..0x20 => text.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => text.push(*byte),
        });
        text.extend_from_slice(b"\": ");
    }
    text.extend_from_slice(jsonb_to_text(value).bytes());
    text.resize(text.len() + keys.len(), b'}');
    Ok(jsonb_from_text(&c_text(&text)?))
}

/// The order of two documents.
pub fn order(left: &Owned, right: &Owned) -> Ordering {
    // SAFETY: both are aligned jsonb datums with a 4-byte length word, and are only read.
    let order =
        unsafe { call2(pg_sys::jsonb_cmp, left.datum(), right.datum(), pg_sys::InvalidOid).value() as i32 };
    order.cmp(&0)
}

/// What equal documents have in common.
pub fn hash(document: &Owned) -> u64 {
    // SAFETY: as above; the seed is passed by value.
    unsafe {
        let seed = pg_sys::Datum::from(0);
        call2(pg_sys::jsonb_hash_extended, document.datum(), seed, pg_sys::InvalidOid).value() as u64
    }
}

impl Function {
    /// A text or jsonb result, or NULL.
    pub fn varlena(self, document: pg_sys::Datum, argument: pg_sys::Datum) -> Option<Varlena> {
        self.call(document, argument).map(detoast)
    }

    /// A boolean result.
    pub fn boolean(self, document: pg_sys::Datum, argument: pg_sys::Datum) -> bool {
        self.call(document, argument).is_some_and(|datum| datum.value() & 0xFF != 0)
    }

    fn call(self, document: pg_sys::Datum, argument: pg_sys::Datum) -> Option<pg_sys::Datum> {
        // SAFETY: each constant's operator in sql/operators.sql has this function's argument types.
        unsafe { call2_or_null(self.0, document, argument, pg_sys::InvalidOid) }
    }
}

//! PostgreSQL's own jsonb functions, so that every operator means exactly what it means for jsonb.

use pgrx::{direct_function_call_as_datum, pg_sys};

use super::datum::{Varlena, detoast};

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
        unsafe { direct_function_call_as_datum(self.0, &[Some(document), Some(argument)]) }
    }
}

//! Records that SQL functions return: the columns of their OUT parameters or of RETURNS TABLE (funcapi.h).

use std::ptr::null_mut;

use pgrx::pg_sys;

use super::call::{Call, Returned};
use super::datum::varlena;
use crate::pg::error::PgError;

/// A column of a record; `None` is NULL.
#[derive(Clone, Copy)]
pub enum Field<'a> {
    /// boolean
    Boolean(Option<bool>),
    /// int4
    Int4(Option<i32>),
    /// int8
    Int8(Option<i64>),
    /// text
    Text(Option<&'a str>),
}

impl Field<'_> {
    fn declared_as(self) -> pg_sys::Oid {
        match self {
            Field::Boolean(_) => pg_sys::BOOLOID,
            Field::Int4(_) => pg_sys::INT4OID,
            Field::Int8(_) => pg_sys::INT8OID,
            Field::Text(_) => pg_sys::TEXTOID,
        }
    }

    fn datum(self) -> Option<pg_sys::Datum> {
        match self {
            Field::Boolean(value) => value.map(Into::into),
            Field::Int4(value) => value.map(Into::into),
            Field::Int8(value) => value.map(Into::into),
            Field::Text(value) => value.map(|text| varlena(text.as_bytes()).datum()),
        }
    }
}

/// The one record that a function returns.
pub fn row<const COLUMNS: usize>(call: Call, fields: [Field<'_>; COLUMNS]) -> Returned {
    let mut columns = null_mut();
    // SAFETY: the frame is valid while `call` lives; the description is palloc'd.
    let class = unsafe { pg_sys::get_call_result_type(call.frame(), null_mut(), &mut columns) };
    if class != pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE {
        return Err(PgError::Arity);
    }
    require(columns, &fields)?;
    let (mut values, mut nulls) = datums(fields);
    // SAFETY: there are as many values as columns, each of its column's type; heap_form_tuple copies them.
    unsafe {
        let columns = pg_sys::BlessTupleDesc(columns);
        let tuple = pg_sys::heap_form_tuple(columns, values.as_mut_ptr(), nulls.as_mut_ptr());
        Ok(Some(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)))
    }
}

/// The records that a function returns a set of, all at once; an error where nobody can take a set.
pub fn rows<'a, const COLUMNS: usize>(
    call: Call,
    rows: impl IntoIterator<Item = [Field<'a>; COLUMNS]>,
) -> Returned {
    // SAFETY: the frame is valid while `call` lives. It raises where no set is expected; else resultinfo is a
    // ReturnSetInfo, whose store and description live as long as the query.
    let set = unsafe {
        pg_sys::InitMaterializedSRF(call.frame(), 0);
        (*call.frame()).resultinfo.cast::<pg_sys::ReturnSetInfo>()
    };
    for fields in rows {
        // SAFETY: as above.
        let (store, columns) = unsafe { ((*set).setResult, (*set).setDesc) };
        require(columns, &fields)?;
        let (mut values, mut nulls) = datums(fields);
        // SAFETY: there are as many values as columns, each of its column's type; the store copies them.
        unsafe { pg_sys::tuplestore_putvalues(store, columns, values.as_mut_ptr(), nulls.as_mut_ptr()) };
    }
    Ok(None)
}

/// An error where the definition has other columns than the library.
fn require(columns: pg_sys::TupleDesc, fields: &[Field<'_>]) -> Result<(), PgError> {
    // SAFETY: a description that funcapi has made; SPI_gettypeid looks at no column behind its last.
    let is_declared = unsafe {
        (*columns).natts as usize == fields.len()
            && (1..).zip(fields).all(|(at, field)| pg_sys::SPI_gettypeid(columns, at) == field.declared_as())
    };
    if is_declared { Ok(()) } else { Err(PgError::Arity) }
}

fn datums<const COLUMNS: usize>(fields: [Field<'_>; COLUMNS]) -> ([pg_sys::Datum; COLUMNS], [bool; COLUMNS]) {
    let datums = fields.map(Field::datum);
    (datums.map(|datum| datum.unwrap_or(pg_sys::Datum::from(0))), datums.map(|datum| datum.is_none()))
}

impl From<i32> for Field<'_> {
    fn from(value: i32) -> Self {
        Field::Int4(Some(value))
    }
}

impl From<i64> for Field<'_> {
    fn from(value: i64) -> Self {
        Field::Int8(Some(value))
    }
}

impl From<Option<i64>> for Field<'_> {
    fn from(value: Option<i64>) -> Self {
        Field::Int8(value)
    }
}

impl<'a> From<&'a str> for Field<'a> {
    fn from(value: &'a str) -> Self {
        Field::Text(Some(value))
    }
}

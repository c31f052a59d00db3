//! One-dimensional arrays (utils/array.h).

use std::ffi::CStr;

use pgrx::{PgSqlErrorCode as Code, PgTryBuilder, direct_function_call, pg_sys};

use super::call::Call;
use super::datum::{Varlena, detoast, varlena};
use super::encoding::utf8;
use crate::core::memory::{self, OutOfMemory};
use crate::core::vector::elements::VectorError;
use crate::pg::error::PgError;

/// The strings of a cstring[] (type modifiers).
pub fn cstrings(array: pg_sys::Datum) -> Result<Vec<String>, PgError> {
    let mut count = 0;
    // SAFETY: the datum is a cstring[] without NULLs, as typmod input functions get it; each element is a
    // NUL-terminated string inside it.
    unsafe {
        let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let mut elements = std::ptr::null_mut();
        pg_sys::deconstruct_array(
            array,
            pg_sys::CSTRINGOID,
            -2,
            false,
            pg_sys::TYPALIGN_CHAR as std::ffi::c_char,
            &mut elements,
            std::ptr::null_mut(),
            &mut count,
        );
        let text = |at| CStr::from_ptr((*elements.add(at)).cast_mut_ptr());
        (0..count as usize).map(|at| utf8(text(at).to_bytes())).collect()
    }
}

/// A text[] of these elements, in the current memory context.
pub fn of_texts(elements: &[&[u8]]) -> Varlena {
    let mut datums: Vec<pg_sys::Datum> = elements.iter().map(|text| varlena(text).datum()).collect();
    of_text_datums(&mut datums)
}

/// The same of texts that are datums already.
pub fn of_text_datums(datums: &mut [pg_sys::Datum]) -> Varlena {
    // SAFETY: each datum is a text; the array is a copy of them.
    unsafe {
        let array = pg_sys::construct_array(
            datums.as_mut_ptr(),
            datums.len() as i32,
            pg_sys::TEXTOID,
            -1,
            false,
            pg_sys::TYPALIGN_INT as std::ffi::c_char,
        );
        detoast(pg_sys::Datum::from(array))
    }
}

/// An array of values of a type like bytea; `None` is NULL.
pub fn of_values(elements: &[Option<Vec<u8>>], element_type: pg_sys::Oid) -> Varlena {
    let value = |element: &Option<Vec<u8>>| element.as_ref().map(|bytes| varlena(bytes).datum());
    let mut datums: Vec<pg_sys::Datum> =
        elements.iter().map(|element| value(element).unwrap_or(pg_sys::Datum::from(0))).collect();
    let mut nulls: Vec<bool> = elements.iter().map(Option::is_none).collect();
    let (mut length, mut first) = (elements.len() as i32, 1);
    // SAFETY: each datum is a varlena or marked as NULL; the array is a copy of them.
    unsafe {
        let array = pg_sys::construct_md_array(
            datums.as_mut_ptr(),
            nulls.as_mut_ptr(),
            1,
            &mut length,
            &mut first,
            element_type,
            -1,
            false,
            pg_sys::TYPALIGN_INT as std::ffi::c_char,
        );
        detoast(pg_sys::Datum::from(array))
    }
}

/// An int8[] of these numbers, in the current memory context.
pub fn of_int8s(numbers: &[i64]) -> Varlena {
    let mut datums: Vec<pg_sys::Datum> = numbers.iter().map(|number| (*number).into()).collect();
    // SAFETY: int8 is passed by value on the 64-bit systems that pgrx builds for; the array is a copy.
    unsafe {
        let array = pg_sys::construct_array(
            datums.as_mut_ptr(),
            datums.len() as i32,
            pg_sys::INT8OID,
            size_of::<i64>() as i32,
            true,
            pg_sys::TYPALIGN_DOUBLE as std::ffi::c_char,
        );
        detoast(pg_sys::Datum::from(array))
    }
}

/// The elements of a text[] as bytes; `None` where one is NULL or it has more than one dimension.
pub fn steps(array: pg_sys::Datum) -> Result<Option<Vec<Varlena>>, OutOfMemory> {
    // SAFETY: the datum is an array.
    let dimensions = unsafe { (*detoast(array).datum().cast_mut_ptr::<pg_sys::ArrayType>()).ndim };
    if dimensions > 1 {
        return Ok(None);
    }
    let mut steps = Vec::new();
    for element in elements(array, pg_sys::TEXTOID) {
        let Some(step) = element else { return Ok(None) };
        memory::push(&mut steps, step)?;
    }
    Ok(Some(steps))
}

/// The elements of a text[] argument; NULL elements are `None`.
pub fn texts(array: pg_sys::Datum) -> Result<Vec<Option<String>>, PgError> {
    let elements = elements(array, pg_sys::TEXTOID);
    elements.map(|element| element.map(|text| utf8(text.bytes())).transpose()).collect()
}

/// The elements of a jsonb[] argument; NULL elements are `None`.
pub fn documents(array: pg_sys::Datum) -> Result<Vec<Option<Varlena>>, OutOfMemory> {
    memory::collect(elements(array, pg_sys::JSONBOID))
}

/// The elements of a text[] or an array of one of our types; NULL elements are `None`.
pub fn values(array: pg_sys::Datum) -> Result<Vec<Option<Varlena>>, OutOfMemory> {
    // SAFETY: the datum is an array, which says what it is of.
    let of = unsafe { (*detoast(array).datum().cast_mut_ptr::<pg_sys::ArrayType>()).elemtype };
    memory::collect(elements(array, of))
}

/// Number of elements.
pub fn length(array: pg_sys::Datum) -> usize {
    // SAFETY: the datum is an array, detoasted.
    unsafe {
        let array = detoast(array).datum().cast_mut_ptr::<pg_sys::ArrayType>();
        let sizes = array.cast::<i32>().add(size_of::<pg_sys::ArrayType>() / size_of::<i32>());
        pg_sys::ArrayGetNItems((*array).ndim, sizes) as usize
    }
}

/// The elements of an array of numbers (int4, float4, float8, numeric) as float4, with pgvector's errors.
pub fn float4s(array: pg_sys::Datum) -> Result<Vec<f32>, PgError> {
    let array = detoast(array).datum().cast_mut_ptr::<pg_sys::ArrayType>();
    // SAFETY: the datum is an array, detoasted, of the element type that it says; numeric_float4 takes a numeric.
    unsafe {
        if (*array).ndim > 1 {
            return Err(PgError::ArrayDimensions);
        }
        let (of, mut count) = ((*array).elemtype, 0);
        let (mut length, mut by_value, mut align) = (0, false, 0);
        pg_sys::get_typlenbyvalalign(of, &mut length, &mut by_value, &mut align);
        let (mut values, mut nulls) = (std::ptr::null_mut(), std::ptr::null_mut());
        pg_sys::deconstruct_array(
            array,
            of,
            length.into(),
            by_value,
            align,
            &mut values,
            &mut nulls,
            &mut count,
        );
        let mut numbers = memory::room(count as usize)?;
        for at in 0..count as usize {
            if *nulls.add(at) {
                return Err(PgError::ArrayNulls);
            }
            numbers.push(float4(*values.add(at), of)?);
        }
        Ok(numbers)
    }
}

unsafe fn float4(number: pg_sys::Datum, of: pg_sys::Oid) -> Result<f32, PgError> {
    match of {
        pg_sys::INT4OID => Ok(number.value() as i32 as f32),
        pg_sys::FLOAT4OID => Ok(f32::from_bits(number.value() as u32)),
        pg_sys::FLOAT8OID => Ok(f64::from_bits(number.value() as u64) as f32),
        // Its error would quote the number.
        _ => PgTryBuilder::new(|| {
            Call::without_quotation(|| {
                // SAFETY: numeric_float4 takes a numeric and returns a float4.
                Ok(unsafe { direct_function_call(pg_sys::numeric_float4, &[Some(number)]) }
                    .unwrap_or(f32::NAN))
            })
        })
        .catch_when(Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, |_| Err(VectorError::OutOfRange.into()))
        .execute(),
    }
}

/// The elements of an array of values of a type like bytea; `None` where it has more than one dimension, or not the usual
/// first position.
pub fn list(array: pg_sys::Datum, element_type: pg_sys::Oid) -> Option<Vec<Option<Varlena>>> {
    let array = detoast(array);
    // SAFETY: the datum is an array; one with a dimension has its first position behind the lengths of all dimensions.
    let usual = unsafe {
        let header = array.datum().cast_mut_ptr::<pg_sys::ArrayType>();
        let first = header.add(1).cast::<i32>().add((*header).ndim as usize);
        (*header).ndim == 0 || (*header).ndim == 1 && *first == 1
    };
    usual.then(|| elements(array.datum(), element_type).collect())
}

fn elements(array: pg_sys::Datum, element_type: pg_sys::Oid) -> impl Iterator<Item = Option<Varlena>> {
    let mut count = 0;
    // SAFETY: the datum is an array of the given variable-length, int-aligned type.
    unsafe {
        let array = detoast(array).datum().cast_mut_ptr::<pg_sys::ArrayType>();
        let (mut values, mut nulls) = (std::ptr::null_mut(), std::ptr::null_mut());
        pg_sys::deconstruct_array(
            array,
            element_type,
            -1,
            false,
            pg_sys::TYPALIGN_INT as std::ffi::c_char,
            &mut values,
            &mut nulls,
            &mut count,
        );
        (0..count as usize).map(move |at| (!*nulls.add(at)).then(|| detoast(*values.add(at))))
    }
}

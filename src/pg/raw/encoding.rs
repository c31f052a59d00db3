//! Text as the server has it. New databases are UTF8; ones of pgseal before 0.3.0 may be of any encoding, and their bytes
//! are never taken for something else.

use std::cell::OnceCell;
use std::ffi::{CStr, CString, c_char};

use pgrx::pg_sys;
use zeroize::Zeroizing;

use crate::core::memory;
use crate::pg::error::PgError;

thread_local! {
    // Asked for every value that is opened. A process has one database.
    static IS_UTF8: OnceCell<bool> = const { OnceCell::new() };
}

/// This database's encoding is UTF8.
pub fn is_utf8() -> bool {
    // SAFETY: set when the process chose its database, before it sees a value.
    let ask = || unsafe { pg_sys::GetDatabaseEncoding() as u32 == pg_sys::pg_enc::PG_UTF8 };
    IS_UTF8.with(|known| *known.get_or_init(ask))
}

/// Is this text in the database's encoding?
pub fn is_valid(text: &[u8]) -> bool {
    if is_utf8() {
        return std::str::from_utf8(text).is_ok();
    }
    // SAFETY: reads `text` only, and raises no error when told not to.
    unsafe { pg_sys::pg_verifymbstr(text.as_ptr().cast(), text.len() as i32, true) }
}

/// The text, where it is UTF-8.
pub fn utf8(text: &[u8]) -> Result<String, PgError> {
    String::from_utf8(memory::copy(text)?).map_err(|_| PgError::Encoding)
}

/// A text as a client sends it in binary form, in the database's encoding.
pub fn from_client(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, PgError> {
    // SAFETY: reads `text` only; gives it back as it is, or a copy that ends with NUL.
    unsafe {
        let own = pg_sys::pg_client_to_server(text.as_ptr().cast(), text.len() as i32);
        if own.cast_const().cast() == text.as_ptr() {
            return Ok(Zeroizing::new(memory::copy(text)?));
        }
        Ok(Zeroizing::new(memory::copy(CStr::from_ptr(own).to_bytes())?))
    }
}

/// The text with a NUL behind it; PostgreSQL's own never has one inside.
pub fn c_text(text: &[u8]) -> Result<CString, PgError> {
    let mut ended = memory::room(text.len() + 1)?;
    ended.extend_from_slice(text);
    ended.push(0);
    CString::from_vec_with_nul(ended).map_err(|_| PgError::Encoding)
}

/// A name for messages: roles and databases are shared by databases of several encodings. What is not UTF-8 is shown byte
/// by byte.
pub fn shown(name: &[u8]) -> String {
    let chunks = name.utf8_chunks();
    chunks.fold(String::new(), |shown, chunk| {
        let odd = chunk.invalid().iter().map(|byte| format!("\\x{byte:02X}"));
        shown + chunk.valid() + &odd.collect::<String>()
    })
}

/// [`shown`] of a C string; empty for NULL.
///
/// # Safety
/// NULL or a string that ends with NUL.
pub unsafe fn shown_c(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: the caller vouches for it.
    shown(unsafe { CStr::from_ptr(string) }.to_bytes())
}

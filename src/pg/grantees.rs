//! Who a privilege is for: `pgseal.grantee`, which a dump writes as the role's name and a restore reads where the role
//! is missing too. A role that is here is kept by number, so that its privileges follow a new name, and one that is
//! dropped leaves nothing to the next of its name.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

use crate::pg::error::PgError;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::{cstring_of, varlena};
use crate::pg::raw::encoding::c_text;
use crate::pg::raw::role;

/// The number of no role.
const NOBODY: pg_sys::Oid = pg_sys::Oid::from_u32(u32::MAX);

/// A role, as the table of privileges keeps it: `-`, `16384`, or `=` and a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grantee {
    /// Every role.
    Public,
    /// A role that was here when it was granted or restored.
    Role(pg_sys::Oid),
    /// A role that was missing when it was restored: whichever has this name.
    Missing(CString),
}

impl Grantee {
    /// From the table of this version.
    pub fn from_stored(stored: &[u8]) -> Result<Self, PgError> {
        Ok(match stored {
            b"-" => Grantee::Public,
            [b'=', name @ ..] => Grantee::Missing(c_text(name)?),
            number => Grantee::Role(parsed(number).unwrap_or(NOBODY)),
        })
    }

    /// From a number as older versions keep it, or as SQL passes it.
    pub fn from_number(role: pg_sys::Oid) -> Self {
        if role == pg_sys::InvalidOid { Grantee::Public } else { Grantee::Role(role) }
    }

    /// As SQL writes a role; a number is a role that was dropped where the text was made.
    fn from_text(text: &CStr) -> Result<Self, PgError> {
        let text = text.to_bytes();
        if text == b"-" {
            return Ok(Grantee::Public);
        }
        if parsed(text).is_some() {
            return Ok(Grantee::Role(NOBODY));
        }
        let name = match text {
            [b'"', quoted @ .., b'"'] => unquoted(quoted),
            bare => bare.to_vec(),
        };
        if name.is_empty() || name.len() >= pg_sys::NAMEDATALEN as usize {
            return Err(PgError::Argument("this is no name of a role".into()));
        }
        let name = c_text(&name)?;
        Ok(role::number(&name).map_or(Grantee::Missing(name), Grantee::Role))
    }

    fn text(&self) -> CString {
        let number = |role: pg_sys::Oid| c_text(role.to_u32().to_string().as_bytes()).unwrap_or_default();
        match self {
            Grantee::Public => c"-".to_owned(),
            Grantee::Role(role) => {
                role::name(*role).map_or_else(|| number(*role), |name| role::quoted(&name))
            }
            Grantee::Missing(name) => role::quoted(name),
        }
    }

    fn stored(&self) -> Vec<u8> {
        match self {
            Grantee::Public => b"-".to_vec(),
            Grantee::Role(role) => role.to_u32().to_string().into_bytes(),
            Grantee::Missing(name) => [b"=", name.as_bytes()].concat(),
        }
    }

    /// The role's number, 0 for PUBLIC; `None` where no role has the name now.
    pub fn number(&self) -> Option<pg_sys::Oid> {
        match self {
            Grantee::Public => Some(pg_sys::InvalidOid),
            Grantee::Role(role) => Some(*role),
            Grantee::Missing(name) => role::number(name),
        }
    }
}

fn parsed(number: &[u8]) -> Option<pg_sys::Oid> {
    let number = std::str::from_utf8(number).ok()?;
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| number.parse().ok().map(pg_sys::Oid::from_u32))?
}

/// What stands between double quotes, with two of them for one.
fn unquoted(quoted: &[u8]) -> Vec<u8> {
    let mut rest = quoted.iter().copied();
    let mut name = Vec::with_capacity(quoted.len());
    while let Some(byte) = rest.next() {
        name.push(byte);
        if byte == b'"' {
            rest.next();
        }
    }
    name
}

/// `grantee_in(cstring)`.
pub fn grantee_in(call: Call) -> Returned {
    Ok(Some(varlena(&Grantee::from_text(call.cstring(0))?.stored()).datum()))
}

/// `grantee_out(grantee)`.
pub fn grantee_out(call: Call) -> Returned {
    Ok(Some(cstring_of(&Grantee::from_stored(call.varlena(0).bytes())?.text())))
}

/// Cast from oid and regrole.
pub fn grantee_of(call: Call) -> Returned {
    let role = pg_sys::Oid::from(call.int4(0) as u32);
    Ok(Some(varlena(&Grantee::from_number(role).stored()).datum()))
}

/// Cast to oid: a number of no role where the role is missing.
pub fn grantee_number(call: Call) -> Returned {
    let grantee = Grantee::from_stored(call.varlena(0).bytes())?;
    Ok(Some(grantee.number().unwrap_or(NOBODY).into()))
}

/// `is_missing(grantee)`: was the role missing when it was restored?
pub fn is_missing(call: Call) -> Returned {
    let grantee = Grantee::from_stored(call.varlena(0).bytes())?;
    Ok(Some(matches!(grantee, Grantee::Missing(_)).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_again() {
        for grantee in
            [Grantee::Public, Grantee::Role(pg_sys::Oid::from_u32(10)), Grantee::Missing(c"a b".into())]
        {
            assert_eq!(Grantee::from_stored(&grantee.stored()).ok(), Some(grantee));
        }
        for odd in [&b""[..], b"x", b"99999999999", b"-1"] {
            assert_eq!(Grantee::from_stored(odd).ok(), Some(Grantee::Role(NOBODY)));
        }
    }

    #[test]
    fn quotes_are_taken_off() {
        assert_eq!(unquoted(br#"a ""b"" c"#), br#"a "b" c"#);
    }
}

//! What the role of the moment may do with a keyring.

use pgrx::pg_sys;

use super::permits::role;
use super::{catch_up, generation};
use crate::core::policy::Policy;
use crate::pg::catalog::{Keyring, PrivilegeRow};
use crate::pg::error::PgError;
use crate::pg::raw::statement::role_name;
use crate::pg::raw::xact;

/// A privilege on a keyring.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Seal values.
    Encrypt,
    /// Filter.
    Search,
    /// Read plaintext.
    Decrypt,
}

impl Privilege {
    fn name(self) -> &'static str {
        match self {
            Privilege::Encrypt => "encrypt",
            Privilege::Search => "search",
            Privilege::Decrypt => "decrypt",
        }
    }

    fn in_row(self, row: &PrivilegeRow) -> bool {
        match self {
            Privilege::Encrypt => row.encrypt,
            Privilege::Search => row.search,
            Privilege::Decrypt => row.decrypt,
        }
    }
}

/// Does the role have the privilege? Superusers have all.
pub fn has(keyring: &Keyring, privilege: Privilege) -> bool {
    let role = role();
    let granted = |row: &PrivilegeRow| {
        privilege.in_row(row)
            && row.role.number().is_some_and(|grantee| {
                grantee == pg_sys::InvalidOid || xact::has_privileges_of(role, grantee)
            })
    };
    xact::is_superuser(role) || keyring.privileges.iter().any(granted)
}

/// Refuses a role without the privilege.
pub fn require(keyring: &Keyring, privilege: Privilege) -> Result<(), PgError> {
    if has(keyring, privilege) { Ok(()) } else { Err(refused(keyring, privilege)) }
}

fn refused(keyring: &Keyring, privilege: Privilege) -> PgError {
    PgError::Privilege(keyring.name.clone(), privilege.name(), role_name(role()))
}

/// Refuses a role that may not ask this: with `search` alone only what `declared` finds searchable.
pub fn require_search(
    keyring: &Keyring,
    declared: impl FnOnce(&Policy) -> Result<bool, PgError>,
) -> Result<(), PgError> {
    Checked::default().require_look(keyring, declared)
}

/// The role and the generation: what a conclusion about privileges depends on.
pub fn now() -> (pg_sys::Oid, u64) {
    (role(), generation())
}

/// What a call site has found out about privileges on a keyring; looked up anew when role, keyring or grants change.
#[derive(Default)]
pub struct Checked {
    started: bool,
    of: Option<(i32, (pg_sys::Oid, u64))>,
    found: [Option<bool>; 3],
}

impl Checked {
    /// [`catch_up`] at the first use in an execution.
    pub fn start(&mut self) {
        if !std::mem::replace(&mut self.started, true) {
            catch_up();
        }
    }

    /// [`has`], for call sites that ask for every row.
    pub fn has(&mut self, keyring: &Keyring, privilege: Privilege) -> bool {
        let of = Some((keyring.id, now()));
        if self.of != of {
            *self = Checked { started: self.started, of, found: [None; 3] };
        }
        *self.found[privilege as usize].get_or_insert_with(|| has(keyring, privilege))
    }

    /// [`require`], for call sites that ask for every row. Whoever is refused has what others have granted since looked at
    /// the next time.
    pub fn require(&mut self, keyring: &Keyring, privilege: Privilege) -> Result<(), PgError> {
        if self.has(keyring, privilege) {
            Ok(())
        } else {
            *self = Checked::default();
            Err(refused(keyring, privilege))
        }
    }

    /// `search` lets a role look where `declared` finds the keyring's policy to be, `decrypt` with it everywhere.
    pub fn require_look(
        &mut self,
        keyring: &Keyring,
        declared: impl FnOnce(&Policy) -> Result<bool, PgError>,
    ) -> Result<(), PgError> {
        self.require(keyring, Privilege::Search)?;
        if self.has(keyring, Privilege::Decrypt) || declared(&keyring.active_index()?.1)? {
            Ok(())
        } else {
            Err(PgError::Undeclared(keyring.name.clone()))
        }
    }
}

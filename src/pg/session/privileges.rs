//! What the role of the moment may do with a keyring.

use pgrx::pg_sys;

use super::{catch_up, generation};
use crate::core::policy::Policy;
use crate::pg::catalog::{Keyring, PrivilegeRow};
use crate::pg::error::PgError;
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
    let role = xact::current_role();
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
    match has(keyring, privilege) {
        true => Ok(()),
        false => Err(PgError::Privilege(keyring.name.clone(), privilege.name())),
    }
}

/// Refuses a role that may not ask this: with `search` alone only what `declared` finds searchable.
pub fn require_search(
    keyring: &Keyring,
    declared: impl FnOnce(&Policy) -> Result<bool, PgError>,
) -> Result<(), PgError> {
    Looking::default().permit(keyring, declared)
}

/// Whether a call site has run in this execution.
#[derive(Default)]
pub struct Started(bool);

impl Started {
    /// [`catch_up`] the first time.
    pub fn once(&mut self) {
        if !std::mem::replace(&mut self.0, true) {
            catch_up();
        }
    }
}

/// The role and the generation: what a conclusion about privileges depends on.
pub fn now() -> (pg_sys::Oid, u64) {
    (xact::current_role(), generation())
}

/// A privilege that this role was found to have; looked up anew when role, keyring or grants change.
#[derive(Default)]
pub struct Allowed(Option<(i32, pg_sys::Oid, u64)>);

impl Allowed {
    /// The first use in an execution: see [`catch_up`].
    pub fn start(&self) {
        if self.0.is_none() {
            catch_up();
        }
    }

    /// [`require`], for call sites that ask for every row.
    pub fn require(&mut self, keyring: &Keyring, privilege: Privilege) -> Result<(), PgError> {
        let now = Some((keyring.id, xact::current_role(), generation()));
        if self.0 != now {
            require(keyring, privilege)?;
            self.0 = now;
        }
        Ok(())
    }
}

/// What a role was found to be allowed to look at; looked up anew when role, keyring or grants change.
#[derive(Default)]
pub struct Looking {
    of: Option<(i32, pg_sys::Oid, u64)>,
    everywhere: bool,
}

impl Looking {
    /// The first use in an execution: see [`catch_up`].
    pub fn start(&self) {
        if self.of.is_none() {
            catch_up();
        }
    }

    /// The role was found to have `decrypt`.
    pub fn is_everywhere(&self) -> bool {
        self.everywhere
    }

    /// `search` lets a role look where `declared` finds the keyring's policy to be, `decrypt` with it everywhere.
    pub fn permit(
        &mut self,
        keyring: &Keyring,
        declared: impl FnOnce(&Policy) -> Result<bool, PgError>,
    ) -> Result<(), PgError> {
        let now = Some((keyring.id, xact::current_role(), generation()));
        if self.of != now {
            require(keyring, Privilege::Search)?;
            *self = Looking { of: now, everywhere: has(keyring, Privilege::Decrypt) };
        }
        match self.everywhere || declared(&keyring.active_index()?.1)? {
            true => Ok(()),
            false => Err(PgError::Undeclared(keyring.name.clone())),
        }
    }
}

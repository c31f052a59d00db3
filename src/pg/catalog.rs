//! The tables of schema pgseal: the only place that knows their columns, and the only SQL strings.

use std::rc::Rc;

use pgrx::datum::DatumWithOid;
use pgrx::{Spi, pg_sys, spi};

use crate::core::Uuid;
use crate::core::kdf::Commitment;
use crate::core::policy::Policy;
use crate::core::range::Reading;
use crate::keys::context::Purpose;
use crate::keys::state::{KeyState, next_version};
use crate::pg::error::PgError;
use crate::pg::grantees::Grantee;
use crate::pg::raw::encoding::c_text;
use crate::pg::raw::table::{Key, Row, Since, read};
use crate::pg::raw::{lookup, xact};

/// Oids of the tables and their primary key indexes, as they are in this database.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tables {
    keyring: pg_sys::Oid,
    keyring_pkey: pg_sys::Oid,
    keyring_name_key: pg_sys::Oid,
    keyring_default: pg_sys::Oid,
    data_key: pg_sys::Oid,
    data_key_pkey: pg_sys::Oid,
    index_key: pg_sys::Oid,
    index_key_pkey: pg_sys::Oid,
    privilege: pg_sys::Oid,
    privilege_pkey: pg_sys::Oid,
}

/// One version of a data or index key as it is stored.
pub struct KeyRow {
    /// From 1.
    pub version: u16,
    /// Where it is in its life.
    pub state: KeyState,
    /// What the KMS made of it; empty once destroyed.
    pub wrapped: Vec<u8>,
    /// What the unwrapped key must match.
    pub commitment: Commitment,
}

/// What one role may do with a keyring.
pub struct PrivilegeRow {
    /// Who.
    pub role: Grantee,
    /// Seal values.
    pub encrypt: bool,
    /// Filter.
    pub search: bool,
    /// Read plaintext.
    pub decrypt: bool,
}

/// A keyring with all its key versions, as one reading of the catalog saw it.
pub struct Keyring {
    /// Positive, from the uuid; the number in every value.
    pub id: i32,
    /// Salt of every key derivation.
    pub uuid: Uuid,
    /// As users write it.
    pub name: String,
    /// Its own KMS, or `None` for the server's setting.
    pub kms_endpoint: Option<String>,
    /// Name of the wrapping key at the KMS.
    pub kms_key: String,
    /// That of the index keys, where it is another.
    pub kms_search_key: Option<String>,
    /// By version.
    pub data_keys: Vec<KeyRow>,
    /// By version, each with what it makes searchable.
    pub index_keys: Vec<(KeyRow, Rc<Policy>)>,
    /// Who may do what.
    pub privileges: Vec<PrivilegeRow>,
}

impl Keyring {
    /// Name of the key at the KMS that wraps the keys of this purpose.
    pub fn wrapping_key(&self, purpose: Purpose) -> &str {
        match purpose {
            Purpose::Data => &self.kms_key,
            Purpose::Index => self.kms_search_key.as_deref().unwrap_or(&self.kms_key),
        }
    }

    /// The version that seals now.
    pub fn active_data(&self) -> Result<&KeyRow, PgError> {
        let active = self.data_keys.iter().find(|key| key.state == KeyState::Active);
        active.ok_or_else(|| PgError::Catalog(format!("keyring {} has no active data key", self.id)))
    }

    /// The version that makes tokens now.
    pub fn active_index(&self) -> Result<&(KeyRow, Rc<Policy>), PgError> {
        let active = self.index_keys.iter().find(|(key, _)| key.state == KeyState::Active);
        active.ok_or_else(|| PgError::Catalog(format!("keyring {} has no active index key", self.id)))
    }

    /// How times at these object keys are read in a value with tokens of this index key version.
    pub fn reading(&self, index_version: u16, keys: &[&[u8]]) -> Reading {
        let made = self.index_keys.iter().find(|(key, _)| key.version == index_version);
        made.map_or(Reading::Iso8601, |(_, policy)| policy.reading(keys))
    }

    /// One data key version.
    pub fn data_key(&self, version: u16) -> Result<&KeyRow, PgError> {
        let key = self.data_keys.iter().find(|key| key.version == version);
        key.ok_or_else(|| PgError::UnknownKey(self.name.clone(), "data", version))
    }

    /// One index key version.
    pub fn index_key(&self, version: u16) -> Result<&KeyRow, PgError> {
        let key = self.index_keys.iter().find(|(key, _)| key.version == version);
        key.map(|(key, _)| key).ok_or_else(|| PgError::UnknownKey(self.name.clone(), "index", version))
    }

    /// The newest index key version there is.
    pub fn newest_index(&self) -> u16 {
        self.index_keys.iter().map(|(key, _)| key.version).max().unwrap_or(0)
    }
}

impl Tables {
    /// `None` where the extension is not installed (or half dropped).
    pub fn find() -> Option<Self> {
        let tables = Tables {
            keyring: lookup::relation(c"keyring"),
            keyring_pkey: lookup::relation(c"keyring_pkey"),
            keyring_name_key: lookup::relation(c"keyring_name_key"),
            keyring_default: lookup::relation(c"keyring_default"),
            data_key: lookup::relation(c"data_key"),
            data_key_pkey: lookup::relation(c"data_key_pkey"),
            index_key: lookup::relation(c"index_key"),
            index_key_pkey: lookup::relation(c"index_key_pkey"),
            privilege: lookup::relation(c"privilege"),
            privilege_pkey: lookup::relation(c"privilege_pkey"),
        };
        tables.oids().iter().all(|oid| *oid != pg_sys::InvalidOid).then_some(tables)
    }

    fn oids(&self) -> [pg_sys::Oid; 10] {
        [
            self.keyring,
            self.keyring_pkey,
            self.keyring_name_key,
            self.keyring_default,
            self.data_key,
            self.data_key_pkey,
            self.index_key,
            self.index_key_pkey,
            self.privilege,
            self.privilege_pkey,
        ]
    }

    /// Is this one of our tables?
    pub fn contains(&self, relation: pg_sys::Oid) -> bool {
        self.oids().contains(&relation)
    }

    /// Tells every session to read the catalog, and unwrap the keys, anew.
    pub fn invalidate(&self) {
        if xact::in_recovery() {
            return xact::invalidate_relation_here(self.keyring);
        }
        xact::invalidate_relation(self.keyring);
    }

    /// The ids of at most `limit` keyrings.
    pub fn keyring_ids(&self, limit: usize) -> Vec<i32> {
        read(self.keyring, self.keyring_pkey, Key::All, limit, |row| row.int4(1))
    }

    /// The id of the database's default keyring: its index holds no other.
    pub fn default_keyring(&self) -> Option<i32> {
        read(self.keyring, self.keyring_default, Key::All, 1, |row| row.int4(1)).pop()
    }

    /// The id of a keyring by name.
    pub fn keyring_by_name(&self, name: &str) -> Option<i32> {
        let Ok(name) = c_text(name.as_bytes()) else { return None };
        // Longer than any name: would be read past a name's 64 bytes.
        if name.as_bytes().len() >= pg_sys::NAMEDATALEN as usize {
            return None;
        }
        let key = Key::Name(3, &name);
        read(self.keyring, self.keyring_name_key, key, 1, |row| row.int4(1)).pop()
    }

    /// Is the id taken?
    pub fn keyring_exists(&self, id: i32) -> bool {
        !read(self.keyring, self.keyring_pkey, Key::Int4(1, id), 1, |_| ()).is_empty()
    }

    /// The newest index key version as of this moment.
    pub fn newest_index(&self, keyring: i32) -> u16 {
        let versions =
            read(self.index_key, self.index_key_pkey, Key::Int4(1, keyring), usize::MAX, |row| row.int4(2));
        versions.into_iter().max().unwrap_or(0) as u16
    }

    /// Since when a data key is as it is now.
    pub fn data_key_since(&self, keyring: i32, version: u16) -> Option<Since> {
        let rows = read(self.data_key, self.data_key_pkey, Key::Int4(1, keyring), usize::MAX, |row| {
            (row.int4(2) == i32::from(version)).then(|| row.since())
        });
        rows.into_iter().flatten().next()
    }

    /// Everything about one keyring.
    pub fn keyring(&self, id: i32) -> Result<Keyring, PgError> {
        let key = || Key::Int4(1, id);
        let found = read(self.keyring, self.keyring_pkey, key(), 1, |row| {
            // Databases that have not been updated to 0.3.0 do not have the last column.
            let search_key = if row.columns() < 8 { None } else { row.text(8)? };
            Ok((row.uuid(2), row.name(3), row.text(4)?, row.text(5)?.unwrap_or_default(), search_key))
        });
        let found = found.into_iter().next().unwrap_or(Err(PgError::UnknownKeyringId(id)));
        let (uuid, name, kms_endpoint, kms_key, kms_search_key) = found?;
        let data_keys = read(self.data_key, self.data_key_pkey, key(), usize::MAX, key_row);
        let index_keys = read(self.index_key, self.index_key_pkey, key(), usize::MAX, |row| {
            Ok((key_row(row)?, policy(row)?))
        });
        let privileges = read(self.privilege, self.privilege_pkey, key(), usize::MAX, privilege_row);
        Ok(Keyring {
            id,
            uuid,
            name,
            kms_endpoint,
            kms_key,
            kms_search_key,
            data_keys: data_keys.into_iter().collect::<Result<_, _>>()?,
            index_keys: index_keys.into_iter().collect::<Result<_, PgError>>()?,
            privileges: privileges.into_iter().collect::<Result<_, PgError>>()?,
        })
    }
}

fn key_row(row: &Row) -> Result<KeyRow, PgError> {
    let bytes = |column| row.varlena(column).map(|value| value.bytes().to_vec()).unwrap_or_default();
    let commitment =
        bytes(5).try_into().map_err(|_| PgError::Catalog("a commitment is not 32 bytes".into()))?;
    let state = KeyState::parse(&row.text(3)?.unwrap_or_default())?;
    Ok(KeyRow { version: row.int4(2) as u16, state, wrapped: bytes(4), commitment })
}

/// The column is a regrole in databases that have not been updated to 0.3.0.
fn privilege_row(row: &Row) -> Result<PrivilegeRow, PgError> {
    let role = if row.type_of(2) == pg_sys::REGROLEOID {
        Grantee::from_number(row.oid(2))
    } else {
        let stored = row.varlena(2).ok_or_else(|| PgError::Catalog("a privilege is nobody's".into()))?;
        Grantee::from_stored(stored.bytes())?
    };
    Ok(PrivilegeRow { role, encrypt: row.boolean(3), search: row.boolean(4), decrypt: row.boolean(5) })
}

fn policy(row: &Row) -> Result<Rc<Policy>, PgError> {
    let text = row.text(6)?.unwrap_or_default();
    let stored = serde_json::from_str(&text).map_err(|_| PgError::Catalog("a policy is not JSON".into()))?;
    Ok(Rc::new(Policy::from_json(&stored)?))
}

/// A key version to be stored.
pub struct NewKey {
    /// From 1.
    pub version: u16,
    /// What the KMS made of it.
    pub wrapped: Vec<u8>,
    /// Of the unwrapped key.
    pub commitment: Commitment,
}

/// Keeps other sessions from changing the keyring's keys until the end of this transaction.
pub fn lock_keyring(id: i32) -> Result<(), PgError> {
    run("SELECT 1 FROM pgseal.keyring WHERE id OPERATOR(pg_catalog.=) $1 FOR UPDATE", &[id.into()])
}

/// Is this server a worker of Citus, whose keys come from its coordinator?
pub fn is_worker() -> Result<bool, PgError> {
    let has_citus = "SELECT pg_catalog.to_regclass('pg_catalog.pg_dist_local_group') IS NOT NULL";
    if Spi::get_one(has_citus)? != Some(true) {
        return Ok(false);
    }
    let of_worker =
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_dist_local_group WHERE groupid OPERATOR(pg_catalog.>) 0)";
    Ok(Spi::get_one(of_worker)?.unwrap_or(false))
}

/// Some keyring has this KMS endpoint.
pub fn is_endpoint_in_use(endpoint: &str) -> Result<bool, PgError> {
    let found = Spi::get_one_with_args(
        "SELECT EXISTS (SELECT FROM pgseal.keyring WHERE kms_endpoint OPERATOR(pg_catalog.=) $1)",
        &[endpoint.into()],
    )?;
    Ok(found.unwrap_or(false))
}

/// The endpoint that the session has by SET is none that other sessions will have.
pub fn is_endpoint_of_session() -> Result<bool, PgError> {
    let found = Spi::get_one(
        "SELECT source OPERATOR(pg_catalog.=) 'session' AND setting IS DISTINCT FROM reset_val
           FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'pgseal.kms_endpoint'",
    )?;
    Ok(found.unwrap_or(false))
}

/// A new keyring row; the first one becomes the database's default.
pub fn insert_keyring(
    id: i32,
    uuid: Uuid,
    name: &str,
    kms_endpoint: Option<&str>,
    kms_key: &str,
) -> Result<(), PgError> {
    let uuid = pgrx::datum::Uuid::from_bytes(uuid);
    run(
        "INSERT INTO pgseal.keyring (id, uuid, name, kms_endpoint, kms_key, is_default)
         VALUES ($1, $2, $3, $4, $5, NOT EXISTS (SELECT FROM pgseal.keyring))",
        &[id.into(), uuid.into(), name.into(), kms_endpoint.into(), kms_key.into()],
    )
}

/// Names the key at the KMS that wraps the index keys from now on; none is that of the data keys.
pub fn set_search_key(id: i32, kms_search_key: Option<&str>) -> Result<(), PgError> {
    run(
        "UPDATE pgseal.keyring SET kms_search_key = $2 WHERE id OPERATOR(pg_catalog.=) $1",
        &[id.into(), kms_search_key.into()],
    )
}

/// The database's default keyring, or none.
pub fn set_default_keyring(id: Option<i32>) -> Result<(), PgError> {
    run("UPDATE pgseal.keyring SET is_default = false WHERE is_default", &[])?;
    match id {
        Some(id) => run(
            "UPDATE pgseal.keyring SET is_default = true WHERE id OPERATOR(pg_catalog.=) $1",
            &[id.into()],
        ),
        None => Ok(()),
    }
}

/// A new active data key version; the active one before it only decrypts from now on.
pub fn insert_data_key(keyring: i32, key: &NewKey) -> Result<(), PgError> {
    run(
        "UPDATE pgseal.data_key SET state = 'decrypt-only'
         WHERE keyring OPERATOR(pg_catalog.=) $1 AND state OPERATOR(pg_catalog.=) 'active'",
        &[keyring.into()],
    )?;
    run(
        "INSERT INTO pgseal.data_key (keyring, version, state, wrapped, commitment)
         VALUES ($1, $2, 'active', $3, $4)",
        &[
            keyring.into(),
            i32::from(key.version).into(),
            key.wrapped.as_slice().into(),
            key.commitment.as_slice().into(),
        ],
    )
}

/// A new active index key version with its policy.
pub fn insert_index_key(keyring: i32, key: &NewKey, policy: &Policy) -> Result<(), PgError> {
    run(
        "UPDATE pgseal.index_key SET state = 'decrypt-only'
         WHERE keyring OPERATOR(pg_catalog.=) $1 AND state OPERATOR(pg_catalog.=) 'active'",
        &[keyring.into()],
    )?;
    run(
        "INSERT INTO pgseal.index_key (keyring, version, state, wrapped, commitment, policy)
         VALUES ($1, $2, 'active', $3, $4, CAST($5 AS pg_catalog.json))",
        &[
            keyring.into(),
            i32::from(key.version).into(),
            key.wrapped.as_slice().into(),
            key.commitment.as_slice().into(),
            policy.to_json().to_string().into(),
        ],
    )
}

/// The same key wrapped anew by the KMS.
pub fn update_wrapped(keyring: i32, purpose: Purpose, version: u16, wrapped: &[u8]) -> Result<(), PgError> {
    let statement = match purpose {
        Purpose::Data => {
            "UPDATE pgseal.data_key SET wrapped = $3
             WHERE keyring OPERATOR(pg_catalog.=) $1 AND version OPERATOR(pg_catalog.=) $2"
        }
        Purpose::Index => {
            "UPDATE pgseal.index_key SET wrapped = $3
             WHERE keyring OPERATOR(pg_catalog.=) $1 AND version OPERATOR(pg_catalog.=) $2"
        }
    };
    run(statement, &[keyring.into(), i32::from(version).into(), wrapped.into()])
}

/// Gives the maker of a new keyring every privilege on it; `grant_keyring` in sql/keyrings.sql does the rest.
pub fn insert_all_privileges(keyring: i32, role: pg_sys::Oid) -> Result<(), PgError> {
    run(
        "INSERT INTO pgseal.privilege (keyring, role, encrypt, search, decrypt) VALUES ($1, $2, true, true, true)",
        &[keyring.into(), role.into()],
    )
}

/// The version after the newest data key there has ever been.
pub fn next_data_version(keyring: &Keyring) -> Result<u16, PgError> {
    Ok(next_version(keyring.data_keys.iter().map(|key| key.version).max().unwrap_or(0))?)
}

/// The version after the newest index key there has ever been.
pub fn next_index_version(keyring: &Keyring) -> Result<u16, PgError> {
    Ok(next_version(keyring.newest_index())?)
}

/// Why values of a column must not be rewritten where they are, or that there is no such column.
pub fn in_place_problem(table: pg_sys::Oid, column: i16) -> Result<Option<String>, PgError> {
    let found = Spi::get_two_with_args::<i32, String>(
        "SELECT 1, pgseal.in_place_problem(CAST(attrelid AS pg_catalog.regclass), attname) FROM pg_catalog.pg_attribute
         WHERE attrelid OPERATOR(pg_catalog.=) $1 AND attnum OPERATOR(pg_catalog.=) $2 AND NOT attisdropped",
        &[table.into(), column.into()],
    );
    match found {
        Ok((_, problem)) => Ok(problem),
        Err(spi::Error::InvalidPosition) => Ok(Some(format!("there is no column {column}"))),
        Err(error) => Err(error.into()),
    }
}

/// What a rule of `pgseal.protect` does to the plain columns of a table; `None` where there is no rule.
pub fn protection(table: pg_sys::Oid) -> Result<Option<String>, PgError> {
    Ok(Spi::get_one_with_args(
        "SELECT (pgseal.protection_of(CAST($1 AS pg_catalog.regclass))).action",
        &[table.into()],
    )?)
}

/// The sessions that run these transactions, as pg_locks names them.
pub fn sessions_of(transactions: &[String]) -> Result<Vec<i32>, PgError> {
    let found = Spi::get_one_with_args::<Vec<i32>>(
        "SELECT pg_catalog.array_agg(DISTINCT pid) FROM pg_catalog.pg_locks
         WHERE locktype OPERATOR(pg_catalog.=) 'virtualxid' AND virtualtransaction OPERATOR(pg_catalog.=) ANY ($1)",
        &[transactions.to_vec().into()],
    )?;
    Ok(found.unwrap_or_default())
}

fn run(statement: &str, arguments: &[DatumWithOid<'_>]) -> Result<(), PgError> {
    Ok(Spi::run_with_args(statement, arguments)?)
}

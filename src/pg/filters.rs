//! `encrypted_filter`: made from a query once per execution, matched against tokens without a key, and
//! opened again for the exact half.

use zeroize::Zeroizing;

use super::catalog::Keyring;
use super::error::PgError;
use super::raw::array;
use super::raw::call::{Call, Returned};
use super::raw::datum::{Jsonb, Varlena, cstring, varlena};
use super::session::{self, Allowed, Privilege};
use crate::core::filter::{
    self, Binding, Filter, Groups, Parts, Query, QueryVersion, any_group, groups, join_documents,
};
use crate::core::token::{Tokenizer, query_leaves};

/// Whose values a filter is for, and who said so.
#[derive(Clone, Copy)]
pub struct Target {
    /// The keyring whose keys make the filter.
    pub keyring: i32,
    /// Final, or looked at again in every execution.
    pub binding: Binding,
}

/// What was made from the last arguments of a call site, and in which state of the session.
#[derive(Default)]
pub struct Remembered {
    generation: u64,
    input: Zeroizing<Vec<u8>>,
    output: Option<Vec<u8>>,
}

impl Remembered {
    /// The output for `input`, made only where input or session have changed.
    fn get(
        &mut self,
        input: &[u8],
        make: impl FnOnce() -> Result<Option<Vec<u8>>, PgError>,
    ) -> Result<Option<&[u8]>, PgError> {
        if self.generation != session::generation() || *self.input != input || self.input.is_empty() {
            self.input.clear();
            self.output = make()?;
            self.generation = session::generation();
            self.input = Zeroizing::new(input.to_vec());
        }
        Ok(self.output.as_deref())
    }
}

/// Makes the filter "contains `document`" or, for several, "contains one of these".
pub fn make(target: Target, kind: Query, documents: &[&[u8]]) -> Result<Vec<u8>, PgError> {
    session::catch_up_for_search(target.keyring)?;
    let keyring = session::keyring(target.keyring)?;
    session::require(&keyring, Privilege::Search)?;
    let groups = query_groups(&keyring, kind, documents)?;
    let joined;
    let query = match (kind, documents) {
        (Query::Contains, [document]) => *document,
        _ => {
            joined = join_documents(documents);
            &joined
        }
    };
    let data_version = keyring.active_data()?.version;
    let key = session::data_key(&keyring, data_version)?;
    let parts = Parts {
        keyring: keyring.id,
        binding: target.binding,
        data_version,
        index_version: keyring.newest_index(),
        kind,
        query,
        groups: &groups,
    };
    Ok(filter::seal(&key, &keyring.uuid, &parts)?)
}

fn query_groups(keyring: &Keyring, kind: Query, documents: &[&[u8]]) -> Result<Groups, PgError> {
    let leaves = documents.iter().map(|document| query_leaves(document)).collect::<Result<Vec<_>, _>>()?;
    // Only versions that still make tokens need their key.
    let live = keyring.index_keys.iter().filter(|(row, _)| row.state.opens());
    let keys = live
        .map(|(row, policy)| Ok((row.version, session::index_key(keyring, row)?, policy)))
        .collect::<Result<Vec<_>, PgError>>()?;
    let versions: Vec<QueryVersion<'_>> = keyring
        .index_keys
        .iter()
        .map(|(row, _)| {
            let live = keys.iter().find(|(version, ..)| *version == row.version);
            let tokenizer = live.map(|(_, key, policy)| Tokenizer { key, policy });
            QueryVersion { version: row.version, tokenizer }
        })
        .collect();
    Ok(match kind {
        Query::Contains => groups(keyring.id, &versions, leaves.first().map_or(&[][..], Vec::as_slice)),
        Query::ContainsAny => any_group(keyring.id, &versions, &leaves),
    })
}

/// Where no column names the keyring: the session's choice, looked at again in every execution.
pub fn session_target() -> Result<Target, PgError> {
    Ok(Target { keyring: session::keyring_for_query()?, binding: Binding::Session })
}

/// A filter for the session's choice of keyring, or for values of every keyring.
fn make_for_session(kind: Query, documents: &[&[u8]]) -> Result<Vec<u8>, PgError> {
    session::catch_up();
    let made = make(session_target()?, kind, documents)?;
    match session::keyring_for_search()? {
        Some(_) => Ok(made),
        None => Ok(Filter::parse(&made)?.for_every_keyring()),
    }
}

/// `filter(jsonb, keyring text)`.
pub fn filter(call: Call) -> Returned {
    let Some(query) = call.optional(0) else { return Ok(None) };
    let named = call.optional_text(1)?;
    remember(call, named.as_deref().unwrap_or_default().as_bytes(), query.bytes(), || match &named {
        Some(name) => make(fixed(session::keyring_id(name)?), Query::Contains, &[query.bytes()]),
        None => make_for_session(Query::Contains, &[query.bytes()]),
    })
}

/// `filter_for(jsonb, keyring int4)`: what a rewritten operator with a parameter calls; 0 is the session's.
pub fn filter_for(call: Call) -> Returned {
    let query = call.varlena(0);
    remember(call, &call.int4(1).to_be_bytes(), query.bytes(), || match call.int4(1) {
        0 => make_for_session(Query::Contains, &[query.bytes()]),
        keyring => make(fixed(keyring), Query::Contains, &[query.bytes()]),
    })
}

/// `filter_any(jsonb[], keyring text)`. NULL elements match nothing.
pub fn filter_any(call: Call) -> Returned {
    if call.is_null(0) {
        return Ok(None);
    }
    let elements = array::documents(call.datum(0));
    let documents: Vec<&[u8]> = elements.iter().flatten().map(Varlena::bytes).collect();
    let named = call.optional_text(1)?;
    let joined = join_documents(&documents);
    remember(call, named.as_deref().unwrap_or_default().as_bytes(), &joined, || match &named {
        Some(name) => make(fixed(session::keyring_id(name)?), Query::ContainsAny, &documents),
        None => make_for_session(Query::ContainsAny, &documents),
    })
}

fn fixed(keyring: i32) -> Target {
    Target { keyring, binding: Binding::Fixed }
}

/// `chosen` is the keyring argument, which the filter depends on as well.
fn remember(
    call: Call,
    chosen: &[u8],
    input: &[u8],
    make: impl FnOnce() -> Result<Vec<u8>, PgError>,
) -> Returned {
    let whole = &Zeroizing::new([chosen, b"\0", input].concat());
    call.with_cache(|remembered: &mut Remembered| {
        let made = remembered.get(whole, || make().map(Some))?;
        Ok(made.map(|filter| varlena(filter).datum()))
    })
}

/// `refresh(encrypted_filter)`: the filter as it must be for this execution, the same one nearly always.
///
/// Looks at the index keys as of now and, where the session chose the keyring, at its choice as of now.
pub fn refresh(call: Call) -> Returned {
    let filter = call.varlena(0);
    call.with_cache(|remembered: &mut Remembered| {
        let renewed = remembered.get(filter.bytes(), || renew(filter.bytes()))?;
        Ok(Some(renewed.map_or(call.datum(0), |filter| varlena(filter).datum())))
    })
}

/// `None` where the filter is still right.
fn renew(bytes: &[u8]) -> Result<Option<Vec<u8>>, PgError> {
    let filter = Filter::parse(bytes)?;
    session::catch_up_for_search(filter.keyring())?;
    let chosen = match filter.binding() {
        Binding::Fixed => Some(filter.keyring()),
        Binding::Session => session::keyring_for_search()?,
    };
    let Some(keyring) = chosen else { return Ok(Some(filter.for_every_keyring())) };
    let current = session::keyring(keyring)?.newest_index() == filter.index_version();
    if current && keyring == filter.keyring() && !filter.every_keyring() {
        return Ok(None);
    }
    remake(&filter, Target { keyring, binding: filter.binding() }).map(Some)
}

/// `filter_in(encrypted_filter, keyring int4)`: a filter that names no keyring takes that of its column.
pub fn filter_in_column(call: Call) -> Returned {
    let (filter, column) = (call.varlena(0), call.int4(1));
    call.with_cache(|remembered: &mut Remembered| {
        let bound = remembered.get(filter.bytes(), || {
            let parsed = Filter::parse(filter.bytes())?;
            match parsed.binding() {
                Binding::Fixed => Ok(None),
                Binding::Session => remake(&parsed, fixed(column)).map(Some),
            }
        })?;
        Ok(Some(bound.map_or(call.datum(0), |filter| varlena(filter).datum())))
    })
}

/// The same query for another keyring or newer index keys.
pub fn remake(filter: &Filter<'_>, target: Target) -> Result<Vec<u8>, PgError> {
    let query = open_query(filter)?;
    let documents: Vec<&[u8]> = match filter.query() {
        Query::Contains => vec![&query],
        Query::ContainsAny => filter::split_documents(&query).collect(),
    };
    make(target, filter.query(), &documents)
}

fn open_query(filter: &Filter<'_>) -> Result<Zeroizing<Vec<u8>>, PgError> {
    let keyring = session::keyring(filter.keyring())?;
    let key = session::data_key(&keyring, filter.data_version())?;
    Ok(filter.open(&key, &keyring.uuid)?)
}

/// The documents of a filter as jsonb, ready for the recheck.
#[derive(Default)]
pub struct OpenFilter {
    bytes: Vec<u8>,
    documents: Vec<Jsonb>,
    /// The value under the recheck.
    pub value: OpenDocument,
}

/// A decrypted document whose room is used again for the next, and the privilege to look into it.
#[derive(Default)]
pub struct OpenDocument {
    /// The document.
    pub document: Jsonb,
    /// `search` on its keyring.
    pub allowed: Allowed,
}

impl OpenFilter {
    /// The documents of `filter`, opened only when it is another one than before.
    pub fn open(&mut self, filter: &Filter<'_>, bytes: &[u8]) -> Result<(), PgError> {
        if self.bytes == bytes {
            return Ok(());
        }
        let query = open_query(filter)?;
        self.bytes.clear();
        self.documents = match filter.query() {
            Query::Contains => vec![Jsonb::new(&query)],
            Query::ContainsAny => filter::split_documents(&query).map(Jsonb::new).collect(),
        };
        self.bytes = bytes.to_vec();
        Ok(())
    }

    /// Does the value contain one of the documents?
    pub fn admits_value(&self) -> bool {
        self.documents.iter().any(|document| self.value.document.contains(document))
    }
}

/// `encrypted_filter_in(cstring)`: refused, with what to write instead.
pub fn filter_in(_: Call) -> Returned {
    Err(PgError::FilterText)
}

/// `encrypted_filter_out(encrypted_filter)`: no plaintext and no token, so that plans may be shown.
pub fn filter_out(call: Call) -> Returned {
    let bytes = call.varlena(0);
    let filter = Filter::parse(bytes.bytes())?;
    let owner = match filter.every_keyring() {
        true => "every keyring".to_owned(),
        false => session::keyring(filter.keyring())
            .map_or_else(|_| filter.keyring().to_string(), |k| k.name.clone()),
    };
    let groups = match filter.group_count() {
        1 => "1 group".to_owned(),
        count => format!("{count} groups"),
    };
    Ok(Some(cstring(&format!("<filter: {owner}, {groups}>"))))
}

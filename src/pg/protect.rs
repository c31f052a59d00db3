//! Indexes that are made on columns which `pgseal.protect` has encrypted, in the words for plain ones.

use std::ffi::CStr;

use pgrx::notice;

use crate::pg::catalog;
use crate::pg::error::PgError;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::command::{self, Element};
use crate::pg::raw::record;

/// Of pgvector's operator classes those that a sealed index has a counterpart for.
const METRICS: [(&str, &CStr); 7] = [
    ("", c"encrypted_vector_l2_ops"),
    ("vector_l2_ops", c"encrypted_vector_l2_ops"),
    ("vector_ip_ops", c"encrypted_vector_ip_ops"),
    ("vector_cosine_ops", c"encrypted_vector_cosine_ops"),
    ("halfvec_l2_ops", c"encrypted_vector_l2_ops"),
    ("halfvec_ip_ops", c"encrypted_vector_ip_ops"),
    ("halfvec_cosine_ops", c"encrypted_vector_cosine_ops"),
];

/// `changed_columns(pg_ddl_command)`: the columns that an ALTER TABLE has added or given another type.
pub fn changed_columns(call: Call) -> Returned {
    let changed = command::changed_columns(call);
    record::rows(
        call,
        changed.into_iter().map(|(number, is_new)| [number.into(), record::Field::Boolean(Some(is_new))]),
    )
}

/// The event trigger before CREATE INDEX. An index of plaintexts on a protected table becomes one of tokens, or a sealed one;
/// elsewhere it is refused with what to write, where PostgreSQL would not say it.
pub fn create_index(call: Call) -> Returned {
    let Some(index) = command::create_index(call) else { return Ok(None) };
    let elements = index.elements();
    if elements.iter().all(|element| element.sealed.is_empty()) {
        return Ok(None);
    }
    let method = index.method();
    let columns = columns(&elements);
    let of_vectors = columns.iter().any(|(_, kind)| kind == "vector");
    let keeps_vectors = of_vectors && ["hnsw", "ivfflat"].contains(&method.as_str());
    let is_protected = catalog::protection(index.table)?.as_deref() == Some("encrypt");
    if is_ours(&method, &elements) || !keeps_vectors && !is_protected {
        return Ok(None);
    }
    if index.is_unique() {
        return Err(PgError::UniqueIndex);
    }
    if of_vectors {
        let class = METRICS.iter().find(|(class, _)| *class == elements[0].class);
        let (Some((_, class)), [(column, _)], true) =
            (class, columns.as_slice(), is_protected && keeps_vectors)
        else {
            return Err(PgError::VectorIndex);
        };
        index.become_method(c"sealed_ivf", std::slice::from_ref(column), Some(class));
        notice!("{} is made with sealed_ivf: {method} would keep embeddings in plaintext", index.name());
        return Ok(None);
    }
    let plain: Vec<bool> = elements.iter().map(|element| element.sealed.is_empty()).collect();
    let names: Vec<String> = columns.into_iter().map(|(name, _)| name).collect();
    if plain.contains(&true) {
        index.keep(&plain);
        notice!("{} is made without {}: it would keep plaintext", index.name(), names.join(", "));
    } else {
        index.become_method(c"gin", &names, None);
        notice!(
            "{} is a GIN index of search tokens on {}: as written it would keep plaintext",
            index.name(),
            names.join(", ")
        );
    }
    Ok(None)
}

/// It is written for encrypted columns.
fn is_ours(method: &str, elements: &[Element]) -> bool {
    let own = |element: &Element| {
        element.is_column && (element.class.is_empty() || element.class.starts_with("encrypted_"))
    };
    method == "sealed_ivf" || method == "gin" && elements.iter().filter(|one| !one.sealed.is_empty()).all(own)
}

/// The encrypted columns, each once.
fn columns(elements: &[Element]) -> Vec<(String, String)> {
    let mut columns = Vec::new();
    for column in elements.iter().flat_map(|element| &element.sealed) {
        if !columns.contains(column) {
            columns.push(column.clone());
        }
    }
    columns
}

//! The column that a value is for, as its type modifier says.

use std::cell::RefCell;

use crate::core::modifier::{self, Bound, Column};
use crate::pg::error::PgError;
use crate::pg::session;

/// Tags that were found to be of one keyring only.
#[derive(Default)]
struct Tags {
    generation: u64,
    found: Vec<(i32, i32)>,
}

thread_local! {
    static TAGS: RefCell<Tags> = RefCell::default();
}

/// The keyring that a column is bound to.
pub fn keyring(column: Column) -> Result<Option<i32>, PgError> {
    match column.bound {
        Bound::No => Ok(None),
        Bound::Id(id) => Ok(Some(id)),
        Bound::Tag(tag) => keyring_of_tag(tag).map(Some),
    }
}

/// The only keyring with this tag.
pub fn keyring_of_tag(tag: i32) -> Result<i32, PgError> {
    let tables = session::tables()?;
    let now = session::generation();
    let known = TAGS.with_borrow_mut(|tags| {
        if tags.generation != now {
            *tags = Tags { generation: now, found: Vec::new() };
        }
        tags.found.iter().find(|(known, _)| *known == tag).map(|(_, id)| *id)
    });
    if let Some(id) = known {
        return Ok(id);
    }
    let ids = tables.keyring_ids(usize::MAX).into_iter().filter(|id| modifier::tag(*id) == tag);
    match ids.collect::<Vec<_>>().as_slice() {
        [] => Err(PgError::UnknownKeyringId(tag)),
        [id] => {
            TAGS.with_borrow_mut(|tags| tags.found.push((tag, *id)));
            Ok(*id)
        }
        [one, other, ..] => {
            Err(PgError::SharedTag(session::keyring_label(*one), session::keyring_label(*other)))
        }
    }
}

/// How messages name the keyring of a column.
pub fn label(column: Column) -> String {
    match keyring(column) {
        Ok(Some(id)) => session::keyring_label(id),
        _ => match column.bound {
            Bound::Id(number) | Bound::Tag(number) => number.to_string(),
            Bound::No => String::new(),
        },
    }
}

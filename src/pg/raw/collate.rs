//! PostgreSQL drops COLLATE without a word where it takes a literal or parameter for a type without collations, as in
//! `body = 'x' COLLATE c`: after analysis only the statement's text still has it.

use std::ffi::{CStr, c_void};

use pgrx::{pg_guard, pg_sys};

use super::node::Expr;
use crate::core::sql_literal::is_collated;
use crate::pg::error::PgError;

struct Search<'a> {
    text: &'a [u8],
    is_sealed: fn(Expr) -> bool,
}

/// Refuses a statement with such a literal, where `is_sealed` says that it is of an encrypted type.
///
/// # Safety
/// `query` was made from the text of `state`.
pub unsafe fn refuse_dropped(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    is_sealed: fn(Expr) -> bool,
) {
    // SAFETY: the text outlives the analysis.
    unsafe {
        if (*state).p_sourcetext.is_null() {
            return;
        }
        let text = CStr::from_ptr((*state).p_sourcetext).to_bytes();
        if !own_text(text, query).windows(7).any(|word| word.eq_ignore_ascii_case(b"collate")) {
            return;
        }
        let mut search = Search { text, is_sealed };
        look(query.cast(), (&raw mut search).cast());
    }
}

/// The part of a script that is this statement: a script of an extension has hundreds.
///
/// # Safety
/// As for [`refuse_dropped`].
unsafe fn own_text(text: &[u8], query: *mut pg_sys::Query) -> &[u8] {
    // SAFETY: as the caller says.
    let (start, length) = unsafe { ((*query).stmt_location, (*query).stmt_len) };
    // -1 where it is unknown; a length of 0 is the rest.
    let rest = usize::try_from(start).ok().and_then(|start| text.get(start..)).unwrap_or(text);
    usize::try_from(length)
        .ok()
        .filter(|length| *length > 0)
        .and_then(|length| rest.get(..length))
        .unwrap_or(rest)
}

/// The query that a utility statement runs, where it was analysed with it.
unsafe fn inner(query: *mut pg_sys::Query) -> *mut pg_sys::Node {
    // SAFETY: the tags are checked.
    unsafe {
        let utility = (*query).utilityStmt;
        if utility.is_null() {
            return utility;
        }
        match (*utility).type_ {
            pg_sys::NodeTag::T_ExplainStmt => (*utility.cast::<pg_sys::ExplainStmt>()).query,
            pg_sys::NodeTag::T_CreateTableAsStmt => (*utility.cast::<pg_sys::CreateTableAsStmt>()).query,
            pg_sys::NodeTag::T_DeclareCursorStmt => (*utility.cast::<pg_sys::DeclareCursorStmt>()).query,
            _ => std::ptr::null_mut(),
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn look(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: the walker passes nodes of the query, and the search that we gave it.
    unsafe {
        let location = match (*node).type_ {
            pg_sys::NodeTag::T_Query => {
                // A query below EXPLAIN may be a utility statement.
                look(inner(node.cast()), context);
                return pg_sys::query_tree_walker(node.cast(), Some(look), context, 0);
            }
            pg_sys::NodeTag::T_Const => (*node.cast::<pg_sys::Const>()).location,
            pg_sys::NodeTag::T_Param => (*node.cast::<pg_sys::Param>()).location,
            _ => return pg_sys::expression_tree_walker(node, Some(look), context),
        };
        let Ok(start) = usize::try_from(location) else { return false };
        let search = &*context.cast::<Search>();
        if pg_sys::exprType(node).to_u32() < pg_sys::FirstNormalObjectId || !is_collated(search.text, start) {
            return false;
        }
        // Of another extension's type, perhaps.
        if (search.is_sealed)(Expr::of(node)) {
            PgError::Collate.raise();
        }
        false
    }
}

//! Is what PostgreSQL analyses now a definition, which it stores, or a query, which it runs? And does the hook after parse
//! analysis see the literal that is being read?

use std::cell::Cell;

use pgrx::{is_a, pg_sys};

thread_local! {
    /// A statement runs that may store what it analyses; stays so after an error until the transaction ends.
    static DEFINING: Cell<bool> = const { Cell::new(false) };
}

/// Statements that analyse queries only to run them.
const RUN: [pg_sys::NodeTag; 9] = [
    pg_sys::NodeTag::T_PrepareStmt,
    pg_sys::NodeTag::T_ExecuteStmt,
    pg_sys::NodeTag::T_ExplainStmt,
    pg_sys::NodeTag::T_DeclareCursorStmt,
    pg_sys::NodeTag::T_FetchStmt,
    pg_sys::NodeTag::T_CopyStmt,
    pg_sys::NodeTag::T_CallStmt,
    pg_sys::NodeTag::T_DoStmt,
    pg_sys::NodeTag::T_CreateTableAsStmt,
];

/// Where the literals of a query stand, as the parser names it. Elsewhere PostgreSQL analyses expressions by themselves:
/// of DEFAULT, CHECK, EXECUTE and the like.
const IN_QUERY: [pg_sys::ParseExprKind::Type; 15] = [
    pg_sys::ParseExprKind::EXPR_KIND_JOIN_ON,
    pg_sys::ParseExprKind::EXPR_KIND_FROM_FUNCTION,
    pg_sys::ParseExprKind::EXPR_KIND_WHERE,
    pg_sys::ParseExprKind::EXPR_KIND_HAVING,
    pg_sys::ParseExprKind::EXPR_KIND_FILTER,
    pg_sys::ParseExprKind::EXPR_KIND_SELECT_TARGET,
    pg_sys::ParseExprKind::EXPR_KIND_INSERT_TARGET,
    pg_sys::ParseExprKind::EXPR_KIND_UPDATE_SOURCE,
    pg_sys::ParseExprKind::EXPR_KIND_UPDATE_TARGET,
    pg_sys::ParseExprKind::EXPR_KIND_MERGE_WHEN,
    pg_sys::ParseExprKind::EXPR_KIND_GROUP_BY,
    pg_sys::ParseExprKind::EXPR_KIND_ORDER_BY,
    pg_sys::ParseExprKind::EXPR_KIND_RETURNING,
    pg_sys::ParseExprKind::EXPR_KIND_VALUES,
    pg_sys::ParseExprKind::EXPR_KIND_VALUES_SINGLE,
];

/// From `_PG_init`: a statement that has brought the library in was not seen to begin.
pub fn loaded() {
    DEFINING.set(is_inside());
}

/// A utility statement begins; gives what [`leave`] takes when it has ended.
///
/// # Safety
/// A statement of a finished analysis.
pub unsafe fn enter(utility: *mut pg_sys::Node) -> bool {
    let outside = DEFINING.get();
    // SAFETY: reads the tag.
    let runs = unsafe { RUN.iter().any(|tag| is_a(utility, *tag)) };
    DEFINING.set(!runs || outside && is_inside());
    outside
}

/// The statement has ended.
pub fn leave(outside: bool) {
    DEFINING.set(outside);
}

/// The transaction has ended, and with it every statement.
pub fn transaction_ended() {
    DEFINING.set(false);
}

/// What is analysed now may be stored: a view, a rule, a default.
pub fn is_defining() -> bool {
    is_inside() && DEFINING.get()
}

/// A statement runs, below which others may be analysed.
fn is_inside() -> bool {
    // SAFETY: compares a pointer.
    unsafe { !pg_sys::ActivePortal.is_null() }
}

/// The parser reads a literal of a query that the hook after parse analysis gets before it is planned or stored. To be
/// asked by an input function before it hides its CONTEXT.
pub fn literal_is_seen() -> bool {
    // SAFETY: the parser leaves a callback of its own on the stack of CONTEXT while it reads a literal (parse_coerce.c),
    // whose argument is its own state. Nothing but the address of such a callback is taken from one of ours.
    unsafe {
        let top = pg_sys::error_context_stack;
        if top.is_null() || is_defining() {
            return false;
        }
        let mut own = pg_sys::ParseCallbackState::default();
        pg_sys::setup_parser_errposition_callback(&mut own, std::ptr::null_mut(), -1);
        let of_parser = own.errcallback.callback;
        pg_sys::cancel_parser_errposition_callback(&mut own);
        if of_parser.is_none() || (*top).callback.map(|at| at as usize) != of_parser.map(|at| at as usize) {
            return false;
        }
        let state = (*(*top).arg.cast::<pg_sys::ParseCallbackState>()).pstate;
        !state.is_null() && !is_sql_function(state) && is_in_query(state)
    }
}

/// Branches of UNION, INTERSECT and EXCEPT are given their type outside of every clause, once they are in the range table,
/// which is empty where EXECUTE reads its arguments.
unsafe fn is_in_query(state: *mut pg_sys::ParseState) -> bool {
    // SAFETY: reads the parser's state.
    unsafe {
        let kind = (*state).p_expr_kind;
        IN_QUERY.contains(&kind)
            || kind == pg_sys::ParseExprKind::EXPR_KIND_NONE && !(*state).p_rtable.is_null()
    }
}

/// The body of an SQL function, which the planner may put into a query after the hook has seen that one.
unsafe fn is_sql_function(state: *mut pg_sys::ParseState) -> bool {
    // SAFETY: reads the parser's state. PL/pgSQL sets both hooks.
    unsafe { (*state).p_post_columnref_hook.is_some() && (*state).p_pre_columnref_hook.is_none() }
}

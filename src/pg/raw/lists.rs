//! The planner asks support functions for operators and functions only. For an operator with ANY, ALL or IN this walk,
//! part of the planner hook, puts a function in its place, which has one.

use std::ffi::c_void;

use once_cell::sync::OnceCell;
use pgrx::{is_a, pg_guard, pg_sys};

use super::node::Expr;
use super::reveal::{cells, make};

/// `value operator ANY (list)`, or ALL.
pub struct ListTest {
    /// Behind the operator.
    pub function: pg_sys::Oid,
    /// ANY, not ALL.
    pub any: bool,
    /// What is compared.
    pub value: Expr,
    /// The array.
    pub list: Expr,
}

/// What comparisons become: a call, or NOT a call; `None` leaves them.
#[derive(Clone, Copy)]
pub struct Rewrites {
    /// An operator with ANY or ALL.
    pub list: fn(&ListTest) -> Option<Expr>,
    /// An operator of PostgreSQL's that compares something decrypted.
    pub decrypted: fn(Expr) -> Option<Expr>,
}

static REWRITES: OnceCell<Rewrites> = OnceCell::new();

/// Operators of PostgreSQL's (catalog/pg_operator.dat): `=` and `<>` of texts, `=`, `@>` and `<@` of jsonb.
const COMPARING: [u32; 5] = [98, 531, 3240, 3246, 3250];

/// From `_PG_init`.
pub fn install(rewrites: Rewrites) {
    REWRITES.get_or_init(|| rewrites);
}

// What is written takes the place of what was there.
const _: () = assert!(size_of::<pg_sys::FuncExpr>() <= size_of::<pg_sys::ScalarArrayOpExpr>());
const _: () = assert!(size_of::<pg_sys::FuncExpr>() <= size_of::<pg_sys::SubLink>());
const _: () = assert!(size_of::<pg_sys::FuncExpr>() <= size_of::<pg_sys::OpExpr>());
const _: () = assert!(size_of::<pg_sys::BoolExpr>() <= size_of::<pg_sys::FuncExpr>());

/// Rewrites every list in a query.
///
/// # Safety
/// The planner's query, which is its to change.
pub unsafe fn rewrite(query: *mut pg_sys::Query) {
    // SAFETY: the caller's promise.
    unsafe {
        visit(query.cast(), std::ptr::null_mut());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: the walker passes nodes of the query that is being planned; tags are checked.
    unsafe {
        if is_a(node, pg_sys::NodeTag::T_Query) {
            let flags = pg_sys::QTW_IGNORE_JOINALIASES as i32;
            return pg_sys::query_tree_walker(node.cast(), Some(visit), context, flags);
        }
        match (*node).type_ {
            // Its test stays an operator, for a join perhaps.
            pg_sys::NodeTag::T_SubLink => {
                visit((*node.cast::<pg_sys::SubLink>()).subselect, context);
            }
            _ => {
                pg_sys::expression_tree_walker(node, Some(visit), context);
            }
        }
        match (*node).type_ {
            pg_sys::NodeTag::T_ScalarArrayOpExpr => any_of_array(node.cast()),
            pg_sys::NodeTag::T_SubLink => any_of_subquery(node.cast()),
            pg_sys::NodeTag::T_OpExpr => of_decrypted(node.cast()),
            _ => (),
        }
        false
    }
}

unsafe fn of_decrypted(comparison: *mut pg_sys::OpExpr) {
    // SAFETY: an OpExpr, which has room for a FuncExpr.
    unsafe {
        if COMPARING.contains(&(*comparison).opno.to_u32()) && !is_loose((*comparison).inputcollid) {
            let new = REWRITES.get().and_then(|rewrites| (rewrites.decrypted)(Expr::of(comparison.cast())));
            write(comparison.cast(), new);
        }
    }
}

unsafe fn any_of_array(test: *mut pg_sys::ScalarArrayOpExpr) {
    // SAFETY: an operator of two operands.
    unsafe {
        let operands: Vec<*mut pg_sys::Node> = cells((*test).args).collect();
        let [value, list] = operands.as_slice() else { return };
        replace(test.cast(), (*test).opno, (*test).inputcollid, (*test).useOr, *value, *list);
    }
}

/// `value IN (SELECT ...)` is `value = ANY (ARRAY(SELECT ...))`, which opens each value once; not where the subquery has to
/// run for each row, or does something.
unsafe fn any_of_subquery(link: *mut pg_sys::SubLink) {
    // SAFETY: the parser has made the subselect a query and the test of one column an OpExpr.
    unsafe {
        let (test, query) = ((*link).testexpr, (*link).subselect.cast::<pg_sys::Query>());
        if (*link).subLinkType != pg_sys::SubLinkType::ANY_SUBLINK || !is_a(test, pg_sys::NodeTag::T_OpExpr) {
            return;
        }
        let test = test.cast::<pg_sys::OpExpr>();
        // What is decrypted can be hashed.
        if (*test).opno.to_u32() < pg_sys::FirstNormalObjectId {
            return;
        }
        let operands: Vec<*mut pg_sys::Node> = cells((*test).args).collect();
        let [value, column] = operands.as_slice() else { return };
        let is_texts =
            is_a(*column, pg_sys::NodeTag::T_Param) && pg_sys::exprType(*column) == pg_sys::TEXTOID;
        if !is_texts || !is_plain(query) || pg_sys::contain_volatile_functions(*value) {
            return;
        }
        let list = make::<pg_sys::SubLink>(pg_sys::NodeTag::T_SubLink);
        (*list).subLinkType = pg_sys::SubLinkType::ARRAY_SUBLINK;
        (*list).subselect = query.cast();
        (*list).location = -1;
        replace(link.cast(), (*test).opno, (*test).inputcollid, true, *value, list.cast());
    }
}

/// A query that gives the same whenever it runs, and needs no row of the query around it.
unsafe fn is_plain(query: *mut pg_sys::Query) -> bool {
    // SAFETY: walks a query.
    unsafe {
        (*query).commandType == pg_sys::CmdType::CMD_SELECT
            && (*query).rowMarks.is_null()
            && !pg_sys::contain_vars_of_level(query.cast(), 1)
            && !pg_sys::contain_volatile_functions(query.cast())
    }
}

/// An ARRAY(SELECT ...) that [`any_of_subquery`] may have made.
///
/// # Safety
/// A valid tree.
pub(super) unsafe fn is_array_of_subquery(node: *mut pg_sys::Node) -> bool {
    // SAFETY: the tag is checked.
    unsafe {
        if !is_a(node, pg_sys::NodeTag::T_SubLink) {
            return false;
        }
        let link = node.cast::<pg_sys::SubLink>();
        (*link).subLinkType == pg_sys::SubLinkType::ARRAY_SUBLINK && is_plain((*link).subselect.cast())
    }
}

/// Writes what the operator becomes over the node itself, of which the tree may have more than one pointer.
unsafe fn replace(
    node: *mut pg_sys::Node,
    operator: pg_sys::Oid,
    collation: pg_sys::Oid,
    any: bool,
    value: *mut pg_sys::Node,
    list: *mut pg_sys::Node,
) {
    // SAFETY: syscache lookups; every node here has room for a FuncExpr or BoolExpr.
    unsafe {
        let is_ours = operator.to_u32() >= pg_sys::FirstNormalObjectId;
        if !is_ours && !COMPARING.contains(&operator.to_u32()) || is_loose(collation) {
            return;
        }
        let function = pg_sys::get_opcode(operator);
        let test = ListTest { function, any, value: Expr::of(value), list: Expr::of(list) };
        write(node, REWRITES.get().and_then(|rewrites| (rewrites.list)(&test)));
    }
}

unsafe fn write(node: *mut pg_sys::Node, new: Option<Expr>) {
    // SAFETY: as above.
    unsafe {
        let Some(new) = new.map(Expr::node) else { return };
        match (*new).type_ {
            pg_sys::NodeTag::T_FuncExpr => {
                node.cast::<pg_sys::FuncExpr>().copy_from_nonoverlapping(new.cast(), 1);
            }
            pg_sys::NodeTag::T_BoolExpr => {
                node.cast::<pg_sys::BoolExpr>().copy_from_nonoverlapping(new.cast(), 1);
            }
            _ => (),
        }
    }
}

/// Texts of different bytes may be equal in it.
unsafe fn is_loose(collation: pg_sys::Oid) -> bool {
    // SAFETY: a syscache lookup.
    unsafe {
        collation != pg_sys::InvalidOid
            && collation != pg_sys::DEFAULT_COLLATION_OID
            && !pg_sys::get_collation_isdeterministic(collation)
    }
}

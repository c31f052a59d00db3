//! What `pgseal.reveal` does below the columns that a statement returns: PostgreSQL's own functions that make text or JSON
//! of any value, casts through text, rows and arrays would carry ciphertext to the client. They get revealed values.

use std::ffi::{CStr, c_void};

use pgrx::{is_a, pg_guard, pg_sys};

use super::plain::written;
use super::reveal::{cells, make, reveal_subquery, revealed};
use super::version;

/// The queries around an expression, the innermost last.
type Around = Vec<*mut pg_sys::Query>;

/// Reveals what is handed to functions anywhere in a SELECT. What it writes in WITH stays as it is, and so does what stands
/// in WITH beside it, which it may write.
///
/// # Safety
/// A finished query, which is the caller's to change.
pub unsafe fn reveal_in_query(query: *mut pg_sys::Query) {
    let mut around = Around::new();
    // SAFETY: the caller vouches for the query; the walker takes this very context.
    unsafe { walk(query.cast(), (&raw mut around).cast()) };
}

/// The same for what a statement that writes returns.
///
/// # Safety
/// As above; the list belongs to the query.
pub unsafe fn reveal_in_list(query: *mut pg_sys::Query, list: *mut pg_sys::List) {
    let mut around = vec![query];
    // SAFETY: as above.
    unsafe { walk(list.cast(), (&raw mut around).cast()) };
}

/// A row or an array as something returns it, with its values revealed; `None` where it holds none of ours.
///
/// # Safety
/// The expression stands in the query itself, not in one below it.
pub unsafe fn revealed_whole(
    query: *mut pg_sys::Query,
    expression: *mut pg_sys::Node,
) -> Option<*mut pg_sys::Expr> {
    // SAFETY: the caller vouches for both.
    unsafe { revealed_row(&vec![query], expression).or_else(|| revealed_array(expression)) }
}

#[pg_guard]
unsafe extern "C-unwind" fn walk(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: PostgreSQL's walkers pass each node of a valid tree and the context that the walk began with. Nodes are
    // changed in place, before what is below them is visited.
    unsafe {
        if node.is_null() {
            return false;
        }
        let around = &mut *context.cast::<Around>();
        if is_a(node, pg_sys::NodeTag::T_Query) {
            let query = node.cast::<pg_sys::Query>();
            if (*query).commandType == pg_sys::CmdType::CMD_SELECT {
                around.push(query);
                let flags = if (*query).hasModifyingCTE { pg_sys::QTW_IGNORE_CTE_SUBQUERIES } else { 0 };
                pg_sys::query_tree_walker(query, Some(walk), context, flags as i32);
                (*context.cast::<Around>()).pop();
            }
            return false;
        }
        reveal_arguments(around, node);
        pg_sys::expression_tree_walker(node, Some(walk), context)
    }
}

unsafe fn reveal_arguments(around: &Around, node: *mut pg_sys::Node) {
    // SAFETY: the tags are checked before the fields are read.
    unsafe {
        if is_a(node, pg_sys::NodeTag::T_FuncExpr) {
            let call = node.cast::<pg_sys::FuncExpr>();
            if shows_any((*call).funcid) {
                reveal_each(around, (*call).args);
            } else if let Some(function) = quoting_text((*call).funcid) {
                reveal_quoted(call, function);
            }
        } else if is_a(node, pg_sys::NodeTag::T_WindowFunc) {
            let call = node.cast::<pg_sys::WindowFunc>();
            if shows_any((*call).winfnoid) {
                reveal_each(around, (*call).args);
            }
        } else if is_a(node, pg_sys::NodeTag::T_Aggref) {
            let call = node.cast::<pg_sys::Aggref>();
            if shows_any((*call).aggfnoid) {
                reveal_aggregated(around, call);
            }
        } else if is_a(node, pg_sys::NodeTag::T_CoerceViaIO) {
            let cast = node.cast::<pg_sys::CoerceViaIO>();
            if let Some(shown) = shown(around, (*cast).arg.cast()) {
                (*cast).arg = shown;
            }
        } else if is_a(node, pg_sys::NodeTag::T_RowExpr) {
            let row = node.cast::<pg_sys::RowExpr>();
            if (*row).row_typeid == pg_sys::RECORDOID {
                reveal_each(around, (*row).args);
            }
        } else if is_a(node, pg_sys::NodeTag::T_XmlExpr) {
            let xml = node.cast::<pg_sys::XmlExpr>();
            reveal_each(around, (*xml).named_args);
            reveal_each(around, (*xml).args);
        }
    }
}

/// A function of PostgreSQL's own that takes values of any type and makes text, JSON or XML of them.
unsafe fn shows_any(function: pg_sys::Oid) -> bool {
    // SAFETY: syscache lookups of a function that an expression calls.
    unsafe {
        if pg_sys::get_func_namespace(function) != pg_sys::Oid::from_u32(pg_sys::PG_CATALOG_NAMESPACE) {
            return false;
        }
        let (mut types, mut count) = (std::ptr::null_mut(), 0);
        let result = pg_sys::get_func_signature(function, &mut types, &mut count);
        let any = [
            pg_sys::ANYOID,
            pg_sys::ANYELEMENTOID,
            pg_sys::ANYNONARRAYOID,
            pg_sys::ANYARRAYOID,
            pg_sys::RECORDOID,
        ];
        let takes_any = (0..count as usize).any(|at| any.contains(&*types.add(at)));
        let shown = [pg_sys::TEXTOID, pg_sys::JSONOID, pg_sys::JSONBOID, pg_sys::XMLOID];
        takes_any && shown.contains(&result)
    }
}

/// PostgreSQL's function for text of the name that ours for ciphertext has, quote_literal or quote_nullable.
unsafe fn quoting_text(function: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: syscache lookups; a function that is gone has no name.
    unsafe {
        let catalog = pg_sys::Oid::from_u32(pg_sys::PG_CATALOG_NAMESPACE);
        if function.to_u32() < pg_sys::FirstNormalObjectId || pg_sys::get_func_namespace(function) != catalog
        {
            return None;
        }
        let name = pg_sys::get_func_name(function);
        let quotes = |own: &CStr| !name.is_null() && CStr::from_ptr(name) == own;
        if quotes(c"quote_literal") {
            Some(pg_sys::Oid::from_u32(pg_sys::F_QUOTE_LITERAL_TEXT))
        } else {
            quotes(c"quote_nullable").then(|| pg_sys::Oid::from_u32(pg_sys::F_QUOTE_NULLABLE_TEXT))
        }
    }
}

unsafe fn reveal_quoted(call: *mut pg_sys::FuncExpr, function: pg_sys::Oid) {
    // SAFETY: a call with one argument; the function takes a text.
    unsafe {
        let argument = cells::<pg_sys::Node>((*call).args).next().and_then(|argument| revealed(argument));
        if let Some(shown) = argument {
            (*call).funcid = function;
            let shown = written(shown, pg_sys::TEXTOID);
            (*call).args = pg_sys::lappend(std::ptr::null_mut(), shown.cast());
            (*call).inputcollid = pg_sys::DEFAULT_COLLATION_OID;
        }
    }
}

unsafe fn reveal_each(around: &Around, arguments: *mut pg_sys::List) {
    if arguments.is_null() {
        return;
    }
    // SAFETY: a list of expressions, whose cells are changed one by one.
    unsafe {
        for at in 0..(*arguments).length as usize {
            let cell = (*arguments).elements.add(at);
            if let Some(shown) = shown(around, (*cell).ptr_value.cast()) {
                (*cell).ptr_value = shown.cast();
            }
        }
    }
}

/// An aggregate's arguments are target entries, and their types stand beside them.
unsafe fn reveal_aggregated(around: &Around, call: *mut pg_sys::Aggref) {
    // SAFETY: both lists are of the aggregate's arguments; direct ones, which none of these has, come first in the second,
    // and what it only orders by is in the first alone.
    unsafe {
        let direct = cells::<pg_sys::Node>((*call).aggdirectargs).count();
        let arguments = cells::<pg_sys::TargetEntry>((*call).args).filter(|entry| !(**entry).resjunk);
        for (at, entry) in arguments.enumerate() {
            if let Some(shown) = shown(around, (*entry).expr.cast()) {
                (*entry).expr = shown;
                (*(*(*call).aggargtypes).elements.add(direct + at)).oid_value =
                    pg_sys::exprType(shown.cast());
            }
        }
    }
}

/// What a function gets in place of an argument that is, or holds, a value of ours.
unsafe fn shown(around: &Around, argument: *mut pg_sys::Node) -> Option<*mut pg_sys::Expr> {
    // SAFETY: an expression of the innermost query.
    unsafe {
        revealed(argument).or_else(|| revealed_row(around, argument)).or_else(|| revealed_array(argument))
    }
}

/// `ARRAY(SELECT ...)` of our values.
unsafe fn revealed_subquery(link: *mut pg_sys::SubLink) -> Option<*mut pg_sys::Expr> {
    // SAFETY: what the parser has made of the subquery, whose first column the array is made of.
    unsafe {
        if (*link).subLinkType != pg_sys::SubLinkType::ARRAY_SUBLINK {
            return None;
        }
        let query = (*link).subselect.cast::<pg_sys::Query>();
        let first = cells::<pg_sys::TargetEntry>((*query).targetList).next()?;
        revealed((*first).expr.cast())?;
        reveal_subquery(query);
        Some(link.cast())
    }
}

/// `ARRAY[...]`, `ARRAY(SELECT ...)` or `array_agg(...)` of our values as one of revealed ones.
unsafe fn revealed_array(array: *mut pg_sys::Node) -> Option<*mut pg_sys::Expr> {
    // SAFETY: the tags are checked; types of our revealed values have array types.
    unsafe {
        if is_a(array, pg_sys::NodeTag::T_ArrayExpr) {
            let made = array.cast::<pg_sys::ArrayExpr>();
            if (*made).multidims {
                return None;
            }
            let elements = cells::<pg_sys::Node>((*made).elements);
            let shown = elements.map(|element| revealed(element)).collect::<Option<Vec<_>>>()?;
            let of = pg_sys::exprType(shown.first()?.cast());
            for (at, element) in shown.into_iter().enumerate() {
                (*(*(*made).elements).elements.add(at)).ptr_value = element.cast();
            }
            (*made).element_typeid = of;
            (*made).array_typeid = pg_sys::get_array_type(of);
            (*made).array_collid = pg_sys::get_typcollation(of);
            return Some(array.cast());
        }
        if is_a(array, pg_sys::NodeTag::T_SubLink) {
            return revealed_subquery(array.cast());
        }
        if !is_a(array, pg_sys::NodeTag::T_Aggref) {
            return None;
        }
        let made = array.cast::<pg_sys::Aggref>();
        let entry = cells::<pg_sys::TargetEntry>((*made).args).next()?;
        if (*made).aggfnoid.to_u32() != pg_sys::F_ARRAY_AGG_ANYNONARRAY {
            return None;
        }
        (*entry).expr = revealed((*entry).expr.cast())?;
        let of = pg_sys::exprType((*entry).expr.cast());
        (*(*(*made).aggargtypes).elements).oid_value = of;
        (*made).aggtype = pg_sys::get_array_type(of);
        (*made).aggcollid = pg_sys::get_typcollation(of);
        Some(array.cast())
    }
}

/// A whole row, `d` of `FROM docs d`, with its values revealed: a row of its columns, NULL where there is none.
unsafe fn revealed_row(around: &Around, row: *mut pg_sys::Node) -> Option<*mut pg_sys::Expr> {
    // SAFETY: the tag is checked; a variable names a table of the query that is so many levels out.
    unsafe {
        if !is_a(row, pg_sys::NodeTag::T_Var) || (*row.cast::<pg_sys::Var>()).varattno != 0 {
            return None;
        }
        let variable = row.cast::<pg_sys::Var>();
        let query = around.iter().rev().nth((*variable).varlevelsup as usize)?;
        let table = cells::<pg_sys::RangeTblEntry>((**query).rtable).nth((*variable).varno as usize - 1)?;
        let (names, columns) = version::columns(table, variable);
        let revealed: Vec<_> =
            cells::<pg_sys::Node>(columns).map(|column| (column, revealed(column))).collect();
        if revealed.iter().all(|(_, shown)| shown.is_none()) {
            return None;
        }
        let made = make::<pg_sys::RowExpr>(pg_sys::NodeTag::T_RowExpr);
        for (column, shown) in revealed {
            (*made).args = pg_sys::lappend((*made).args, shown.map_or(column.cast(), |shown| shown.cast()));
        }
        (*made).row_typeid = pg_sys::RECORDOID;
        (*made).row_format = pg_sys::CoercionForm::COERCE_IMPLICIT_CAST;
        (*made).colnames = names;
        Some(null_where_null(row, made.cast()))
    }
}

/// `CASE WHEN row is NULL, not a row of NULLs, THEN NULL ELSE shown END`: an outer join may have no row.
unsafe fn null_where_null(row: *mut pg_sys::Node, shown: *mut pg_sys::Expr) -> *mut pg_sys::Expr {
    // SAFETY: nodes as the parser makes them.
    unsafe {
        let test = make::<pg_sys::NullTest>(pg_sys::NodeTag::T_NullTest);
        (*test).arg = row.cast();
        (*test).nulltesttype = pg_sys::NullTestType::IS_NULL;
        let when = make::<pg_sys::CaseWhen>(pg_sys::NodeTag::T_CaseWhen);
        (*when).expr = test.cast();
        (*when).result = pg_sys::makeNullConst(pg_sys::RECORDOID, -1, pg_sys::InvalidOid).cast();
        let case = make::<pg_sys::CaseExpr>(pg_sys::NodeTag::T_CaseExpr);
        (*case).casetype = pg_sys::RECORDOID;
        (*case).args = pg_sys::lappend(std::ptr::null_mut(), when.cast());
        (*case).defresult = shown;
        case.cast()
    }
}

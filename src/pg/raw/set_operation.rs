//! UNION, INTERSECT and EXCEPT of encrypted columns with plain ones. PostgreSQL adds the casts to the type that both have in
//! common where it plans them, when nobody looks at them any more; here they are written before.

use pgrx::{is_a, pg_sys};

use super::reveal::{above, cells, wrapped};

/// Opens the encrypted columns of the branches where the whole is of the plain type, and `opens` says that it may be.
///
/// # Safety
/// A whole SELECT, which is the caller's to change.
pub unsafe fn align(query: *mut pg_sys::Query, opens: &dyn Fn(i32) -> bool) {
    // SAFETY: the leaves of a set operation are subqueries of its query.
    unsafe {
        let whole = (*query).setOperations.cast::<pg_sys::SetOperationStmt>();
        if whole.is_null() {
            return;
        }
        let opened = |column: i32| opens(column) && is_plain(type_of(whole, column));
        pass_down(whole, &opened);
        for table in cells::<pg_sys::RangeTblEntry>((*query).rtable) {
            if (*table).rtekind == pg_sys::RTEKind::RTE_SUBQUERY && !(*table).subquery.is_null() {
                open_branch((*table).subquery, whole, &opened);
            }
        }
    }
}

/// The type of a column, counted from 1.
///
/// # Safety
/// An operation with so many columns.
pub unsafe fn type_of(operation: *mut pg_sys::SetOperationStmt, column: i32) -> pg_sys::Oid {
    // SAFETY: a list of types, one for each column.
    unsafe { (*(*(*operation).colTypes).elements.add(column as usize - 1)).oid_value }
}

fn is_plain(of: pg_sys::Oid) -> bool {
    // SAFETY: a syscache lookup.
    let base = unsafe { pg_sys::getBaseType(of) };
    // SAFETY: as above.
    !unsafe { super::unbound::is_encrypted(base) }
}

/// Operations inside of others get the type of the outermost, where theirs is encrypted.
unsafe fn pass_down(operation: *mut pg_sys::SetOperationStmt, opened: &dyn Fn(i32) -> bool) {
    // SAFETY: both sides are operations or leaves; lists of columns are equally long.
    unsafe {
        for side in [(*operation).larg, (*operation).rarg] {
            if !is_a(side, pg_sys::NodeTag::T_SetOperationStmt) {
                continue;
            }
            let inner = side.cast::<pg_sys::SetOperationStmt>();
            let columns = (*(*inner).colTypes).length;
            for column in (1..=columns).filter(|column| opened(*column)) {
                let (of, at) = (type_of(operation, column), column as usize - 1);
                if is_plain(type_of(inner, column)) {
                    continue;
                }
                (*(*(*inner).colTypes).elements.add(at)).oid_value = of;
                (*(*(*inner).colTypmods).elements.add(at)).int_value = -1;
                (*(*(*inner).colCollations).elements.add(at)).oid_value =
                    (*(*(*operation).colCollations).elements.add(at)).oid_value;
                if let Some(group) = cells::<pg_sys::SortGroupClause>((*inner).groupClauses).nth(at) {
                    group_by(group, of);
                }
            }
            pass_down(inner, opened);
        }
    }
}

/// The operators that make groups of this type.
unsafe fn group_by(group: *mut pg_sys::SortGroupClause, of: pg_sys::Oid) {
    // SAFETY: an error where a type has no such operators.
    unsafe {
        let (mut less, mut equal, mut hashable) = (pg_sys::InvalidOid, pg_sys::InvalidOid, false);
        let greater = std::ptr::null_mut();
        pg_sys::get_sort_group_operators(
            of,
            false,
            true,
            false,
            &mut less,
            &mut equal,
            greater,
            &mut hashable,
        );
        (*group).sortop = less;
        (*group).eqop = equal;
        (*group).hashable = hashable;
    }
}

/// The branch goes below a SELECT that opens: its own order and groups are of what it has.
unsafe fn open_branch(
    branch: *mut pg_sys::Query,
    whole: *mut pg_sys::SetOperationStmt,
    opened: &dyn Fn(i32) -> bool,
) {
    // SAFETY: a whole SELECT, whose target list has an entry for each column.
    unsafe {
        let sealed = |entry: *mut pg_sys::TargetEntry| {
            !(*entry).resjunk
                && opened((*entry).resno.into())
                && !is_plain(pg_sys::exprType((*entry).expr.cast()))
        };
        if !cells::<pg_sys::TargetEntry>((*branch).targetList).any(sealed) {
            return;
        }
        let outer = above(branch);
        for entry in cells::<pg_sys::TargetEntry>((*outer).targetList).filter(|entry| sealed(*entry)) {
            let Some(plain) = wrapped(c"plain", (*entry).expr.cast()) else { continue };
            let (of, found) = (type_of(whole, (*entry).resno.into()), pg_sys::exprType(plain.cast()));
            (*entry).expr = if of == found || !pg_sys::IsBinaryCoercible(found, of) {
                plain
            } else {
                let (collation, form) =
                    (pg_sys::get_typcollation(of), pg_sys::CoercionForm::COERCE_IMPLICIT_CAST);
                pg_sys::makeRelabelType(plain, of, -1, collation, form).cast()
            };
        }
        branch.copy_from_nonoverlapping(outer, 1);
    }
}

//! The implicit casts from encrypted types, `pgseal.plain(value, -1, false)` and `pgseal.plain_varchar(value, -1, false)`,
//! refuse by themselves, and so they do in whatever
//! never passes here: constraints, defaults, functions. This pass over a statement of the client that is about to be planned puts
//! `pgseal.plain(value)` in their place where the value goes to the client, decides a condition, or is sealed again. That
//! function opens values while `pgseal.reveal` is on; no plan depends on the setting.

use std::ffi::{CStr, c_char, c_void};

use pgrx::{is_a, pg_guard, pg_sys};

use super::reveal::{cells, made_for_the_client, make, wrapped};
use super::{lookup, set_operation, subscript, version};

/// `text || text` (catalog/pg_operator.dat).
const TEXT_CONCAT: pg_sys::Oid = pg_sys::Oid::from_u32(654);
/// The casts to what a value was made from.
const CASTS: [&CStr; 2] = [c"plain", c"plain_varchar"];
/// `jsonb <@ jsonb` (catalog/pg_operator.dat).
const JSONB_CONTAINED: pg_sys::Oid = pg_sys::Oid::from_u32(3250);

/// Columns aggtransfn and aggfinalfn (catalog/pg_aggregate.h).
const AGGREGATE_PARTS: [i16; 2] = [4, 5];

/// The context of walks that need none.
const NOTHING: *mut c_void = std::ptr::null_mut();

/// Opens what may be opened in a query that was made of `text`; casts that are written out become calls of `decrypt`.
///
/// # Safety
/// The query is the planner's to change; the text is the one that the planner was called with.
pub unsafe fn open_casts(query: *mut pg_sys::Query, text: *const c_char) {
    // SAFETY: the caller vouches for both.
    unsafe {
        write_out(query.cast(), NOTHING);
        let mut around: Vec<*mut pg_sys::Query> = Vec::new();
        if !made_for_the_client(text) || hands_on(query.cast(), (&raw mut around).cast()) {
            return;
        }
        match (*query).commandType {
            pg_sys::CmdType::CMD_SELECT => show(query),
            pg_sys::CmdType::CMD_UTILITY | pg_sys::CmdType::CMD_NOTHING => (),
            _ => store(query, true),
        }
    }
}

/// `pgseal.plain(value, -1, true)` becomes `pgseal.decrypt(value)`, which other parts of the planner know; assignments to
/// parts of documents, GREATEST and LEAST become calls of ours.
#[pg_guard]
unsafe extern "C-unwind" fn write_out(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a walker gets each node of a valid tree.
    unsafe {
        if is_a(node, pg_sys::NodeTag::T_Query) {
            return pg_sys::query_tree_walker(node.cast(), Some(write_out), context, 0);
        }
        match (*node).type_ {
            pg_sys::NodeTag::T_SubscriptingRef => subscript::write_out(node.cast()),
            pg_sys::NodeTag::T_MinMaxExpr => write_extreme(node.cast()),
            pg_sys::NodeTag::T_FuncExpr if is_cast(node, true) && pg_sys::exprTypmod(node) == -1 => {
                call_instead(node.cast(), c"decrypt");
            }
            pg_sys::NodeTag::T_FuncExpr => seal_written(node.cast()),
            _ => (),
        }
        pg_sys::expression_tree_walker(node, Some(write_out), context)
    }
}

// What is written takes the place of what was there.
const _: () = assert!(size_of::<pg_sys::CoalesceExpr>() <= size_of::<pg_sys::MinMaxExpr>());

/// GREATEST and LEAST need a comparison function, which encrypted types have none of.
unsafe fn write_extreme(node: *mut pg_sys::MinMaxExpr) {
    // SAFETY: a call of ours with one array, as the parser makes both. COALESCE of one value is that value, and has room.
    unsafe {
        let of = (*node).minmaxtype;
        let array = pg_sys::get_array_type(of);
        if !super::unbound::is_encrypted(of) || array == pg_sys::InvalidOid {
            return;
        }
        let greatest = (*node).op == pg_sys::MinMaxOp::IS_GREATEST;
        let name = if greatest { c"largest" } else { c"smallest" };
        let Some(function) = lookup::function(name, &[array]) else { return };
        let list = make::<pg_sys::ArrayExpr>(pg_sys::NodeTag::T_ArrayExpr);
        (*list).array_typeid = array;
        (*list).element_typeid = of;
        (*list).elements = (*node).args;
        (*list).location = -1;
        let (none, form) = (pg_sys::InvalidOid, pg_sys::CoercionForm::COERCE_EXPLICIT_CALL);
        let arguments = pg_sys::lappend(std::ptr::null_mut(), list.cast());
        let call = pg_sys::makeFuncExpr(function, of, arguments, none, none, form);
        let whole = pg_sys::CoalesceExpr {
            xpr: pg_sys::Expr { type_: pg_sys::NodeTag::T_CoalesceExpr },
            coalescetype: of,
            coalescecollid: none,
            args: pg_sys::lappend(std::ptr::null_mut(), call.cast()),
            location: -1,
        };
        node.cast::<pg_sys::CoalesceExpr>().write(whole);
    }
}

/// `coerce(value written as encrypted_text, keyring, false)`, of a value of any other type that is assigned, becomes
/// `seal(value written as text, keyring, false)`, which needs no other keyring.
unsafe fn seal_written(call: *mut pg_sys::FuncExpr) {
    // SAFETY: the function is looked at before its arguments are, and these before they are changed.
    unsafe {
        if !super::untyped::is_coercion(call) {
            return;
        }
        let cast = (*(*(*call).args).elements).ptr_value.cast::<pg_sys::CoerceViaIO>();
        if !is_a(cast.cast(), pg_sys::NodeTag::T_CoerceViaIO) {
            return;
        }
        let types = [pg_sys::TEXTOID, pg_sys::INT4OID, pg_sys::BOOLOID];
        let Some(seal) = lookup::function(c"seal", &types) else { return };
        if pg_sys::get_func_rettype(seal) == (*cast).resulttype {
            (*call).funcid = seal;
            (*cast).resulttype = pg_sys::TEXTOID;
            (*cast).resultcollid = pg_sys::DEFAULT_COLLATION_OID;
        }
    }
}

/// A volatile function gets what a subquery, a function or a join gives, which may come from a cast further down.
#[pg_guard]
unsafe extern "C-unwind" fn hands_on(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a walker gets each node of a valid tree, and the queries around it.
    unsafe {
        if is_a(node, pg_sys::NodeTag::T_Query) {
            (*context.cast::<Vec<*mut pg_sys::Query>>()).push(node.cast());
            let found = pg_sys::query_tree_walker(node.cast(), Some(hands_on), context, 0);
            (*context.cast::<Vec<*mut pg_sys::Query>>()).pop();
            return found;
        }
        pg_sys::check_functions_in_node(node, Some(may_store), NOTHING)
            && pg_sys::expression_tree_walker(node, Some(is_computed), context)
            || pg_sys::expression_tree_walker(node, Some(hands_on), context)
    }
}

/// A column of something else than a table, or a subquery.
#[pg_guard]
unsafe extern "C-unwind" fn is_computed(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: as above; a variable names an entry of the range table of the query that is so many levels out.
    unsafe {
        if is_a(node, pg_sys::NodeTag::T_SubLink) {
            return true;
        }
        if !is_a(node, pg_sys::NodeTag::T_Var) {
            return pg_sys::expression_tree_walker(node, Some(is_computed), context);
        }
        let column = node.cast::<pg_sys::Var>();
        let around = &*context.cast::<Vec<*mut pg_sys::Query>>();
        let query = around.iter().rev().nth((*column).varlevelsup as usize);
        let table = query.and_then(|query| {
            cells::<pg_sys::RangeTblEntry>((**query).rtable).nth((*column).varno as usize - 1)
        });
        table.is_none_or(|table| (*table).rtekind != pg_sys::RTEKind::RTE_RELATION)
    }
}

/// Opens a whole SELECT. What it writes in WITH goes elsewhere, and what stands beside that in WITH may do so.
unsafe fn show(query: *mut pg_sys::Query) {
    // SAFETY: a whole query.
    unsafe {
        set_operation::align(query, &|_| true);
        let writes = (*query).hasModifyingCTE;
        let flags = if writes { pg_sys::QTW_IGNORE_CTE_SUBQUERIES } else { 0 };
        pg_sys::query_tree_walker(query, Some(open), NOTHING, flags as i32);
        if writes {
            open_with(query);
        }
    }
}

/// Opens what a statement that writes asks, returns and seals, but not what it stores.
unsafe fn store(query: *mut pg_sys::Query, returns: bool) {
    // SAFETY: as above; lists of each kind hold what their names say.
    unsafe {
        let mut stored = Vec::new();
        open_sealed((*query).targetList, &mut stored);
        if !(*query).onConflict.is_null() {
            open_sealed((*(*query).onConflict).onConflictSet, &mut stored);
            open_condition((*(*query).onConflict).onConflictWhere);
        }
        for action in cells::<pg_sys::MergeAction>((*query).mergeActionList) {
            open_sealed((*action).targetList, &mut stored);
            open_condition((*action).qual);
        }
        open_condition(version::merge_condition(query));
        open_condition((*query).jointree.cast());
        if returns {
            open((*query).returningList.cast(), NOTHING);
        } else {
            stored.push((*query).returningList.cast());
        }
        open_below(query, &Kept::of(query, &stored));
        open_with(query);
    }
}

/// Opens the entries that have an encrypted type: whatever is in them is sealed. The others are stored as they are.
unsafe fn open_sealed(list: *mut pg_sys::List, stored: &mut Vec<*mut pg_sys::Node>) {
    // SAFETY: a target list.
    unsafe {
        for entry in cells::<pg_sys::TargetEntry>(list) {
            let value = (*entry).expr.cast::<pg_sys::Node>();
            if super::unbound::is_encrypted(pg_sys::getBaseType(pg_sys::exprType(value))) {
                open(value, NOTHING);
            } else {
                stored.push(value);
            }
        }
    }
}

unsafe fn open_condition(condition: *mut pg_sys::Node) {
    // SAFETY: NULL or a tree.
    unsafe { open(condition, NOTHING) };
}

/// Nobody follows where the results of what stands in WITH go: only conditions are opened.
unsafe fn open_with(query: *mut pg_sys::Query) {
    // SAFETY: what WITH holds are queries.
    unsafe {
        for with in cells::<pg_sys::CommonTableExpr>((*query).cteList) {
            open_part((*with).ctequery.cast(), &|_| false);
        }
    }
}

/// Opens those columns of a subquery that are not `kept`, and its conditions.
unsafe fn open_part(query: *mut pg_sys::Query, opens: &dyn Fn(i32) -> bool) {
    // SAFETY: as in `store`.
    unsafe {
        if (*query).commandType != pg_sys::CmdType::CMD_SELECT {
            return store(query, false);
        }
        let mut stored = Vec::new();
        for entry in cells::<pg_sys::TargetEntry>((*query).targetList) {
            if opens((*entry).resno.into()) {
                open((*entry).expr.cast(), NOTHING);
            } else {
                stored.push((*entry).expr.cast());
            }
        }
        open_condition((*query).jointree.cast());
        // A condition on groups must stay the same expression as what is grouped.
        if stored.is_empty() {
            open_condition((*query).havingQual);
        }
        if (*query).setOperations.is_null() {
            open_below(query, &Kept::of(query, &stored));
        } else {
            set_operation::align(query, opens);
            for table in subqueries(query) {
                open_part((*table).subquery, opens);
            }
        }
        open_with(query);
    }
}

unsafe fn open_below(query: *mut pg_sys::Query, kept: &Kept) {
    // SAFETY: as in `store`.
    unsafe {
        for (at, table) in cells::<pg_sys::RangeTblEntry>((*query).rtable).enumerate() {
            open((*table).securityQuals.cast(), NOTHING);
            if (*table).rtekind == pg_sys::RTEKind::RTE_SUBQUERY && !(*table).subquery.is_null() {
                open_part((*table).subquery, &|column| !kept.has(at as i32 + 1, column));
            }
        }
    }
}

unsafe fn subqueries(query: *mut pg_sys::Query) -> impl Iterator<Item = *mut pg_sys::RangeTblEntry> {
    // SAFETY: entries of a range table.
    unsafe {
        cells::<pg_sys::RangeTblEntry>((*query).rtable).filter(|table| {
            (**table).rtekind == pg_sys::RTEKind::RTE_SUBQUERY && !(**table).subquery.is_null()
        })
    }
}

/// Columns of a query's tables that go where they stay as they are.
struct Kept {
    columns: Vec<(i32, i32)>,
    all: bool,
    /// How many queries deep the walk is.
    depth: u32,
}

impl Kept {
    unsafe fn of(query: *mut pg_sys::Query, stored: &[*mut pg_sys::Node]) -> Self {
        let mut kept = Kept { columns: Vec::new(), all: false, depth: 0 };
        // SAFETY: trees of the query; entries of its range table.
        unsafe {
            for node in stored {
                keep(*node, (&raw mut kept).cast());
            }
            let tables: Vec<_> = cells::<pg_sys::RangeTblEntry>((*query).rtable).collect();
            // What is read through another entry, a join's say, is not followed.
            let plain = [pg_sys::RTEKind::RTE_SUBQUERY, pg_sys::RTEKind::RTE_RELATION];
            let direct =
                |table: usize| tables.get(table - 1).is_some_and(|one| plain.contains(&(**one).rtekind));
            kept.all = tables.iter().any(|table| (**table).lateral)
                || kept.columns.iter().any(|(table, column)| *column == 0 || !direct(*table as usize));
        }
        kept
    }

    fn has(&self, table: i32, column: i32) -> bool {
        self.all || self.columns.contains(&(table, column))
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn keep(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a walker gets each node of a valid tree, and the columns that it began with.
    unsafe {
        let kept = context.cast::<Kept>();
        if is_a(node, pg_sys::NodeTag::T_Query) {
            (*kept).depth += 1;
            pg_sys::query_tree_walker(node.cast(), Some(keep), context, 0);
            (*kept).depth -= 1;
            return false;
        }
        if is_a(node, pg_sys::NodeTag::T_Var) {
            let column = node.cast::<pg_sys::Var>();
            if (*column).varlevelsup == (*kept).depth {
                (*kept).columns.push(((*column).varno, (*column).varattno.into()));
            }
            return false;
        }
        pg_sys::expression_tree_walker(node, Some(keep), context)
    }
}

/// Opens every cast below, but for what is handed to a volatile function: it may put it anywhere.
#[pg_guard]
unsafe extern "C-unwind" fn open(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a walker gets each node of a valid tree. Nodes are changed in place, before what is below them is visited.
    unsafe {
        if is_a(node, pg_sys::NodeTag::T_Query) {
            let query = node.cast::<pg_sys::Query>();
            match (*query).commandType {
                pg_sys::CmdType::CMD_SELECT => show(query),
                _ => store(query, false),
            }
            return false;
        }
        if pg_sys::check_functions_in_node(node, Some(may_store), NOTHING) {
            return false;
        }
        if is_cast(node, false) {
            call_instead(node.cast(), c"plain");
        } else if is_a(node, pg_sys::NodeTag::T_OpExpr) {
            open_operator(node.cast());
        } else if is_a(node, pg_sys::NodeTag::T_CoerceViaIO) {
            open_written(node.cast());
        }
        pg_sys::expression_tree_walker(node, Some(open), context)
    }
}

/// A cast through text gets the text.
unsafe fn open_written(cast: *mut pg_sys::CoerceViaIO) {
    // SAFETY: an expression.
    unsafe {
        let value = (*cast).arg.cast::<pg_sys::Node>();
        if super::unbound::is_encrypted(pg_sys::getBaseType(pg_sys::exprType(value)))
            && let Some(opened) = wrapped(c"plain", value)
        {
            (*cast).arg = opened;
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn may_store(function: pg_sys::Oid, _context: *mut c_void) -> bool {
    // SAFETY: syscache lookups.
    unsafe {
        if pg_sys::get_func_namespace(function) == lookup::schema() {
            return false;
        }
        let volatile = |one| pg_sys::func_volatile(one) as u8 == pg_sys::PROVOLATILE_VOLATILE;
        volatile(function)
            || AGGREGATE_PARTS
                .into_iter()
                .map(|column| part_of_aggregate(function, column))
                .any(|part| part != pg_sys::InvalidOid && volatile(part))
    }
}

/// A function that an aggregate is made of; InvalidOid for what is no aggregate.
unsafe fn part_of_aggregate(aggregate: pg_sys::Oid, column: i16) -> pg_sys::Oid {
    let none = pg_sys::Datum::from(0);
    // SAFETY: a syscache lookup of a column that holds an oid.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::AGGFNOID as i32;
        pg_sys::GetSysCacheOid(cache, column, aggregate.into(), none, none, none)
    }
}

/// A cast of ours to what the value was made from, written out or not.
///
/// # Safety
/// A valid tree.
pub unsafe fn is_cast(node: *mut pg_sys::Node, written: bool) -> bool {
    // SAFETY: the tags are checked before fields are read.
    unsafe {
        if !is_a(node, pg_sys::NodeTag::T_FuncExpr) {
            return false;
        }
        let call = node.cast::<pg_sys::FuncExpr>();
        if !CASTS.iter().any(|name| is_own((*call).funcid, name)) {
            return false;
        }
        let Some(last) = cells::<pg_sys::Node>((*call).args).nth(2) else { return false };
        let explicit = last.cast::<pg_sys::Const>();
        is_a(last, pg_sys::NodeTag::T_Const)
            && !(*explicit).constisnull
            && ((*explicit).constvalue.value() & 0xFF != 0) == written
    }
}

unsafe fn is_own(function: pg_sys::Oid, name: &CStr) -> bool {
    // SAFETY: syscache lookups; a function that is gone has no name.
    unsafe {
        if function.to_u32() < pg_sys::FirstNormalObjectId
            || pg_sys::get_func_namespace(function) != lookup::schema()
        {
            return false;
        }
        let own = pg_sys::get_func_name(function);
        !own.is_null() && CStr::from_ptr(own) == name
    }
}

/// Another function of ours with the first argument alone.
unsafe fn call_instead(call: *mut pg_sys::FuncExpr, name: &'static CStr) {
    // SAFETY: a call of ours, which has arguments; the new function takes the same type and gives the same.
    unsafe {
        let (mut types, mut count) = (std::ptr::null_mut(), 0);
        pg_sys::get_func_signature((*call).funcid, &mut types, &mut count);
        let Some(function) = lookup::function(name, &[*types]) else { return };
        let Some(value) = cells::<c_void>((*call).args).next() else { return };
        (*call).funcid = function;
        (*call).args = pg_sys::lappend(std::ptr::null_mut(), value);
    }
}

/// An operator that PostgreSQL would not find by the casts alone becomes its own on opened values.
unsafe fn open_operator(node: *mut pg_sys::OpExpr) {
    // SAFETY: an operator's call, whose arguments are two expressions.
    unsafe {
        if (*node).opno.to_u32() < pg_sys::FirstNormalObjectId
            || !is_own(pg_sys::get_opcode((*node).opno), c"unsupported")
        {
            return;
        }
        let (operator, operand) = match (*node).opresulttype {
            pg_sys::TEXTOID => (TEXT_CONCAT, pg_sys::TEXTOID),
            _ if is_named((*node).opno, c"<@") => (JSONB_CONTAINED, pg_sys::JSONBOID),
            _ => return,
        };
        let opened = cells::<pg_sys::Node>((*node).args).map(|one| opened_as(one, operand));
        let Some(opened) = opened.collect::<Option<Vec<_>>>() else { return };
        let append = |list, one: *mut pg_sys::Node| pg_sys::lappend(list, one.cast());
        (*node).args = opened.into_iter().fold(std::ptr::null_mut(), append);
        (*node).opno = operator;
        (*node).opfuncid = pg_sys::get_opcode(operator);
        if operand == pg_sys::TEXTOID && (*node).inputcollid == pg_sys::InvalidOid {
            (*node).inputcollid = pg_sys::DEFAULT_COLLATION_OID;
        }
    }
}

unsafe fn is_named(operator: pg_sys::Oid, name: &CStr) -> bool {
    // SAFETY: a syscache lookup; an operator that is gone has no name.
    unsafe {
        let own = pg_sys::get_opname(operator);
        !own.is_null() && CStr::from_ptr(own) == name
    }
}

/// The operand itself, or `pgseal.plain(operand)` written as `wanted`.
unsafe fn opened_as(operand: *mut pg_sys::Node, wanted: pg_sys::Oid) -> Option<*mut pg_sys::Node> {
    // SAFETY: an expression.
    unsafe {
        if !super::unbound::is_encrypted(pg_sys::getBaseType(pg_sys::exprType(operand))) {
            return Some(operand);
        }
        Some(written(wrapped(c"plain", operand)?, wanted).cast())
    }
}

/// A value of any type as a text type, as its output function writes it.
///
/// # Safety
/// An expression.
pub unsafe fn written(value: *mut pg_sys::Expr, wanted: pg_sys::Oid) -> *mut pg_sys::Expr {
    // SAFETY: a cast through text as the parser makes it.
    unsafe {
        if pg_sys::exprType(value.cast()) == wanted {
            return value;
        }
        let written = make::<pg_sys::CoerceViaIO>(pg_sys::NodeTag::T_CoerceViaIO);
        (*written).arg = value;
        (*written).resulttype = wanted;
        (*written).resultcollid = pg_sys::get_typcollation(wanted);
        (*written).coerceformat = pg_sys::CoercionForm::COERCE_IMPLICIT_CAST;
        (*written).location = -1;
        written.cast()
    }
}

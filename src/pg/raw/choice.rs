//! Where the session's setting chooses among the values of a column without keyring, `pgseal.chosen(...)` stands around
//! them. The planner asks support functions for operators and functions only; for what it does not ask about (IN,
//! IS DISTINCT FROM, CASE x WHEN, the test of a subquery) this hook puts it there first.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

use once_cell::sync::OnceCell;
use pgrx::{pg_guard, pg_sys};

use super::hook::Previous;
use super::node::Expr;
use super::origin::{Origin, Place, whole_of};
use super::reveal::{cells, make};
use super::{lists, lookup, xact};

/// What knows this database, and what a value is put into: each gives `None` where the extension has no such function.
#[derive(Clone, Copy)]
pub struct Choices {
    /// The extension is in this database.
    pub are_there: fn() -> bool,
    /// `chosen(value)`: NULL for a value that the session's setting does not choose.
    pub chosen: fn(Expr) -> Option<Expr>,
    /// `each(value)`: the value, among whose kind the session's setting does not choose.
    pub each: fn(Expr) -> Option<Expr>,
    /// `answers(value)`: false for a value that the session's setting does not choose.
    pub answers: fn(Expr) -> Option<Expr>,
}

static CHOICES: OnceCell<Choices> = OnceCell::new();
/// What was installed before us.
static PREVIOUS: Previous<pg_sys::planner_hook_type> = Previous::empty();
/// A statement of this session was planned with the hook.
static HAS_PLANNED: AtomicBool = AtomicBool::new(false);

/// The language SQL (catalog/pg_language.dat).
const SQL: pg_sys::Oid = pg_sys::Oid::from_u32(14);

// IS DISTINCT FROM becomes a CASE where it stands.
const _: () = assert!(size_of::<pg_sys::CaseExpr>() <= size_of::<pg_sys::OpExpr>());

unsafe extern "C-unwind" {
    // optimizer/planner.h. Its errors pass as they are: no frame of ours has anything to drop.
    fn standard_planner(
        query: *mut pg_sys::Query,
        text: *const std::ffi::c_char,
        options: std::ffi::c_int,
        parameters: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::PlannedStmt;
}

/// Installs the hook; from `_PG_init`.
pub fn install(choices: Choices) {
    CHOICES.get_or_init(|| choices);
    // SAFETY: once per process, before any statement is planned with it.
    unsafe {
        PREVIOUS.install(&raw mut pg_sys::planner_hook, plan);
    }
    if !xact::is_preloading() {
        // What was planned before has not seen the hook.
        xact::reset_plans();
    }
}

/// Did the library come in while the session's first statement with it was planned or ran?
pub fn was_planned_without() -> bool {
    !HAS_PLANNED.load(Ordering::Relaxed)
}

unsafe extern "C-unwind" fn plan(
    query: *mut pg_sys::Query,
    text: *const std::ffi::c_char,
    options: std::ffi::c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: PostgreSQL passes a query that is the planner's to change; whatever is next has the same contract.
    unsafe {
        let known = before_planning(query, text, parameters);
        let sorts = !known.is_null() && sorts_sealed(query.cast(), std::ptr::null_mut());
        let options = if sorts { options & !(pg_sys::CURSOR_OPT_PARALLEL_OK as i32) } else { options };
        let next = PREVIOUS.next().unwrap_or(standard_planner);
        let planned = next(query, text, options, parameters);
        after_planning(planned, known);
        planned
    }
}

/// What the walk through a query knows.
struct Walk {
    place: Place,
    /// Takes note of the functions that were expanded.
    global: *mut pg_sys::PlannerGlobal,
    /// What they were expanded to.
    bodies: Vec<(pg_sys::Oid, *mut pg_sys::Query)>,
}

impl Walk {
    /// The innermost query is in the body of this function: the planner stops expanding it once a condition is known to be
    /// false, which this hook does not know.
    fn is_inside(&self, function: pg_sys::Oid) -> bool {
        self.bodies.iter().any(|(of, body)| *of == function && self.place.is_inside(*body))
    }
}

/// Gives what the plan depends on; NULL where the extension is not in this database.
#[pg_guard]
unsafe extern "C-unwind" fn before_planning(
    query: *mut pg_sys::Query,
    text: *const std::ffi::c_char,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannerGlobal {
    HAS_PLANNED.store(true, Ordering::Relaxed);
    if CHOICES.get().is_none_or(|choices| !(choices.are_there)()) {
        return std::ptr::null_mut();
    }
    // SAFETY: walks the planner's query; what is passed lives as long as the walk.
    unsafe {
        super::plain::open_casts(query, text);
        let global = make::<pg_sys::PlannerGlobal>(pg_sys::NodeTag::T_PlannerGlobal);
        (*global).boundParams = parameters;
        let mut walk = Walk { place: Place::outside(), global, bodies: Vec::new() };
        visit(query.cast(), (&raw mut walk).cast());
        lists::rewrite(query);
        global
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn after_planning(
    planned: *mut pg_sys::PlannedStmt,
    known: *mut pg_sys::PlannerGlobal,
) {
    // SAFETY: the finished plan, and what `before_planning` gave.
    unsafe {
        if !known.is_null() && !(*known).invalItems.is_null() {
            (*planned).invalItems = pg_sys::list_concat((*planned).invalItems, (*known).invalItems);
            (*planned).dependsOnRole |= (*known).dependsOnRole;
        }
    }
}

/// Expands the SQL functions in FROM that the planner would expand itself, where their query compares encrypted values:
/// once the planner has done it, this hook cannot look into them any more.
unsafe fn expand_functions(walk: &mut Walk, query: *mut pg_sys::Query) {
    // SAFETY: the planner does the same in preprocess_function_rtes (optimizer/prep/prepjointree.c); it looks at no more
    // of its state than is given here.
    unsafe {
        for table in cells::<pg_sys::RangeTblEntry>((*query).rtable) {
            let Some(function) = sql_function(table).filter(|function| !walk.is_inside(*function)) else {
                continue;
            };
            let planner = make::<pg_sys::PlannerInfo>(pg_sys::NodeTag::T_PlannerInfo);
            (*planner).parse = query;
            (*planner).glob = walk.global;
            (*planner).query_level = 1;
            (*planner).planner_cxt = pg_sys::CurrentMemoryContext;
            let expanded = pg_sys::copyObjectImpl(table.cast()).cast::<pg_sys::RangeTblEntry>();
            (*expanded).functions =
                pg_sys::eval_const_expressions(planner, (*expanded).functions.cast()).cast();
            let body = pg_sys::inline_set_returning_function(planner, expanded);
            if body.is_null() || !finds_question(body.cast(), std::ptr::null_mut()) {
                continue;
            }
            (*expanded).rtekind = pg_sys::RTEKind::RTE_SUBQUERY;
            (*expanded).subquery = body;
            (*expanded).security_barrier = false;
            (*expanded).funcordinality = false;
            table.copy_from_nonoverlapping(expanded, 1);
            walk.bodies.push((function, body));
        }
    }
}

unsafe fn sql_function(table: *mut pg_sys::RangeTblEntry) -> Option<pg_sys::Oid> {
    // SAFETY: tags are checked; a syscache lookup.
    unsafe {
        if (*table).rtekind != pg_sys::RTEKind::RTE_FUNCTION {
            return None;
        }
        let mut functions = cells::<pg_sys::RangeTblFunction>((*table).functions);
        let (Some(function), None) = (functions.next(), functions.next()) else { return None };
        let call = (*function).funcexpr;
        if (*call).type_ != pg_sys::NodeTag::T_FuncExpr {
            return None;
        }
        let function = (*call.cast::<pg_sys::FuncExpr>()).funcid;
        (function.to_u32() >= pg_sys::FirstNormalObjectId && lookup::language(function) == Some(SQL))
            .then_some(function)
    }
}

/// Something sorts or groups values of ours. The planner does not ask whether that may be done in a parallel worker, which has
/// neither the session's credentials nor its log.
#[pg_guard]
unsafe extern "C-unwind" fn sorts_sealed(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a query and its nodes.
    unsafe {
        match (*node).type_ {
            pg_sys::NodeTag::T_Query => {
                let flags = pg_sys::QTW_EXAMINE_SORTGROUP | pg_sys::QTW_IGNORE_JOINALIASES;
                return pg_sys::query_tree_walker(node.cast(), Some(sorts_sealed), context, flags as i32);
            }
            pg_sys::NodeTag::T_SortGroupClause => {
                return asks((*node.cast::<pg_sys::SortGroupClause>()).eqop);
            }
            pg_sys::NodeTag::T_SetOperationStmt => {
                let groups = (*node.cast::<pg_sys::SetOperationStmt>()).groupClauses;
                if cells::<pg_sys::Node>(groups).any(|group| sorts_sealed(group, context)) {
                    return true;
                }
            }
            _ => (),
        }
        pg_sys::expression_tree_walker(node, Some(sorts_sealed), context)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn finds_question(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a query and its nodes.
    unsafe {
        match (*node).type_ {
            pg_sys::NodeTag::T_Query => {
                let flags = pg_sys::QTW_IGNORE_JOINALIASES as i32;
                return pg_sys::query_tree_walker(node.cast(), Some(finds_question), context, flags);
            }
            pg_sys::NodeTag::T_OpExpr | pg_sys::NodeTag::T_DistinctExpr
                if asks((*node.cast::<pg_sys::OpExpr>()).opno) =>
            {
                return true;
            }
            pg_sys::NodeTag::T_ScalarArrayOpExpr
                if asks((*node.cast::<pg_sys::ScalarArrayOpExpr>()).opno) =>
            {
                return true;
            }
            _ => (),
        }
        pg_sys::expression_tree_walker(node, Some(finds_question), context)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: the walker passes nodes of the query that is being planned, and the walk that we gave it.
    unsafe {
        let walk = &mut *context.cast::<Walk>();
        match (*node).type_ {
            pg_sys::NodeTag::T_Query => {
                walk.place.enter(node.cast());
                expand_functions(walk, node.cast());
                let flags = pg_sys::QTW_IGNORE_JOINALIASES as i32;
                pg_sys::query_tree_walker(node.cast(), Some(visit), context, flags);
                walk.place.leave();
                return false;
            }
            pg_sys::NodeTag::T_SubLink => {
                let link = node.cast::<pg_sys::SubLink>();
                let outer = walk.place.test((*link).subselect.cast());
                visit((*link).testexpr, context);
                walk.place.test(std::ptr::null_mut());
                visit((*link).subselect, context);
                walk.place.test(outer);
                return false;
            }
            pg_sys::NodeTag::T_OpExpr => {
                choose_operands(&walk.place, (*node.cast::<pg_sys::OpExpr>()).opno, node)
            }
            pg_sys::NodeTag::T_ScalarArrayOpExpr => {
                choose_operands(&walk.place, (*node.cast::<pg_sys::ScalarArrayOpExpr>()).opno, node);
            }
            pg_sys::NodeTag::T_CaseExpr => {
                let case = node.cast::<pg_sys::CaseExpr>();
                if let Some(chosen) = chosen(&walk.place, (*case).arg.cast()) {
                    (*case).arg = chosen.cast();
                }
            }
            pg_sys::NodeTag::T_DistinctExpr => {
                pg_sys::expression_tree_walker(node, Some(visit), context);
                distinguish(&walk.place, node.cast());
                return false;
            }
            _ => (),
        }
        pg_sys::expression_tree_walker(node, Some(visit), context)
    }
}

/// The operands of an operator of ours that asks something.
unsafe fn choose_operands(place: &Place, operator: pg_sys::Oid, node: *mut pg_sys::Node) {
    // SAFETY: both structures have their arguments as a list of nodes, which is the planner's to change.
    unsafe {
        if !asks(operator) {
            return;
        }
        let arguments = match (*node).type_ {
            pg_sys::NodeTag::T_OpExpr => (*node.cast::<pg_sys::OpExpr>()).args,
            _ => (*node.cast::<pg_sys::ScalarArrayOpExpr>()).args,
        };
        choose_in(place, arguments);
    }
}

unsafe fn choose_in(place: &Place, arguments: *mut pg_sys::List) {
    // SAFETY: a pointer list holds `length` cells.
    unsafe {
        let cells = std::slice::from_raw_parts_mut((*arguments).elements, (*arguments).length as usize);
        for cell in cells {
            if let Some(chosen) = chosen(place, cell.ptr_value.cast()) {
                cell.ptr_value = chosen.cast();
            }
        }
    }
}

/// An operator of ours that answers true or false. `@@` asks its filter which keyring it is for.
unsafe fn asks(operator: pg_sys::Oid) -> bool {
    if operator.to_u32() < pg_sys::FirstNormalObjectId {
        return false;
    }
    // SAFETY: syscache lookups; a function that is gone has no name.
    unsafe {
        let function = pg_sys::get_opcode(operator);
        if pg_sys::get_func_namespace(function) != lookup::schema()
            || pg_sys::get_func_rettype(function) != pg_sys::BOOLOID
        {
            return false;
        }
        let name = pg_sys::get_func_name(function);
        !name.is_null() && ![c"matches", c"token_match", c"exact_match"].contains(&CStr::from_ptr(name))
    }
}

/// IS DISTINCT FROM knows no NULL: where the session has chosen other values, it is NULL as every comparison is.
unsafe fn distinguish(place: &Place, node: *mut pg_sys::DistinctExpr) {
    // SAFETY: the node's memory is large enough for the CASE that takes its place.
    unsafe {
        if !asks((*node).opno) {
            return;
        }
        let columns = cells::<pg_sys::Node>((*node).args).filter_map(|one| unbound_column(place, one));
        let test = columns.filter_map(|column| (CHOICES.get()?.answers)(column)).reduce(Expr::and);
        choose_in(place, (*node).args);
        let Some(test) = test else { return };
        let distinct = pg_sys::palloc(size_of::<pg_sys::DistinctExpr>()).cast::<pg_sys::DistinctExpr>();
        std::ptr::copy_nonoverlapping(node, distinct, 1);
        let case = pg_sys::CaseExpr {
            xpr: pg_sys::Expr { type_: pg_sys::NodeTag::T_CaseExpr },
            casetype: pg_sys::BOOLOID,
            casecollid: pg_sys::InvalidOid,
            arg: std::ptr::null_mut(),
            args: pg_sys::lappend(std::ptr::null_mut(), branch(test, distinct.cast()).cast()),
            defresult: pg_sys::makeBoolConst(false, true).cast(),
            location: -1,
        };
        node.cast::<pg_sys::CaseExpr>().write(case);
    }
}

unsafe fn branch(test: Expr, result: *mut pg_sys::Expr) -> *mut pg_sys::CaseWhen {
    // SAFETY: fills a new node.
    unsafe {
        let branch = make::<pg_sys::CaseWhen>(pg_sys::NodeTag::T_CaseWhen);
        (*branch).expr = test.node().cast();
        (*branch).result = result;
        (*branch).location = -1;
        branch
    }
}

/// The column without keyring that an operand is or is a part of.
unsafe fn unbound_column(place: &Place, operand: *mut pg_sys::Node) -> Option<Expr> {
    // SAFETY: as in `visit`.
    unsafe {
        if place.origin(operand) != Origin::Unbound {
            return None;
        }
        let mut node = operand;
        while let Some(whole) = whole_of(node) {
            node = whole;
        }
        let column = Expr::of(node);
        column.is_column().then(|| column.copy())
    }
}

/// The operand with `pgseal.chosen(...)` where its values come in, if the session chooses among them; in `pgseal.each(...)`
/// if it does not, though a part of it alone looks as if.
///
/// # Safety
/// `operand` stands in `place`; NULL or a valid tree.
pub unsafe fn chosen(place: &Place, operand: *mut pg_sys::Node) -> Option<*mut pg_sys::Node> {
    // SAFETY: the caller's promise.
    unsafe {
        if operand.is_null() || pg_sys::exprType(operand).to_u32() < pg_sys::FirstNormalObjectId {
            return None;
        }
        match place.origin(operand) {
            Origin::Unbound => around(place, operand),
            Origin::Mixed => Some((CHOICES.get()?.each)(Expr::of(operand))?.node()),
            _ => None,
        }
    }
}

unsafe fn around(place: &Place, node: *mut pg_sys::Node) -> Option<*mut pg_sys::Node> {
    // SAFETY: as in `chosen`; only a copy is changed.
    unsafe {
        if let Some(whole) = whole_of(node) {
            let inner = around(place, whole)?;
            return Some(Expr::of(node).with_first_argument(Expr::of(inner)).node());
        }
        if (*node).type_ == pg_sys::NodeTag::T_CaseExpr {
            return case_around(place, node);
        }
        Some((CHOICES.get()?.chosen)(Expr::of(node))?.node())
    }
}

/// A literal in another branch is nobody's row.
unsafe fn case_around(place: &Place, node: *mut pg_sys::Node) -> Option<*mut pg_sys::Node> {
    // SAFETY: as in `around`.
    unsafe {
        let copy = Expr::of(node).copy().node().cast::<pg_sys::CaseExpr>();
        let unbound = |result| place.origin(result) == Origin::Unbound;
        if unbound((*copy).defresult.cast()) {
            (*copy).defresult = around(place, (*copy).defresult.cast())?.cast();
        }
        for branch in
            cells::<pg_sys::CaseWhen>((*copy).args).filter(|branch| unbound((**branch).result.cast()))
        {
            (*branch).result = around(place, (*branch).result.cast())?.cast();
        }
        Some(copy.cast())
    }
}

//! The hook behind `pgseal.reveal`: after parse analysis, encrypted columns of what a statement returns are
//! wrapped in `pgseal.reveal(...)`, so that they reach the client as jsonb and text.

use std::cell::Cell;
use std::ffi::{CStr, c_void};

use once_cell::sync::OnceCell;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, is_a, pg_guard, pg_sys};

use super::arguments::{reveal_in_list, reveal_in_query, revealed_whole};
use super::hook::Previous;
use super::node::Expr;
use super::plain::is_cast;
use super::{lookup, version};
use crate::pg::error::PgError;

static IS_SEALED: OnceCell<fn(Expr) -> bool> = OnceCell::new();
/// What was installed before us.
static PREVIOUS: Previous<pg_sys::post_parse_analyze_hook_type> = Previous::empty();

thread_local! {
    static LITERAL_MADE: Cell<bool> = const { Cell::new(false) };
    /// A prepared statement may have a plan that was made for CREATE TABLE AS or a function.
    static PLANNED_TO_STORE: Cell<bool> = const { Cell::new(false) };
    /// The setting comes from the role, the database or the connection, not from a SET in the session.
    static STANDING: Cell<bool> = const { Cell::new(false) };
}

/// The setting `pgseal.reveal`.
static REVEAL: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Installs the hook; from `_PG_init`. `is_sealed`: an expression is of an encrypted type of this database.
pub fn install(is_sealed: fn(Expr) -> bool) {
    IS_SEALED.get_or_init(|| is_sealed);
    // SAFETY: once per process, before any statement is analysed with it.
    unsafe {
        PREVIOUS.install(&raw mut pg_sys::post_parse_analyze_hook, after_analysis);
    }
}

/// Defines `pgseal.reveal`; from `_PG_init`.
pub fn define_setting(name: &'static CStr, short: &'static CStr, long: &'static CStr) {
    // SAFETY: the hooks do not raise but by what they return; called from _PG_init.
    unsafe {
        GucRegistry::define_bool_guc_with_hooks(
            name,
            short,
            long,
            &REVEAL,
            GucContext::Userset,
            GucFlags::default(),
            Some(check_source),
            Some(assigned),
            None,
        );
    }
}

/// The cursor through which pg_dump reads rows for --inserts.
const DUMP_CURSOR: &CStr = c"_pg_dump_cursor";

/// What clients read is revealed now. What stands for a role or connection stands for its pg_dump too, which says first of all
/// that tables are to be scanned from their beginning (src/bin/pg_dump/pg_dump.c): then it does not count.
pub fn is_on() -> bool {
    // SAFETY: a setting's value.
    REVEAL.get() && !(STANDING.get() && unsafe { !pg_sys::synchronize_seqscans })
}

/// A superuser may have it stand for a role or a database, and a client ask for it as it connects; a function has no use for
/// it, and a file would reveal to every role.
#[pg_guard]
unsafe extern "C-unwind" fn check_source(
    value: *mut bool,
    extra: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes the new value, and frees what is kept beside it; the hint is freed with the message's memory
    // context.
    unsafe {
        let kept = version::setting_memory(1).cast::<u8>();
        if kept.is_null() {
            return false;
        }
        *kept = u8::from(source != pg_sys::GucSource::PGC_S_SESSION);
        *extra = kept.cast();
        let stands = [
            pg_sys::GucSource::PGC_S_GLOBAL,
            pg_sys::GucSource::PGC_S_DATABASE,
            pg_sys::GucSource::PGC_S_USER,
            pg_sys::GucSource::PGC_S_DATABASE_USER,
            pg_sys::GucSource::PGC_S_CLIENT,
        ];
        let allowed = source == pg_sys::GucSource::PGC_S_SESSION
            || stands.contains(&source)
            || source == pg_sys::GucSource::PGC_S_TEST && pg_sys::superuser() && !makes_function();
        if !*value || allowed {
            return true;
        }
        let hint = c"SET pgseal.reveal = on; in the session that is to read plaintext, or ALTER ROLE name SET as a superuser.";
        pg_sys::GUC_check_errhint_string = pg_sys::pstrdup(hint.as_ptr());
        false
    }
}

/// CREATE or ALTER FUNCTION runs.
unsafe fn makes_function() -> bool {
    // SAFETY: the active portal outlives the call; it holds planned statements.
    unsafe {
        let portal = pg_sys::ActivePortal;
        !portal.is_null()
            && cells((*portal).stmts).any(|one: *mut pg_sys::PlannedStmt| {
                let utility = (*one).utilityStmt;
                !utility.is_null()
                    && (is_a(utility, pg_sys::NodeTag::T_CreateFunctionStmt)
                        || is_a(utility, pg_sys::NodeTag::T_AlterFunctionStmt))
            })
    }
}

/// What is cached was analysed for the other value; PostgreSQL tells a client that has seen its columns described.
unsafe extern "C-unwind" fn assigned(value: bool, extra: *mut c_void) {
    // SAFETY: NULL, or what `check_source` kept.
    STANDING.set(unsafe { extra.cast::<u8>().as_ref() }.is_some_and(|standing| *standing != 0));
    if value != REVEAL.get() {
        super::xact::reset_plans();
    }
}

/// Why text or bytes of a stored value must not be made now: the client has asked for plaintext, and what calls us hands
/// ciphertext to it.
pub fn refusal_to_show() -> Option<PgError> {
    (is_on() && shows_to_the_client()).then_some(PgError::Unrevealed)
}

/// A SELECT of the client runs; neither a function in PL/pgSQL nor logical decoding, which has a slot.
fn shows_to_the_client() -> bool {
    // SAFETY: the active portal outlives the call.
    unsafe {
        let portal = pg_sys::ActivePortal;
        !portal.is_null()
            && pg_sys::MyReplicationSlot.is_null()
            && !is_dump_cursor((*portal).name)
            && !in_spi()
            && cells((*portal).stmts).all(|one| returns_only(one))
    }
}

unsafe fn is_dump_cursor(name: *const std::ffi::c_char) -> bool {
    // SAFETY: NULL or a text that ends with NUL.
    unsafe { !name.is_null() && CStr::from_ptr(name) == DUMP_CURSOR }
}

unsafe fn returns_only(statement: *mut pg_sys::PlannedStmt) -> bool {
    // SAFETY: a portal holds planned statements.
    unsafe {
        let utility = (*statement).utilityStmt;
        if utility.is_null() {
            (*statement).commandType == pg_sys::CmdType::CMD_SELECT
        } else {
            is_a(utility, pg_sys::NodeTag::T_ExecuteStmt)
                || is_a(utility, pg_sys::NodeTag::T_FetchStmt)
                    && !is_dump_cursor((*utility.cast::<pg_sys::FetchStmt>()).portalname)
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn after_analysis(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    // SAFETY: PostgreSQL passes a finished query, which is ours to change; the previous hook has the same contract.
    unsafe {
        if let Some(previous) = PREVIOUS.next() {
            previous(state, query, jumble);
        }
        if let Some(is_sealed) = IS_SEALED.get() {
            super::collate::refuse_dropped(state, query, *is_sealed);
        }
        let shown = is_on() && is_for_the_client(state);
        super::untyped::make_plain(state, query, LITERAL_MADE.get(), shown);
        if LITERAL_MADE.take() {
            depend_on_role(query);
        }
        if shown {
            reveal_query(query);
        }
    }
}

/// A literal was sealed, most likely for the statement that is being analysed.
pub fn literal_made() {
    LITERAL_MADE.set(true);
}

/// Has PostgreSQL analyse a cached statement anew for another role, as it does below policies: its literals are sealed
/// for the role that typed them.
unsafe fn depend_on_role(query: *mut pg_sys::Query) {
    // SAFETY: a finished query; a utility statement may hold another.
    unsafe {
        (*query).hasRowSecurity = true;
        let inner = if (*query).utilityStmt.is_null() {
            std::ptr::null_mut()
        } else {
            pg_sys::UtilityContainsQuery((*query).utilityStmt)
        };
        if !inner.is_null() {
            (*inner).hasRowSecurity = true;
        }
    }
}

/// COPY or a subscription reads rows in, whose values go into the table as they come from the input function.
pub fn copies_in() -> bool {
    // SAFETY: the active portal outlives the call; the tag is checked.
    unsafe {
        if in_spi() {
            return false;
        }
        let portal = pg_sys::ActivePortal;
        pg_sys::IsLogicalWorker()
            || !portal.is_null()
                && cells((*portal).stmts).any(|one: *mut pg_sys::PlannedStmt| {
                    let utility = (*one).utilityStmt;
                    !utility.is_null()
                        && is_a(utility, pg_sys::NodeTag::T_CopyStmt)
                        && (*utility.cast::<pg_sys::CopyStmt>()).is_from
                })
    }
}

/// Not inside a function, a trigger or a statement that stores or ships what a query returns.
unsafe fn is_for_the_client(state: *mut pg_sys::ParseState) -> bool {
    // SAFETY: reads the parser's state; the active portal outlives the call.
    unsafe {
        let in_function = (*state).p_pre_columnref_hook.is_some() || (*state).p_post_columnref_hook.is_some();
        let portal = pg_sys::ActivePortal;
        // What else is analysed while a portal runs is a definition or a statement of a function.
        !in_function
            && runs_for_the_client()
            && (portal.is_null() || is_text_of(portal, (*state).p_sourcetext))
    }
}

/// What runs now, if anything, hands a query's rows to the client: neither a function nor a statement that stores them.
pub fn runs_for_the_client() -> bool {
    // SAFETY: the active portal outlives the call.
    unsafe {
        let portal = pg_sys::ActivePortal;
        // Rules add statements, none of which is a utility that stores rows.
        !in_spi() && (portal.is_null() || cells((*portal).stmts).all(|one| returns_rows(one)))
    }
}

/// A function runs statements of its own now.
pub fn in_spi() -> bool {
    // SAFETY: the name is never found, only the connection is asked for.
    unsafe { pg_sys::SPI_unregister_relation(c"".as_ptr()) != pg_sys::SPI_ERROR_UNCONNECTED }
}

unsafe fn returns_rows(statement: *mut pg_sys::PlannedStmt) -> bool {
    // SAFETY: a portal holds planned statements.
    unsafe {
        let utility = (*statement).utilityStmt;
        let allowed = [
            pg_sys::NodeTag::T_PrepareStmt,
            pg_sys::NodeTag::T_ExecuteStmt,
            pg_sys::NodeTag::T_ExplainStmt,
            pg_sys::NodeTag::T_DeclareCursorStmt,
            pg_sys::NodeTag::T_FetchStmt,
            // A rule's action may be one.
            pg_sys::NodeTag::T_NotifyStmt,
        ];
        utility.is_null()
            || allowed.iter().any(|tag| is_a(utility, *tag))
                && !explains_storing(utility)
                && !declares_dump_cursor(utility)
    }
}

/// From 18 on the query of a cursor is analysed by itself.
unsafe fn declares_dump_cursor(utility: *mut pg_sys::Node) -> bool {
    // SAFETY: the tag is checked.
    unsafe {
        is_a(utility, pg_sys::NodeTag::T_DeclareCursorStmt)
            && is_dump_cursor((*utility.cast::<pg_sys::DeclareCursorStmt>()).portalname)
    }
}

/// EXPLAIN of CREATE TABLE AS.
unsafe fn explains_storing(utility: *mut pg_sys::Node) -> bool {
    // SAFETY: the tag is checked; what is explained is a query.
    unsafe {
        is_a(utility, pg_sys::NodeTag::T_ExplainStmt) && {
            let explained = (*utility.cast::<pg_sys::ExplainStmt>()).query.cast::<pg_sys::Query>();
            let inner = (*explained).utilityStmt;
            !inner.is_null() && is_a(inner, pg_sys::NodeTag::T_CreateTableAsStmt)
        }
    }
}

/// What is planned now from this text is a statement of the client. A function's is planned while a portal runs another
/// statement, or, where its call is evaluated early, from another text.
///
/// # Safety
/// The text that the planner was called with.
pub unsafe fn made_for_the_client(text: *const std::ffi::c_char) -> bool {
    // SAFETY: the active portal outlives the call; texts are only compared by where they are.
    unsafe {
        let portal = pg_sys::ActivePortal;
        if text.is_null() || !runs_for_the_client() {
            return false;
        }
        if portal.is_null() { text == pg_sys::debug_query_string } else { is_text_of(portal, text) }
    }
}

/// Is it the text of the utility statement that the portal runs, or of the statement that this executes?
unsafe fn is_text_of(portal: pg_sys::Portal, text: *const std::ffi::c_char) -> bool {
    // SAFETY: the caller's active portal and the prepared statement outlive the call; texts are only compared by where they
    // are.
    unsafe {
        cells((*portal).stmts).all(|one: *mut pg_sys::PlannedStmt| {
            let utility = (*one).utilityStmt;
            !utility.is_null() && (text == (*portal).sourceText || text == text_of_executed(utility))
        })
    }
}

/// The text of the statement that EXECUTE names, perhaps below EXPLAIN; NULL where it is none.
unsafe fn text_of_executed(utility: *mut pg_sys::Node) -> *const std::ffi::c_char {
    // SAFETY: tags are checked before fields are read.
    unsafe {
        if is_a(utility, pg_sys::NodeTag::T_ExplainStmt) {
            let explained = (*utility.cast::<pg_sys::ExplainStmt>()).query.cast::<pg_sys::Query>();
            let inner = (*explained).utilityStmt;
            return if inner.is_null() { std::ptr::null() } else { text_of_executed(inner) };
        }
        if !is_a(utility, pg_sys::NodeTag::T_ExecuteStmt) {
            return std::ptr::null();
        }
        let prepared = pg_sys::FetchPreparedStatement((*utility.cast::<pg_sys::ExecuteStmt>()).name, false);
        if prepared.is_null() { std::ptr::null() } else { (*(*prepared).plansource).query_string }
    }
}

unsafe fn reveal_query(query: *mut pg_sys::Query) {
    // SAFETY: the command type says which fields the query uses.
    unsafe {
        match (*query).commandType {
            pg_sys::CmdType::CMD_SELECT => {
                reveal_in_query(query);
                text_of_varchar((*query).targetList);
                if !(*query).setOperations.is_null() {
                    reveal_above(query)
                } else if sorts_or_groups(query) {
                    reveal_rows(query);
                    reveal_above(query)
                } else {
                    reveal_list(query, (*query).targetList)
                }
            }
            pg_sys::CmdType::CMD_INSERT
            | pg_sys::CmdType::CMD_UPDATE
            | pg_sys::CmdType::CMD_DELETE
            | pg_sys::CmdType::CMD_MERGE => {
                reveal_in_list(query, (*query).returningList);
                text_of_varchar((*query).returningList);
                reveal_list(query, (*query).returningList);
            }
            pg_sys::CmdType::CMD_UTILITY
                if is_a((*query).utilityStmt, pg_sys::NodeTag::T_DeclareCursorStmt) =>
            {
                let cursor = (*query).utilityStmt.cast::<pg_sys::DeclareCursorStmt>();
                if !is_dump_cursor((*cursor).portalname) {
                    reveal_query((*cursor).query.cast());
                }
            }
            pg_sys::CmdType::CMD_UTILITY if stores_revealed((*query).utilityStmt) => {
                PgError::NotRevealed.raise();
            }
            _ => (),
        }
    }
}

/// What is encrypted_text or varchar arrives as text, as it would from a text column: of the two the parser can take varchar only.
unsafe fn text_of_varchar(list: *mut pg_sys::List) {
    // SAFETY: as in `entries`; tags are checked before fields are read.
    unsafe {
        for entry in entries(list).filter(|entry| !(**entry).resjunk && (**entry).ressortgroupref == 0) {
            let value = (*entry).expr;
            let node = value.cast::<pg_sys::Node>();
            let values: Vec<*mut pg_sys::Node> = match (*node).type_ {
                pg_sys::NodeTag::T_CoalesceExpr => {
                    cells((*node.cast::<pg_sys::CoalesceExpr>()).args).collect()
                }
                pg_sys::NodeTag::T_MinMaxExpr => cells((*node.cast::<pg_sys::MinMaxExpr>()).args).collect(),
                pg_sys::NodeTag::T_CaseExpr => {
                    let case = node.cast::<pg_sys::CaseExpr>();
                    let results = cells::<pg_sys::CaseWhen>((*case).args).map(|when| (*when).result.cast());
                    results.chain([(*case).defresult.cast()]).collect()
                }
                _ => continue,
            };
            if pg_sys::exprType(node) == pg_sys::VARCHAROID && values.iter().any(|one| is_cast(*one, false)) {
                let (of, collation) = (pg_sys::TEXTOID, pg_sys::exprCollation(node));
                let form = pg_sys::CoercionForm::COERCE_IMPLICIT_CAST;
                (*entry).expr = pg_sys::makeRelabelType(value, of, -1, collation, form).cast();
            }
        }
    }
}

/// CREATE TABLE AS EXECUTE, perhaps below EXPLAIN, of a statement that was prepared with the setting on: its rows
/// would be stored as plaintext.
unsafe fn stores_revealed(utility: *mut pg_sys::Node) -> bool {
    // SAFETY: tags are checked before fields are read; the statement's cached queries are only looked at.
    unsafe {
        if is_a(utility, pg_sys::NodeTag::T_ExplainStmt) {
            let explained = (*utility.cast::<pg_sys::ExplainStmt>()).query.cast::<pg_sys::Query>();
            return !(*explained).utilityStmt.is_null() && stores_revealed((*explained).utilityStmt);
        }
        if !is_a(utility, pg_sys::NodeTag::T_CreateTableAsStmt) {
            return false;
        }
        let inner = (*utility.cast::<pg_sys::CreateTableAsStmt>()).query.cast::<pg_sys::Query>();
        let execute = (*inner).utilityStmt;
        if execute.is_null() || !is_a(execute, pg_sys::NodeTag::T_ExecuteStmt) {
            return false;
        }
        let name = (*execute.cast::<pg_sys::ExecuteStmt>()).name;
        let prepared = pg_sys::FetchPreparedStatement(name, false);
        if prepared.is_null() {
            return false;
        }
        cells::<pg_sys::Node>((*(*prepared).plansource).query_list)
            .any(|query| reveals(query, std::ptr::null_mut()))
    }
}

/// Before a utility statement runs: CREATE TABLE AS EXECUTE has its statement planned anew, as one whose rows are stored, and
/// so does the next EXECUTE, as one for the client.
///
/// # Safety
/// A utility statement.
pub unsafe fn before_utility(utility: *mut pg_sys::Node) {
    // SAFETY: tags are checked before fields are read.
    unsafe {
        let stores = is_a(utility, pg_sys::NodeTag::T_CreateTableAsStmt) && {
            let query = (*utility.cast::<pg_sys::CreateTableAsStmt>()).query.cast::<pg_sys::Query>();
            is_a(query.cast(), pg_sys::NodeTag::T_Query)
                && !(*query).utilityStmt.is_null()
                && is_a((*query).utilityStmt, pg_sys::NodeTag::T_ExecuteStmt)
        };
        let executes = is_a(utility, pg_sys::NodeTag::T_ExecuteStmt);
        let inside = executes && in_spi();
        if stores || executes && !inside && PLANNED_TO_STORE.take() {
            super::xact::reset_plans();
        }
        if stores || inside {
            PLANNED_TO_STORE.set(true);
        }
    }
}

/// Is something revealed anywhere in it?
#[pg_guard]
unsafe extern "C-unwind" fn reveals(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: a walker gets each node of a valid tree, or NULL.
    unsafe {
        if node.is_null() {
            return false;
        }
        if is_a(node, pg_sys::NodeTag::T_Query) {
            return pg_sys::query_tree_walker(node.cast(), Some(reveals), context, 0);
        }
        is_reveal_call(node) || pg_sys::expression_tree_walker(node, Some(reveals), context)
    }
}

unsafe fn is_reveal_call(expression: *mut pg_sys::Node) -> bool {
    // SAFETY: the tag is checked; a function that is gone has no name.
    unsafe {
        if !is_a(expression, pg_sys::NodeTag::T_FuncExpr) {
            return false;
        }
        let function = (*expression.cast::<pg_sys::FuncExpr>()).funcid;
        let name = pg_sys::get_func_name(function);
        !name.is_null()
            && CStr::from_ptr(name) == c"reveal"
            && pg_sys::get_func_namespace(function) == lookup::schema()
    }
}

/// The elements of a list, which all are of one kind.
///
/// # Safety
/// Each is a pointer to a `T`.
pub unsafe fn cells<T>(list: *mut pg_sys::List) -> impl Iterator<Item = *mut T> {
    // SAFETY: NULL is the empty list.
    let length = unsafe { list.as_ref() }.map_or(0, |list| list.length as usize);
    // SAFETY: a pointer list holds `length` cells.
    (0..length).map(move |at| unsafe { (*(*list).elements.add(at)).ptr_value.cast() })
}

unsafe fn entries(list: *mut pg_sys::List) -> impl Iterator<Item = *mut pg_sys::TargetEntry> {
    // SAFETY: a target list holds target entries.
    unsafe { cells(list) }
}

/// The planner computes what such a query returns before it sorts, and refers to what it groups by: that stays sealed, and
/// no plaintext of it goes into a temporary file.
unsafe fn sorts_or_groups(query: *mut pg_sys::Query) -> bool {
    // SAFETY: a finished query, whose lists are only looked at.
    unsafe {
        let lists = [
            (*query).sortClause,
            (*query).groupClause,
            (*query).groupingSets,
            (*query).distinctClause,
            (*query).windowClause,
        ];
        lists.iter().any(|list| !list.is_null())
    }
}

/// Rows and arrays are revealed where they are made; but for one that is grouped by, whose columns are, too.
unsafe fn reveal_rows(query: *mut pg_sys::Query) {
    // SAFETY: as in `entries`.
    unsafe {
        for entry in entries((*query).targetList) {
            if (*entry).resjunk || ((*entry).ressortgroupref != 0 && !(*query).groupClause.is_null()) {
                continue;
            }
            if let Some(shown) = revealed_whole(query, (*entry).expr.cast()) {
                (*entry).expr = shown;
            }
        }
    }
}

unsafe fn reveal_list(query: *mut pg_sys::Query, list: *mut pg_sys::List) {
    // SAFETY: as in `entries`. Nothing sorts or groups here.
    unsafe {
        for entry in entries(list) {
            if (*entry).resjunk {
                continue;
            }
            let expression = (*entry).expr.cast();
            if let Some(shown) = revealed(expression).or_else(|| revealed_whole(query, expression)) {
                (*entry).expr = shown;
            }
        }
    }
}

/// `pgseal.reveal(expression)`, where there is such a function for its type.
///
/// # Safety
/// An expression of a finished query.
pub unsafe fn revealed(expression: *mut pg_sys::Node) -> Option<*mut pg_sys::Expr> {
    // SAFETY: the caller vouches for the expression.
    unsafe { wrapped(c"reveal", expression) }
}

/// The call of a function of ours on an expression, where there is one for its type.
///
/// # Safety
/// An expression of a finished query.
pub unsafe fn wrapped(name: &'static CStr, expression: *mut pg_sys::Node) -> Option<*mut pg_sys::Expr> {
    // SAFETY: looks a function up by name and type and builds its call.
    unsafe {
        let own_type = pg_sys::exprType(expression);
        if own_type.to_u32() < pg_sys::FirstNormalObjectId {
            return None;
        }
        let base = pg_sys::getBaseType(own_type);
        let function = lookup::function(name, &[base])?;
        let argument = if own_type == base {
            expression.cast::<pg_sys::Expr>()
        } else {
            pg_sys::makeRelabelType(
                expression.cast(),
                base,
                -1,
                pg_sys::InvalidOid,
                pg_sys::CoercionForm::COERCE_IMPLICIT_CAST,
            )
            .cast()
        };
        let result = pg_sys::get_func_rettype(function);
        let call = pg_sys::makeFuncExpr(
            function,
            result,
            pg_sys::lappend(std::ptr::null_mut(), argument.cast()),
            pg_sys::get_typcollation(result),
            pg_sys::InvalidOid,
            pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
        );
        Some(call.cast())
    }
}

/// The whole goes below a new SELECT, which reveals. Of a set operation the planner does not evaluate the target list.
unsafe fn reveal_above(query: *mut pg_sys::Query) {
    // SAFETY: the caller keeps its pointer to `query`, so that the new outer query takes its place.
    unsafe {
        if !entries((*query).targetList).any(|entry| revealed((*entry).expr.cast()).is_some()) {
            return;
        }
        let outer = above(query);
        reveal_list(outer, (*outer).targetList);
        std::ptr::copy_nonoverlapping(outer, query, 1);
    }
}

/// Reveals what a subquery gives, which may refer to the queries around it.
///
/// # Safety
/// A finished SELECT, which is the caller's to change.
pub unsafe fn reveal_subquery(query: *mut pg_sys::Query) {
    // SAFETY: the caller vouches for the query.
    unsafe {
        if (*query).setOperations.is_null() && !sorts_or_groups(query) {
            reveal_list(query, (*query).targetList);
        } else {
            reveal_above(query);
        }
    }
}

/// A new `SELECT * FROM (query)`, in which `query` has been copied.
///
/// # Safety
/// A finished SELECT.
pub unsafe fn above(query: *mut pg_sys::Query) -> *mut pg_sys::Query {
    // SAFETY: nodes are made as the parser makes them for SELECT ... FROM (query).
    unsafe {
        let inner = make::<pg_sys::Query>(pg_sys::NodeTag::T_Query);
        std::ptr::copy_nonoverlapping(query, inner, 1);
        // What it finds around it is one further out now.
        pg_sys::IncrementVarSublevelsUp(inner.cast(), 1, 1);
        let (mut names, mut columns): (*mut pg_sys::List, *mut pg_sys::List) =
            (std::ptr::null_mut(), std::ptr::null_mut());
        for entry in entries((*inner).targetList).filter(|entry| !(**entry).resjunk) {
            let column = pg_sys::makeVarFromTargetEntry(1, entry);
            let shown = pg_sys::makeTargetEntry(column.cast(), (*entry).resno, (*entry).resname, false);
            (*shown).resorigtbl = (*entry).resorigtbl;
            (*shown).resorigcol = (*entry).resorigcol;
            columns = pg_sys::lappend(columns, shown.cast());
            let name = if (*entry).resname.is_null() { c"".as_ptr() } else { (*entry).resname };
            names = pg_sys::lappend(names, pg_sys::makeString(pg_sys::pstrdup(name)).cast());
        }
        let table = make::<pg_sys::RangeTblEntry>(pg_sys::NodeTag::T_RangeTblEntry);
        (*table).rtekind = pg_sys::RTEKind::RTE_SUBQUERY;
        (*table).subquery = inner;
        (*table).eref = pg_sys::makeAlias(c"unrevealed".as_ptr(), names);
        (*table).inFromCl = true;
        let place = make::<pg_sys::RangeTblRef>(pg_sys::NodeTag::T_RangeTblRef);
        (*place).rtindex = 1;

        let outer = make::<pg_sys::Query>(pg_sys::NodeTag::T_Query);
        (*outer).commandType = pg_sys::CmdType::CMD_SELECT;
        (*outer).querySource = (*inner).querySource;
        (*outer).queryId = (*inner).queryId;
        (*outer).canSetTag = (*inner).canSetTag;
        (*outer).stmt_location = (*inner).stmt_location;
        (*outer).stmt_len = (*inner).stmt_len;
        (*outer).rtable = pg_sys::lappend(std::ptr::null_mut(), table.cast());
        let from = pg_sys::lappend(std::ptr::null_mut(), place.cast());
        (*outer).jointree = pg_sys::makeFromExpr(from, std::ptr::null_mut());
        (*outer).targetList = columns;
        move_writing_ctes(outer, inner);
        outer
    }
}

/// WITH that writes belongs to the outermost query: below it, defaults, rules and triggers would be left out.
unsafe fn move_writing_ctes(outer: *mut pg_sys::Query, inner: *mut pg_sys::Query) {
    // SAFETY: both are whole queries, `inner` the only table of `outer`. What refers to the list from anywhere in `inner`
    // now finds it one level further up.
    unsafe {
        if !(*inner).hasModifyingCTE {
            return;
        }
        (*outer).cteList = std::mem::replace(&mut (*inner).cteList, std::ptr::null_mut());
        (*outer).hasModifyingCTE = std::mem::take(&mut (*inner).hasModifyingCTE);
        (*outer).hasRecursive = std::mem::take(&mut (*inner).hasRecursive);
        let mut depth: u32 = 0;
        let flags = pg_sys::QTW_EXAMINE_RTES_BEFORE as i32;
        pg_sys::query_tree_walker(inner, Some(find_further_up), (&raw mut depth).cast(), flags);
    }
}

/// References to the WITH of the outermost query, so many levels up, find it in the one above.
#[pg_guard]
unsafe extern "C-unwind" fn find_further_up(node: *mut pg_sys::Node, context: *mut std::ffi::c_void) -> bool {
    // SAFETY: a walker gets each node of a valid tree, or NULL, and the count that it began with.
    unsafe {
        if node.is_null() {
            return false;
        }
        let depth = context.cast::<u32>();
        if is_a(node, pg_sys::NodeTag::T_RangeTblEntry) {
            let table = node.cast::<pg_sys::RangeTblEntry>();
            if (*table).rtekind == pg_sys::RTEKind::RTE_CTE && (*table).ctelevelsup >= *depth {
                (*table).ctelevelsup += 1;
            }
            return false;
        }
        if is_a(node, pg_sys::NodeTag::T_Query) {
            *depth += 1;
            let flags = pg_sys::QTW_EXAMINE_RTES_BEFORE as i32;
            pg_sys::query_tree_walker(node.cast(), Some(find_further_up), context, flags);
            *depth -= 1;
            return false;
        }
        pg_sys::expression_tree_walker(node, Some(find_further_up), context)
    }
}

/// A new node.
///
/// # Safety
/// `T` is the node that the tag names.
pub unsafe fn make<T>(tag: pg_sys::NodeTag) -> *mut T {
    // SAFETY: a node is zeroed memory that begins with its tag.
    unsafe {
        let node = pg_sys::palloc0(size_of::<T>()).cast::<T>();
        (*node.cast::<pg_sys::Node>()).type_ = tag;
        node
    }
}

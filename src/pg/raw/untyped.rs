//! Literals and untyped parameters beside an encrypted value: the parser gives them its type, this makes them text, jsonb or
//! vector once it is done. So drivers are told the plain type of a parameter, and a literal needs no keyring.
//!
//! Cached statements are analysed anew with the types that parameters have got here: each replacement is what the parser
//! would make with these.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, c_void};

use once_cell::sync::OnceCell;
use pgrx::{is_a, pg_guard, pg_sys};

use super::datum::{self, Varlena};
use super::node::Expr;
use super::reveal::{cells, make};
use super::set_operation::type_of;
use super::{array, definition, lookup, unbound};
use crate::core::modifier;
use crate::core::sql_literal::is_cast;
use crate::pg::error::PgError;

/// What knows literals.
#[derive(Clone, Copy)]
pub struct Literals {
    /// The plaintext of a literal of this session, as a datum of the plain type.
    pub plain: fn(pg_sys::Datum) -> Result<Option<Varlena>, PgError>,
    /// A literal without a keyring, sealed for a column of this type and modifier; `None` for any other value.
    pub bound: fn(pg_sys::Datum, pg_sys::Oid, i32) -> Result<Option<Varlena>, PgError>,
    /// Refuses a value of another type that holds a literal without a keyring.
    pub refuse_inside: fn(pg_sys::Datum) -> Result<(), PgError>,
}

/// `jsonb @@ jsonpath` (catalog/pg_operator.dat).
const JSONB_PATH_MATCH: pg_sys::Oid = pg_sys::Oid::from_u32(4013);

static LITERALS: OnceCell<Literals> = OnceCell::new();

thread_local! {
    static UNBOUND: Cell<bool> = const { Cell::new(false) };
}

/// From `_PG_init`.
pub fn install(literals: Literals) {
    LITERALS.get_or_init(|| literals);
}

/// A literal was sealed without a keyring, most likely for the statement that is being analysed.
pub fn literal_unbound() {
    UNBOUND.set(true);
}

/// What parse_param.c keeps of parameters whose types it finds out (its VarParamState).
#[repr(C)]
struct Untyped {
    types: *mut *mut pg_sys::Oid,
    count: *mut i32,
}

/// Where a parameter stands.
#[derive(Default)]
struct Seen {
    nodes: BTreeSet<*mut pg_sys::Param>,
    /// Those that can become plain.
    fit: BTreeSet<*mut pg_sys::Param>,
}

struct Walk {
    literals: Literals,
    /// The statement's text, where its parameters have no types of their own.
    text: Option<Vec<u8>>,
    /// Parameters that are stored become plain as well.
    stored: bool,
    seen: BTreeMap<i32, Seen>,
    /// Parameters that have become plain, once that is decided.
    chosen: Option<BTreeSet<i32>>,
}

/// Makes plain what can be, and gives a keyring to the literals that are left without one. `literals`: some may have been
/// sealed for this statement; `stored`: parameters that are stored are described as plain, too.
///
/// # Safety
/// A finished query, which is the caller's to change, and the state that it was analysed with.
pub unsafe fn make_plain(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    literals: bool,
    stored: bool,
) {
    let Some(known) = LITERALS.get() else { return };
    let unbound = UNBOUND.take();
    if definition::is_defining() {
        return;
    }
    // SAFETY: a finished query; its state is what PostgreSQL made for it.
    unsafe {
        let untyped = untyped(state).filter(|untyped| has_encrypted(untyped));
        if !literals && !unbound && untyped.is_none() {
            return;
        }
        let kept = is_kept(query);
        let query = if (*query).utilityStmt.is_null() {
            query
        } else {
            pg_sys::UtilityContainsQuery((*query).utilityStmt)
        };
        if query.is_null() {
            return;
        }
        if !kept {
            let text = untyped.map(|_| CStr::from_ptr((*state).p_sourcetext).to_bytes().to_vec());
            let (seen, chosen) = (BTreeMap::new(), None);
            let mut walk = Walk { literals: *known, text, stored, seen, chosen };
            if let Some(untyped) = untyped {
                visit(query.cast(), (&raw mut walk).cast());
                walk.choose(untyped);
            }
            walk.chosen.get_or_insert_default();
            visit(query.cast(), (&raw mut walk).cast());
        }
        if unbound {
            let mut binding = Binding { literals: *known, kept };
            bind(query.cast(), (&raw mut binding).cast());
        }
    }
}

/// The parameters of a statement that came without their types.
unsafe fn untyped(state: *mut pg_sys::ParseState) -> Option<*mut Untyped> {
    // SAFETY: nobody but setup_parse_variable_parameters sets this hook, and with it its own state.
    unsafe {
        let found = (*state).p_coerce_param_hook.is_some()
            && (*state).p_pre_columnref_hook.is_none()
            && (*state).p_post_columnref_hook.is_none();
        let known = (*state).p_ref_hook_state.cast::<Untyped>();
        (found && !known.is_null() && !(*state).p_sourcetext.is_null()).then_some(known)
    }
}

unsafe fn has_encrypted(untyped: &*mut Untyped) -> bool {
    // SAFETY: so many types as it says.
    unsafe {
        let types = *(**untyped).types;
        (0..*(**untyped).count as usize).any(|at| plain_or_array(*types.add(at)).is_some())
    }
}

/// CREATE MATERIALIZED VIEW, perhaps below EXPLAIN, keeps the query.
unsafe fn is_kept(query: *mut pg_sys::Query) -> bool {
    // SAFETY: tags are checked before fields are read.
    unsafe {
        let utility = (*query).utilityStmt;
        if utility.is_null() {
            return false;
        }
        if is_a(utility, pg_sys::NodeTag::T_ExplainStmt) {
            return is_kept((*utility.cast::<pg_sys::ExplainStmt>()).query.cast());
        }
        is_a(utility, pg_sys::NodeTag::T_CreateTableAsStmt)
            && (*utility.cast::<pg_sys::CreateTableAsStmt>()).objtype == pg_sys::ObjectType::OBJECT_MATVIEW
    }
}

/// text, jsonb or vector for the encrypted type of it.
unsafe fn plain_of(sealed: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: syscache lookups.
    unsafe {
        if !unbound::is_encrypted(sealed) {
            return None;
        }
        Some(pg_sys::get_func_rettype(lookup::function(c"reveal", &[sealed])?))
    }
}

/// The same of arrays; jsonpath for a filter, which nobody writes.
unsafe fn plain_or_array(of: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: syscache lookups.
    unsafe {
        if of.to_u32() < pg_sys::FirstNormalObjectId {
            return None;
        }
        if unbound::is_filter(of) {
            return Some(pg_sys::JSONPATHOID);
        }
        plain_of(of).or_else(|| {
            let array = pg_sys::get_array_type(plain_of(pg_sys::get_element_type(of))?);
            (array != pg_sys::InvalidOid).then_some(array)
        })
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: PostgreSQL's walkers pass each node of a valid tree and our own walk. Nodes are changed in place, before what
    // is below them is visited.
    unsafe {
        if node.is_null() {
            return false;
        }
        let walk = &mut *context.cast::<Walk>();
        match (*node).type_ {
            pg_sys::NodeTag::T_Query => {
                walk.stored_by(node.cast());
                walk.beside(&one_of(node));
                return pg_sys::query_tree_walker(node.cast(), Some(visit), context, 0);
            }
            pg_sys::NodeTag::T_OpExpr | pg_sys::NodeTag::T_DistinctExpr | pg_sys::NodeTag::T_NullIfExpr => {
                let call = &mut *node.cast::<pg_sys::OpExpr>();
                walk.path_match(call);
                if let Some(swapped) = walk.operator(call.opno, call.args, false) {
                    call.opno = swapped;
                    call.opfuncid = pg_sys::get_opcode(swapped);
                    call.inputcollid = collation(swapped);
                }
            }
            pg_sys::NodeTag::T_ScalarArrayOpExpr => {
                let call = &mut *node.cast::<pg_sys::ScalarArrayOpExpr>();
                if let Some(swapped) = walk.operator(call.opno, call.args, true) {
                    call.opno = swapped;
                    call.opfuncid = pg_sys::get_opcode(swapped);
                    call.inputcollid = collation(swapped);
                }
            }
            pg_sys::NodeTag::T_CoalesceExpr
            | pg_sys::NodeTag::T_CaseExpr
            | pg_sys::NodeTag::T_MinMaxExpr
            | pg_sys::NodeTag::T_ArrayExpr => walk.beside(&one_of(node)),
            pg_sys::NodeTag::T_FuncExpr => walk.coerced(node.cast()),
            pg_sys::NodeTag::T_ArrayCoerceExpr => walk.coerced_array(node.cast()),
            pg_sys::NodeTag::T_Param if walk.chosen.is_none() => walk.see(node.cast()),
            _ => (),
        }
        pg_sys::expression_tree_walker(node, Some(visit), context)
    }
}

/// Where the values of one encrypted type stand of which an expression or a set operation gives one, by columns.
unsafe fn one_of(node: *mut pg_sys::Node) -> Vec<Vec<*mut *mut pg_sys::Node>> {
    // SAFETY: tags are checked before fields are read.
    unsafe {
        let of = |of: pg_sys::Oid, values: Vec<*mut *mut pg_sys::Node>| {
            if unbound::is_encrypted(pg_sys::getBaseType(of)) { vec![values] } else { Vec::new() }
        };
        match (*node).type_ {
            pg_sys::NodeTag::T_CoalesceExpr => {
                let all = node.cast::<pg_sys::CoalesceExpr>();
                of((*all).coalescetype, places((*all).args))
            }
            pg_sys::NodeTag::T_MinMaxExpr => {
                let all = node.cast::<pg_sys::MinMaxExpr>();
                of((*all).minmaxtype, places((*all).args))
            }
            pg_sys::NodeTag::T_ArrayExpr => {
                let all = node.cast::<pg_sys::ArrayExpr>();
                of((*all).element_typeid, places((*all).elements))
            }
            pg_sys::NodeTag::T_CaseExpr => {
                let all = node.cast::<pg_sys::CaseExpr>();
                let results =
                    cells::<pg_sys::CaseWhen>((*all).args).map(|when| (&raw mut (*when).result).cast());
                of((*all).casetype, results.chain([(&raw mut (*all).defresult).cast()]).collect())
            }
            pg_sys::NodeTag::T_Query => branches(node.cast()),
            _ => Vec::new(),
        }
    }
}

unsafe fn places(list: *mut pg_sys::List) -> Vec<*mut *mut pg_sys::Node> {
    // SAFETY: a pointer list holds `length` cells.
    unsafe {
        let length = list.as_ref().map_or(0, |list| list.length as usize);
        (0..length).map(|at| (&raw mut (*(*list).elements.add(at)).ptr_value).cast()).collect()
    }
}

/// The encrypted columns of UNION, INTERSECT and EXCEPT.
unsafe fn branches(query: *mut pg_sys::Query) -> Vec<Vec<*mut *mut pg_sys::Node>> {
    // SAFETY: the leaves of a set operation are subqueries of its query, with an entry for each column.
    unsafe {
        let whole = (*query).setOperations.cast::<pg_sys::SetOperationStmt>();
        if whole.is_null() {
            return Vec::new();
        }
        let columns = 1..=(*(*whole).colTypes).length;
        let sealed = columns.filter(|column| {
            let of = type_of(whole, *column);
            unbound::is_encrypted(pg_sys::getBaseType(of))
        });
        let of_column = |column: i32| {
            let leaves = cells::<pg_sys::RangeTblEntry>((*query).rtable)
                .filter(|table| !(**table).subquery.is_null())
                .flat_map(|table| cells::<pg_sys::TargetEntry>((*(*table).subquery).targetList));
            let own = leaves.filter(|entry| !(**entry).resjunk && i32::from((**entry).resno) == column);
            own.map(|entry| (&raw mut (*entry).expr).cast()).collect()
        };
        sealed.map(of_column).collect()
    }
}

/// The modifier of the first of them that names a keyring.
unsafe fn common_modifier(values: &[*mut *mut pg_sys::Node]) -> i32 {
    // SAFETY: places in a valid tree; the last of a CASE may be empty.
    unsafe {
        let mut known =
            values.iter().filter(|value| !(***value).is_null()).map(|value| Expr::of(**value).typmod());
        known.find(|typmod| modifier::is_bound(*typmod)).unwrap_or(-1)
    }
}

/// The collation that an operator is called with, all of whose operands are of the default one.
unsafe fn collation(operator: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: syscache lookups of an operator that exists.
    unsafe {
        let (mut left, mut right) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
        pg_sys::op_input_types(operator, &mut left, &mut right);
        let left = pg_sys::get_typcollation(left);
        if left == pg_sys::InvalidOid { pg_sys::get_typcollation(right) } else { left }
    }
}

impl Walk {
    unsafe fn see(&mut self, param: *mut pg_sys::Param) {
        // SAFETY: a parameter of the query.
        unsafe {
            if (*param).paramkind == pg_sys::ParamKind::PARAM_EXTERN {
                self.seen.entry((*param).paramid).or_default().nodes.insert(param);
            }
        }
    }

    fn fits(&mut self, params: Vec<*mut pg_sys::Param>) {
        for param in params {
            // SAFETY: a parameter of the query.
            let id = unsafe { (*param).paramid };
            self.seen.entry(id).or_default().fit.insert(param);
        }
    }

    /// Parameters that can become plain wherever they stand do.
    unsafe fn choose(&mut self, untyped: *mut Untyped) {
        let mut chosen = BTreeSet::new();
        // SAFETY: the types are of parameters 1 to `count`; nodes are of the query.
        unsafe {
            for (id, seen) in &self.seen {
                let known = (1..=*(*untyped).count).contains(id);
                if !known || seen.nodes.is_empty() || !seen.nodes.is_subset(&seen.fit) {
                    continue;
                }
                let of = (*(*untyped).types).add(*id as usize - 1);
                let Some(plain) = plain_or_array(*of) else { continue };
                *of = plain;
                for node in &seen.nodes {
                    (**node).paramtype = plain;
                    (**node).paramcollid = pg_sys::get_typcollation(plain);
                }
                chosen.insert(*id);
            }
        }
        self.chosen = Some(chosen);
    }

    /// Parameters beside encrypted values, of which one is taken, become plain ones that are sealed as those are.
    unsafe fn beside(&mut self, columns: &[Vec<*mut *mut pg_sys::Node>]) {
        if !self.stored {
            return;
        }
        // SAFETY: places in the query.
        unsafe {
            for values in columns {
                let typmod = common_modifier(values);
                for value in values.iter().filter(|value| !(***value).is_null()) {
                    if let Some(sealed) = self.sealed(**value, typmod) {
                        **value = sealed.cast();
                    }
                }
            }
        }
    }

    /// `document @@ 'path'`, which the parser takes for a filter, is `document::jsonb @@ 'path'::jsonpath`, by the cast that
    /// nobody has written.
    unsafe fn path_match(&mut self, call: &mut pg_sys::OpExpr) {
        // SAFETY: an operator's call; tags are checked before fields are read.
        unsafe {
            let mut arguments = cells::<pg_sys::Node>(call.args);
            let (Some(document), Some(path)) = (arguments.next(), arguments.next()) else { return };
            if call.opno.to_u32() < pg_sys::FirstNormalObjectId {
                return;
            }
            let filter = match (*path).type_ {
                pg_sys::NodeTag::T_Param => true,
                _ => unbound::is_filter(pg_sys::exprType(path)),
            };
            if !filter || !is_own(call.opno, c"matches") {
                return;
            }
            let path = match (*path).type_ {
                pg_sys::NodeTag::T_Param => {
                    let mut params = Vec::new();
                    let found = self.parameter(path.cast(), &mut params);
                    self.fits(params);
                    found.filter(|_| self.chosen.is_some())
                }
                pg_sys::NodeTag::T_Const => self.path(path.cast()),
                _ => None,
            };
            let Some(path) = path else { return };
            let Some(document) = unbound::implied(document, pg_sys::JSONBOID) else { return };
            let both = pg_sys::lappend(std::ptr::null_mut(), document.cast());
            call.args = pg_sys::lappend(both, path.cast());
            call.opno = JSONB_PATH_MATCH;
            call.opfuncid = pg_sys::get_opcode(JSONB_PATH_MATCH);
        }
    }

    unsafe fn path(&self, literal: *mut pg_sys::Const) -> Option<*mut pg_sys::Node> {
        // SAFETY: a constant of the type of filters, which is NULL or was made by its input function.
        unsafe {
            let of = pg_sys::JSONPATHOID;
            if (*literal).constisnull {
                return Some(pg_sys::makeNullConst(of, -1, pg_sys::InvalidOid).cast());
            }
            let text = (self.literals.plain)((*literal).constvalue).unwrap_or_else(|error| error.raise())?;
            let text = std::ffi::CString::new(text.bytes()).ok()?;
            let path = datum::from_text(&text, of);
            let made = pg_sys::makeConst(of, -1, pg_sys::InvalidOid, -1, path, false, false);
            (*made).location = (*literal).location;
            Some(made.cast())
        }
    }

    /// The operator between the same value and a plain one that takes the place of `operator`, whose operand is made
    /// plain in `arguments`; `None`, and nothing changed, where there is none or that is still to be decided.
    unsafe fn operator(
        &mut self,
        operator: pg_sys::Oid,
        arguments: *mut pg_sys::List,
        listed: bool,
    ) -> Option<pg_sys::Oid> {
        if operator.to_u32() < pg_sys::FirstNormalObjectId {
            return None;
        }
        // SAFETY: the list holds an operator's operands.
        unsafe {
            if cells::<pg_sys::Node>(arguments).count() != 2 {
                return None;
            }
            for side in [1, 0] {
                let Some((swapped, plain)) = plain_operator(operator, side) else { continue };
                let cell = (*arguments).elements.add(side);
                let mut params = Vec::new();
                let operand = (*cell).ptr_value.cast();
                let Some(made) = self.operand(operand, plain, listed && side == 1, &mut params) else {
                    continue;
                };
                if self.chosen.is_none() {
                    self.fits(params);
                    return None;
                }
                (*cell).ptr_value = made.cast();
                return Some(swapped);
            }
            None
        }
    }

    /// A literal, a parameter or a list of them as one of type `plain`.
    unsafe fn operand(
        &self,
        node: *mut pg_sys::Node,
        plain: pg_sys::Oid,
        listed: bool,
        params: &mut Vec<*mut pg_sys::Param>,
    ) -> Option<*mut pg_sys::Node> {
        // SAFETY: tags are checked before fields are read.
        unsafe {
            match (*node).type_ {
                pg_sys::NodeTag::T_Param => self.parameter(node.cast(), params),
                pg_sys::NodeTag::T_Const => self.literal(node.cast(), plain, listed),
                pg_sys::NodeTag::T_ArrayExpr if listed => {
                    let list = node.cast::<pg_sys::ArrayExpr>();
                    if (*list).multidims {
                        return None;
                    }
                    let mut elements = std::ptr::null_mut();
                    for element in cells::<pg_sys::Node>((*list).elements) {
                        let made = self.operand(element, plain, false, params)?;
                        elements = pg_sys::lappend(elements, made.cast());
                    }
                    let made = make::<pg_sys::ArrayExpr>(pg_sys::NodeTag::T_ArrayExpr);
                    std::ptr::copy_nonoverlapping(list, made, 1);
                    (*made).array_typeid = pg_sys::get_array_type(plain);
                    (*made).array_collid = pg_sys::get_typcollation(plain);
                    (*made).element_typeid = plain;
                    (*made).elements = elements;
                    Some(made.cast())
                }
                _ => None,
            }
        }
    }

    unsafe fn parameter(
        &self,
        param: *mut pg_sys::Param,
        params: &mut Vec<*mut pg_sys::Param>,
    ) -> Option<*mut pg_sys::Node> {
        // SAFETY: a parameter of the query.
        unsafe {
            if (*param).paramkind != pg_sys::ParamKind::PARAM_EXTERN {
                return None;
            }
            match &self.chosen {
                Some(chosen) => chosen.contains(&(*param).paramid).then_some(param.cast()),
                None => {
                    plain_or_array((*param).paramtype)?;
                    let place = usize::try_from((*param).location).ok()?;
                    if is_cast(self.text.as_deref()?, place) {
                        return None;
                    }
                    params.push(param);
                    Some(param.cast())
                }
            }
        }
    }

    unsafe fn literal(
        &self,
        literal: *mut pg_sys::Const,
        plain: pg_sys::Oid,
        listed: bool,
    ) -> Option<*mut pg_sys::Node> {
        // SAFETY: a constant of an encrypted type, or an array of one, as the operator takes it.
        unsafe {
            let of = if listed { pg_sys::get_array_type(plain) } else { plain };
            if of == pg_sys::InvalidOid || plain_or_array((*literal).consttype) != Some(of) {
                return None;
            }
            if (*literal).constisnull {
                return Some(pg_sys::makeNullConst(of, -1, pg_sys::get_typcollation(of)).cast());
            }
            let value = if listed {
                self.literals_in(literal, plain)?
            } else {
                (self.literals.plain)((*literal).constvalue).unwrap_or_else(|error| error.raise())?
            };
            let collation = pg_sys::get_typcollation(of);
            let made = pg_sys::makeConst(of, -1, collation, -1, value.datum(), false, false);
            (*made).location = (*literal).location;
            Some(made.cast())
        }
    }

    /// A list of literals that was written as one, `'{a,b}'`.
    unsafe fn literals_in(&self, list: *mut pg_sys::Const, plain: pg_sys::Oid) -> Option<Varlena> {
        // SAFETY: an array of an encrypted type.
        unsafe {
            let of = pg_sys::get_element_type((*list).consttype);
            let mut made = Vec::new();
            for element in array::list((*list).constvalue, of)? {
                let element = match element {
                    Some(literal) => {
                        let plain = (self.literals.plain)(literal.datum());
                        Some(plain.unwrap_or_else(|error| error.raise())?.bytes().to_vec())
                    }
                    None => None,
                };
                made.push(element);
            }
            Some(array::of_values(&made, plain))
        }
    }

    /// `coerce($1, keyring, false)`, a parameter on its way into a column, becomes `seal($1, keyring, false)`.
    unsafe fn coerced(&mut self, call: *mut pg_sys::FuncExpr) {
        // SAFETY: the function is looked at before its arguments are.
        unsafe {
            if !self.stored || !is_coercion(call) {
                return;
            }
            let value = (*(*(*call).args).elements).ptr_value.cast::<pg_sys::Node>();
            if let Some(seal) = self.sealing(value, (*call).funcresulttype) {
                (*call).funcid = seal;
            }
        }
    }

    /// The same for each element of an array.
    unsafe fn coerced_array(&mut self, cast: *mut pg_sys::ArrayCoerceExpr) {
        // SAFETY: tags are checked before fields are read.
        unsafe {
            let element = (*cast).elemexpr.cast::<pg_sys::FuncExpr>();
            if !self.stored || !is_a(element.cast(), pg_sys::NodeTag::T_FuncExpr) || !is_coercion(element) {
                return;
            }
            let of = (*element).funcresulttype;
            let Some(plain) = plain_of(of) else { return };
            let Some(seal) = self.sealing((*cast).arg.cast(), of) else { return };
            let value = (*(*(*element).args).elements).ptr_value.cast::<pg_sys::CaseTestExpr>();
            if is_a(value.cast(), pg_sys::NodeTag::T_CaseTestExpr) {
                (*element).funcid = seal;
                (*value).typeId = plain;
                (*value).collation = pg_sys::get_typcollation(plain);
            }
        }
    }

    /// What seals a parameter that has become plain; `None` for everything else, and before that is decided.
    unsafe fn sealing(&mut self, value: *mut pg_sys::Node, of: pg_sys::Oid) -> Option<pg_sys::Oid> {
        // SAFETY: tags are checked before fields are read.
        unsafe {
            if !is_a(value, pg_sys::NodeTag::T_Param) {
                return None;
            }
            let seal = lookup::function(c"seal", &[plain_of(of)?, pg_sys::INT4OID, pg_sys::BOOLOID])?;
            let mut params = Vec::new();
            self.parameter(value.cast(), &mut params)?;
            self.fits(params);
            self.chosen.is_some().then_some(seal)
        }
    }

    /// Parameters that the query itself stores into columns without a keyring.
    unsafe fn stored_by(&mut self, query: *mut pg_sys::Query) {
        // SAFETY: the command type says which fields the query uses.
        unsafe {
            let writes =
                [pg_sys::CmdType::CMD_INSERT, pg_sys::CmdType::CMD_UPDATE, pg_sys::CmdType::CMD_MERGE];
            if !self.stored || !writes.contains(&(*query).commandType) {
                return;
            }
            self.stored_in((*query).targetList);
            if !(*query).onConflict.is_null() {
                self.stored_in((*(*query).onConflict).onConflictSet);
            }
            for action in cells::<pg_sys::MergeAction>((*query).mergeActionList) {
                self.stored_in((*action).targetList);
            }
            for table in cells::<pg_sys::RangeTblEntry>((*query).rtable) {
                for row in cells::<pg_sys::List>((*table).values_lists) {
                    for at in 0..(*row).length as usize {
                        let cell = (*row).elements.add(at);
                        if let Some(sealed) = self.sealed((*cell).ptr_value.cast(), -1) {
                            (*cell).ptr_value = sealed.cast();
                        }
                    }
                }
            }
        }
    }

    unsafe fn stored_in(&mut self, list: *mut pg_sys::List) {
        // SAFETY: a target list holds target entries.
        unsafe {
            for entry in cells::<pg_sys::TargetEntry>(list).filter(|entry| !(**entry).resjunk) {
                if let Some(sealed) = self.sealed((*entry).expr.cast(), -1) {
                    (*entry).expr = sealed.cast();
                }
            }
        }
    }

    /// `seal($1, keyring, false)` for a parameter.
    unsafe fn sealed(&mut self, value: *mut pg_sys::Node, typmod: i32) -> Option<*mut pg_sys::FuncExpr> {
        // SAFETY: the tag is checked; the type that a parameter had is of its column.
        unsafe {
            if !is_a(value, pg_sys::NodeTag::T_Param) {
                return None;
            }
            let of = match &self.chosen {
                None => pg_sys::exprType(value),
                Some(_) => sealed_of(pg_sys::exprType(value))?,
            };
            let seal = self.sealing(value, of)?;
            let (none, int4) = (pg_sys::InvalidOid, pg_sys::INT4OID);
            let column = pg_sys::makeConst(int4, -1, none, 4, pg_sys::Datum::from(typmod), false, true);
            let arguments = [value, column.cast(), pg_sys::makeBoolConst(false, false)];
            let list = arguments
                .into_iter()
                .fold(std::ptr::null_mut(), |list, one| pg_sys::lappend(list, one.cast()));
            let form = pg_sys::CoercionForm::COERCE_IMPLICIT_CAST;
            Some(pg_sys::makeFuncExpr(seal, of, list, none, none, form))
        }
    }
}

/// The encrypted type that the assignment cast makes of a plain one.
unsafe fn sealed_of(plain: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a syscache lookup.
    unsafe {
        let seal = lookup::function(c"seal", &[plain, pg_sys::INT4OID, pg_sys::BOOLOID])?;
        Some(pg_sys::get_func_rettype(seal))
    }
}

/// The operator of the same name, one operand of which is plain where that of `operator` is encrypted.
unsafe fn plain_operator(operator: pg_sys::Oid, side: usize) -> Option<(pg_sys::Oid, pg_sys::Oid)> {
    // SAFETY: syscache lookups; an operator that is gone has no name.
    unsafe {
        let function = pg_sys::get_opcode(operator);
        if pg_sys::get_func_namespace(function) != lookup::schema() {
            return None;
        }
        let mut types = [pg_sys::InvalidOid; 2];
        let [left, right] = &mut types;
        pg_sys::op_input_types(operator, left, right);
        let plain = plain_of(types[side])?;
        types[side] = plain;
        let swapped = lookup::operator_beside(operator, types[0], types[1])?;
        let result = pg_sys::get_func_rettype(pg_sys::get_opcode(swapped));
        (result == pg_sys::get_func_rettype(function)).then_some((swapped, plain))
    }
}

unsafe fn is_own(operator: pg_sys::Oid, name: &CStr) -> bool {
    // SAFETY: syscache lookups; a function that is gone has no name.
    unsafe {
        let function = pg_sys::get_opcode(operator);
        let own = pg_sys::get_func_name(function);
        !own.is_null()
            && CStr::from_ptr(own) == name
            && pg_sys::get_func_namespace(function) == lookup::schema()
    }
}

/// `coerce(value, keyring, false)` as the parser makes it of a value for a column.
///
/// # Safety
/// A function that an expression calls.
pub unsafe fn is_coercion(call: *mut pg_sys::FuncExpr) -> bool {
    // SAFETY: a function that an expression calls.
    unsafe {
        if (*call).funcformat != pg_sys::CoercionForm::COERCE_IMPLICIT_CAST
            || cells::<pg_sys::Node>((*call).args).count() != 3
            || pg_sys::get_func_namespace((*call).funcid) != lookup::schema()
        {
            return false;
        }
        let name = pg_sys::get_func_name((*call).funcid);
        !name.is_null() && CStr::from_ptr(name) == c"coerce"
    }
}

/// The modifier in such a call.
unsafe fn modifier_in(call: *mut pg_sys::FuncExpr) -> i32 {
    // SAFETY: three arguments, the second of which is a constant where the parser has made it.
    unsafe {
        let modifier = (*(*(*call).args).elements.add(1)).ptr_value.cast::<pg_sys::Const>();
        if is_a(modifier.cast(), pg_sys::NodeTag::T_Const) {
            (*modifier).constvalue.value() as i32
        } else {
            -1
        }
    }
}

/// What gives literals a keyring.
struct Binding {
    literals: Literals,
    /// The statement is kept: no literal without a keyring may be in it.
    kept: bool,
}

#[pg_guard]
unsafe extern "C-unwind" fn bind(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: as in `visit`.
    unsafe {
        if node.is_null() {
            return false;
        }
        let binding = &*context.cast::<Binding>();
        match (*node).type_ {
            pg_sys::NodeTag::T_Query => {
                binding.beside(&one_of(node));
                return pg_sys::query_tree_walker(node.cast(), Some(bind), context, 0);
            }
            pg_sys::NodeTag::T_CoalesceExpr
            | pg_sys::NodeTag::T_CaseExpr
            | pg_sys::NodeTag::T_MinMaxExpr
            | pg_sys::NodeTag::T_ArrayExpr => binding.beside(&one_of(node)),
            pg_sys::NodeTag::T_FuncExpr if is_coercion(node.cast()) => {
                let call = node.cast::<pg_sys::FuncExpr>();
                let value = (*(*(*call).args).elements).ptr_value.cast::<pg_sys::Node>();
                binding.literal(value, modifier_in(call));
            }
            pg_sys::NodeTag::T_ArrayCoerceExpr => {
                let cast = node.cast::<pg_sys::ArrayCoerceExpr>();
                let element = (*cast).elemexpr.cast::<pg_sys::FuncExpr>();
                if is_a(element.cast(), pg_sys::NodeTag::T_FuncExpr) && is_coercion(element) {
                    binding.literal((*cast).arg.cast(), modifier_in(element));
                }
            }
            pg_sys::NodeTag::T_Const => binding.literal(node, -1),
            _ => (),
        }
        pg_sys::expression_tree_walker(node, Some(bind), context)
    }
}

impl Binding {
    /// Literals beside encrypted values, of which one is taken, get the keyring of those.
    unsafe fn beside(&self, columns: &[Vec<*mut *mut pg_sys::Node>]) {
        // SAFETY: places in the query.
        unsafe {
            for values in columns {
                let typmod = common_modifier(values);
                for value in values.iter().filter(|value| !(***value).is_null()) {
                    self.literal(**value, typmod);
                }
            }
        }
    }

    /// Gives a literal, or those of an array, the keyring of this modifier.
    unsafe fn literal(&self, node: *mut pg_sys::Node, typmod: i32) {
        // SAFETY: the tag is checked; the type says what the constant is.
        unsafe {
            if !is_a(node, pg_sys::NodeTag::T_Const) {
                return;
            }
            let literal = &mut *node.cast::<pg_sys::Const>();
            let of = literal.consttype;
            if literal.constisnull || of.to_u32() < pg_sys::FirstNormalObjectId || literal.constlen != -1 {
                return;
            }
            let element = pg_sys::get_element_type(of);
            let bound = if unbound::is_encrypted(of) {
                self.bound(literal.constvalue, of, typmod)
            } else if element != pg_sys::InvalidOid && unbound::is_encrypted(element) {
                self.elements(literal.constvalue, element, typmod)
            } else if unbound::is_filter(of) {
                (self.literals.refuse_inside)(literal.constvalue)
                    .map_err(|_| PgError::FilterText)
                    .map(|()| None)
            } else {
                (self.literals.refuse_inside)(literal.constvalue).map(|()| None)
            };
            if let Some(bound) = bound.unwrap_or_else(|error| error.raise()) {
                literal.constvalue = bound.datum();
            }
        }
    }

    fn bound(&self, value: pg_sys::Datum, of: pg_sys::Oid, typmod: i32) -> Result<Option<Varlena>, PgError> {
        match (self.literals.bound)(value, of, typmod) {
            Ok(None) => Ok(None),
            _ if self.kept => Err(PgError::NoKeyring),
            bound => bound,
        }
    }

    fn elements(
        &self,
        value: pg_sys::Datum,
        of: pg_sys::Oid,
        typmod: i32,
    ) -> Result<Option<Varlena>, PgError> {
        let Some(elements) = array::list(value, of) else {
            return (self.literals.refuse_inside)(value).map(|()| None);
        };
        let (mut made, mut changed) = (Vec::new(), false);
        for element in elements {
            let Some(element) = element else {
                made.push(None);
                continue;
            };
            let bound = self.bound(element.datum(), of, typmod)?;
            changed |= bound.is_some();
            made.push(Some(bound.unwrap_or(element).bytes().to_vec()));
        }
        Ok(changed.then(|| array::of_values(&made, of)))
    }
}

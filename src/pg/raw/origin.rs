//! Where the values of an expression come from, by the statement and not by its plan (nodes/parsenodes.h): only values
//! of a column without keyring are chosen among by the session's setting.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use pgrx::pg_sys;

use super::reveal::cells;
use super::version;
use crate::core::modifier;

/// Statements may nest deeper; what is further away than this counts as computed.
const DEPTH: u8 = 100;

/// What an expression gives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Values of a column without keyring, or parts of them.
    Unbound,
    /// Something typed or sent, which adds nothing to what stands beside it.
    Literal,
    /// Of both kinds. Of a UNION, the planner may ask each branch alone.
    Mixed,
    /// A column with a keyring, and everything computed.
    Other,
}

impl Origin {
    /// Of an expression that gives the one or the other.
    fn or(self, other: Origin) -> Origin {
        match (self, other) {
            (Origin::Literal, one) | (one, Origin::Literal) => one,
            (one, same) if one == same => one,
            _ => Origin::Mixed,
        }
    }
}

/// Where an expression stands: the queries around it, the innermost last.
#[derive(Clone)]
pub struct Place {
    queries: Vec<*mut pg_sys::Query>,
    /// Tables that the planner reads in place of others, in the innermost query.
    appended: *mut pg_sys::List,
    /// What the test of an IN (SELECT ...) compares with.
    tested: *mut pg_sys::Query,
    /// Columns of subqueries that the running look has been at: queries in WITH can name each other many times over.
    seen: Rc<RefCell<HashMap<(*mut pg_sys::Query, i32), Origin>>>,
}

impl Place {
    /// In no query.
    pub fn outside() -> Self {
        Place {
            queries: Vec::new(),
            appended: std::ptr::null_mut(),
            tested: std::ptr::null_mut(),
            seen: Rc::default(),
        }
    }

    /// In the query that is being planned.
    ///
    /// # Safety
    /// `root` is the planner's.
    pub unsafe fn planned(root: *mut pg_sys::PlannerInfo) -> Self {
        let mut place = Place::outside();
        // SAFETY: the chain ends at the outermost query.
        unsafe {
            place.appended = (*root).append_rel_list;
            let mut root = root;
            while !root.is_null() {
                place.queries.insert(0, (*root).parse);
                root = (*root).parent_root;
            }
        }
        place
    }

    /// Steps into a query.
    pub fn enter(&mut self, query: *mut pg_sys::Query) {
        self.queries.push(query);
    }

    /// Steps out of the innermost query.
    pub fn leave(&mut self) {
        self.queries.pop();
    }

    /// It is in this query, or in one inside it.
    pub fn is_inside(&self, query: *mut pg_sys::Query) -> bool {
        self.queries.contains(&query)
    }

    /// Steps into the test of a subquery, and gives what was tested before.
    pub fn test(&mut self, subquery: *mut pg_sys::Query) -> *mut pg_sys::Query {
        std::mem::replace(&mut self.tested, subquery)
    }

    /// In the query `level`, counted from the outermost.
    fn at(&self, level: usize) -> Place {
        let queries = self.queries[..=level].to_vec();
        Place { queries, seen: self.seen.clone(), ..Place::outside() }
    }

    /// In a query inside the query `level`.
    fn inside(&self, level: usize, query: *mut pg_sys::Query) -> Place {
        let mut place = self.at(level);
        place.enter(query);
        place
    }

    fn innermost(&self) -> Option<usize> {
        self.queries.len().checked_sub(1)
    }

    /// Where the values of `node` come from.
    ///
    /// # Safety
    /// `node` stands in this place and all are valid trees.
    pub unsafe fn origin(&self, node: *mut pg_sys::Node) -> Origin {
        // The tree may have changed since the last look.
        self.seen.borrow_mut().clear();
        // SAFETY: the caller's promise.
        unsafe { self.look(node, DEPTH) }
    }

    unsafe fn look(&self, node: *mut pg_sys::Node, depth: u8) -> Origin {
        // SAFETY: the tag says what a node is.
        unsafe {
            if node.is_null() || depth == 0 || is_bound(node) {
                return Origin::Other;
            }
            let depth = depth - 1;
            match (*node).type_ {
                pg_sys::NodeTag::T_Const => Origin::Literal,
                pg_sys::NodeTag::T_Var => self.column(node.cast(), depth),
                pg_sys::NodeTag::T_Param => self.parameter(node.cast(), depth),
                pg_sys::NodeTag::T_RelabelType => {
                    self.look((*node.cast::<pg_sys::RelabelType>()).arg.cast(), depth)
                }
                pg_sys::NodeTag::T_CoerceToDomain => {
                    self.look((*node.cast::<pg_sys::CoerceToDomain>()).arg.cast(), depth)
                }
                pg_sys::NodeTag::T_PlaceHolderVar => {
                    self.look((*node.cast::<pg_sys::PlaceHolderVar>()).phexpr.cast(), depth)
                }
                pg_sys::NodeTag::T_OpExpr | pg_sys::NodeTag::T_NullIfExpr => first_argument(node)
                    .filter(|whole| (*node).type_ == pg_sys::NodeTag::T_NullIfExpr || is_part(node, *whole))
                    .map_or(Origin::Other, |whole| self.look(whole, depth)),
                pg_sys::NodeTag::T_CaseExpr => self.any(results(node.cast()), depth),
                pg_sys::NodeTag::T_CoalesceExpr => {
                    self.any(cells((*node.cast::<pg_sys::CoalesceExpr>()).args), depth)
                }
                pg_sys::NodeTag::T_SubLink => self.subquery(node.cast(), depth),
                _ => Origin::Other,
            }
        }
    }

    unsafe fn any(&self, nodes: impl Iterator<Item = *mut pg_sys::Node>, depth: u8) -> Origin {
        // SAFETY: as in `look`.
        nodes.fold(Origin::Literal, |all, node| all.or(unsafe { self.look(node, depth) }))
    }

    unsafe fn parameter(&self, parameter: *mut pg_sys::Param, depth: u8) -> Origin {
        // SAFETY: as in `look`; in a test it stands for a column of the subquery.
        unsafe {
            match ((*parameter).paramkind, self.innermost()) {
                (pg_sys::ParamKind::PARAM_EXTERN, _) => Origin::Literal,
                (pg_sys::ParamKind::PARAM_SUBLINK, Some(level)) if !self.tested.is_null() => {
                    self.inside(level, self.tested).output((*parameter).paramid, depth)
                }
                _ => Origin::Other,
            }
        }
    }

    unsafe fn subquery(&self, link: *mut pg_sys::SubLink, depth: u8) -> Origin {
        // SAFETY: as in `look`; the parser has made the subselect a query.
        unsafe {
            match ((*link).subLinkType, self.innermost()) {
                (pg_sys::SubLinkType::EXPR_SUBLINK, Some(level)) => {
                    self.inside(level, (*link).subselect.cast()).output(1, depth)
                }
                _ => Origin::Other,
            }
        }
    }

    unsafe fn column(&self, column: *mut pg_sys::Var, depth: u8) -> Origin {
        // SAFETY: as in `look`.
        unsafe {
            let up = (*column).varlevelsup as usize;
            let Some(level) = self.innermost().and_then(|level| level.checked_sub(up)) else {
                return Origin::Other;
            };
            let (table, number) = match up {
                0 => self.read_in_place_of(column),
                _ => ((*column).varno, (*column).varattno),
            };
            self.column_of(level, table, i32::from(number), depth)
        }
    }

    /// The column of a UNION ALL that the planner has replaced by one of its branches', or the column itself.
    unsafe fn read_in_place_of(&self, column: *mut pg_sys::Var) -> (i32, i16) {
        // SAFETY: a list of AppendRelInfo, whose translations are the expressions for the parent's columns.
        unsafe {
            for branch in cells::<pg_sys::AppendRelInfo>(self.appended) {
                if (*branch).child_relid as i32 != (*column).varno
                    || (*branch).parent_reloid != pg_sys::InvalidOid
                {
                    continue;
                }
                let mut translations = cells::<std::ffi::c_void>((*branch).translated_vars);
                let found = translations.position(|own| pg_sys::equal(own, column.cast()));
                if let Some(at) = found {
                    return ((*branch).parent_relid as i32, at as i16 + 1);
                }
            }
            ((*column).varno, (*column).varattno)
        }
    }

    unsafe fn column_of(&self, level: usize, table: i32, number: i32, depth: u8) -> Origin {
        // SAFETY: as in `look`; the range table belongs to the query.
        unsafe {
            let mut tables = cells::<pg_sys::RangeTblEntry>((*self.queries[level]).rtable);
            let Some(table) = usize::try_from(table - 1).ok().and_then(|at| tables.nth(at)) else {
                return Origin::Other;
            };
            let nth = |list| cells::<pg_sys::Node>(list).nth(usize::try_from(number - 1).ok()?);
            match (*table).rtekind {
                _ if number <= 0 => Origin::Other,
                pg_sys::RTEKind::RTE_RELATION | pg_sys::RTEKind::RTE_NAMEDTUPLESTORE => Origin::Unbound,
                pg_sys::RTEKind::RTE_SUBQUERY if !(*table).subquery.is_null() => {
                    self.inside(level, (*table).subquery).output(number, depth)
                }
                pg_sys::RTEKind::RTE_JOIN => nth((*table).joinaliasvars)
                    .map_or(Origin::Other, |expression| self.at(level).look(expression, depth)),
                pg_sys::RTEKind::RTE_CTE => self.with_query(level, table, number, depth),
                _ => version::grouped(table)
                    .and_then(nth)
                    .map_or(Origin::Other, |expression| self.at(level).look(expression, depth)),
            }
        }
    }

    /// Column `number` of a query in WITH. Where it reads itself, it adds nothing.
    unsafe fn with_query(
        &self,
        level: usize,
        table: *mut pg_sys::RangeTblEntry,
        number: i32,
        depth: u8,
    ) -> Origin {
        // SAFETY: as in `look`; names are NUL-terminated.
        unsafe {
            if (*table).self_reference {
                return Origin::Literal;
            }
            let Some(holder) = level.checked_sub((*table).ctelevelsup as usize) else { return Origin::Other };
            let name = std::ffi::CStr::from_ptr((*table).ctename);
            let mut known = cells::<pg_sys::CommonTableExpr>((*self.queries[holder]).cteList);
            let found = known.find(|one| std::ffi::CStr::from_ptr((**one).ctename) == name);
            found.map_or(Origin::Other, |one| {
                self.inside(holder, (*one).ctequery.cast()).output(number, depth)
            })
        }
    }

    /// Column `number` of what the innermost query returns.
    unsafe fn output(&self, number: i32, depth: u8) -> Origin {
        let Some(query) = self.queries.last().copied() else { return Origin::Other };
        if let Some(origin) = self.seen.borrow().get(&(query, number)) {
            return *origin;
        }
        // SAFETY: as in `look`.
        let origin = unsafe { self.output_of(query, number, depth) };
        self.seen.borrow_mut().insert((query, number), origin);
        origin
    }

    unsafe fn output_of(&self, query: *mut pg_sys::Query, number: i32, depth: u8) -> Origin {
        // SAFETY: as in `look`.
        unsafe {
            if !(*query).setOperations.is_null() {
                return self.branches((*query).setOperations, number, depth);
            }
            let list = match (*query).commandType {
                pg_sys::CmdType::CMD_SELECT => (*query).targetList,
                _ => (*query).returningList,
            };
            let found = cells::<pg_sys::TargetEntry>(list).find(|entry| i32::from((**entry).resno) == number);
            found.map_or(Origin::Other, |entry| self.look((*entry).expr.cast(), depth))
        }
    }

    unsafe fn branches(&self, node: *mut pg_sys::Node, number: i32, depth: u8) -> Origin {
        // SAFETY: a set operation's leaves refer to subqueries of its query.
        unsafe {
            let Some((level, depth)) = self.innermost().zip(depth.checked_sub(1)) else {
                return Origin::Other;
            };
            match (*node).type_ {
                pg_sys::NodeTag::T_RangeTblRef => {
                    self.column_of(level, (*node.cast::<pg_sys::RangeTblRef>()).rtindex, number, depth)
                }
                pg_sys::NodeTag::T_SetOperationStmt => {
                    let both = node.cast::<pg_sys::SetOperationStmt>();
                    let left = self.branches((*both).larg, number, depth);
                    left.or(self.branches((*both).rarg, number, depth))
                }
                _ => Origin::Other,
            }
        }
    }
}

/// Its type modifier, or that of its domain, names a keyring.
unsafe fn is_bound(node: *mut pg_sys::Node) -> bool {
    // SAFETY: looks at a valid tree.
    unsafe {
        let mut typmod = pg_sys::exprTypmod(node);
        if !modifier::is_bound(typmod) {
            pg_sys::getBaseTypeAndTypmod(pg_sys::exprType(node), &mut typmod);
        }
        modifier::is_bound(typmod)
    }
}

/// What each branch of a CASE gives.
unsafe fn results(case: *mut pg_sys::CaseExpr) -> impl Iterator<Item = *mut pg_sys::Node> {
    // SAFETY: its arguments are CaseWhen nodes.
    unsafe {
        let results = cells::<pg_sys::CaseWhen>((*case).args).map(|branch| (*branch).result.cast());
        results.chain([(*case).defresult.cast()])
    }
}

/// The first argument of an OpExpr or NullIfExpr.
unsafe fn first_argument(node: *mut pg_sys::Node) -> Option<*mut pg_sys::Node> {
    // SAFETY: both are the same structure.
    unsafe { cells((*node.cast::<pg_sys::OpExpr>()).args).next() }
}

/// The document that an operator of ours takes a part of or changes; the result has its keyring.
///
/// # Safety
/// A valid tree.
pub unsafe fn whole_of(node: *mut pg_sys::Node) -> Option<*mut pg_sys::Node> {
    // SAFETY: the tag is checked.
    unsafe {
        if (*node).type_ != pg_sys::NodeTag::T_OpExpr {
            return None;
        }
        first_argument(node).filter(|whole| is_part(node, *whole))
    }
}

unsafe fn is_part(node: *mut pg_sys::Node, whole: *mut pg_sys::Node) -> bool {
    // SAFETY: an OpExpr; syscache lookups.
    unsafe {
        let operator = node.cast::<pg_sys::OpExpr>();
        // A truth or a distance is no part.
        if (*operator).opno.to_u32() < pg_sys::FirstNormalObjectId
            || (*operator).opresulttype.to_u32() < pg_sys::FirstNormalObjectId
        {
            return false;
        }
        pg_sys::set_opfuncid(operator);
        pg_sys::get_func_namespace((*operator).opfuncid) == super::lookup::schema()
            && pg_sys::exprType(whole).to_u32() >= pg_sys::FirstNormalObjectId
    }
}

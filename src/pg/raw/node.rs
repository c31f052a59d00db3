//! Expression trees as the planner sees them (nodes/primnodes.h), for the rewrite of operators.

use pgrx::{is_a, pg_sys};

use super::array;
use super::choice;
use super::datum::{Varlena, detoast, type_id_name, varlena};
use super::lists;
use super::origin::{self, Origin, Place};
use super::reveal::make;
use crate::core::modifier::{self, Column};

/// A node of an expression tree. The tree belongs to the planner and outlives the support call.
#[derive(Clone, Copy)]
pub struct Expr(*mut pg_sys::Node);

/// A call that the planner asks to simplify.
pub struct SimplifyRequest {
    place: Place,
    call: *mut pg_sys::FuncExpr,
    arguments: Vec<Expr>,
}

/// The call to simplify, if the support request is one and there is a planner. Without a planner root
/// (relcache loading an index predicate) neither catalog nor KMS may be touched.
pub fn simplify_request(request: pg_sys::Datum) -> Option<SimplifyRequest> {
    let node: *mut pg_sys::Node = request.cast_mut_ptr();
    // SAFETY: a support function's argument is a request node whose tag says what it is.
    unsafe {
        if !is_a(node, pg_sys::NodeTag::T_SupportRequestSimplify) {
            return None;
        }
        let request = node.cast::<pg_sys::SupportRequestSimplify>();
        if (*request).root.is_null() {
            return None;
        }
        let call = (*request).fcall;
        let place = Place::planned((*request).root);
        Some(SimplifyRequest { place, call, arguments: list((*call).args) })
    }
}

impl SimplifyRequest {
    /// One argument of the call.
    pub fn argument(&self, index: usize) -> Option<Expr> {
        self.arguments.get(index).copied()
    }

    /// Both arguments of a call that may be rewritten: neither may be evaluated twice at a cost or with different
    /// results.
    pub fn two_arguments(&self) -> Option<(Expr, Expr)> {
        let (left, right) = (self.argument(0)?, self.argument(1)?);
        (!left.must_run_once() && !right.must_run_once()).then_some((left, right))
    }

    /// The same where the second argument is a list, which may be what a subquery gives.
    pub fn value_and_list(&self) -> Option<(Expr, Expr)> {
        let (value, list) = (self.argument(0)?, self.argument(1)?);
        // SAFETY: an argument of the call.
        let is_known = unsafe { lists::is_array_of_subquery(list.0) } || !list.must_run_once();
        (is_known && !value.must_run_once()).then_some((value, list))
    }

    /// What the call returns.
    pub fn result_type(&self) -> pg_sys::Oid {
        // SAFETY: the call belongs to the planner and outlives the request.
        unsafe { (*self.call).funcresulttype }
    }

    /// The collation that it compares with is one where texts of different bytes may be equal.
    pub fn has_loose_collation(&self) -> bool {
        // SAFETY: as above; a syscache lookup.
        unsafe {
            let collation = (*self.call).inputcollid;
            collation != pg_sys::InvalidOid
                && collation != pg_sys::DEFAULT_COLLATION_OID
                && !pg_sys::get_collation_isdeterministic(collation)
        }
    }

    /// The session's setting chooses among the values of this expression.
    pub fn is_chosen_among(&self, value: Expr) -> bool {
        // SAFETY: an argument of the call, or below one.
        unsafe { self.place.origin(value.0) == Origin::Unbound }
    }

    /// The same call where `chosen` stands around every argument among whose values the session chooses; `None` where
    /// there is none.
    pub fn with_choices(&self) -> Option<Expr> {
        // SAFETY: as above; a call with other arguments of the same types.
        unsafe {
            let chosen: Vec<Option<Expr>> = self
                .arguments
                .iter()
                .map(|argument| choice::chosen(&self.place, argument.0).map(Expr))
                .collect();
            if chosen.iter().all(Option::is_none) {
                return None;
            }
            let arguments =
                chosen.into_iter().zip(&self.arguments).map(|(new, old)| new.unwrap_or_else(|| old.copy()));
            let arguments: Vec<Expr> = arguments.collect();
            let node = pg_sys::makeFuncExpr(
                (*self.call).funcid,
                (*self.call).funcresulttype,
                make_list(&arguments),
                (*self.call).funccollid,
                (*self.call).inputcollid,
                pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
            );
            Some(Expr(node.cast()))
        }
    }
}

/// The elements of a List of expressions.
unsafe fn list(list: *mut pg_sys::List) -> Vec<Expr> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: a pointer list holds `length` cells.
    unsafe {
        let cells = std::slice::from_raw_parts((*list).elements, (*list).length as usize);
        cells.iter().map(|cell| Expr(cell.ptr_value.cast())).collect()
    }
}

impl Expr {
    /// # Safety
    /// A valid tree that outlives the expression.
    pub unsafe fn of(node: *mut pg_sys::Node) -> Self {
        Expr(node)
    }

    /// The tree itself.
    pub fn node(self) -> *mut pg_sys::Node {
        self.0
    }

    /// A copy of an operator's call with another first argument.
    pub fn with_first_argument(self, argument: Expr) -> Expr {
        let copy = self.copy();
        // SAFETY: an OpExpr with arguments, whose list is the copy's own.
        unsafe {
            let arguments = (*copy.0.cast::<pg_sys::OpExpr>()).args;
            (*(*arguments).elements).ptr_value = argument.0.cast();
        }
        copy
    }

    /// For the result of a support function.
    pub fn datum(self) -> pg_sys::Datum {
        pg_sys::Datum::from(self.0)
    }

    /// What its type modifier says, looked for below relabelling and domains.
    pub fn column(self) -> Column {
        let typmod = self.typmod();
        if !modifier::is_bound(typmod) {
            return Column::ANY;
        }
        if type_id_name(self.base_type()) == "encrypted_vector" {
            Column::of_vectors(typmod)
        } else {
            Column::of_documents(typmod)
        }
    }

    /// Its type modifier, looked for as in [`Expr::column`].
    pub fn typmod(self) -> i32 {
        let mut node = self.0;
        // SAFETY: walks down RelabelType and CoerceToDomain nodes of a valid tree.
        unsafe {
            loop {
                let typmod = pg_sys::exprTypmod(node);
                if typmod >= 0 {
                    return typmod;
                }
                let mut domain_typmod = -1;
                pg_sys::getBaseTypeAndTypmod(pg_sys::exprType(node), &mut domain_typmod);
                if domain_typmod >= 0 {
                    return domain_typmod;
                }
                if is_a(node, pg_sys::NodeTag::T_RelabelType) {
                    node = (*node.cast::<pg_sys::RelabelType>()).arg.cast();
                } else if is_a(node, pg_sys::NodeTag::T_CoerceToDomain) {
                    node = (*node.cast::<pg_sys::CoerceToDomain>()).arg.cast();
                } else if is_a(node, pg_sys::NodeTag::T_OpExpr) {
                    // A part of a document belongs to the document's column.
                    let Some(first) = list((*node.cast::<pg_sys::OpExpr>()).args).first().copied() else {
                        return -1;
                    };
                    node = first.0;
                } else {
                    return -1;
                }
            }
        }
    }

    /// The value, where the planner knows it: a constant of variable length that is not NULL.
    pub fn constant(self) -> Option<Varlena> {
        // SAFETY: the tag is checked; our callers only ask for arguments of variable-length types.
        unsafe {
            if !is_a(self.0, pg_sys::NodeTag::T_Const) {
                return None;
            }
            let constant = self.0.cast::<pg_sys::Const>();
            (!(*constant).constisnull).then(|| detoast((*constant).constvalue))
        }
    }

    /// A constant NULL.
    pub fn is_null_constant(self) -> bool {
        // SAFETY: the tag is checked.
        unsafe { is_a(self.0, pg_sys::NodeTag::T_Const) && (*self.0.cast::<pg_sys::Const>()).constisnull }
    }

    /// The constant's datum, of whatever type; `None` for NULL and other nodes.
    pub fn constant_datum(self) -> Option<pg_sys::Datum> {
        // SAFETY: the tag is checked.
        unsafe {
            if !is_a(self.0, pg_sys::NodeTag::T_Const) {
                return None;
            }
            let constant = self.0.cast::<pg_sys::Const>();
            (!(*constant).constisnull).then_some((*constant).constvalue)
        }
    }

    /// Typed into the statement or sent beside it.
    pub fn is_literal(self) -> bool {
        // SAFETY: reads tags.
        unsafe {
            is_a(self.0, pg_sys::NodeTag::T_Const)
                || (is_a(self.0, pg_sys::NodeTag::T_Param)
                    && (*self.0.cast::<pg_sys::Param>()).paramkind == pg_sys::ParamKind::PARAM_EXTERN)
        }
    }

    /// A column, perhaps looked at as another type.
    pub fn is_column(self) -> bool {
        // SAFETY: the tag is checked.
        unsafe {
            if is_a(self.0, pg_sys::NodeTag::T_RelabelType) {
                Expr((*self.0.cast::<pg_sys::RelabelType>()).arg.cast()).is_column()
            } else {
                is_a(self.0, pg_sys::NodeTag::T_Var)
            }
        }
    }

    /// Depends on a row.
    pub fn has_columns(self) -> bool {
        // SAFETY: walks a valid tree.
        unsafe { pg_sys::contain_var_clause(self.0) }
    }

    /// Its type below domains.
    pub fn base_type(self) -> pg_sys::Oid {
        // SAFETY: looks at a valid tree.
        unsafe { pg_sys::getBaseType(pg_sys::exprType(self.0)) }
    }

    /// What it is an array of, below domains.
    pub fn element_type(self) -> Option<pg_sys::Oid> {
        // SAFETY: a syscache lookup.
        let of = unsafe { pg_sys::get_element_type(self.base_type()) };
        (of != pg_sys::InvalidOid).then_some(of)
    }

    /// The document that an operator of ours takes a part of or changes.
    pub fn whole(self) -> Option<Expr> {
        // SAFETY: looks at a valid tree.
        unsafe { origin::whole_of(self.0).map(Expr) }
    }

    /// Function and arguments of a function or operator call.
    pub fn call(self) -> Option<(pg_sys::Oid, Vec<Expr>)> {
        // SAFETY: the tags are checked.
        unsafe {
            if is_a(self.0, pg_sys::NodeTag::T_FuncExpr) {
                let call = self.0.cast::<pg_sys::FuncExpr>();
                return Some(((*call).funcid, list((*call).args)));
            }
            if is_a(self.0, pg_sys::NodeTag::T_OpExpr) {
                let call = self.0.cast::<pg_sys::OpExpr>();
                pg_sys::set_opfuncid(call);
                return Some(((*call).opfuncid, list((*call).args)));
            }
            None
        }
    }

    /// `self OR NULL`: in WHERE the planner drops the NULL, elsewhere false becomes NULL.
    pub fn or_null(self) -> Expr {
        // SAFETY: a list of two boolean expressions.
        unsafe {
            let null = Expr(pg_sys::makeBoolConst(false, true));
            let either = make_list(&[self, null]);
            Expr(pg_sys::makeBoolExpr(pg_sys::BoolExprType::OR_EXPR, either, -1).cast())
        }
    }

    /// The arguments of a call of `function`; `None` for any other node.
    pub fn arguments_of(self, function: pg_sys::Oid) -> Option<Vec<Expr>> {
        // SAFETY: the tag is checked.
        unsafe {
            if !is_a(self.0, pg_sys::NodeTag::T_FuncExpr) {
                return None;
            }
            let call = self.0.cast::<pg_sys::FuncExpr>();
            ((*call).funcid == function).then(|| list((*call).args))
        }
    }

    /// Evaluating it twice could differ or cost twice: a volatile function or a subquery is inside.
    pub fn must_run_once(self) -> bool {
        // SAFETY: both walk a valid tree.
        unsafe { pg_sys::contain_volatile_functions(self.0) || pg_sys::contain_subplans(self.0) }
    }

    /// An int4 constant.
    pub fn of_int4(value: i32) -> Expr {
        // SAFETY: int4 is passed by value.
        unsafe {
            let (of, none, datum) = (pg_sys::INT4OID, pg_sys::InvalidOid, pg_sys::Datum::from(value));
            Expr(pg_sys::makeConst(of, -1, none, 4, datum, false, true).cast())
        }
    }

    /// A text as a constant.
    pub fn of_text(text: &str) -> Expr {
        Self::of_varlena(pg_sys::TEXTOID, pg_sys::DEFAULT_COLLATION_OID, varlena(text.as_bytes()))
    }

    /// A text[] constant.
    pub fn of_texts(texts: Varlena) -> Expr {
        Self::of_varlena(pg_sys::TEXTARRAYOID, pg_sys::InvalidOid, texts)
    }

    /// A constant of a type without collation; `None` where the type is not of variable length.
    pub fn of_type(of: pg_sys::Oid, value: Varlena) -> Option<Expr> {
        // SAFETY: a syscache lookup.
        let is_varlena = unsafe { pg_sys::get_typlen(of) } == -1;
        is_varlena.then(|| Self::of_varlena(of, pg_sys::InvalidOid, value))
    }

    fn of_varlena(of: pg_sys::Oid, collation: pg_sys::Oid, value: Varlena) -> Expr {
        // SAFETY: the type is of variable length; the datum is in the planner's memory context.
        unsafe { Expr(pg_sys::makeConst(of, -1, collation, -1, value.datum(), false, false).cast()) }
    }

    /// `function(arguments)`; `None` unless it takes arguments of these types.
    pub fn of_function(function: pg_sys::Oid, arguments: &[Expr]) -> Option<Expr> {
        // SAFETY: an error if there is no such function; it has `count` types of arguments.
        unsafe {
            let (mut types, mut count) = (std::ptr::null_mut(), 0);
            let result = pg_sys::get_func_signature(function, &mut types, &mut count);
            let fit = (0..count as usize)
                .all(|at| arguments.get(at).is_some_and(|argument| argument.fits(*types.add(at))));
            if !fit || count as usize != arguments.len() {
                return None;
            }
            let (none, form) = (pg_sys::InvalidOid, pg_sys::CoercionForm::COERCE_EXPLICIT_CALL);
            Some(Expr(pg_sys::makeFuncExpr(function, result, make_list(arguments), none, none, form).cast()))
        }
    }

    /// `left operator right`, which is true or false; `None` unless it takes operands of these types.
    pub fn of_operator(operator: pg_sys::Oid, left: Expr, right: Expr) -> Option<Expr> {
        // SAFETY: an error if there is no such operator.
        unsafe {
            let (mut left_type, mut right_type) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
            pg_sys::op_input_types(operator, &mut left_type, &mut right_type);
            if !left.fits(left_type) || !right.fits(right_type) {
                return None;
            }
            let (of, none) = (pg_sys::BOOLOID, pg_sys::InvalidOid);
            let (left, right) = (left.0.cast(), right.0.cast());
            let clause = pg_sys::make_opclause(operator, of, false, left, right, none, none);
            pg_sys::set_opfuncid(clause.cast());
            Some(Expr(clause.cast()))
        }
    }

    /// `left operator ANY (list)`; `None` unless it takes operands of these types.
    pub fn of_operator_any(operator: pg_sys::Oid, left: Expr, list: Expr) -> Option<Expr> {
        // SAFETY: an error if there is no such operator; the node is filled as the parser does (make_scalar_array_op).
        unsafe {
            let (mut left_type, mut right_type) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
            pg_sys::op_input_types(operator, &mut left_type, &mut right_type);
            if !left.fits(left_type) || list.element_type() != Some(right_type) {
                return None;
            }
            let test = make::<pg_sys::ScalarArrayOpExpr>(pg_sys::NodeTag::T_ScalarArrayOpExpr);
            (*test).opno = operator;
            (*test).opfuncid = pg_sys::get_opcode(operator);
            (*test).useOr = true;
            (*test).args = make_list(&[left, list]);
            (*test).location = -1;
            Some(Expr(test.cast()))
        }
    }

    /// Its bytes are those of a value of this type.
    fn fits(self, of: pg_sys::Oid) -> bool {
        // SAFETY: looks at a valid tree.
        unsafe { pg_sys::IsBinaryCoercible(pg_sys::exprType(self.0), of) }
    }

    /// A copy that is looked at as the type below its domain.
    pub fn below_domain(self) -> Expr {
        let (copy, base) = (self.copy(), self.base_type());
        // SAFETY: builds a node over a valid expression.
        unsafe {
            if pg_sys::exprType(copy.0) == base {
                return copy;
            }
            let (none, form) = (pg_sys::InvalidOid, pg_sys::CoercionForm::COERCE_IMPLICIT_CAST);
            Expr(pg_sys::makeRelabelType(copy.0.cast(), base, -1, none, form).cast())
        }
    }

    /// What is looked at as another type.
    pub fn below_relabelling(self) -> Expr {
        let mut node = self.0;
        // SAFETY: walks down RelabelType nodes of a valid tree.
        unsafe {
            while is_a(node, pg_sys::NodeTag::T_RelabelType) {
                node = (*node.cast::<pg_sys::RelabelType>()).arg.cast();
            }
        }
        Expr(node)
    }

    /// The same, evaluated where that needs neither row nor time.
    pub fn folded(self) -> Expr {
        // SAFETY: a copy of a valid tree; without a planner nothing but immutable functions is evaluated.
        unsafe { Expr(pg_sys::eval_const_expressions(std::ptr::null_mut(), self.copy().0)) }
    }

    /// The document and the steps, as one text[], of `jsonb[...]`.
    pub fn subscripts(self) -> Option<(Expr, Expr)> {
        // SAFETY: the tag is checked; a reference without expression is no slice and no assignment.
        unsafe {
            if !is_a(self.0, pg_sys::NodeTag::T_SubscriptingRef) {
                return None;
            }
            let reference = self.0.cast::<pg_sys::SubscriptingRef>();
            let is_read = (*reference).reflowerindexpr.is_null() && (*reference).refassgnexpr.is_null();
            if !is_read || (*reference).refcontainertype != pg_sys::JSONBOID {
                return None;
            }
            let mut steps = Vec::new();
            for step in list((*reference).refupperindexpr) {
                let (step, of) = (step.folded(), step.base_type());
                match of {
                    pg_sys::TEXTOID => steps.push(step.constant()?.bytes().to_vec()),
                    pg_sys::INT4OID => {
                        steps.push((step.constant_datum()?.value() as i32).to_string().into_bytes());
                    }
                    _ => return None,
                }
            }
            let steps: Vec<&[u8]> = steps.iter().map(Vec::as_slice).collect();
            Some((Expr((*reference).refexpr.cast()), Expr::of_texts(array::of_texts(&steps))))
        }
    }

    /// A call of a function that compares in the collation of another call.
    pub fn collated_as(self, comparison: Expr) -> Expr {
        // SAFETY: tags are checked.
        unsafe {
            if is_a(self.0, pg_sys::NodeTag::T_FuncExpr) {
                (*self.0.cast::<pg_sys::FuncExpr>()).inputcollid = pg_sys::exprInputCollation(comparison.0);
            }
        }
        self
    }

    /// NOT `self`.
    pub fn negated(self) -> Expr {
        // SAFETY: a list of one boolean expression.
        unsafe {
            let one = make_list(&[self]);
            Expr(pg_sys::makeBoolExpr(pg_sys::BoolExprType::NOT_EXPR, one, -1).cast())
        }
    }

    /// A copy, since a tree may be used in one place only.
    pub fn copy(self) -> Expr {
        // SAFETY: copies a valid tree.
        Expr(unsafe { pg_sys::copyObjectImpl(self.0.cast()) }.cast())
    }

    /// `self AND other`.
    pub fn and(self, other: Expr) -> Expr {
        // SAFETY: a list of two boolean expressions.
        unsafe {
            let both = make_list(&[self, other]);
            Expr(pg_sys::makeBoolExpr(pg_sys::BoolExprType::AND_EXPR, both, -1).cast())
        }
    }
}

unsafe fn make_list(elements: &[Expr]) -> *mut pg_sys::List {
    // SAFETY: appends valid nodes to a pointer list.
    elements
        .iter()
        .fold(std::ptr::null_mut(), |list, element| unsafe { pg_sys::lappend(list, element.0.cast()) })
}

/// One argument of a running call as the statement has it.
///
/// # Safety
/// `call` is a FuncExpr, OpExpr or other node with arguments, as flinfo->fn_expr is.
pub unsafe fn argument(call: *mut pg_sys::Node, index: usize) -> Option<Expr> {
    // SAFETY: the tags are checked before the fields are read.
    unsafe {
        let arguments = if is_a(call, pg_sys::NodeTag::T_FuncExpr) {
            (*call.cast::<pg_sys::FuncExpr>()).args
        } else if is_a(call, pg_sys::NodeTag::T_OpExpr)
            || is_a(call, pg_sys::NodeTag::T_DistinctExpr)
            || is_a(call, pg_sys::NodeTag::T_NullIfExpr)
        {
            (*call.cast::<pg_sys::OpExpr>()).args
        } else if is_a(call, pg_sys::NodeTag::T_ScalarArrayOpExpr) {
            (*call.cast::<pg_sys::ScalarArrayOpExpr>()).args
        } else {
            return None;
        };
        list(arguments).get(index).copied()
    }
}

/// Argument `index` is a column or what a CASE looks at, not known to have a keyring, in a node that the planner asks no
/// support function about.
///
/// # Safety
/// As for [`argument`]; NULL where it is not known.
pub unsafe fn needs_choice(call: *mut pg_sys::Node, index: usize) -> bool {
    if call.is_null() {
        return false;
    }
    // SAFETY: the tags are checked before fields are read.
    unsafe {
        let Some(argument) = argument(call, index).filter(|argument| !modifier::is_bound(argument.typmod()))
        else {
            return false;
        };
        let mut node = argument;
        while let Some(whole) = node.whole() {
            node = whole;
        }
        is_a(node.0, pg_sys::NodeTag::T_CaseTestExpr)
            || (node.is_column()
                && (is_a(call, pg_sys::NodeTag::T_ScalarArrayOpExpr)
                    || is_a(call, pg_sys::NodeTag::T_DistinctExpr)))
    }
}

/// The target type of a cast through text.
///
/// # Safety
/// A valid tree.
pub unsafe fn io_cast(node: *mut pg_sys::Node) -> Option<pg_sys::Oid> {
    // SAFETY: the tag is checked.
    unsafe {
        is_a(node, pg_sys::NodeTag::T_CoerceViaIO).then(|| (*node.cast::<pg_sys::CoerceViaIO>()).resulttype)
    }
}

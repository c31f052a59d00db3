//! What a rewrite writes: filters as constants, and calls of the functions and operators of this extension.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::pg::raw::datum::Varlena;
use crate::pg::raw::lookup;
use crate::pg::raw::node::Expr;
use crate::pg::session::objects;

/// The objects of this extension that a rewrite names.
#[derive(Clone, Copy)]
pub struct Objects {
    /// Type `encrypted_filter`.
    pub filter: pg_sys::Oid,
}

impl Objects {
    /// `None` while the extension is being made or dropped. `value` is of one of the encrypted types.
    pub fn beside(value: Expr) -> Option<Self> {
        lookup::type_beside(value.base_type(), c"encrypted_filter").map(|filter| Objects { filter })
    }

    /// The same where the oid of encrypted_filter is known.
    pub fn of_filter_type(filter: pg_sys::Oid) -> Option<Self> {
        (filter != pg_sys::InvalidOid).then_some(Objects { filter })
    }

    /// A constant filter.
    pub fn filter_constant(&self, filter: Varlena) -> Option<Expr> {
        Expr::of_type(self.filter, filter)
    }

    /// A call of `pgseal.<name>(arguments)` that returns a filter or several.
    pub fn filter_call(
        &self,
        name: &'static CStr,
        types: &[pg_sys::Oid],
        arguments: &[Expr],
    ) -> Option<Expr> {
        Expr::of_function(self.function(name, types)?, arguments)
    }

    /// Oid of `pgseal.<name>` with these argument types.
    pub fn function(&self, name: &'static CStr, types: &[pg_sys::Oid]) -> Option<pg_sys::Oid> {
        objects::function(name, types)
    }

    /// `left OPERATOR(pgseal.<name>) right`.
    pub fn operator(&self, name: &'static CStr, left: Expr, right: Expr) -> Option<Expr> {
        let operator = objects::operator(name, left.base_type(), right.base_type())?;
        Expr::of_operator(operator, left, right)
    }

    /// `left OPERATOR(pgseal.<name>) ANY (pgseal.filter_parts(filter))`.
    pub fn operator_any(&self, name: &'static CStr, left: Expr, filter: Expr) -> Option<Expr> {
        let parts = self.filter_call(c"filter_parts", &[self.filter], &[filter])?;
        let operator = objects::operator(name, left.base_type(), self.filter)?;
        Expr::of_operator_any(operator, left, parts)
    }
}

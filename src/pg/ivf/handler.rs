//! The access method as PostgreSQL asks it.

use pgrx::pg_sys::Datum;

use crate::core::ivf::page::Tid;
use crate::pg::error::PgError;
use crate::pg::ivf::{build, cost, insert, scan, vacuum};
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::detoast;
use crate::pg::raw::index_am::{
    self, AccessMethod, Building, Built, Cost, CostQuestion, Effort, Left, Order, Vacuum,
};
use crate::pg::raw::index_page::Index;
use crate::pg::raw::index_rows::Rows;

/// `sealed_ivf`.
pub struct SealedIvf;

/// `sealed_ivf_handler(internal)`.
pub fn handler(call: Call) -> Returned {
    index_am::handler::<SealedIvf>(call)
}

impl AccessMethod for SealedIvf {
    type Scan = scan::Scan;
    type Inserts = Option<insert::Inserts>;

    fn build(building: &Building) -> Result<Built, PgError> {
        build::build(building)
    }

    fn build_empty(index: Index) -> Result<(), PgError> {
        build::build_empty(index)
    }

    fn insert(
        index: Index,
        value: Datum,
        tid: Tid,
        kept: &mut Option<insert::Inserts>,
    ) -> Result<(), PgError> {
        insert::insert(index, detoast(value).bytes(), tid, kept)
    }

    fn bulk_delete(
        index: Index,
        vacuum: &Vacuum,
        is_dead: &mut dyn FnMut(Tid) -> bool,
    ) -> Result<Left, PgError> {
        vacuum::bulk_delete(index, vacuum, is_dead)
    }

    fn clean_up(index: Index, _: &Vacuum) -> Result<(), PgError> {
        vacuum::clean_up(index);
        Ok(())
    }

    fn cost(question: &CostQuestion) -> Option<Cost> {
        cost::cost(question)
    }

    fn begin(index: Index) -> Result<scan::Scan, PgError> {
        Ok(scan::Scan::new(index))
    }

    fn restart(scan: &mut scan::Scan, order: &Order) -> Result<(), PgError> {
        scan.restart(order)
    }

    fn next(scan: &mut scan::Scan, rows: &mut Rows) -> Result<Option<Tid>, PgError> {
        scan.next(rows)
    }

    fn effort(scan: &scan::Scan) -> Effort {
        scan.effort()
    }
}

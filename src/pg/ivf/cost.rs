//! What a scan costs, without a look at anything sealed.

use crate::core::ivf::layout::PAGE_BYTES;
use crate::core::ivf::meta::Meta;
use crate::pg::raw::index_am::{Cost, CostQuestion};
use crate::pg::settings;

/// What it costs to open a value and compute its distance, in `cpu_operator_cost`: the operator's own COST.
const OPEN: f64 = 100.0;
/// Rows that are looked at before the first comes out, and for each that comes out.
const LEAST_VISITS: f64 = 30.0;
const VISITS_PER_ROW: f64 = 3.0;
/// Part of the visits that leave memory.
const COLD: f64 = 0.05;

/// Scoring by codes, and visits to the table, before the first row: all that a scan with LIMIT does.
pub fn cost(question: &CostQuestion) -> Option<Cost> {
    if !question.is_ordered() {
        return None;
    }
    let mut page = Box::new([0; PAGE_BYTES]);
    let meta = question.first_page(&mut page).then(|| Meta::read(&page).ok()).flatten();
    let settings = question.settings();
    let rows = question.tuples().max(1.0);
    let (lists, aside) =
        meta.map_or((1.0, 0.0), |meta| (f64::from(meta.lists), f64::from(meta.unassigned_rows)));
    let aside = aside.min(rows);
    // Lists that bring nothing are read as well, before it is known that they do.
    let read = (8.0 + f64::from(settings::ivf_patience())).min(lists) / lists;
    let (scored, pages) = ((rows - aside) * read, question.pages() * read);
    let visit = OPEN * settings.operator + settings.tuple + COLD * settings.random_page;
    let wanted = question.limit().unwrap_or(LEAST_VISITS / VISITS_PER_ROW);
    let visits =
        ((VISITS_PER_ROW * wanted).max(LEAST_VISITS) / question.selectivity().max(1e-9)).min(rows - aside);
    let scoring = scored * settings.operator + pages * settings.sequential_page;
    let startup = scoring + (visits + aside) * visit;
    // Without LIMIT every row is visited, and put in order.
    let whole = scoring / read + rows * (visit + rows.log2() * 2.0 * settings.operator);
    Some(Cost { startup, total: whole.max(startup), pages })
}

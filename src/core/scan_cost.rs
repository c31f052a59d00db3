//! What an iterative scan of pgvector's HNSW index costs, in the planner's units.
//!
//! pgvector prices the search for the first candidates and takes every further one for nearly free. Measured, each
//! further batch visits about as many elements of the graph as the first, and each visit reads a page.

/// One path along an HNSW index, priced by pgvector, and what its scan is bound by.
pub struct IterativeScan {
    /// Cost up to the first candidate: that of the first batch.
    pub startup: f64,
    /// Cost of reading all candidates.
    pub total: f64,
    /// Share of the whole index that pgvector takes the first batch to visit.
    pub visited_share: f64,
    /// Rows of the table.
    pub tuples: f64,
    /// Rows that match the restrictions.
    pub rows: f64,
    /// LIMIT and OFFSET together, where they are known.
    pub wanted: Option<f64>,
    /// Candidates in a batch: `hnsw.ef_search`.
    pub batch: f64,
    /// Visits after which a scan stops searching: `hnsw.max_scan_tuples`.
    pub most_visits: f64,
    /// Cost of a page that is likely to be cached.
    pub page_cost: f64,
}

impl IterativeScan {
    /// The total cost with every further batch paid for. The planner charges LIMIT its share of it.
    pub fn total_cost(&self) -> f64 {
        let share = self.wanted.map_or(1.0, |wanted| (wanted / self.rows.max(1.0)).min(1.0));
        if share <= 0.0 {
            return self.total;
        }
        let visits = (self.tuples * self.visited_share).max(1.0);
        let batch_cost = self.startup.max(visits * self.page_cost);
        self.total + self.further_batches(share * self.tuples, visits) * batch_cost / share
    }

    /// Batches after the first until so many candidates have been met.
    fn further_batches(&self, candidates: f64, visits: f64) -> f64 {
        let further = (candidates / self.batch.max(1.0) - 1.0).max(0.0);
        // A scan that stops before it has met them leaves rows out: no reason to call it cheap.
        if candidates <= self.most_visits { further.min(self.most_visits / visits) } else { further }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100,000 random vector(64): pgvector's figures, without a LIMIT.
    fn scan(rows: f64, wanted: Option<f64>) -> IterativeScan {
        IterativeScan {
            startup: 197.0,
            total: 105_000.0,
            visited_share: 0.007,
            tuples: 100_000.0,
            rows,
            wanted,
            batch: 40.0,
            most_visits: 20_000.0,
            page_cost: 1.0,
        }
    }

    /// What the planner charges a query with this LIMIT (adjust_limit_rows_costs).
    fn limited(scan: &IterativeScan) -> f64 {
        let share = scan.wanted.map_or(1.0, |wanted| wanted / scan.rows);
        scan.startup + share * (scan.total_cost() - scan.startup)
    }

    #[test]
    fn one_batch_that_holds_enough_matches_costs_what_pgvector_says() {
        assert_eq!(scan(50_000.0, Some(10.0)).total_cost(), 105_000.0);
    }

    #[test]
    fn every_further_batch_pays_for_its_visits() {
        let scan = scan(10_000.0, Some(10.0));
        let pgvectors = 197.0 + 0.001 * (105_000.0 - 197.0);
        // 100 candidates are two and a half batches.
        let expected = pgvectors + 1.5 * 700.0;
        assert!((limited(&scan) - expected).abs() < 1.0, "{}", limited(&scan));
    }

    #[test]
    fn visits_cost_what_their_pages_do() {
        let dear = IterativeScan { page_cost: 2.0, ..scan(10_000.0, Some(10.0)) };
        assert!((limited(&dear) - limited(&scan(10_000.0, Some(10.0))) - 1.5 * 700.0).abs() < 1.0);
    }

    #[test]
    fn a_batch_costs_no_less_than_pgvectors_own_first() {
        let long_vectors = IterativeScan { startup: 5_000.0, ..scan(10_000.0, Some(10.0)) };
        assert!(limited(&long_vectors) > 5_000.0 + 1.5 * 5_000.0);
    }

    #[test]
    fn the_price_falls_as_more_rows_match() {
        let prices: Vec<f64> =
            [500.0, 1_000.0, 2_000.0, 5_000.0, 20_000.0].map(|rows| limited(&scan(rows, Some(10.0)))).into();
        assert!(prices.is_sorted_by(|more, less| more > less), "{prices:?}");
    }

    #[test]
    fn a_scan_with_enough_rows_costs_no_more_than_its_visits() {
        let scan = IterativeScan { tuples: 10e6, visited_share: 90e-6, ..scan(10_000.0, Some(10.0)) };
        // 10,000 candidates would be 250 batches, but 20,000 visits are 22.
        let visits = 20_000.0;
        assert!((limited(&scan) - limited_run(&scan) - visits).abs() < 1.0, "{}", limited(&scan));
    }

    #[test]
    fn a_scan_that_stops_before_it_has_enough_rows_is_no_bargain() {
        let scan = IterativeScan { tuples: 10e6, visited_share: 90e-6, ..scan(1_000.0, Some(10.0)) };
        let batches = 100_000.0 / 40.0 - 1.0;
        assert!((limited(&scan) - limited_run(&scan) - batches * 900.0).abs() < 1.0, "{}", limited(&scan));
    }

    #[test]
    fn all_candidates_are_paid_for_without_limit() {
        let batches = 100_000.0 / 40.0 - 1.0;
        assert_eq!(scan(1_000.0, None).total_cost(), 105_000.0 + batches * 700.0);
    }

    #[test]
    fn nothing_wanted_or_known_changes_and_divides_by_nothing() {
        assert_eq!(scan(1_000.0, Some(0.0)).total_cost(), 105_000.0);
        let empty =
            IterativeScan { tuples: 0.0, rows: 0.0, batch: 0.0, visited_share: 1.0, ..scan(0.0, Some(10.0)) };
        assert_eq!(empty.total_cost(), 105_000.0);
    }

    fn limited_run(scan: &IterativeScan) -> f64 {
        let share = scan.wanted.map_or(1.0, |wanted| wanted / scan.rows);
        scan.startup + share * (scan.total - scan.startup)
    }
}

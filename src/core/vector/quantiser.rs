//! Codes of one bit per dimension that estimate a distance and say how far the estimate can be off: RaBitQ
//! (Gao and Long, SIGMOD 2024).
//!
//! A row keeps the signs `s` of its residual `r = x - c` from a centroid. As the best multiple of `s` stands for `r`,
//! `<r, v>` is near `f <s, v>` with `f = |r|^2 / <s, r>`, off by about `|r| |v| sqrt((1/cos^2 - 1) / (D - 1))`, `cos` being
//! that of the angle between `r` and `s`. With `v = q - c`:
//!
//! ```text
//! |q - x|^2 = |q - c|^2 + |r|^2 - 2 <r, v>     L2, and cosine of vectors of length 1
//! -<q, x>   = -<q, c> - <r, c> - <r, v>        inner product
//! ```
//! What depends on the row alone is its additive factor, so one table of the query serves all centroids.

use super::code::{Factors, RowLayout, from_bf16, to_bf16};
use super::distance::{Metric, dot, l2_squared, normalize};
use super::rotation::Rotation;
use super::simd;

/// Rows that are scored at once.
pub const BATCH: usize = 32;
/// Standard errors that a lower bound lies below its estimate.
pub const EPSILON: f32 = 1.9;
/// Bytes of a group of four dimensions in a table and in a block of [`BATCH`] rows.
const GROUP: usize = 16;

/// Makes the codes of one index.
pub struct Quantiser {
    metric: Metric,
    rotation: Rotation,
    rows: RowLayout,
}

/// What is known of a row from its code, smaller is nearer.
#[derive(Clone, Copy, Default)]
pub struct Bound {
    /// Where the distance probably is.
    pub estimate: f32,
    /// Below which it hardly is.
    pub lower: f32,
}

/// A query's way to one centroid.
#[derive(Clone, Copy)]
pub struct Toward {
    /// The distance to the centroid, in the units of [`Bound`].
    base: f32,
    /// The Euclidean distance to it.
    reach: f32,
}

impl Toward {
    /// The distance to the centroid; only to be compared with that to another one.
    pub fn base(self) -> f32 {
        self.base
    }
}

/// A query, prepared to be compared with codes.
pub struct Query {
    metric: Metric,
    rotated: Vec<f32>,
    /// For each four dimensions the sums of the query's elements over all 16 sets of them, in steps from the least.
    tables: Vec<u8>,
    step: f32,
    least: f32,
    sum: f32,
    /// Standard error of a looked-up product: the steps are rounded.
    noise: f32,
    epsilon: f32,
    /// A block of fewer rows than [`BATCH`], spread out.
    spread: Vec<u8>,
}

impl Quantiser {
    /// The quantiser of an index: `seed` is its uuid.
    pub fn new(seed: &[u8; 16], metric: Metric, rows: RowLayout) -> Self {
        Quantiser { metric, rotation: Rotation::new(seed, 8 * rows.code_bytes), rows }
    }

    /// A vector as centroids, rows and queries are compared: rotated, and of length 1 for the cosine.
    /// `None` for a zero vector under the cosine, which no index has.
    pub fn prepare(&self, vector: &[f32]) -> Option<Vec<f32>> {
        let mut rotated = Vec::with_capacity(8 * self.rows.code_bytes);
        rotated.extend_from_slice(vector);
        if self.metric == Metric::Cosine && !normalize(&mut rotated) {
            return None;
        }
        rotated.resize(8 * self.rows.code_bytes, 0.0);
        self.rotation.rotate(&mut rotated);
        Some(rotated)
    }

    /// Appends the row of a prepared vector to `rows`.
    pub fn encode(&self, vector: &[f32], centroid: &[f32], rows: &mut Vec<u8>) {
        let residual: Vec<f32> =
            vector.iter().zip(centroid).map(|(element, centre)| element - centre).collect();
        rows.extend(self.factors(&residual, centroid).to_bytes());
        let bits = residual.chunks_exact(8);
        rows.extend(bits.map(|eight| {
            eight.iter().rev().fold(0_u8, |byte, element| byte << 1 | u8::from(is_positive(*element)))
        }));
    }

    /// Prepares a query from what [`Quantiser::prepare`] has made of it. `epsilon`: see [`EPSILON`].
    pub fn query(&self, rotated: Vec<f32>, epsilon: f32) -> Query {
        let sums: Vec<[f32; GROUP]> = rotated.as_chunks::<4>().0.iter().map(sums_of_sets).collect();
        let least = |sums: &[f32; GROUP]| sums.iter().fold(0.0_f32, |least, sum| least.min(*sum));
        let span = |sums: &[f32; GROUP]| sums.iter().fold(0.0_f32, |most, sum| most.max(*sum)) - least(sums);
        let step = sums.iter().map(span).fold(0.0, f32::max) / 255.0;
        let in_steps = |sums: &[f32; GROUP]| {
            let least = least(sums);
            // A query of zeros has steps of size zero, and NaN is cast to 0.
            sums.map(|sum| ((sum - least) / step + 0.5) as u8)
        };
        Query {
            metric: self.metric,
            tables: sums.iter().flat_map(in_steps).collect(),
            step,
            least: sums.iter().map(least).sum(),
            sum: rotated.iter().sum(),
            noise: 2.0 * step * (sums.len() as f32 / 12.0).sqrt(),
            rotated,
            epsilon,
            spread: Vec::new(),
        }
    }

    fn factors(&self, residual: &[f32], centroid: &[f32]) -> Factors {
        let square = dot(residual, residual);
        let along: f32 = residual.iter().map(|element| element.abs()).sum();
        if square == 0.0 {
            return Factors { additive: -self.own_product(residual, centroid), scale: 0.0, error: 0.0 };
        }
        let dimensions = residual.len() as f32;
        let inverse_cosine = dimensions * square / (along * along);
        let off = (square * (inverse_cosine - 1.0).max(0.0) / (dimensions - 1.0)).sqrt();
        let signs = residual.iter().zip(centroid);
        let signs_product: f32 =
            signs.map(|(element, centre)| if is_positive(*element) { *centre } else { -centre }).sum();
        let factors = match self.metric {
            Metric::InnerProduct => {
                // The row's product with the query counts once and not twice.
                let scale = rounded(square / along / 2.0);
                let additive = 2.0 * scale * signs_product - dot(residual, centroid);
                Factors { additive, scale, error: off }
            }
            Metric::L2 | Metric::Cosine | Metric::L1 => {
                let scale = rounded(square / along);
                let additive = 2.0 * scale * signs_product + square;
                Factors { additive, scale, error: 2.0 * off }
            }
        };
        let is_finite =
            [factors.additive, factors.scale, factors.error].iter().all(|factor| factor.is_finite());
        // Numbers too large for the arithmetic: the row is one that must always be looked at.
        if is_finite { factors } else { Factors { additive: f32::NEG_INFINITY, scale: 0.0, error: 0.0 } }
    }

    fn own_product(&self, residual: &[f32], centroid: &[f32]) -> f32 {
        if self.metric == Metric::InnerProduct { dot(residual, centroid) } else { 0.0 }
    }
}

impl Query {
    /// The way to a centroid.
    pub fn toward(&self, centroid: &[f32]) -> Toward {
        let square = l2_squared(&self.rotated, centroid);
        let base = match self.metric {
            Metric::InnerProduct => -dot(&self.rotated, centroid),
            Metric::L2 | Metric::Cosine | Metric::L1 => square,
        };
        Toward { base, reach: square.sqrt() }
    }

    /// Scores the rows of a block of a list around that centroid; those beyond the block's width get no number.
    pub fn score(&mut self, rows: &RowLayout, block: &[u8], toward: Toward, bounds: &mut [Bound; BATCH]) {
        let mut steps = [0; BATCH];
        let codes = &block[rows.codes_at()..];
        if rows.width == BATCH {
            look_up(&self.tables, codes, &mut steps);
        } else {
            spread(rows.width, codes, &mut self.spread);
            look_up(&self.tables, &self.spread, &mut steps);
            steps.copy_within(BATCH / 2..BATCH / 2 + rows.width / 2, rows.width / 2);
        }
        for ((bound, factors), steps) in bounds.iter_mut().zip(rows.factors(block)).zip(steps) {
            *bound = self.bound(factors, steps, toward);
        }
    }

    fn bound(&self, factors: Factors, steps: u32, toward: Toward) -> Bound {
        let product = 2.0 * (steps as f32 * self.step + self.least) - self.sum;
        let estimate = factors.additive + toward.base - 2.0 * factors.scale * product;
        let off = factors.error * toward.reach + 2.0 * factors.scale * self.noise;
        let lower = estimate - self.epsilon * off;
        // Neither a number nor a bound: too large for the arithmetic.
        if lower.is_nan() {
            Bound { estimate: 0.0, lower: f32::NEG_INFINITY }
        } else {
            Bound { estimate, lower }
        }
    }

    /// A bound as the operator would have it.
    pub fn distance(&self, bound: f32) -> f64 {
        let bound = f64::from(bound);
        match self.metric {
            Metric::InnerProduct => bound,
            Metric::Cosine if bound > 0.0 => bound / 2.0,
            Metric::L2 | Metric::L1 if bound > 0.0 => bound.sqrt(),
            // Nothing is nearer than zero; what must always be looked at comes first all the same.
            Metric::Cosine | Metric::L2 | Metric::L1 => {
                if bound == f64::NEG_INFINITY {
                    bound
                } else {
                    0.0
                }
            }
        }
    }
}

fn is_positive(element: f32) -> bool {
    element > 0.0
}

fn rounded(number: f32) -> f32 {
    from_bf16(to_bf16(number))
}

/// The sums over all sets of four elements; bit `i` of the index is for element `i`.
fn sums_of_sets(elements: &[f32; 4]) -> [f32; GROUP] {
    let mut sums = [0.0; GROUP];
    for (at, element) in elements.iter().enumerate() {
        for set in 0..1 << at {
            sums[set + (1 << at)] = sums[set] + element;
        }
    }
    sums
}

/// Adds up, for each of 32 rows, the entries of the tables that its code says.
fn look_up(tables: &[u8], codes: &[u8], sums: &mut [u32; BATCH]) {
    if !simd::look_up(tables, codes, sums) {
        look_up_scalar(tables, codes, sums);
    }
}

/// The same without AVX2; public so that it is counted where there is AVX2.
pub fn look_up_scalar(tables: &[u8], codes: &[u8], sums: &mut [u32; BATCH]) {
    let (low, high) = sums.split_at_mut(BATCH / 2);
    for (table, group) in tables.chunks_exact(GROUP).zip(codes.chunks_exact(GROUP)) {
        for (at, byte) in group.iter().enumerate() {
            low[at] += u32::from(table[usize::from(byte & 15)]);
            high[at] += u32::from(table[usize::from(byte >> 4)]);
        }
    }
}

/// Codes of a block of `width` rows where those of a block of [`BATCH`] would be.
fn spread(width: usize, codes: &[u8], wide: &mut Vec<u8>) {
    let groups = codes.chunks_exact(width / 2);
    wide.clear();
    wide.resize(groups.len() * GROUP, 0);
    for (wide, group) in wide.chunks_exact_mut(GROUP).zip(groups) {
        wide[..group.len()].copy_from_slice(group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::vector::testing::Random;

    const METRICS: [Metric; 3] = [Metric::L2, Metric::InnerProduct, Metric::Cosine];

    /// Narrow blocks for wide rows.
    fn layout(dimensions: usize) -> RowLayout {
        let width = if dimensions < 1000 { 32 } else { 16 - dimensions / 4000 * 8 };
        RowLayout { code_bytes: dimensions.div_ceil(8), width }
    }

    /// The mean of prepared vectors.
    fn mean(vectors: &[Vec<f32>]) -> Vec<f32> {
        let mut mean = vec![0.0; vectors[0].len()];
        for vector in vectors {
            mean.iter_mut().zip(vector).for_each(|(mean, element)| *mean += element / vectors.len() as f32);
        }
        mean
    }

    /// Bounds of all vectors for a query, both prepared.
    fn bounds(
        quantiser: &Quantiser,
        vectors: &[Vec<f32>],
        centroid: &[f32],
        query: &[f32],
        epsilon: f32,
    ) -> Vec<Bound> {
        let (mut rows, mut blocks) = (Vec::new(), Vec::new());
        vectors.iter().for_each(|vector| quantiser.encode(vector, centroid, &mut rows));
        quantiser.rows.pack(&rows, &mut blocks);
        let mut query = quantiser.query(query.to_vec(), epsilon);
        let toward = query.toward(centroid);
        let mut bounds = Vec::new();
        for block in blocks.chunks_exact(quantiser.rows.block_bytes()) {
            let mut scored = [Bound::default(); BATCH];
            query.score(&quantiser.rows, block, toward, &mut scored);
            bounds.extend_from_slice(&scored[..quantiser.rows.width]);
        }
        bounds.truncate(vectors.len());
        bounds
    }

    fn exact(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
        if metric == Metric::InnerProduct { -dot(a, b) } else { l2_squared(a, b) }
    }

    fn correlation(pairs: &[(f32, f32)]) -> f64 {
        let count = pairs.len() as f64;
        let mean =
            |of: fn(&(f32, f32)) -> f32| pairs.iter().map(|pair| f64::from(of(pair))).sum::<f64>() / count;
        let (x, y) = (mean(|pair| pair.0), mean(|pair| pair.1));
        let off = |pair: &(f32, f32)| (f64::from(pair.0) - x, f64::from(pair.1) - y);
        let sum = |of: fn((f64, f64)) -> f64| pairs.iter().map(|pair| of(off(pair))).sum::<f64>();
        sum(|(x, y)| x * y) / (sum(|(x, _)| x * x) * sum(|(_, y)| y * y)).sqrt()
    }

    /// Exact distances of vectors in clusters, and what is known of them.
    fn scored(metric: Metric, dimensions: usize) -> Vec<(f32, Bound)> {
        let quantiser = Quantiser::new(&[7; 16], metric, layout(dimensions));
        let vectors = Random::new(6).clustered(60, dimensions, 6, 0.5);
        let mut vectors: Vec<Vec<f32>> =
            vectors.iter().map(|vector| quantiser.prepare(vector).unwrap()).collect();
        let centroid = mean(&vectors);
        let queries = vectors.split_off(50);
        let of_query = |query: &Vec<f32>| {
            let bounds = bounds(&quantiser, &vectors, &centroid, query, EPSILON);
            let exact = vectors.iter().map(|vector| exact(metric, vector, query));
            exact.zip(bounds).collect::<Vec<_>>()
        };
        queries.iter().flat_map(of_query).collect()
    }

    /// The part of the bounds that hold so many standard errors below the estimate.
    fn held(scored: &[(f32, Bound)], epsilon: f32) -> f64 {
        let lower = |bound: &Bound| bound.estimate - (bound.estimate - bound.lower) * epsilon / EPSILON;
        let held = scored.iter().filter(|(exact, bound)| lower(bound) <= *exact).count();
        held as f64 / scored.len() as f64
    }

    #[test]
    fn bounds_hold_and_estimates_follow_the_distance() {
        for dimensions in [64, 100, 384, 1000, 4000] {
            for metric in METRICS {
                let scored = scored(metric, dimensions);
                // One side of a normal distribution: 97.1 % lie within 1.9 standard errors, 99.4 % within 2.5.
                let parts = [held(&scored, EPSILON), held(&scored, 2.5)];
                assert!(parts[0] >= 0.96 && parts[1] >= 0.985, "{dimensions} {metric:?}: {parts:?}");
                let pairs: Vec<(f32, f32)> =
                    scored.iter().map(|(exact, bound)| (*exact, bound.estimate)).collect();
                let correlation = correlation(&pairs);
                assert!(correlation >= 0.96, "{dimensions} {metric:?}: {correlation}");
            }
        }
    }

    #[test]
    fn a_row_is_what_its_format_says() {
        let quantiser = Quantiser::new(&[7; 16], Metric::L2, layout(16));
        let vector: Vec<f32> = (0..16_u8).map(f32::from).collect();
        let mut row = Vec::new();
        quantiser.encode(&quantiser.prepare(&vector).unwrap(), &[0.0; 16], &mut row);
        assert_eq!(row, [254, 255, 154, 68, 95, 65, 179, 65, 32, 204]);
    }

    #[test]
    fn a_vector_that_is_its_centroid_is_known_exactly() {
        for metric in METRICS {
            let quantiser = Quantiser::new(&[7; 16], metric, layout(64));
            let mut random = Random::new(10);
            let [vector, query] =
                [random.vector(64), random.vector(64)].map(|vector| quantiser.prepare(&vector).unwrap());
            let bound = bounds(&quantiser, std::slice::from_ref(&vector), &vector, &query, EPSILON)[0];
            let exact = exact(metric, &vector, &query);
            assert!((bound.estimate - exact).abs() <= 1e-4 * exact.abs() && bound.lower == bound.estimate);
        }
    }

    #[test]
    fn kernels_look_up_what_the_scalar_code_does() {
        let mut random = Random::new(7);
        for groups in [2, 4, 96, 500, 510, 512, 514, 1000] {
            for most in [256, 1] {
                let tables: Vec<u8> = (0..GROUP * groups).map(|_| 255 - random.below(most) as u8).collect();
                let codes: Vec<u8> = (0..GROUP * groups).map(|_| random.bits() as u8).collect();
                let (mut fast, mut scalar) = ([0; BATCH], [0; BATCH]);
                if simd::look_up(&tables, &codes, &mut fast) {
                    look_up_scalar(&tables, &codes, &mut scalar);
                    assert_eq!(fast, scalar, "{groups} groups");
                }
            }
        }
    }
}

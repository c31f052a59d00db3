//! Distances of vectors as pgvector's operators give them: `<->`, `<#>`, `<=>` and `<+>`.
//!
//! Every sum is made in [`LANES`] partial sums and one fixed order, by the scalar code here and by the kernels in
//! `simd`: all processors give the same bits, so that the order of results is the same on a standby. Two slices are
//! compared up to the shorter one's end; whoever has vectors from outside checks that they are equally long.

use super::simd;

/// Partial sums of a kernel.
pub(super) const LANES: usize = 32;
/// As many elements as one step takes.
pub(super) type Step = [f32; LANES];

/// How far two vectors are from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Metric {
    /// Euclidean distance, `<->`.
    L2 = 1,
    /// Inner product, negated: `<#>`.
    InnerProduct = 2,
    /// 1 - cosine of the angle, `<=>`.
    Cosine = 3,
    /// Sum of the absolute differences, `<+>`; no index has it.
    L1 = 4,
}

impl Metric {
    /// The distance by this metric.
    pub fn distance(self, a: &[f32], b: &[f32]) -> f64 {
        match self {
            Metric::L2 => l2_distance(a, b),
            Metric::InnerProduct => negative_inner_product(a, b),
            Metric::Cosine => cosine_distance(a, b),
            Metric::L1 => l1_distance(a, b),
        }
    }
}

/// `<->`.
pub fn l2_distance(a: &[f32], b: &[f32]) -> f64 {
    f64::from(l2_squared(a, b)).sqrt()
}

/// `<#>`.
pub fn negative_inner_product(a: &[f32], b: &[f32]) -> f64 {
    -f64::from(dot(a, b))
}

/// `<=>`; NaN where one of the vectors is zero.
pub fn cosine_distance(a: &[f32], b: &[f32]) -> f64 {
    let norms = f64::from(dot(a, a)) * f64::from(dot(b, b));
    // A NaN passes clamp.
    1.0 - (f64::from(dot(a, b)) / norms.sqrt()).clamp(-1.0, 1.0)
}

/// `<+>`.
pub fn l1_distance(a: &[f32], b: &[f32]) -> f64 {
    f64::from(l1(a, b))
}

/// The Euclidean length of a vector.
pub fn norm(a: &[f32]) -> f64 {
    a.iter().map(|element| f64::from(*element).powi(2)).sum::<f64>().sqrt()
}

/// Scales a vector to length 1. `false`, and the vector as it was, where its length is zero.
pub fn normalize(a: &mut [f32]) -> bool {
    let norm = norm(a);
    let has_length = norm > 0.0;
    if has_length {
        a.iter_mut().for_each(|element| *element = (f64::from(*element) / norm) as f32);
    }
    has_length
}

/// Sum of the squared differences.
pub fn l2_squared(a: &[f32], b: &[f32]) -> f32 {
    simd::l2_squared(a, b).unwrap_or_else(|| sum(a, b, |a, b| (a - b) * (a - b)))
}

/// Inner product.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    simd::dot(a, b).unwrap_or_else(|| sum(a, b, |a, b| a * b))
}

/// Sum of the absolute differences.
pub fn l1(a: &[f32], b: &[f32]) -> f32 {
    simd::l1(a, b).unwrap_or_else(|| sum(a, b, |a, b| (a - b).abs()))
}

/// The scalar kernel: sums `term` over all pairs of elements.
fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0; LANES];
    for_each_step(a, b, |a, b| {
        for lane in 0..LANES {
            sums[lane] += term(a[lane], b[lane]);
        }
    });
    fold(sums)
}

/// Both slices step by step; the last step is filled up with zeros, which add nothing to any of the sums.
#[inline(always)]
pub(super) fn for_each_step(a: &[f32], b: &[f32], mut step: impl FnMut(&Step, &Step)) {
    let length = a.len().min(b.len());
    let ((steps_a, rest_a), (steps_b, rest_b)) = (a[..length].as_chunks(), b[..length].as_chunks());
    for (a, b) in steps_a.iter().zip(steps_b) {
        step(a, b);
    }
    if !rest_a.is_empty() {
        step(&filled(rest_a), &filled(rest_b));
    }
}

fn filled(rest: &[f32]) -> Step {
    let mut step = [0.0; LANES];
    step[..rest.len()].copy_from_slice(rest);
    step
}

/// The sum of the partial sums, halves upon halves.
pub(super) fn fold(mut sums: Step) -> f32 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::vector::testing::Random;

    type Kernel = fn(&[f32], &[f32]) -> Option<f32>;
    type Term = fn(f32, f32) -> f32;

    const KERNELS: [(&str, Kernel, Term); 3] = [
        ("l2", simd::l2_squared, |a, b| (a - b) * (a - b)),
        ("dot", simd::dot, |a, b| a * b),
        ("l1", simd::l1, |a, b| (a - b).abs()),
    ];

    fn assert_agree(a: &[f32], b: &[f32]) {
        for (name, kernel, term) in KERNELS {
            let (Some(fast), scalar) = (kernel(a, b), sum(a, b, term)) else { return };
            let same = fast.to_bits() == scalar.to_bits() || fast.is_nan() && scalar.is_nan();
            assert!(same, "{name} of {} elements: {fast} and {scalar}", a.len());
        }
    }

    #[test]
    fn kernels_give_the_bits_of_the_scalar_code() {
        let mut random = Random::new(1);
        for length in 0..=600 {
            assert_agree(&random.vector(length), &random.vector(length));
        }
        let edges = [0.0, -0.0, 1e-45, f32::MIN_POSITIVE, 1e30, f32::MAX, f32::MIN, f32::INFINITY, f32::NAN];
        for a in edges {
            for b in edges {
                for length in [1, 7, 31, 32, 33, 100] {
                    assert_agree(&vec![a; length], &vec![b; length]);
                }
            }
        }
    }

    #[test]
    fn operators_give_what_pgvector_documents() {
        let (a, b) = ([1.0, 2.0, 3.0], [4.0, 6.0, 3.0]);
        assert_eq!(Metric::L2.distance(&a, &b), 5.0);
        assert_eq!(Metric::InnerProduct.distance(&a, &b), -25.0);
        assert_eq!(Metric::L1.distance(&a, &b), 7.0);
        assert_eq!(Metric::Cosine.distance(&[1.0, 1.0], &[-1.0, 1.0]), 1.0);
        assert_eq!(Metric::Cosine.distance(&[1.0, 2.0], &[2.0, 4.0]), 0.0);
        assert_eq!(Metric::Cosine.distance(&[1.0, 1.0], &[-1.1, -1.1]), 2.0);
        assert!(Metric::Cosine.distance(&[1.0, 2.0], &[0.0, 0.0]).is_nan());
    }

    #[test]
    fn distances_that_overflow_are_infinite() {
        assert_eq!(Metric::L2.distance(&[3e38], &[-3e38]), f64::INFINITY);
        assert_eq!(Metric::L1.distance(&[3e38], &[-3e38]), f64::INFINITY);
        assert_eq!(Metric::InnerProduct.distance(&[3e38], &[3e38]), f64::NEG_INFINITY);
    }

    #[test]
    fn a_vector_is_scaled_to_length_one() {
        let mut vector = [3.0, 4.0];
        assert_eq!(norm(&vector), 5.0);
        assert!(normalize(&mut vector));
        assert_eq!(vector, [0.6, 0.8]);
        let mut zero = [0.0, 0.0];
        assert!(!normalize(&mut zero));
        assert_eq!(zero, [0.0, 0.0]);
    }

    #[test]
    fn tiny_and_huge_vectors_keep_their_length() {
        assert_eq!(norm(&[3e38, 4e37]).log10().round(), 38.0);
        assert!(normalize(&mut [1e-40, 0.0]));
    }
}

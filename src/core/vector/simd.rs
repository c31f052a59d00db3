//! The kernels for x86-64 with AVX2. Each has a scalar twin that gives the same bits, and gives `None` where the
//! processor has no AVX2.
#![allow(
    unsafe_code,
    reason = "loads of whole registers, and calls of functions for a processor that was asked"
)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
use super::distance::{LANES, Step, fold, for_each_step};

/// Numbers of one register.
#[cfg(target_arch = "x86_64")]
const REGISTER: usize = 8;

/// A sum over pairs of elements.
macro_rules! sum_kernel {
    ($(#[$comment:meta])* $name:ident, |$a:ident, $b:ident| $term:expr) => {
        $(#[$comment])*
        pub fn $name(a: &[f32], b: &[f32]) -> Option<f32> {
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has AVX2.
                return Some(unsafe { kernel(a, b) });
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn kernel(a: &[f32], b: &[f32]) -> f32 {
                let mut sums = [_mm256_setzero_ps(); LANES / REGISTER];
                for_each_step(a, b, |a, b| {
                    for (sum, ($a, $b)) in sums.iter_mut().zip(loaded(a).into_iter().zip(loaded(b))) {
                        *sum = _mm256_add_ps(*sum, $term);
                    }
                });
                fold(stored(sums))
            }
            let _ = (a, b);
            None
        }
    };
}

sum_kernel!(
    /// Twin of the scalar sum in [`super::distance::l2_squared`].
    l2_squared,
    |a, b| {
        let difference = _mm256_sub_ps(a, b);
        _mm256_mul_ps(difference, difference)
    }
);
sum_kernel!(
    /// Twin of the scalar sum in [`super::distance::dot`].
    dot,
    |a, b| _mm256_mul_ps(a, b)
);
sum_kernel!(
    /// Twin of the scalar sum in [`super::distance::l1`].
    l1,
    |a, b| _mm256_andnot_ps(_mm256_set1_ps(-0.0), _mm256_sub_ps(a, b))
);

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn loaded(step: &Step) -> [__m256; LANES / REGISTER] {
    // SAFETY: both types are the same 128 bytes, and every pattern of them is a value of either.
    unsafe { std::mem::transmute(*step) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn stored(registers: [__m256; LANES / REGISTER]) -> Step {
    // SAFETY: both types are the same 128 bytes, and every pattern of them is a value of either.
    unsafe { std::mem::transmute(registers) }
}

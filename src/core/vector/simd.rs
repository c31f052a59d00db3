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

/// Twin of `look_up_scalar` in `quantiser`; `false`, and nothing is done, where the processor has no AVX2.
pub fn look_up(tables: &[u8], codes: &[u8], sums: &mut [u32; 32]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        unsafe { look_up_avx2(tables, codes, sums) };
        return true;
    }
    let _ = (tables, codes, sums);
    false
}

/// Two groups of 16 bytes at a time, one in each half of a register.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn look_up_avx2(tables: &[u8], codes: &[u8], sums: &mut [u32; 32]) {
    /// Steps of at most 255 that a sum of 16 bits holds.
    const STEPS: usize = 256;
    let ((tables, _), (codes, _)) = (tables.as_chunks::<32>(), codes.as_chunks::<32>());
    let (low_half, zero) = (_mm256_set1_epi8(15), _mm256_setzero_si256());
    for (tables, codes) in tables.chunks(STEPS).zip(codes.chunks(STEPS)) {
        // Rows 0 to 7, 8 to 15, 16 to 23 and 24 to 31.
        let mut partial = [zero; 4];
        for (table, code) in tables.iter().zip(codes) {
            let (table, code) = (bytes(table), bytes(code));
            let low = _mm256_shuffle_epi8(table, _mm256_and_si256(code, low_half));
            let high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(code, 4), low_half));
            partial[0] = _mm256_add_epi16(partial[0], _mm256_unpacklo_epi8(low, zero));
            partial[1] = _mm256_add_epi16(partial[1], _mm256_unpackhi_epi8(low, zero));
            partial[2] = _mm256_add_epi16(partial[2], _mm256_unpacklo_epi8(high, zero));
            partial[3] = _mm256_add_epi16(partial[3], _mm256_unpackhi_epi8(high, zero));
        }
        for (sums, partial) in sums.as_chunks_mut::<8>().0.iter_mut().zip(partial) {
            let partial = halves(partial);
            for (at, sum) in sums.iter_mut().enumerate() {
                *sum += u32::from(partial[at]) + u32::from(partial[at + 8]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn bytes(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: both types are the same 32 bytes, and every pattern of them is a value of either.
    unsafe { std::mem::transmute(*bytes) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn halves(register: __m256i) -> [u16; 16] {
    // SAFETY: both types are the same 32 bytes, and every pattern of them is a value of either.
    unsafe { std::mem::transmute(register) }
}

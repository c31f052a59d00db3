//! A public rotation that spreads what a vector has in few elements over all of them. It makes codes of one bit accurate;
//! it hides nothing.
//!
//! Four rounds of: signs, a Hadamard transform of the first or last 2^k elements, and each element of the first half with
//! its partner in the second. Every step keeps lengths and angles. Part of the page format.

use std::f32::consts::FRAC_1_SQRT_2;

use sha2::{Digest, Sha256};

const LABEL: &[u8] = b"pgseal/v1/ivf/rotation";
const ROUNDS: usize = 4;

/// The rotation of one index.
pub struct Rotation {
    /// 1 or -1 for each element, round by round.
    signs: Vec<f32>,
    dimensions: usize,
}

impl Rotation {
    /// The rotation that belongs to `seed`, of vectors that are filled up with zeros to `dimensions`, a multiple of eight.
    pub fn new(seed: &[u8; 16], dimensions: usize) -> Self {
        let mut signs = Vec::with_capacity(ROUNDS * dimensions);
        for counter in 0_u32.. {
            let block =
                Sha256::new().chain_update(LABEL).chain_update(seed).chain_update(counter.to_be_bytes());
            let bits = block.finalize().into_iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1));
            signs.extend(bits.take(ROUNDS * dimensions - signs.len()).map(|bit| 1.0 - 2.0 * f32::from(bit)));
            if signs.len() == ROUNDS * dimensions {
                break;
            }
        }
        Rotation { signs, dimensions }
    }

    /// Rotates in place; `vector` has the rotation's dimensions.
    pub fn rotate(&self, vector: &mut [f32]) {
        let window = 1 << self.dimensions.ilog2();
        for (round, signs) in self.signs.chunks_exact(self.dimensions).enumerate() {
            vector.iter_mut().zip(signs).for_each(|(element, sign)| *element *= sign);
            let start = if round % 2 == 0 { 0 } else { self.dimensions - window };
            hadamard(&mut vector[start..start + window]);
            mix_halves(vector);
        }
    }
}

/// Orthonormal Walsh-Hadamard transform of 2^k elements.
fn hadamard(vector: &mut [f32]) {
    let mut width = 1;
    while width < vector.len() {
        for pair in vector.chunks_exact_mut(2 * width) {
            let (low, high) = pair.split_at_mut(width);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        width *= 2;
    }
    let scale = 1.0 / (vector.len() as f32).sqrt();
    vector.iter_mut().for_each(|element| *element *= scale);
}

fn mix_halves(vector: &mut [f32]) {
    let (low, high) = vector.split_at_mut(vector.len() / 2);
    for (a, b) in low.iter_mut().zip(high) {
        (*a, *b) = ((*a + *b) * FRAC_1_SQRT_2, (*a - *b) * FRAC_1_SQRT_2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::vector::distance::{dot, norm};
    use crate::core::vector::testing::Random;

    const SIZES: [usize; 7] = [8, 16, 64, 248, 384, 1536, 4000];

    #[test]
    fn a_rotation_keeps_lengths_and_angles() {
        let mut random = Random::new(5);
        for dimensions in SIZES {
            let rotation = Rotation::new(&[7; 16], dimensions);
            let [mut a, mut b] = [random.vector(dimensions), random.vector(dimensions)];
            let (length, product) = (norm(&a), dot(&a, &b));
            rotation.rotate(&mut a);
            rotation.rotate(&mut b);
            assert!((norm(&a) - length).abs() < 1e-4 * length);
            assert!(f64::from((dot(&a, &b) - product).abs()) < 1e-4 * length * norm(&b));
        }
    }

    #[test]
    fn a_rotation_spreads_a_single_element_over_all() {
        for dimensions in SIZES.into_iter().filter(|dimensions| *dimensions >= 64) {
            let rotation = Rotation::new(&[7; 16], dimensions);
            for at in [0, dimensions / 2, dimensions - 1] {
                let mut vector = vec![0.0; dimensions];
                vector[at] = 1.0;
                rotation.rotate(&mut vector);
                let largest = vector.iter().fold(0.0_f32, |most, element| most.max(element.abs()));
                assert!(largest * (dimensions as f32).sqrt() < 6.0, "{dimensions}: {largest}");
            }
        }
    }

    #[test]
    fn a_rotation_is_what_its_seed_says() {
        let rotated = |seed| {
            let mut vector: Vec<f32> = (0..24_u8).map(f32::from).collect();
            Rotation::new(seed, 24).rotate(&mut vector);
            vector
        };
        assert_eq!(rotated(&[7; 16]), rotated(&[7; 16]));
        assert_ne!(rotated(&[7; 16]), rotated(&[8; 16]));
        assert_eq!(rotated(&[7; 16])[..3], [13.703123, -7.328123, -8.984374]);
    }
}

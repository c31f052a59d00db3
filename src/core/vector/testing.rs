//! Random vectors for tests, the same in every run.

/// SplitMix64 (Steele, Lea and Flood 2014).
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound as u64) as usize
    }

    /// Roughly normal, of mean 0 and variance 1: a sum of uniform numbers (Irwin-Hall).
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.bits() >> 40) as f32 / (1 << 24) as f32).sum::<f32>() - 6.0
    }

    /// So many normal elements.
    pub fn vector(&mut self, dimensions: usize) -> Vec<f32> {
        (0..dimensions).map(|_| self.normal()).collect()
    }

    /// Vectors around a few centres, as embeddings of texts are: `(centres, spread)` of standard deviation 1 and `spread`.
    pub fn clustered(
        &mut self,
        count: usize,
        dimensions: usize,
        centres: usize,
        spread: f32,
    ) -> Vec<Vec<f32>> {
        let centres: Vec<Vec<f32>> = (0..centres).map(|_| self.vector(dimensions)).collect();
        let near = |random: &mut Self| {
            let centre = &centres[random.below(centres.len())];
            centre.iter().map(|element| element + spread * random.normal()).collect()
        };
        (0..count).map(|_| near(self)).collect()
    }
}

//! Rows of an index: three factors and a sign for every dimension, one after the other or in blocks.
//!
//! ```text
//! row    additive f32 | scale bf16 | error bf16 | code, dimension i in bit i % 8 of byte i / 8
//! block  additive of each row | scale of each row | error of each row | codes, transposed
//! ```
//! All little-endian. The transposed codes hold, for every four dimensions, four bits of each row: those of row `r` of
//! `w` in the low half of byte `r` where `r < w / 2`, and in the high half of byte `r - w / 2` elsewhere. So one
//! instruction looks up the same four dimensions of many rows.

/// Bytes of a row's three factors.
pub const FACTOR_BYTES: usize = 8;

const SCALE_AT: usize = 4;
const ERROR_AT: usize = 6;

/// Sizes of the rows of one index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowLayout {
    /// Bytes of a code.
    pub code_bytes: usize,
    /// Rows of a block: 8, 16 or 32.
    pub width: usize,
}

/// What a row says besides its code.
#[derive(Clone, Copy)]
pub struct Factors {
    /// What is added to the estimate.
    pub additive: f32,
    /// By what the code's product counts.
    pub scale: f32,
    /// How far the estimate can be off, times the distance of the query from the centroid.
    pub error: f32,
}

impl RowLayout {
    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        FACTOR_BYTES + self.code_bytes
    }

    /// Bytes of one block.
    pub fn block_bytes(&self) -> usize {
        self.width * self.row_bytes()
    }

    /// Bytes of the blocks for so many rows.
    pub fn blocks_bytes(&self, rows: usize) -> usize {
        rows.div_ceil(self.width) * self.block_bytes()
    }

    /// Where a block's codes begin.
    pub fn codes_at(&self) -> usize {
        self.width * FACTOR_BYTES
    }

    /// Appends `rows`, one after the other, to `blocks`; the last block is filled up with zeros.
    pub fn pack(&self, rows: &[u8], blocks: &mut Vec<u8>) {
        for rows in rows.chunks(self.width * self.row_bytes()) {
            let start = blocks.len();
            blocks.resize(start + self.block_bytes(), 0);
            let block = &mut blocks[start..];
            rows.chunks_exact(self.row_bytes()).enumerate().for_each(|(at, row)| self.put(block, at, row));
        }
    }

    /// Appends one of the rows of `blocks` to `rows`.
    pub fn unpack(&self, blocks: &[u8], row: usize, rows: &mut Vec<u8>) {
        let block = &blocks[row / self.width * self.block_bytes()..][..self.block_bytes()];
        let at = row % self.width;
        let (byte, shift) = self.lane(at);
        rows.extend_from_slice(&block[4 * at..][..4]);
        rows.extend_from_slice(&block[self.scale_at(at)..][..2]);
        rows.extend_from_slice(&block[self.error_at(at)..][..2]);
        let groups = block[self.codes_at()..].chunks_exact(self.width);
        // Two groups of four dimensions make a byte of the code.
        let (low, high) = (byte, self.width / 2 + byte);
        rows.extend(groups.map(|pair| (pair[low] >> shift & 15) | (pair[high] >> shift & 15) << 4));
    }

    /// The factors of a block's rows.
    pub fn factors<'a>(&self, block: &'a [u8]) -> impl Iterator<Item = Factors> + 'a {
        let (additive, rest) = block.split_at(SCALE_AT * self.width);
        let (scales, errors) = rest.split_at((ERROR_AT - SCALE_AT) * self.width);
        let errors = &errors[..(FACTOR_BYTES - ERROR_AT) * self.width];
        let factors = additive.as_chunks().0.iter().zip(scales.as_chunks().0).zip(errors.as_chunks().0);
        factors.map(|((additive, scale), error)| Factors {
            additive: f32::from_le_bytes(*additive),
            scale: from_bf16(*scale),
            error: from_bf16(*error),
        })
    }

    fn put(&self, block: &mut [u8], at: usize, row: &[u8]) {
        let (byte, shift) = self.lane(at);
        let (scale, error) = (self.scale_at(at), self.error_at(at));
        block[4 * at..4 * at + 4].copy_from_slice(&row[..SCALE_AT]);
        block[scale..scale + 2].copy_from_slice(&row[SCALE_AT..ERROR_AT]);
        block[error..error + 2].copy_from_slice(&row[ERROR_AT..FACTOR_BYTES]);
        let (low, high) = (byte, self.width / 2 + byte);
        let groups = block[self.codes_at()..].chunks_exact_mut(self.width);
        for (pair, code) in groups.zip(&row[FACTOR_BYTES..]) {
            pair[low] |= (code & 15) << shift;
            pair[high] |= (code >> 4) << shift;
        }
    }

    fn scale_at(&self, at: usize) -> usize {
        SCALE_AT * self.width + 2 * at
    }

    fn error_at(&self, at: usize) -> usize {
        ERROR_AT * self.width + 2 * at
    }

    /// The byte of each group that has a row's four bits, and how far they are shifted.
    fn lane(&self, at: usize) -> (usize, u32) {
        let half = self.width / 2;
        if at < half { (at, 0) } else { (at - half, 4) }
    }
}

impl Factors {
    /// The bytes in front of a row's code. The scale is one that [`to_bf16`] has rounded; the error is rounded up.
    pub fn to_bytes(self) -> [u8; FACTOR_BYTES] {
        let mut bytes = [0; FACTOR_BYTES];
        bytes[..SCALE_AT].copy_from_slice(&self.additive.to_le_bytes());
        bytes[SCALE_AT..ERROR_AT].copy_from_slice(&to_bf16(self.scale));
        bytes[ERROR_AT..].copy_from_slice(&to_bf16_up(self.error));
        bytes
    }
}

/// The nearest bfloat16: the upper half of a binary32. For finite numbers.
pub fn to_bf16(number: f32) -> [u8; 2] {
    bf16_of(number.to_bits().saturating_add(0x8000))
}

/// The next bfloat16 that is not smaller; for finite numbers from zero.
fn to_bf16_up(number: f32) -> [u8; 2] {
    bf16_of(number.to_bits().saturating_add(0xFFFF))
}

/// A bfloat16 as a binary32.
pub fn from_bf16(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

fn bf16_of(bits: u32) -> [u8; 2] {
    ((bits >> 16) as u16).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::vector::testing::Random;

    #[test]
    fn rows_come_back_from_blocks_of_every_width() {
        let mut random = Random::new(2);
        for (width, code_bytes) in [(8, 1), (8, 500), (16, 128), (32, 48), (32, 3)] {
            let layout = RowLayout { code_bytes, width };
            for count in [1, width - 1, width, 2 * width + 3] {
                let rows: Vec<u8> = (0..count * layout.row_bytes()).map(|_| random.bits() as u8).collect();
                let (mut blocks, mut back) = (Vec::new(), Vec::new());
                layout.pack(&rows, &mut blocks);
                assert_eq!(blocks.len(), layout.blocks_bytes(count));
                (0..count).for_each(|row| layout.unpack(&blocks, row, &mut back));
                assert_eq!(back, rows);
            }
        }
    }

    #[test]
    fn a_bfloat16_is_nearest_or_not_smaller() {
        for number in [0.0, 1.0, 1.003, 1.006, 3.0e-9, 12345.6] {
            let (near, up) = (from_bf16(to_bf16(number)), from_bf16(to_bf16_up(number)));
            assert!((near - number).abs() <= number / 256.0, "{near} is not near {number}");
            assert!(up >= number && up <= number * (1.0 + 1.0 / 128.0), "{up} is not above {number}");
        }
        assert_eq!(from_bf16(to_bf16(-1.006)), -from_bf16(to_bf16(1.006)));
    }
}

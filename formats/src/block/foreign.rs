//! Layouts of other programs, and of earlier versions of llama.cpp, that hold the values of one of ggml's types with their
//! rows interleaved or in longer blocks. Unpacking gives that type's blocks, with the same values. They are never written.
//!
//! Sources: `make_block_q4_0x4` and `make_block_q4_0x8` in ggml's `ggml-aarch64.c` (August to November 2024); `block_pq2_0`
//! in `ggml-common.h` of PrismML's fork of llama.cpp.

use super::DType;

/// A layout that holds the values of one of ggml's types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types)]
#[non_exhaustive]
pub enum Foreign {
    /// Q4_0 with four rows interleaved, four bytes of codes at a time.
    Q4_0_4_4,
    /// Q4_0 with four rows interleaved, eight bytes of codes at a time.
    Q4_0_4_8,
    /// Q4_0 with eight rows interleaved, eight bytes of codes at a time.
    Q4_0_8_8,
    /// PrismML's form of Q2_0: one scale for 128 weights instead of 64.
    PQ2_0,
}

/// Every layout with the number that it has, or had, in GGUF.
pub const FOREIGN: [(u32, Foreign); 4] =
    [(31, Foreign::Q4_0_4_4), (32, Foreign::Q4_0_4_8), (33, Foreign::Q4_0_8_8), (142, Foreign::PQ2_0)];

/// Bytes of a block of Q4_0: a half-precision scale and 16 bytes of codes.
const Q4_0: usize = 18;
/// Bytes of a block of Q2_0, and of the codes in it.
const Q2_0: (usize, usize) = (18, 16);

impl Foreign {
    /// The name that people use, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q4_0_4_4 => "q4_0_4_4",
            Self::Q4_0_4_8 => "q4_0_4_8",
            Self::Q4_0_8_8 => "q4_0_8_8",
            Self::PQ2_0 => "pq2_0",
        }
    }

    /// The type whose values it holds.
    pub fn dtype(self) -> DType {
        match self {
            Self::PQ2_0 => DType::Q2_0,
            _ => DType::Q4_0,
        }
    }

    /// What the length of rows is a multiple of: the weights in a block of [`Foreign::dtype`].
    pub fn weights(self) -> usize {
        self.dtype().info().weights
    }

    /// Rows of `cols` weights that are stored together. A block of PQ2_0 has 128 weights, which may be those of two rows.
    pub fn rows(self, cols: u64) -> usize {
        match self.interleaved() {
            Some((rows, _)) => rows,
            None => 1 + usize::from(!cols.is_multiple_of(128)),
        }
    }

    /// The rows that are interleaved, and the bytes of codes that each gives in turn.
    fn interleaved(self) -> Option<(usize, usize)> {
        match self {
            Self::Q4_0_4_4 => Some((4, 4)),
            Self::Q4_0_4_8 => Some((4, 8)),
            Self::Q4_0_8_8 => Some((8, 8)),
            Self::PQ2_0 => None,
        }
    }

    /// The bytes of so many weights; `None` if they are not whole blocks or the number of bytes overflows.
    pub fn bytes_for(self, elements: u64) -> Option<u64> {
        match self {
            Self::PQ2_0 => elements.is_multiple_of(128).then(|| (elements / 128).checked_mul(34))?,
            _ => DType::Q4_0.bytes_for(elements),
        }
    }

    /// Unpacks rows of `cols` weights into the blocks of [`Foreign::dtype`]. Scales keep their byte order.
    ///
    /// # Panics
    /// If `cols` is not whole blocks. Bytes behind the last whole [`Foreign::rows`] are left out.
    pub fn unpack(self, cols: usize, stored: &[u8]) -> Vec<u8> {
        assert!(cols.is_multiple_of(self.weights()), "whole blocks");
        let Some((rows, run)) = self.interleaved() else {
            let (blocks, _) = stored.as_chunks::<34>();
            let mut out = Vec::with_capacity(blocks.len() * 2 * Q2_0.0);
            for block in blocks {
                let (scale, codes) = block.split_at(2);
                codes.chunks_exact(Q2_0.1).for_each(|codes| out.extend([scale, codes].concat()));
            }
            return out;
        };
        let blocks = cols / self.weights();
        let group = rows * blocks * Q4_0;
        let mut out = vec![0; stored.len()];
        for (stored, out) in stored.chunks_exact(group.max(1)).zip(out.chunks_exact_mut(group.max(1))) {
            for (x, block) in stored.chunks_exact(rows * Q4_0).enumerate() {
                let (scales, codes) = block.split_at(2 * rows);
                for r in 0..rows {
                    let out = &mut out[(r * blocks + x) * Q4_0..][..Q4_0];
                    out[..2].copy_from_slice(&scales[2 * r..2 * r + 2]);
                    for (j, out) in out[2..].iter_mut().enumerate() {
                        // Codes are stored as signed numbers of four bits.
                        *out = codes[(j / run * rows + r) * run + j % run] ^ 0x88;
                    }
                }
            }
        }
        out.truncate(stored.len() / group.max(1) * group);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packs rows of Q4_0 as ggml did: byte i of the codes is that of row `i % (rows · run) / run`.
    fn interleave(rows: usize, run: usize, cols: usize, plain: &[u8]) -> Vec<u8> {
        let blocks = cols / 32;
        let mut out = Vec::new();
        for group in plain.chunks_exact(rows * blocks * Q4_0) {
            for x in 0..blocks {
                let block = |r: usize| &group[(r * blocks + x) * Q4_0..][..Q4_0];
                (0..rows).for_each(|r| out.extend(&block(r)[..2]));
                for i in 0..16 * rows {
                    let (row, at) = (i % (rows * run) / run, i / (rows * run) * run + i % run);
                    out.push(block(row)[2 + at] ^ 0x88);
                }
            }
        }
        out
    }

    #[test]
    fn interleaved_rows_are_put_in_order() {
        let (cols, height) = (96, 16);
        let plain: Vec<u8> = (0..height * cols / 32 * Q4_0).map(|i| (i * 7 + i / 256) as u8).collect();
        for (f, rows, run) in
            [(Foreign::Q4_0_4_4, 4, 4), (Foreign::Q4_0_4_8, 4, 8), (Foreign::Q4_0_8_8, 8, 8)]
        {
            let packed = interleave(rows, run, cols, &plain);
            assert_ne!(packed, plain);
            assert_eq!(f.unpack(cols, &packed), plain, "{}", f.name());
            assert_eq!(f.bytes_for((cols * height) as u64), Some(plain.len() as u64));
            assert_eq!(f.rows(cols as u64), rows);
        }
        assert!(Foreign::Q4_0_4_4.unpack(0, &[]).is_empty());
    }

    #[test]
    fn long_blocks_become_two_with_the_same_scale() {
        let stored: Vec<u8> = (0..68).collect();
        let found = Foreign::PQ2_0.unpack(128, &stored);
        let (first, second) = stored.split_at(34);
        let wanted: Vec<u8> = [first, second]
            .iter()
            .flat_map(|block| [&block[..2], &block[2..18], &block[..2], &block[18..]].concat())
            .collect();
        assert_eq!(found, wanted);
        // Two rows in one block.
        assert_eq!(Foreign::PQ2_0.unpack(64, &stored), wanted);
        assert_eq!([64, 128, 192, 256].map(|cols| Foreign::PQ2_0.rows(cols)), [2, 1, 2, 1]);
        assert_eq!((Foreign::PQ2_0.bytes_for(256), Foreign::PQ2_0.bytes_for(64)), (Some(68), None));
    }
}

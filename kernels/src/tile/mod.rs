//! Sixteen rows of weights times many vectors: what prompts and perplexity are made of, bound by arithmetic.
//!
//! Rows are unpacked once into a [`Panel`], in which the weights of sixteen rows stand side by side, and multiplied
//! with sixteen tokens at a time.
//!
//! **Definition.** A weight's row and a token have one sum. Blocks add to it in their order: (integer · scale) ·
//! activations' scale, the last product and the addition rounded once; then the min · the activations' sum likewise.
//! Types with integer scales have one integer for 256 columns, with these scales in it, and one for their mins.
//! Float rows add one product for each column, in order, in one sum for each [`DEPTH`] columns; these are added up
//! in order.

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod float;
#[cfg(target_arch = "aarch64")]
mod neon;
mod nested;
#[cfg(target_arch = "x86_64")]
mod nested512;
#[cfg(test)]
mod tests;

use formats::block::DType;

use super::activations::{Activations, TOKENS};
use super::weights::{Weights, with_nested, with_weights};
use super::{Aligned, Isa};

/// Rows of a panel.
pub const ROWS: usize = 16;
/// Columns of float rows under one sum.
pub const DEPTH: usize = 512;

/// Sixteen rows of packed weights, unpacked. Rows that are missing are zero.
#[derive(Default)]
pub struct Panel {
    /// Columns.
    pub cols: usize,
    /// Columns under a scale.
    pub group: usize,
    /// `[cols / 4, ROWS, 4]`: signed, or counted from the type's offset where the set multiplies unsigned numbers.
    pub codes: Aligned<i8>,
    /// `[cols / group, ROWS]`.
    pub scales: Aligned<f32>,
    /// `[cols / group, ROWS]`, empty for types without.
    pub mins: Aligned<f32>,
    /// Of types with integer scales: the mins that are multiplied with `mins`, `[cols / 32, ROWS, 2]`, each for sixteen
    /// columns.
    pub integers: Aligned<i16>,
    /// Of types with integer scales, where the set does not multiply bytes: codes times these scales,
    /// `[cols / 2, ROWS, 2]`.
    pub pairs: Aligned<i16>,
    /// Where scales are multiplied after codes: the scales, `[cols / 16 or cols / 32, ROWS]`,
    pub factors: Aligned<i32>,
    /// and, where codes are counted from an offset, −offset · scale, laid out as `integers`.
    pub lifts: Aligned<i16>,
    /// Where codes times scales are bytes, and one is too small: such a product is upper · 2^low + code.
    pub upper: Aligned<i8>,
    /// See above.
    pub low: u32,
}

/// Products of a panel and up to [`TOKENS`] tokens from `token` on; `out[t][r]` is token t's with row r.
pub type Tile = fn(panel: &Panel, x: &Activations, token: usize, out: &mut [[f32; ROWS]; TOKENS]);

/// What multiplies a type's panels on a set.
#[derive(Clone, Copy)]
pub struct Kernel {
    unpack: fn(Isa, &[&[u8]], &mut Panel),
    isa: Isa,
    /// The products.
    pub tile: Tile,
}

impl Kernel {
    /// Unpacks up to sixteen rows.
    pub fn unpack(&self, rows: &[&[u8]], panel: &mut Panel) {
        (self.unpack)(self.isa, rows, panel);
    }
}

/// The kernel of a type on a set that [`Isa::available`] lists; `None` if the type is multiplied as floats.
pub fn integer(dtype: DType, isa: Isa) -> Option<Kernel> {
    with_weights!(dtype, W, B, T => {
        let signed = unpack::<W, B, T, false> as fn(Isa, &[&[u8]], &mut Panel);
        #[cfg(target_arch = "x86_64")]
        let unsigned = unpack::<W, B, T, true> as fn(Isa, &[&[u8]], &mut Panel);
        let (unpack, tile) = match isa {
            Isa::Portable => (signed, portable as Tile),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => (signed, avx2::tile as Tile),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 if !super::isa::has_vnni() => (signed, avx2::tile as Tile),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => (unsigned, avx512::tile as Tile),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => match <T as Weights<W, B>>::GROUP {
                16 => (signed, amx::tile::<16> as Tile),
                32 => (signed, amx::tile::<32> as Tile),
                _ => (signed, amx::tile::<256> as Tile),
            },
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => (signed, neon::tile as Tile),
        };
        Kernel { unpack, isa, tile }
    })
    .or_else(|| {
        with_nested!(dtype, B, T => {
            let pairs = nested::unpack::<B, T> as fn(Isa, &[&[u8]], &mut Panel);
            let (unpack, tile) = match isa {
                Isa::Portable => (pairs, nested::portable as Tile),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => (pairs, avx2::nested as Tile),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 if !super::isa::has_vnni() => (pairs, avx2::nested as Tile),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => match <T as super::dot::parts::Parts<B>>::GROUP {
                    16 => (nested512::unpack_codes::<B, T> as _, nested512::tile::<16> as Tile),
                    _ => (nested512::unpack_codes::<B, T> as _, nested512::tile::<32> as Tile),
                },
                #[cfg(target_arch = "x86_64")]
                Isa::Amx => (nested512::unpack_planes::<B, T> as _, amx::nested as Tile),
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => (pairs, nested::portable as Tile),
            };
            Kernel { unpack, isa, tile }
        })
    })
}

/// The definition.
fn portable(panel: &Panel, x: &Activations, token: usize, out: &mut [[f32; ROWS]; TOKENS]) {
    for (t, out) in out.iter_mut().enumerate() {
        *out = [0.0; ROWS];
        if token + t >= x.tokens {
            continue;
        }
        let (q, scales) = (x.codes(token + t), x.of(&x.scales, token + t));
        let sums = x.of(&x.sums, token + t);
        for g in 0..panel.cols / panel.group {
            for (r, out) in out.iter_mut().enumerate() {
                let mut sum = 0i32;
                for k in g * panel.group..(g + 1) * panel.group {
                    let w = panel.codes[(k / 4 * ROWS + r) * 4 + k % 4];
                    sum += i32::from(w) * i32::from(q[k]);
                }
                *out = (sum as f32 * panel.scales[g * ROWS + r]).mul_add(scales[g], *out);
                if !panel.mins.is_empty() {
                    *out = panel.mins[g * ROWS + r].mul_add(sums[g], *out);
                }
            }
        }
    }
}

/// Unpacks rows; `RAW` leaves the codes counted from the type's offset.
fn unpack<const W: usize, const B: usize, T: Weights<W, B>, const RAW: bool>(
    isa: Isa,
    rows: &[&[u8]],
    panel: &mut Panel,
) {
    let blocks = rows[0].len() / B;
    assert!(rows.len() <= ROWS && rows.iter().all(|r| r.len() == blocks * B));
    (panel.cols, panel.group) = (blocks * W, T::GROUP);
    panel.codes.resize(blocks * W * ROWS);
    panel.scales.resize(blocks * (W / T::GROUP) * ROWS);
    panel.mins.resize(if T::MIN { blocks * ROWS } else { 0 });
    unpack_blocks::<W, B, T, RAW>(isa, rows, panel);
}

/// [`per_isa`] for a function with types.
fn unpack_blocks<const W: usize, const B: usize, T: Weights<W, B>, const RAW: bool>(
    isa: Isa,
    rows: &[&[u8]],
    panel: &mut Panel,
) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Isa::available` lists a set only where its features were found.
        Isa::Avx2 => unsafe { avx2::unpack::<W, B, T, RAW>(rows, panel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512 | Isa::Amx => unsafe { avx512::unpack::<W, B, T, RAW>(rows, panel) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::Neon => unsafe { neon::unpack::<W, B, T, RAW>(rows, panel) },
        _ => {
            scales::<W, B, T>(rows, panel);
            unpack_body::<W, B, T, RAW>(rows, panel, 0, interleave);
        }
    }
}

/// Puts four codes of each row side by side.
#[inline(always)]
fn interleave<const W: usize>(codes: &[[u8; W]; ROWS], out: &mut [i8]) {
    for (k, out) in out.as_chunks_mut::<{ 4 * ROWS }>().0.iter_mut().enumerate() {
        for r in 0..ROWS {
            for i in 0..4 {
                out[4 * r + i] = codes[r][4 * k + i] as i8;
            }
        }
    }
}

/// Unpacks the blocks from `first` on.
#[inline(always)]
fn unpack_body<const W: usize, const B: usize, T: Weights<W, B>, const RAW: bool>(
    rows: &[&[u8]],
    panel: &mut Panel,
    first: usize,
    interleave: impl Fn(&[[u8; W]; ROWS], &mut [i8]),
) {
    // Missing rows keep the code of zero.
    let mut codes = [[if RAW { T::OFFSET as u8 } else { 0 }; W]; ROWS];
    for b in first..panel.cols / W {
        for (r, row) in rows.iter().enumerate() {
            let block = &row.as_chunks::<B>().0[b];
            T::codes(block, &mut codes[r]);
            if !RAW && T::OFFSET != 0 {
                for c in &mut codes[r] {
                    *c = c.wrapping_sub(T::OFFSET as u8);
                }
            }
        }
        interleave(&codes, &mut panel.codes[b * W * ROWS..][..W * ROWS]);
    }
}

/// Takes the scales and mins of blocks over.
#[inline(always)]
fn scales<const W: usize, const B: usize, T: Weights<W, B>>(rows: &[&[u8]], panel: &mut Panel) {
    if rows.len() < ROWS {
        panel.scales.fill(0.0);
        panel.mins.fill(0.0);
    }
    let groups = W / T::GROUP;
    for (r, row) in rows.iter().enumerate() {
        for (b, block) in row.as_chunks::<B>().0.iter().enumerate() {
            for g in 0..groups {
                panel.scales[(b * groups + g) * ROWS + r] = T::scale(block, g * T::SCALES / groups);
            }
            if T::MIN {
                panel.mins[b * ROWS + r] = T::min(block);
            }
        }
    }
}

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
use super::isa::Set;
use super::weights::{Weights, with_nested, with_weights};
use super::{Aligned, Isa};

/// Rows of a panel.
pub const ROWS: usize = 16;
/// Columns of float rows under one sum.
pub const DEPTH: usize = 512;

/// Sixteen rows of packed weights, unpacked by a [`TileKernel`]. Rows that are missing are zero.
#[derive(Default)]
pub struct Panel {
    /// What unpacked it last, and alone can read it: none if it never was, or the rows were refused.
    of: Option<(DType, Isa)>,
    /// Columns.
    cols: usize,
    /// Columns under a scale.
    group: usize,
    /// `[cols / 4, ROWS, 4]`: signed, or counted from the type's offset where the set multiplies unsigned numbers.
    codes: Aligned<i8>,
    /// `[cols / group, ROWS]`.
    scales: Aligned<f32>,
    /// `[cols / group, ROWS]`, empty for types without.
    mins: Aligned<f32>,
    /// Of types with integer scales: the mins that are multiplied with `mins`, `[cols / 32, ROWS, 2]`, each for sixteen
    /// columns.
    integers: Aligned<i16>,
    /// Of types with integer scales, where the set does not multiply bytes: codes times these scales,
    /// `[cols / 2, ROWS, 2]`.
    pairs: Aligned<i16>,
    /// Where scales are multiplied after codes: the scales, `[cols / 16 or cols / 32, ROWS]`,
    factors: Aligned<i32>,
    /// and, where codes are counted from an offset, −offset · scale, laid out as `integers`.
    lifts: Aligned<i16>,
    /// Where codes times scales are bytes, and one is too small: such a product is upper · 2^low + code.
    upper: Aligned<i8>,
    /// See above.
    low: u32,
}

impl Panel {
    /// Columns of the rows that it was unpacked from.
    pub fn cols(&self) -> usize {
        self.cols
    }
}

/// What multiplies a type's panels on a set.
///
/// A panel can be multiplied only by the kernel of the type and set that unpacked it:
/// ```
/// use formats::block::DType;
/// use kernels::activations::{Activations, Form, TOKENS};
/// use kernels::tile::{self, Panel, ROWS};
/// use kernels::Isa;
///
/// let isa = Isa::current();
/// let (group, offset) = kernels::integer(DType::Q8_0).unwrap();
/// let kernel = tile::integer(DType::Q8_0, isa).unwrap();
/// // One row of 32 weights: the scale 1 as a half, and codes from 0 to 31.
/// let row: Vec<u8> = [0x00, 0x3C].into_iter().chain(0..32).collect();
/// let mut panel = Panel::default();
/// kernel.unpack(&[&row], &mut panel);
/// // One token, which takes the weight of column 3 twice.
/// let mut token = [0.0; 32];
/// token[3] = 2.0;
/// let mut x = Activations::default();
/// x.set(isa, Form::Groups(group), offset, &token, 32);
/// let mut out = [[0.0; ROWS]; TOKENS];
/// kernel.multiply(&panel, &x, 0, &mut out);
/// assert!((out[0][0] - 6.0).abs() < 0.01);
/// ```
#[derive(Clone, Copy)]
pub struct TileKernel {
    dtype: DType,
    /// The set that both functions are compiled for: the proof that they may be called.
    isa: Isa,
    /// The group and the offset of the type.
    wants: (usize, i32),
    unpack: Unpack,
    tile: Tile,
}

/// Unpacks rows, of which there are between one and sixteen of as many whole blocks.
///
/// # Safety
/// The processor has the set that the function is compiled for.
type Unpack = unsafe fn(rows: &[&[u8]], panel: &mut Panel);

/// Products of a panel and up to [`TOKENS`] tokens from `token` on; `out[t][r]` is token t's with row r.
///
/// # Safety
/// The processor has the set that the function is compiled for. What is read through pointers is within slices, or asserted
/// to be there, in the functions themselves.
type Tile = unsafe fn(panel: &Panel, x: &Activations, token: usize, out: &mut [[f32; ROWS]; TOKENS]);

impl TileKernel {
    /// Unpacks rows: up to [`ROWS`] of them, one at least, all of as many whole blocks.
    ///
    /// # Panics
    /// If they are not that. The panel can then be multiplied with nothing.
    pub fn unpack(&self, rows: &[&[u8]], panel: &mut Panel) {
        panel.of = None;
        // SAFETY: `unpack` was taken for `isa`, which exists only where its features were found.
        unsafe { (self.unpack)(rows, panel) };
        panel.of = Some((self.dtype, self.isa));
    }

    /// The products of a panel with the tokens from `token` on, [`TOKENS`] of them: `out[t][r]` is that of token
    /// `token + t` with row r, and 0 where there is no such token or row.
    ///
    /// # Panics
    /// If the panel was last unpacked by another type's or set's kernel; if `x` has other columns, or was made with another
    /// group or offset than [`integer`](super::integer) names for the type; if `token` is no multiple of [`TOKENS`], or
    /// there is no such token.
    pub fn multiply(&self, panel: &Panel, x: &Activations, token: usize, out: &mut [[f32; ROWS]; TOKENS]) {
        assert!(panel.of == Some((self.dtype, self.isa)), "the panel is not one of {}", self.dtype.name());
        x.check(self.wants, panel.cols, token);
        assert!(
            token.is_multiple_of(TOKENS),
            "tokens go together from every {TOKENS}th on, not from {token}"
        );
        // SAFETY: `tile` was taken for `isa`, which exists only where its features were found.
        unsafe { (self.tile)(panel, x, token, out) };
    }

    /// The products of the rows of several panels with all tokens, times `scale`: row `16 · p + r` is row r of panel p, and
    /// `out[t]` are those of token t, as many as there is room for.
    ///
    /// # Panics
    /// As [`TileKernel::multiply`]; if a token has no room for one row of each panel.
    pub fn multiply_all(&self, panels: &[Panel], x: &Activations, scale: f32, out: &mut [&mut [f32]]) {
        let mut sums = [[0f32; ROWS]; TOKENS];
        for token in (0..x.tokens()).step_by(TOKENS) {
            for (p, panel) in panels.iter().enumerate() {
                self.multiply(panel, x, token, &mut sums);
                store(&mut out[token..], p * ROWS, &sums, scale);
            }
        }
    }
}

/// The outputs of several matrix rows for each vector, `[vectors, rows]`, by tasks of `step` rows each: those of a task, for
/// each vector.
///
/// # Panics
/// If there are no rows, or none in a step.
pub fn tasks(out: &mut [f32], rows: usize, step: usize) -> Vec<Vec<&mut [f32]>> {
    let vectors = out.len() / rows;
    let mut tasks: Vec<_> = (0..rows.div_ceil(step)).map(|_| Vec::with_capacity(vectors)).collect();
    for out in out.chunks_exact_mut(rows) {
        for (task, out) in tasks.iter_mut().zip(out.chunks_mut(step)) {
            task.push(out);
        }
    }
    tasks
}

/// The kernel of a type on a set; `None` if the type is multiplied as floats.
pub fn integer(dtype: DType, isa: Isa) -> Option<TileKernel> {
    let kernel = with_weights!(dtype, W, B, T => match isa.set() {
        Set::Portable => (unpack::<W, B, T> as Unpack, portable as Tile),
        #[cfg(target_arch = "x86_64")]
        Set::Avx2 => (avx2::unpack::<W, B, T> as _, avx2::tile as _),
        #[cfg(target_arch = "x86_64")]
        Set::Avx512 => (avx512::unpack::<W, B, T, false> as _, avx2::tile as _),
        #[cfg(target_arch = "x86_64")]
        Set::Vnni => (avx512::unpack::<W, B, T, true> as _, avx512::tile as _),
        #[cfg(target_arch = "x86_64")]
        Set::Amx => match <T as Weights<W, B>>::GROUP {
            16 => (avx512::unpack::<W, B, T, false> as _, amx::tile::<16> as _),
            32 => (avx512::unpack::<W, B, T, false> as _, amx::tile::<32> as _),
            _ => (avx512::unpack::<W, B, T, false> as _, amx::tile::<256> as _),
        },
        #[cfg(target_arch = "aarch64")]
        Set::Neon => (neon::unpack::<W, B, T> as _, neon::tile as _),
    });
    let kernel = kernel.or_else(|| {
        with_nested!(dtype, B, T => match isa.set() {
            Set::Portable => (nested::unpack::<B, T> as Unpack, nested::portable as Tile),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 | Set::Avx512 => (avx2::unpack_nested::<B, T> as _, avx2::nested as _),
            #[cfg(target_arch = "x86_64")]
            Set::Vnni => match <T as super::dot::parts::Parts<B>>::GROUP {
                16 => (nested512::unpack_codes::<B, T> as _, nested512::tile::<16> as _),
                _ => (nested512::unpack_codes::<B, T> as _, nested512::tile::<32> as _),
            },
            #[cfg(target_arch = "x86_64")]
            Set::Amx => (nested512::unpack_planes::<B, T> as _, amx::nested as _),
            #[cfg(target_arch = "aarch64")]
            Set::Neon => (nested::unpack::<B, T> as _, nested::portable as _),
        })
    });
    let ((unpack, tile), wants) = kernel.zip(super::integer(dtype))?;
    Some(TileKernel { dtype, isa, wants, unpack, tile })
}

/// The definition.
fn portable(panel: &Panel, x: &Activations, token: usize, out: &mut [[f32; ROWS]; TOKENS]) {
    for (t, out) in out.iter_mut().enumerate() {
        *out = [0.0; ROWS];
        if token + t >= x.tokens() {
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

/// Unpacks rows.
fn unpack<const W: usize, const B: usize, T: Weights<W, B>>(rows: &[&[u8]], panel: &mut Panel) {
    room::<W, B, T>(rows, panel);
    scales::<W, B, T>(rows, panel);
    unpack_body::<W, B, T, false>(rows, panel, 0, interleave);
}

/// Makes room in a panel for rows.
#[inline(always)]
fn room<const W: usize, const B: usize, T: Weights<W, B>>(rows: &[&[u8]], panel: &mut Panel) {
    let blocks = blocks_of(rows, B);
    (panel.cols, panel.group) = (blocks * W, T::GROUP);
    panel.codes.resize(blocks * W * ROWS);
    panel.scales.resize(blocks * (W / T::GROUP) * ROWS);
    panel.mins.resize(if T::MIN { blocks * ROWS } else { 0 });
}

/// The blocks of a row, which are as many for all.
///
/// # Panics
/// If they are not, or there are no rows or too many, or a block is not whole.
fn blocks_of(rows: &[&[u8]], bytes: usize) -> usize {
    let count = rows.len();
    assert!((1..=ROWS).contains(&count), "a panel has 1 to {ROWS} rows, not {count}");
    let blocks = rows[0].len() / bytes;
    for row in rows {
        assert!(row.len() == blocks * bytes, "a row of {} bytes among some of {blocks} · {bytes}", row.len());
    }
    // As many columns as a panel has numbers for, whatever the type.
    assert!(blocks <= usize::MAX / (256 * ROWS), "rows are too long");
    blocks
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

/// Unpacks the blocks from `first` on; `RAW` leaves the codes counted from the type's offset.
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

/// Writes the products of a panel, times `scale`: `sums[t][r]` to number `first + r` of vector t, as far as there are vectors
/// and numbers.
///
/// # Panics
/// If a vector has fewer than `first` numbers.
fn store(out: &mut [&mut [f32]], first: usize, sums: &[[f32; ROWS]; TOKENS], scale: f32) {
    for t in 0..out.len().min(TOKENS) {
        let (out, sums) = (&mut out[t][first..], &sums[t]);
        for r in 0..out.len().min(ROWS) {
            out[r] = sums[r] * scale;
        }
    }
}

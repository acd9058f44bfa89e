//! A row of weights times one vector: what generating is made of, bound by how fast weights come from memory.
//!
//! **Definition.** Sixteen sums, which are added up at the end in a fixed tree. Weight k of a row belongs to sum
//! k / 4 mod 16; of the ternary types, weight k of a block to sum 8 · (k / 128) + k mod 32 / 4. What is under one scale
//! adds (scale · activations' scale) · (integer) to each of its sums, with one rounding; the mins of a row have eight
//! sums of their own, by block. Types with integer scales have those within the integers, and a block's mins go, two
//! sixteens of weights to each, to the eight sums. Float rows have 32 sums, by column.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
pub(crate) mod nested512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod parts;
#[cfg(test)]
pub(crate) mod tests;

use formats::block::{DType, f16_to_f32};

use super::activations::Activations;
use super::isa::{Set, per_isa};
use super::weights::{Nested, Weights, with_nested, with_weights};
use super::{Codec, Isa};

/// What multiplies the rows of a type with vectors of 8-bit codes, compiled for a set.
#[derive(Clone, Copy)]
pub struct DotKernel {
    run: Row,
    /// The set that `run` is compiled for: the proof that it may be called.
    _isa: Isa,
}

/// A row of a matrix times token `token` of `x`. All sizes are checked within.
///
/// # Safety
/// The processor has the set that the function is compiled for.
type Row = unsafe fn(row: &[u8], x: &Activations, token: usize) -> f32;

impl DotKernel {
    /// The dot product of a packed row and token `token` of `x`.
    ///
    /// # Panics
    /// If the row is no whole blocks, or of other columns than `x` has; if `x` has no such token, or was made with another
    /// group or offset than [`integer`](super::integer) names for the type.
    #[inline]
    pub fn row(&self, row: &[u8], x: &Activations, token: usize) -> f32 {
        // SAFETY: `run` was taken for `_isa`, which exists only where its features were found.
        unsafe { (self.run)(row, x, token) }
    }
}

/// The dot product of integers for a type on a set; `None` if the type is multiplied as floats.
pub fn integer(dtype: DType, isa: Isa) -> Option<DotKernel> {
    let run = with_weights!(dtype, W, B, T => match isa.set() {
        Set::Portable => portable::<W, B, T> as Row,
        #[cfg(target_arch = "x86_64")]
        Set::Avx2 | Set::Avx512 => avx2::row::<W, B, T> as Row,
        #[cfg(target_arch = "x86_64")]
        Set::Vnni | Set::Amx => avx512::row::<W, B, T> as Row,
        #[cfg(target_arch = "aarch64")]
        Set::Neon => neon::row::<W, B, T> as Row,
    });
    let run = run.or_else(|| {
        with_nested!(dtype, B, T => match isa.set() {
            Set::Portable => portable_nested::<B, T> as Row,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 | Set::Avx512 => avx2::nested::<B, T> as Row,
            #[cfg(target_arch = "x86_64")]
            Set::Vnni | Set::Amx => nested512::row::<B, T> as Row,
            #[cfg(target_arch = "aarch64")]
            Set::Neon => neon::nested::<B, T> as Row,
        })
    })?;
    Some(DotKernel { run, _isa: isa })
}

/// Refuses a row that is no whole blocks, and activations that are not for it: afterwards there are `W` columns for each
/// block of the row, in a token that exists.
#[inline(always)]
fn check<const W: usize, const B: usize, T: Weights<W, B>>(row: &[u8], x: &Activations, token: usize) {
    x.check((T::GROUP, T::OFFSET), cols_of::<W, B>(row), token);
}

/// The same for types with integer scales.
#[inline(always)]
fn check_nested<const B: usize, T: Nested<B>>(row: &[u8], x: &Activations, token: usize) {
    x.check((256, T::OFFSET), cols_of::<256, B>(row), token);
}

/// The columns of a row of whole blocks.
#[inline(always)]
fn cols_of<const W: usize, const B: usize>(row: &[u8]) -> usize {
    assert!(row.len().is_multiple_of(B), "{} bytes are no blocks of {B}", row.len());
    (row.len() / B).saturating_mul(W)
}

/// The sums of a row.
#[derive(Clone, Copy, Default)]
struct Sums {
    lanes: [f32; 16],
    mins: [f32; 8],
}

impl Sums {
    /// Their sum: halves are added to halves.
    #[inline(always)]
    fn total(&self) -> f32 {
        let mut eight = [0f32; 8];
        for i in 0..8 {
            eight[i] = self.lanes[i] + self.lanes[i + 8];
        }
        halves(eight) + halves(self.mins)
    }
}

#[inline(always)]
fn halves(x: [f32; 8]) -> f32 {
    ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]))
}

/// The definition.
fn portable<const W: usize, const B: usize, T: Weights<W, B>>(
    row: &[u8],
    x: &Activations,
    token: usize,
) -> f32 {
    check::<W, B, T>(row, x, token);
    let (q, scales, sums) = (x.codes(token), x.of(&x.scales, token), x.of(&x.sums, token));
    let mut s = Sums::default();
    for (b, block) in row.as_chunks::<B>().0.iter().enumerate() {
        let mut codes = [0; W];
        T::codes(block, &mut codes);
        for g in 0..W / T::GROUP {
            // The first sum of the group, and how many it has.
            let (first, count) =
                if W == 256 { (0, 16) } else { ((b * W + g * T::GROUP) / 4 % 16, T::GROUP / 4) };
            let mut lanes = [0i32; 16];
            for k in g * T::GROUP..(g + 1) * T::GROUP {
                let lane = if W == 256 { 8 * (k / 128) + k % 32 / 4 } else { (b * W + k) / 4 % 16 };
                lanes[lane] += (i32::from(codes[k]) - T::OFFSET) * i32::from(q[b * W + k]);
            }
            let scale = T::scale(block, g * T::SCALES * T::GROUP / W) * scales[b * (W / T::GROUP) + g];
            for i in first..first + count {
                s.lanes[i] = (lanes[i] as f32).mul_add(scale, s.lanes[i]);
            }
        }
        if T::MIN {
            s.mins[b % 8] = T::min(block).mul_add(sums[b], s.mins[b % 8]);
        }
    }
    s.total()
}

/// The definition for types with integer scales.
fn portable_nested<const B: usize, T: Nested<B>>(row: &[u8], x: &Activations, token: usize) -> f32 {
    check_nested::<B, T>(row, x, token);
    let (q, scales, sixteens) = (x.codes(token), x.of(&x.scales, token), x.sixteens(token));
    let mut s = Sums::default();
    for (b, block) in row.as_chunks::<B>().0.iter().enumerate() {
        let mut codes = [0; 256];
        T::codes(block, &mut codes);
        let integers = T::scales(block);
        let mut lanes = [0i32; 16];
        for k in 0..256 {
            let product = i32::from(codes[k]) * i32::from(q[b * 256 + k]);
            lanes[k / 4 % 16] += i32::from(integers[k / 16]) * product;
        }
        let d = T::d(block) * scales[b];
        for i in 0..16 {
            s.lanes[i] = (lanes[i] as f32).mul_add(d, s.lanes[i]);
        }
        if T::MIN {
            let (mins, d) = (T::mins(block), T::dmin(block) * scales[b]);
            for i in 0..8 {
                let min = |g: usize| i32::from(mins[g]) * i32::from(sixteens[b * 16 + g]);
                s.mins[i] = ((min(2 * i) + min(2 * i + 1)) as f32).mul_add(d, s.mins[i]);
            }
        }
    }
    s.total()
}

/// What multiplies rows of f32, f16 or bf16 with vectors of floats, on a set.
#[derive(Clone, Copy)]
pub struct FloatDotKernel {
    run: FloatDot,
    /// Bytes of a weight.
    width: usize,
    isa: Isa,
}

impl FloatDotKernel {
    /// The dot product of a row, little-endian as it is stored, and a vector.
    ///
    /// # Panics
    /// If the row does not have as many weights as `x` has numbers.
    #[inline]
    pub fn row(&self, row: &[u8], x: &[f32]) -> f32 {
        let whole = row.len() / self.width == x.len() && row.len().is_multiple_of(self.width);
        assert!(whole, "{} bytes are not {} weights of {} bytes", row.len(), x.len(), self.width);
        (self.run)(self.isa, row, x)
    }
}

/// A dot product that is compiled for each instruction set.
type FloatDot = fn(Isa, &[u8], &[f32]) -> f32;

/// The dot product of floats, with the weights of a row as they are stored: f32, f16 or bf16; `None` for other types.
pub fn float(dtype: DType, isa: Isa) -> Option<FloatDotKernel> {
    let (run, width): (FloatDot, _) = match dtype {
        DType::F32 => (dot_f32, 4),
        DType::F16 => (dot_f16, 2),
        DType::BF16 => (dot_bf16, 2),
        _ => return None,
    };
    Some(FloatDotKernel { run, width, isa })
}

/// The dot product of a row of any type and floats. The row is decoded into `scratch` first, whatever is there.
///
/// # Panics
/// If the row does not have as many weights as `x` has numbers.
pub fn decoded(isa: Isa, codec: &dyn Codec, row: &[u8], scratch: &mut Vec<f32>, x: &[f32]) -> f32 {
    scratch.resize(x.len(), 0.0);
    codec.decode(row, scratch);
    floats(isa, scratch, x)
}

per_isa! {
    /// The dot product of two vectors of floats.
    ///
    /// # Panics
    /// If `w` is shorter than `x`; what it has beyond is not looked at.
    pub fn floats(w: &[f32], x: &[f32]) -> f32 = floats_body
}
per_isa! {
    fn dot_f32(row: &[u8], x: &[f32]) -> f32 = f32_body
}
per_isa! {
    fn dot_bf16(row: &[u8], x: &[f32]) -> f32 = bf16_body
}
per_isa! {
    fn dot_f16_plain(row: &[u8], x: &[f32]) -> f32 = f16_body
}

fn dot_f16(isa: Isa, row: &[u8], x: &[f32]) -> f32 {
    match isa.set() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` of this set exists only where the set's features were found.
        Set::Avx512 | Set::Vnni | Set::Amx => unsafe { avx512::f16(row, x) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Set::Avx2 => unsafe { avx2::f16(row, x) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Set::Neon => unsafe { neon::f16(row, x) },
        _ => dot_f16_plain(isa, row, x),
    }
}

/// Columns of a float row that have sums of their own.
const FLOATS: usize = 32;

#[inline(always)]
fn total(s: &[f32; FLOATS]) -> f32 {
    let mut sixteen = [0f32; 16];
    for i in 0..16 {
        sixteen[i] = s[i] + s[i + 16];
    }
    Sums { lanes: sixteen, mins: [0.0; 8] }.total()
}

/// Products of `x` with weights of `N` bytes that `read` makes floats of.
macro_rules! float_body {
    ($name:ident, $t:ty, $n:literal, $read:expr) => {
        #[inline(always)]
        fn $name(row: &[$t], x: &[f32]) -> f32 {
            let mut s = [0f32; FLOATS];
            let (chunks, rest) = x.as_chunks::<FLOATS>();
            for (x, w) in chunks.iter().zip(row.chunks_exact(FLOATS * $n)) {
                for i in 0..FLOATS {
                    s[i] = $read(&w[i * $n..]).mul_add(x[i], s[i]);
                }
            }
            let tail = &row[chunks.len() * FLOATS * $n..];
            for (i, x) in rest.iter().enumerate() {
                s[i] = $read(&tail[i * $n..]).mul_add(*x, s[i]);
            }
            total(&s)
        }
    };
}
float_body!(floats_body, f32, 1, |w: &[f32]| w[0]);
float_body!(f32_body, u8, 4, |w: &[u8]| f32::from_le_bytes([w[0], w[1], w[2], w[3]]));
float_body!(bf16_body, u8, 2, |w: &[u8]| f32::from_bits(u32::from(u16::from_le_bytes([w[0], w[1]])) << 16));
float_body!(f16_body, u8, 2, |w: &[u8]| f16_to_f32(u16::from_le_bytes([w[0], w[1]])));

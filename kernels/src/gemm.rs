//! Products of matrices of floats, C += α·A·B, for whole texts: statistics, error feedback, exact forward passes.
//!
//! Both sides are packed into strips (the scheme of Goto and van de Geijn, "Anatomy of high-performance matrix
//! multiplication", 2008): eight rows of A side by side, sixteen columns of B, so that a strip of each gives a tile of
//! C that stays in registers. An element of C is summed over k in order, 384 products at a time, so its bits
//! depend on nothing but its row, its column, and the order of calls.

use super::lanes::{Lanes, Unit, per_lanes};
use super::{Aligned, Isa, parallel};

/// A matrix in memory: element (i, j) is `data[i · rows + j · cols]`.
#[derive(Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
}

impl<'a> View<'a> {
    /// Rows of `stride` numbers.
    pub fn rows(data: &'a [f32], stride: usize) -> Self {
        Self { data, rows: stride, cols: 1 }
    }

    /// The same matrix on its side.
    pub fn transposed(self) -> Self {
        Self { data: self.data, rows: self.cols, cols: self.rows }
    }

    /// Without the first rows and columns.
    pub fn from(self, row: usize, col: usize) -> Self {
        Self { data: &self.data[row * self.rows + col * self.cols..], ..self }
    }

    /// `height` rows from `row` on, of columns `k`, side by side: `out[(k − first) · S + r]`.
    fn pack<const S: usize>(self, row: usize, height: usize, k: std::ops::Range<usize>, out: &mut [f32]) {
        let out = out.as_chunks_mut::<S>().0;
        if height < S {
            out.iter_mut().for_each(|o| *o = [0.0; S]);
        }
        if self.cols == 1 {
            for r in 0..height {
                let from = &self.data[(row + r) * self.rows + k.start..][..k.len()];
                for (o, x) in out.iter_mut().zip(from) {
                    o[r] = *x;
                }
            }
        } else if self.rows == 1 {
            for (o, k) in out.iter_mut().zip(k) {
                o[..height].copy_from_slice(&self.data[k * self.cols + row..][..height]);
            }
        } else {
            for (o, k) in out.iter_mut().zip(k) {
                for r in 0..height {
                    o[r] = self.data[(row + r) * self.rows + k * self.cols];
                }
            }
        }
    }
}

/// Which part of C is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// What is on the diagonal and above; some of what is below may be computed too.
    Upper,
}

/// Rows of A in a strip.
const TALL: usize = 8;
/// Columns of B in a strip.
const WIDE: usize = 16;
/// Products that are summed before they are added to C.
const DEPTH: usize = 384;
/// Rows of C that a thread takes at a time.
const BAND: usize = 64;
/// Products below which one thread does all.
const SMALL: usize = 1 << 18;

/// C += α·A·B, with A of m rows and k columns, B of k rows and n columns, and C of rows of `stride` numbers. Uses the
/// threads of the pool that it is called in; the result does not depend on their number.
///
/// # Panics
/// If A, B or C is smaller than is said, or rows of C overlap (`stride` is less than n).
#[allow(clippy::too_many_arguments)]
pub fn gemm(
    isa: Isa,
    part: Part,
    size: (usize, usize, usize),
    alpha: f32,
    a: View,
    b: View,
    c: &mut [f32],
    stride: usize,
) {
    add(isa, part, size, alpha, a, b, c, stride, false);
}

/// A·B, of sizes as in [`gemm`]: `[m, n]`.
///
/// # Panics
/// If A or B is smaller than is said, or so many numbers do not fit into memory.
pub fn product(isa: Isa, size: (usize, usize, usize), a: View, b: View) -> Vec<f32> {
    let (m, n, _) = size;
    let mut out = vec![0f32; m.checked_mul(n).expect("a product fits into memory")];
    // Pages that are written before they are read cost the system least.
    add(isa, Part::Whole, size, 1.0, a, b, &mut out, n, true);
    out
}

/// [`gemm`]; with `fresh` what was in C is not looked at.
#[allow(clippy::too_many_arguments)]
fn add(
    isa: Isa,
    part: Part,
    (m, n, k): (usize, usize, usize),
    alpha: f32,
    a: View,
    b: View,
    c: &mut [f32],
    stride: usize,
    fresh: bool,
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let end = (m - 1).checked_mul(stride).and_then(|last| last.checked_add(n));
    let room = end.is_some_and(|end| stride >= n && end <= c.len());
    assert!(room, "{} numbers have no room for {m} rows of {n}, {stride} apart", c.len());
    let strips = n.div_ceil(WIDE);
    let b = b.transposed();
    let small = m.saturating_mul(n).saturating_mul(k) < SMALL;
    let mut packed = Aligned::default();
    for first in (0..k).step_by(DEPTH) {
        let depth = first..k.min(first + DEPTH);
        packed.resize(strips * WIDE * depth.len());
        let pack = |s: usize, out: &mut [f32]| {
            b.pack::<WIDE>(s * WIDE, WIDE.min(n - s * WIDE), depth.clone(), out);
        };
        let strip = WIDE * depth.len();
        if small {
            packed.chunks_exact_mut(strip).enumerate().for_each(|(s, out)| pack(s, out));
        } else {
            parallel::chunks_mut(&mut packed, strip, &pack);
        }
        let packed = &packed[..];
        let band = |i: usize, c: &mut [f32]| {
            let first_row = i * BAND;
            let rows = BAND.min(m - first_row);
            let mut tall = Aligned::default();
            tall.resize(rows.div_ceil(TALL) * TALL * depth.len());
            for (s, out) in tall.chunks_exact_mut(TALL * depth.len()).enumerate() {
                let row = s * TALL;
                a.pack::<TALL>(first_row + row, TALL.min(rows - row), depth.clone(), out);
            }
            let from = if part == Part::Upper { first_row / WIDE } else { 0 };
            let fresh = fresh && first == 0;
            tiles(isa, &tall, packed, depth.len(), from, alpha, (rows, n), c, stride, fresh);
        };
        let end = (m - 1) * stride + n;
        if small {
            c[..end].chunks_mut(BAND * stride).enumerate().for_each(|(i, c)| band(i, c));
        } else {
            parallel::chunks_mut(&mut c[..end], BAND * stride, &band);
        }
    }
}

per_lanes! {
    /// The tiles of a band, from strip `from` of B on.
    fn tiles(
        tall: &[f32], wide: &[f32], depth: usize, from: usize, alpha: f32, size: (usize, usize), c: &mut [f32],
        stride: usize, fresh: bool,
    ) = tiles_body
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn tiles_body<U: Unit>(
    unit: U,
    tall: &[f32],
    wide: &[f32],
    depth: usize,
    from: usize,
    alpha: f32,
    (rows, n): (usize, usize),
    c: &mut [f32],
    stride: usize,
    fresh: bool,
) {
    for (s, wide) in wide.chunks_exact(WIDE * depth).enumerate().skip(from) {
        let wide = wide.as_chunks::<WIDE>().0;
        for (i, tall) in tall.chunks_exact(TALL * depth).enumerate() {
            let tall = tall.as_chunks::<TALL>().0;
            let mut out = [[0.0; WIDE]; TALL];
            if U::MANY {
                tile::<U, 8>(unit, tall, wide, 0, &mut out);
            } else {
                tile::<U, 4>(unit, tall, wide, 0, &mut out);
                tile::<U, 4>(unit, tall, wide, 4, &mut out);
            }
            let (row, col) = (i * TALL, s * WIDE);
            let width = WIDE.min(n - col);
            for r in 0..TALL.min(rows - row) {
                let c = &mut c[(row + r) * stride + col..][..width];
                for i in 0..width {
                    c[i] = if fresh { alpha * out[r][i] } else { c[i] + alpha * out[r][i] };
                }
            }
        }
    }
}

/// `N` rows of a tile, from `first` on.
#[inline(always)]
fn tile<U: Unit, const N: usize>(
    unit: U,
    tall: &[[f32; TALL]],
    wide: &[[f32; WIDE]],
    first: usize,
    out: &mut [[f32; WIDE]; TALL],
) {
    let mut sums = [unit.splat(0.0); N];
    let depth = tall.len().min(wide.len());
    let (tall, wide) = (&tall[..depth], &wide[..depth]);
    for k in 0..depth {
        let b = unit.load(&wide[k]);
        for r in 0..N {
            sums[r] = b.fma(unit.splat(tall[k][first + r]), sums[r]);
        }
    }
    for r in 0..N {
        sums[r].store(&mut out[first + r]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dot::tests::noise;

    fn numbers(random: &mut impl FnMut() -> f32, n: usize) -> Vec<f32> {
        (0..n).map(|_| random() / 2.0).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn products_are_those_of_the_definition_on_every_set(
            (m, n, k) in (1..90usize, 1..70usize, 1..900usize),
            (ta, tb, upper) in any::<(bool, bool, bool)>(),
            seed in any::<u32>(),
        ) {
            let mut random = noise(seed);
            let (a, b) = (numbers(&mut random, m * k), numbers(&mut random, k * n));
            let va = if ta { View::rows(&a, m).transposed() } else { View::rows(&a, k) };
            let vb = if tb { View::rows(&b, k).transposed() } else { View::rows(&b, n) };
            let start = numbers(&mut random, m * (n + 3));
            let part = if upper { Part::Upper } else { Part::Whole };
            let mut first: Option<Vec<f32>> = None;
            for isa in Isa::all() {
                for threads in [1, 3] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let mut c = start.clone();
                    pool.install(|| gemm(isa, part, (m, n, k), -0.5, va, vb, &mut c, n + 3));
                    if let Some(first) = &first {
                        prop_assert_eq!(first, &c);
                        continue;
                    }
                    for i in 0..m {
                        for j in 0..n {
                            if upper && j < i {
                                continue;
                            }
                            let at = |v: View, i: usize, j: usize| f64::from(v.data[i * v.rows + j * v.cols]);
                            let sum: f64 = (0..k).map(|k| at(va, i, k) * at(vb, k, j)).sum();
                            let wanted = f64::from(start[i * (n + 3) + j]) - 0.5 * sum;
                            let found = f64::from(c[i * (n + 3) + j]);
                            prop_assert!((wanted - found).abs() < 1e-4, "{} {}: {} {}", i, j, wanted, found);
                        }
                        prop_assert_eq!(&start[i * (n + 3) + n..(i + 1) * (n + 3)], &c[i * (n + 3) + n..(i + 1) * (n + 3)]);
                    }
                    first = Some(c);
                }
            }
        }
    }
}

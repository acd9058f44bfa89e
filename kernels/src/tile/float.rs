//! Panels of floats: for weights that are stored as such, and for every type where activations stay exact.

use super::super::activations::TOKENS;
use super::super::lanes::{Lanes, Unit, per_lanes};
use super::super::{Aligned, Isa, isa::per_isa};
use super::{DEPTH, ROWS, store};

/// Sixteen rows of floats side by side: `[cols, ROWS]`. Rows that are missing are zero.
#[derive(Default)]
pub struct Floats {
    cols: usize,
    values: Aligned<f32>,
}

impl Floats {
    /// Takes up to sixteen rows of `cols` floats over.
    ///
    /// # Panics
    /// If there are more rows, or one has another length.
    pub fn fill<'a>(&mut self, isa: Isa, cols: usize, rows: impl Iterator<Item = &'a [f32]>) {
        self.values.resize(cols.checked_mul(ROWS).expect("a panel fits into memory"));
        self.cols = cols;
        let mut filled = 0;
        for (r, row) in rows.enumerate() {
            assert!(r < ROWS, "a panel has {ROWS} rows at most");
            assert!(row.len() == cols, "row {r} has {} numbers, not {cols}", row.len());
            put(isa, row, r, &mut self.values);
            filled = r + 1;
        }
        for r in filled..ROWS {
            self.values.as_chunks_mut::<ROWS>().0.iter_mut().for_each(|v| v[r] = 0.0);
        }
    }

    /// Columns of the rows.
    pub fn cols(&self) -> usize {
        self.cols
    }
}

per_isa! {
    fn put(row: &[f32], r: usize, values: &mut [f32]) = put_body
}

#[inline(always)]
fn put_body(row: &[f32], r: usize, values: &mut [f32]) {
    for (v, x) in values.as_chunks_mut::<ROWS>().0.iter_mut().zip(row) {
        v[r] = *x;
    }
}

per_lanes! {
    /// The products of a panel and up to [`TOKENS`] vectors, `x` of `[vectors, cols]`; `out[t][r]` is that of vector t and
    /// row r. What is in `out` for vectors that there are not stays.
    ///
    /// # Panics
    /// If the panel has no columns, or `x` is no whole vectors or too many.
    pub fn tile(panel: &Floats, x: &[f32], out: &mut [[f32; ROWS]; TOKENS]) = tile_body
}

/// The products of the rows of several panels with all vectors `x`, `[vectors, cols]`, times `scale`: row `16 · p + r` is row r
/// of panel p, and `out[t]` are those of vector t, as many as there is room for.
///
/// # Panics
/// If a panel has other columns, or none; if a vector has no room for one row of each panel.
pub fn multiply_all(isa: Isa, panels: &[Floats], x: &[f32], cols: usize, scale: f32, out: &mut [&mut [f32]]) {
    let mut sums = [[0f32; ROWS]; TOKENS];
    for (x, out) in x.chunks(TOKENS * cols).zip(out.chunks_mut(TOKENS)) {
        for (p, panel) in panels.iter().enumerate() {
            tile(isa, panel, x, &mut sums);
            store(out, p * ROWS, &sums, scale);
        }
    }
}

/// Vectors whose sums stay in registers.
const TEAM: usize = 8;

#[inline(always)]
fn tile_body<U: Unit>(unit: U, panel: &Floats, x: &[f32], out: &mut [[f32; ROWS]; TOKENS]) {
    assert!(panel.cols > 0 && x.len().is_multiple_of(panel.cols), "{} numbers are no whole vectors", x.len());
    let tokens = x.len() / panel.cols;
    assert!(tokens <= TOKENS, "{tokens} vectors are more than {TOKENS}");
    let mut t = 0;
    while t + TEAM <= tokens {
        if U::MANY {
            team::<U, TEAM>(unit, panel, &x[t * panel.cols..], &mut out[t..]);
        } else {
            // Sixteen registers are room for half as many.
            for t in [t, t + TEAM / 2] {
                team::<U, { TEAM / 2 }>(unit, panel, &x[t * panel.cols..], &mut out[t..]);
            }
        }
        t += TEAM;
    }
    while t < tokens {
        team::<U, 1>(unit, panel, &x[t * panel.cols..], &mut out[t..]);
        t += 1;
    }
}

#[inline(always)]
fn team<U: Unit, const N: usize>(unit: U, panel: &Floats, x: &[f32], out: &mut [[f32; ROWS]]) {
    let cols = panel.cols;
    let mut rows = [x; N];
    for t in 0..N {
        rows[t] = &x[t * cols..][..cols];
    }
    let mut total = [unit.splat(0.0); N];
    let mut first = 0;
    while first < cols {
        let last = (first + DEPTH).min(cols);
        let weights = &panel.values.as_chunks::<ROWS>().0[first..last];
        let mut part = rows;
        for t in 0..N {
            part[t] = &rows[t][first..last];
        }
        let mut sum = [unit.splat(0.0); N];
        for (k, w) in weights.iter().enumerate() {
            let w = unit.load(w);
            for t in 0..N {
                sum[t] = w.fma(unit.splat(part[t][k]), sum[t]);
            }
        }
        for t in 0..N {
            total[t] = total[t].add(sum[t]);
        }
        first = last;
    }
    for t in 0..N {
        total[t].store(&mut out[t]);
    }
}

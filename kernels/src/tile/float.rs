//! Panels of floats: for weights that are stored as such, and for every type where activations stay exact.

use super::super::activations::TOKENS;
use super::super::lanes::{Lanes, per_lanes};
use super::super::{Aligned, Isa, isa::per_isa};
use super::{DEPTH, ROWS};

/// Sixteen rows of floats side by side: `[cols, ROWS]`. Rows that are missing are zero.
#[derive(Default)]
pub struct Floats {
    /// Columns.
    pub cols: usize,
    /// The weights.
    pub values: Aligned<f32>,
}

impl Floats {
    /// Takes up to sixteen rows over.
    pub fn fill<'a>(&mut self, isa: Isa, cols: usize, rows: impl Iterator<Item = &'a [f32]>) {
        self.cols = cols;
        self.values.resize(cols * ROWS);
        let mut filled = 0;
        for (r, row) in rows.enumerate() {
            put(isa, row, r, &mut self.values);
            filled = r + 1;
        }
        for r in filled..ROWS {
            self.values.as_chunks_mut::<ROWS>().0.iter_mut().for_each(|v| v[r] = 0.0);
        }
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
    /// Products of a panel and up to [`TOKENS`] vectors of `cols` numbers; `out[t][r]` is vector t's with row r.
    pub fn tile(panel: &Floats, x: &[f32], out: &mut [[f32; ROWS]; TOKENS]) = tile_body
}

/// Vectors whose sums stay in registers.
const TEAM: usize = 8;

#[inline(always)]
fn tile_body<L: Lanes>(panel: &Floats, x: &[f32], out: &mut [[f32; ROWS]; TOKENS]) {
    let tokens = x.len() / panel.cols;
    let mut t = 0;
    while t + TEAM <= tokens {
        team::<L, TEAM>(panel, &x[t * panel.cols..], &mut out[t..]);
        t += TEAM;
    }
    while t < tokens {
        team::<L, 1>(panel, &x[t * panel.cols..], &mut out[t..]);
        t += 1;
    }
}

#[inline(always)]
fn team<L: Lanes, const N: usize>(panel: &Floats, x: &[f32], out: &mut [[f32; ROWS]]) {
    let cols = panel.cols;
    let mut rows = [x; N];
    for t in 0..N {
        rows[t] = &x[t * cols..][..cols];
    }
    let mut total = [L::splat(0.0); N];
    let mut first = 0;
    while first < cols {
        let last = (first + DEPTH).min(cols);
        let weights = &panel.values.as_chunks::<ROWS>().0[first..last];
        let mut part = rows;
        for t in 0..N {
            part[t] = &rows[t][first..last];
        }
        let mut sum = [L::splat(0.0); N];
        for (k, w) in weights.iter().enumerate() {
            let w = L::load(w);
            for t in 0..N {
                sum[t] = w.fma(L::splat(part[t][k]), sum[t]);
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

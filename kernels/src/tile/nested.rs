//! Panels of types with integer scales: weights times their scales are integers too, which are multiplied with the
//! codes of 256 activations without a float between.

use super::super::activations::{Activations, TOKENS};
use super::super::weights::Nested;
use super::{Panel, ROWS};

/// The definition, over pairs of columns.
pub fn portable(panel: &Panel, x: &Activations, token: usize, out: &mut [[f32; ROWS]; TOKENS]) {
    let blocks = panel.cols / 256;
    for (t, out) in out.iter_mut().enumerate() {
        *out = [0.0; ROWS];
        if token + t >= x.tokens() {
            continue;
        }
        let (q, sixteens) = (x.codes(token + t), x.sixteens(token + t));
        let scales = x.of(&x.scales, token + t);
        for b in 0..blocks {
            let mut sums = [0i32; ROWS];
            let pairs = panel.pairs[b * 256 * ROWS..][..256 * ROWS].as_chunks::<{ 2 * ROWS }>().0;
            for (w, q) in pairs.iter().zip(q[b * 256..][..256].as_chunks::<2>().0) {
                for r in 0..ROWS {
                    sums[r] +=
                        i32::from(w[2 * r]) * i32::from(q[0]) + i32::from(w[2 * r + 1]) * i32::from(q[1]);
                }
            }
            for r in 0..ROWS {
                out[r] = (sums[r] as f32 * panel.scales[b * ROWS + r]).mul_add(scales[b], out[r]);
            }
            if panel.mins.is_empty() {
                continue;
            }
            let mut sums = [0i32; ROWS];
            let pairs = panel.integers[b * 16 * ROWS..][..16 * ROWS].as_chunks::<{ 2 * ROWS }>().0;
            for (m, q) in pairs.iter().zip(sixteens[b * 16..][..16].as_chunks::<2>().0) {
                for r in 0..ROWS {
                    sums[r] +=
                        i32::from(m[2 * r]) * i32::from(q[0]) + i32::from(m[2 * r + 1]) * i32::from(q[1]);
                }
            }
            for r in 0..ROWS {
                out[r] = (sums[r] as f32 * panel.mins[b * ROWS + r]).mul_add(scales[b], out[r]);
            }
        }
    }
}

/// What a set multiplies.
#[derive(Clone, Copy, PartialEq)]
pub enum Form {
    /// Codes times scales, in pairs of columns.
    Pairs,
    /// Codes times scales, in one or two planes of bytes.
    #[cfg(target_arch = "x86_64")]
    Planes,
    /// Codes, with the scales of groups of so many columns beside them, lifted above zero by so much.
    #[cfg(target_arch = "x86_64")]
    Codes(usize, i32),
}

/// Makes room in a panel for rows.
#[inline(always)]
pub fn room<const B: usize, T: Nested<B>>(rows: &[&[u8]], panel: &mut Panel, form: Form) {
    room_for(super::blocks_of(rows, B), T::LOW, T::MIN, panel, form);
}

fn room_for(blocks: usize, low: u32, min: bool, panel: &mut Panel, form: Form) {
    (panel.cols, panel.group, panel.low) = (blocks * 256, 256, low);
    let all = blocks * 256 * ROWS;
    let (codes, upper, pairs, factors, lifts) = match form {
        Form::Pairs => (0, 0, all, 0, 0),
        #[cfg(target_arch = "x86_64")]
        Form::Planes => (all, if low > 0 { all } else { 0 }, 0, 0, 0),
        #[cfg(target_arch = "x86_64")]
        Form::Codes(group, lift) => (all, 0, 0, all / group, if lift > 0 { blocks * 16 * ROWS } else { 0 }),
    };
    panel.codes.resize(codes);
    panel.upper.resize(upper);
    panel.pairs.resize(pairs);
    panel.factors.resize(factors);
    panel.lifts.resize(lifts);
    panel.scales.resize(blocks * ROWS);
    panel.mins.resize(if min { blocks * ROWS } else { 0 });
    panel.integers.resize(if min { blocks * 16 * ROWS } else { 0 });
}

/// Unpacks rows into pairs of columns.
pub fn unpack<const B: usize, T: Nested<B>>(rows: &[&[u8]], panel: &mut Panel) {
    unpack_body::<B, T>(rows, panel);
}

/// What a block's rows have beside codes.
#[inline(always)]
pub fn scales<const B: usize, T: Nested<B>>(block: &[u8; B], b: usize, r: usize, panel: &mut Panel) {
    panel.scales[b * ROWS + r] = T::d(block);
    if T::MIN {
        panel.mins[b * ROWS + r] = T::dmin(block);
        let mins = T::mins(block);
        for i in 0..16 {
            panel.integers[((b * 8 + i / 2) * ROWS + r) * 2 + i % 2] = mins[i];
        }
    }
}

/// Makes the scales of missing rows zero.
#[inline(always)]
pub fn clear(count: usize, panel: &mut Panel) {
    if count < ROWS {
        panel.scales.fill(0.0);
        panel.mins.fill(0.0);
        panel.integers.fill(0);
    }
}

#[inline(always)]
pub fn unpack_body<const B: usize, T: Nested<B>>(rows: &[&[u8]], panel: &mut Panel) {
    room::<B, T>(rows, panel, Form::Pairs);
    clear(rows.len(), panel);
    let mut codes = [0i8; 256];
    for b in 0..panel.cols / 256 {
        for (r, row) in rows.iter().enumerate() {
            let block = &row.as_chunks::<B>().0[b];
            T::codes(block, &mut codes);
            let integers = T::scales(block);
            let pairs = panel.pairs[b * 256 * ROWS..][..256 * ROWS].as_chunks_mut::<{ 2 * ROWS }>().0;
            for (k, pair) in pairs.iter_mut().enumerate() {
                for i in 0..2 {
                    pair[2 * r + i] = integers[k / 8] * i16::from(codes[2 * k + i]);
                }
            }
            scales::<B, T>(block, b, r, panel);
        }
    }
}

//! The runner's arithmetic on floats: norms, activations, soft maximum, rotation.
//!
//! Sums are taken in sixteen lanes that are added up in a fixed tree, and exponentials by one polynomial, so that
//! every set gives the same bits.

use super::isa::per_isa;

const LANES: usize = 16;

#[inline(always)]
fn tree(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

per_isa! {
    /// Root mean square norm: x / sqrt(mean(x²) + epsilon) · weight (arXiv 1910.07467), for one vector. The shortest of the
    /// three slices says how many results there are.
    pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) = rms_norm_body
}

#[inline(always)]
fn rms_norm_body(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for x in chunks {
        for i in 0..LANES {
            lanes[i] = x[i].mul_add(x[i], lanes[i]);
        }
    }
    for (i, x) in rest.iter().enumerate() {
        lanes[i] = x.mul_add(*x, lanes[i]);
    }
    let scale = 1.0 / (tree(lanes) / x.len() as f32 + epsilon).sqrt();
    let n = out.len().min(x.len()).min(weight.len());
    let (out, x, weight) = (&mut out[..n], &x[..n], &weight[..n]);
    for i in 0..n {
        out[i] = x[i] * scale * weight[i];
    }
}

/// eˣ: 2ⁿ · eᶠ with |f| ≤ ln 2 / 2, the second by a polynomial of degree 6; relative error below 3e-7. 0 below −87,
/// and never infinite.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Where the steps between floats are 1, adding rounds, and the integer stands in the lowest bits.
    const STEP: f32 = 12_582_912.0;
    let inside = x.clamp(-87.0, 88.0);
    let stepped = inside.mul_add(std::f32::consts::LOG2_E, STEP);
    let n = stepped - STEP;
    // ln 2 in two parts, the first with few enough digits that n times it is exact.
    let f = n.mul_add(-0.693_359_4, inside);
    let f = n.mul_add(2.121_944_4e-4, f);
    let mut p = 1.388_888_9e-3f32;
    p = p.mul_add(f, 8.333_334e-3);
    p = p.mul_add(f, 4.166_666_8e-2);
    p = p.mul_add(f, 1.666_666_7e-1);
    p = p.mul_add(f, 0.5);
    p = p.mul_add(f, 1.0);
    p = p.mul_add(f, 1.0);
    let power = f32::from_bits((stepped.to_bits() << 23).wrapping_add(0x3F80_0000));
    if x < -87.0 { 0.0 } else { p * power }
}

per_isa! {
    /// silu(gate) · up, into `gate`; silu(x) = x / (1 + e⁻ˣ).
    pub fn silu_times(gate: &mut [f32], up: &[f32]) = silu_times_body
}

#[inline(always)]
fn silu_times_body(gate: &mut [f32], up: &[f32]) {
    for (g, u) in gate.iter_mut().zip(up) {
        *g = *g / (1.0 + exp(-*g)) * u;
    }
}

per_isa! {
    /// max(gate, 0)² · up, into `gate`.
    pub fn relu2_times(gate: &mut [f32], up: &[f32]) = relu2_times_body
}

#[inline(always)]
fn relu2_times_body(gate: &mut [f32], up: &[f32]) {
    for (g, u) in gate.iter_mut().zip(up) {
        let x = g.max(0.0);
        *g = x * x * u;
    }
}

per_isa! {
    /// x += y.
    pub fn add(x: &mut [f32], y: &[f32]) = add_body
}

#[inline(always)]
fn add_body(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

per_isa! {
    /// x += by · y.
    pub fn add_times(x: &mut [f32], y: &[f32], by: f32) = add_times_body
}

#[inline(always)]
fn add_times_body(x: &mut [f32], y: &[f32], by: f32) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += by * y;
    }
}

per_isa! {
    /// The soft maximum of scale · x: e^(scale · (x − largest)) over their sum.
    pub fn soft_max(x: &mut [f32], scale: f32) = soft_max_body
}

#[inline(always)]
fn soft_max_body(x: &mut [f32], scale: f32) {
    // What is no number is never larger, as in `f32::max`, which takes more than one instruction.
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut most = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    // What is left is computed as a whole chunk too, of which only so much is taken.
    let mut last = [f32::NEG_INFINITY; LANES];
    last[..rest.len()].copy_from_slice(rest);
    for x in chunks.iter().chain([&last]) {
        for i in 0..LANES {
            most[i] = larger(most[i], x[i]);
        }
    }
    let most = most.into_iter().fold(f32::NEG_INFINITY, larger);
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for x in chunks {
        for i in 0..LANES {
            x[i] = exp((x[i] - most) * scale);
            lanes[i] += x[i];
        }
    }
    for x in &mut last {
        *x = exp((*x - most) * scale);
    }
    for (i, x) in rest.iter_mut().enumerate() {
        *x = last[i];
        lanes[i] += last[i];
    }
    let inverse = 1.0 / tree(lanes);
    for x in x {
        *x *= inverse;
    }
}

per_isa! {
    /// Turns pairs of a head's dimensions by their angles (arXiv 2104.09864): neighbours, or one of the first half
    /// with one of the second. `turns` has the cosines of all pairs, then their sines.
    ///
    /// # Panics
    /// If `turns` is shorter than `head`, but for an odd last dimension.
    pub fn rotate(head: &mut [f32], turns: &[f32], halves: bool) = rotate_body
}

#[inline(always)]
fn rotate_body(head: &mut [f32], turns: &[f32], halves: bool) {
    let n = head.len() / 2;
    let (cos, sin) = turns[..2 * n].split_at(n);
    if halves {
        let (first, second) = head.split_at_mut(n);
        for i in 0..n {
            let (a, b) = (first[i], second[i]);
            first[i] = a * cos[i] - b * sin[i];
            second[i] = a * sin[i] + b * cos[i];
        }
    } else {
        for (i, pair) in head.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let [a, b] = *pair;
            *pair = [a * cos[i] - b * sin[i], a * sin[i] + b * cos[i]];
        }
    }
}

per_isa! {
    /// Reads bytes and does as little with them as can be: the sum of their 64-bit words.
    pub fn touch(bytes: &[u8]) -> u64 = touch_body
}

#[inline(always)]
fn touch_body(bytes: &[u8]) -> u64 {
    let mut lanes = [0u64; 32];
    for chunk in bytes.as_chunks::<256>().0 {
        for (l, word) in lanes.iter_mut().zip(chunk.as_chunks::<8>().0) {
            *l = l.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    lanes.iter().fold(0, |s, x| s.wrapping_add(*x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::dot::tests::noise;

    #[test]
    fn exponentials() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let (found, truth) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / truth - 1.0).abs() < 3e-7, "{x}: {found} {truth}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(1e30).is_finite());
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn every_set_gives_the_same_bits() {
        for n in [2, 16, 50, 64, 1000] {
            let mut next = noise(n as u32);
            let x: Vec<f32> = (0..n).map(|_| next() * 8.0).collect();
            let y: Vec<f32> = (0..n).map(|_| next()).collect();
            let run = |isa| {
                let mut all = vec![vec![0.0; n]];
                rms_norm(isa, &x, &y, 1e-5, &mut all[0]);
                for f in [silu_times, relu2_times, add] {
                    let mut a = x.clone();
                    f(isa, &mut a, &y);
                    all.push(a);
                }
                let mut a = x.clone();
                soft_max(isa, &mut a, 0.3);
                all.push(a);
                for halves in [true, false] {
                    let mut a = x.clone();
                    rotate(isa, &mut a, &y, halves);
                    all.push(a);
                }
                all
            };
            let truth = run(Isa::PORTABLE);
            for isa in Isa::all() {
                assert_eq!(truth, run(isa), "{n} {}", isa.name());
            }
            let sum: f32 = truth[4].iter().sum();
            assert!((sum - 1.0).abs() < 1e-5);
            let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
            let first = f64::from(x[0]) / (squares / n as f64 + 1e-5).sqrt() * f64::from(y[0]);
            assert!((f64::from(truth[0][0]) - first).abs() < 1e-5);
        }
    }
}

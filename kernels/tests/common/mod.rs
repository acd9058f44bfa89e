//! What several tests need.

/// Reproducible numbers with all magnitudes that weights have.
pub fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut s = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        (s >> 40) as f32 / (1 << 24) as f32
    };
    (0..n)
        .map(|_| (0..6).map(|_| next() - 0.5).sum::<f32>() * 10f32.powi((next() * 12.0) as i32 - 8))
        .collect()
}

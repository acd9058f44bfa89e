//! Pseudorandom numbers that are the same on every machine for the same seed.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An integer from 0 to below `n`. It is the upper half of a 128-bit product; the bias is below n / 2^64.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// A number from 0 to below 1, a multiple of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        let mut r = Random::new(1234567);
        assert_eq!(
            [r.next(), r.next(), r.next()],
            [6457827717110365317, 3203168211198807973, 9817491932198370423]
        );
    }

    #[test]
    fn numbers_fill_their_range() {
        let mut r = Random::new(7);
        let mut seen = [0; 8];
        let mut sum = 0.0;
        for _ in 0..8000 {
            let x = r.unit();
            assert!((0.0..1.0).contains(&x));
            sum += x;
            seen[r.below(8) as usize] += 1;
        }
        assert!(
            (sum / 8000.0 - 0.5).abs() < 0.02 && seen.iter().all(|n| (850..1150).contains(n)),
            "{seen:?}"
        );
    }
}

//! Lattice types: points of tables, and their signs.

use formats::block::lattice::{eight_signs, grid};

use super::Nested;
use super::legacy::half;

/// 1, 3, 5 and so on.
#[inline(always)]
fn odd(scale: u8) -> i16 {
    2 * i16::from(scale) + 1
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Coordinates with their signs.
#[inline(always)]
fn signed<const N: usize>(point: &[u8; N], signs: u8, out: &mut [i8]) {
    for j in 0..N {
        let minus = -((signs >> j & 1) as i8);
        out[j] = (point[j] as i8 ^ minus) - minus;
    }
}

/// A lattice type as points of `N` coordinates, 256 / N in a block.
pub trait Points<const B: usize, const N: usize> {
    /// The magnitudes of point l.
    fn point(block: &[u8; B], l: usize) -> &'static [u8; N];
    /// The signs of eight weights.
    fn signs(block: &[u8; B], eight: usize) -> u8;
}

macro_rules! nested {
    ($name:ident $b:literal $n:literal, $fraction:literal) => {
        impl Nested<$b> for $name {
            /// The signs go to the activations.
            const OFFSET: i32 = 0;
            const LOW: u32 = 4;
            #[inline(always)]
            fn codes(block: &[u8; $b], out: &mut [i8; 256]) {
                for l in 0..256 / $n {
                    let signs = Self::signs(block, l * $n / 8) >> (l * $n % 8);
                    signed::<$n>(Self::point(block, l), signs, &mut out[l * $n..]);
                }
            }
            #[inline(always)]
            fn scales(block: &[u8; $b]) -> [i16; 16] {
                let mut s = [0; 16];
                for g in 0..16 {
                    s[g] = odd(Self::scale(block, g));
                }
                s
            }
            #[inline(always)]
            fn d(block: &[u8; $b]) -> f32 {
                half(block, 0) * $fraction
            }
        }
    };
}

/// Points of eight; seven signs.
pub struct Iq2Xxs;
nested!(Iq2Xxs 66 8, 0.125);
impl Iq2Xxs {
    #[inline(always)]
    fn scale(block: &[u8; 66], g: usize) -> u8 {
        block[2 + 8 * (g / 2) + 7] >> 4
    }
}
impl Points<66, 8> for Iq2Xxs {
    #[inline(always)]
    fn point(block: &[u8; 66], l: usize) -> &'static [u8; 8] {
        &grid::IQ2_XXS[usize::from(block[2 + l / 4 * 8 + l % 4])]
    }
    #[inline(always)]
    fn signs(block: &[u8; 66], eight: usize) -> u8 {
        eight_signs(long(block, 2 + eight / 4 * 8 + 4) >> (7 * (eight % 4)))
    }
}

/// Points of eight from 512; seven signs.
pub struct Iq2Xs;
nested!(Iq2Xs 74 8, 0.125);
impl Iq2Xs {
    #[inline(always)]
    fn scale(block: &[u8; 74], g: usize) -> u8 {
        block[66 + g / 2] >> (4 * (g % 2)) & 15
    }
}
impl Points<74, 8> for Iq2Xs {
    #[inline(always)]
    fn point(block: &[u8; 74], l: usize) -> &'static [u8; 8] {
        &grid::IQ2_XS[usize::from(word(block, 2 + 2 * l) & 511)]
    }
    #[inline(always)]
    fn signs(block: &[u8; 74], eight: usize) -> u8 {
        eight_signs(u32::from(word(block, 2 + 2 * eight) >> 9))
    }
}

/// Points of eight from 1024; eight signs.
pub struct Iq2S;
nested!(Iq2S 82 8, 0.125);
impl Iq2S {
    #[inline(always)]
    fn scale(block: &[u8; 82], g: usize) -> u8 {
        block[74 + g / 2] >> (4 * (g % 2)) & 15
    }
}
impl Points<82, 8> for Iq2S {
    #[inline(always)]
    fn point(block: &[u8; 82], l: usize) -> &'static [u8; 8] {
        let high = block[66 + l / 4] >> (2 * (l % 4)) & 3;
        &grid::IQ2_S[usize::from(block[2 + l]) | usize::from(high) << 8]
    }
    #[inline(always)]
    fn signs(block: &[u8; 82], eight: usize) -> u8 {
        block[34 + eight]
    }
}

/// Points of four; seven signs of eight.
pub struct Iq3Xxs;
nested!(Iq3Xxs 98 4, 0.25);
impl Iq3Xxs {
    #[inline(always)]
    fn scale(block: &[u8; 98], g: usize) -> u8 {
        block[66 + 4 * (g / 2) + 3] >> 4
    }
}
impl Points<98, 4> for Iq3Xxs {
    #[inline(always)]
    fn point(block: &[u8; 98], l: usize) -> &'static [u8; 4] {
        &grid::IQ3_XXS[usize::from(block[2 + l])]
    }
    #[inline(always)]
    fn signs(block: &[u8; 98], eight: usize) -> u8 {
        eight_signs(long(block, 66 + eight / 4 * 4) >> (7 * (eight % 4)))
    }
}

/// Points of four from 512; eight signs.
pub struct Iq3S;
nested!(Iq3S 110 4, 1.0);
impl Iq3S {
    #[inline(always)]
    fn scale(block: &[u8; 110], g: usize) -> u8 {
        block[106 + g / 4] >> (4 * (g / 2 % 2)) & 15
    }
}
impl Points<110, 4> for Iq3S {
    #[inline(always)]
    fn point(block: &[u8; 110], l: usize) -> &'static [u8; 4] {
        let high = block[66 + l / 8] >> (l % 8) & 1;
        &grid::IQ3_S[usize::from(block[2 + l]) | usize::from(high) << 8]
    }
    #[inline(always)]
    fn signs(block: &[u8; 110], eight: usize) -> u8 {
        block[74 + eight]
    }
}

/// Points of −1, 0 and 1, moved by an eighth: eight times that.
pub trait Shifted<const B: usize> {
    /// The levels of point l, from 0 to 2.
    fn point(block: &[u8; B], l: usize) -> &'static [u8; 8];
    /// Whether it is moved down.
    fn down(block: &[u8; B], l: usize) -> bool;
}

#[inline(always)]
fn shifted<const B: usize, T: Shifted<B>>(block: &[u8; B], out: &mut [i8; 256]) {
    for (l, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let least = if T::down(block, l) { -9 } else { -7 };
        let point = T::point(block, l);
        for j in 0..8 {
            out[j] = 8 * point[j] as i8 + least;
        }
    }
}

/// Scales of 32.
pub struct Iq1S;
impl Shifted<50> for Iq1S {
    #[inline(always)]
    fn point(block: &[u8; 50], l: usize) -> &'static [u8; 8] {
        let high = word(block, 34 + l / 4 * 2) >> (3 * (l % 4)) & 7;
        &grid::IQ1[usize::from(block[2 + l]) | usize::from(high) << 8]
    }
    #[inline(always)]
    fn down(block: &[u8; 50], l: usize) -> bool {
        block[35 + l / 4 * 2] >> 7 == 1
    }
}
impl Nested<50> for Iq1S {
    const OFFSET: i32 = 9;
    const LOW: u32 = 4;
    #[inline(always)]
    fn codes(block: &[u8; 50], out: &mut [i8; 256]) {
        shifted::<50, Self>(block, out);
    }
    #[inline(always)]
    fn scales(block: &[u8; 50]) -> [i16; 16] {
        let mut s = [0; 16];
        for g in 0..16 {
            s[g] = odd(block[35 + g / 2 * 2] >> 4 & 7);
        }
        s
    }
    #[inline(always)]
    fn d(block: &[u8; 50]) -> f32 {
        half(block, 0) * 0.125
    }
}

/// Scales of sixteen; d in four parts.
pub struct Iq1M;
impl Shifted<56> for Iq1M {
    #[inline(always)]
    fn point(block: &[u8; 56], l: usize) -> &'static [u8; 8] {
        let high = block[32 + l / 2] >> (4 * (l % 2)) & 7;
        &grid::IQ1[usize::from(block[l]) | usize::from(high) << 8]
    }
    #[inline(always)]
    fn down(block: &[u8; 56], l: usize) -> bool {
        block[32 + l / 2] >> (4 * (l % 2)) & 8 != 0
    }
}
impl Nested<56> for Iq1M {
    const OFFSET: i32 = 9;
    const LOW: u32 = 4;
    #[inline(always)]
    fn codes(block: &[u8; 56], out: &mut [i8; 256]) {
        shifted::<56, Self>(block, out);
    }
    #[inline(always)]
    fn scales(block: &[u8; 56]) -> [i16; 16] {
        let mut s = [0; 16];
        for g in 0..16 {
            s[g] = odd((word(block, 48 + g / 4 * 2) >> (3 * (g % 4)) & 7) as u8);
        }
        s
    }
    #[inline(always)]
    fn d(block: &[u8; 56]) -> f32 {
        let [a, b, c, d] = [49, 51, 53, 55].map(|i: usize| u16::from(block[i] >> 4));
        formats::block::f16_to_f32(a | b << 4 | c << 8 | d << 12) * 0.125
    }
}

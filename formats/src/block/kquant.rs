//! K-quants: super-blocks of 256 weights, whose groups of 16 or 32 have integer scales (and minimums), multiplied by one IEEE
//! half (or two) of the super-block. Layouts: `block_q2_K` to `block_q6_K` in ggml.

use super::affine;
use super::groups::{Integers, Row};
use super::how::amplify_half;
use super::layout::{
    half, long_nibbles, pack_half, pack_long_nibbles, pack_pairs, pack_planes, pack_six_bit_codes,
    pack_sixes, pack_sixteen_sixes, pairs, planes, six_bit_codes, sixes, sixteen_sixes,
};
use super::scaled::{self, Shape};
use super::{Block, Effort, Prior};

/// Values of the largest scale, where scales are signed integers of six bits.
pub(super) const SIGNED_SIX_BITS: &[Row] = &[
    [-32.0, 31.0, -31.0, 30.0, -30.0, 29.0, -29.0, 28.0],
    [-33.0, 32.0, -28.0, 27.0, -27.0, 26.0, -26.0, 25.0],
    [-32.5, 31.5, -25.0, 24.0, -24.0, 23.0, -23.0, 22.0],
];

/// Values of the largest scale, where scales are unsigned integers of six bits. Integers are among them, with which some
/// weights are represented exactly.
const SIX_BITS: &[Row] =
    &[falling(63.5), falling(59.5), falling(55.5), falling(51.5), falling(47.5), falling(43.5)];

/// From `first` downwards in steps of 0.5.
const fn falling(first: f32) -> Row {
    let mut row = [first; 8];
    let mut l = 0;
    while l < 8 {
        row[l] -= 0.5 * l as f32;
        l += 1;
    }
    row
}

/// Starting points of groups (see [`affine::Shape`]) for 16 levels and more.
const ENDS_MANY: [[f32; 2]; 18] = [
    [0.0, 0.0],
    [0.0, -1.0],
    [0.0, 0.5],
    [0.5, 0.0],
    [-0.5, 0.0],
    [-0.5, 0.5],
    [0.0, 1.0],
    [-0.5, 1.0],
    [-1.0, 0.0],
    [-1.0, 0.5],
    [-1.0, 1.0],
    [0.5, -0.5],
    [-2.0, 0.0],
    [0.0, 2.0],
    [-2.0, 2.0],
    [0.3, -0.3],
    [-1.5, 1.5],
    [-0.5, -0.5],
];

/// Starting points of groups for four levels.
const ENDS_FEW: [[f32; 2]; 22] = [
    [0.0, 0.0],
    [0.0, -1.0],
    [1.0, 0.0],
    [-0.2, 0.0],
    [0.0, 0.2],
    [-0.2, 0.2],
    [-0.4, 0.0],
    [0.0, 0.4],
    [-0.4, 0.2],
    [-0.2, 0.4],
    [-0.4, 0.4],
    [0.2, 0.0],
    [0.0, -0.2],
    [0.2, -0.2],
    [-0.7, 0.0],
    [0.0, 0.7],
    [-0.7, 0.4],
    [-0.4, 0.7],
    [-0.7, 0.7],
    [-1.1, 0.3],
    [-0.3, 1.1],
    [-1.1, 1.1],
];

/// Weights x = (d·scale)·q − dmin·min of `G` groups of `N`.
#[inline(always)]
fn affine_values<const G: usize, const N: usize>(
    (d, dmin): (f32, f32),
    scales: &[u8; G],
    mins: &[u8; G],
    q: &[u8; 256],
    out: &mut [f32; 256],
) {
    for g in 0..G {
        let (step, min) = (d * f32::from(scales[g]), dmin * f32::from(mins[g]));
        for j in N * g..N * (g + 1) {
            out[j] = step * f32::from(q[j]) - min;
        }
    }
}

/// Weights x = (d·scale)·(q − offset) of groups of 16.
#[inline(always)]
fn scaled_values(d: f32, scales: &[i8; 16], offset: f32, q: &[u8; 256], out: &mut [f32; 256]) {
    for g in 0..16 {
        let step = d * f32::from(scales[g]);
        for j in 16 * g..16 * (g + 1) {
            out[j] = step * (f32::from(q[j]) - offset);
        }
    }
}

/// Sixteen bytes of scale (low nibble) and minimum (high nibble), 64 bytes of codes of two bits, d, dmin: groups of 16,
/// x = d·scale·q − dmin·min.
pub struct Q2K;

impl Block<256, 84> for Q2K {
    const PRIOR: Prior = Prior::Root(1.0);
    const PREFERS_PRIOR: [bool; 2] = [true, true];

    const AMPLIFIED: bool = true;

    #[inline(always)]
    fn decode(bytes: &[u8; 84], out: &mut [f32; 256]) {
        let (mut scales, mut mins, mut q) = ([0; 16], [0; 16], [0; 256]);
        for g in 0..16 {
            scales[g] = bytes[g] & 15;
            mins[g] = bytes[g] >> 4;
        }
        pairs(&bytes[16..80], &mut q);
        affine_values::<16, 16>((half(&bytes[80..]), half(&bytes[82..])), &scales, &mins, &q, out);
    }

    #[inline(always)]
    fn amplify(bytes: &mut [u8; 84], by: f32) {
        amplify_half(&mut bytes[80..], by);
        amplify_half(&mut bytes[82..], by);
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], w: Option<&[f32; 256]>, effort: Effort, bytes: &mut [u8; 84]) {
        Self::lay_out(&affine::fit::<Q2K, 2, 16, 16>(x, w, effort), bytes);
    }
}

impl Q2K {
    /// Stores a block.
    #[inline(always)]
    pub(super) fn lay_out(block: &affine::Affine<16>, bytes: &mut [u8; 84]) {
        for g in 0..16 {
            bytes[g] = block.scales[g] | block.mins[g] << 4;
        }
        pack_pairs(&block.codes, &mut bytes[16..80]);
        pack_half(block.d, &mut bytes[80..]);
        pack_half(block.dmin, &mut bytes[82..]);
    }
}

impl affine::Shape for Q2K {
    type Levels = Integers<0, 3>;
    const MAX_SCALE: f32 = 15.0;
    const ENDS: &'static [[f32; 2]] = &ENDS_FEW;
    const TOP_SCALES: &'static [Row] = &[
        [15.5, 15.25, 15.0, 14.75, 14.5, 14.25, 14.0, 13.75],
        [13.5, 13.25, 13.0, 12.75, 12.5, 12.25, 12.0, 11.75],
        [11.5, 11.25, 11.0, 10.75, 10.5, 10.25, 10.0, 9.75],
        [9.5, 9.25, 9.0, 8.75, 8.5, 8.25, 8.0, 7.75],
    ];
    const REACH: [[i32; 2]; 2] = [[1, 1], [1, 1]];
}

/// 32 bytes of third bits, 64 bytes of codes of two bits, twelve bytes of scales, d: groups of 16,
/// x = d·(scale − 32)·(q − 4).
pub struct Q3K;

impl Block<256, 110> for Q3K {
    const PRIOR: Prior = Prior::FourthRoot(0.3);
    const PREFERS_PRIOR: [bool; 2] = [true, true];

    #[inline(always)]
    fn decode(bytes: &[u8; 110], out: &mut [f32; 256]) {
        let mut q = [0; 256];
        pairs(&bytes[32..96], &mut q);
        planes(&bytes[..32], 2, &mut q);
        let six = sixteen_sixes(&bytes[96..108]);
        let mut scales = [0; 16];
        for g in 0..16 {
            scales[g] = six[g] as i8 - 32;
        }
        scaled_values(half(&bytes[108..]), &scales, 4.0, &q, out);
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], w: Option<&[f32; 256]>, effort: Effort, bytes: &mut [u8; 110]) {
        Self::lay_out(&scaled::fit::<Q3K, 2, 16, 16>(x, w, effort), bytes);
    }
}

impl Q3K {
    /// Stores a block.
    #[inline(always)]
    pub(super) fn lay_out(block: &scaled::Scaled<16>, bytes: &mut [u8; 110]) {
        let mut six = [0; 16];
        for g in 0..16 {
            six[g] = (block.scales[g] + 32) as u8;
        }
        pack_planes(&block.codes, 2, &mut bytes[..32]);
        pack_pairs(&block.codes, &mut bytes[32..96]);
        pack_sixteen_sixes(&six, &mut bytes[96..108]);
        pack_half(block.d, &mut bytes[108..]);
    }
}

impl Shape for Q3K {
    type Levels = Integers<-4, 3>;
    const MIN_SCALE: f32 = -32.0;
    const MAX_SCALE: f32 = 31.0;
    const PEAK_LEVELS: &'static [f32] =
        &[-3.1, -3.4, -3.7, -4.0, -4.3, -4.6, -5.0, 2.2, 2.5, 2.8, 3.1, 3.4, 3.8, 4.2];
    const MORE_PEAK_LEVELS: &'static [f32] = &[
        -2.8, -3.0, -3.2, -3.4, -3.6, -3.8, -4.0, -4.2, -4.4, -4.6, -4.8, -5.2, -5.8, -6.5, 2.0, 2.2, 2.4,
        2.6, 2.8, 3.0, 3.2, 3.4, 3.6, 3.9, 4.3, 5.0, 6.0,
    ];
    const TOP_SCALES: &'static [Row] = SIGNED_SIX_BITS;
    const REACH: [i32; 2] = [2, 1];
}

/// d, dmin, twelve bytes of scales and minimums, 128 bytes of codes of four bits: groups of 32,
/// x = d·scale·q − dmin·min.
pub struct Q4K;

impl Block<256, 144> for Q4K {
    const PRIOR: Prior = Prior::FourthRoot(1.0);
    const PREFERS_PRIOR: [bool; 2] = [true, true];

    #[inline(always)]
    fn decode(bytes: &[u8; 144], out: &mut [f32; 256]) {
        let mut q = [0; 256];
        long_nibbles(&bytes[16..], &mut q);
        let (scales, mins) = sixes(&bytes[4..16]);
        affine_values::<8, 32>((half(bytes), half(&bytes[2..])), &scales, &mins, &q, out);
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], w: Option<&[f32; 256]>, effort: Effort, bytes: &mut [u8; 144]) {
        Self::lay_out(&affine::fit::<Q4K, 1, 32, 8>(x, w, effort), bytes);
    }
}

impl Q4K {
    /// Stores a block.
    #[inline(always)]
    pub(super) fn lay_out(block: &affine::Affine<8>, bytes: &mut [u8; 144]) {
        pack_half(block.d, bytes);
        pack_half(block.dmin, &mut bytes[2..]);
        pack_sixes(&block.scales, &block.mins, &mut bytes[4..16]);
        pack_long_nibbles(&block.codes, &mut bytes[16..]);
    }
}

impl affine::Shape for Q4K {
    type Levels = Integers<0, 15>;
    const MAX_SCALE: f32 = 63.0;
    const ENDS: &'static [[f32; 2]] = &ENDS_MANY;
    const TOP_SCALES: &'static [Row] = SIX_BITS;
    const REACH: [[i32; 2]; 2] = [[2, 1], [1, 1]];
}

/// As [`Q4K`], with 32 bytes of fifth bits before the codes.
pub struct Q5K;

impl Block<256, 176> for Q5K {
    const PRIOR: Prior = Prior::FourthRoot(1.0);
    const PREFERS_PRIOR: [bool; 2] = [true, true];

    #[inline(always)]
    fn decode(bytes: &[u8; 176], out: &mut [f32; 256]) {
        let mut q = [0; 256];
        long_nibbles(&bytes[48..], &mut q);
        planes(&bytes[16..48], 4, &mut q);
        let (scales, mins) = sixes(&bytes[4..16]);
        affine_values::<8, 32>((half(bytes), half(&bytes[2..])), &scales, &mins, &q, out);
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], w: Option<&[f32; 256]>, effort: Effort, bytes: &mut [u8; 176]) {
        Self::lay_out(&affine::fit::<Q5K, 1, 32, 8>(x, w, effort), bytes);
    }
}

impl Q5K {
    /// Stores a block.
    #[inline(always)]
    pub(super) fn lay_out(block: &affine::Affine<8>, bytes: &mut [u8; 176]) {
        pack_half(block.d, bytes);
        pack_half(block.dmin, &mut bytes[2..]);
        pack_sixes(&block.scales, &block.mins, &mut bytes[4..16]);
        pack_planes(&block.codes, 4, &mut bytes[16..48]);
        pack_long_nibbles(&block.codes, &mut bytes[48..]);
    }
}

impl affine::Shape for Q5K {
    type Levels = Integers<0, 31>;
    const MAX_SCALE: f32 = 63.0;
    const ENDS: &'static [[f32; 2]] = &ENDS_MANY;
    const TOP_SCALES: &'static [Row] = SIX_BITS;
    const REACH: [[i32; 2]; 2] = [[4, 1], [2, 1]];
}

/// 128 bytes of low nibbles, 64 bytes of upper pairs, sixteen signed scales, d: groups of 16,
/// x = d·scale·(q − 32).
pub struct Q6K;

impl Block<256, 210> for Q6K {
    const PRIOR: Prior = Prior::Root(1.0);
    const PREFERS_PRIOR: [bool; 2] = [true, true];

    #[inline(always)]
    fn decode(bytes: &[u8; 210], out: &mut [f32; 256]) {
        let mut q = [0; 256];
        six_bit_codes(&bytes[..128], &bytes[128..192], &mut q);
        let mut scales = [0; 16];
        for g in 0..16 {
            scales[g] = bytes[192 + g] as i8;
        }
        scaled_values(half(&bytes[208..]), &scales, 32.0, &q, out);
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], w: Option<&[f32; 256]>, effort: Effort, bytes: &mut [u8; 210]) {
        Self::lay_out(&scaled::fit::<Q6K, 2, 16, 16>(x, w, effort), bytes);
    }
}

impl Q6K {
    /// Stores a block.
    #[inline(always)]
    pub(super) fn lay_out(block: &scaled::Scaled<16>, bytes: &mut [u8; 210]) {
        let (low, rest) = bytes.split_at_mut(128);
        pack_six_bit_codes(&block.codes, low, &mut rest[..64]);
        for g in 0..16 {
            rest[64 + g] = block.scales[g] as u8;
        }
        pack_half(block.d, &mut rest[80..]);
    }
}

impl Shape for Q6K {
    type Levels = Integers<-32, 31>;
    const MIN_SCALE: f32 = -128.0;
    const MAX_SCALE: f32 = 127.0;
    const PEAK_LEVELS: &'static [f32] = &[
        -28.5, -29.3, -30.0, -30.6, -31.2, -31.7, -32.2, -32.7, -33.3, -34.0, -35.0, -36.2, 28.0, 28.8, 29.5,
        30.1, 30.6, 31.1, 31.6, 32.1, 32.7, 33.4, 34.2, 35.3,
    ];
    const MORE_PEAK_LEVELS: &'static [f32] = &[
        -27.0, -27.5, -28.0, -28.5, -29.0, -29.5, -30.0, -30.5, -31.0, -31.5, -32.0, -32.5, -33.0, -33.5,
        -34.0, -34.5, -35.0, -35.5, -36.0, -36.5, -37.0, -37.5, -38.0, -38.5, -39.0, -39.5, -40.0, 26.5,
        27.0, 27.5, 28.0, 28.5, 29.0, 29.5, 30.0, 30.5, 31.0, 31.5, 32.0, 32.5, 33.0, 33.5, 34.0, 34.5, 35.0,
        35.5, 36.0, 36.5, 37.0, 37.5, 38.0, 38.5, 39.0, 39.5,
    ];
    const TOP_SCALES: &'static [Row] = &[
        [-128.0, 127.0, -126.0, 125.0, -124.0, 123.0, -122.0, 121.0],
        [-120.0, 119.0, -118.0, 117.0, -116.0, 115.0, -114.0, 113.0],
    ];
    const REACH: [i32; 2] = [12, 3];
}

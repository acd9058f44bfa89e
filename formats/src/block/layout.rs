//! The positions of codes in the bytes of blocks: unpacking and packing. Layouts are those of ggml's block structs
//! (`ggml-common.h`).
//!
//! Codes are unsigned, 0 for the lowest level. Both directions are plain loops over fixed arrays. All functions panic if there
//! are fewer bytes than they name.

use super::{f16_to_f32, f32_to_f16};

/// An IEEE half, little-endian, from two bytes.
#[inline(always)]
pub fn half(bytes: &[u8]) -> f32 {
    f16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// Stores a number that an IEEE half represents exactly.
#[inline(always)]
pub(super) fn pack_half(x: f32, bytes: &mut [u8]) {
    bytes[..2].copy_from_slice(&f32_to_f16(x).to_le_bytes());
}

/// 32 codes of four bits in 16 bytes: byte j holds code j in its low nibble and code j + 16 in its high one.
#[inline(always)]
pub fn nibbles(bytes: &[u8]) -> [u8; 32] {
    let mut q = [0; 32];
    for j in 0..16 {
        q[j] = bytes[j] & 15;
        q[j + 16] = bytes[j] >> 4;
    }
    q
}

/// The four low bits of each code.
#[inline(always)]
pub(super) fn pack_nibbles(q: &[u8; 32], bytes: &mut [u8]) {
    for j in 0..16 {
        bytes[j] = q[j] & 15 | q[j + 16] << 4;
    }
}

/// 256 codes of four bits in 128 bytes: each 32 bytes hold 64 codes, the first 32 in low nibbles and the next 32 in high ones.
#[inline(always)]
pub fn long_nibbles(bytes: &[u8], q: &mut [u8; 256]) {
    for p in 0..4 {
        for j in 0..32 {
            q[64 * p + j] = bytes[32 * p + j] & 15;
            q[64 * p + 32 + j] = bytes[32 * p + j] >> 4;
        }
    }
}

#[inline(always)]
pub(super) fn pack_long_nibbles(q: &[u8; 256], bytes: &mut [u8]) {
    for p in 0..4 {
        for j in 0..32 {
            bytes[32 * p + j] = q[64 * p + j] & 15 | q[64 * p + 32 + j] << 4;
        }
    }
}

/// 256 codes of two bits in 64 bytes: each 32 bytes hold 128 codes, code 32·n + j in bits 2n and 2n + 1 of byte j.
#[inline(always)]
pub fn pairs(bytes: &[u8], q: &mut [u8; 256]) {
    for h in 0..2 {
        for n in 0..4 {
            for j in 0..32 {
                q[128 * h + 32 * n + j] = bytes[32 * h + j] >> (2 * n) & 3;
            }
        }
    }
}

#[inline(always)]
pub(super) fn pack_pairs(q: &[u8; 256], bytes: &mut [u8]) {
    for h in 0..2 {
        for j in 0..32 {
            let at = 128 * h + j;
            bytes[32 * h + j] =
                q[at] & 3 | (q[at + 32] & 3) << 2 | (q[at + 64] & 3) << 4 | (q[at + 96] & 3) << 6;
        }
    }
}

/// Adds a bit to 256 codes from 32 bytes: bit k of byte j becomes bit `shift` of code 32·k + j.
#[inline(always)]
pub fn planes(bytes: &[u8], shift: u32, q: &mut [u8; 256]) {
    for k in 0..8 {
        for j in 0..32 {
            q[32 * k + j] |= (bytes[j] >> k & 1) << shift;
        }
    }
}

#[inline(always)]
pub(super) fn pack_planes(q: &[u8; 256], shift: u32, bytes: &mut [u8]) {
    for j in 0..32 {
        let mut b = 0;
        for k in 0..8 {
            b |= (q[32 * k + j] >> shift & 1) << k;
        }
        bytes[j] = b;
    }
}

/// Eight scales and eight minimums of six bits in twelve bytes (`get_scale_min_k4` in ggml): those of groups 0 to 3 in the
/// low bits of four bytes each, those of groups 4 to 7 as nibbles of the last four, their upper two bits in the upper bits
/// of the first eight bytes.
#[inline(always)]
pub fn sixes(bytes: &[u8]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for g in 0..4 {
        scales[g] = bytes[g] & 63;
        mins[g] = bytes[g + 4] & 63;
        scales[g + 4] = bytes[g + 8] & 15 | bytes[g] >> 6 << 4;
        mins[g + 4] = bytes[g + 8] >> 4 | bytes[g + 4] >> 6 << 4;
    }
    (scales, mins)
}

#[inline(always)]
pub(super) fn pack_sixes(scales: &[u8; 8], mins: &[u8; 8], bytes: &mut [u8]) {
    for g in 0..4 {
        bytes[g] = scales[g] & 63 | scales[g + 4] >> 4 << 6;
        bytes[g + 4] = mins[g] & 63 | mins[g + 4] >> 4 << 6;
        bytes[g + 8] = scales[g + 4] & 15 | mins[g + 4] << 4;
    }
}

/// Sixteen scales of six bits in twelve bytes (`block_q3_K`): the four low bits of scales j and j + 8 in byte j, the upper
/// two bits of scale 4·n + j in bits 2n and 2n + 1 of byte 8 + j.
#[inline(always)]
pub fn sixteen_sixes(bytes: &[u8]) -> [u8; 16] {
    let mut s = [0; 16];
    for j in 0..16 {
        let low = if j < 8 { bytes[j] & 15 } else { bytes[j - 8] >> 4 };
        s[j] = low | (bytes[8 + j % 4] >> (2 * (j / 4)) & 3) << 4;
    }
    s
}

#[inline(always)]
pub(super) fn pack_sixteen_sixes(s: &[u8; 16], bytes: &mut [u8]) {
    for j in 0..8 {
        bytes[j] = s[j] & 15 | (s[j + 8] & 15) << 4;
    }
    for j in 0..4 {
        bytes[8 + j] = s[j] >> 4 | s[j + 4] >> 4 << 2 | s[j + 8] >> 4 << 4 | s[j + 12] >> 4 << 6;
    }
}

/// 256 codes of six bits (`block_q6_K`) as low nibbles and upper pairs of bits: of each 128 codes, byte j of 64 holds the low
/// nibbles of codes j and 64 + j, and bits 2n and 2n + 1 of byte j of 32 hold the upper bits of code 32·n + j.
#[inline(always)]
pub fn six_bit_codes(low: &[u8], high: &[u8], q: &mut [u8; 256]) {
    pairs(high, q);
    for h in 0..2 {
        for j in 0..64 {
            let at = 128 * h + j;
            q[at] = q[at] << 4 | low[64 * h + j] & 15;
            q[at + 64] = q[at + 64] << 4 | low[64 * h + j] >> 4;
        }
    }
}

#[inline(always)]
pub(super) fn pack_six_bit_codes(q: &[u8; 256], low: &mut [u8], high: &mut [u8]) {
    let mut upper = [0; 256];
    for j in 0..256 {
        upper[j] = q[j] >> 4;
    }
    pack_pairs(&upper, high);
    for h in 0..2 {
        for j in 0..64 {
            low[64 * h + j] = q[128 * h + j] & 15 | q[128 * h + 64 + j] << 4;
        }
    }
}

//! The lattices as byte tables.

use super::tables;

/// What the coordinates of IQ2's points are.
pub(super) const IQ2_LEVELS: [u8; 3] = [8, 25, 43];

/// Of IQ3_XXS's.
pub(super) const IQ3_XXS_LEVELS: [u8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];

/// Of IQ3_S's.
pub(super) const IQ3_S_LEVELS: [u8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];

/// The coordinates' levels, by `bits` of each.
const fn levels<const N: usize, const D: usize>(packed: &[u16; N], bits: u32) -> [[u8; D]; N] {
    let mut points = [[0; D]; N];
    let mut p = 0;
    while p < N {
        let mut j = 0;
        while j < D {
            points[p][j] = (packed[p] >> (bits * j as u32) & ((1 << bits) - 1)) as u8;
            j += 1;
        }
        p += 1;
    }
    points
}

/// The coordinates themselves.
const fn magnitudes<const N: usize, const D: usize>(
    packed: &[u16; N],
    bits: u32,
    values: &[u8],
) -> [[u8; D]; N] {
    let mut points = levels(packed, bits);
    let mut p = 0;
    while p < N {
        let mut j = 0;
        while j < D {
            points[p][j] = values[points[p][j] as usize];
            j += 1;
        }
        p += 1;
    }
    points
}

/// 0, 1 and 2 for -1, 0 and 1.
pub static IQ1: [[u8; 8]; 2048] = levels(&tables::IQ1_S, 2);
/// IQ2_XXS's points.
pub static IQ2_XXS: [[u8; 8]; 256] = magnitudes(&tables::IQ2_XXS, 2, &IQ2_LEVELS);
/// IQ2_XS's points.
pub static IQ2_XS: [[u8; 8]; 512] = magnitudes(&tables::IQ2_XS, 2, &IQ2_LEVELS);
/// IQ2_S's points.
pub static IQ2_S: [[u8; 8]; 1024] = magnitudes(&tables::IQ2_S, 2, &IQ2_LEVELS);
/// IQ3_XXS's points.
pub static IQ3_XXS: [[u8; 4]; 256] = magnitudes(&tables::IQ3_XXS, 3, &IQ3_XXS_LEVELS);
/// IQ3_S's points.
pub static IQ3_S: [[u8; 4]; 512] = magnitudes(&tables::IQ3_S, 3, &IQ3_S_LEVELS);

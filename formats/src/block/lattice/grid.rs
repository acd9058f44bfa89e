//! The grids as tables of bytes.

use super::tables;

/// The levels of the coordinates in the grids of IQ2.
pub(super) const IQ2_LEVELS: [u8; 3] = [8, 25, 43];

/// The levels of the coordinates in the grid of IQ3_XXS.
pub(super) const IQ3_XXS_LEVELS: [u8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];

/// The levels of the coordinates in the grid of IQ3_S.
pub(super) const IQ3_S_LEVELS: [u8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];

/// The level indices of coordinates, packed in `bits` bits each.
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

/// The levels of coordinates.
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

/// The grid of IQ1_S and IQ1_M, with 0, 1 and 2 for -1, 0 and 1.
pub static IQ1: [[u8; 8]; 2048] = levels(&tables::IQ1_S, 2);
/// The grid of IQ2_XXS.
pub static IQ2_XXS: [[u8; 8]; 256] = magnitudes(&tables::IQ2_XXS, 2, &IQ2_LEVELS);
/// The grid of IQ2_XS.
pub static IQ2_XS: [[u8; 8]; 512] = magnitudes(&tables::IQ2_XS, 2, &IQ2_LEVELS);
/// The grid of IQ2_S.
pub static IQ2_S: [[u8; 8]; 1024] = magnitudes(&tables::IQ2_S, 2, &IQ2_LEVELS);
/// The grid of IQ3_XXS.
pub static IQ3_XXS: [[u8; 4]; 256] = magnitudes(&tables::IQ3_XXS, 3, &IQ3_XXS_LEVELS);
/// The grid of IQ3_S.
pub static IQ3_S: [[u8; 4]; 512] = magnitudes(&tables::IQ3_S, 3, &IQ3_S_LEVELS);

/// A grid in the order of the search: four points at a time that share the first half of their coordinates. The coordinates of
/// a half are one number, the first one most significant.
pub(super) struct Quads<const Q: usize> {
    /// The first half, then four second halves. If there are fewer, the last one is repeated.
    halves: [[u8; 5]; Q],
    /// The indices of the points.
    points: [[u16; 4]; Q],
}

/// The same without a size in its type.
#[derive(Clone, Copy)]
pub(super) struct QuadList {
    pub halves: &'static [[u8; 5]],
    pub points: &'static [[u16; 4]],
}

impl<const Q: usize> Quads<Q> {
    /// Of points of `dims` coordinates, with `base` levels in `bits` bits each.
    const fn new<const N: usize>(packed: &[u16; N], dims: u32, base: u16, bits: u32) -> Self {
        let (mut halves, mut points) = ([[0; 5]; Q], [[0; 4]; Q]);
        // For each first half, its last quad and how many points that holds.
        let (mut last, mut filled) = ([0; 128], [4; 128]);
        let (mut p, mut quads) = (0, 0);
        while p < N {
            let mut half = [0u16; 2];
            let mut j = 0;
            while j < dims {
                let side = (j / (dims / 2)) as usize;
                half[side] = half[side] * base + (packed[p] >> (bits * j) & ((1 << bits) - 1));
                j += 1;
            }
            let first = half[0] as usize;
            if filled[first] == 4 {
                halves[quads][0] = first as u8;
                (last[first], filled[first]) = (quads, 0);
                quads += 1;
            }
            let mut k = filled[first];
            filled[first] += 1;
            while k < 4 {
                halves[last[first]][k + 1] = half[1] as u8;
                points[last[first]][k] = p as u16;
                k += 1;
            }
            p += 1;
        }
        assert!(quads == Q, "the number of quads");
        Self { halves, points }
    }

    const fn walk(&'static self) -> QuadList {
        QuadList { halves: &self.halves, points: &self.points }
    }
}

static IQ1_QUADS: Quads<544> = Quads::new(&tables::IQ1_S, 8, 3, 2);
static IQ2_XXS_QUADS: Quads<97> = Quads::new(&tables::IQ2_XXS, 8, 3, 2);
static IQ2_XS_QUADS: Quads<162> = Quads::new(&tables::IQ2_XS, 8, 3, 2);
static IQ2_S_QUADS: Quads<287> = Quads::new(&tables::IQ2_S, 8, 3, 2);
static IQ3_XXS_QUADS: Quads<86> = Quads::new(&tables::IQ3_XXS, 4, 8, 3);
static IQ3_S_QUADS: Quads<152> = Quads::new(&tables::IQ3_S, 4, 8, 3);

pub(super) static IQ1_WALK: QuadList = IQ1_QUADS.walk();
pub(super) static IQ2_XXS_WALK: QuadList = IQ2_XXS_QUADS.walk();
pub(super) static IQ2_XS_WALK: QuadList = IQ2_XS_QUADS.walk();
pub(super) static IQ2_S_WALK: QuadList = IQ2_S_QUADS.walk();
pub(super) static IQ3_XXS_WALK: QuadList = IQ3_XXS_QUADS.walk();
pub(super) static IQ3_S_WALK: QuadList = IQ3_S_QUADS.walk();

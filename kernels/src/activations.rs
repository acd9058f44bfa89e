//! What weights are multiplied with: a few tokens' vectors, as floats or as 8-bit integers under scales.
//!
//! The integer forms are those that llama.cpp multiplies with, so that figures compare: for types of 32 weights to a
//! block, 32 codes under a scale that is rounded to a half (its Q8_0); for types of 256, 256 under an f32 (its
//! Q8_K). NVFP4 has sixteen codes where llama.cpp has 32. Codes are rounded to the nearest, ties to even. BitNet's models
//! are trained with one scale for a whole vector (arXiv 2402.17764, section 2), which is what [`Form::Token`] gives.

use formats::block::{f16_to_f32, f32_to_f16};

use super::{Aligned, Isa, isa::per_isa, parallel};

/// How activations are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// As f32.
    Float,
    /// As 8-bit codes under a scale for each group of so many.
    Groups(usize),
    /// As 8-bit codes under one scale for the vector, which is repeated for each group of so many.
    Token(usize),
    /// As the floats that 8-bit codes under one scale for the vector stand for.
    TokenFloat,
}

impl Form {
    /// Columns under one scale.
    pub fn group(self) -> usize {
        match self {
            Self::Float | Self::TokenFloat => 1,
            Self::Groups(n) | Self::Token(n) => n,
        }
    }
}

/// Rows of integers are padded with zeros to a multiple of this.
pub const PAD: usize = 256;
/// Tokens are padded with zeros to a multiple of this.
pub const TOKENS: usize = 16;

/// Numbers below which one thread does all.
const SMALL: usize = 1 << 14;

/// The vectors of some tokens, all of as many numbers.
///
/// ```
/// use kernels::Isa;
/// use kernels::activations::{Activations, Form};
///
/// let mut x = Activations::default();
/// x.set(Isa::current(), Form::Float, 0, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3);
/// assert_eq!((x.tokens(), x.cols()), (2, 3));
/// assert_eq!(x.floats()[3..], [4.0, 5.0, 6.0]);
/// ```
/// Sizes cannot be changed without the numbers:
/// ```compile_fail,E0616
/// let mut x = kernels::activations::Activations::default();
/// x.stride = 0;
/// ```
#[derive(Default)]
pub struct Activations {
    // Kernels read the buffers below through pointers, so their sizes are a promise. `set` alone changes them; while it
    // is at work (or has panicked) there are no tokens. Of the 8-bit forms,
    // * 0 < cols <= stride, which PAD divides; group divides PAD;
    // * buffers have as many numbers as is said for `rows` tokens: `tokens` rounded up to a multiple of TOKENS.
    // Of the float forms all but `floats` are empty, and group is 1.
    /// How many.
    tokens: usize,
    /// Numbers of a token.
    cols: usize,
    /// Numbers from one token's to the next, in `codes`.
    stride: usize,
    /// Columns under a scale.
    group: usize,
    /// What weights' codes are counted from: `lanes` and `bias` are multiplied by it.
    offset: i32,
    /// `[tokens, cols]`, for the float forms; otherwise empty.
    floats: Aligned<f32>,
    /// `[rows, stride]`.
    pub(super) codes: Aligned<i8>,
    /// `[rows, stride / group]`.
    pub(super) scales: Aligned<f32>,
    /// `[rows, stride / group]`: scale · sum of codes.
    pub(super) sums: Aligned<f32>,
    /// `[rows, stride / 4]`: −offset · sum of each four codes.
    lanes: Aligned<i32>,
    /// `[rows, stride / group]`: −offset · sum of codes.
    pub(super) bias: Aligned<i32>,
    /// `[rows, stride]`: the codes once more, for groups of 256; otherwise empty.
    pub(super) wide: Aligned<i16>,
    /// `[rows, stride / 16]`: sums of sixteen codes, for groups of 256; otherwise empty.
    pub(super) sixteens: Aligned<i16>,
}

impl Activations {
    /// Takes `x`, `[tokens, cols]`, over, in the form that is asked for. What was there is forgotten, but its memory is
    /// used again. `offset` is what the codes of the weights are counted from: it and the form's group are those that
    /// [`integer`](super::integer) names for a type. Float forms have none.
    ///
    /// # Panics
    /// If `cols` is 0 or does not divide the length of `x`; if the form's group is not 16, 32 or 256, or does not divide
    /// `cols`; if the offset is not within 0 and 128.
    pub fn set(&mut self, isa: Isa, form: Form, offset: i32, x: &[f32], cols: usize) {
        self.tokens = 0;
        assert!(cols > 0 && x.len().is_multiple_of(cols), "{} numbers are no vectors of {cols}", x.len());
        let (tokens, group) = (x.len() / cols, form.group());
        if let Form::Float | Form::TokenFloat = form {
            self.clear();
            self.floats.resize(x.len());
            self.floats.copy_from_slice(x);
            if form == Form::TokenFloat {
                self.floats.chunks_exact_mut(cols).for_each(|x| through_codes(isa, x));
            }
            (self.cols, self.stride, self.group, self.offset, self.tokens) = (cols, cols, 1, offset, tokens);
            return;
        }
        assert!(matches!(group, 16 | 32 | 256), "no type has scales of {group} weights");
        assert!(cols.is_multiple_of(group), "{cols} columns are no groups of {group}");
        assert!((0..=128).contains(&offset), "no type's codes are counted from {offset}");
        self.floats.resize(0);
        let (rows, stride) = (tokens.next_multiple_of(TOKENS), cols.next_multiple_of(PAD));
        let all = rows.checked_mul(stride).expect("vectors fit into memory");
        let groups = stride / group;
        self.codes.resize(all);
        self.lanes.resize(all / 4);
        self.scales.resize(rows * groups);
        self.sums.resize(rows * groups);
        self.bias.resize(rows * groups);
        // What only types with integer scales ask for; otherwise of no length.
        let nested = if group == 256 { stride } else { 0 };
        self.wide.resize(rows * nested);
        self.sixteens.resize(rows * nested / 16);
        let parts = self.codes.chunks_exact_mut(stride).zip(self.lanes.chunks_exact_mut(stride / 4));
        let parts = parts.zip(self.scales.chunks_exact_mut(groups));
        let parts = parts.zip(self.sums.chunks_exact_mut(groups).zip(self.bias.chunks_exact_mut(groups)));
        let mut rows: Vec<Row> = parts
            .map(|(((codes, lanes), scales), (sums, bias))| Row {
                codes,
                lanes,
                scales,
                sums,
                bias,
                wide: &mut [],
                sixteens: &mut [],
            })
            .collect();
        if nested > 0 {
            let parts = self.wide.chunks_exact_mut(stride).zip(self.sixteens.chunks_exact_mut(stride / 16));
            for (row, (wide, sixteens)) in rows.iter_mut().zip(parts) {
                (row.wide, row.sixteens) = (wide, sixteens);
            }
        }
        let fill = |t: usize, row: Row| match x.get(t * cols..(t + 1) * cols) {
            Some(x) => quantize(isa, form, offset, x, row),
            None => row.clear(),
        };
        if x.len() < SMALL {
            rows.into_iter().enumerate().for_each(|(t, row)| fill(t, row));
        } else {
            parallel::items(rows, &fill);
        }
        (self.cols, self.stride, self.group, self.offset, self.tokens) =
            (cols, stride, group, offset, tokens);
    }

    /// Makes the buffers of 8-bit forms empty.
    fn clear(&mut self) {
        self.codes.resize(0);
        self.lanes.resize(0);
        self.scales.resize(0);
        self.sums.resize(0);
        self.bias.resize(0);
        self.wide.resize(0);
        self.sixteens.resize(0);
    }

    /// How many tokens there are.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Numbers of a token.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// `[tokens, cols]`, for the float forms; empty for the others.
    pub fn floats(&self) -> &[f32] {
        &self.floats
    }

    /// Codes from one token's first to the next one's.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Refuses what a kernel for types with these groups and offsets cannot multiply with `cols` columns: everything that
    /// the kernel then reads without further checks is there.
    ///
    /// # Panics
    /// If there is no such token, or the rest does not agree.
    #[inline(always)]
    pub(super) fn check(&self, (group, offset): (usize, i32), cols: usize, token: usize) {
        if token >= self.tokens || cols != self.cols || group != self.group || offset != self.offset {
            self.refuse((group, offset), cols, token);
        }
    }

    #[cold]
    #[inline(never)]
    fn refuse(&self, (group, offset): (usize, i32), cols: usize, token: usize) -> ! {
        panic!(
            "activations of {} tokens, {} columns, groups of {} and offset {} have no token {token} for weights of \
             {cols} columns, groups of {group} and offset {offset}",
            self.tokens, self.cols, self.group, self.offset
        );
    }

    /// The codes of a token.
    #[inline(always)]
    pub(super) fn codes(&self, token: usize) -> &[i8] {
        &self.codes[token * self.stride..][..self.stride]
    }

    /// A token's part of `lanes`.
    #[inline(always)]
    pub(super) fn lanes(&self, token: usize) -> &[i32] {
        &self.lanes[token * self.stride / 4..][..self.stride / 4]
    }

    /// A token's part of `sixteens`.
    #[inline(always)]
    pub(super) fn sixteens(&self, token: usize) -> &[i16] {
        &self.sixteens[token * self.stride / 16..][..self.stride / 16]
    }

    /// A token's part of `scales`, `sums` or `bias`.
    #[inline(always)]
    pub(super) fn of<'a, T>(&self, all: &'a [T], token: usize) -> &'a [T] {
        let groups = self.stride / self.group;
        &all[token * groups..][..groups]
    }
}

/// A token's part of everything.
struct Row<'a> {
    codes: &'a mut [i8],
    lanes: &'a mut [i32],
    scales: &'a mut [f32],
    sums: &'a mut [f32],
    bias: &'a mut [i32],
    wide: &'a mut [i16],
    sixteens: &'a mut [i16],
}

impl Row<'_> {
    fn clear(self) {
        self.codes.fill(0);
        self.lanes.fill(0);
        self.scales.fill(0.0);
        self.sums.fill(0.0);
        self.bias.fill(0);
        self.wide.fill(0);
        self.sixteens.fill(0);
    }
}

per_isa! {
    fn quantize(form: Form, offset: i32, x: &[f32], row: Row) = quantize_body
}

/// The largest magnitude; not a number if one of them is none. Bits order magnitudes as numbers do, and what is no
/// number comes after them all.
#[inline(always)]
fn peak(x: &[f32]) -> f32 {
    let mut most = 0;
    for x in x {
        most = most.max(x.to_bits() & 0x7FFF_FFFF);
    }
    f32::from_bits(most)
}

/// The nearest integer of a small number, ties to even: where the steps between floats are 1, adding rounds.
#[inline(always)]
fn nearest(x: f32) -> i8 {
    const STEP: f32 = 12_582_912.0;
    (x + STEP).to_bits() as i8
}

/// Codes under one scale; `inverse` is what a number is multiplied by.
#[inline(always)]
fn round(x: &[f32], inverse: f32, codes: &mut [i8]) {
    for (q, &x) in codes.iter_mut().zip(x) {
        *q = nearest(x * inverse);
    }
}

#[inline(always)]
fn quantize_body(form: Form, offset: i32, x: &[f32], row: Row) {
    let group = form.group();
    row.codes[x.len()..].fill(0);
    row.scales[x.len() / group..].fill(0.0);
    let groups = x.len() / group;
    // Peaks first, and what numbers are multiplied by in the place of the sums: divisions of many groups take as long as one.
    let (scales, inverses) = (&mut row.scales[..groups], &mut row.sums[..groups]);
    match (form, group) {
        (Form::Token(_), _) => {
            let peak = floor(peak(x));
            scales.fill(peak / 127.0);
            inverses.fill(127.0 / peak);
        }
        (_, ..=32) => {
            for (scale, x) in scales.iter_mut().zip(x.chunks_exact(group)) {
                *scale = peak(x);
            }
            for (scale, inverse) in scales.iter_mut().zip(inverses) {
                *inverse = if *scale == 0.0 { 0.0 } else { 127.0 / *scale };
                // Beyond a half's range the scale stays as it is, rather than become infinite.
                let d = *scale / 127.0;
                *scale = if d < 65504.0 { f16_to_f32(f32_to_f16(d)) } else { d };
            }
        }
        _ => {
            for (scale, x) in scales.iter_mut().zip(x.chunks_exact(group)) {
                *scale = first(x, peak(x));
            }
            for (scale, inverse) in scales.iter_mut().zip(inverses) {
                // The peak gets the code −127, whatever its sign.
                let signed = *scale;
                *inverse = if signed == 0.0 { 0.0 } else { -127.0 / signed };
                *scale = if signed == 0.0 { 0.0 } else { signed / -127.0 };
            }
        }
    }
    for ((x, codes), inverse) in x.chunks_exact(group).zip(row.codes.chunks_exact_mut(group)).zip(&*row.sums)
    {
        round(x, *inverse, codes);
    }
    for (lane, q) in row.lanes.iter_mut().zip(row.codes.as_chunks::<4>().0) {
        *lane = -offset * (i32::from(q[0]) + i32::from(q[1]) + i32::from(q[2]) + i32::from(q[3]));
    }
    for (g, q) in row.codes.chunks_exact(group).enumerate() {
        let sum: i32 = q.iter().map(|&q| i32::from(q)).sum();
        row.bias[g] = -offset * sum;
        row.sums[g] = row.scales[g] * sum as f32;
    }
    for (wide, q) in row.wide.iter_mut().zip(&*row.codes) {
        *wide = i16::from(*q);
    }
    for (sum, q) in row.sixteens.iter_mut().zip(row.codes.as_chunks::<16>().0) {
        *sum = q.iter().map(|&q| i16::from(q)).sum();
    }
}

/// At least 1e-5, as BitNet has it.
#[inline(always)]
fn floor(peak: f32) -> f32 {
    if peak < 1e-5 { 1e-5 } else { peak }
}

/// The first of the numbers with this magnitude; the magnitude, if it is no number.
#[inline(always)]
fn first(x: &[f32], peak: f32) -> f32 {
    // The last that is met on the way back, without a branch for each.
    let mut place = x.len();
    for (i, x) in x.iter().enumerate() {
        place = place.min(if x.abs() == peak { i } else { usize::MAX });
    }
    x.get(place).copied().unwrap_or(peak)
}

per_isa! {
    /// Rounds a vector to 8-bit codes under one scale, and back.
    fn through_codes(x: &mut [f32]) = through_codes_body
}

#[inline(always)]
fn through_codes_body(x: &mut [f32]) {
    let peak = floor(peak(x));
    let (scale, inverse) = (peak / 127.0, 127.0 / peak);
    for x in x {
        *x = f32::from(nearest(*x * inverse)) * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_gives_the_same() {
        let mut seed = 7u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut x: Vec<f32> = (0..3 * 768).map(|_| next()).collect();
        x[5] = -70.0;
        x[300..556].fill(0.0);
        x[700] = 1e9;
        x[1000] = f32::MIN_POSITIVE / 4.0;
        for form in [Form::Groups(16), Form::Groups(32), Form::Groups(256), Form::Token(32), Form::Token(256)]
        {
            let mut truth = Activations::default();
            truth.set(Isa::PORTABLE, form, 8, &x, 768);
            assert!(truth.codes[..3 * truth.stride].iter().any(|&q| q == 127 || q == -127));
            for isa in Isa::available() {
                let mut other = Activations::default();
                other.set(isa, form, 8, &x, 768);
                assert_eq!(&truth.codes[..], &other.codes[..], "{form:?} {}", isa.name());
                assert_eq!(&truth.lanes[..], &other.lanes[..], "{form:?} {}", isa.name());
                assert_eq!(&truth.bias[..], &other.bias[..], "{form:?} {}", isa.name());
                assert_eq!(&truth.wide[..], &other.wide[..], "{form:?} {}", isa.name());
                assert_eq!(&truth.sixteens[..], &other.sixteens[..], "{form:?} {}", isa.name());
                assert_eq!(&truth.scales[..], &other.scales[..], "{form:?} {}", isa.name());
                assert_eq!(&truth.sums[..], &other.sums[..], "{form:?} {}", isa.name());
            }
        }
    }

    #[test]
    fn codes_stand_for_the_numbers() {
        let x: Vec<f32> = (0..256).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
        for form in [Form::Groups(32), Form::Groups(256), Form::Token(32)] {
            let mut a = Activations::default();
            a.set(Isa::PORTABLE, form, 8, &x, 256);
            for (i, x) in x.iter().enumerate() {
                let scale = a.scales[i / form.group()];
                assert!((f32::from(a.codes[i]) * scale - x).abs() <= scale.abs() * 0.51, "{form:?} {i}");
            }
            if form.group() == 256 {
                assert!(a.wide.iter().zip(&*a.codes).all(|(w, q)| *w == i16::from(*q)));
                let sum = |q: &[i8]| q.iter().map(|&q| i16::from(q)).sum::<i16>();
                assert!(a.sixteens.iter().zip(a.codes.chunks(16)).all(|(s, q)| *s == sum(q)));
            }
            assert_eq!(a.lanes[0], -8 * a.codes[..4].iter().map(|&q| i32::from(q)).sum::<i32>());
        }
        let mut a = Activations::default();
        a.set(Isa::PORTABLE, Form::TokenFloat, 0, &[1.0, 0.5, -0.25, 0.001], 4);
        assert_eq!(&a.floats[..], &[1.0, 64.0 / 127.0, -32.0 / 127.0, 0.0]);
    }

    fn refused(form: Form, offset: i32, x: &[f32], cols: usize) -> bool {
        let mut a = Activations::default();
        a.set(Isa::PORTABLE, Form::Groups(256), 0, &[1.0; 512], 256);
        let set = std::panic::AssertUnwindSafe(|| a.set(Isa::current(), form, offset, x, cols));
        let refused = std::panic::catch_unwind(set).is_err();
        assert!(!refused || a.tokens() == 0, "nothing can be done with what was refused");
        refused
    }

    #[test]
    fn what_has_no_sizes_is_refused() {
        let x = [1.0; 96];
        assert!(!refused(Form::Groups(32), 8, &x, 96));
        assert!(!refused(Form::Groups(32), 8, &[], 96));
        assert!(refused(Form::Groups(32), 8, &x, 0), "no columns");
        assert!(refused(Form::Groups(32), 8, &[], 0), "no columns of nothing");
        assert!(refused(Form::Float, 0, &x, 0), "no columns of floats");
        assert!(refused(Form::Groups(32), 8, &x, 64), "a vector and a half");
        for group in [0, 1, 3, 4, 64, 512, usize::MAX] {
            assert!(refused(Form::Groups(group), 8, &x, 96), "groups of {group}");
            assert!(refused(Form::Token(group), 8, &x, 96), "groups of {group}");
        }
        assert!(refused(Form::Groups(256), 8, &x, 96), "part of a group");
        for offset in [-1, 129, i32::MIN, i32::MAX] {
            assert!(refused(Form::Groups(32), offset, &x, 96), "offset {offset}");
        }
    }

    #[test]
    fn forms_leave_nothing_of_each_other() {
        let mut a = Activations::default();
        let x = vec![0.5; 3 * 256];
        a.set(Isa::current(), Form::Groups(256), 0, &x, 256);
        assert!(a.floats().is_empty() && a.wide.len() == 16 * 256);
        a.set(Isa::current(), Form::Groups(32), 8, &x, 96);
        assert!(a.floats().is_empty() && a.wide.is_empty() && a.sixteens.is_empty());
        a.set(Isa::current(), Form::Float, 0, &x, 3);
        assert!(a.codes.is_empty() && a.scales.is_empty() && a.floats().len() == x.len());
        assert_eq!((a.tokens(), a.cols()), (256, 3));
    }
}

//! Sixteen floats that are computed with at once: an array, or the registers of a set.
//!
//! Bodies that are written over [`Unit`] keep their sums in registers, which compilers do not find out by
//! themselves from loops over arrays. Every implementation rounds as the array's does.
//!
//! The intrinsics behind the registers need instructions that not every processor has, and the methods here are safe. So
//! all registers come from a [`Unit`], which is the proof: it is made by a function that has the set's features itself,
//! and may be called without `unsafe` only where these are known to be there. Registers exist only where a unit did.

/// What can compute with sixteen floats at once; it makes them.
pub trait Unit: Copy {
    /// What it makes.
    type Lanes: Lanes;
    /// Whether there are registers for eight of these and more.
    const MANY: bool = false;
    /// The same number in all.
    fn splat(self, x: f32) -> Self::Lanes;
    /// From memory.
    fn load(self, x: &[f32; 16]) -> Self::Lanes;
    /// From halves.
    fn halves(self, x: &[u16; 16]) -> Self::Lanes;
    /// From 8-bit integers.
    fn codes(self, x: &[i8; 16]) -> Self::Lanes;
}

/// Sixteen floats.
pub trait Lanes: Copy {
    /// To memory.
    fn store(self, out: &mut [f32; 16]);
    /// self · a + b, rounded once.
    fn fma(self, a: Self, b: Self) -> Self;
    /// self + x.
    fn add(self, x: Self) -> Self;
    /// self · x.
    fn mul(self, x: Self) -> Self;
}

/// Arrays, which every processor has.
#[derive(Clone, Copy)]
pub struct Arrays;

impl Unit for Arrays {
    type Lanes = [f32; 16];
    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 16] {
        [x; 16]
    }
    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> [f32; 16] {
        *x
    }
    #[inline(always)]
    fn halves(self, x: &[u16; 16]) -> [f32; 16] {
        let mut out = [0.0; 16];
        for i in 0..16 {
            out[i] = formats::block::f16_to_f32(x[i]);
        }
        out
    }
    #[inline(always)]
    fn codes(self, x: &[i8; 16]) -> [f32; 16] {
        let mut out = [0.0; 16];
        for i in 0..16 {
            out[i] = f32::from(x[i]);
        }
        out
    }
}

impl Lanes for [f32; 16] {
    #[inline(always)]
    fn store(self, out: &mut [f32; 16]) {
        *out = self;
    }
    #[inline(always)]
    fn fma(mut self, a: Self, b: Self) -> Self {
        for i in 0..16 {
            self[i] = self[i].mul_add(a[i], b[i]);
        }
        self
    }
    #[inline(always)]
    fn add(mut self, x: Self) -> Self {
        for i in 0..16 {
            self[i] += x[i];
        }
        self
    }
    #[inline(always)]
    fn mul(mut self, x: Self) -> Self {
        for i in 0..16 {
            self[i] *= x[i];
        }
        self
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Lanes, Unit};
    use std::arch::x86_64::*;

    /// One 512-bit register.
    #[derive(Clone, Copy)]
    pub struct Wide(());

    impl Wide {
        /// The proof that the features are there: callers have them, or promise so.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
        pub fn here() -> Self {
            Self(())
        }
    }

    /// Sixteen floats of [`Wide`].
    #[derive(Clone, Copy)]
    pub struct One(__m512);

    // All functions below are inlined into those that are compiled for the set.

    impl Unit for Wide {
        type Lanes = One;
        const MANY: bool = true;
        #[inline(always)]
        fn splat(self, x: f32) -> One {
            // SAFETY: a `Wide` exists only where AVX-512 F was found.
            One(unsafe { _mm512_set1_ps(x) })
        }
        #[inline(always)]
        fn load(self, x: &[f32; 16]) -> One {
            // SAFETY: as above; sixteen floats are read.
            One(unsafe { _mm512_loadu_ps(x.as_ptr()) })
        }
        #[inline(always)]
        fn halves(self, x: &[u16; 16]) -> One {
            // SAFETY: as above; sixteen halves are read.
            One(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) })
        }
        #[inline(always)]
        fn codes(self, x: &[i8; 16]) -> One {
            // SAFETY: as above; sixteen bytes are read.
            One(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) })
        }
    }

    impl Lanes for One {
        #[inline(always)]
        fn store(self, out: &mut [f32; 16]) {
            // SAFETY: only a `Wide` makes one, and it exists only where AVX-512 F was found; sixteen floats are written.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), self.0) }
        }
        #[inline(always)]
        fn fma(self, a: Self, b: Self) -> Self {
            // SAFETY: only a `Wide` makes one, and it exists only where AVX-512 F was found.
            Self(unsafe { _mm512_fmadd_ps(self.0, a.0, b.0) })
        }
        #[inline(always)]
        fn add(self, x: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_add_ps(self.0, x.0) })
        }
        #[inline(always)]
        fn mul(self, x: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_mul_ps(self.0, x.0) })
        }
    }

    /// Two 256-bit registers.
    #[derive(Clone, Copy)]
    pub struct Narrow(());

    impl Narrow {
        /// The proof that the features are there: callers have them, or promise so.
        #[inline]
        #[target_feature(enable = "avx2,fma,f16c")]
        pub fn here() -> Self {
            Self(())
        }
    }

    /// Sixteen floats of [`Narrow`].
    #[derive(Clone, Copy)]
    pub struct Two(__m256, __m256);

    impl Unit for Narrow {
        type Lanes = Two;
        #[inline(always)]
        fn splat(self, x: f32) -> Two {
            // SAFETY: a `Narrow` exists only where AVX2, FMA and F16C were found.
            unsafe { Two(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
        }
        #[inline(always)]
        fn load(self, x: &[f32; 16]) -> Two {
            // SAFETY: as above; twice eight floats are read.
            unsafe { Two(_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))) }
        }
        #[inline(always)]
        fn halves(self, x: &[u16; 16]) -> Two {
            // SAFETY: as above; twice eight halves are read.
            unsafe {
                let (a, b) = (_mm_loadu_si128(x.as_ptr().cast()), _mm_loadu_si128(x.as_ptr().add(8).cast()));
                Two(_mm256_cvtph_ps(a), _mm256_cvtph_ps(b))
            }
        }
        #[inline(always)]
        fn codes(self, x: &[i8; 16]) -> Two {
            // SAFETY: as above; sixteen bytes are read.
            unsafe {
                let all = _mm_loadu_si128(x.as_ptr().cast());
                let (a, b) = (_mm256_cvtepi8_epi32(all), _mm256_cvtepi8_epi32(_mm_srli_si128(all, 8)));
                Two(_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b))
            }
        }
    }

    impl Lanes for Two {
        #[inline(always)]
        fn store(self, out: &mut [f32; 16]) {
            // SAFETY: only a `Narrow` makes one, and it exists only where AVX2, FMA and F16C were found; twice eight
            // floats are written.
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), self.0);
                _mm256_storeu_ps(out.as_mut_ptr().add(8), self.1);
            }
        }
        #[inline(always)]
        fn fma(self, a: Self, b: Self) -> Self {
            // SAFETY: only a `Narrow` makes one, and it exists only where AVX2, FMA and F16C were found.
            unsafe { Self(_mm256_fmadd_ps(self.0, a.0, b.0), _mm256_fmadd_ps(self.1, a.1, b.1)) }
        }
        #[inline(always)]
        fn add(self, x: Self) -> Self {
            // SAFETY: as above.
            unsafe { Self(_mm256_add_ps(self.0, x.0), _mm256_add_ps(self.1, x.1)) }
        }
        #[inline(always)]
        fn mul(self, x: Self) -> Self {
            // SAFETY: as above.
            unsafe { Self(_mm256_mul_ps(self.0, x.0), _mm256_mul_ps(self.1, x.1)) }
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub use x86::{Narrow, Wide};

/// [`per_isa`](super::isa::per_isa) for a body whose first argument is a [`Unit`]: the set's own.
macro_rules! per_lanes {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(isa: $crate::Isa, $($arg: $ty),*) {
            use $crate::isa::Set;
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx2($($arg: $ty),*) {
                $body($crate::lanes::Narrow::here(), $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512cd,avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx512($($arg: $ty),*) {
                $body($crate::lanes::Wide::here(), $($arg),*)
            }
            match isa.set() {
                Set::Portable => $body($crate::lanes::Arrays, $($arg),*),
                // SAFETY: an `Isa` of this set exists only where the set's features were found.
                #[cfg(target_arch = "x86_64")]
                Set::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Set::Avx512 | Set::Vnni | Set::Amx => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                Set::Neon => $body($crate::lanes::Arrays, $($arg),*),
            }
        }
    };
}
pub(super) use per_lanes;

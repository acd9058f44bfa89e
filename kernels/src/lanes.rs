//! Sixteen floats that are computed with at once: an array, or the registers of a set.
//!
//! Bodies that are written over [`Lanes`] keep their sums in registers, which compilers do not find out by
//! themselves from loops over arrays. Every implementation rounds as the array's does.

/// Sixteen floats.
pub trait Lanes: Copy {
    /// Whether there are registers for eight of these and more.
    const MANY: bool = false;
    /// The same number in all.
    fn splat(x: f32) -> Self;
    /// From memory.
    fn load(x: &[f32; 16]) -> Self;
    /// From halves.
    fn halves(x: &[u16; 16]) -> Self;
    /// From 8-bit integers.
    fn codes(x: &[i8; 16]) -> Self;
    /// To memory.
    fn store(self, out: &mut [f32; 16]);
    /// self · a + b, rounded once.
    fn fma(self, a: Self, b: Self) -> Self;
    /// self + x.
    fn add(self, x: Self) -> Self;
    /// self · x.
    fn mul(self, x: Self) -> Self;
}

impl Lanes for [f32; 16] {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        [x; 16]
    }
    #[inline(always)]
    fn load(x: &[f32; 16]) -> Self {
        *x
    }
    #[inline(always)]
    fn halves(x: &[u16; 16]) -> Self {
        let mut out = [0.0; 16];
        for i in 0..16 {
            out[i] = formats::block::f16_to_f32(x[i]);
        }
        out
    }
    #[inline(always)]
    fn codes(x: &[i8; 16]) -> Self {
        let mut out = [0.0; 16];
        for i in 0..16 {
            out[i] = f32::from(x[i]);
        }
        out
    }
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
    use super::Lanes;
    use std::arch::x86_64::*;

    // Both types are named only by `per_lanes`, inside functions that have their features, and only where those were
    // found; the methods are always inlined there.

    #[derive(Clone, Copy)]
    pub struct Wide(__m512);

    impl Lanes for Wide {
        const MANY: bool = true;
        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_set1_ps(x) })
        }
        #[inline(always)]
        fn load(x: &[f32; 16]) -> Self {
            // SAFETY: see above; sixteen floats.
            Self(unsafe { _mm512_loadu_ps(x.as_ptr()) })
        }
        #[inline(always)]
        fn halves(x: &[u16; 16]) -> Self {
            // SAFETY: see above; sixteen halves.
            Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) })
        }
        #[inline(always)]
        fn codes(x: &[i8; 16]) -> Self {
            // SAFETY: see above; sixteen bytes.
            Self(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) })
        }
        #[inline(always)]
        fn store(self, out: &mut [f32; 16]) {
            // SAFETY: see above; sixteen floats.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), self.0) }
        }
        #[inline(always)]
        fn fma(self, a: Self, b: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_fmadd_ps(self.0, a.0, b.0) })
        }
        #[inline(always)]
        fn add(self, x: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_add_ps(self.0, x.0) })
        }
        #[inline(always)]
        fn mul(self, x: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_mul_ps(self.0, x.0) })
        }
    }

    #[derive(Clone, Copy)]
    pub struct Narrow(__m256, __m256);

    impl Lanes for Narrow {
        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
        }
        #[inline(always)]
        fn load(x: &[f32; 16]) -> Self {
            // SAFETY: see above; sixteen floats.
            unsafe { Self(_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))) }
        }
        #[inline(always)]
        fn halves(x: &[u16; 16]) -> Self {
            // SAFETY: see above; sixteen halves.
            unsafe {
                let (a, b) = (_mm_loadu_si128(x.as_ptr().cast()), _mm_loadu_si128(x.as_ptr().add(8).cast()));
                Self(_mm256_cvtph_ps(a), _mm256_cvtph_ps(b))
            }
        }
        #[inline(always)]
        fn codes(x: &[i8; 16]) -> Self {
            // SAFETY: see above; sixteen bytes.
            unsafe {
                let all = _mm_loadu_si128(x.as_ptr().cast());
                let (a, b) = (_mm256_cvtepi8_epi32(all), _mm256_cvtepi8_epi32(_mm_srli_si128(all, 8)));
                Self(_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b))
            }
        }
        #[inline(always)]
        fn store(self, out: &mut [f32; 16]) {
            // SAFETY: see above; sixteen floats.
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), self.0);
                _mm256_storeu_ps(out.as_mut_ptr().add(8), self.1);
            }
        }
        #[inline(always)]
        fn fma(self, a: Self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_fmadd_ps(self.0, a.0, b.0), _mm256_fmadd_ps(self.1, a.1, b.1)) }
        }
        #[inline(always)]
        fn add(self, x: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_add_ps(self.0, x.0), _mm256_add_ps(self.1, x.1)) }
        }
        #[inline(always)]
        fn mul(self, x: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_mul_ps(self.0, x.0), _mm256_mul_ps(self.1, x.1)) }
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub use x86::{Narrow, Wide};

/// [`per_isa`](super::isa::per_isa) for a body over [`Lanes`], with the set's own.
macro_rules! per_lanes {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(isa: $crate::Isa, $($arg: $ty),*) {
            use $crate::Isa;
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx2($($arg: $ty),*) {
                $body::<$crate::lanes::Narrow>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512cd,avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx512($($arg: $ty),*) {
                $body::<$crate::lanes::Wide>($($arg),*)
            }
            match isa {
                Isa::Portable => $body::<[f32; 16]>($($arg),*),
                // SAFETY: `Isa::available` lists a set only where its features were found.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Amx => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => $body::<[f32; 16]>($($arg),*),
            }
        }
    };
}
pub(super) use per_lanes;

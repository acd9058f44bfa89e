//! Which instructions the processor has.

use std::fmt;
use std::sync::OnceLock;

/// A set of instructions that kernels are compiled for, and the proof that this processor has it.
///
/// There is no way to make a value but [`Isa::PORTABLE`] and the functions that look at the processor
/// ([`Isa::available`], [`Isa::chosen`], [`Isa::current`]). Code that is compiled for a set may therefore be called
/// by whoever holds the set's value, and kernels are safe functions.
///
/// A value cannot be named:
/// ```compile_fail,E0599
/// let isa = kernels::Isa::Avx512;
/// ```
/// nor be put together, since the field is private and so is its type:
/// ```compile_fail,E0423
/// let isa = kernels::Isa(kernels::Set::Avx512);
/// ```
/// ```compile_fail,E0451
/// let isa = kernels::Isa { 0: unreachable!() };
/// ```
/// ```compile_fail,E0616
/// fn change(isa: &mut kernels::Isa) { isa.0 = unreachable!(); }
/// ```
/// and nothing makes one out of nothing, or of numbers and names:
/// ```compile_fail,E0599
/// let isa = kernels::Isa::default();
/// ```
/// ```compile_fail,E0277
/// let isa: kernels::Isa = "avx512".parse().unwrap();
/// ```
/// ```compile_fail,E0277
/// let isa: kernels::Isa = 2u8.into();
/// ```
/// ```
/// // What does compile:
/// let isa = kernels::Isa::available().pop().unwrap_or(kernels::Isa::PORTABLE);
/// println!("{}", isa.name());
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Isa(Set);

/// What kernels are chosen by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    /// Whatever the target guarantees.
    Portable,
    /// x86-64 with AVX2, F16C and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// All that, and AVX-512 F, BW, VL, DQ and CD.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// All that, and VNNI: products of 8-bit integers. Known to users as AVX-512 too: a processor has this or that.
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// All that, and the matrix unit for 8-bit integers, which the system has lent to this process.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// 64-bit ARM with NEON and the dot product of 8-bit integers, little-endian.
    #[cfg(target_arch = "aarch64")]
    #[cfg_attr(not(target_endian = "little"), allow(dead_code))]
    Neon,
}

impl Isa {
    /// What every processor of the target has.
    pub const PORTABLE: Self = Self(Set::Portable);

    /// Every set that this processor has, the widest last. The first is [`Isa::PORTABLE`].
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut all = vec![Set::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            let narrow = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("f16c")
                && is_x86_feature_detected!("fma");
            let wide = narrow
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512cd");
            let vnni = wide && is_x86_feature_detected!("avx512vnni");
            all.extend(narrow.then_some(Set::Avx2));
            all.extend((wide && !vnni).then_some(Set::Avx512));
            all.extend(vnni.then_some(Set::Vnni));
            all.extend((vnni && super::tile::amx::permitted()).then_some(Set::Amx));
        }
        // Registers' lanes are numbered as bytes are in memory only where the lowest byte comes first.
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        if std::arch::is_aarch64_feature_detected!("neon")
            && std::arch::is_aarch64_feature_detected!("dotprod")
        {
            all.push(Set::Neon);
        }
        all.into_iter().map(Self).collect()
    }

    /// What kernels are chosen by: the processor has it.
    pub(crate) fn set(self) -> Set {
        self.0
    }

    /// [`Isa::available`], and what wider sets include but do not list.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut all = Self::available();
        #[cfg(target_arch = "x86_64")]
        if let Some(at) = all.iter().position(|isa| isa.0 == Set::Vnni) {
            all.insert(at, Self(Set::Avx512));
        }
        all
    }

    /// The name that `GGUFKIT_ISA` takes.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 | Set::Vnni => "avx512",
            #[cfg(target_arch = "x86_64")]
            Set::Amx => "amx",
            #[cfg(target_arch = "aarch64")]
            Set::Neon => "neon",
        }
    }

    /// The set in use: the widest, or the one that `GGUFKIT_ISA` names.
    ///
    /// # Errors
    /// The names to choose from, if the variable names a set that this processor does not have.
    pub fn chosen() -> Result<Self, String> {
        static CHOSEN: OnceLock<Result<Isa, String>> = OnceLock::new();
        let choose = || {
            let all = Self::available();
            let Some(name) = std::env::var_os("GGUFKIT_ISA").filter(|n| !n.is_empty()) else {
                return Ok(*all.last().expect("portable is always there"));
            };
            all.iter().find(|i| i.name() == name).copied().ok_or_else(|| {
                let names: Vec<_> = all.iter().map(|i| i.name()).collect();
                format!("GGUFKIT_ISA={} is not one of {}", name.to_string_lossy(), names.join(", "))
            })
        };
        CHOSEN.get_or_init(choose).clone()
    }

    /// The set in use, the portable one where the variable is wrong: the binary has refused that before.
    pub fn current() -> Self {
        Self::chosen().unwrap_or(Self::PORTABLE)
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Isa({})", self.name())
    }
}

/// Defines a function that runs a plain body, compiled for the instruction set that it is given.
macro_rules! per_isa {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(isa: $crate::Isa, $($arg: $ty),*) $(-> $ret)? {
            use $crate::isa::Set;
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                $body($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512cd,avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                $body($($arg),*)
            }
            match isa.set() {
                Set::Portable => $body($($arg),*),
                // SAFETY: an `Isa` of this set exists only where the set's features were found.
                #[cfg(target_arch = "x86_64")]
                Set::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Set::Avx512 | Set::Vnni | Set::Amx => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                Set::Neon => $body($($arg),*),
            }
        }
    };
}
pub(super) use per_isa;

//! Which instructions the processor has.

use std::sync::OnceLock;

/// A set of instructions that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// Whatever the target guarantees.
    Portable,
    /// x86-64 with AVX2, F16C and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// x86-64 with AVX-512 F, BW, VL, DQ, CD, and VNNI where the processor has it.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// The same with VNNI, and the matrix unit for 8-bit integers.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// 64-bit ARM with the dot product of 8-bit integers.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Isa {
    /// Every set that this processor has, the widest last.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut all = vec![Self::Portable];
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
            all.extend(narrow.then_some(Self::Avx2));
            all.extend(wide.then_some(Self::Avx512));
            all.extend((wide && has_vnni() && super::tile::amx::permitted()).then_some(Self::Amx));
        }
        // Registers' lanes are numbered as bytes are in memory only where the lowest byte comes first.
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        if std::arch::is_aarch64_feature_detected!("neon")
            && std::arch::is_aarch64_feature_detected!("dotprod")
        {
            all.push(Self::Neon);
        }
        all
    }

    /// The name that `GGUFKIT_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Amx => "amx",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
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
        Self::chosen().unwrap_or(Self::Portable)
    }
}

/// Whether 512-bit registers have the dot product of 8-bit integers.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_vnni() -> bool {
    is_x86_feature_detected!("avx512vnni")
}

/// Defines a function that runs a plain body, compiled for the instruction set that it is given.
macro_rules! per_isa {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(isa: $crate::Isa, $($arg: $ty),*) $(-> $ret)? {
            use $crate::Isa;
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
            match isa {
                Isa::Portable => $body($($arg),*),
                // SAFETY: `Isa::available` lists a set only where its features were found.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Amx => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => $body($($arg),*),
            }
        }
    };
}
pub(super) use per_isa;

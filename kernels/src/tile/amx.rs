//! Panels on the matrix unit of Intel's processors: sixteen rows times sixteen tokens times a block in one
//! instruction.
//!
//! Rust has no stable functions for it; the instructions are written out. They use the eight tile registers, which
//! no compiled code touches, and which are configured and released within one call, also where that ends in a panic
//! ([`Configured`]). A thread that is interrupted or moved between the two keeps its tiles: the system saves them.

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::activations::{Activations, TOKENS};
use super::{Panel, ROWS};

/// Whether the processor has the unit and the system lends it to this process.
pub fn permitted() -> bool {
    static PERMITTED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *PERMITTED.get_or_init(|| {
        // Leaf 7: bit 24 of edx is AMX-TILE, bit 25 AMX-INT8.
        // SAFETY: every processor of this target has the instruction, and leaf 7 is asked for where it exists.
        #[allow(unused_unsafe)]
        let has = unsafe { __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx >> 24 & 3 == 3 };
        has && ask()
    })
}

/// Linux lends the tile registers to processes that ask: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA). The answer
/// holds for all threads of the process, those to come among them, and for its forks, for as long as they live.
#[cfg(target_os = "linux")]
fn ask() -> bool {
    let result: i64;
    // SAFETY: a system call with numbers only, which writes no memory of ours; it overwrites rcx and r11, and rax with
    // its result.
    unsafe {
        asm!("syscall", inlateout("rax") 158i64 => result, in("rdi") 0x1023i64, in("rsi") 18i64,
             out("rcx") _, out("r11") _, options(nostack));
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn ask() -> bool {
    false
}

/// The shapes of tiles: palette 1; for each of eight, bytes of a row at 16, rows at 48.
#[repr(C, align(64))]
struct Config([u8; 64]);

const fn config(group: usize) -> Config {
    let mut c = [0; 64];
    c[0] = 1;
    let depth = if group < 64 { group } else { 64 };
    let mut tile = 0;
    while tile < 8 {
        // 0, 1: products, 16 tokens of 16 rows in four bytes; 2, 3: activations, 16 tokens of `depth` columns;
        // 4, 5: weights, four columns of 16 rows.
        let (rows, bytes) = match tile {
            0 | 1 => (16, 64),
            2 | 3 => (16, depth),
            _ => (depth / 4, 64),
        };
        c[16 + 2 * tile] = bytes as u8;
        c[48 + tile] = rows as u8;
        tile += 1;
    }
    Config(c)
}

/// The unit is configured for blocks of some weights, until this is dropped.
struct Configured(());

impl Configured {
    /// # Safety
    /// The unit is there, and the system has lent it ([`permitted`]).
    #[inline(always)]
    unsafe fn new(config: &'static Config) -> Self {
        // SAFETY: the caller's; 64 bytes are read, which `config` has made as the unit wants them.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) config.0.as_ptr(),
                 out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                 out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                 options(nostack, readonly, preserves_flags));
        }
        Self(())
    }
}

impl Drop for Configured {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the unit is there, or nothing could have been configured; nothing is in the tile registers that anybody
        // wants.
        unsafe {
            asm!("tilerelease",
                 out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                 out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                 options(nostack, nomem, preserves_flags));
        }
    }
}

/// Products of a block.
#[repr(C, align(64))]
struct Products([[i32; ROWS]; TOKENS]);

/// Blocks that the unit is ahead.
const AHEAD: usize = 2;
/// Blocks whose products are kept.
const RING: usize = 4;

/// Products of a block.
///
/// # Safety
/// The unit is configured for W; there are W columns of sixteen rows at `w`, and of sixteen tokens, `stride` bytes one
/// after the other, at `q`.
#[inline(always)]
unsafe fn multiply<const W: usize>(q: *const i8, stride: usize, w: *const i8, into: &mut Products) {
    const { assert!(W == 16 || W == 32 || W == 256) };
    // SAFETY: the caller's; `into` has room for sixteen rows of 64 bytes. Tiles are as `config` says: rows of activations are
    // W columns, 64 at most, and rows of weights four columns of sixteen rows.
    unsafe {
        if W <= 32 {
            asm!(
                "tilezero tmm0",
                "tileloadd tmm2, [{q} + {stride}*1]",
                "tileloadd tmm4, [{w} + {line}*1]",
                "tdpbssd tmm0, tmm2, tmm4",
                "tilestored [{into} + {line}*1], tmm0",
                q = in(reg) q, stride = in(reg) stride, w = in(reg) w,
                line = in(reg) 64usize, into = in(reg) into.0.as_mut_ptr(),
                out("tmm0") _, out("tmm2") _, out("tmm4") _, options(nostack, preserves_flags),
            );
        } else {
            asm!(
                "tilezero tmm0",
                "tileloadd tmm2, [{q} + {stride}*1]",
                "tileloadd tmm4, [{w} + {line}*1]",
                "tdpbssd tmm0, tmm2, tmm4",
                "tileloadd tmm3, [{q} + {stride}*1 + 64]",
                "tileloadd tmm5, [{w} + {line}*1 + 1024]",
                "tdpbssd tmm0, tmm3, tmm5",
                "tileloadd tmm2, [{q} + {stride}*1 + 128]",
                "tileloadd tmm4, [{w} + {line}*1 + 2048]",
                "tdpbssd tmm0, tmm2, tmm4",
                "tileloadd tmm3, [{q} + {stride}*1 + 192]",
                "tileloadd tmm5, [{w} + {line}*1 + 3072]",
                "tdpbssd tmm0, tmm3, tmm5",
                "tilestored [{into} + {line}*1], tmm0",
                q = in(reg) q, stride = in(reg) stride, w = in(reg) w,
                line = in(reg) 64usize, into = in(reg) into.0.as_mut_ptr(),
                out("tmm0") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
                options(nostack, preserves_flags),
            );
        }
    }
}

/// Products of a panel.
///
/// # Safety
/// The processor has [`Set::Amx`](crate::isa::Set::Amx): AVX-512 with VNNI, and the unit, which is lent.
pub unsafe fn tile<const W: usize>(
    panel: &Panel,
    x: &Activations,
    token: usize,
    out: &mut [[f32; ROWS]; TOKENS],
) {
    let groups = panel.cols / W;
    assert!(panel.group == W && panel.cols == x.cols() && groups > 0 && panel.cols == groups * W);
    assert!(panel.codes.len() >= panel.cols * ROWS && panel.scales.len() >= groups * ROWS);
    assert!(panel.mins.is_empty() || panel.mins.len() >= groups * ROWS);
    let (end, all) = (token + TOKENS, x.stride() / W);
    assert!(panel.cols <= x.stride() && x.codes.len() >= end * x.stride());
    assert!(x.scales.len() >= end * all && x.sums.len() >= end * all);
    // SAFETY: the caller's; sizes are asserted above.
    unsafe { products::<W>(panel, x, token, out) }
}

/// # Safety
/// As of [`tile`]; the panel has `cols` columns in whole groups of W, and all that belongs to these; the activations have
/// sixteen tokens from `token` on, of as many columns.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
unsafe fn products<const W: usize>(
    panel: &Panel,
    x: &Activations,
    token: usize,
    out: &mut [[f32; ROWS]; TOKENS],
) {
    // SAFETY: the caller's.
    let configured = unsafe { Configured::new(const { &config(W) }) };
    let groups = panel.cols / W;
    let stride = x.stride();
    let all = stride / W;
    let mut ring = [const { Products([[0; ROWS]; TOKENS]) }; RING];
    let mut acc = [_mm512_setzero_ps(); TOKENS];
    // SAFETY: the panel has `groups` blocks of W columns, scales and, where it has any, mins of sixteen rows; there
    // are sixteen tokens of as many columns, each `stride` bytes after the other, and scales and sums likewise.
    unsafe {
        let (w, q) = (panel.codes.as_ptr(), x.codes.as_ptr().add(token * stride));
        let (scales, sums) = (x.scales.as_ptr().add(token * all), x.sums.as_ptr().add(token * all));
        // The unit is some blocks ahead of the additions, so that what it stores has arrived when it is loaded.
        for g in 0..groups + AHEAD {
            if g < groups {
                multiply::<W>(q.add(g * W), stride, w.add(g * W * ROWS), &mut ring[g % RING]);
            }
            let Some(g) = g.checked_sub(AHEAD) else { continue };
            let products = ring[g % RING].0.as_ptr();
            let d = _mm512_loadu_ps(panel.scales.as_ptr().add(g * ROWS));
            for t in 0..TOKENS {
                let s = _mm512_load_si512(products.add(t).cast());
                let part = _mm512_mul_ps(_mm512_cvtepi32_ps(s), d);
                acc[t] = _mm512_fmadd_ps(part, _mm512_set1_ps(*scales.add(t * all + g)), acc[t]);
            }
            if !panel.mins.is_empty() {
                let m = _mm512_loadu_ps(panel.mins.as_ptr().add(g * ROWS));
                for t in 0..TOKENS {
                    acc[t] = _mm512_fmadd_ps(m, _mm512_set1_ps(*sums.add(t * all + g)), acc[t]);
                }
            }
        }
    }
    drop(configured);
    for t in 0..TOKENS {
        // SAFETY: sixteen floats.
        unsafe { _mm512_storeu_ps(out[t].as_mut_ptr(), acc[t]) };
    }
}

/// Products of types with integer scales, in one plane of bytes or two.
///
/// # Safety
/// As of [`tile`].
pub unsafe fn nested(panel: &Panel, x: &Activations, token: usize, out: &mut [[f32; ROWS]; TOKENS]) {
    let blocks = panel.cols / 256;
    assert!(panel.group == 256 && panel.cols == x.cols() && blocks > 0 && panel.cols == blocks * 256);
    assert!(panel.codes.len() >= panel.cols * ROWS && panel.scales.len() >= blocks * ROWS);
    assert!(panel.low == 0 || panel.upper.len() >= panel.cols * ROWS);
    let min = !panel.mins.is_empty();
    assert!(!min || panel.mins.len() >= blocks * ROWS && panel.integers.len() >= blocks * 16 * ROWS);
    let (end, all) = (token + TOKENS, x.stride() / 256);
    assert!(panel.cols <= x.stride() && x.codes.len() >= end * x.stride() && x.scales.len() >= end * all);
    assert!(x.sixteens.len() >= end * x.stride() / 16);
    // SAFETY: the caller's; sizes are asserted above.
    unsafe {
        match (panel.low > 0, min) {
            (false, false) => nested_products::<false, false>(panel, x, token, out),
            (false, true) => nested_products::<false, true>(panel, x, token, out),
            (true, false) => nested_products::<true, false>(panel, x, token, out),
            (true, true) => nested_products::<true, true>(panel, x, token, out),
        }
    }
}

/// Products of a block with two planes.
///
/// # Safety
/// The unit is configured for 256; there are 256 columns of sixteen rows at `upper` and `lower`, and of sixteen tokens,
/// `stride` bytes one after the other, at `q`.
#[inline(always)]
unsafe fn multiply_two(
    q: *const i8,
    stride: usize,
    upper: *const i8,
    lower: *const i8,
    into: &mut [Products; 2],
) {
    // SAFETY: the caller's; `into` has room for twice sixteen rows of 64 bytes.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tileloadd tmm2, [{q} + {stride}*1]",
            "tileloadd tmm4, [{u} + {line}*1]",
            "tdpbssd tmm0, tmm2, tmm4",
            "tileloadd tmm5, [{l} + {line}*1]",
            "tdpbssd tmm1, tmm2, tmm5",
            "tileloadd tmm3, [{q} + {stride}*1 + 64]",
            "tileloadd tmm6, [{u} + {line}*1 + 1024]",
            "tdpbssd tmm0, tmm3, tmm6",
            "tileloadd tmm7, [{l} + {line}*1 + 1024]",
            "tdpbssd tmm1, tmm3, tmm7",
            "tileloadd tmm2, [{q} + {stride}*1 + 128]",
            "tileloadd tmm4, [{u} + {line}*1 + 2048]",
            "tdpbssd tmm0, tmm2, tmm4",
            "tileloadd tmm5, [{l} + {line}*1 + 2048]",
            "tdpbssd tmm1, tmm2, tmm5",
            "tileloadd tmm3, [{q} + {stride}*1 + 192]",
            "tileloadd tmm6, [{u} + {line}*1 + 3072]",
            "tdpbssd tmm0, tmm3, tmm6",
            "tileloadd tmm7, [{l} + {line}*1 + 3072]",
            "tdpbssd tmm1, tmm3, tmm7",
            "tilestored [{first} + {line}*1], tmm0",
            "tilestored [{second} + {line}*1], tmm1",
            q = in(reg) q, stride = in(reg) stride, u = in(reg) upper, l = in(reg) lower,
            line = in(reg) 64usize, first = in(reg) into[0].0.as_mut_ptr(),
            second = in(reg) into[1].0.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
/// As of [`tile`]; the panel has `cols` columns in whole blocks, in two planes where `TWO`, and mins where `MIN`, and all
/// that belongs to these; the activations have sixteen tokens from `token` on, of as many columns.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn nested_products<const TWO: bool, const MIN: bool>(
    panel: &Panel,
    x: &Activations,
    token: usize,
    out: &mut [[f32; ROWS]; TOKENS],
) {
    // SAFETY: the caller's.
    let configured = unsafe { Configured::new(const { &config(256) }) };
    let blocks = panel.cols / 256;
    let stride = x.stride();
    let all = stride / 256;
    let low = _mm_cvtsi32_si128(panel.low as i32);
    let mut ring = [const { [const { Products([[0; ROWS]; TOKENS]) }; 2] }; RING];
    let mut acc = [_mm512_setzero_ps(); TOKENS];
    // SAFETY: the panel has `blocks` blocks, scales and, where it has any, mins of sixteen rows; there are sixteen
    // tokens of as many columns, each `stride` bytes after the other, and scales and sums likewise.
    unsafe {
        let (upper, lower) = (panel.upper.as_ptr(), panel.codes.as_ptr());
        let q = x.codes.as_ptr().add(token * stride);
        let scales = x.scales.as_ptr().add(token * all);
        let sixteens = x.sixteens.as_ptr().add(token * stride / 16);
        // The unit is some blocks ahead of the additions, so that what it stores has arrived when it is loaded.
        for b in 0..blocks + AHEAD {
            if b < blocks {
                let at = b * 256 * ROWS;
                let into = &mut ring[b % RING];
                if TWO {
                    multiply_two(q.add(b * 256), stride, upper.add(at), lower.add(at), into);
                } else {
                    multiply::<256>(q.add(b * 256), stride, lower.add(at), &mut into[1]);
                }
            }
            let Some(b) = b.checked_sub(AHEAD) else { continue };
            let products = &ring[b % RING];
            let d = _mm512_loadu_ps(panel.scales.as_ptr().add(b * ROWS));
            for t in 0..TOKENS {
                let mut s = _mm512_load_si512(products[1].0[t].as_ptr().cast());
                if TWO {
                    let upper = _mm512_load_si512(products[0].0[t].as_ptr().cast());
                    s = _mm512_add_epi32(s, _mm512_sll_epi32(upper, low));
                }
                let part = _mm512_mul_ps(_mm512_cvtepi32_ps(s), d);
                acc[t] = _mm512_fmadd_ps(part, _mm512_set1_ps(*scales.add(t * all + b)), acc[t]);
            }
            if MIN {
                let d = _mm512_loadu_ps(panel.mins.as_ptr().add(b * ROWS));
                let mut m = [_mm512_setzero_si512(); 8];
                for i in 0..8 {
                    m[i] = _mm512_loadu_si512(panel.integers.as_ptr().add((b * 8 + i) * 2 * ROWS).cast());
                }
                for t in 0..TOKENS {
                    let q = sixteens.add(t * stride / 16 + b * 16).cast::<i32>();
                    // Two sums, which do not wait for each other.
                    let mut s = [_mm512_setzero_si512(); 2];
                    for i in 0..8 {
                        let two = _mm512_set1_epi32(q.add(i).read_unaligned());
                        s[i % 2] = _mm512_dpwssd_epi32(s[i % 2], m[i], two);
                    }
                    let part = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(s[0], s[1])), d);
                    acc[t] = _mm512_fmadd_ps(part, _mm512_set1_ps(*scales.add(t * all + b)), acc[t]);
                }
            }
        }
    }
    drop(configured);
    for t in 0..TOKENS {
        // SAFETY: sixteen floats.
        unsafe { _mm512_storeu_ps(out[t].as_mut_ptr(), acc[t]) };
    }
}

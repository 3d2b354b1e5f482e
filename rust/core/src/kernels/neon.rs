//! Instructions of AArch64 that have no stable names in Rust. Each is without memory and flags, so that compilers order it freely.

use std::arch::aarch64::{float32x4_t, int8x16_t, int32x4_t, uint8x16_t, uint16x8_t};
use std::arch::asm;

/// To every number of `sums` the products of four bytes of `a` with quad `Q` of `b`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot<const Q: usize>(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let mut out = sums;
    // SAFETY: registers only; the CPU has the instruction.
    unsafe {
        asm!("sdot {o:v}.4s, {a:v}.16b, {b:v}.4b[{q}]", o = inout(vreg) out, a = in(vreg) a, b = in(vreg) b, q = const Q,
            options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// `sums[2, 2] + a[2, 8] · b[2, 8]ᵀ`, unsigned bytes in `a`, signed ones in `b`.
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(super) fn usmmla(sums: int32x4_t, a: uint8x16_t, b: int8x16_t) -> int32x4_t {
    let mut out = sums;
    // SAFETY: registers only; the CPU has the instruction.
    unsafe {
        asm!("usmmla {o:v}.4s, {a:v}.16b, {b:v}.16b", o = inout(vreg) out, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// `sums[2, 2] + a[2, 4] · b[2, 4]ᵀ` for bfloat16 in `a` and `b`.
#[inline]
#[target_feature(enable = "neon,bf16")]
pub(super) fn bfmmla(sums: float32x4_t, a: uint16x8_t, b: uint16x8_t) -> float32x4_t {
    let mut out = sums;
    // SAFETY: registers only; the CPU has the instruction.
    unsafe {
        asm!("bfmmla {o:v}.4s, {a:v}.8h, {b:v}.8h", o = inout(vreg) out, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// The bfloat16 nearest to the numbers of `low` and then of `high`.
#[inline]
#[target_feature(enable = "neon,bf16")]
pub(super) fn to_bf16(low: float32x4_t, high: float32x4_t) -> uint16x8_t {
    let out: uint16x8_t;
    // SAFETY: registers only; the CPU has the instructions.
    unsafe {
        asm!("bfcvtn {o:v}.4h, {l:v}.4s", "bfcvtn2 {o:v}.8h, {h:v}.4s", o = out(vreg) out, l = in(vreg) low, h = in(vreg) high,
            options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// The values of eight float16: the first four, the last four.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn from_f16(bits: uint16x8_t) -> [float32x4_t; 2] {
    let (low, high): (float32x4_t, float32x4_t);
    // SAFETY: registers only; every AArch64 has the instructions.
    unsafe {
        asm!("fcvtl {l:v}.4s, {b:v}.4h", l = lateout(vreg) low, b = in(vreg) bits, options(pure, nomem, nostack, preserves_flags));
        asm!("fcvtl2 {h:v}.4s, {b:v}.8h", h = lateout(vreg) high, b = in(vreg) bits, options(pure, nomem, nostack, preserves_flags));
    }
    [low, high]
}

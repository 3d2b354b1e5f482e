//! Is there AMX, may this process use it, and does it multiply as expected?

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::OnceLock;

use super::COLUMNS;
use super::tile::{BYTES, Hardware, Tiles};
use super::{bf16, int8};

/// Can this process use AMX (with AVX-512 beside it)? Found out once.
pub(in crate::kernels) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    // SAFETY: the instructions are there and permitted before they are tried.
    *AVAILABLE.get_or_init(|| instructions() && permitted() && unsafe { multiplies_right::<Hardware>() })
}

/// Does the CPU have AMX for bf16 and 8 bits, and has the system switched its registers on?
#[allow(unused_unsafe, reason = "older compilers call __cpuid unsafe")]
fn instructions() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const BF16_TILE_INT8: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    const TILE_STATE: u32 = 1 << 17 | 1 << 18;
    let has = |bits: u32, wanted: u32| bits & wanted == wanted;
    // SAFETY: every x86-64 CPU has the instruction, and leaf 7 where leaf 0 says so.
    let (first, seventh) = unsafe {
        let seventh = (__cpuid(0).eax >= 7).then(|| __cpuid_count(7, 0).edx);
        (__cpuid(1).ecx, seventh.unwrap_or(0))
    };
    if !(is_x86_feature_detected!("avx512f") && has(first, OSXSAVE) && has(seventh, BF16_TILE_INT8)) {
        return false;
    }
    let states: u32;
    // SAFETY: OSXSAVE says that the instruction may be used; register 0 always exists.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") states, out("edx") _, options(nomem, nostack, preserves_flags)) };
    has(states, TILE_STATE)
}

/// Asks the system for the tiles' registers, for all threads of this process.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;
    let result: isize;
    // SAFETY: the call touches none of our memory; kernels that do not know it, and filters that forbid it, return an error.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Elsewhere it is not known how to ask.
#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// Small integers of either sign.
fn integers() -> impl FnMut(i32) -> i32 {
    let mut state = 0x9e37_79b9_u32;
    move |largest| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as i32 % (2 * largest + 1) - largest
    }
}

/// Compares products of both kinds, whose sums are exact, with plain arithmetic: emulators and hypervisors have been wrong before.
///
/// # Safety
/// As [`super::bf16::multiply`], for `T` the hardware.
pub(super) unsafe fn multiplies_right<T: Tiles>() -> bool {
    // SAFETY: promised by the caller.
    unsafe { bf16_right::<T>(51, 45, 70) && bf16_right::<T>(16, 64, 32) && int8_right::<T>(16, 2) && int8_right::<T>(3, 1) }
}

/// # Safety
/// As [`multiplies_right`].
unsafe fn bf16_right<T: Tiles>(m: usize, n: usize, k: usize) -> bool {
    let mut next = integers();
    let half = |v: i32| ((v as f32).to_bits() >> 16) as u16;
    let a: Vec<i32> = (0..m * k).map(|_| next(100)).collect();
    let b: Vec<i32> = (0..k * n).map(|_| next(100)).collect();
    let mut panel = vec![0u16; k.next_multiple_of(BYTES / 2) * COLUMNS];
    for (i, v) in b.iter().enumerate() {
        let (c, j) = (i / n, i % n);
        panel[(c / 2 * COLUMNS + j) * 2 + c % 2] = half(*v);
    }
    let halves: Vec<u16> = a.iter().map(|v| half(*v)).collect();
    let mut out = vec![0f32; m * n];
    // SAFETY: `halves` and `out` hold whole matrices; the rest is promised by the caller.
    unsafe { bf16::multiply_with::<T>(m, n, k, halves.as_ptr(), k, &panel, out.as_mut_ptr(), n) };
    let sum = |i: usize| (0..k).map(|c| a[i / n * k + c] * b[c * n + i % n]).sum::<i32>();
    out.iter().enumerate().all(|(i, found)| *found == sum(i) as f32)
}

/// # Safety
/// As [`multiplies_right`].
unsafe fn int8_right<T: Tiles>(rows: usize, groups: usize) -> bool {
    let mut next = integers();
    let k = groups * BYTES;
    let a: Vec<i32> = (0..rows * k).map(|_| next(127)).collect();
    let weights: Vec<i32> = (0..k * COLUMNS).map(|_| next(127) + 128).collect();
    let bytes: Vec<u8> = a.iter().map(|v| *v as u8).collect();
    let panel: Vec<u8> = weights.iter().map(|v| *v as u8).collect();
    // SAFETY: promised by the caller.
    let found = unsafe { int8::panel_with::<T>(&panel, &bytes, &vec![(0.5, 3); rows * groups], rows) };
    (0..rows * COLUMNS).all(|i| {
        let (r, j) = (i / COLUMNS, i % COLUMNS);
        let product = |c: usize| a[r * k + c] * weights[(c / 4 * COLUMNS + j) * 4 + c % 4];
        found[r][j] == ((0..k).map(product).sum::<i32>() + 3 * groups as i32) as f32 * 0.5
    })
}

#[cfg(test)]
mod tests {
    use super::super::model::{EVEN, Model, UNSIGNED};
    use super::*;

    #[test]
    fn wrong_products_are_noticed() {
        // SAFETY: models need no hardware.
        unsafe {
            assert!(multiplies_right::<Model>());
            assert!(!multiplies_right::<Model<UNSIGNED>>() && !multiplies_right::<Model<EVEN>>());
        }
    }

    /// For checks on a machine (or emulator) that is known to have AMX: `CHATTERBOX_TEST_AMX=1`.
    #[test]
    fn a_machine_said_to_have_amx_has_it() {
        let said = std::env::var_os("CHATTERBOX_TEST_AMX").is_some();
        assert!(available() || !said, "instructions: {}, permission: {}", instructions(), permitted());
        assert_eq!(available(), instructions() && permitted());
    }
}

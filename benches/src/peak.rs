//! The peaks of a number of threads.

use std::hint::black_box;

use chatterbox_turbo::kernels::memory::{read_rate, together};
use chatterbox_turbo::kernels::{Level, level_in_use};

use crate::Bound;

/// Rounds of a register loop.
const ROUNDS: usize = 4_000_000;
/// Accumulators: enough to hide the latency of two units.
const SUMS: usize = 16;
/// Of which the best counts.
const REPEAT: usize = 5;

/// Per second: operations (two for a multiply-add) and bytes.
#[derive(Clone, Copy, Debug)]
pub struct Peaks {
    /// Threads that ran.
    pub threads: usize,
    /// float32 operations at the CPU level in use.
    pub f32: f64,
    /// bfloat16 operations of the vector instruction that the level has for them, if it has one. Intel's tiles do more.
    pub bf16: Option<f64>,
    /// 8-bit operations of the instruction that the level has for them, if it has one.
    pub int8: Option<f64>,
    /// Bytes read.
    pub memory: f64,
}

impl Peaks {
    /// The peak of `bound`; without an instruction for its format, that of float32.
    pub fn of(&self, bound: Bound) -> f64 {
        match bound {
            Bound::F32 => self.f32,
            Bound::Bf16 => self.bf16.unwrap_or(self.f32),
            Bound::Int8 => self.int8.unwrap_or(self.f32),
            Bound::Memory => self.memory,
        }
    }
}

/// Measures with `threads` threads at once.
pub fn measure(threads: usize) -> Peaks {
    let level = level_in_use().unwrap_or(Level::Baseline);
    let lanes = fma_lanes(level);
    let f32 = best(threads, || fma(level)) * (ROUNDS * SUMS * lanes * 2) as f64;
    let [bf16, int8] = [(has_bf16(level), bf16 as fn(), 32), (has_vnni(level), vnni, 64)]
        .map(|(has, run, lanes)| has.then(|| best(threads, run) * (ROUNDS * SUMS * lanes * 2) as f64));
    Peaks { threads, f32, bf16, int8, memory: read_rate(threads) }
}

/// Calls per second of `work` on all threads.
fn best(threads: usize, work: impl Fn() + Sync) -> f64 {
    threads as f64 / (0..REPEAT).map(|_| together(threads, |_| work())).fold(f64::MAX, f64::min)
}

fn fma_lanes(level: Level) -> usize {
    match level {
        level if level.has_avx512() => 16,
        Level::Avx2 => 8,
        _ => 4,
    }
}

fn fma(level: Level) {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level in use is one that the CPU has.
        level if level.has_avx512() => unsafe { x86::avx512() },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 => unsafe { x86::avx2() },
        _ => plain(),
    }
}

/// Four lanes, which every target has as a vector; fused where that is free.
fn plain() {
    let (a, b) = (black_box([0.5f32; 4]), black_box([1.0f32; 4]));
    let mut sums = [[0f32; 4]; SUMS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            for l in 0..4 {
                sum[l] = if cfg!(target_arch = "aarch64") { sum[l].mul_add(a[l], b[l]) } else { sum[l] * a[l] + b[l] };
            }
        }
    }
    black_box(sums);
}

fn has_bf16(level: Level) -> bool {
    #[cfg(target_arch = "x86_64")]
    return level.has_avx512() && is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = level;
        false
    }
}

fn bf16() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `has_bf16` was asked before.
    unsafe {
        x86::bf16();
    }
}

fn has_vnni(level: Level) -> bool {
    #[cfg(target_arch = "x86_64")]
    return level.has_avx512() && is_x86_feature_detected!("avx512vnni");
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = level;
        false
    }
}

fn vnni() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `has_vnni` was asked before.
    unsafe {
        x86::vnni();
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512bh, _mm256_fmadd_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm512_dpbf16_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
        _mm512_set1_epi8, _mm512_set1_epi16, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    };
    use std::hint::black_box;

    use super::{ROUNDS, SUMS};

    #[target_feature(enable = "avx512f")]
    pub fn avx512() {
        let (a, b) = (black_box(_mm512_set1_ps(0.5)), black_box(_mm512_set1_ps(1.0)));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2() {
        let (a, b) = (black_box(_mm256_set1_ps(0.5)), black_box(_mm256_set1_ps(1.0)));
        let mut sums = [_mm256_setzero_ps(); SUMS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub fn bf16() {
        // SAFETY: 64 bytes of any value.
        let ones = || -> __m512bh { unsafe { std::mem::transmute(_mm512_set1_epi16(0x3f80)) } };
        let (a, b) = (black_box(ones()), black_box(ones()));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn vnni() {
        let (a, b) = (black_box(_mm512_set1_epi8(1)), black_box(_mm512_set1_epi8(2)));
        let mut sums = [_mm512_setzero_si512(); SUMS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }
}

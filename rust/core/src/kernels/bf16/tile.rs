//! One panel of weights times some rows, once for every kind of CPU.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m512, __m512bh, __m512i, __mmask16, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_ps, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_setzero_si512,
};

#[cfg(target_arch = "aarch64")]
use super::neon;
use super::round::value;
use super::{COLUMNS, PAIR};
use crate::kernels::simd::dispatch;
#[cfg(target_arch = "x86_64")]
use crate::kernels::{
    amx,
    level::{Level, level},
};

/// Rows of a register tile.
#[cfg(target_arch = "x86_64")]
const ROWS: usize = 6;

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernels) enum Unit {
    /// Intel's tiles.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// AVX-512 with `vdpbf16ps`.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// NEON with `bfmmla`.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// float32 arithmetic on the widened numbers, compiled for every level.
    Plain,
}

impl Unit {
    /// The best of this CPU, within the level that the kernels run at.
    pub(in crate::kernels) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        match level() {
            Level::Amx => return Self::Amx,
            _ if Self::vectors() => return Self::Avx512,
            _ => {}
        }
        #[cfg(target_arch = "aarch64")]
        if Self::Neon.available() {
            return Self::Neon;
        }
        Self::Plain
    }

    /// Are there vectors of bfloat16, within the level that the kernels run at?
    #[cfg(target_arch = "x86_64")]
    pub(super) fn vectors() -> bool {
        Self::Avx512.available() && level().has_avx512()
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub(super) fn available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => amx::available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16"),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("bf16"),
            Self::Plain => true,
        }
    }

    /// Adds `a[m, k] · panel[k, columns]` to `out`, on this thread. `panel` is one whole panel.
    ///
    /// # Safety
    /// The unit must be available. Rows of `k` numbers at `a + i * a_stride`, with 64 more behind the last, and rows of `columns`
    /// numbers at `out + i * out_stride` must be valid for `i < m`, and nothing else may touch those of `out` meanwhile.
    pub(in crate::kernels) unsafe fn multiply(
        self,
        m: usize,
        columns: usize,
        k: usize,
        a: *const u16,
        a_stride: usize,
        panel: &[u16],
        out: *mut f32,
        out_stride: usize,
    ) {
        assert!(panel.len() >= k.next_multiple_of(PAIR) * COLUMNS && columns <= COLUMNS, "bf16: panel");
        match self {
            // SAFETY: promised by the caller.
            #[cfg(target_arch = "x86_64")]
            Self::Amx => unsafe { amx::bf16::multiply(m, columns, k, a, a_stride, panel, out, out_stride) },
            // SAFETY: promised by the caller.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { avx512(m, columns, k, a, a_stride, panel, out, out_stride) },
            // SAFETY: promised by the caller.
            #[cfg(target_arch = "aarch64")]
            Self::Neon => unsafe { neon::multiply(m, columns, k, a, a_stride, panel.as_ptr(), out, out_stride) },
            Self::Plain => {
                for i in 0..m {
                    // SAFETY: promised by the caller.
                    let (a, out) = unsafe {
                        let a = std::slice::from_raw_parts(a.add(i * a_stride), k);
                        (a, std::slice::from_raw_parts_mut(out.add(i * out_stride), columns))
                    };
                    plain_row(a, panel, out);
                }
            }
        }
    }
}

dispatch!(
    /// What the other units compute, written to be read.
    fn plain_row(a: &[u16], panel: &[u16], out: &mut [f32]);
    fma => {
        let mut sums = [0f32; COLUMNS];
        for (pair, weights) in a.chunks(PAIR).zip(panel.chunks_exact(PAIR * COLUMNS)) {
            // behind the last of an odd row stands a zero, whatever follows it in memory
            let (even, odd) = (value(pair[0]), pair.get(1).map_or(0.0, |v| value(*v)));
            for (sum, w) in sums.iter_mut().zip(weights.as_chunks::<PAIR>().0) {
                *sum = fma(even, value(w[0]), fma(odd, value(w[1]), *sum));
            }
        }
        out.iter_mut().zip(sums).for_each(|(o, sum)| *o += sum);
    }
);

/// # Safety
/// As [`Unit::multiply`].
#[cfg(target_arch = "x86_64")]
unsafe fn avx512(
    m: usize,
    columns: usize,
    k: usize,
    a: *const u16,
    a_stride: usize,
    panel: &[u16],
    out: *mut f32,
    out_stride: usize,
) {
    macro_rules! choose {
        ($rows:expr, $i:expr, $($r:literal)*) => {
            // SAFETY: promised by the caller; row `i` and the tile's rows behind it are below m.
            unsafe {
                let (a, b, out) = (a.add($i * a_stride), panel.as_ptr(), out.add($i * out_stride));
                match ($rows, columns.div_ceil(16)) {
                    $(($r, 1) => tile::<$r, 1>(columns, k, a, a_stride, b, out, out_stride),
                    ($r, 2) => tile::<$r, 2>(columns, k, a, a_stride, b, out, out_stride),
                    ($r, 3) => tile::<$r, 3>(columns, k, a, a_stride, b, out, out_stride),
                    ($r, _) => tile::<$r, 4>(columns, k, a, a_stride, b, out, out_stride),)*
                    _ => {}
                }
            }
        };
    }
    for i in (0..m).step_by(ROWS) {
        choose!(ROWS.min(m - i), i, 1 2 3 4 5 6);
    }
}

/// # Safety
/// As [`Unit::multiply`], for one tile of `R` rows and `columns` ≤ `16 * V`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile<const R: usize, const V: usize>(
    columns: usize,
    k: usize,
    a: *const u16,
    a_stride: usize,
    panel: *const u16,
    out: *mut f32,
    out_stride: usize,
) {
    // SAFETY: both are 64 bytes of any value.
    let numbers = |bits: __m512i| -> __m512bh { unsafe { std::mem::transmute(bits) } };
    let mut sums: [[__m512; V]; R] = [[_mm512_setzero_ps(); V]; R];
    macro_rules! step {
        ($p:expr, $pair:expr) => {
            let mut row = [_mm512_setzero_si512(); V];
            for v in 0..V {
                // SAFETY: promised by the caller: the panel holds this pair of steps.
                row[v] = unsafe { _mm512_loadu_si512(panel.add(($p * COLUMNS + 16 * v) * PAIR).cast()) };
            }
            for r in 0..R {
                // SAFETY: promised by the caller.
                let pair = numbers(_mm512_set1_epi32(unsafe { $pair(a.add(r * a_stride + $p * PAIR)) }));
                for v in 0..V {
                    sums[r][v] = _mm512_dpbf16_ps(sums[r][v], pair, numbers(row[v]));
                }
            }
        };
    }
    for p in 0..k / PAIR {
        step!(p, |a: *const u16| a.cast::<i32>().read_unaligned());
    }
    if k % PAIR == 1 {
        // behind the last of an odd row stands a zero, whatever follows it in memory
        step!(k / PAIR, |a: *const u16| i32::from(*a));
    }
    for r in 0..R {
        for v in 0..V {
            let mask: __mmask16 = if columns >= 16 * (v + 1) { !0 } else { (1 << (columns - 16 * v)) - 1 };
            // SAFETY: promised by the caller; masked lanes are not touched.
            unsafe {
                let to = out.add(r * out_stride + 16 * v);
                _mm512_mask_storeu_ps(to, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), sums[r][v]));
            }
        }
    }
}

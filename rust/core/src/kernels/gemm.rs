//! The general product of the crate `gemm`, held to the level in use: on its own it takes the best that it finds.

use gemm::Parallelism;

use crate::threads::run;

/// Steps of k between two visits of the output. The crate would choose them by m and n: then a row's bits would depend on how many
/// rows there are beside it. So deep a product it never cuts.
const DEPTH: usize = 512;

/// `out[m, n] = a[m, k] · b[k, n]`, added to what `out` holds where `add` says so; element `(i, j)` of a matrix is at
/// `i * rows + j * columns` for its strides `(columns, rows)`.
///
/// # Safety
/// All elements must lie inside the allocations behind the pointers, and `out` must not overlap the inputs.
pub(crate) unsafe fn gemm(
    (m, n, k): (usize, usize, usize),
    out: (*mut f32, usize, usize),
    add: bool,
    a: (*const f32, usize, usize),
    b: (*const f32, usize, usize),
    parallelism: Parallelism,
) {
    for start in (0..k.max(1)).step_by(DEPTH) {
        // SAFETY: promised by the caller.
        let (a_part, b_part) = unsafe { (a.0.add(start * a.1), b.0.add(start * b.2)) };
        let depth = DEPTH.min(k - start);
        let product = Product((m, n, depth), out, add || start > 0, (a_part, a.1, a.2), (b_part, b.1, b.2));
        match parallelism {
            // SAFETY: promised by the caller.
            Parallelism::None => unsafe { compute(product, parallelism) },
            // SAFETY: as above; this thread waits for the product.
            more => run(move || unsafe { compute(product, more) }),
        }
    }
}

/// What [`gemm`] takes, on its way to another thread.
#[allow(clippy::type_complexity)]
struct Product((usize, usize, usize), (*mut f32, usize, usize), bool, (*const f32, usize, usize), (*const f32, usize, usize));

// SAFETY: who uses the pointers promises what `gemm` asks for.
unsafe impl Send for Product {}

/// # Safety
/// As [`gemm`].
unsafe fn compute(Product((m, n, k), out, add, a, b): Product, parallelism: Parallelism) {
    let alpha = if add { 1.0 } else { 0.0 };
    #[cfg(target_arch = "x86_64")]
    {
        use super::level::{Level, level};
        use gemm_common::gemm::gemm_basic_generic;
        use gemm_common::simd::{MixedSimd, Scalar, V3, V4};
        macro_rules! at {
            ($level:ident, $simd:expr, $lanes:literal) => {{
                use gemm_f32::microkernel::$level::f32::{H_M, H_N, H_UKR, MR_DIV_N, NR, UKR};
                // SAFETY: promised by the caller; `$simd` exists only where the CPU has its instructions.
                unsafe {
                    gemm_basic_generic::<_, f32, $lanes, { MR_DIV_N * $lanes }, NR, MR_DIV_N, H_M, H_N>(
                        $simd,
                        m,
                        n,
                        k,
                        out.0,
                        out.1 as isize,
                        out.2 as isize,
                        add,
                        a.0,
                        a.1 as isize,
                        a.2 as isize,
                        b.0,
                        b.1 as isize,
                        b.2 as isize,
                        alpha,
                        1.0,
                        false,
                        false,
                        false,
                        |a, b, c| a * b + c,
                        &UKR,
                        &H_UKR,
                        false,
                        parallelism,
                    )
                }
            }};
        }
        let level = level();
        if let (true, Some(simd)) = (level.has_avx512(), <V4 as MixedSimd<f32, f32, f32, f32>>::try_new()) {
            return at!(avx512f, simd, 16);
        }
        if let (true, Some(simd)) = (level.has_avx512() || level == Level::Avx2, <V3 as MixedSimd<f32, f32, f32, f32>>::try_new())
        {
            return at!(fma, simd, 8);
        }
        at!(scalar, Scalar, 1)
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: promised by the caller.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.0,
            out.1 as isize,
            out.2 as isize,
            add,
            a.0,
            a.1 as isize,
            a.2 as isize,
            b.0,
            b.1 as isize,
            b.2 as isize,
            alpha,
            1.0,
            false,
            false,
            false,
            parallelism,
        )
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::kernels::level::testing::at_every_level;
    use crate::kernels::level::{Level, level, levels};

    #[test]
    fn agrees_with_float64() {
        at_every_level(|| {
            for (m, n, k) in [(1, 1, 1), (3, 7, 40), (33, 70, 300), (200, 130, 513)] {
                let a: Vec<f32> = (0..m * k).map(|i| ((i * 31 % 101) as f32 - 50.0) / 50.0).collect();
                let b: Vec<f32> = (0..n * k).map(|i| ((i * 17 % 89) as f32 - 44.0) / 44.0).collect();
                for (add, columns, rows, threads) in [(false, 1, n, Parallelism::None), (true, k, 1, Parallelism::Rayon(0))] {
                    let mut out = vec![0.5; m * n];
                    // SAFETY: the slices hold whole matrices.
                    unsafe {
                        let (a, b) = ((a.as_ptr(), 1, k), (b.as_ptr(), columns, rows));
                        gemm((m, n, k), (out.as_mut_ptr(), 1, n), add, a, b, threads);
                    }
                    for (at, found) in out.iter().enumerate() {
                        let product = |x: usize| f64::from(a[at / n * k + x]) * f64::from(b[at % n * columns + x * rows]);
                        let truth = (0..k).map(product).sum::<f64>() + if add { 0.5 } else { 0.0 };
                        assert!((f64::from(*found) - truth).abs() < 2e-6 * k as f64, "{m} {n} {k} at {at}: {found} {truth}");
                    }
                }
            }
        });
    }

    #[test]
    fn a_row_has_the_same_bits_among_many_and_among_few() {
        at_every_level(|| {
            for (n, k) in [(32, 1100), (70, 1500), (5, 600)] {
                let m = 200;
                let a: Vec<f32> = (0..m * k).map(|i| ((i * 31 % 101) as f32 - 50.0) / 50.0).collect();
                let b: Vec<f32> = (0..n * k).map(|i| ((i * 17 % 89) as f32 - 44.0) / 44.0).collect();
                let rows = |first: usize, count: usize| {
                    let mut out = vec![0.5; count * n];
                    // SAFETY: the slices hold whole matrices, and `first + count` rows of `a`.
                    unsafe {
                        let a = (a.as_ptr().add(first * k), 1, k);
                        gemm((count, n, k), (out.as_mut_ptr(), 1, n), true, a, (b.as_ptr(), k, 1), Parallelism::None);
                    }
                    out
                };
                let all = rows(0, m);
                for (first, count) in [(0, 100), (50, 60), (137, 63)] {
                    assert_eq!(rows(first, count), all[first * n..(first + count) * n], "{count} rows, {n} columns, {k} deep");
                }
            }
        });
    }

    #[test]
    fn the_best_level_is_the_crates_own_choice() {
        if level() != levels()[0] || level() == Level::Baseline {
            return; // a level was asked for: then it is not
        }
        let (m, n, k) = (65, 90, 310);
        let a: Vec<f32> = (0..m * k).map(|i| ((i * 31 % 101) as f32 - 50.0) / 50.0).collect();
        let b: Vec<f32> = (0..n * k).map(|i| ((i * 17 % 89) as f32 - 44.0) / 44.0).collect();
        let (mut ours, mut theirs) = (vec![0.5; m * n], vec![0.5; m * n]);
        let (cs, rs) = (1, n as isize);
        // SAFETY: the slices hold whole matrices.
        unsafe {
            gemm((m, n, k), (ours.as_mut_ptr(), 1, n), true, (a.as_ptr(), 1, k), (b.as_ptr(), k, 1), Parallelism::None);
            let (a, b, k2) = (a.as_ptr(), b.as_ptr(), k as isize);
            let none = Parallelism::None;
            gemm::gemm(m, n, k, theirs.as_mut_ptr(), cs, rs, true, a, 1, k2, b, k2, 1, 1.0, 1.0, false, false, false, none);
        }
        assert_eq!(ours, theirs);
    }
}

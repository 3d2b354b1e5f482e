//! `out[m, columns] += a[m, k] · b[k, columns]` for a panel of 64 columns of bf16, in blocks of 32 rows by 32 columns.
//!
//! A panel is `[kp / 2, 64, 2]` (pairs of consecutive k), kp being k rounded up to a multiple of 32, with zeros behind the end. A
//! block stays in four tiles over all of k. A sum does not depend on the block that its row and column are in.

use super::COLUMNS;
use super::tile::{BYTES, Hardware, ROWS, Shapes, TILES, Tiles};

/// Rows and columns of a block.
const BLOCK: usize = 2 * ROWS;
/// Values of k that one instruction takes.
const STEP: usize = BYTES / 2;
/// Bytes from one pair of k to the next in a panel.
const PAIR: usize = COLUMNS * 4;

/// Adds `a · b` to `out`, on this thread; strides are in elements, and `columns` ≤ 64 columns of the panel count.
///
/// # Safety
/// [`super::available`] must hold. Rows of k numbers at `a + i * a_stride` and of `columns` numbers at `out + i * out_stride` must be
/// valid for `i < m`, and nothing else may touch those of `out` meanwhile.
pub(in crate::kernels) unsafe fn multiply(
    m: usize,
    columns: usize,
    k: usize,
    a: *const u16,
    a_stride: usize,
    panel: &[u16],
    out: *mut f32,
    out_stride: usize,
) {
    // SAFETY: promised by the caller.
    unsafe { multiply_with::<Hardware>(m, columns, k, a, a_stride, panel, out, out_stride) }
}

/// # Safety
/// As [`multiply`]; a model needs no hardware.
pub(super) unsafe fn multiply_with<T: Tiles>(
    m: usize,
    columns: usize,
    k: usize,
    a: *const u16,
    a_stride: usize,
    panel: &[u16],
    out: *mut f32,
    out_stride: usize,
) {
    assert!(panel.len() >= k.next_multiple_of(STEP) * COLUMNS && columns <= COLUMNS, "amx: panel");
    let mut tiles = T::take();
    let mut current = None;
    for (start, end) in [(0, m / BLOCK * BLOCK), (m / BLOCK * BLOCK, m)] {
        for first in (0..columns).step_by(BLOCK) {
            let (height, width) = (BLOCK.min(end - start), BLOCK.min(columns - first));
            if height == 0 {
                continue;
            }
            let shapes = block_shapes(height, width);
            // SAFETY: promised by the caller; the shapes are those of the block, whose columns begin inside the panel.
            unsafe {
                if current != Some(shapes) {
                    tiles.configure(&shapes);
                    current = Some(shapes);
                }
                for i in (start..end).step_by(BLOCK) {
                    let (a, out) = (a.add(i * a_stride), out.add(i * out_stride + first));
                    let b = panel.as_ptr().add(2 * first);
                    match (height > ROWS, width > ROWS) {
                        (true, true) => block::<T, true, true>(&mut tiles, height, k, a, a_stride, b, out, out_stride),
                        (true, false) => block::<T, true, false>(&mut tiles, height, k, a, a_stride, b, out, out_stride),
                        (false, true) => block::<T, false, true>(&mut tiles, height, k, a, a_stride, b, out, out_stride),
                        (false, false) => block::<T, false, false>(&mut tiles, height, k, a, a_stride, b, out, out_stride),
                    }
                }
            }
        }
    }
}

/// Tiles 0 to 3 are the quarters of a block, left to right and downwards, 4 and 5 the rows of `a`, 6 and 7 the columns of `b`.
fn block_shapes(height: usize, width: usize) -> Shapes {
    let (upper, lower) = (height.min(ROWS), height.saturating_sub(ROWS));
    let (left, right) = (4 * width.min(ROWS), 4 * width.saturating_sub(ROWS));
    let mut tiles = [(0, 0); TILES];
    for (tile, rows, bytes) in [
        (0, upper, left),
        (1, upper, right),
        (2, lower, left),
        (3, lower, right),
        (4, upper, BYTES),
        (5, lower, BYTES),
        (6, ROWS, left),
        (7, ROWS, right),
    ] {
        if rows > 0 && bytes > 0 {
            tiles[tile] = (rows, bytes);
        }
    }
    Shapes::new(tiles)
}

/// One block, `LOWER` and `RIGHT` telling whether it has more than 16 rows and columns.
///
/// # Safety
/// As [`multiply`] for the rows and columns of the shapes.
#[inline(always)]
unsafe fn block<T: Tiles, const LOWER: bool, const RIGHT: bool>(
    tiles: &mut T,
    rows: usize,
    k: usize,
    a: *const u16,
    a_stride: usize,
    b: *const u16,
    out: *mut f32,
    out_stride: usize,
) {
    let (out, stride) = (out.cast::<u8>(), 4 * out_stride);
    let (a, a_stride, b) = (a.cast::<u8>(), 2 * a_stride, b.cast::<u8>());
    let whole = k / STEP;
    // SAFETY: promised by the caller; a whole step reads 64 bytes of each row, the rest of k comes from `tail`.
    unsafe {
        tiles.load::<0>(out, stride);
        if RIGHT {
            tiles.load::<1>(out.add(BYTES), stride);
        }
        if LOWER {
            tiles.load::<2>(out.add(ROWS * stride), stride);
        }
        if LOWER && RIGHT {
            tiles.load::<3>(out.add(ROWS * stride + BYTES), stride);
        }
        for s in 0..whole {
            step::<T, LOWER, RIGHT>(tiles, a.add(s * BYTES), a_stride, b.add(s * ROWS * PAIR));
        }
        if !k.is_multiple_of(STEP) {
            // what follows in memory may be anything, and zero times that is not always zero
            let mut tail = [[0u8; BYTES]; BLOCK];
            for (i, row) in tail.iter_mut().enumerate().take(rows) {
                let from = a.add(i * a_stride + whole * BYTES);
                std::ptr::copy_nonoverlapping(from, row.as_mut_ptr(), 2 * (k % STEP));
            }
            step::<T, LOWER, RIGHT>(tiles, tail.as_ptr().cast(), BYTES, b.add(whole * ROWS * PAIR));
        }
        tiles.store::<0>(out, stride);
        if RIGHT {
            tiles.store::<1>(out.add(BYTES), stride);
        }
        if LOWER {
            tiles.store::<2>(out.add(ROWS * stride), stride);
        }
        if LOWER && RIGHT {
            tiles.store::<3>(out.add(ROWS * stride + BYTES), stride);
        }
    }
}

/// 32 values of k; `a_stride` is in bytes.
///
/// # Safety
/// As [`multiply`] for the rows and columns of the shapes.
#[inline(always)]
unsafe fn step<T: Tiles, const LOWER: bool, const RIGHT: bool>(tiles: &mut T, a: *const u8, a_stride: usize, b: *const u8) {
    // SAFETY: promised by the caller.
    unsafe {
        tiles.load::<6>(b, PAIR);
        tiles.load::<4>(a, a_stride);
        tiles.dot_bf16::<0, 4, 6>();
        if RIGHT {
            tiles.load::<7>(b.add(BYTES), PAIR);
            tiles.dot_bf16::<1, 4, 7>();
        }
        if LOWER {
            tiles.load::<5>(a.add(ROWS * a_stride), a_stride);
            tiles.dot_bf16::<2, 5, 6>();
        }
        if LOWER && RIGHT {
            tiles.dot_bf16::<3, 5, 7>();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::Model;
    use super::*;

    fn half(x: f32) -> u16 {
        half::bf16::from_f32(x).to_bits()
    }

    fn value(bits: u16) -> f64 {
        f64::from(f32::from_bits(u32::from(bits) << 16))
    }

    fn noise(n: usize, stream: u64) -> Vec<u16> {
        let normals = crate::draws::normals(stream, "test", 0, 1, n).map(|m| m.data).unwrap_or_default();
        normals.into_iter().map(half).collect()
    }

    /// `b` `[n, k]`, n ≤ 64, as a panel.
    fn deal(b: &[u16], n: usize, k: usize) -> Vec<u16> {
        let mut panel = vec![0; k.next_multiple_of(STEP) * COLUMNS];
        for (i, v) in b.iter().enumerate() {
            let (j, c) = (i / k, i % k);
            assert!(j < n);
            panel[(c / 2 * COLUMNS + j) * 2 + c % 2] = *v;
        }
        panel
    }

    const OLD: f32 = 0.25;
    const UNTOUCHED: f32 = 77.0;

    fn product<T: Tiles>(m: usize, n: usize, k: usize, a: &[u16], stride: usize, panel: &[u16]) -> Vec<f32> {
        let out_stride = n + 3;
        let mut out = vec![UNTOUCHED; m * out_stride];
        out.chunks_mut(out_stride).for_each(|row| row[..n].fill(OLD));
        assert!(a.len() >= (m - 1) * stride + k);
        // SAFETY: the rows lie inside `a` and `out`; tests run the hardware only where it is available.
        unsafe { multiply_with::<T>(m, n, k, a.as_ptr(), stride, panel, out.as_mut_ptr(), out_stride) };
        assert!(out.chunks(out_stride).all(|row| row[n..].iter().all(|v| *v == UNTOUCHED)), "{m} {n} {k}: beside the columns");
        out.chunks(out_stride).flat_map(|row| row[..n].to_vec()).collect()
    }

    /// By the model, and by the hardware where there is any, which must agree to the bit.
    fn checked(m: usize, n: usize, k: usize, a: &[u16], stride: usize, panel: &[u16]) -> Vec<f32> {
        let out = product::<Model>(m, n, k, a, stride, panel);
        if super::super::available() {
            let found = product::<Hardware>(m, n, k, a, stride, panel);
            let same = found.iter().zip(&out).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan());
            assert!(same, "{m} {n} {k}: the hardware differs from its model");
        }
        out
    }

    /// m, n, k: whole blocks, and every kind of rest of all three.
    const SIZES: [(usize, usize, usize); 10] = [
        (1, 1, 1),
        (32, 64, 32),
        (16, 16, 64),
        (17, 33, 65),
        (15, 47, 31),
        (33, 17, 97),
        (48, 32, 30),
        (64, 63, 2),
        (70, 64, 200),
        (100, 50, 515),
    ];

    #[test]
    fn products_agree_with_float64() {
        for (m, n, k) in SIZES {
            // rows of their own, and rows that overlap as a convolution's do
            for stride in [k + 5, k.div_ceil(3)] {
                let (a, b) = (noise((m - 1) * stride + k, 1), noise(n * k, 2));
                let out = checked(m, n, k, &a, stride, &deal(&b, n, k));
                for (i, found) in out.iter().enumerate() {
                    let terms = || (0..k).map(|c| value(a[i / n * stride + c]) * value(b[i % n * k + c]));
                    let error = f64::from(*found) - f64::from(OLD) - terms().sum::<f64>();
                    let size = terms().map(f64::abs).sum::<f64>() + f64::from(OLD);
                    assert!(error.abs() <= 1e-6 * size, "{m} {n} {k} at {},{}: {error} of {size}", i / n, i % n);
                }
            }
        }
    }

    #[test]
    fn a_sum_depends_on_its_row_and_column_alone() {
        for (m, n, k) in SIZES {
            let (a, b) = (noise(m * k, 3), noise(n * k, 4));
            let panel = deal(&b, n, k);
            let whole = checked(m, n, k, &a, k, &panel);
            for (row, expected) in a.chunks(k).zip(whole.chunks(n)) {
                assert_eq!(checked(1, n, k, row, k, &panel), expected, "one row of {m} {n} {k}");
            }
            assert!(
                checked(m, n.div_ceil(2), k, &a, k, &panel)
                    .chunks(n.div_ceil(2))
                    .zip(whole.chunks(n))
                    .all(|(a, b)| b.starts_with(a))
            );
        }
    }

    #[test]
    fn what_is_not_a_number_stays_in_its_row() {
        for (m, n, k) in SIZES.into_iter().filter(|(m, ..)| *m > 1) {
            let (mut a, b) = (noise(m * k, 5), noise(n * k, 6));
            a[k..2 * k].fill(half(f32::NAN));
            let out = checked(m, n, k, &a, k, &deal(&b, n, k));
            for (i, row) in out.chunks(n).enumerate() {
                assert!(row.iter().all(|v| v.is_nan() == (i == 1)), "{m} {n} {k}, row {i}");
            }
        }
    }

    #[test]
    fn no_rows_or_columns_are_no_work() {
        let panel = deal(&[half(1.0)], 1, 1);
        for (m, n) in [(0, 1), (1, 0)] {
            let mut out = [OLD];
            // SAFETY: nothing is read or written.
            unsafe { multiply_with::<Model>(m, n, 1, panel.as_ptr(), 1, &panel, out.as_mut_ptr(), 1) };
            assert_eq!(out, [OLD]);
        }
    }
}

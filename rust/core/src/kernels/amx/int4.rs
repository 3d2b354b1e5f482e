//! A panel of 4-bit weights times up to 16 rows of 8-bit activations (see `kernels::int4`): its nibbles are made bytes block by block, and
//! all bits are those of the other CPU levels.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::super::int4::{BLOCK, OFFSET, PAGE};
use super::COLUMNS;
use super::tile::{BYTES, Hardware, ROWS, Shapes, Tiles};

/// Inputs of a block.
const INPUTS: usize = BYTES / 2;
/// Bytes from one quad of k to the next.
const QUAD: usize = COLUMNS * 4;
/// Bytes of the scales of a block.
const SCALES: usize = 2 * COLUMNS;
/// How far ahead weights are fetched.
const AHEAD: usize = 4 * BLOCK;

/// The bytes of a block `[INPUTS / 4, COLUMNS, 4]`.
#[repr(C, align(64))]
struct Unpacked([u8; INPUTS * COLUMNS]);

/// Products of a panel with the rows of `bytes` `[rows, groups, 64]` (signed), `rows` ≤ 16; `steps` `[rows, groups]` begins with each
/// group's scale, `halves` `[rows, groups]` are the sums of the bytes of its halves. Rows of the result from `rows` on are zeros.
///
/// # Safety
/// [`super::available`] must hold.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(in crate::kernels) unsafe fn panel(
    panel: &[u8],
    bytes: &[u8],
    steps: &[(f32, i32)],
    halves: &[[i32; 2]],
    rows: usize,
) -> [[f32; COLUMNS]; ROWS] {
    // SAFETY: promised by the caller.
    unsafe { panel_with::<Hardware>(panel, bytes, steps, halves, rows) }
}

/// # Safety
/// As [`panel`]; a model needs no hardware.
#[inline(always)]
unsafe fn panel_with<T: Tiles>(
    panel: &[u8],
    bytes: &[u8],
    steps: &[(f32, i32)],
    halves: &[[i32; 2]],
    rows: usize,
) -> [[f32; COLUMNS]; ROWS] {
    let groups = panel.len() / PAGE;
    assert!((1..=ROWS).contains(&rows) && bytes.len() == rows * groups * BYTES, "amx: activations");
    assert!(panel.len() == groups * PAGE && steps.len() == rows * groups && halves.len() == steps.len(), "amx: panel and steps");
    let (mut totals, mut products) = ([[0f32; COLUMNS]; ROWS], [[0f32; COLUMNS]; ROWS]);
    let (mut sums, mut unpacked) = ([[0i32; COLUMNS]; ROWS], Unpacked([0; INPUTS * COLUMNS]));
    let mut tiles = T::take();
    // tiles 0 to 3 are quarters of the columns, 4 the activations, 5 to 7 weights
    let (sum, a, b) = ((rows, BYTES), (rows, INPUTS), (INPUTS / 4, BYTES));
    // SAFETY: promised by the caller; slices hold what the shapes ask for, as asserted above.
    unsafe {
        tiles.configure(&Shapes::new([sum, sum, sum, sum, a, b, b, b]));
        for (i, block) in panel.chunks_exact(BLOCK).enumerate() {
            let (g, half) = (i / 2, i % 2);
            let (scales, nibbles) = block.split_at(SCALES);
            for (to, pair) in unpacked.0.as_chunks_mut::<{ 2 * QUAD }>().0.iter_mut().zip(nibbles.as_chunks::<QUAD>().0) {
                let (low, high) = to.split_at_mut(QUAD);
                for ((low, high), byte) in low.iter_mut().zip(high).zip(pair) {
                    (*low, *high) = (byte & 15, byte >> 4);
                }
            }
            for line in 0..BLOCK / 64 {
                _mm_prefetch::<_MM_HINT_T0>(block.as_ptr().wrapping_add(AHEAD + 64 * line).cast());
            }
            let b = unpacked.0.as_ptr();
            tiles.load::<4>(bytes.as_ptr().add(g * BYTES + half * INPUTS), groups * BYTES);
            tiles.zero::<0>();
            tiles.load::<5>(b, QUAD);
            tiles.dot_int8::<0, 4, 5>();
            tiles.zero::<1>();
            tiles.load::<6>(b.add(BYTES), QUAD);
            tiles.dot_int8::<1, 4, 6>();
            tiles.zero::<2>();
            tiles.load::<7>(b.add(2 * BYTES), QUAD);
            tiles.dot_int8::<2, 4, 7>();
            tiles.zero::<3>();
            tiles.load::<5>(b.add(3 * BYTES), QUAD);
            tiles.dot_int8::<3, 4, 5>();
            let to = sums.as_mut_ptr().cast::<u8>();
            tiles.store::<0>(to, QUAD);
            tiles.store::<1>(to.add(BYTES), QUAD);
            tiles.store::<2>(to.add(2 * BYTES), QUAD);
            tiles.store::<3>(to.add(3 * BYTES), QUAD);
            let mut by = [0f32; COLUMNS];
            for (by, bits) in by.iter_mut().zip(scales.as_chunks().0) {
                *by = f32::from_bits(u32::from(u16::from_le_bytes(*bits)) << 16);
            }
            for r in 0..rows {
                let at = r * groups + g;
                let (scale, correction) = (steps[at].0, halves[at][half].wrapping_mul(-OFFSET));
                let columns = totals[r].iter_mut().zip(&mut products[r]).zip(sums[r].iter().zip(&by));
                if half == 0 {
                    columns.for_each(|((_, product), (sum, by))| *product = sum.wrapping_add(correction) as f32 * by);
                } else {
                    columns.for_each(|((total, product), (sum, by))| {
                        *total += (*product + sum.wrapping_add(correction) as f32 * by) * scale;
                    });
                }
            }
        }
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::super::model::Model;
    use super::*;
    use crate::kernels::int4::Int4Matrix;
    use crate::kernels::int8::{Activations, Level, Quantised};

    #[test]
    fn rows_are_those_of_the_plain_kernel() {
        let noise = |n: usize, stream: u64| crate::draws::normals(stream, "test", 0, 1, n).map(|m| m.data).unwrap_or_default();
        let (n, k) = (64, 200);
        let matrix = Int4Matrix::new(&noise(n * k, 1), n, k, k, 1);
        let weights = matrix.page_bytes(0);
        for rows in [1, 3, 15, 16] {
            let x = Activations::new(&noise(rows * k, 2), rows, k);
            let ((bytes, steps), halves) = (x.rows(0, rows), x.halves_of(0, rows));
            // SAFETY: the model needs no hardware, and that is used only where it is available.
            let found = unsafe { panel_with::<Model>(weights, bytes, steps, halves, rows) };
            for (r, found) in found.iter().enumerate() {
                let expected = if r < rows { Int4Matrix::tile::<1>(Level::Plain, weights, &x, r)[0] } else { [0.0; COLUMNS] };
                assert_eq!(*found, expected, "row {r} of {rows}");
            }
            if super::super::available() {
                // SAFETY: as above.
                assert_eq!(unsafe { panel(weights, bytes, steps, halves, rows) }, found, "the hardware differs from its model");
            }
        }
    }
}

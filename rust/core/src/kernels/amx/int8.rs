//! A panel of 8-bit weights times up to 16 rows of 8-bit activations (see `kernels::int8`): the sums of every group of 64 are exact
//! in int32, then scaled and added in float32 in order, so that all bits are those of the other CPU levels.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::COLUMNS;
use super::tile::{self, BYTES, Hardware, Shapes, Tiles};

/// Rows that are multiplied at a time.
pub(in crate::kernels) const ROWS: usize = tile::ROWS;
/// Bytes from one quad of k to the next in a panel.
const QUAD: usize = COLUMNS * 4;
/// Bytes of a group in a panel.
const PAGE: usize = COLUMNS * BYTES;
/// How far ahead weights are fetched: the hardware does not follow the loads of tiles from memory.
const AHEAD: usize = 2 * PAGE;

/// Products of a panel `[groups, 16, 64, 4]` (unsigned) with the rows of `bytes` `[rows, groups, 64]` (signed), `rows` ≤ 16; `steps`
/// `[rows, groups]` holds each group's scale and what is added to its sum before. Rows of the result from `rows` on are zeros.
///
/// # Safety
/// [`super::available`] must hold.
#[target_feature(enable = "avx512f")]
pub(in crate::kernels) unsafe fn panel(panel: &[u8], bytes: &[u8], steps: &[(f32, i32)], rows: usize) -> [[f32; COLUMNS]; ROWS] {
    // SAFETY: promised by the caller.
    unsafe { panel_with::<Hardware>(panel, bytes, steps, rows) }
}

/// # Safety
/// As [`panel`]; a model needs no hardware.
#[inline(always)]
pub(super) unsafe fn panel_with<T: Tiles>(
    panel: &[u8],
    bytes: &[u8],
    steps: &[(f32, i32)],
    rows: usize,
) -> [[f32; COLUMNS]; ROWS] {
    let groups = panel.len() / PAGE;
    assert!((1..=ROWS).contains(&rows) && bytes.len() == rows * groups * BYTES, "amx: activations");
    assert!(panel.len() == groups * PAGE && steps.len() == rows * groups, "amx: panel and steps");
    let mut totals = [[0f32; COLUMNS]; ROWS];
    let mut sums = [[0i32; COLUMNS]; ROWS];
    let mut tiles = T::take();
    // tiles 0 to 3 are quarters of the columns, 4 the activations, 5 to 7 weights
    let (short, whole) = ((rows, BYTES), (tile::ROWS, BYTES));
    // SAFETY: promised by the caller; slices hold what the shapes ask for, as asserted above.
    unsafe {
        tiles.configure(&Shapes::new([short, short, short, short, short, whole, whole, whole]));
        for (g, page) in panel.chunks_exact(PAGE).enumerate() {
            let b = page.as_ptr();
            tiles.load::<4>(bytes.as_ptr().add(g * BYTES), groups * BYTES);
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
            for line in 0..PAGE / 64 {
                _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD + 64 * line).cast());
            }
            let to = sums.as_mut_ptr().cast::<u8>();
            tiles.store::<0>(to, QUAD);
            tiles.store::<1>(to.add(BYTES), QUAD);
            tiles.store::<2>(to.add(2 * BYTES), QUAD);
            tiles.store::<3>(to.add(3 * BYTES), QUAD);
            for (r, (totals, sums)) in totals.iter_mut().zip(&sums).enumerate().take(rows) {
                let (scale, correction) = steps[r * groups + g];
                for (total, sum) in totals.iter_mut().zip(sums) {
                    *total += (*sum + correction) as f32 * scale;
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

    /// What the groups of a row add up to, in wide integers.
    fn truth(panel: &[u8], bytes: &[u8], steps: &[(f32, i32)], column: usize) -> f32 {
        let mut total = 0f32;
        for ((page, bytes), (scale, correction)) in panel.chunks(PAGE).zip(bytes.chunks(BYTES)).zip(steps) {
            let product = |k: usize| i64::from(bytes[k] as i8) * i64::from(page[k / 4 * QUAD + 4 * column + k % 4]);
            total += ((0..BYTES).map(product).sum::<i64>() + i64::from(*correction)) as f32 * scale;
        }
        total
    }

    #[test]
    fn rows_are_exact_sums_scaled_in_order() {
        let mut state = 1u32;
        let mut next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for (rows, groups) in [(1, 1), (3, 2), (15, 5), (16, 3)] {
            for extreme in [false, true] {
                let panel: Vec<u8> = (0..groups * PAGE).map(|_| if extreme { 255 } else { next() }).collect();
                let bytes: Vec<u8> = (0..rows * groups * BYTES).map(|_| if extreme { 0x80 } else { next() }).collect();
                let steps: Vec<(f32, i32)> =
                    (0..rows * groups).map(|_| (f32::from(next()) / 7.0, i32::from(next()) * -300)).collect();
                // SAFETY: the model needs no hardware, and that is used only where it is available.
                let found = unsafe { panel_with::<Model>(&panel, &bytes, &steps, rows) };
                for (i, found) in found.as_flattened().iter().enumerate().take(rows * COLUMNS) {
                    let (r, j) = (i / COLUMNS, i % COLUMNS);
                    let expected = truth(&panel, &bytes[r * groups * BYTES..], &steps[r * groups..][..groups], j);
                    assert_eq!(*found, expected, "{rows} rows, {groups} groups, at {r},{j}");
                }
                assert!(found[rows..].as_flattened().iter().all(|v| *v == 0.0));
                if super::super::available() {
                    // SAFETY: as above.
                    let hardware = unsafe { super::panel(&panel, &bytes, &steps, rows) };
                    assert_eq!(hardware, found, "the hardware differs from its model");
                }
            }
        }
    }
}

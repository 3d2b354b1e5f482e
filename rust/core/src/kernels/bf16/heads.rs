//! Keys and values of attention heads in memory that is kept, dealt by whoever computed some of their rows: a strip of rows at a
//! time, in panels as [`Bf16Matrix`](super::Bf16Matrix) has them.

use std::mem::MaybeUninit;

use super::round::{round_pairs, rounder};
use super::{COLUMNS, DEPTH, PAIR, STRIP, View};
use crate::kernels::panels::transpose;
use crate::kernels::pointer::Part;

/// Numbers of one head's `s` keys of `size` channels.
pub(in crate::kernels) fn keys_len(s: usize, size: usize) -> usize {
    s.div_ceil(COLUMNS) * size.next_multiple_of(DEPTH) * COLUMNS
}

/// Numbers of one head's `s` values of `size` channels.
pub(in crate::kernels) fn values_len(s: usize, size: usize) -> usize {
    size.div_ceil(COLUMNS) * s.next_multiple_of(DEPTH) * COLUMNS
}

/// One head's keys, of [`keys_len`] numbers.
pub(in crate::kernels) fn keys(data: &[u16], s: usize, size: usize) -> View<'_> {
    View { data, n: s, k: size }
}

/// One head's values, of [`values_len`] numbers.
pub(in crate::kernels) fn values(data: &[u16], s: usize, size: usize) -> View<'_> {
    View { data, n: size, k: s }
}

/// Rounds `rows` keys from row `first` on, a multiple of 16, into one head's panels `to`; key i is the `size` numbers from
/// `from[i * stride]` on.
///
/// # Safety
/// Nobody else may use these keys, up to the next multiple of 16, meanwhile.
pub(in crate::kernels) unsafe fn deal_keys(
    to: Part<'_, u16>,
    first: usize,
    rows: usize,
    size: usize,
    from: &[f32],
    stride: usize,
) {
    assert!(first.is_multiple_of(STRIP), "bf16: a strip of keys begins at a multiple of {STRIP}");
    let (round, panel) = (rounder(), size.next_multiple_of(DEPTH) * COLUMNS);
    // a pair of numbers has the size of a float32, and is dealt as one
    let (mut pairs, mut dealt) = ([0f32; STRIP * DEPTH / PAIR], [MaybeUninit::uninit(); DEPTH / PAIR * COLUMNS]);
    for start in (0..rows).step_by(STRIP) {
        let (lines, key) = (STRIP.min(rows - start), first + start);
        for c in (0..size).step_by(DEPTH) {
            let steps = DEPTH.min(size - c);
            if steps < DEPTH {
                pairs.fill(0.0);
            }
            // SAFETY: the same bytes; u16 needs no more alignment than f32, and takes any value.
            let numbers = unsafe { std::slice::from_raw_parts_mut(pairs.as_mut_ptr().cast::<u16>(), STRIP * DEPTH) };
            for (line, to) in numbers.chunks_exact_mut(DEPTH).enumerate().take(lines) {
                round(&from[(start + line) * stride + c..][..steps], &mut to[..steps]);
            }
            transpose(&pairs, DEPTH / PAIR, lines, DEPTH / PAIR, &mut dealt);
            let at = key / COLUMNS * panel + c * COLUMNS + key % COLUMNS * PAIR;
            for (i, row) in dealt.chunks_exact(COLUMNS).enumerate() {
                // SAFETY: `transpose` has written the first sixteen of every row; these columns belong to the caller.
                unsafe {
                    let row = std::slice::from_raw_parts(row.as_ptr().cast::<u16>(), STRIP * PAIR);
                    to.write(at + i * COLUMNS * PAIR, STRIP * PAIR).copy_from_slice(row);
                }
            }
        }
    }
}

/// Rounds `rows` values from row `first` on, an even number, into the panels `to` of one head with `s` values; value i is the `size`
/// numbers from `from[i * stride]` on. Whoever has the last one also writes the zeros behind it.
///
/// # Safety
/// Nobody else may use these values meanwhile.
pub(in crate::kernels) unsafe fn deal_values(
    to: Part<'_, u16>,
    s: usize,
    first: usize,
    rows: usize,
    size: usize,
    from: &[f32],
    stride: usize,
) {
    assert!(first.is_multiple_of(PAIR), "bf16: a strip of values begins at an even one");
    let padded = s.next_multiple_of(DEPTH);
    let end = if first + rows == s { padded } else { first + rows };
    for (p, c) in (0..size).step_by(COLUMNS).enumerate() {
        let columns = COLUMNS.min(size - c);
        // SAFETY: these rows of the panel belong to the caller.
        let panel = unsafe { to.write((p * padded + first) * COLUMNS, (end - first) * COLUMNS) };
        let row = |i: usize| (i < rows).then(|| &from[i * stride + c..][..columns]);
        for (i, to) in panel.as_chunks_mut::<PAIR>().0.chunks_exact_mut(COLUMNS).enumerate() {
            match row(PAIR * i) {
                Some(even) => {
                    round_pairs(even, row(PAIR * i + 1), &mut to[..columns]);
                    to[columns..].fill([0; PAIR]);
                }
                None => to.fill([0; PAIR]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Bf16Matrix;
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    #[test]
    fn strips_give_the_panels_of_a_matrix() {
        at_every_level(|| {
            for (s, size, strip) in [(1, 1, 16), (37, 8, 16), (64, 64, 48), (130, 70, 32), (201, 33, 96)] {
                let stride = size + 3;
                let x = crate::draws::normals(1, "test", 0, s, stride).map(|m| m.data).unwrap_or_default();
                let (mut k, mut v) = (vec![0u16; keys_len(s, size)], vec![0xffffu16; values_len(s, size)]);
                let (to_k, to_v) = (Part::new(&mut k), Part::new(&mut v));
                for first in (0..s).step_by(strip) {
                    let rows = strip.min(s - first);
                    // SAFETY: nobody else uses them.
                    unsafe {
                        deal_keys(to_k, first, rows, size, &x[first * stride..], stride);
                        deal_values(to_v, s, first, rows, size, &x[first * stride..], stride);
                    }
                }
                assert!(k[..] == Bf16Matrix::of_rows(&x, s, size, stride).data[..], "keys {s} {size}");
                assert!(v[..] == Bf16Matrix::of_columns(&x, size, s, stride).data[..], "values {s} {size}");
            }
        });
    }
}

//! Strips in float32: factors as they are, keys and values in panels.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::format::{Format, Head, Task};
use crate::kernels::Panels;
use crate::kernels::attention::BLOCK;
use crate::kernels::norm::softmax_row;
use crate::kernels::panels::{multiply_dealt, transpose};
use crate::kernels::pointer::Part;
use crate::kernels::tiles::WIDTH;

/// Keys and channels that are dealt at a time.
const STEP: usize = 16;

thread_local! {
    /// A task's scores, kept, because every page of a fresh allocation costs a fault.
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl Format for f32 {
    type Matrix = Panels;
    const ZERO: Self = 0.0;
    const SLACK: usize = 0;
    const QUERIES: usize = BLOCK;
    const COLUMNS: usize = WIDTH;

    fn put(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }

    fn dims(weight: &Panels) -> (usize, usize) {
        weight.dims()
    }

    unsafe fn multiply(
        weight: &Panels,
        panels: Range<usize>,
        m: usize,
        a: *const Self,
        a_stride: usize,
        out: *mut f32,
        out_stride: usize,
    ) {
        let out = out.wrapping_sub(panels.start * WIDTH);
        // SAFETY: promised by the caller; who has panels has the tiles.
        unsafe { weight.multiply(panels, m, a, a_stride, out, out_stride) };
    }

    fn keys_len(s: usize, size: usize) -> usize {
        s.next_multiple_of(WIDTH) * size
    }

    fn values_len(s: usize, size: usize) -> usize {
        size.next_multiple_of(WIDTH) * s
    }

    unsafe fn deal_keys(to: Part<'_, Self>, first: usize, rows: usize, size: usize, from: &[f32], stride: usize) {
        assert!(first.is_multiple_of(STEP), "panels: a strip of keys begins at a multiple of {STEP}");
        let mut dealt = [MaybeUninit::uninit(); STEP * WIDTH];
        for start in (0..rows).step_by(STEP) {
            let (lines, key) = (STEP.min(rows - start), first + start);
            for c in (0..size).step_by(STEP) {
                let steps = STEP.min(size - c);
                transpose(&from[start * stride + c..], stride, lines, steps, &mut dealt);
                let at = key / WIDTH * WIDTH * size + c * WIDTH + key % WIDTH;
                for (i, row) in dealt.chunks_exact(WIDTH).enumerate().take(steps) {
                    // SAFETY: `transpose` has written the first sixteen of these rows; the columns belong to the caller.
                    unsafe {
                        let row = std::slice::from_raw_parts(row.as_ptr().cast::<f32>(), STEP);
                        to.write(at + i * WIDTH, STEP).copy_from_slice(row);
                    }
                }
            }
        }
    }

    unsafe fn deal_values(to: Part<'_, Self>, s: usize, first: usize, rows: usize, size: usize, from: &[f32], stride: usize) {
        for (p, c) in (0..size).step_by(WIDTH).enumerate() {
            let columns = WIDTH.min(size - c);
            // SAFETY: these rows of the panel belong to the caller.
            let panel = unsafe { to.write((p * s + first) * WIDTH, rows * WIDTH) };
            for (i, to) in panel.chunks_exact_mut(WIDTH).enumerate() {
                to[..columns].copy_from_slice(&from[i * stride + c..][..columns]);
                to[columns..].fill(0.0);
            }
        }
    }

    fn attend(head: Head<'_, Self>, task: Task<'_, Self>, out: &mut [f32]) {
        let (Head { s, size, keys, values }, Task { rows, stride, scale, q, .. }) = (head, task);
        assert!(task.positions.is_none(), "transformer: relative positions have no strips in float32");
        assert!(q.len() >= (rows - 1) * stride + size && out.len() == rows * size, "transformer: a task's sizes");
        SCORES.with_borrow_mut(|scores| {
            scores.clear();
            scores.resize(rows * s, 0.0);
            let scores = scores.as_mut_slice();
            // SAFETY: the rows lie inside queries, scores and output; who has panels has the tiles.
            unsafe {
                let panels = 0..s.div_ceil(WIDTH);
                multiply_dealt(keys, s, size, panels, rows, q.as_ptr(), stride, scores.as_mut_ptr(), s);
                for row in scores.chunks_exact_mut(s) {
                    row.iter_mut().for_each(|v| *v *= scale);
                    softmax_row(row);
                }
                let panels = 0..size.div_ceil(WIDTH);
                multiply_dealt(values, size, s, panels, rows, scores.as_ptr(), s, out.as_mut_ptr(), size);
            }
        });
    }
}

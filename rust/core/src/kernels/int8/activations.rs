//! Activations of 8 bits: int8 in groups of [`GROUP`] with a scale each.

use rayon::prelude::*;

use super::super::pointer::Cells;
use super::super::simd::dispatch;
use super::{GROUP, HALF, OFFSET, QUAD, SMALLEST, STEPS, nearest};
use crate::threads::each;

dispatch!(
    /// Quantises a group: its bytes (int8), its scale (not finite where a value is not), and the sums of the bytes of its halves.
    fn quantise(x: &[f32; GROUP], to: &mut [u8; GROUP]) -> (f32, [i32; 2]);
    fma => {
        let (mut largest, mut faults) = ([0f32; 16], [0f32; 16]);
        for part in x.as_chunks::<16>().0 {
            for ((m, f), v) in largest.iter_mut().zip(&mut faults).zip(part) {
                *m = if v.abs() > *m { v.abs() } else { *m };
                *f += *v * 0.0;
            }
        }
        let largest = largest.iter().fold(0f32, |a, b| a.max(*b));
        let fault: f32 = faults.iter().sum();
        let (scale, inverse) = if largest < SMALLEST { (0.0, 0.0) } else { (largest / STEPS, STEPS / largest) };
        let mut halves = [0; 2];
        for ((to, x), half) in to.chunks_exact_mut(HALF).zip(x.chunks_exact(HALF)).zip(&mut halves) {
            let mut sums = [0i32; 16];
            for (to, part) in to.as_chunks_mut::<16>().0.iter_mut().zip(x.as_chunks::<16>().0) {
                for ((sum, to), v) in sums.iter_mut().zip(to).zip(part) {
                    let n = nearest(*v * inverse);
                    *to = n as u8;
                    *sum = sum.wrapping_add(n);
                }
            }
            *half = sums.iter().fold(0, |a: i32, b| a.wrapping_add(*b));
        }
        (scale + fault, halves)
    }
);

/// Quantises a row: its bytes, and of every group the scale and the correction, and the sums of its halves.
fn row(x: &[f32], bytes: &mut [u8], steps: &mut [(f32, i32)], halves: &mut [[i32; 2]]) {
    for (((x, to), step), halves) in x.chunks(GROUP).zip(bytes.as_chunks_mut().0).zip(steps).zip(halves) {
        let mut group = [0.0; GROUP];
        group[..x.len()].copy_from_slice(x);
        let scale;
        (scale, *halves) = quantise(&group, to);
        *step = (scale, halves[0].wrapping_add(halves[1]).wrapping_mul(-i32::from(OFFSET)));
    }
}

/// Quantised activations of m rows; every row is filled up with zeros to whole groups.
#[derive(Debug)]
pub struct Activations {
    /// Two's complement, `[m, groups, GROUP]`.
    bytes: Cells<u8>,
    /// Scale, and −128 Σ bytes (what the offset of the weights adds to a sum, taken off), `[m, groups]`.
    steps: Cells<(f32, i32)>,
    /// Σ bytes of the halves of a group, `[m, groups]`.
    halves: Cells<[i32; 2]>,
    /// Groups of a row.
    pub(in crate::kernels) groups: usize,
}

impl Activations {
    /// Quantises `a` `[m, k]`.
    pub(in crate::kernels) fn new(a: &[f32], m: usize, k: usize) -> Self {
        let x = Self::room(m, k);
        let set = |(i, row): (usize, &[f32])| {
            // SAFETY: every row is written once, and read after all of them.
            unsafe { x.set(i, row) }
        };
        if m == 1 {
            set((0, a));
        } else {
            each(a.par_chunks(k).enumerate().with_min_len(8), set);
        }
        x
    }

    /// Room for `m` rows of `k` values.
    pub(crate) fn room(m: usize, k: usize) -> Self {
        let groups = k.div_ceil(GROUP);
        let (bytes, steps) = (Cells::new(vec![0; m * groups * GROUP]), Cells::new(vec![(0.0, 0); m * groups]));
        Self { bytes, steps, halves: Cells::new(vec![[0; 2]; m * groups]), groups }
    }

    /// Quantises row `i`.
    ///
    /// # Safety
    /// Nobody else may use this row meanwhile.
    pub(crate) unsafe fn set(&self, i: usize, x: &[f32]) {
        assert_eq!(x.len().div_ceil(GROUP), self.groups, "int8: row size");
        // SAFETY: promised by the caller.
        let (bytes, steps, halves) = unsafe {
            (
                self.bytes.write(i * self.groups * GROUP, self.groups * GROUP),
                self.steps.write(i * self.groups, self.groups),
                self.halves.write(i * self.groups, self.groups),
            )
        };
        row(x, bytes, steps, halves);
    }

    /// Sums of the bytes of the halves of group `g` of `row`.
    #[inline(always)]
    pub(in crate::kernels) fn halves(&self, row: usize, g: usize) -> [i32; 2] {
        // SAFETY: a product begins after its rows are set: `set` asks for that.
        unsafe { self.halves.read(row * self.groups + g, 1)[0] }
    }

    /// The same of all groups of `count` rows from `first` on, `[count, groups]`.
    #[cfg(target_arch = "x86_64")]
    pub(in crate::kernels) fn halves_of(&self, first: usize, count: usize) -> &[[i32; 2]] {
        // SAFETY: a product begins after its rows are set: `set` asks for that.
        unsafe { self.halves.read(first * self.groups, count * self.groups) }
    }

    /// Group `g` of `row`: quads of bytes, scale and correction.
    #[inline(always)]
    pub(in crate::kernels) fn group(&self, row: usize, g: usize) -> (&[[u8; QUAD]], f32, i32) {
        let at = row * self.groups + g;
        // SAFETY: a product begins after its rows are set: `set` asks for that.
        let (bytes, step) = unsafe { (self.bytes.read(at * GROUP, GROUP), self.steps.read(at, 1)[0]) };
        (bytes.as_chunks().0, step.0, step.1)
    }

    /// `count` rows from `first` on: bytes `[count, groups, GROUP]`, and scales and corrections `[count, groups]`.
    #[cfg(target_arch = "x86_64")]
    pub(in crate::kernels) fn rows(&self, first: usize, count: usize) -> (&[u8], &[(f32, i32)]) {
        let (at, len) = (first * self.groups, count * self.groups);
        // SAFETY: a product begins after its rows are set: `set` asks for that.
        unsafe { (self.bytes.read(at * GROUP, len * GROUP), self.steps.read(at, len)) }
    }
}

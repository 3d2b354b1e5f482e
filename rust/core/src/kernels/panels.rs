//! Weights dealt into panels of 16 columns, and the product of a few rows with one panel.
//!
//! The inner loop of kernels that a plain matrix product does not fit: rows that are not evenly spaced in memory (`conv2d`),
//! or products too small to share among threads one at a time (`lstm`). A row is summed in the same order in any company.

use super::maths::Fma;

/// Columns of a panel.
pub(super) const WIDTH: usize = 16;
/// Rows that go through a panel together.
pub(super) const ROWS: usize = 6;

/// A matrix as `[columns / 16, depth, 16]`, the last panel filled up with zeros.
#[derive(Clone, Debug)]
pub struct Panels {
    data: Vec<f32>,
    columns: usize,
    depth: usize,
}

impl Panels {
    /// Deals `weight` `[columns, depth]`, row-major.
    pub fn new(weight: &[f32], columns: usize, depth: usize) -> Self {
        assert_eq!(weight.len(), columns * depth, "panels: weight size");
        let mut data = vec![0.0; columns.div_ceil(WIDTH) * depth * WIDTH];
        for n in 0..columns {
            for k in 0..depth {
                data[(n / WIDTH * depth + k) * WIDTH + n % WIDTH] = weight[n * depth + k];
            }
        }
        Self { data, columns, depth }
    }

    /// Columns of the matrix.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Rows of the matrix.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Number of panels.
    pub(super) fn count(&self) -> usize {
        self.columns.div_ceil(WIDTH)
    }

    /// Panel `p`, `[depth, 16]`.
    pub(super) fn panel(&self, p: usize) -> &[f32] {
        &self.data[p * self.depth * WIDTH..][..self.depth * WIDTH]
    }
}

/// `sums[r] += rows[r] · panel` for `R` rows of `panel.len() / 16` numbers.
#[inline(always)]
pub(super) fn accumulate<const R: usize>(fma: impl Fma, panel: &[f32], rows: [&[f32]; R], sums: &mut [[f32; WIDTH]; R]) {
    let (panel, _) = panel.as_chunks::<WIDTH>();
    let rows = rows.map(|row| &row[..panel.len()]);
    let mut acc = *sums;
    for (k, w) in panel.iter().enumerate() {
        for r in 0..R {
            let a = rows[r][k];
            for l in 0..WIDTH {
                acc[r][l] = fma(a, w[l], acc[r][l]);
            }
        }
    }
    *sums = acc;
}

//! Mel filter banks: bins of a spectrum → bands.
//!
//! A [`FilterBank`] keeps only the span of each band where its weights are not zero, because a triangle covers a few of the
//! bins. [`FilterBank::slaney`] builds librosa's default filters (Slaney's scale and area; `librosa.filters.mel`, 0.11);
//! other filters (Kaldi's, a checkpoint's) come in as a matrix.

use crate::{Error, Matrix, Result};

/// Filters `[bands, bins]`, stored band by band without their zeros.
#[derive(Clone, Debug)]
pub struct FilterBank {
    bins: usize,
    bands: Vec<Band>,
}

#[derive(Clone, Debug)]
struct Band {
    start: usize,
    weights: Vec<f32>,
}

impl FilterBank {
    /// The filters of a dense matrix `[bands, bins]`.
    pub fn new(filters: &Matrix) -> Self {
        let bands = (0..filters.rows).map(|band| {
            let row = filters.row(band);
            let start = row.iter().position(|&w| w != 0.0).unwrap_or(0);
            let end = row.iter().rposition(|&w| w != 0.0).map_or(0, |last| last + 1);
            Band { start, weights: row[start..end.max(start)].to_vec() }
        });
        Self { bins: filters.cols, bands: bands.collect() }
    }

    /// `bands` triangles from 0 to `highest` Hz for spectra of `size` samples at `rate` Hz, on Slaney's mel scale and of
    /// Slaney's unit area, rounded to float32.
    pub fn slaney(rate: f64, size: usize, bands: usize, highest: f64) -> Self {
        Self::new(&slaney(rate, size, bands, highest))
    }

    /// Number of bands.
    pub fn bands(&self) -> usize {
        self.bands.len()
    }

    /// Writes the weighted sums of `spectrum` `[bins]` to `out` `[bands]`, summed in float64.
    ///
    /// # Errors
    /// [`Error::Argument`] when the lengths do not fit the filters.
    pub fn apply(&self, spectrum: &[f64], out: &mut [f32]) -> Result<()> {
        if spectrum.len() != self.bins || out.len() != self.bands.len() {
            return Err(Error::argument(format!(
                "filter bank: expected {} bins and {} bands, got {} and {}",
                self.bins,
                self.bands.len(),
                spectrum.len(),
                out.len()
            )));
        }
        for (value, band) in out.iter_mut().zip(&self.bands) {
            *value = weighted(&band.weights, &spectrum[band.start..][..band.weights.len()]) as f32;
        }
        Ok(())
    }
}

/// Σ weights · values in eight lanes, which the compiler vectorises.
fn weighted(weights: &[f32], values: &[f64]) -> f64 {
    let mut lanes = [0.0f64; 8];
    let (w, v) = (weights.chunks_exact(8), values.chunks_exact(8));
    let rest: f64 = w.remainder().iter().zip(v.remainder()).map(|(&w, &v)| f64::from(w) * v).sum();
    for (w, v) in w.zip(v) {
        for lane in 0..8 {
            lanes[lane] += f64::from(w[lane]) * v[lane];
        }
    }
    lanes.iter().sum::<f64>() + rest
}

/// The dense matrix `[bands, size / 2 + 1]` of [`FilterBank::slaney`]: the scale is linear up to 1000 Hz (15 mel), then
/// 27 steps for each factor of 6.4.
pub fn slaney(rate: f64, size: usize, bands: usize, highest: f64) -> Matrix {
    let step = 6.4f64.ln() / 27.0;
    let hz_per_mel = 200.0 / 3.0;
    let top = if highest < 1000.0 { highest / hz_per_mel } else { 15.0 + (highest / 1000.0).ln() / step };
    let mel_step = top / (bands + 1) as f64;
    let hz = |edge: usize| {
        let mel = if edge == bands + 1 { top } else { edge as f64 * mel_step };
        if mel < 15.0 { mel * hz_per_mel } else { 1000.0 * (step * (mel - 15.0)).exp() }
    };
    let mut filters = Matrix::zeros(bands, size / 2 + 1);
    for band in 0..bands {
        let (left, centre, right) = (hz(band), hz(band + 1), hz(band + 2));
        let height = 2.0 / (right - left);
        for (bin, weight) in filters.row_mut(band).iter_mut().enumerate() {
            let frequency = bin as f64 * (rate / size as f64);
            let shape = ((frequency - left) / (centre - left)).min((right - frequency) / (right - centre)).max(0.0);
            // Rounded before and after it is scaled, as librosa does.
            *weight = (f64::from(shape as f32) * height) as f32;
        }
    }
    filters
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SLANEY_NONZERO: usize = 1252;
    const SLANEY: [(usize, usize, f32); 14] = [
        (0, 1, 9.013824e-03),
        (0, 3, 2.666536e-02),
        (10, 30, 1.8805702e-03),
        (10, 33, 2.4784788e-02),
        (33, 102, 3.495421e-03),
        (33, 106, 1.6257232e-02),
        (34, 106, 3.3942608e-03),
        (34, 110, 1.6311554e-02),
        (35, 110, 2.6246747e-03),
        (35, 114, 1.6959269e-02),
        (60, 286, 1.8035638e-04),
        (60, 297, 6.9531705e-03),
        (79, 593, 4.6140944e-05),
        (79, 616, 3.3656927e-03),
    ];

    #[test]
    fn slaney_filters_have_librosa_values() {
        // librosa.filters.mel(sr=24000, n_fft=1920, n_mels=80, fmin=0, fmax=8000)[band, bin]
        let filters = slaney(24_000.0, 1920, 80, 8000.0);
        assert_eq!((filters.rows, filters.cols), (80, 961));
        for (band, bin, expected) in SLANEY {
            let found = filters.row(band)[bin];
            assert!((found - expected).abs() <= expected * 2e-7, "band {band} bin {bin}: {found} against {expected}");
        }
        assert_eq!(filters.row(79)[640], 0.0);
        assert_eq!(filters.data.iter().filter(|&&w| w != 0.0).count(), SLANEY_NONZERO);
    }

    #[test]
    fn a_bank_equals_its_dense_matrix() {
        let dense = slaney(16_000.0, 400, 40, 8000.0);
        let bank = FilterBank::slaney(16_000.0, 400, 40, 8000.0);
        let spectrum: Vec<f64> = (0..201).map(|i| 1.0 + (i as f64 * 0.7).sin()).collect();
        let mut out = vec![0.0; bank.bands()];
        bank.apply(&spectrum, &mut out).unwrap();
        for band in 0..40 {
            let sum: f64 = dense.row(band).iter().zip(&spectrum).map(|(&w, &s)| f64::from(w) * s).sum();
            assert!((f64::from(out[band]) - sum).abs() < 1e-6 * sum, "band {band}");
        }
        assert!(bank.apply(&spectrum[1..], &mut out).unwrap_err().to_string().contains("201 bins"));
    }

    #[test]
    fn a_band_without_weights_is_silent() {
        let bank = FilterBank::new(&Matrix::new(2, 3, vec![0.0, 0.0, 0.0, 0.0, 2.0, 0.0]).unwrap());
        let mut out = [9.0; 2];
        bank.apply(&[1.0, 1.0, 1.0], &mut out).unwrap();
        assert_eq!(out, [0.0, 2.0]);
    }
}

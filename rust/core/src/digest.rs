//! Digests: which numbers a network was given when it was loaded, so that two sides can show that they hold the same weights.
//!
//! A [`Checkpoint`](crate::Checkpoint) that keeps them notes every tensor that it hands out, by its full name and as it was
//! used: in float32, weight norm folded. `parity/digests.py` computes the same in Python.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use crate::threads::run;
use sha2::{Digest as _, Sha256};

/// Values that are summed together; the partial sums are then added in order, so that the sums do not depend on threads.
const PIECE: usize = 1 << 16;
/// Step of the weights of [`Figures::weighted`]: the golden ratio's fraction, which repeats itself least.
const STEP: f64 = 0.618_033_988_749_894_9;

/// Figures over the values `v` of one tensor in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// SHA-256 of the values as little-endian float32, in hexadecimal.
    pub sha256: String,
    /// Σ v
    pub sum: f64,
    /// Σ v²
    pub squares: f64,
    /// Σ v_i (fraction(0.618… i) − 0.5): another order of the same values gives another number.
    pub weighted: f64,
}

impl Figures {
    /// Of `values`.
    pub fn of(values: &[f32]) -> Self {
        let (sha256, [sum, squares, weighted]) = run(|| rayon::join(|| sha256(values), || sums(values)));
        Self { sha256, sum, squares, weighted }
    }
}

fn sha256(values: &[f32]) -> String {
    let (mut hash, mut bytes) = (Sha256::new(), Vec::new());
    for piece in values.chunks(PIECE) {
        bytes.clear();
        bytes.extend(piece.iter().flat_map(|v| v.to_le_bytes()));
        hash.update(&bytes);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sums(values: &[f32]) -> [f64; 3] {
    let piece = |(piece, values): (usize, &[f32])| {
        let mut sums = [0f64; 3];
        for (i, v) in values.iter().enumerate() {
            let (v, weight) = (f64::from(*v), ((piece * PIECE + i) as f64 * STEP).fract() - 0.5);
            sums = [sums[0] + v, sums[1] + v * v, sums[2] + v * weight];
        }
        sums
    };
    let pieces: Vec<[f64; 3]> = run(|| values.par_chunks(PIECE).enumerate().map(piece).collect());
    pieces.iter().fold([0.0; 3], |all, sums| [all[0] + sums[0], all[1] + sums[1], all[2] + sums[2]])
}

/// What became of one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Of the values that were handed out; `None` for a tensor that the model holds and that no computation reads.
    pub figures: Option<Figures>,
}

/// The entries of one checkpoint by the tensors' full names, shared by the views of its files.
#[derive(Clone, Debug, Default)]
pub struct Digests(Arc<Mutex<BTreeMap<String, Entry>>>);

impl Digests {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `values` were handed out.
    pub(crate) fn used(&self, name: &str, shape: &[usize], values: &[f32]) {
        let figures = Some(Figures::of(values));
        self.lock().insert(name.to_owned(), Entry { shape: shape.to_vec(), figures });
    }

    /// Notes that a tensor is known and not read; another network may have read it.
    pub(crate) fn unused(&self, name: &str, shape: &[usize]) {
        self.lock().entry(name.to_owned()).or_insert_with(|| Entry { shape: shape.to_vec(), figures: None });
    }

    /// All entries so far.
    pub fn all(&self) -> BTreeMap<String, Entry> {
        self.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_their_definitions() {
        let values: Vec<f32> = (0..200_001).map(|i| ((i * 7919) % 1013) as f32 / 64.0 - 7.0).collect();
        let found = Figures::of(&values);
        let weight = |i: usize| (i as f64 * 0.6180339887498949).fract() - 0.5;
        let exact = |f: &dyn Fn(usize, f64) -> f64| values.iter().enumerate().map(|(i, v)| f(i, f64::from(*v))).sum::<f64>();
        // sums of dyadic numbers are exact in any order
        assert_eq!((found.sum, found.squares), (exact(&|_, v| v), exact(&|_, v| v * v)));
        assert!((found.weighted - exact(&|i, v| v * weight(i))).abs() < 1e-7);
        // what other programs give for the four bytes "abcd" and for none
        let abcd = f32::from_le_bytes(*b"abcd");
        assert_eq!(Figures::of(&[abcd]).sha256, "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589");
        assert_eq!(Figures::of(&[]).sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn another_order_has_other_figures() {
        let (a, b) = (Figures::of(&[1.0, 2.0, 3.0]), Figures::of(&[2.0, 1.0, 3.0]));
        assert_eq!((a.sum, a.squares), (b.sum, b.squares));
        assert!((a.weighted - b.weighted).abs() > 0.1 && a.sha256 != b.sha256);
    }

    #[test]
    fn a_tensor_that_one_network_reads_is_used() {
        let digests = Digests::default();
        digests.unused("a", &[1]);
        assert!(digests.all()["a"].figures.is_none());
        digests.used("a", &[1], &[2.0]);
        digests.unused("a", &[1]);
        assert!(digests.all()["a"].figures.as_ref().is_some_and(|figures| figures.sum == 2.0));
    }
}

//! Perth's decoder: three stacks listen to the levels at three speeds and vote.
//!
//! Levels `[frames, 128]` and which frames are loud → one number: near 1 where the mark is, near 0 where it is not. A stack's two
//! outputs, averaged over the masked frames, are its attention and its verdict; the verdicts are averaged with the softmax
//! of the attentions. Source: resemble-perth 1.0.1, `perth_net_implicit/model/decoder.py`.

use super::convolutions::Stack;
use super::spectrogram::{BAND, Levels};
use crate::torch_archive::Value;
use crate::{Matrix, Observer, Result};

/// Names of the stacks, and how much longer than the clip each one hears it.
const BRANCHES: [(&str, f64); 3] = [("slow_layers", 1.25), ("normal_layers", 1.0), ("fast_layers", 0.75)];

#[derive(Debug)]
pub(super) struct Decoder {
    branches: Vec<(Stack, f64)>,
}

impl Decoder {
    pub(super) fn load(model: &Value) -> Result<Self> {
        let branch = |(name, speed)| Ok((Stack::load(model, &format!("decoder.{name}"), BAND, 2)?, speed));
        Ok(Self { branches: BRANCHES.into_iter().map(branch).collect::<Result<_>>()? })
    }

    /// The confidence, not limited to `[0, 1]`; `None` where a branch has no frame that is loud enough.
    pub(super) fn forward(&self, levels: &Levels, observer: &dyn Observer) -> Result<Option<f64>> {
        let mask = levels.mask(None);
        let mut votes = Vec::with_capacity(self.branches.len());
        for (part, (stack, speed)) in self.branches.iter().enumerate() {
            let frames = (levels.band.rows as f64 * speed) as usize;
            let out = stack.forward(&stretch(&levels.band, frames), observer, (part, self.branches.len()))?; // [frames, 2]
            let (mut attention, mut verdict, mut count) = (0f64, 0f64, 0usize);
            for t in (0..frames).filter(|t| mask[nearest(*t, mask.len(), frames)]) {
                attention += f64::from(out.row(t)[0]);
                verdict += f64::from(out.row(t)[1]);
                count += 1;
            }
            if count == 0 {
                return Ok(None);
            }
            votes.push((attention / count as f64, verdict / count as f64));
        }
        let top = votes.iter().map(|(attention, _)| *attention).fold(f64::NEG_INFINITY, f64::max);
        let weights = votes.iter().map(|(attention, _)| (attention - top).exp());
        let sum: f64 = weights.clone().sum();
        Ok(Some(weights.zip(&votes).map(|(weight, (_, verdict))| weight / sum * verdict).sum()))
    }
}

/// `x` resampled linearly to `frames` rows, first and last row kept (`interpolate(mode="linear", align_corners=True)`).
fn stretch(x: &Matrix, frames: usize) -> Matrix {
    if frames == x.rows {
        return x.clone();
    }
    let mut out = Matrix::zeros(frames, x.cols);
    let last = x.rows.saturating_sub(1);
    let step = if frames > 1 { last as f32 / (frames - 1) as f32 } else { 0.0 };
    for t in 0..frames {
        let position = step * t as f32;
        let before = (position as usize).min(last);
        let weight = position - before as f32;
        let (a, b) = (x.row(before), x.row((before + 1).min(last)));
        for ((value, a), b) in out.row_mut(t).iter_mut().zip(a).zip(b) {
            *value = (1.0 - weight) * a + weight * b;
        }
    }
    out
}

/// Frame of `from` that `interpolate(mode="nearest")` takes for frame `t` of `to`.
fn nearest(t: usize, from: usize, to: usize) -> usize {
    ((t as f32 * (from as f32 / to as f32)) as usize).min(from.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretching_keeps_the_ends_and_is_linear_between() {
        let x = Matrix { rows: 3, cols: 1, data: vec![0.0, 10.0, 30.0] };
        assert_eq!(stretch(&x, 5).data, [0.0, 5.0, 10.0, 20.0, 30.0]);
        assert_eq!(stretch(&x, 2).data, [0.0, 30.0]);
        assert_eq!(stretch(&x, 3), x);
    }

    #[test]
    fn nearest_frames_are_those_of_pytorch() {
        // torch.nn.functional.interpolate(torch.arange(4.)[None, None], size=n, mode="nearest") of PyTorch 2.13
        assert_eq!((0..5).map(|t| nearest(t, 4, 5)).collect::<Vec<_>>(), [0, 0, 1, 2, 3]);
        assert_eq!((0..3).map(|t| nearest(t, 4, 3)).collect::<Vec<_>>(), [0, 1, 2]);
    }
}

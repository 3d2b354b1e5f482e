//! Stage `reference.resample`: the two 16 kHz signals that the encoders read, from the clip at 24 kHz.
//!
//! They are not interchangeable: `w16` goes to the voice encoder and T3's prompt, `r16` to the x-vector and S3Gen's prompt
//! tokens; the filters differ by 2 % relative. Upstream: `tts_turbo.py` (`librosa.resample` in `prepare_conditionals`) and
//! `models/s3gen/s3gen.py` (`get_resampler` in `embed_ref`) of resemble-ai/chatterbox at commit 5de7a54.

use crate::dsp::resample::{resample_observed, resample_sinc};
use crate::{Error, Observer, Result};

/// How much of the clip S3Gen hears, in samples at 24 kHz (10 s).
pub const S3GEN_SAMPLES: usize = 240_000;

/// `samples` `[n]` at 24 kHz to `(w16, r16)` at 16 kHz: the whole clip through the soxr HQ filter, and its first 10 s
/// through torchaudio's windowed sinc.
///
/// Errors: [`Error::Argument`] when a sample is not finite; what `observer` returns.
pub fn resample(samples: &[f32], observer: &dyn Observer) -> Result<(Vec<f32>, Vec<f32>)> {
    if let Some(at) = samples.iter().position(|x| !x.is_finite()) {
        return Err(Error::argument(format!("samples: expected finite values, got {} at {at}", samples[at])));
    }
    let w16 =
        resample_observed(samples, 24_000, 16_000, &mut |done, total| observer.progress("reference.resample", done, total))?;
    let r16 = resample_sinc(&samples[..samples.len().min(S3GEN_SAMPLES)]);
    Ok((w16, r16))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Silent;

    #[test]
    fn lengths_of_the_two_signals() {
        for (n, w, r) in [(120_001, 80_001, 80_001), (227_809, 151_873, 151_873), (300_000, 200_000, 160_000)] {
            let (w16, r16) = resample(&vec![0.1; n], &Silent).unwrap();
            assert_eq!((w16.len(), r16.len()), (w, r), "{n} samples");
        }
    }

    #[test]
    fn non_finite_samples_are_refused() {
        let error = resample(&[0.0, f32::NAN], &Silent).unwrap_err().to_string();
        assert_eq!(error, "samples: expected finite values, got NaN at 1");
    }
}

//! Stage `reference.load`: any clip to mono f32 `[L]` at the wanted rate, longer than wanted: by [`Wanted::default`] at 24 kHz,
//! longer than 5.0 s.
//!
//! Decode to f32 (integers by their full scale, as libsndfile does), mean over the channels in f32, resample with the soxr
//! HQ filter when the rate differs, then `L / rate > longer_than`, strictly and after resampling. Nothing is clipped.
//! Reads WAV, AIFF, CAF, FLAC, MP3, Ogg Vorbis and Opus, AAC and MP4 (AAC, ALAC) without any system library. A format or
//! a codec that it does not know is an error of its own, [`Error::UnsupportedAudio`], so that another reader can be asked.
//!
//! Upstream: `librosa.load(path, sr=24000)` in `prepare_conditionals` of `tts_turbo.py`, and `sr=16000` in `generate` of `vc.py`,
//! resemble-ai/chatterbox at commit 5de7a54 (librosa 0.11: soundfile, `to_mono`, `resample`).

use std::path::Path;

use crate::dsp::resample::{RATES, resample_observed};
use crate::{Error, Observer, Result};

mod decode;
mod formats;
mod opus;

const STAGE: &str = "reference.load";

/// Sample rate of a reference clip after this stage, in Hz.
pub const RATE: u32 = 24_000;
/// A reference clip must be longer than this many seconds.
pub const MIN_SECONDS: f64 = 5.0;

/// Hz. A limit of seconds is one of samples at this rate too.
pub const FULL_RATE: u32 = 48_000;

/// What a clip becomes.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Its sample rate in Hz.
    pub rate: u32,
    /// It must be longer than this many seconds.
    pub longer_than: f64,
}

impl Default for Wanted {
    /// A reference clip.
    fn default() -> Self {
        Self { rate: RATE, longer_than: MIN_SECONDS }
    }
}

/// Most channels that a clip may have; an array with more has its axes swapped.
pub const MAX_CHANNELS: usize = 64;

/// Reads the clip in the file `path`. Returns mono samples `[L]` at the wanted rate.
///
/// Errors: [`Error::Io`] when the file cannot be read, and (with the path) everything that [`load_bytes`] refuses.
pub fn load_path(path: &Path, wanted: Wanted, observer: &dyn Observer) -> Result<Vec<f32>> {
    load(content(path)?, wanted, observer).map_err(|refused| refused.of(&path.display().to_string()))
}

/// Reads the clip that `bytes` hold, a whole encoded file. Returns mono samples `[L]` at the wanted rate.
///
/// Errors: [`Error::Audio`] when the bytes are not a clip of a known format, are damaged (samples are never skipped
/// silently), have an unusable rate or channel count, hold NaN or infinite samples, or are not longer than wanted;
/// [`Error::UnsupportedAudio`] for a format or codec that is not known here; [`Error::Argument`] when the wanted rate is
/// outside [`RATES`]; what `observer` returns.
pub fn load_bytes(bytes: Vec<u8>, wanted: Wanted, observer: &dyn Observer) -> Result<Vec<f32>> {
    load(bytes, wanted, observer).map_err(|refused| refused.of(CLIP))
}

/// Decodes the clip in the file `path`: mono samples at the file's own rate, and that rate. Of one longer than `most` seconds, or than their
/// samples at [`FULL_RATE`], a little more is decoded and no more: an hour of silence may be a few hundred kilobytes.
///
/// Errors: as in [`load_path`], but for what the rate and the length may be; samples may be NaN or infinite.
pub fn decode_path(path: &Path, most: f64, observer: &dyn Observer) -> Result<(Vec<f32>, u32)> {
    decode(content(path)?, most, observer).map_err(|refused| refused.of(&path.display().to_string()))
}

/// Decodes the clip that `bytes` hold, a whole encoded file, as [`decode_path`] does.
pub fn decode_bytes(bytes: Vec<u8>, most: f64, observer: &dyn Observer) -> Result<(Vec<f32>, u32)> {
    decode(bytes, most, observer).map_err(|refused| refused.of(CLIP))
}

/// Takes interleaved float samples `[n, channels]` at `rate` Hz. Returns mono samples `[L]` at the wanted rate.
///
/// Errors: [`Error::Audio`] as in [`load_bytes`]; [`Error::Argument`] when the samples do not fill whole frames.
pub fn from_samples(
    interleaved: &[f32],
    channels: usize,
    rate: u32,
    wanted: Wanted,
    observer: &dyn Observer,
) -> Result<Vec<f32>> {
    if channels == 0 || channels > MAX_CHANNELS {
        return Err(Error::Audio(format!("reference clip: expected 1 to {MAX_CHANNELS} channels, got {channels}")));
    }
    if !interleaved.len().is_multiple_of(channels) {
        return Err(Error::argument(format!("samples: {} values do not fill frames of {channels} channels", interleaved.len())));
    }
    let mut mono = Mono::default();
    mono.append(interleaved, channels);
    mono.finish(rate, wanted, observer).map_err(|refused| refused.of(CLIP))
}

/// The content of the regular file `path`.
fn content(path: &Path) -> Result<Vec<u8>> {
    let io = |e| Error::io(path, e);
    let meta = std::fs::metadata(path).map_err(io)?;
    if !meta.is_file() {
        return Err(io(std::io::Error::other(if meta.is_dir() { "is a directory" } else { "is not a regular file" })));
    }
    std::fs::read(path).map_err(io)
}

fn decode(bytes: Vec<u8>, most: f64, observer: &dyn Observer) -> Loaded<(Vec<f32>, u32)> {
    decode::decode(bytes, most, observer).map(|(mono, rate)| (mono.0, rate))
}

fn load(bytes: Vec<u8>, wanted: Wanted, observer: &dyn Observer) -> Loaded<Vec<f32>> {
    let (mono, rate) = decode::decode(bytes, f64::INFINITY, observer)?;
    mono.finish(rate, wanted, observer)
}

/// What a clip without a path is called.
const CLIP: &str = "reference clip";

type Loaded<T> = std::result::Result<T, Refused>;

/// Why there is no clip, without its name.
enum Refused {
    /// It is damaged, or cannot be used.
    Unusable(String),
    /// It is of a kind that is not known here.
    Unsupported(String),
    /// The observer stopped the work, or it failed.
    Other(Error),
}

impl Refused {
    fn of(self, name: &str) -> Error {
        match self {
            Self::Unusable(detail) => Error::Audio(format!("{name}: {detail}")),
            Self::Unsupported(detail) => Error::UnsupportedAudio(format!("{name}: {detail}")),
            Self::Other(error) => error,
        }
    }
}

impl From<String> for Refused {
    fn from(detail: String) -> Self {
        Self::Unusable(detail)
    }
}

impl From<&str> for Refused {
    fn from(detail: &str) -> Self {
        Self::Unusable(detail.into())
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// A clip in the making: the mean over the channels of everything appended.
#[derive(Default)]
struct Mono(Vec<f32>);

impl Mono {
    /// Appends interleaved frames; the sum runs over the channels in f32, as in `numpy.mean`.
    fn append(&mut self, interleaved: &[f32], channels: usize) {
        if channels == 1 {
            self.0.extend_from_slice(interleaved);
        } else {
            self.0.extend(interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32));
        }
    }

    fn finish(self, rate: u32, wanted: Wanted, observer: &dyn Observer) -> Loaded<Vec<f32>> {
        let Wanted { rate: to, longer_than } = wanted;
        if !RATES.contains(&rate) {
            return Err(format!("expected a sample rate of {} to {} Hz, got {rate} Hz", RATES.start(), RATES.end()).into());
        }
        if let Some(at) = self.0.iter().position(|x| !x.is_finite()) {
            return Err(format!("expected finite samples, got {} at {at}", self.0[at]).into());
        }
        let samples = resample_observed(&self.0, rate, to, &mut |done, total| observer.progress(STAGE, done, total))?;
        let seconds = samples.len() as f64 / f64::from(to);
        if seconds > longer_than {
            Ok(samples)
        } else {
            let found = samples.len();
            Err(format!("must be longer than {longer_than:.1} s, got {seconds:.3} s ({found} samples at {to} Hz)").into())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Silent;

    const VOICE: Wanted = Wanted { rate: RATE, longer_than: MIN_SECONDS };

    fn ramp(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i % 200) as f32 / 256.0 - 0.4).collect()
    }

    /// A 16-bit RIFF file of `channels` at `rate`.
    fn wav(samples: &[i16], channels: u16, rate: u32) -> Vec<u8> {
        let data = 2 * samples.len() as u32;
        let mut out = Vec::new();
        for part in [&b"RIFF"[..], &(36 + data).to_le_bytes(), b"WAVEfmt ", &16u32.to_le_bytes(), &1u16.to_le_bytes()] {
            out.extend_from_slice(part);
        }
        out.extend(channels.to_le_bytes());
        out.extend(rate.to_le_bytes());
        out.extend((rate * 2 * u32::from(channels)).to_le_bytes());
        out.extend((2 * channels).to_le_bytes());
        out.extend(16u16.to_le_bytes());
        out.extend_from_slice(b"data");
        out.extend(data.to_le_bytes());
        out.extend(samples.iter().flat_map(|s| s.to_le_bytes()));
        out
    }

    #[test]
    fn exactly_five_seconds_is_too_short() {
        let error = from_samples(&ramp(120_000), 1, RATE, VOICE, &Silent).unwrap_err().to_string();
        assert_eq!(error, "reference clip: must be longer than 5.0 s, got 5.000 s (120000 samples at 24000 Hz)");
        assert_eq!(from_samples(&ramp(120_001), 1, RATE, VOICE, &Silent).unwrap(), ramp(120_001));
    }

    #[test]
    fn another_rate_and_length_are_to_be_had() {
        let wanted = Wanted { rate: 16_000, longer_than: 0.1 };
        assert_eq!(from_samples(&ramp(1_601), 1, 16_000, wanted, &Silent).unwrap(), ramp(1_601));
        assert_eq!(from_samples(&ramp(4_800), 1, 24_000, wanted, &Silent).unwrap().len(), 3_200);
        let error = from_samples(&ramp(1_600), 1, 16_000, wanted, &Silent).unwrap_err().to_string();
        assert_eq!(error, "reference clip: must be longer than 0.1 s, got 0.100 s (1600 samples at 16000 Hz)");
        let wanted = Wanted { rate: 0, longer_than: 0.1 };
        assert!(matches!(from_samples(&ramp(1_601), 1, 16_000, wanted, &Silent), Err(Error::Argument(_))));
    }

    #[test]
    fn channels_are_averaged() {
        let stereo: Vec<f32> = ramp(130_000).into_iter().flat_map(|x| [x, 0.5]).collect();
        let want: Vec<f32> = ramp(130_000).iter().map(|x| (x + 0.5) / 2.0).collect();
        assert_eq!(from_samples(&stereo, 2, RATE, VOICE, &Silent).unwrap(), want);
    }

    #[test]
    fn integers_are_divided_by_full_scale() {
        let samples: Vec<i16> = (0..130_000).map(|i| (i * 37 % 65_536 - 32_768) as i16).collect();
        let got = load_bytes(wav(&samples, 1, RATE), VOICE, &Silent).unwrap();
        assert_eq!(got, samples.iter().map(|&s| f32::from(s) / 32_768.0).collect::<Vec<_>>());
    }

    #[test]
    fn a_clip_of_any_length_is_decoded_at_its_own_rate() {
        assert_eq!(decode_bytes(wav(&[16_384, 0, -16_384, -16_384], 2, 8_000), 1.0, &Silent).unwrap(), (vec![0.25, -0.5], 8_000));
        for (rate, most) in [(8_000, 4_000), (96_000, 24_000)] {
            let found = decode_bytes(wav(&vec![1; 1 << 20], 1, rate), 0.5, &Silent).unwrap().0.len();
            assert!(most < found && found < 1 << 18, "{found}");
        }
        let error = decode_bytes(b"this is not audio at all".repeat(1000), f64::INFINITY, &Silent).unwrap_err().to_string();
        assert!(error.starts_with("reference clip: not an audio file"), "{error}");
        assert!(matches!(decode_path(Path::new("/nonexistent/clip.wav"), f64::INFINITY, &Silent), Err(Error::Io { .. })));
    }

    #[test]
    fn bad_input_is_one_error() {
        let long = ramp(130_000);
        let mut hole = long.clone();
        hole[17] = f32::NEG_INFINITY;
        for (outcome, want) in [
            (from_samples(&hole, 1, RATE, VOICE, &Silent), "expected finite samples, got -inf at 17"),
            (from_samples(&[], 1, RATE, VOICE, &Silent), "got 0.000 s"),
            (from_samples(&[0.5], 1, RATE, VOICE, &Silent), "got 0.000 s"),
            (from_samples(&long, 1, 0, VOICE, &Silent), "expected a sample rate of 1000 to 768000 Hz, got 0 Hz"),
            (from_samples(&long, 0, RATE, VOICE, &Silent), "expected 1 to 64 channels, got 0"),
            (from_samples(&long[..129_999], 2, RATE, VOICE, &Silent), "do not fill frames"),
            (load_bytes(vec![], VOICE, &Silent), "reference clip: "),
            (load_bytes(b"this is not audio at all".repeat(1000), VOICE, &Silent), "reference clip: "),
            (load_bytes(wav(&[0; 260_000], 2, 0), VOICE, &Silent), "reference clip: "),
            (load_path(Path::new("/nonexistent/clip.wav"), VOICE, &Silent), "/nonexistent/clip.wav: "),
            (load_path(Path::new("/"), VOICE, &Silent), "/: is a directory"),
        ] {
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains(want), "{error}, expected {want}");
        }
    }
}

//! Model hyper-parameters: one JSON schema, read by Rust and by Python (`python/chatterbox_turbo_rs/config/*.json`).
//!
//! Unknown, missing and repeated keys are errors, so that a file can never say something that a stage does not do.
//! `config.py` refuses the same files; `tests/test_config.py` compares the two.

use serde::Deserialize;
use serde_json::Value;

use crate::{Error, Result};

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident : $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(missing_docs)]
        pub struct $name { $($(#[$field_doc])* pub $field: $ty,)* }
    };
}

section!(
    /// Everything that describes one checkpoint.
    Config {
        format: u32,
        name: String,
        /// Repository id on the hub, `None` for models that are not downloaded.
        #[serde(deserialize_with = "Option::deserialize")]
        repository: Option<String>,
        /// Pinned commit of the repository.
        #[serde(deserialize_with = "Option::deserialize")]
        revision: Option<String>,
        files: Files,
        text: Text,
        t3: T3,
        voice_encoder: VoiceEncoder,
        s3tokenizer: S3Tokenizer,
        speaker_encoder: SpeakerEncoder,
        s3gen: S3Gen,
    }
);
section!(
    /// Names of the weight files inside the checkpoint directory.
    Files { t3: String, s3gen: String, voice_encoder: String, }
);
section!(
    /// Text tokenizer, and how much text the model speaks well in one go.
    Text {
        vocab_size: usize,
        max_tokens: usize,
        /// Characters of a segment at most, see [`crate::segments::Split::within`].
        longest: usize,
    }
);
section!(
    /// T3, the GPT-2 speech-token decoder.
    T3 {
        hidden_size: usize,
        layers: usize,
        heads: usize,
        ffn_size: usize,
        positions: usize,
        norm_eps: f64,
        speech_vocab: usize,
        start_token: u32,
        stop_token: u32,
        prompt_tokens: usize,
    }
);
section!(
    /// The LSTM voice encoder.
    VoiceEncoder {
        mels: usize,
        hidden_size: usize,
        layers: usize,
        embedding_size: usize,
        partial_frames: usize,
        partials_per_second: f64,
        min_coverage: f64,
    }
);
section!(
    /// S3Tokenizer v2 (25 tokens a second).
    S3Tokenizer {
        mels: usize,
        hidden_size: usize,
        heads: usize,
        layers: usize,
        fsmn_kernel: usize,
        rope_theta: f64,
        attn_norm_eps: f64,
        mlp_norm_eps: f64,
        fsq_dims: usize,
    }
);
section!(
    /// CAMPPlus speaker encoder.
    SpeakerEncoder {
        mels: usize,
        embedding_size: usize,
        head_channels: usize,
        init_channels: usize,
        growth: usize,
        bottleneck: usize,
        layers: Vec<usize>,
        dilations: Vec<usize>,
        kernel: usize,
        segment: usize,
        norm_eps: f64,
    }
);
section!(
    /// S3Gen: speech tokens to waveform.
    S3Gen { vocab: usize, silence_token: u32, mels: usize, encoder: FlowEncoder, estimator: Estimator, vocoder: Vocoder, }
);
section!(
    /// The upsampling conformer.
    FlowEncoder {
        hidden_size: usize,
        heads: usize,
        ffn_size: usize,
        layers: usize,
        up_layers: usize,
        lookahead: usize,
        layer_norm_eps: f64,
        norm_eps: f64,
    }
);
section!(
    /// The meanflow U-Net.
    Estimator { channels: usize, heads: usize, head_size: usize, blocks: usize, mid_blocks: usize, norm_eps: f64, steps: usize, }
);
section!(
    /// The HiFT vocoder.
    Vocoder {
        base_channels: usize,
        upsample_rates: Vec<usize>,
        upsample_kernels: Vec<usize>,
        istft_size: usize,
        istft_hop: usize,
        resblock_kernels: Vec<usize>,
        resblock_dilations: Vec<usize>,
        source_resblock_kernels: Vec<usize>,
        harmonics: usize,
        sine_amplitude: f64,
        noise_std: f64,
        voiced_threshold: f64,
        leaky_slope: f64,
        magnitude_limit: f64,
        audio_limit: f64,
        f0_channels: usize,
    }
);

const TURBO: &str = include_str!("../../../python/chatterbox_turbo_rs/config/turbo.json");

/// What the numbers may be: products of three of them stay far from overflow where they are formed.
const RANGES: &str = include_str!("../../../python/chatterbox_turbo_rs/config/ranges.json");

/// Most items of a list.
const LIST: usize = 8;

impl Config {
    /// Parses and checks a configuration. `origin` names the text in errors (a file, or a built-in name).
    ///
    /// # Errors
    /// [`Error::Config`] naming `origin`, the key, what was expected and what was found.
    pub fn parse(json: &str, origin: &str) -> Result<Self> {
        let fail = |e: serde_json::Error| Error::Config(format!("{origin}: {e}"));
        let value: Value = serde_json::from_str(json).map_err(fail)?;
        let example: Value = serde_json::from_str(TURBO).map_err(fail)?;
        let ranges: Value = serde_json::from_str(RANGES).map_err(fail)?;
        compare(&value, &example, &ranges, "").map_err(|e| Error::Config(format!("{origin}: {e}")))?;
        let config: Self = serde_json::from_str(json).map_err(fail)?;
        config.check(origin)?;
        Ok(config)
    }

    /// The configuration of a published model, `"turbo"` or `"nano"`, whose directory has no `config.json`.
    pub fn builtin(name: &str) -> Result<Self> {
        let json = match name {
            "turbo" => TURBO,
            "nano" => include_str!("../../../python/chatterbox_turbo_rs/config/nano.json"),
            other => return Err(Error::Config(format!("unknown name {other:?}; expected turbo or nano"))),
        };
        Self::parse(json, name)
    }

    fn check(&self, origin: &str) -> Result<()> {
        let fail = |what: String| Err(Error::Config(format!("{origin}: {what}")));
        for (what, name) in [("t3", &self.files.t3), ("s3gen", &self.files.s3gen), ("voice_encoder", &self.files.voice_encoder)] {
            if name.is_empty()
                || name.starts_with('.')
                || name.chars().any(|c| c.is_control() || c == '/' || c == '\\' || c == ':')
            {
                return fail(format!("files.{what}: expected the plain name of a file in the same directory, found {name:?}"));
            }
        }
        for (what, size, parts) in [
            ("t3.hidden_size by t3.heads", self.t3.hidden_size, self.t3.heads),
            ("s3tokenizer.hidden_size by s3tokenizer.heads", self.s3tokenizer.hidden_size, self.s3tokenizer.heads),
            ("s3gen.encoder.hidden_size by s3gen.encoder.heads", self.s3gen.encoder.hidden_size, self.s3gen.encoder.heads),
        ] {
            if size % parts != 0 {
                return fail(format!("{what}: {size} is not divisible by {parts}"));
            }
        }
        let head = self.s3tokenizer.hidden_size / self.s3tokenizer.heads;
        if !head.is_multiple_of(2) {
            return fail(format!("s3tokenizer.hidden_size by s3tokenizer.heads: expected an even number, found {head}"));
        }
        let most = self.t3.positions.saturating_sub(3);
        if self.t3.prompt_tokens > most {
            return fail(format!(
                "t3.prompt_tokens: expected at most t3.positions - 3 = {most}, found {}",
                self.t3.prompt_tokens
            ));
        }
        self.voice_encoder.step().map_err(|e| Error::Config(format!("{origin}: {e}")))?;
        let codes = 3usize.checked_pow(self.s3tokenizer.fsq_dims as u32);
        if codes != Some(self.s3gen.vocab) {
            return fail(format!("s3gen.vocab: expected 3^fsq_dims = {codes:?}, found {}", self.s3gen.vocab));
        }
        for (what, token, vocab) in [
            ("t3.start_token", self.t3.start_token, self.t3.speech_vocab),
            ("t3.stop_token", self.t3.stop_token, self.t3.speech_vocab),
            ("s3gen.silence_token", self.s3gen.silence_token, self.s3gen.vocab),
        ] {
            if token as usize >= vocab {
                return fail(format!("{what}: expected a token below {vocab}, found {token}"));
            }
        }
        let v = &self.s3gen.vocoder;
        if v.upsample_rates.len() != v.upsample_kernels.len() || v.upsample_rates.len() != v.source_resblock_kernels.len() {
            return fail("s3gen.vocoder: upsample_rates, upsample_kernels and source_resblock_kernels differ in length".into());
        }
        if v.upsample_rates.iter().try_fold(v.istft_hop, |product, rate| product.checked_mul(*rate)) != Some(480) {
            return fail(format!(
                "s3gen.vocoder: product of upsample_rates {:?} and istft_hop {} must be 480 samples a frame",
                v.upsample_rates, v.istft_hop
            ));
        }
        for (rate, kernel) in v.upsample_rates.iter().zip(&v.upsample_kernels) {
            if kernel.checked_sub(*rate).is_none_or(|more| more % 2 != 0) {
                return fail(format!(
                    "s3gen.vocoder.upsample_kernels: expected {rate}, its rate, and an even number on top, found {kernel}"
                ));
            }
        }
        let parts = 1usize << v.upsample_rates.len();
        if !v.base_channels.is_multiple_of(parts) {
            return fail(format!("s3gen.vocoder.base_channels: expected a multiple of {parts}, found {}", v.base_channels));
        }
        if v.istft_size < v.istft_hop {
            let (least, found) = (v.istft_hop, v.istft_size);
            return fail(format!("s3gen.vocoder.istft_size: expected at least istft_hop = {least}, found {found}"));
        }
        if self.speaker_encoder.layers.len() != self.speaker_encoder.dilations.len() {
            return fail("speaker_encoder: layers and dilations differ in length".into());
        }
        Ok(())
    }
}

impl VoiceEncoder {
    /// Frames between the starts of two partials; the error names the key. Upstream divides by the partial's length where the mel's hop is
    /// meant; both are 160.
    pub(crate) fn step(&self) -> std::result::Result<usize, String> {
        let step = (16_000.0 / self.partials_per_second / self.partial_frames as f64).round_ties_even();
        if (1.0..=self.partial_frames as f64).contains(&step) {
            return Ok(step as usize);
        }
        let most = self.partial_frames;
        Err(format!("voice_encoder.partials_per_second: expected partials 1 to {most} frames apart, found {step}"))
    }
}

/// Values of the same kind as `example`'s, and numbers inside `ranges`; serde says the rest (which keys there are), but it would
/// take lists for objects and does not name the key of a wrong value.
fn compare(value: &Value, example: &Value, ranges: &Value, path: &str) -> std::result::Result<(), String> {
    let expected = |what: &str| {
        let at = if path.is_empty() { "the whole file" } else { path };
        Err(format!("{at}: expected {what}, found {value}"))
    };
    match (value, example) {
        (Value::Object(items), Value::Object(examples)) => {
            for (key, item) in items {
                let name = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match examples.get(key) {
                    Some(example) => compare(item, example, &ranges[key.as_str()], &name)?,
                    None => return Err(format!("unknown key {name}")),
                }
            }
            Ok(())
        }
        (_, Value::Object(_)) => expected("an object"),
        (Value::Array(items), Value::Array(examples)) if (1..=LIST).contains(&items.len()) => {
            let example = examples.first().unwrap_or(&Value::Null);
            items.iter().try_for_each(|item| compare(item, example, ranges, path))
        }
        (_, Value::Array(_)) => expected(&format!("a list of 1 to {LIST} whole numbers")),
        (_, Value::Number(example)) => {
            let one = Value::from(1);
            let [least, largest] = [0, 1].map(|i| ranges.get(i).unwrap_or(&one));
            let whole = example.is_u64();
            let inside =
                |x: f64| least.as_f64().is_some_and(|least| least <= x) && largest.as_f64().is_some_and(|most| x <= most);
            let kind = ranges.get(2).and_then(Value::as_str);
            let even = |n: u64| kind.is_none_or(|kind| n.is_multiple_of(2) == (kind == "even"));
            let fits = match value.as_u64() {
                Some(n) => inside(n as f64) && even(n),
                None => !whole && value.as_f64().is_some_and(inside),
            };
            if fits {
                return Ok(());
            }
            let article = if kind.is_some() { "an " } else { "a " };
            let kind = kind.map_or(String::new(), |kind| format!("{kind} "));
            let number = if whole { "whole number" } else { "number" };
            expected(&format!("{article}{kind}{number} from {least} to {largest}"))
        }
        (Value::String(_), _) => Ok(()),
        (Value::Null, _) if path == "repository" || path == "revision" => Ok(()),
        _ => expected("a string"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtin_configurations_are_valid() -> Result<()> {
        for name in ["turbo", "nano"] {
            assert_eq!(Config::builtin(name)?.name, name);
        }
        Ok(())
    }

    #[test]
    fn unknown_and_wrong_values_are_refused() {
        let good = include_str!("../../../tests/data/toy.json");
        for (from, to, says) in [
            ("\"format\": 1", "\"format\": 1, \"colour\": 2", "colour"),
            ("\"format\": 1", "\"format\": 2", "format: expected a whole number from 1 to 1, found 2"),
            ("\"upsample_rates\": [8, 5, 3]", "\"upsample_rates\": [8, 5, 4]", "480"),
            ("\"vocab\": 6561", "\"vocab\": 6560", "6561"),
            ("[8, 5, 3]", "[16777216, 16777216, 16777216]", "480"),
            ("\"repository\": null,", "", "repository"),
            ("\"layers\": 2", "\"layers\": -2", "t3.layers: expected a whole number from 1"),
            ("{\"vocab_size\": 1024, \"max_tokens\": 1024, \"longest\": 280}", "[1024, 1024, 280]", "text: expected an object"),
            ("t3_turbo_v1", "../t3_turbo_v1", "files.t3: expected the plain name"),
        ] {
            let text = good.replacen(from, to, 1);
            let error = Config::parse(&text, "x.json").map(|_| ()).map_err(|e| e.to_string());
            assert!(error.as_ref().is_err_and(|e| e.contains(says) && e.contains("x.json")), "{error:?}");
        }
    }
}

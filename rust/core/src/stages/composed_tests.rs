//! Every network, composed of Candle operations as on a GPU, beside the CPU's kernels: the same numbers within the limits of parity.

#![allow(clippy::unwrap_used)]

use crate::nn::composed;
use crate::stages::s3gen::{encoder::FlowEncoder, flow::Flow, vocoder::Vocoder};
use crate::stages::s3tokenizer::tokens::S3Tokenizer;
use crate::stages::speaker_encoder::xvector::SpeakerEncoder;
use crate::stages::t3::decoder::T3Decoder;
use crate::stages::t3::generate::{Session, generate};
use crate::stages::t3::many::{Request, generate_many};
use crate::stages::t3::sampler::SamplerParameters;
use crate::stages::voice_encoder::embedding::VoiceEncoder;
use crate::{Checkpoint, Device, Error, Matrix, Precision, Silent, draws};

const LIMITS: &str = include_str!("../../../../python/chatterbox_turbo_rs/parity/tolerances.toml");
const CPU: Device = Device::Cpu;

/// A limit of `stage`, from the one place where it stands.
fn limit(stage: &str, name: &str) -> f64 {
    let line = LIMITS.lines().find(|line| line.starts_with(&format!("{stage:?} ="))).unwrap();
    let value = line.split(&format!("{name} = ")).nth(1).unwrap();
    value.split([',', ' ']).next().unwrap().parse().unwrap()
}

fn toy() -> Checkpoint {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/toy");
    Checkpoint::open_directory(directory).unwrap().with_cache(None)
}

/// Both ways of one stage: kernels, then Candle operations, each with weights that it loaded for itself.
fn both<T>(run: impl Fn() -> T) -> (T, T) {
    (run(), composed(run))
}

fn numbers(seed: u64, rows: usize, cols: usize) -> Matrix {
    draws::normals(seed, "test", 0, rows, cols).unwrap()
}

fn ids(seed: u64, n: usize, below: usize) -> Vec<i64> {
    draws::uniforms(seed, "test", 0, n).unwrap().iter().map(|v| (v * below as f64) as i64).collect()
}

fn largest(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
}

fn relative(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let difference = squares(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
    (difference / squares(&mut a.iter().map(|a| f64::from(*a)))).sqrt()
}

/// Within the limit, and not the same bits: else both would be the same path.
fn close(found: f64, stage: &str, name: &str) {
    assert!(found > 0.0 && found <= limit(stage, name), "{stage}: {name} {found:e}");
}

#[test]
fn a_kernel_refuses_what_is_composed() {
    let x = crate::Tensor::zeros((2, 3), crate::DType::F32, &CPU).unwrap();
    assert!(crate::nn::to_vec(&x).is_ok());
    let refused = composed(|| crate::kernels::in_pool(|| crate::nn::to_vec(&x)));
    assert!(matches!(refused, Err(Error::Device(_))));
    assert!(crate::nn::to_vec(&x).is_ok());
}

#[test]
fn voice_encoder() {
    let checkpoint = toy();
    let mel = Matrix { data: numbers(1, 400, 40).data.iter().map(|v| v.abs()).collect(), rows: 400, cols: 40 };
    let (a, b) = both(|| VoiceEncoder::load(&checkpoint, &CPU).unwrap().embedding(&mel, &Silent).unwrap());
    close(largest(&a, &b), "voice_encoder.embedding", "max_abs");
}

#[test]
fn s3tokenizer() {
    let (checkpoint, mel) = (toy(), numbers(2, 301, 128));
    let (a, b) = both(|| {
        let network = S3Tokenizer::load(&checkpoint, &CPU).unwrap();
        (network.tokens(&mel, &Silent).unwrap(), network.pre_codes(&mel, &Silent).unwrap())
    });
    assert_eq!(a.0, b.0);
    close(largest(&a.1.data, &b.1.data), "s3tokenizer.near_tie", "max_abs");
}

#[test]
fn speaker_encoder() {
    let (checkpoint, fbank) = (toy(), numbers(3, 251, 80));
    let (a, b) = both(|| SpeakerEncoder::load(&checkpoint, &CPU).unwrap().xvector(&fbank, &Silent).unwrap());
    close(relative(&a, &b), "speaker_encoder.xvector", "relative_rms");
}

#[test]
fn t3_prefill_and_steps() {
    let checkpoint = toy();
    let config = checkpoint.config();
    let speaker = numbers(4, 1, config.voice_encoder.embedding_size).data;
    for prompt in [0, 40] {
        let (prompt, text) = (ids(5, prompt, config.t3.speech_vocab), ids(6, 12, 200));
        let (a, b) = both(|| {
            let decoder = T3Decoder::load(&checkpoint, &CPU, Precision::F32).unwrap();
            let prefix = decoder.prefix(&speaker, &prompt).unwrap();
            // the second session begins with the keys and values that the first has left
            let sessions = (0..2).map(|_| {
                let mut session = decoder.start_from(&prefix, &text, 20).unwrap();
                let mut rows = vec![session.prefill(&Silent).unwrap()];
                rows.extend(ids(7, 20, config.t3.speech_vocab).into_iter().map(|token| session.step(token).unwrap()));
                rows
            });
            sessions.flatten().collect::<Vec<_>>()
        });
        assert_eq!(a.len(), 42);
        for (a, b) in a.iter().zip(&b) {
            close(relative(a, b), "t3.decoder", "relative_rms");
        }
    }
}

#[test]
fn t3_loops_sample_the_same_tokens() {
    let checkpoint = toy();
    let config = checkpoint.config();
    let (speaker, prompt) = (numbers(8, 1, config.voice_encoder.embedding_size).data, ids(9, 30, config.t3.speech_vocab));
    let parameters = SamplerParameters::default();
    let (a, b) = both(|| {
        let decoder = T3Decoder::load(&checkpoint, &CPU, Precision::F32).unwrap();
        let prefix = decoder.prefix(&speaker, &prompt).unwrap();
        let requests: Vec<_> = (0..3)
            .map(|i| Request { prefix: prefix.clone(), text_ids: ids(i, 5, 200), parameters, seed: i, max_tokens: 40 })
            .collect();
        let mut many = vec![Vec::new(); requests.len()];
        generate_many(&decoder, requests.clone(), 2, &Silent, |done| {
            many[done.index] = done.tokens?;
            Ok(())
        })
        .unwrap();
        for (request, tokens) in requests.iter().zip(&many) {
            let uniforms = |step| Ok(draws::uniforms(request.seed, draws::T3, step as u64, 1)?[0]);
            let alone = generate(&decoder, &speaker, &prompt, &request.text_ids, &parameters, uniforms, 40, &Silent).unwrap();
            assert_eq!(alone, *tokens);
        }
        many
    });
    assert_eq!(a, b);
    assert!(a.iter().all(|tokens| tokens.len() > 20) && a[0] != a[1]);
}

#[test]
fn s3gen_encoder() {
    let checkpoint = toy();
    let tokens = ids(10, 61, checkpoint.config().s3gen.vocab);
    let (a, b) = both(|| FlowEncoder::load(&checkpoint, &CPU, Precision::F32).unwrap().mu(&tokens, &Silent).unwrap());
    close(relative(&a.data, &b.data), "s3gen.encoder", "relative_rms");
}

#[test]
fn s3gen_flow() {
    let checkpoint = toy();
    let (mu, noise, prompt) = (numbers(11, 90, 80), numbers(12, 90, 80), numbers(13, 30, 80));
    let xvector = numbers(14, 1, checkpoint.config().speaker_encoder.embedding_size).data;
    let (a, b) = both(|| {
        let flow = Flow::load(&checkpoint, &CPU, Precision::F32).unwrap();
        flow.mel(&mu, &xvector, &prompt, &noise, &Silent).unwrap()
    });
    close(relative(&a.data, &b.data), "s3gen.flow", "relative_rms");
}

#[test]
fn s3gen_vocoder() {
    let (checkpoint, mel) = (toy(), numbers(15, 30, 80));
    let source: Vec<f32> = numbers(16, 1, 30 * 480).data.iter().map(|v| 0.1 * v).collect();
    let (a, b) = both(|| {
        let vocoder = Vocoder::load(&checkpoint, &CPU, Precision::F32).unwrap();
        (vocoder.f0(&mel).unwrap(), vocoder.samples_from_source(&mel, &source, &Silent).unwrap())
    });
    close(relative(&a.0, &b.0), "s3gen.vocoder@f0", "relative_rms");
    let peak = a.1.iter().fold(0f64, |peak, v| peak.max(f64::from(v.abs())));
    close(largest(&a.1, &b.1) / peak, "s3gen.vocoder@decoder", "peak");
}

//! Speaks from the core crate alone, without Python.
//!
//! `cargo run --release --example say -- "Hello there." [--model DIR] [--voice CLIP] [--seed N] [--precision f32|int8|bf16|int8+bf16|int4|int4+bf16]
//! [--perth WEIGHTS] [-o out.wav]`
//!
//! Without `--model` the Python package's embedded model speaks, which is small and has one voice. The watermark needs Perth's
//! weights (`perth/perth_net/pretrained/implicit/perth_net_250000.pth.tar` of the resemble-perth wheel).

#![allow(clippy::print_stdout, reason = "a command-line example")]

use std::path::{Path, PathBuf};

use chatterbox_turbo::stages::reference::load::{Wanted, load_path};
use chatterbox_turbo::synthesizer::{Options, SAMPLE_RATE, Synthesizer};
use chatterbox_turbo::{Device, Precision, Silent, Voice};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let mut text = None;
    let mut model = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../python/chatterbox_turbo_rs/assets/demo"));
    let (mut clip, mut perth, mut output, mut options) = (None, None, PathBuf::from("say.wav"), Options::default());
    let mut precision = Precision::auto(&Device::Cpu);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument}: expected a value"));
        match argument.as_str() {
            "--model" => model = value()?.into(),
            "--voice" => clip = Some(PathBuf::from(value()?)),
            "--perth" => perth = Some(PathBuf::from(value()?)),
            "--precision" => precision = value()?.parse()?,
            "--seed" => options.seed = value()?.parse()?,
            "-o" => output = value()?.into(),
            other if other.starts_with('-') => return Err(format!("unknown option {other}").into()),
            _ => text = Some(argument),
        }
    }
    let text = text.unwrap_or_else(|| "Hello there.".into());
    let synthesizer = Synthesizer::open(&model, &Device::Cpu, precision, perth.as_deref())?;
    let voice = match clip {
        Some(clip) => synthesizer.voice(&load_path(&clip, Wanted::default(), &Silent)?, &Silent)?,
        None => Voice::from_conds(model.join("conds.pt"))?,
    };
    let samples = synthesizer.say(&text, &voice, &options, &Silent)?;
    write_wav(&output, &samples)?;
    println!("{}: {:.2} s", output.display(), samples.len() as f64 / f64::from(SAMPLE_RATE));
    Ok(())
}

/// Mono, 16 bit.
fn write_wav(path: &Path, samples: &[f32]) -> Outcome<()> {
    let data = u32::try_from(samples.len() * 2)?;
    let mut bytes = Vec::with_capacity(44 + samples.len() * 2);
    bytes.extend(b"RIFF");
    bytes.extend((36 + data).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    bytes.extend(16u32.to_le_bytes());
    bytes.extend(1u16.to_le_bytes());
    bytes.extend(1u16.to_le_bytes());
    bytes.extend(SAMPLE_RATE.to_le_bytes());
    bytes.extend((SAMPLE_RATE * 2).to_le_bytes());
    bytes.extend(2u16.to_le_bytes());
    bytes.extend(16u16.to_le_bytes());
    bytes.extend(b"data");
    bytes.extend(data.to_le_bytes());
    for sample in samples {
        bytes.extend(((sample.clamp(-1.0, 1.0) * 32767.0).round() as i16).to_le_bytes());
    }
    std::fs::write(path, bytes)?;
    Ok(())
}

//! Bindings, one file a stage: no maths here.

mod draws;
mod reference_load;
mod reference_loudness;
mod reference_resample;
mod s3gen_encoder;
mod s3gen_flow;
mod s3gen_prompt_mel;
mod s3gen_vocoder;
mod s3tokenizer_mel;
mod s3tokenizer_tokens;
mod speaker_encoder_fbank;
mod speaker_encoder_xvector;
mod t3_decoder;
mod t3_sampler;
mod text_normalize;
mod text_segments;
mod text_tokenize;
mod voice_encoder_embedding;
mod voice_encoder_mel;
mod watermark;

use pyo3::prelude::*;

/// Adds every stage to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    draws::register(module)?;
    text_normalize::register(module)?;
    text_segments::register(module)?;
    text_tokenize::register(module)?;
    reference_load::register(module)?;
    reference_loudness::register(module)?;
    reference_resample::register(module)?;
    voice_encoder_mel::register(module)?;
    voice_encoder_embedding::register(module)?;
    s3tokenizer_mel::register(module)?;
    s3tokenizer_tokens::register(module)?;
    speaker_encoder_fbank::register(module)?;
    speaker_encoder_xvector::register(module)?;
    s3gen_prompt_mel::register(module)?;
    t3_decoder::register(module)?;
    t3_sampler::register(module)?;
    s3gen_encoder::register(module)?;
    s3gen_flow::register(module)?;
    s3gen_vocoder::register(module)?;
    watermark::register(module)?;
    Ok(())
}

//! A prepared voice: what T3 and S3Gen need to know of a speaker.

use std::path::Path;

use crate::torch_archive::{self, Data, Value};
use crate::{Error, Matrix, Result};

/// Five arrays of one speaker.
#[derive(Clone, Debug, PartialEq)]
pub struct Voice {
    /// T3's speaker embedding `[256]`.
    pub speaker_embedding: Vec<f32>,
    /// T3's prompt tokens, at most 375.
    pub t3_prompt_tokens: Vec<i64>,
    /// S3Gen's prompt tokens `[K]`.
    pub s3gen_prompt_tokens: Vec<i64>,
    /// S3Gen's prompt mel `[M, 80]`, M = 2K or 2K + 1.
    pub s3gen_prompt_mel: Matrix,
    /// S3Gen's x-vector `[192]`.
    pub xvector: Vec<f32>,
}

impl Voice {
    /// Reads upstream's `conds.pt` (`Conditionals.save` in `src/chatterbox/tts_turbo.py` at 5de7a54); nothing is executed.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when the file is no such archive or lacks an entry, [`Error::Io`] when it cannot be read.
    pub fn from_conds(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let content = torch_archive::read(path)?;
        let entry = |group: &str, name: &str| match content.get(group).and_then(|g| g.get(name)) {
            Some(Value::Tensor(tensor)) => Ok(tensor),
            _ => Err(Error::checkpoint(path, format!("expected a tensor {group}.{name}, as in upstream's conds.pt"))),
        };
        let wrong = |name: &str, what: String| Error::checkpoint(path, format!("{name}: {what}"));
        let floats = |group: &str, name: &str| match &entry(group, name)?.data {
            Data::F32(values) => Ok(values.clone()),
            other => Err(wrong(name, format!("expected float32, found {}", other.dtype()))),
        };
        // upstream may have cast ids to float32 in place before it saved them
        let ids = |group: &str, name: &str| match &entry(group, name)?.data {
            Data::I64(values) => Ok(values.clone()),
            Data::I32(values) => Ok(values.iter().map(|v| i64::from(*v)).collect()),
            Data::F32(values) if values.iter().all(|v| v.fract() == 0.0) => Ok(values.iter().map(|v| *v as i64).collect()),
            other => Err(wrong(name, format!("expected token ids, found {}", other.dtype()))),
        };
        let mel = entry("gen", "prompt_feat")?;
        let &[1, rows, cols] = mel.shape.as_slice() else {
            return Err(wrong("gen.prompt_feat", format!("expected shape [1, M, 80], found {:?}", mel.shape)));
        };
        Ok(Self {
            speaker_embedding: floats("t3", "speaker_emb")?,
            t3_prompt_tokens: ids("t3", "cond_prompt_speech_tokens")?,
            s3gen_prompt_tokens: ids("gen", "prompt_token")?,
            s3gen_prompt_mel: Matrix::new(rows, cols, floats("gen", "prompt_feat")?)?,
            xvector: floats("gen", "embedding")?,
        })
    }
}

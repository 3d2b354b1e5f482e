//! The beginning of every utterance of a voice, `[speaker | prompt]`: attention is causal, so that its keys and values depend on
//! the voice only.

use std::sync::{Arc, Weak};

use once_cell::race::OnceBox;

use super::decoder::Model;
use crate::nn::KvPrefix;

/// Keys and values of `[speaker | prompt]` in every block; immutable, cheap to clone, to be shared by threads. It does not keep the
/// decoder that made it in memory.
#[derive(Clone, Debug)]
pub struct T3Prefix {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    model: Weak<Model>,
    speaker: Vec<f32>,
    prompt: Vec<i64>,
    /// Without a lock: a fork might find it held for ever.
    known: OnceBox<Vec<KvPrefix>>,
}

impl T3Prefix {
    pub(super) fn new(model: &Arc<Model>, speaker: &[f32], prompt: &[i64]) -> Self {
        let (speaker, prompt) = (speaker.to_vec(), prompt.to_vec());
        Self { inner: Arc::new(Inner { model: Arc::downgrade(model), speaker, prompt, known: OnceBox::new() }) }
    }

    /// Positions: the speaker's and the prompt's.
    pub fn positions(&self) -> usize {
        1 + self.inner.prompt.len()
    }

    /// Bytes of the keys and values; 0 before the first prefill has computed them.
    pub fn bytes(&self) -> usize {
        self.known().map_or(0, |blocks| blocks.iter().map(KvPrefix::bytes).sum())
    }

    pub(super) fn is_of(&self, model: &Arc<Model>) -> bool {
        std::ptr::eq(self.inner.model.as_ptr(), Arc::as_ptr(model))
    }

    pub(super) fn speaker(&self) -> &[f32] {
        &self.inner.speaker
    }

    pub(super) fn prompt(&self) -> &[i64] {
        &self.inner.prompt
    }

    /// Keys and values of every block, once computed.
    pub(super) fn known(&self) -> Option<&[KvPrefix]> {
        self.inner.known.get().map(Vec::as_slice)
    }

    /// Keeps what a prefill has computed. Where two threads did so at the same time the first stays: both are the same to the bit.
    pub(super) fn keep(&self, blocks: Vec<KvPrefix>) {
        let _ = self.inner.known.set(Box::new(blocks));
    }
}

//! Text to token ids: `&str` → ids `[T]`, T at most `text.max_tokens` (1024).
//!
//! Byte-level BPE of GPT-2 without prefix space and without begin or end tokens; tags such as `[laugh]` and
//! `<|endoftext|>` are matched verbatim in the raw text. Over-long text is cut to its first ids, and the caller is told.
//! Source: `tokenizer(text, padding=True, truncation=True)` in `src/chatterbox/tts_turbo.py` at 5de7a54, with
//! `GPT2Tokenizer` of transformers 5.2.0.
//!
//! A `tokenizer.json` of the base model can take its place ([`Tokenizer::from_file`]), read as
//! `src/chatterbox/models/tokenizers/tokenizer.py` at 5de7a54 does: spaces become `[SPACE]` before encoding.

use std::path::Path;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as Inner};

use super::vocabulary::{END_OF_TEXT, Vocabulary, read_text};
use crate::{Config, Error, Result};

/// What the base model's tokenizer reads for a space.
const SPACE: &str = "[SPACE]";

/// A loaded vocabulary; immutable, may be shared by threads.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Inner,
    base: bool,
    max_tokens: usize,
}

/// The ids of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, at most `text.max_tokens`.
    pub ids: Vec<i64>,
    /// Says what is missing when the text was longer.
    pub truncated: Option<Truncated>,
}

/// What a text had before it was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// Tokens of the whole text.
    pub tokens: usize,
    /// Characters (Unicode scalar values) of the text in the part that is kept.
    pub characters: usize,
}

impl Tokenizer {
    /// The tokenizer of a checkpoint: `vocab.json`, `merges.txt` and `added_tokens.json` in `directory`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when a file is missing or damaged or the number of tokens is not `config.text.vocab_size`.
    pub fn from_directory(directory: impl AsRef<Path>, config: &Config) -> Result<Self> {
        let directory = directory.as_ref();
        let vocabulary = Vocabulary::read(directory, config.text.vocab_size)?;
        let first_added = vocabulary.tokens.len();
        let refused = |e: tokenizers::Error| Error::checkpoint(directory.join("vocab.json"), e.to_string());
        let tokens: Vocab = vocabulary.tokens.into_iter().collect();
        let mut inner = Inner::new(BPE::builder().vocab_and_merges(tokens, vocabulary.merges).build().map_err(refused)?);
        inner.with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(false)));
        inner.add_special_tokens([AddedToken::from(END_OF_TEXT, true).normalized(true)]).map_err(refused)?;
        let added = vocabulary.added.iter().map(|tag| AddedToken::from(tag.as_str(), false));
        inner.add_tokens(added).map_err(refused)?;
        for (at, tag) in vocabulary.added.iter().enumerate() {
            let expected = (first_added + at) as u32;
            if inner.token_to_id(tag) != Some(expected) {
                let detail = format!("token {tag:?}: expected id {expected}, found {:?}", inner.token_to_id(tag));
                return Err(Error::checkpoint(directory.join("added_tokens.json"), detail));
            }
        }
        Ok(Self { inner, base: false, max_tokens: config.text.max_tokens })
    }

    /// The tokenizer in the base model's `tokenizer.json`, to be measured against the checkpoint's own.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when the file is missing or damaged, has no `[START]`, `[STOP]` or `[SPACE]`, or has ids that
    /// are not below `config.text.vocab_size`.
    pub fn from_file(file: impl AsRef<Path>, config: &Config) -> Result<Self> {
        let file = file.as_ref();
        let text = read_text(file)?;
        let mut inner: Inner =
            text.parse().map_err(|e| Error::checkpoint(file, format!("expected a tokenizer.json, found another text ({e})")))?;
        for token in ["[START]", "[STOP]", SPACE] {
            if inner.token_to_id(token).is_none() {
                let detail = format!("expected the base model's vocabulary with {token}, found none");
                return Err(Error::checkpoint(file, detail));
            }
        }
        let (size, highest) = (config.text.vocab_size, inner.get_vocab(true).into_values().max().unwrap_or(0));
        if highest as usize >= size {
            let detail = format!("expected ids below text.vocab_size = {size}, found {highest}");
            return Err(Error::checkpoint(file, detail));
        }
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| Error::checkpoint(file, e.to_string()))?;
        Ok(Self { inner, base: true, max_tokens: config.text.max_tokens })
    }

    /// The ids of `text`.
    ///
    /// # Errors
    /// [`Error::Text`] when the vocabulary cannot express the text.
    pub fn encode(&self, text: &str) -> Result<Encoded> {
        let encoding = if self.base {
            self.inner.encode_char_offsets(text.replace(' ', SPACE), true)
        } else {
            self.inner.encode_char_offsets(text, false)
        };
        let encoding = encoding.map_err(|e| Error::Text(format!("text: {e}")))?;
        let mut ids: Vec<i64> = encoding.get_ids().iter().map(|id| i64::from(*id)).collect();
        let tokens = ids.len();
        ids.truncate(self.max_tokens);
        let kept = self.max_tokens.checked_sub(1).and_then(|last| encoding.get_offsets().get(last)).map_or(0, |o| o.1);
        let characters = if self.base { before_replacement(text, kept) } else { kept };
        let truncated = (tokens > self.max_tokens).then_some(Truncated { tokens, characters });
        Ok(Encoded { ids, truncated })
    }
}

/// How many characters of `text` lie within the first `kept` characters of its form with `[SPACE]`.
fn before_replacement(text: &str, kept: usize) -> usize {
    let mut end = 0;
    text.chars()
        .take_while(|c| {
            end += if *c == ' ' { SPACE.len() } else { 1 };
            end <= kept
        })
        .count()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const VOCABULARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/tokenizer");

    #[derive(serde::Deserialize)]
    struct Golden {
        short: Vec<(String, Vec<i64>)>,
        long: Vec<(String, usize, Vec<i64>)>,
    }

    #[test]
    fn official_ids() {
        let golden: Golden = serde_json::from_str(include_str!("../../../../../tests/goldens/text_tokenize.json")).unwrap();
        let tokenizer = Tokenizer::from_directory(VOCABULARY, &Config::builtin("turbo").unwrap()).unwrap();
        assert!(golden.short.len() >= 200);
        for (text, ids) in golden.short {
            assert_eq!(tokenizer.encode(&text).unwrap(), Encoded { ids, truncated: None }, "{text:?}");
        }
        for (piece, count, ids) in golden.long {
            let encoded = tokenizer.encode(&piece.repeat(count)).unwrap();
            assert_eq!(encoded.ids, ids, "{piece:?} x {count}");
            assert!(encoded.truncated.is_none_or(|t| t.tokens > 1024 && ids.len() == 1024), "{piece:?} x {count}");
        }
    }

    #[test]
    fn spaces_count_once_before_their_replacement() {
        assert_eq!(before_replacement("a b", 1), 1);
        assert_eq!(before_replacement("a b", 7), 1);
        assert_eq!(before_replacement("a b", 8), 2);
        assert_eq!(before_replacement("é b", 9), 3);
    }
}

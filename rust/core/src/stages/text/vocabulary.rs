//! Upstream's three vocabulary files: `vocab.json`, `merges.txt` and `added_tokens.json` of a byte-level BPE.
//!
//! They are checked before they are used, because the `tokenizers` crate drops what it does not know without a word:
//! ids without gaps, all 256 byte symbols, every merge inside the vocabulary, every longer token made by a merge (a
//! shortened `merges.txt` is found by that), and the size that the model's text embedding has.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use crate::{Error, Result};

/// The end-of-text token, the only one in `vocab.json` that no merge makes.
pub(super) const END_OF_TEXT: &str = "<|endoftext|>";

/// The checked content of the three files.
pub(super) struct Vocabulary {
    /// Token → id, `0..n`.
    pub tokens: HashMap<String, u32>,
    /// Merges, most important first.
    pub merges: Vec<(String, String)>,
    /// Tags such as `[laugh]`, in the order of their ids `n..`.
    pub added: Vec<String>,
}

impl Vocabulary {
    /// Reads the three files below `directory`; together they must hold `size` tokens.
    pub fn read(directory: &Path, size: usize) -> Result<Self> {
        let (vocab, merges, added) =
            (directory.join("vocab.json"), directory.join("merges.txt"), directory.join("added_tokens.json"));
        let tokens = ids(&vocab)?;
        consecutive(&vocab, &tokens, 0)?;
        let missing: Vec<char> = byte_symbols().filter(|c| !tokens.contains_key(&c.to_string())).collect();
        if let Some(first) = missing.first() {
            let detail = format!("expected all 256 byte symbols, {} are missing (first: {first:?})", missing.len());
            return Err(Error::checkpoint(&vocab, detail));
        }
        if !tokens.contains_key(END_OF_TEXT) {
            return Err(Error::checkpoint(&vocab, format!("expected the token {END_OF_TEXT}, found none")));
        }
        let merges = read_merges(&merges, &tokens)?;

        let extra = ids(&added)?;
        if let Some(known) = extra.keys().find(|token| tokens.contains_key(*token)) {
            return Err(Error::checkpoint(&added, format!("expected tokens that are not in vocab.json, found {known:?}")));
        }
        consecutive(&added, &extra, tokens.len())?;
        let found = tokens.len() + extra.len();
        if found != size {
            let detail = format!(
                "expected text.vocab_size = {size} tokens together with added_tokens.json, found {} + {} = {found}",
                tokens.len(),
                extra.len()
            );
            return Err(Error::checkpoint(&vocab, detail));
        }
        let by_id: BTreeMap<u32, String> = extra.into_iter().map(|(token, id)| (id, token)).collect();
        Ok(Self { tokens, merges, added: by_id.into_values().collect() })
    }
}

/// The text of `file`; a missing file is a damaged checkpoint.
pub(super) fn read_text(file: &Path) -> Result<String> {
    let bytes = std::fs::read(file).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::checkpoint(file, "expected a vocabulary file, found no such file"),
        _ => Error::io(file, e),
    })?;
    String::from_utf8(bytes)
        .map_err(|e| Error::checkpoint(file, format!("expected UTF-8, found another byte at {}", e.utf8_error().valid_up_to())))
}

fn ids(file: &Path) -> Result<HashMap<String, u32>> {
    serde_json::from_str(&read_text(file)?)
        .map_err(|e| Error::checkpoint(file, format!("expected a JSON object of token: id, found another text ({e})")))
}

fn consecutive(file: &Path, tokens: &HashMap<String, u32>, first: usize) -> Result<()> {
    let found: HashSet<usize> = tokens.values().map(|id| *id as usize).collect();
    let end = first + tokens.len();
    match (first..end).find(|id| !found.contains(id)) {
        None => Ok(()),
        Some(gap) => {
            let detail = format!("expected each id from {first} to {} once, found no token for {gap}", end - 1);
            Err(Error::checkpoint(file, detail))
        }
    }
}

fn read_merges(file: &Path, tokens: &HashMap<String, u32>) -> Result<Vec<(String, String)>> {
    let text = read_text(file)?;
    let mut merges = Vec::with_capacity(tokens.len());
    let mut made = HashSet::with_capacity(tokens.len());
    for (at, line) in text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).enumerate() {
        if line.is_empty() || (at == 0 && line.starts_with("#version")) {
            continue;
        }
        let pair = line.split_once(' ').map(|(a, b)| (a, b, format!("{a}{b}")));
        match pair {
            Some((a, b, both)) if [a, b, &both].iter().all(|token| tokens.contains_key(*token)) => {
                merges.push((a.to_owned(), b.to_owned()));
                made.insert(both);
            }
            _ => {
                let detail = format!("line {}: expected two tokens of vocab.json that make a third, found {line:?}", at + 1);
                return Err(Error::checkpoint(file, detail));
            }
        }
    }
    let longer = |token: &&String| token.chars().nth(1).is_some() && token.as_str() != END_OF_TEXT;
    let orphans = tokens.keys().filter(longer).filter(|token| !made.contains(*token));
    match orphans.clone().count() {
        0 => Ok(merges),
        count => {
            let first = orphans.min_by_key(|token| tokens[*token]);
            let detail = format!(
                "expected a merge for every longer token of vocab.json, found none for {count} (first: {:?})",
                first.map_or("", |token| token)
            );
            Err(Error::checkpoint(file, detail))
        }
    }
}

/// The characters that stand for the 256 byte values in byte-level BPE: printable Latin-1 bytes as themselves, the others
/// from U+0100 on (`bytes_to_unicode` in openai/gpt-2, `src/encoder.py` at 9b63575).
fn byte_symbols() -> impl Iterator<Item = char> {
    let printable = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..256).filter(|byte| !printable(*byte)).count() as u32;
    (0..256).filter(move |byte| printable(*byte)).chain(256..256 + others).filter_map(char::from_u32)
}

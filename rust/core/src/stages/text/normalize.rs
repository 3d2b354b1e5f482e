//! Text clean-up before tokenization: `&str` → `String`.
//!
//! Source: `punc_norm` in `src/chatterbox/tts_turbo.py` of resemble-ai/chatterbox at 5de7a54. The order of the steps is
//! part of the result: the first character is raised before spaces are stripped, and `…` is replaced after runs of
//! spaces are collapsed.
//!
//! Python's `str` and Rust's `str` differ in two ways that show here. Python splits on U+001C to U+001F, which are not
//! `White_Space`. And casing follows the Unicode version of the interpreter (13 in CPython 3.10, 14 in 3.11, 15 in 3.12,
//! 15.1 in 3.13, 16 in 3.14), while Rust brings its own: [`normalize_as_of`] leaves alone the letters that a given
//! version could not raise yet. A version newer than the tables of the Rust compiler cannot be followed.

/// What an empty text is replaced by.
const EMPTY: &str = "You need to add some text for me to talk.";

/// Applied one after the other, each over the whole text.
const REPLACEMENTS: [(&str, &str); 9] =
    [("…", ", "), (":", ","), ("—", "-"), ("–", "-"), (" ,", ","), ("“", "\""), ("”", "\""), ("‘", "'"), ("’", "'")];

/// Lowercase letters that got an uppercase mapping after Unicode 13: first, last, major version (UCD `DerivedAge.txt`).
const NEWER_LETTERS: [(char, char, u8); 19] = [
    ('\u{19b}', '\u{19b}', 16),
    ('\u{264}', '\u{264}', 16),
    ('\u{1c8a}', '\u{1c8a}', 16),
    ('\u{2c5f}', '\u{2c5f}', 14),
    ('\u{a7c1}', '\u{a7c1}', 14),
    ('\u{a7cd}', '\u{a7cd}', 16),
    ('\u{a7cf}', '\u{a7cf}', 17),
    ('\u{a7d1}', '\u{a7d1}', 14),
    ('\u{a7d3}', '\u{a7d3}', 17),
    ('\u{a7d5}', '\u{a7d5}', 17),
    ('\u{a7d7}', '\u{a7d7}', 14),
    ('\u{a7d9}', '\u{a7d9}', 14),
    ('\u{a7db}', '\u{a7db}', 16),
    ('\u{10597}', '\u{105a1}', 14),
    ('\u{105a3}', '\u{105b1}', 14),
    ('\u{105b3}', '\u{105b9}', 14),
    ('\u{105bb}', '\u{105bc}', 14),
    ('\u{10d70}', '\u{10d85}', 16),
    ('\u{16ebb}', '\u{16ed3}', 17),
];

/// Cleans `text` up, with the casing rules of this Rust compiler.
pub fn normalize(text: &str) -> String {
    normalize_as_of(text, u8::MAX)
}

/// Cleans `text` up, with casing as in Unicode version `unicode` (13 or newer), so that the result is that of a Python
/// interpreter whose `unicodedata.unidata_version` starts with that number.
pub fn normalize_as_of(text: &str, unicode: u8) -> String {
    let Some(first) = text.chars().next() else {
        return EMPTY.to_owned();
    };
    let mut raised = String::with_capacity(text.len() + 8);
    if first.is_lowercase() && raised_since(first) <= unicode {
        raised.extend(first.to_uppercase());
    } else {
        raised.push(first);
    }
    raised.push_str(&text[first.len_utf8()..]);

    let words: Vec<&str> = raised.split(is_space).filter(|word| !word.is_empty()).collect();
    let mut clean = words.join(" ");
    for (from, to) in REPLACEMENTS {
        if clean.contains(from) {
            clean = clean.replace(from, to);
        }
    }
    clean.truncate(clean.trim_end_matches(' ').len());
    if !clean.ends_with(['.', '!', '?', '-', ',']) {
        clean.push('.');
    }
    clean
}

/// The major Unicode version since which `letter` has an uppercase mapping; 0 for everything up to Unicode 13.
fn raised_since(letter: char) -> u8 {
    NEWER_LETTERS.iter().find(|(first, last, _)| (*first..=*last).contains(&letter)).map_or(0, |(_, _, since)| *since)
}

/// `str.isspace` of Python for one character.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn official_pairs() -> serde_json::Result<()> {
        #[derive(serde::Deserialize)]
        struct Pair {
            r#in: String,
            out: String,
        }
        let pairs: Vec<Pair> = serde_json::from_str(include_str!("../../../../../tests/goldens/text_normalize.json"))?;
        assert_eq!(pairs.len(), 102);
        for pair in pairs {
            assert_eq!(normalize(&pair.r#in), pair.out, "{:?}", pair.r#in);
        }
        Ok(())
    }

    #[test]
    fn newer_letters_wait_for_their_version() {
        for (letter, raised, since) in [("\u{2c5f}", "\u{2c2f}", 14), ("\u{10d70}", "\u{10d50}", 16), ("\u{19b}", "\u{a7dc}", 16)]
        {
            assert_eq!(normalize_as_of(letter, since - 1), format!("{letter}."));
            assert_eq!(normalize_as_of(letter, since), format!("{raised}."));
        }
    }

    /// Every entry of the table is a letter that can be raised (or this compiler's Unicode is older than the letter).
    #[test]
    fn table_lists_only_letters_with_a_mapping() {
        let known = NEWER_LETTERS.iter().filter(|(_, _, since)| *since <= 16);
        for c in known.flat_map(|(first, last, _)| *first..=*last) {
            assert!(c.is_lowercase() && !c.to_uppercase().eq([c]), "U+{:04X}", c as u32);
        }
    }
}

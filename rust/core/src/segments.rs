//! Long text as segments that the model speaks well one by one: sentences, filled up to a length, with the pauses between.
//!
//! `engine/segments.py` is the same in Python. Characters are Unicode scalar values and whitespace is `White_Space` in both.
//! Where sentences end, sentencex says (<https://github.com/wikimedia/sentencex>).

mod cut;
mod marks;

use std::ops::RangeInclusive;

use cut::{Piece, cut, filled};
use marks::{parts, trimmed};

use crate::{Error, Result, draws};

/// Characters by which a segment may be longer than the limit to take in a rest shorter than `SHORT`.
const SLACK: usize = 20;
const SHORT: usize = 20;
/// Seconds of one pause.
const MOST_PAUSE: f64 = 60.0;

/// How text becomes segments.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// Characters of the first segment of a text that is longer than `longest`, so that its sound is there soon: 20 to 1000, of which
    /// `longest` at most are used.
    pub first: usize,
    /// Characters of a segment at most: 20 to 1000.
    pub longest: usize,
    /// Seconds of silence between sentences, 0 to 60.
    pub sentence_pause: f64,
    /// Seconds of silence between paragraphs, and between lines that are not wrapped in the middle of a sentence.
    pub paragraph_pause: f64,
    /// The text's language, an ISO 639 code.
    pub language: String,
}

impl Default for Split {
    fn default() -> Self {
        Self { first: 100, longest: 280, sentence_pause: 0.15, paragraph_pause: 0.5, language: "en".to_owned() }
    }
}

impl Split {
    /// The same with segments of at most `longest` characters: what a model speaks well in one go (`config().text.longest`).
    pub fn within(self, longest: usize) -> Self {
        Self { first: self.first.min(longest), longest: self.longest.min(longest), ..self }
    }

    fn check(&self) -> Result<()> {
        let whole = |name: &str, value: usize, range: RangeInclusive<usize>| {
            let expected = format!("expected a whole number from {} to {}", range.start(), range.end());
            let error = || Error::Argument(format!("split.{name}: {expected}, got {value}"));
            range.contains(&value).then_some(()).ok_or_else(error)
        };
        whole("longest", self.longest, 20..=1000)?;
        whole("first", self.first, 20..=1000)?;
        for (name, value) in [("sentence_pause", self.sentence_pause), ("paragraph_pause", self.paragraph_pause)] {
            if !(0.0..=MOST_PAUSE).contains(&value) {
                return Err(Error::Argument(format!("split.{name}: expected seconds from 0 to {MOST_PAUSE}, got {value}")));
            }
        }
        Ok(())
    }
}

/// One piece of a text, spoken by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// Its number, from 0.
    pub index: usize,
    /// What is spoken; empty for a pause alone, at the beginning of a text (unless nothing else was asked for).
    pub text: String,
    /// Seconds of silence behind it.
    pub pause_after: f64,
    /// Its own seed: the text's for segment 0, else derived from it and the number ([`draws::derived`]).
    pub seed: u64,
    /// Whether a paragraph or a line begins with it.
    pub start_of_paragraph: bool,
}

/// What `text` becomes when it is longer than `split.longest` characters or has pauses (`[pause 0.5s]`, `[pause:500ms]`).
///
/// Sentences of a paragraph are filled up to the limit; a longer one is cut behind a clause, else between words, else
/// anywhere, never inside a tag, a number or an abbreviation; no short rest stays alone. Other texts are one segment,
/// unchanged. Lines without anything to speak are left out.
///
/// # Errors
/// [`Error::Text`] for a long text, or one with pauses, that has no word, and for a pause above 60 s; [`Error::Argument`] for limits out of range.
///
/// ```
/// use chatterbox_turbo::segments::{Split, segments};
/// let found = segments("Hello there. [pause 0.5s] Good to see you.", 7, &Split::default())?;
/// assert_eq!(found.iter().map(|s| (s.text.as_str(), s.pause_after)).collect::<Vec<_>>(), [("Hello there.", 0.5), ("Good to see you.", 0.0)]);
/// # Ok::<(), chatterbox_turbo::Error>(())
/// ```
pub fn segments(text: &str, seed: u64, split: &Split) -> Result<Vec<Segment>> {
    split.check()?;
    let characters: Vec<char> = text.chars().collect();
    let parts = parts(&characters)?;
    if parts.len() == 1 && characters.len() <= split.longest {
        let text = text.to_owned();
        return Ok(vec![Segment { index: 0, text, pause_after: 0.0, seed, start_of_paragraph: true }]);
    }
    let mut room = if characters.len() > split.longest { split.first.min(split.longest) } else { split.longest };
    let mut found: Vec<Segment> = Vec::new();
    let (mut fresh, mut paused) = (true, false);
    for (part, pause) in parts {
        let before = found.len();
        for (paragraph, begins) in marks::paragraphs(part, fresh) {
            let pieces = pieces(paragraph, split, room);
            for (k, (words, pauses)) in filled(pieces, split.longest, room).into_iter().enumerate() {
                let pause_after = if pauses { split.sentence_pause } else { 0.0 };
                found.push(Segment { index: 0, text: words, pause_after, seed, start_of_paragraph: begins && k == 0 });
            }
            if let Some(last) = found.last_mut() {
                last.pause_after = split.paragraph_pause;
            }
            room = split.longest;
        }
        let spoken = found.len() > before;
        fresh = part[trimmed(part)..].iter().any(|&c| marks::breaks(c)) || (fresh && !spoken);
        if let Some(pause) = pause {
            if found.is_empty() {
                found.push(Segment { index: 0, text: String::new(), pause_after: 0.0, seed, start_of_paragraph: true });
            }
            if let Some(last) = found.last_mut() {
                last.pause_after = if paused && !spoken { last.pause_after + pause } else { pause };
            }
            paused = true;
        } else if (spoken || !paused)
            && let Some(last) = found.last_mut()
        {
            last.pause_after = 0.0;
        }
    }
    if found.iter().all(|segment| segment.text.is_empty()) {
        return Err(Error::Text(format!("text: expected words, found {} characters without any", characters.len())));
    }
    for (index, segment) in found.iter_mut().enumerate() {
        segment.index = index;
        segment.seed = draws::derived(seed, index as u64)?;
    }
    Ok(found)
}

/// The sentences of `text` in `language` (an ISO 639 code), whitespace included: joined, they are the text.
pub fn sentences<'a>(language: &str, text: &'a str) -> Vec<&'a str> {
    sentencex::segment(language, text)
}

/// Sentences, cut where they are longer than the limit: `first` for the first piece of all.
fn pieces(paragraph: &[char], split: &Split, first: usize) -> Vec<Piece> {
    let text: String = paragraph.iter().collect();
    let mut limit = first;
    let mut pieces = Vec::new();
    for sentence in sentences(&split.language, &text) {
        let sentence: Vec<char> = sentence.chars().collect();
        if marks::stripped(&sentence).len() <= limit {
            pieces.push(Piece { text: sentence, pause: true });
        } else {
            pieces.extend(cut(&sentence, limit, split.longest));
        }
        limit = split.longest;
    }
    pieces
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn told(text: &str) -> Vec<(String, f64, bool)> {
        let found = segments(text, 7, &Split::default()).unwrap();
        found.into_iter().map(|s| (s.text, s.pause_after, s.start_of_paragraph)).collect()
    }

    #[test]
    fn a_model_that_speaks_less_well_gets_shorter_segments() {
        let split = Split::default().within(80);
        assert_eq!((split.first, split.longest, split.language.as_str()), (80, 80, "en"));
        assert_eq!(split.clone().within(280), split);
        assert!(segments(&"word ".repeat(100), 7, &split).unwrap().iter().all(|s| s.text.len() <= 80 + SLACK));
    }

    #[test]
    fn the_first_segment_is_never_longer_than_the_others_may_be() {
        let text = "word ".repeat(100);
        let shorter = segments(&text, 7, &Split { longest: 50, ..Split::default() });
        assert_eq!(shorter.ok(), segments(&text, 7, &Split { first: 50, longest: 50, ..Split::default() }).ok());
    }

    #[test]
    fn a_short_text_is_left_alone() {
        for text in ["", " \n", "A.\n\nB.", &"x".repeat(280)] {
            assert_eq!(told(text), [(text.to_owned(), 0.0, true)]);
        }
    }

    #[test]
    fn pauses_and_paragraphs() {
        let found = told("[pause:500ms]One. [PAUSE 1 s]\nTwo [pause 0.25s] three.\n\n[pause 61s");
        let expected =
            [("", 0.5, true), ("One.", 1.0, true), ("Two", 0.25, true), ("three.", 0.5, false), ("[pause 61s", 0.0, true)];
        assert_eq!(found, expected.map(|(text, pause, begins)| (text.to_owned(), pause, begins)));
        assert!(matches!(segments("a [pause 61s]", 7, &Split::default()), Err(Error::Text(_))));
        assert!(matches!(segments("[pause 1s]", 7, &Split::default()), Err(Error::Text(_))));
    }

    #[test]
    fn long_text_keeps_to_the_limits_and_loses_nothing() {
        let text = "Dr. Smith paid 1 000 000 crowns, or so they said [laugh] in the U.S. paper; who would know? ".repeat(40);
        let found = segments(&text, 7, &Split::default()).unwrap();
        assert!(found[0].text.len() <= 100 && found.iter().all(|s| s.text.len() <= 280 + SLACK));
        assert_eq!(found.iter().map(|s| s.text.as_str()).collect::<Vec<_>>().join(" "), text.trim_end());
        assert!(found.iter().enumerate().all(|(i, s)| s.index == i && s.seed == draws::derived(7, i as u64).unwrap()));
    }

    #[test]
    fn limits_are_checked() {
        for split in [
            Split { longest: 19, ..Split::default() },
            Split { first: 1001, ..Split::default() },
            Split { sentence_pause: f64::NAN, ..Split::default() },
        ] {
            assert!(matches!(segments("a", 7, &split), Err(Error::Argument(_))));
        }
    }
}

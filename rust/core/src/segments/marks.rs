//! What the characters of a text mean to the one who cuts it: pauses, paragraphs, places.

use super::MOST_PAUSE;
use crate::{Error, Result};

/// A clause may end with one of these before whitespace,
const CLAUSE: &str = ",;:)]\u{2014}\u{2013}\u{2026}\"\u{201d}";
/// or with one of these before anything.
const WIDE_CLAUSE: &str = "\u{ff0c}\u{3001}\u{ff1b}\u{ff1a}\u{2014}";
const SENTENCE_ENDS: &str = ".!?\u{2026}:;\u{3002}\u{ff01}\u{ff1f}\"\u{201d}')]*-\u{2014}";
/// Characters that nobody speaks: punctuation, symbols, whitespace.
const MUTE: [(u32, u32); 25] = [
    (0x00, 0x2f),
    (0x3a, 0x40),
    (0x5b, 0x60),
    (0x7b, 0xa9),
    (0xab, 0xb1),
    (0xb4, 0xb4),
    (0xb6, 0xb8),
    (0xbb, 0xbf),
    (0xd7, 0xd7),
    (0xf7, 0xf7),
    (0x1680, 0x1680),
    (0x2000, 0x206f),
    (0x2190, 0x2bff),
    (0x3000, 0x3004),
    (0x3008, 0x3020),
    (0x3030, 0x3030),
    (0xfe00, 0xfe0f),
    (0xff00, 0xff0f),
    (0xff1a, 0xff20),
    (0xff3b, 0xff40),
    (0xff5b, 0xff65),
    (0x1f000, 0x1faff),
    (0xe0020, 0xe007f),
    (0x200b, 0x200d),
    (0xfeff, 0xfeff),
];
/// Characters that belong to the one before.
const JOINED: [(u32, u32); 6] =
    [(0x300, 0x36f), (0x200c, 0x200d), (0x20d0, 0x20ff), (0xfe00, 0xfe0f), (0x1f3fb, 0x1f3ff), (0xe0020, 0xe007f)];
/// Characters of a tag between its brackets, at most.
const TAG: usize = 40;

fn within(character: char, ranges: &[(u32, u32)]) -> bool {
    ranges.iter().any(|&(low, high)| (low..=high).contains(&u32::from(character)))
}

pub(super) fn mute(character: char) -> bool {
    within(character, &MUTE)
}

pub(super) fn joined(character: char) -> bool {
    within(character, &JOINED)
}

/// Whether a line ends here.
pub(super) fn breaks(character: char) -> bool {
    matches!(character, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// The length without whitespace at the end.
pub(super) fn trimmed(text: &[char]) -> usize {
    text.iter().rposition(|c| !c.is_whitespace()).map_or(0, |last| last + 1)
}

/// Without whitespace at both ends.
pub(super) fn stripped(text: &[char]) -> &[char] {
    let end = trimmed(text);
    let start = text.iter().position(|c| !c.is_whitespace()).unwrap_or(end);
    &text[start..end]
}

/// The text between pauses, each with the seconds of the pause behind it; none at the end.
pub(super) fn parts(text: &[char]) -> Result<Vec<(&[char], Option<f64>)>> {
    let (mut found, mut start, mut at) = (Vec::new(), 0, 0);
    while at < text.len() {
        let Some((seconds, length)) = pause(&text[at..]) else {
            at += 1;
            continue;
        };
        if seconds > MOST_PAUSE {
            let mark: String = text[at..at + length].iter().collect();
            return Err(Error::Text(format!("text: {mark}: expected a pause of at most {MOST_PAUSE} s")));
        }
        found.push((&text[start..at], Some(seconds)));
        at += length;
        start = at;
    }
    found.push((&text[start..], None));
    Ok(found)
}

/// `[pause 0.5s]`, `[pause:500ms]`: the seconds and the length of a pause that begins here.
fn pause(text: &[char]) -> Option<(f64, usize)> {
    if text.first() != Some(&'[') {
        return None;
    }
    let length = text.iter().take(48).position(|&c| c == ']')? + 1;
    let inner: String = text[1..length - 1].iter().collect();
    let (name, rest) = inner.split_at_checked(5)?;
    if !name.eq_ignore_ascii_case("pause") || !rest.starts_with([' ', ':']) {
        return None;
    }
    let rest = rest[1..].trim_start_matches(' ').to_ascii_lowercase();
    let (number, divisor) = match rest.strip_suffix("ms") {
        Some(number) => (number, 1000.0),
        None => (rest.strip_suffix('s')?, 1.0),
    };
    let number = number.trim_end_matches(' ');
    let digits = |part: &str| (1..=9).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let valid = number.split_once('.').map_or_else(|| digits(number), |(whole, rest)| digits(whole) && digits(rest));
    let value: f64 = valid.then(|| number.parse().ok())??;
    Some((value / divisor, length))
}

/// Paragraphs with something to speak, and whether each begins one (the first may go on with what was before a pause).
pub(super) fn paragraphs(part: &[char], mut fresh: bool) -> Vec<(&[char], bool)> {
    let (mut found, mut start, mut from) = (Vec::new(), 0, 0);
    loop {
        let mark = part[from..].iter().position(|&c| breaks(c)).map(|at| from + at);
        let end = mark.unwrap_or(part.len());
        let after = mark.map_or(end, |at| at + if part[at..].starts_with(&['\r', '\n']) { 2 } else { 1 });
        from = after;
        let line = &part[start..end];
        let goes_on = mark.is_some() && part.get(after).is_some_and(|c| c.is_lowercase());
        if goes_on && !trimmed(line).checked_sub(1).is_some_and(|last| SENTENCE_ENDS.contains(line[last])) {
            continue; // a wrapped line
        }
        if !line.iter().all(|&c| mute(c)) {
            found.push((line, fresh));
            fresh = true;
        } else if mark.is_some() {
            fresh = true;
        }
        start = after;
        if mark.is_none() {
            return found;
        }
    }
}

/// What a cut before a character would be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    Tag,
    Word,
    Between,
    Clause,
}

/// Every place of a sentence, its end included. Within a word counts what stands behind an abbreviation's full stop, and
/// between two numbers.
pub(super) fn places(sentence: &[char]) -> Vec<Place> {
    let mut places = vec![Place::Word; sentence.len() + 1];
    let mut solid = [None, None]; // the last two characters that are no whitespace
    for i in 1..sentence.len() {
        let (before, after) = (sentence[i - 1], sentence[i]);
        if !before.is_whitespace() {
            solid = [solid[1], Some(before)];
        }
        if WIDE_CLAUSE.contains(before) {
            places[i] = Place::Clause;
        } else if before.is_whitespace() && !after.is_whitespace() {
            places[i] = match solid {
                [_, None] => Place::Word,
                [_, Some(last)] if CLAUSE.contains(last) => Place::Clause,
                [Some('.'), Some('.')] => Place::Clause,
                [_, Some('.')] => Place::Word,
                [_, Some(last)] if last.is_ascii_digit() && after.is_ascii_digit() => Place::Word,
                _ => Place::Between,
            };
        }
    }
    let mut open: Option<usize> = None;
    for (i, &character) in sentence.iter().enumerate() {
        match (character, open) {
            ('[', _) => open = Some(i),
            ('\n', _) => open = None,
            (']', Some(start)) => {
                if (2..=TAG + 1).contains(&(i - start)) {
                    places[start + 1..=i].fill(Place::Tag);
                }
                open = None;
            }
            _ => {}
        }
    }
    places
}

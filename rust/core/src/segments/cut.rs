//! Sentences cut to the limit, and put together up to it.

use super::marks::{self, Place, places, stripped, trimmed};
use super::{SHORT, SLACK};

/// A stretch of a paragraph, whitespace included, that is not cut any more; `pause`: would a reader pause behind it?
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) text: Vec<char>,
    pub(super) pause: bool,
}

/// Pieces of a sentence, about equally long: the first at most `first` characters, the others `longest`.
pub(super) fn cut(sentence: &[char], first: usize, longest: usize) -> Vec<Piece> {
    let places = places(sentence);
    let end = trimmed(sentence);
    let (mut start, mut limit) = (0, first);
    let mut pieces = Vec::new();
    while end - start > limit {
        let even = (end - start).div_ceil((end - start).div_ceil(limit));
        let ideal = start + if limit == longest { even } else { limit };
        let window = start + limit / 3..=start + limit;
        let nearest = |wanted: Place| window.clone().filter(|&i| places[i] == wanted).min_by_key(|&i| (i.abs_diff(ideal), i));
        let early = || (start + 1..start + limit / 3).rev().find(|&i| matches!(places[i], Place::Between | Place::Clause));
        let at = nearest(Place::Clause).or_else(|| nearest(Place::Between)).or_else(early).unwrap_or_else(|| {
            let mut at = ideal;
            while at > start + 1 && (places[at] == Place::Tag || marks::joined(sentence[at])) {
                at -= 1;
            }
            at
        });
        pieces.push(Piece { text: sentence[start..at].to_vec(), pause: places[at] == Place::Clause });
        (start, limit) = (at, longest);
    }
    pieces.push(Piece { text: sentence[start..].to_vec(), pause: true });
    pieces
}

/// Pieces of a paragraph put together up to the limit, each with whether a reader pauses behind it.
pub(super) fn filled(pieces: Vec<Piece>, longest: usize, first: usize) -> Vec<(String, bool)> {
    let mut groups: Vec<Vec<Piece>> = Vec::new();
    let limit = |number: usize| if number == 1 { first } else { longest };
    for piece in pieces {
        let number = groups.len();
        if let Some(group) = groups.last_mut() {
            let room = limit(number) + if length(group, None) < SHORT { SLACK } else { 0 };
            if length(group, Some(&piece)) <= room {
                group.push(piece);
                continue;
            }
        }
        groups.push(vec![piece]);
    }
    let count = groups.len();
    if let [.., before, last] = groups.as_mut_slice()
        && length(last, None) < SHORT
    {
        let together: Vec<Piece> = before.iter().chain(last.iter()).cloned().collect();
        let moved: Vec<Piece> = before.last().into_iter().chain(last.iter()).cloned().collect();
        if length(&together, None) <= limit(count - 1) + SLACK {
            groups.truncate(count - 2);
            groups.push(together);
        } else if before.len() > 1 && length(&moved, None) <= longest {
            before.pop();
            *last = moved;
        }
    }
    let whole = |group: &Vec<Piece>| {
        let text: Vec<char> = group.iter().flat_map(|piece| &piece.text).copied().collect();
        (stripped(&text).iter().collect(), group.last().is_some_and(|piece| piece.pause))
    };
    groups.iter().map(whole).collect()
}

/// Characters of a group, and of one more piece, without whitespace at both ends.
fn length(group: &[Piece], more: Option<&Piece>) -> usize {
    let text: Vec<char> = group.iter().chain(more).flat_map(|piece| &piece.text).copied().collect();
    stripped(&text).len()
}

//! SentencePiece's byte-pair encoding: of all neighbouring symbols that make a token, those whose token has the highest
//! score are merged first, the leftmost of equals. A run of characters without a token is one unknown token.
//!
//! A text is not merged as a whole. Between two characters that are side by side in no token, nothing is ever merged,
//! so the text is split there and the parts are merged on their own, which changes no id. Parts are mostly words, which
//! repeat.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::ops::Range;

use super::normal::Normalizer;
use super::tokens::Tokens;

/// SentencePiece's space.
pub const SPACE: char = '\u{2581}';

/// What merging needs besides the tokens.
pub struct Merger {
    neighbours: Neighbours,
    /// The token of each byte, for characters that are not tokens.
    bytes: [Option<u32>; 256],
    /// For characters whose bytes are not tokens either.
    unknown: Option<u32>,
    /// Whether a run of such characters is one token.
    fuses: bool,
}

impl Merger {
    /// `unknown` is the token of characters that are not tokens and whose bytes are not.
    pub fn new(tokens: &Tokens, unknown: Option<u32>) -> Self {
        let fuses = unknown.is_some_and(|id| tokens.attributes[id as usize].unknown);
        Self { neighbours: Neighbours::new(tokens), bytes: tokens.bytes(), unknown, fuses }
    }

    /// Appends the ids of a text as `normalizer` has made it, whose symbols are not merged.
    pub fn encode(&self, tokens: &Tokens, text: &str, normalizer: &Normalizer, out: &mut Vec<u32>) {
        let (first, mut known) = (out.len(), HashMap::new());
        let mut scratch = Scratch::default();
        if normalizer.has_symbols() {
            let (mut from, mut at) = (0, 0);
            while at < text.len() {
                let Some((len, id)) = normalizer.symbol(&text[at..]) else {
                    at += text[at..].chars().next().map_or(1, char::len_utf8);
                    continue;
                };
                self.encode_between(tokens, &text[from..at], &mut known, &mut scratch, out);
                out.push(id);
                at += len;
                from = at;
            }
            self.encode_between(tokens, &text[from..], &mut known, &mut scratch, out);
        } else {
            self.encode_between(tokens, text, &mut known, &mut scratch, out);
        }
        if self.fuses {
            let mut kept = first;
            for at in first..out.len() {
                if at == first || Some(out[at]) != self.unknown || out[at] != out[kept - 1] {
                    out[kept] = out[at];
                    kept += 1;
                }
            }
            out.truncate(kept);
        }
    }

    /// Appends the ids of a text without symbols. `known` has the places of the ids of parts.
    fn encode_between<'t>(
        &self,
        tokens: &Tokens,
        text: &'t str,
        known: &mut HashMap<&'t str, Range<usize>>,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) {
        let mut rest = text;
        while !rest.is_empty() {
            let part;
            (part, rest) = rest.split_at(self.neighbours.part(rest));
            if let Some(ids) = known.get(part) {
                out.extend_from_within(ids.clone());
            } else {
                let start = out.len();
                self.merge(tokens, part, scratch, out);
                known.insert(part, start..out.len());
            }
        }
    }

    /// Appends the ids of a part.
    fn merge(&self, tokens: &Tokens, part: &str, scratch: &mut Scratch, out: &mut Vec<u32>) {
        let Scratch { symbols, queue } = scratch;
        symbols.clear();
        symbols.extend(part.char_indices().enumerate().map(|(i, (start, c))| Symbol {
            start,
            len: c.len_utf8(),
            prev: i.checked_sub(1),
            next: Some(i + 1),
        }));
        if let Some(last) = symbols.last_mut() {
            last.next = None;
        }

        let offer = |symbols: &[Symbol], queue: &mut BinaryHeap<Pair>, left: usize, right: usize| {
            let (start, len) = (symbols[left].start, symbols[left].len + symbols[right].len);
            if let Some(id) = tokens.id(&part.as_bytes()[start..start + len]) {
                let score = tokens.scores[id as usize];
                queue.push(Pair { score, left: Reverse(left), right, len });
            }
        };
        for right in 1..symbols.len() {
            offer(symbols, queue, right - 1, right);
        }
        while let Some(Pair { left: Reverse(left), right, len, .. }) = queue.pop() {
            // A symbol that was merged into another since has length 0, and one that grew changes the sum.
            if symbols[left].len == 0
                || symbols[right].len == 0
                || symbols[left].len + symbols[right].len != len
            {
                continue;
            }
            let next = symbols[right].next;
            symbols[right].len = 0;
            symbols[left].len = len;
            symbols[left].next = next;
            if let Some(next) = next {
                symbols[next].prev = Some(left);
                offer(symbols, queue, left, next);
            }
            if let Some(prev) = symbols[left].prev {
                offer(symbols, queue, prev, left);
            }
        }
        for symbol in symbols.iter().filter(|s| s.len > 0) {
            let text = &part.as_bytes()[symbol.start..symbol.start + symbol.len];
            if let Some(id) = tokens.id(text) {
                out.push(id);
                continue;
            }
            let bytes = || text.iter().map(|&b| self.bytes[usize::from(b)]);
            if bytes().all(|id| id.is_some()) {
                out.extend(bytes().flatten());
            } else {
                out.extend(self.unknown);
            }
        }
    }
}

/// Memory for merging, reused from part to part.
#[derive(Default)]
struct Scratch {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Pair>,
}

/// A symbol of the part, as a range of bytes; of length 0 once it is merged into the one before it.
struct Symbol {
    start: usize,
    len: usize,
    prev: Option<usize>,
    next: Option<usize>,
}

/// Two symbols that make a token of `len` bytes.
struct Pair {
    score: f32,
    left: Reverse<usize>,
    right: usize,
    len: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |p: &Self| (p.left, p.right, p.len);
        self.score.total_cmp(&other.score).then_with(|| key(self).cmp(&key(other)))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pair {}

/// The pairs of characters that are side by side in any token.
struct Neighbours {
    /// Pairs of ASCII characters, where [`SPACE`] has the index of the space.
    ascii: Box<[[bool; 128]; 128]>,
    others: HashSet<(char, char)>,
}

impl Neighbours {
    fn new(tokens: &Tokens) -> Self {
        let mut all = Self { ascii: Box::new([[false; 128]; 128]), others: HashSet::new() };
        for (_, text) in tokens.iter() {
            let Ok(text) = std::str::from_utf8(text) else { continue };
            for (a, b) in text.chars().zip(text.chars().skip(1)) {
                match Self::ascii(a, b) {
                    Some((a, b)) => all.ascii[a][b] = true,
                    None => _ = all.others.insert((a, b)),
                }
            }
        }
        all
    }

    /// The indices of a pair in the table for ASCII.
    fn ascii(a: char, b: char) -> Option<(usize, usize)> {
        let index = |c: char| match c {
            SPACE => Some(usize::from(b' ')),
            c => c.is_ascii().then_some(c as usize),
        };
        index(a).zip(index(b))
    }

    /// Bytes up to the first pair of characters that is in no token.
    fn part(&self, text: &str) -> usize {
        let mut chars = text.char_indices();
        let Some((_, mut before)) = chars.next() else { return 0 };
        for (at, c) in chars {
            let joined = match Self::ascii(before, c) {
                Some((a, b)) => self.ascii[a][b],
                None => self.others.contains(&(before, c)),
            };
            if !joined {
                return at;
            }
            before = c;
        }
        text.len()
    }
}

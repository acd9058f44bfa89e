//! SentencePiece's byte-pair encoding: of all neighbours that make a token, those whose token has the highest
//! score are joined first, the leftmost of equals.
//!
//! A text is not merged as a whole. Where no token has the two characters at a place side by side, nothing is
//! ever joined across that place, so the parts between such places are merged on their own, which changes no id;
//! they are mostly words, and words come again.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::ops::Range;

use super::tokens::Tokens;

/// SentencePiece's space.
pub const SPACE: char = '\u{2581}';

/// What merging needs besides the tokens.
pub struct Merger {
    neighbours: Neighbours,
    /// For each byte the token for it, where a character has none.
    bytes: [Option<u32>; 256],
    /// Where its bytes have none either.
    unknown: Option<u32>,
}

impl Merger {
    /// `unknown` stands for characters that neither are tokens nor have bytes that are.
    pub fn new(tokens: &Tokens, unknown: Option<u32>) -> Self {
        Self { neighbours: Neighbours::new(tokens), bytes: tokens.bytes(), unknown }
    }

    /// Appends the ids of a text, with a space before it if `prefix`.
    pub fn encode(&self, tokens: &Tokens, text: &str, prefix: bool, out: &mut Vec<u32>) {
        let mut escaped = String::with_capacity(text.len() + text.len() / 2);
        escaped.extend(prefix.then_some(SPACE));
        escaped.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));

        let mut known: HashMap<&str, Range<usize>> = HashMap::new();
        let mut scratch = Scratch::default();
        let mut rest = escaped.as_str();
        while !rest.is_empty() {
            let part;
            (part, rest) = rest.split_at(self.neighbours.part(rest));
            if let Some(ids) = known.get(part) {
                out.extend_from_within(ids.clone());
            } else {
                let start = out.len();
                self.merge(tokens, part, &mut scratch, out);
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
            // A symbol that was joined to another since has no length, and one that grew makes another sum.
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

/// What merging works in, kept from part to part.
#[derive(Default)]
struct Scratch {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Pair>,
}

/// A piece of the part, by bytes; without length once it is joined to the one before it.
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

/// Which characters stand side by side in a token.
struct Neighbours {
    /// For ASCII, with [`SPACE`] in the place of the space that a text no longer has.
    ascii: Box<[[bool; 128]; 128]>,
    others: HashSet<(char, char)>,
}

impl Neighbours {
    fn new(tokens: &Tokens) -> Self {
        let mut all = Self { ascii: Box::new([[false; 128]; 128]), others: HashSet::new() };
        for (_, text) in tokens.iter() {
            let Ok(text) = std::str::from_utf8(text) else { continue };
            for (a, b) in text.chars().zip(text.chars().skip(1)) {
                match Self::place(a, b) {
                    Some((a, b)) => all.ascii[a][b] = true,
                    None => _ = all.others.insert((a, b)),
                }
            }
        }
        all
    }

    fn place(a: char, b: char) -> Option<(usize, usize)> {
        let place = |c: char| match c {
            SPACE => Some(usize::from(b' ')),
            c => c.is_ascii().then_some(c as usize),
        };
        place(a).zip(place(b))
    }

    /// The bytes up to the first place where no token goes on.
    fn part(&self, text: &str) -> usize {
        let mut chars = text.char_indices();
        let Some((_, mut before)) = chars.next() else { return 0 };
        for (at, c) in chars {
            let joined = match Self::place(before, c) {
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

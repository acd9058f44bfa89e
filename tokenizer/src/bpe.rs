//! Byte-level byte-pair encoding: a text is split into words, and in each word neighbouring symbols are merged in the
//! order of the list of merges, the leftmost of equals first.
//!
//! Tokens are written in the byte alphabet (256 printable characters, one for each byte) or, in Gemma 4, as plain text.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ops::Range;

use super::pre::{Splitter, table};
use super::spm::SPACE;
use super::tokens::Tokens;
use crate::error::{Error, Result};

/// The symbol of a character that is in no merge and no token.
const NONE: u32 = u32::MAX;

/// The merges, and the symbols of bytes or characters.
///
/// A symbol is a token's id, or a number above all ids for a text that is in merges but not a token.
pub struct Merger {
    splitter: Splitter,
    /// Pairs of symbols, with the merge's rank in the list and the symbol that it makes.
    merges: HashMap<(u32, u32), (u32, u32)>,
    /// A word that is a token is not built up by merges.
    ignore_merges: bool,
    tokens: u32,
    alphabet: Alphabet,
}

/// The symbols that a word has before merging.
enum Alphabet {
    /// Bytes, each with its character of the byte alphabet and its symbol.
    Bytes { chars: [char; 256], symbols: [u32; 256] },
    /// Characters: symbols of those that are in merges but are not tokens, and the tokens of bytes for all others.
    Raw { others: HashMap<char, u32>, bytes: [Option<u32>; 256] },
}

impl Merger {
    /// `merges` are pairs of texts with a space between them; entries without a space are ignored, as in llama.cpp.
    ///
    /// # Errors
    /// [`Error::UnknownPreTokenizer`]; [`Error::InvalidVocabulary`] for more than 2^32 tokens and merges.
    pub fn new<'a>(tokens: &Tokens, merges: impl Iterator<Item = &'a [u8]>, pre: &str) -> Result<Self> {
        let (splitter, row) = (Splitter::named(pre)?, table::find(pre));
        let too_many = || {
            let why = "the vocabulary must have fewer than 2^32 tokens and merges".into();
            Error::InvalidVocabulary { why }
        };
        let count = u32::try_from(tokens.len()).map_err(|_| too_many())?;
        let mut others: HashMap<Vec<u8>, u32> = HashMap::new();
        let mut next = count;
        let mut symbol = |text: &[u8]| -> Result<u32> {
            if let Some(id) = tokens.id(text).or_else(|| others.get(text).copied()) {
                return Ok(id);
            }
            others.insert(text.to_vec(), next);
            next = next.checked_add(1).filter(|next| *next < NONE).ok_or_else(too_many)?;
            Ok(next - 1)
        };
        let mut table = HashMap::new();
        for (merge, rank) in merges.zip(0..) {
            // A token may begin with a space.
            let Some(space) = merge.iter().skip(1).position(|&b| b == b' ').map(|at| at + 1) else {
                continue;
            };
            let (left, right) = (&merge[..space], &merge[space + 1..]);
            if right.is_empty() {
                continue;
            }
            let pair = (symbol(left)?, symbol(right)?);
            let joined = symbol(&[left, right].concat())?;
            table.entry(pair).or_insert((rank, joined));
        }
        let alphabet = if row.is_some_and(|row| row.raw) {
            let others = others.into_iter().filter_map(|(text, symbol)| {
                let mut chars = str::from_utf8(&text).ok()?.chars();
                chars.next().filter(|_| chars.next().is_none()).map(|c| (c, symbol))
            });
            // Only `<0xNN>` tokens are ever used: a character of one byte that is a token has that symbol already.
            Alphabet::Raw { others: others.collect(), bytes: tokens.bytes() }
        } else {
            let chars = byte_chars();
            let symbols = chars.map(|c| {
                let mut text = [0; 4];
                let text = c.encode_utf8(&mut text).as_bytes();
                tokens.id(text).or_else(|| others.get(text).copied()).unwrap_or(NONE)
            });
            Alphabet::Bytes { chars, symbols }
        };
        let ignore_merges = row.is_some_and(|row| row.ignore_merges);
        Ok(Self { splitter, merges: table, ignore_merges, tokens: count, alphabet })
    }

    /// Appends the ids of a text; with `escape`, its spaces are U+2581.
    pub fn encode(&self, tokens: &Tokens, text: &str, escape: bool, out: &mut Vec<u32>) {
        let escaped;
        let text = if escape {
            escaped = text.replace(' ', SPACE.encode_utf8(&mut [0; 4]));
            &escaped
        } else {
            text
        };
        let mut known: HashMap<&str, Range<usize>> = HashMap::new();
        let mut scratch = Scratch::default();
        self.splitter.split(text, &mut |word| {
            if let Some(ids) = known.get(word) {
                out.extend_from_within(ids.clone());
            } else {
                let start = out.len();
                self.word(tokens, word, &mut scratch, out);
                known.insert(word, start..out.len());
            }
        });
    }

    /// Appends the ids of a word.
    fn word(&self, tokens: &Tokens, word: &str, scratch: &mut Scratch, out: &mut Vec<u32>) {
        let whole = match &self.alphabet {
            Alphabet::Bytes { chars, .. } if self.ignore_merges => {
                let text: String = word.bytes().map(|b| chars[usize::from(b)]).collect();
                tokens.id(text.as_bytes())
            }
            Alphabet::Raw { .. } if self.ignore_merges || word.bytes().all(|b| b == b'\n') => {
                tokens.id(word.as_bytes())
            }
            _ => None,
        };
        if let Some(id) = whole {
            out.push(id);
            return;
        }
        let symbols = &mut scratch.symbols;
        symbols.clear();
        let mut add = |symbol, start, end| {
            let prev = symbols.len().checked_sub(1);
            symbols.push(Symbol { symbol, start, end, prev, next: Some(symbols.len() + 1) });
        };
        match &self.alphabet {
            Alphabet::Bytes { symbols, .. } => {
                word.bytes().enumerate().for_each(|(i, b)| add(symbols[usize::from(b)], i, i + 1));
            }
            Alphabet::Raw { others, .. } => {
                for (start, c) in word.char_indices() {
                    let end = start + c.len_utf8();
                    let id = tokens.id(&word.as_bytes()[start..end]);
                    add(id.or_else(|| others.get(&c).copied()).unwrap_or(NONE), start, end);
                }
            }
        }
        if let Some(last) = symbols.last_mut() {
            last.next = None;
        }
        self.merge(scratch);
        for symbol in scratch.symbols.iter().filter(|s| s.start < s.end) {
            if symbol.symbol < self.tokens {
                out.push(symbol.symbol);
            } else {
                self.bytes(tokens, &word.as_bytes()[symbol.start..symbol.end], out);
            }
        }
    }

    /// Applies the merges, lowest rank first.
    fn merge(&self, Scratch { symbols, queue }: &mut Scratch) {
        let offer = |symbols: &[Symbol], queue: &mut BinaryHeap<Pair>, left: usize, right: usize| {
            let pair = (symbols[left].symbol, symbols[right].symbol);
            if let Some(&(rank, joined)) = self.merges.get(&pair) {
                queue.push(Reverse((rank, left, right, pair, joined)));
            }
        };
        for right in 1..symbols.len() {
            offer(symbols, queue, right - 1, right);
        }
        while let Some(Reverse((_, left, right, pair, joined))) = queue.pop() {
            // Either symbol may have been merged with another since.
            if symbols[left].next != Some(right) || (symbols[left].symbol, symbols[right].symbol) != pair {
                continue;
            }
            let Symbol { end, next, .. } = symbols[right];
            let gone = &mut symbols[right];
            (gone.end, gone.next) = (gone.start, None);
            let grown = &mut symbols[left];
            (grown.symbol, grown.end, grown.next) = (joined, end, next);
            if let Some(next) = next {
                symbols[next].prev = Some(left);
                offer(symbols, queue, left, next);
            }
            if let Some(prev) = symbols[left].prev {
                offer(symbols, queue, prev, left);
            }
        }
    }

    /// Appends the tokens of single bytes, for a symbol that is not a token.
    fn bytes(&self, tokens: &Tokens, bytes: &[u8], out: &mut Vec<u32>) {
        for &b in bytes {
            match &self.alphabet {
                Alphabet::Bytes { chars, .. } => {
                    // The UTF-8 bytes of the character, of which ASCII ones can be tokens.
                    let mut text = [0; 4];
                    let text = chars[usize::from(b)].encode_utf8(&mut text);
                    out.extend(text.bytes().filter_map(|b| tokens.id(&[b])));
                }
                Alphabet::Raw { bytes, .. } => out.extend(bytes[usize::from(b)]),
            }
        }
    }
}

/// Memory for merging, reused from word to word.
#[derive(Default)]
struct Scratch {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Pair>,
}

/// A symbol of the word; empty once it is merged into the one before it.
#[derive(Clone, Copy)]
struct Symbol {
    symbol: u32,
    start: usize,
    end: usize,
    prev: Option<usize>,
    next: Option<usize>,
}

/// Rank, indices of both symbols, the symbols themselves, and the symbol that they make.
type Pair = Reverse<(u32, usize, usize, (u32, u32), u32)>;

/// The byte alphabet: printable characters of Latin-1 stand for themselves, the other bytes for the characters from
/// U+0100 on, in their order. Source: GPT-2's encoder.
pub fn byte_chars() -> [char; 256] {
    let mut others = '\u{100}'..;
    std::array::from_fn(|b| match b {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(b as u8),
        _ => others.next().unwrap_or('\0'),
    })
}

/// The byte that a character of the byte alphabet stands for.
pub fn byte_of(c: char) -> Option<u8> {
    let byte = match u32::from(c) {
        n @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => n,
        n @ 0x100..=0x120 => n - 0x100,
        n @ 0x121..=0x142 => n - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_has_every_byte_once() {
        let chars = byte_chars();
        assert_eq!((chars[b'a' as usize], chars[b' ' as usize], chars[0xad]), ('a', 'Ġ', 'Ń'));
        for (b, c) in chars.into_iter().enumerate() {
            assert_eq!(byte_of(c).map(usize::from), Some(b), "{c}");
        }
        assert_eq!(['\u{0}', ' ', '\u{7f}', '\u{ad}', '\u{144}', '▁'].map(byte_of), [None; 6]);
    }
}

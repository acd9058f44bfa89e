//! What a SentencePiece model does to a text before it is split: characters are replaced by a table, and extra spaces are
//! removed.
//!
//! The table (`precompiled_charsmap`) is a u32, the length of a double-array trie in bytes; the trie, of u32; and the
//! replacements, each of which ends in a zero byte. All numbers are little-endian. A unit of the trie has, from the lowest
//! bit: eight bits of its byte, one that says that a string ends behind it, one that says that its offset counts 256 as
//! one, and 22 bits of the offset; or, in the unit that an end leads to, the place of the replacement. Sources:
//! SentencePiece's normalizer.cc, and Darts-clone, whose tries these are.

use std::borrow::Cow;

use super::spm::SPACE;
use super::symbols::Symbols;
use crate::error::{Error, Result};

/// The longest string that is looked up in the table, in bytes: the longest in SentencePiece's own tables has 24.
const LONGEST: usize = 128;
/// The longest replacement, in bytes: NFKC's longest has 33.
const LONGEST_REPLACEMENT: usize = 128;

/// What is done to a text before it is split.
#[derive(Default)]
pub struct Normalizer {
    table: Option<Table>,
    /// Several spaces become one, and those at both ends are dropped.
    pub(crate) merge_spaces: bool,
    symbols: Option<Symbols>,
}

/// Whether a space is put before a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    None,
    Always,
    /// Unless the text begins with one.
    UnlessSpace,
}

/// A table of replacements.
struct Table {
    trie: Vec<u32>,
    replacements: Vec<u8>,
}

impl Normalizer {
    /// `charsmap` is the file's table; empty if there is none. With `merge_spaces`, several spaces become one, and those at both
    /// ends are dropped.
    ///
    /// # Errors
    /// [`Error::InvalidVocabulary`] for a table whose parts have other lengths than it says.
    pub fn new(charsmap: &[u8], merge_spaces: bool) -> Result<Self> {
        let table = match charsmap {
            [] => None,
            bytes => Some(Table::new(bytes).ok_or_else(|| {
                Error::InvalidVocabulary {
                    why:
                        "tokenizer.ggml.precompiled_charsmap is damaged: its parts are not as long as it says"
                            .into(),
                }
            })?),
        };
        Ok(Self { table, merge_spaces, symbols: None })
    }

    /// The same, for a model with these user-defined symbols.
    pub(crate) fn with(self, symbols: Option<Symbols>) -> Self {
        Self { symbols, ..self }
    }

    /// The text with its characters replaced.
    pub fn replaced<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.table.is_none() {
            return text.into();
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let (len, replacement) = self.replacement(rest, c);
            out.push_str(replacement);
            rest = &rest[len..];
        }
        out.into()
    }

    /// A text as it is split: with its characters replaced, without extra spaces, and with U+2581 for spaces. `prefix`
    /// says whether a space is put before it. User-defined symbols stay as they are.
    pub(crate) fn escaped(&self, text: &str, prefix: Prefix) -> String {
        let mut out = String::with_capacity(text.len() + text.len() / 2 + SPACE.len_utf8());
        let mut after_space = self.merge_spaces;
        // Most models only have their spaces replaced.
        let plain = self.table.is_none() && self.symbols.is_none() && !self.merge_spaces;
        push_escaped(&mut out, if plain { text } else { "" });
        let mut rest = if plain { "" } else { text };
        while let Some(c) = rest.chars().next() {
            let symbol = self.symbols.as_ref().and_then(|symbols| symbols.longest(rest));
            let (len, mut part) = match symbol {
                Some((len, _)) => (len, &rest[..len]),
                None => self.replacement(rest, c),
            };
            rest = &rest[len..];
            if after_space {
                part = part.trim_start_matches(' ');
            }
            if !part.is_empty() {
                after_space = self.merge_spaces && part.ends_with(' ');
                push_escaped(&mut out, part);
            }
        }
        if text.is_empty() || (self.merge_spaces && out.is_empty()) {
            return out;
        }
        let before = match prefix {
            Prefix::None => false,
            Prefix::Always => true,
            Prefix::UnlessSpace => !out.starts_with(SPACE),
        };
        if before {
            out.insert(0, SPACE);
        }
        if self.merge_spaces {
            out.truncate(out.trim_end_matches(SPACE).len());
        }
        out
    }

    /// The symbol that a text begins with, whose spaces are replaced: its length in bytes and its id.
    pub(crate) fn symbol(&self, text: &str) -> Option<(usize, u32)> {
        self.symbols.as_ref()?.longest(text)
    }

    /// Whether there are user-defined symbols.
    pub(crate) fn has_symbols(&self) -> bool {
        self.symbols.is_some()
    }

    /// What a text begins with, of which `c` is the first character: how many bytes, and what they become.
    fn replacement<'a>(&'a self, text: &'a str, c: char) -> (usize, &'a str) {
        match self.table.as_ref().and_then(|table| table.longest(text.as_bytes())) {
            // A string may end within a character if the table is damaged.
            Some((len, replacement)) if text.is_char_boundary(len) => (len, replacement),
            _ => (c.len_utf8(), &text[..c.len_utf8()]),
        }
    }
}

/// Appends a text with [`SPACE`] for spaces.
fn push_escaped(out: &mut String, text: &str) {
    for (i, part) in text.split(' ').enumerate() {
        if i > 0 {
            out.push(SPACE);
        }
        out.push_str(part);
    }
}

impl Table {
    fn new(bytes: &[u8]) -> Option<Self> {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (trie, replacements) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        let (units, []) = trie.as_chunks::<4>() else { return None };
        let trie: Vec<u32> = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        (!trie.is_empty()).then(|| Self { trie, replacements: replacements.to_vec() })
    }

    /// The longest string of the table that a text begins with, and what replaces it.
    fn longest(&self, text: &[u8]) -> Option<(usize, &str)> {
        let offset = |unit: u32| (unit >> 10) << ((unit & (1 << 9)) >> 6);
        let mut found = None;
        let mut at = offset(self.trie[0]);
        for (i, &byte) in text.iter().take(LONGEST).enumerate() {
            at ^= u32::from(byte);
            let Some(&unit) = self.trie.get(at as usize) else { break };
            if unit & (1 << 31 | 0xff) != u32::from(byte) {
                break;
            }
            at ^= offset(unit);
            if unit & (1 << 8) != 0 {
                found = self.trie.get(at as usize).map(|end| (i + 1, end & !(1 << 31)));
            }
        }
        let (len, place) = found?;
        let replacement = self.replacements.get(place as usize..)?;
        let end = replacement.iter().take(LONGEST_REPLACEMENT + 1).position(|&b| b == 0)?;
        Some((len, str::from_utf8(&replacement[..end]).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::table;

    #[test]
    fn characters_are_replaced_and_spaces_merged() {
        let table = table(&[(b'A', "a"), (b'\n', " "), (b'3', "three"), (b'-', "")]);
        let normalizer = Normalizer::new(&table, true).unwrap();
        assert_eq!(normalizer.replaced("AB\n\né-3-"), "aB  éthree");
        let bare = |text: &str| normalizer.escaped(text, Prefix::None);
        assert_eq!(
            (bare(" \nAB\n\né -  3 "), bare(" \n "), bare("")),
            ("aB▁é▁three".into(), "".into(), "".into())
        );
        let kept = Normalizer::new(&table, false).unwrap();
        let of =
            |text: &str| [Prefix::None, Prefix::Always, Prefix::UnlessSpace].map(|p| kept.escaped(text, p));
        assert_eq!(of(" A "), ["▁a▁", "▁▁a▁", "▁a▁"]);
        assert_eq!(of("B  "), ["B▁▁", "▁B▁▁", "▁B▁▁"]);
        assert_eq!((of("-"), of("")), (["", "▁", "▁"].map(String::from), ["", "", ""].map(String::from)));
        assert_eq!(normalizer.escaped(" A ", Prefix::Always), "▁a");
    }

    #[test]
    fn damaged_tables_are_refused() {
        let good = table(&[(b'A', "a")]);
        for bytes in [&good[..3], &good[..100], &[0, 0, 0, 0][..], &[3, 0, 0, 0, 1, 2, 3][..]] {
            assert!(Normalizer::new(bytes, false).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_table_does_no_harm(units in prop::collection::vec(any::<u32>(), 1..600), text: String, tail: Vec<u8>) {
            let trie: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
            let bytes = [&(trie.len() as u32).to_le_bytes()[..], &trie, &tail].concat();
            let normalizer = Normalizer::new(&bytes, true).unwrap();
            prop_assert!(normalizer.replaced(&text).len() <= LONGEST_REPLACEMENT * text.len());
        }
    }
}

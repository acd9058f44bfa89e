//! How a byte-level tokenizer splits a text into words before it merges, by the name in `tokenizer.ggml.pre`.
//!
//! The patterns are those of [`table`], in the syntax of `regex`, which has no look-ahead. There is one that nearly
//! every tokenizer has: `\s+(?!\S)|\s+`, whitespace but for the last character if a word follows. `\s+` finds it, and
//! the character that is too much is given back (`Tail`).

pub mod table;

use formats::metadata::{Metadata, Value};
use regex::Regex;

use crate::error::{Error, Result};
use table::THREES;

/// The key with the pre-tokenizer's name.
const KEY: &str = "tokenizer.ggml.pre";

/// Whether a vocabulary is byte-level, so that texts are split before they are encoded. (Gemma 4's kind has one way alone.)
fn is_byte_level(metadata: &Metadata) -> bool {
    metadata.text("tokenizer.ggml.model") == Some("gpt2")
}

/// What names a pre-tokenizer in a file that has none or a wrong one.
const NAME_IT: &str = "name the model's pre-tokenizer with --pre-tokenizer NAME (llama-bpe for Llama 3, qwen2 for Qwen 2 to 3), \
                       or write it into a copy: `ggufkit edit IN OUT --set tokenizer.ggml.pre=str:NAME`";

/// A note for the user if a byte-level vocabulary has a pre-tokenizer by which no text can be split here, so that commands
/// which need one refuse it: the value is no text, or no name that is known.
pub fn unusable_note(metadata: &Metadata) -> Option<String> {
    let value = metadata.get(KEY).filter(|_| is_byte_level(metadata))?;
    let Some(name) = value.as_str() else {
        let found = value.describe();
        return Some(format!("{KEY} must be str (found {found}): programs refuse such a file; {NAME_IT}"));
    };
    match table::find(name) {
        Some(row) if row.splits.is_some() => None,
        // llama.cpp knows how, and what it splits is not known here.
        Some(_) => Some(format!(
            "how texts are split by {name:?} ({KEY}) is not known here: ggufkit does not measure the model on texts"
        )),
        None if name.is_empty() => None,
        None => Some(format!(
            "the pre-tokenizer {name:?} ({KEY}) is not known here: ggufkit does not measure the model on texts, and programs that \
             do not know it refuse the file; {NAME_IT}"
        )),
    }
}

/// A note for the user if a byte-level vocabulary does not say how texts are split (`tokenizer.ggml.pre`). GGUFs from
/// before May 2024, and some converters' to this day, do not. llama.cpp then splits by its oldest rules, and so do we: the
/// tokens are others than those that the model was trained with.
pub(crate) fn missing_note(metadata: &Metadata) -> Option<String> {
    let named = metadata.get(KEY).is_some_and(|name| name.as_str() != Some(""));
    (is_byte_level(metadata) && !named).then(|| {
        format!(
            "{KEY} is missing: texts are split by the default rules, which give other tokens than the model's own; {NAME_IT}"
        )
    })
}

/// Sets the pre-tokenizer that the user names (`--pre-tokenizer`). Gives a note if that changes what the file says, or
/// changes nothing.
pub fn set(metadata: &mut Metadata, name: &str) -> Option<String> {
    if !is_byte_level(metadata) {
        return Some("--pre-tokenizer is ignored: only byte-level tokenizers have a pre-tokenizer".into());
    }
    let own = metadata.text(KEY).unwrap_or_default();
    let note = (!own.is_empty() && own != name).then(|| {
        format!("texts are split by {name} (--pre-tokenizer), although the file says {own} ({KEY})")
    });
    metadata.set(KEY, Value::text(name));
    note
}

/// Splits a text into words, one pattern after the other: each splits what the one before it matched and what it left.
pub(crate) struct Splitter(Vec<Step>);

enum Step {
    Pattern { regex: Regex, tail: Tail },
    Threes,
}

/// What part of whitespace that `\s+` matched is a word of its own.
#[derive(Clone, Copy, PartialEq)]
enum Tail {
    /// All: the pattern has no `\s+` at its end.
    All,
    /// All but the last character, unless nothing follows. Matches that end with one of these characters are whole:
    /// another alternative than `\s+` matched them.
    ButLast(&'static [char]),
    /// The same in words of 512, 256, ... characters.
    Halving,
}

impl Splitter {
    /// The splitter with this name.
    ///
    /// # Errors
    /// [`Error::UnknownPreTokenizer`], with the supported names.
    pub fn named(name: &str) -> Result<Self> {
        let patterns = table::find(name).and_then(|row| row.splits).ok_or_else(|| {
            let known = table::names(|row| row.splits.is_some()).join(", ");
            Error::UnknownPreTokenizer {
                what: format!("pre-tokenizer {name:?} is not supported"),
                hint: format!("{KEY} or --pre-tokenizer can be one of {known}"),
            }
        })?;
        let steps = patterns.iter().map(|pattern| step(pattern).map_err(|e| invalid(name, &e)));
        Ok(Self(steps.collect::<Result<_>>()?))
    }

    /// Gives the words of a text in order; together they are the text.
    pub fn split<'t>(&self, text: &'t str, word: &mut dyn FnMut(&'t str)) {
        // Recursion is as deep as there are patterns.
        split(&self.0, text, word);
    }
}

/// A pattern of the table that the engine does not take.
fn invalid(name: &str, why: &regex::Error) -> Error {
    Error::InvalidVocabulary { why: format!("pre-tokenizer {name:?}: {why}") }
}

fn step(pattern: &str) -> std::result::Result<Step, regex::Error> {
    if pattern == THREES {
        return Ok(Step::Threes);
    }
    let (head, tail) = if let Some(head) = pattern.strip_suffix(r"|\s+(?!\S)|\s+") {
        let of_others: &[char] = if head.contains(r"\s*[\r\n]") { &['\r', '\n'] } else { &[] };
        (head, Tail::ButLast(of_others))
    } else if let Some(at) = pattern.find(r"|\s{512}(?!\S)") {
        (&pattern[..at], Tail::Halving)
    } else {
        (pattern, Tail::All)
    };
    // (?i:'s) ignores the case of ASCII letters only: in Unicode, more letters fold to s. Possessive repetitions become
    // greedy ones: no pattern has to give back what they matched.
    let head = head.replace("(?i:", "(?i-u:").replace("]?+", "]?").replace("]++", "]+");
    let whole = if tail == Tail::All { head } else { format!(r"{head}|\s+") };
    Ok(Step::Pattern { regex: Regex::new(&whole)?, tail })
}

fn split<'t>(steps: &[Step], text: &'t str, word: &mut dyn FnMut(&'t str)) {
    let Some((step, steps)) = steps.split_first() else { return word(text) };
    let mut give = |piece: &'t str| {
        if !piece.is_empty() {
            split(steps, piece, word);
        }
    };
    match step {
        Step::Threes => threes(text, &mut give),
        Step::Pattern { regex, tail } => found(regex, *tail, text, &mut give),
    }
}

/// Gives what a pattern matches, and what lies between matches.
fn found<'t>(regex: &Regex, tail: Tail, text: &'t str, give: &mut dyn FnMut(&'t str)) {
    let mut rest = text;
    while let Some(found) = regex.find(rest).filter(|m| !m.is_empty()) {
        give(&rest[..found.start()]);
        let (mut len, all) = (found.len(), found.end() == rest.len());
        rest = &rest[found.start()..];
        let last = rest[..len].chars().next_back().filter(|c| c.is_whitespace());
        match (tail, last) {
            (Tail::ButLast(of_others), Some(last)) if !all && !of_others.contains(&last) => {
                len = (len - last.len_utf8()).max(rest.chars().next().map_or(0, char::len_utf8));
            }
            (Tail::Halving, Some(last)) if !matches!(last, '\r' | '\n') => {
                let mut left = rest[..len].chars().count();
                let alone = left == 1;
                while left > 1 {
                    let is_part = |size: &usize| left > *size || (all && left == *size);
                    let size = (0..10).rev().map(|bit| 1 << bit).find(is_part).unwrap_or(1);
                    let part;
                    (part, rest) = rest.split_at(rest.chars().take(size).map(char::len_utf8).sum());
                    give(part);
                    (len, left) = (len - part.len(), left - size);
                }
                if !all && !alone {
                    // The last character may be the beginning of a word.
                    continue;
                }
            }
            _ => {}
        }
        let piece;
        (piece, rest) = rest.split_at(len);
        give(piece);
    }
    give(rest);
}

/// Splits numbers into groups of three digits from the right. The text before a number stays with its first group, as
/// in llama.cpp: the next pattern splits them, and has to see that something follows whitespace.
fn threes<'t>(text: &'t str, give: &mut dyn FnMut(&'t str)) {
    let mut rest = text;
    while let Some(start) = rest.find(char::is_numeric) {
        let end = rest[start..].find(|c: char| !c.is_numeric()).map_or(rest.len(), |len| start + len);
        let digits = rest[start..end].chars().count();
        let mut from = 0;
        for (i, (at, _)) in rest[start..end].char_indices().enumerate().skip(1) {
            if (digits - i).is_multiple_of(3) {
                give(&rest[from..start + at]);
                from = start + at;
            }
        }
        give(&rest[from..end]);
        rest = &rest[end..];
    }
    give(rest);
}

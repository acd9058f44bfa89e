//! How a byte-level tokenizer cuts a text into words before it merges, by the name in `tokenizer.ggml.pre`.
//!
//! The patterns are those that the names stand for when a tokenizer is converted ([`table`]), in the syntax of
//! `regex`, which has no look-ahead. There is one that every tokenizer has: `\s+(?!\S)|\s+`, whitespace but for
//! the last character if a word follows. `\s+` finds it, and what is too much is given back ([`Tail`]).
//! Where llama.cpp splits otherwise than the models' own tokenizers, [`OWN`] has its way.

use regex::Regex;

use crate::checkpoint::vocab::pre::table::{self, DIGIT, GPT2, QWEN2, TABLE};
use crate::error::{Error, Result};

/// Numbers in groups of three from the right. No pattern that is compiled.
const THREES: &str = r"\p{N}{1,3}(?=(\p{N}{3})*(?!\p{N}))";
/// Lines and line ends.
const LINES: &str = r"[^\n]+|\n+";
/// Cased letters as deepseek-llm's list has them: of some blocks, without what newer versions of Unicode added.
const DEEPSEEK_LETTERS: &str = r"\s?[[\p{Lu}\p{Ll}\p{Lt}]&&[\x00-\x{55F}\x{10A0}-\x{10C5}\x{13A0}-\x{13FF}\x{1C90}-\x{2CFF}\x{A640}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FF5A}\x{10400}-\x{104FF}\x{10C80}-\x{10CFF}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]]+";
const DEEPSEEK_PUNCTUATION: &str = r"\s?[!-/:-~！-／：-～‘-‟、-。]+";
/// From the Syriac extensions to Chinese, and Korean. Whitespace lies in between.
const DEEPSEEK_CJK: &str = r"[[一-龥ࠀ-一가-\x{D7FF}]&&\S]+";
/// Letters that are not small, letters that are not capital; ASCII decides.
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]*[\p{L}&&[^A-Z]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]+[\p{L}&&[^A-Z]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GRANITE: &str = r"[^\r\n\p{L}\p{N}]?[[\p{L}\p{M}]&&[^a-z]]*[[\p{L}\p{M}]&&[^A-Z]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[[\p{L}\p{M}]&&[^a-z]]+[[\p{L}\p{M}]&&[^A-Z]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]*[\p{L}&&[^A-Z]]+|[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]+[\p{L}&&[^A-Z]]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// GPT-4o's with letters of any case.
const ANY_CASE_3: &str = r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const ANY_CASE_1: &str = r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Names with patterns that differ from those of [`TABLE`], or that it does not have.
const OWN: &[(&str, &[&str])] = &[
    ("default", &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    ("falcon", &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
    ("deepseek-llm", &[r"[\r\n]", DEEPSEEK_LETTERS, DEEPSEEK_PUNCTUATION, r"\s+$", DEEPSEEK_CJK, r"\p{N}+"]),
    ("deepseek-coder", &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, DIGIT]),
    ("gpt-4o", &[GPT4O]),
    ("granite-embed-multi-97m", &[GRANITE]),
    ("tekken", &[TEKKEN]),
    ("tiny_aya", &[THREES, ANY_CASE_3]),
    ("youtu", &["[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+", ANY_CASE_1]),
    (
        "chameleon",
        &["<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", r"[\t\n]|    |  ", DIGIT, r"[\p{P}!-/:-@\[-`{-~]", GPT2],
    ),
    ("laguna", &[LINES, QWEN2]),
    ("gemma4", &[LINES]),
];

/// Names that split like another one.
const ALIKE: &[(&str, &[&str])] = &[
    (
        "gpt-2",
        &[
            "a.x-4.0",
            "exaone4",
            "gigachat",
            "granite-docling",
            "jais",
            "jina-de",
            "jina-es",
            "jina-v1-en",
            "jina-v2-code",
            "jina-v2-de",
            "jina-v2-es",
            "mellum",
            "modern-bert",
            "mpt",
            "olmo",
            "phi-2",
            "roberta-bpe",
            "trillion",
        ],
    ),
    (
        "llama-bpe",
        &[
            "chatglm-bpe",
            "dbrx",
            "falcon-h1",
            "falcon3",
            "glm4",
            "glm5",
            "jina-v5-nano",
            "lfm2",
            "llama-v3",
            "llama3",
            "midm-2.0",
            "pixtral",
            "smaug-bpe",
        ],
    ),
    (
        "qwen2",
        &["deepseek-r1-qwen", "f2llmv2", "grok-2", "hunyuan", "kormo", "megrez", "solar-open", "stablelm2"],
    ),
    ("starcoder", &["codeshell", "command-r", "exaone", "mellum2", "minerva-7b", "refact", "smollm"]),
    ("deepseek-v3", &["hunyuan-dense", "hy_v4", "joyai-llm"]),
    ("bailingmoe", &["bailingmoe2", "llada-moe"]),
    ("gpt-4o", &["kanana2", "llama4", "minimax-m2", "talkie"]),
    ("tiny_aya", &["cohere2moe"]),
    ("bloom", &["gpt3-finnish", "poro-chat"]),
    ("gemma4", &["granite-embed-multi-311m", "sarvam-moe"]),
];

/// Names with which a word that is a token is not merged from its parts.
const IGNORES_MERGES: &[&str] = &[
    "falcon-h1",
    "falcon3",
    "glm4",
    "glm5",
    "granite-embed-multi-97m",
    "jina-v5-nano",
    "lfm2",
    "llama-bpe",
    "llama-v3",
    "llama3",
    "midm-2.0",
    "minicpm5",
    "pixtral",
    "tekken",
    "youtu",
];

/// How a text is cut into words, one pattern after the other: each cuts what the one before it left whole and what
/// it found.
pub struct Splitter(Vec<Step>);

enum Step {
    Pattern { regex: Regex, tail: Tail },
    Threes,
}

/// What of whitespace that `\s+` found is a word of its own.
#[derive(Clone, Copy, PartialEq)]
enum Tail {
    /// All: the pattern has no `\s+` at its end.
    All,
    /// All but the last character, unless nothing follows. Matches that end with one of these are not of `\s+`.
    ButLast(&'static [char]),
    /// The same in parts of 512, 256, ... characters.
    Halving,
}

impl Splitter {
    /// The splitter with this name.
    ///
    /// # Errors
    /// A name that is not known, with those that are.
    pub fn named(name: &str) -> Result<Self> {
        let patterns = patterns(name).ok_or_else(|| {
            Error::refused(format!("the pre-tokenizer {name:?} is not known"))
                .or(format!("tokenizer.ggml.pre can be one of {}", names().join(", ")))
        })?;
        let steps = patterns.iter().map(|pattern| step(pattern).map_err(|e| Error::refused(e.to_string())));
        Ok(Self(steps.collect::<Result<_>>()?))
    }

    /// Gives the words of a text in order; together they are the text.
    pub fn split<'t>(&self, text: &'t str, word: &mut dyn FnMut(&'t str)) {
        // Recursion is as deep as there are patterns.
        split(&self.0, text, word);
    }
}

/// Whether a word that is a token is taken as it is.
pub fn ignores_merges(name: &str) -> bool {
    IGNORES_MERGES.contains(&name)
}

/// Whether tokens are written as they are, with U+2581 for a space, and not in the alphabet of bytes.
pub fn is_raw(name: &str) -> bool {
    main_name(name) == "gemma4"
}

fn main_name(name: &str) -> &str {
    ALIKE.iter().find(|(_, names)| names.contains(&name)).map_or(name, |(main, _)| main)
}

fn patterns(name: &str) -> Option<&'static [&'static str]> {
    let name = main_name(name);
    let own = OWN.iter().find(|(known, _)| *known == name).map(|(_, patterns)| *patterns);
    own.or_else(|| TABLE.iter().find(|known| known.name == name).map(|known| known.splits))
}

/// All names that are known, sorted.
fn names() -> Vec<&'static str> {
    let all = TABLE.iter().map(|known| known.name).chain(table::OTHERS.iter().copied());
    let mut names: Vec<_> = all.filter(|name| patterns(name).is_some()).collect();
    names.sort_unstable();
    names.dedup();
    names
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
    // The letters of 's and the like are ASCII's: Unicode has more that fold to s. Possessive repetitions are
    // written as greedy ones: no pattern gives back what they take.
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

/// What a pattern finds, and what lies between.
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
                    // The last one may be the beginning of a word.
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

/// Numbers in groups of three, the first of one to three characters. What stands before a number stays with its
/// first group, as in llama.cpp: the pattern that follows parts them, but sees that something follows whitespace.
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

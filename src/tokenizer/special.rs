//! Tokens that stand for themselves in a text, and tokens that play a part.
//!
//! Files say which tokens begin and end a text, but not all that end a chat's turn, and not which tokens take the
//! whitespace beside them; llama.cpp knows such by their text, by the pre-tokenizer and by the model's name.
//! Where several tokens could be the one that it looks for, the first in the order of its lists is taken.

use std::collections::{BTreeSet, HashMap};

use super::tokens::{Attributes, Tokens};
use super::trie::Trie;

/// Tokens that end a turn.
const END_OF_TURN: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];

/// Tokens that end a message, besides those that end a turn.
const END_OF_MESSAGE: &str = "<|eom_id|>";

/// Further tokens after which nothing comes.
const ENDS: &[&str] = &[
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "</s>",
    END_OF_MESSAGE,
    "[EOS]",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "[e~[",
];

/// Tokens for filling in the middle of a text, by their part: the name in a file, whether it ends a text, and the
/// texts by which it is known.
const FILL_IN: &[(&str, bool, &[&str])] = &[
    (
        "fim_pre",
        false,
        &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
    ),
    (
        "fim_suf",
        false,
        &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
    ),
    (
        "fim_mid",
        false,
        &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
    ),
    ("fim_pad", true, &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
    ("fim_rep", true, &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"]),
    ("fim_sep", true, &["<|file_sep|>"]),
];

/// Former names of parts.
const FORMER: &[(&str, &str)] = &[("fim_pre", "prefix"), ("fim_suf", "suffix"), ("fim_mid", "middle")];

/// Tokens of gpt-oss that are always seen.
const SHOWN: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// Which tokens play a part.
pub struct Roles {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub eot: Option<u32>,
    pub unknown: Option<u32>,
    /// All that end what a model says.
    pub ends: BTreeSet<u32>,
}

impl Roles {
    /// Finds the roles, and makes control tokens of those that are known by their text. `given` has the id that the
    /// file gives a part, such as "eot"; `bos`, `eos` and `unknown` are what holds if it gives none.
    pub fn find(
        tokens: &mut Tokens,
        given: impl Fn(&str) -> Option<u32>,
        [bos, eos, unknown]: [Option<u32>; 3],
    ) -> Self {
        let count = tokens.len();
        let known = |id: &u32| (*id as usize) < count;
        let role = |name, default: Option<u32>| given(name).filter(known).or(default.filter(known));
        let (bos, eos, unknown) = (role("bos", bos), role("eos", eos), role("unknown", unknown));

        let mut by_text = |texts: &[&str]| {
            let id = texts.iter().find_map(|text| tokens.id(text.as_bytes()))?;
            tokens.attributes[id as usize].control = true;
            Some(id)
        };
        let eot = role("eot", None).or_else(|| by_text(END_OF_TURN));
        let eom = role("eom", None).or_else(|| by_text(&[END_OF_MESSAGE]));
        let mut ends = BTreeSet::new();
        for (part, is_end, texts) in FILL_IN {
            let former = FORMER.iter().find(|(new, _)| new == part).and_then(|(_, old)| role(old, None));
            let id = former.or(role(part, None)).or_else(|| by_text(texts));
            ends.extend(id.filter(|_| *is_end));
        }
        for text in END_OF_TURN.iter().chain(ENDS) {
            ends.extend(by_text(&[text]));
        }
        let user_defined = Attributes { user_defined: true, ..Attributes::default() };
        for text in SHOWN {
            if let Some(id) = tokens.id(text.as_bytes()) {
                tokens.attributes[id as usize] = user_defined;
            }
        }
        ends.extend([eos, eot, eom].into_iter().flatten());

        let end = |text: &str| tokens.id(text.as_bytes()).filter(|id| ends.contains(id));
        let has = |text| end(text).is_some();
        let calls = has("<|call|>") || has("<|calls|>");
        // gpt-oss and Solar end an answer otherwise, and a part of it with this.
        let part = end("<|end|>").filter(|_| calls && (has("<|return|>") || has("<|flush|>")));
        // Where something else ends a text, this is what it looks like in HTML.
        let tag = end("</s>").filter(|_| has("<|tool_response>") || has("<|plamo:eos|>"));
        for (id, is) in [(part, user_defined), (tag, Attributes { normal: true, ..Attributes::default() })] {
            if let Some(id) = id {
                ends.remove(&id);
                tokens.attributes[id as usize] = is;
            }
        }
        Self { bos, eos, eot, unknown, ends }
    }
}

/// A part of a text.
#[derive(Debug, PartialEq)]
pub enum Fragment<'t> {
    Token(u32),
    /// Never empty.
    Text(&'t str),
}

/// The tokens that are looked for in a text before anything else, and how they begin.
pub struct Specials {
    /// Longest first, then by id.
    all: Vec<Special>,
    /// The first [`START`] bytes of each, with a number of `starts`.
    trie: Trie,
    /// Which of `all` begin so.
    starts: Vec<Vec<usize>>,
    first_bytes: [bool; 256],
}

/// By so many bytes tokens are told to be in a text, so that the time for it does not grow with their length.
const START: usize = 16;

struct Special {
    id: u32,
    text: String,
    is: Attributes,
}

impl Specials {
    /// Control tokens, the unknown one and those that a user defined. `name`, `arch` and `pre` are the model's name,
    /// its architecture and its pre-tokenizer, as the file has them: they tell which tokens take whitespace.
    pub fn new(tokens: &Tokens, name: &str, arch: &str, pre: &str) -> Self {
        let special = |is: &Attributes| is.control || is.user_defined || is.unknown;
        let name = name.to_ascii_lowercase();
        let contains = |text: &str, parts: &[&str]| parts.iter().any(|part| text.contains(part));
        let mask = if contains(pre, &["jina-v2-de", "jina-v2-es", "jina-v2-code"])
            || contains(arch, &["nomic-bert-moe", "jina-bert-v3"])
        {
            Some("<mask>")
        } else if name.contains("modern-bert") {
            Some("[MASK]")
        } else {
            None
        };
        let phi3 = mask.is_none() && contains(&name, &["phi-3", "phi3"]);

        let mut all = Vec::new();
        for ((id, text), is) in tokens.iter().zip(&tokens.attributes).filter(|(_, is)| special(is)) {
            // No text has what is not UTF-8.
            let Ok(text) = str::from_utf8(text) else { continue };
            let mut is = *is;
            is.lstrip |= mask == Some(text);
            is.rstrip |= phi3 && !["<unk>", "<s>", "<|endoftext|>"].contains(&text);
            all.push(Special { id, text: text.into(), is });
        }
        all.sort_by_key(|special| std::cmp::Reverse(special.text.len()));
        let (mut trie, mut starts, mut first_bytes) = (Trie::new(), Vec::new(), [false; 256]);
        let mut numbers = HashMap::new();
        for (i, special) in all.iter().enumerate() {
            let text = special.text.as_bytes();
            let start = &text[..text.len().min(START)];
            let number = *numbers.entry(start).or_insert(starts.len());
            if number == starts.len() {
                starts.push(Vec::new());
            }
            starts[number].push(i);
            trie.insert(start, number as u32);
            if let Some(&b) = start.first() {
                first_bytes[usize::from(b)] = true;
            }
        }
        Self { all, trie, starts, first_bytes }
    }

    /// Cuts a text at its special tokens: wherever the longest of them is, then in what is left the next one. Control
    /// tokens and the unknown one are only seen with `special`.
    pub fn partition<'t>(&self, text: &'t str, special: bool) -> Vec<Fragment<'t>> {
        // Texts have few of the hundreds that there can be: those that may be there are found in one pass.
        let mut present: BTreeSet<usize> = BTreeSet::new();
        let mut seen = vec![false; self.starts.len()];
        for (at, _) in text.bytes().enumerate().filter(|(_, b)| self.first_bytes[usize::from(*b)]) {
            for (_, start) in self.trie.prefixes(&text.as_bytes()[at..]) {
                if !std::mem::replace(&mut seen[start as usize], true) {
                    present.extend(&self.starts[start as usize]);
                }
            }
        }
        let mut fragments: Vec<Fragment> =
            Some(text).filter(|t| !t.is_empty()).map(Fragment::Text).into_iter().collect();
        for i in present {
            let Special { id, text: token, is } = &self.all[i];
            if !special && (is.control || is.unknown) {
                continue;
            }
            let before = std::mem::take(&mut fragments);
            for fragment in before {
                let Fragment::Text(mut rest) = fragment else {
                    fragments.push(fragment);
                    continue;
                };
                while let Some((left, right)) = rest.split_once(token.as_str()) {
                    let left = if is.lstrip { left.trim_end_matches(is_space) } else { left };
                    if !left.is_empty() {
                        fragments.push(Fragment::Text(left));
                    }
                    fragments.push(Fragment::Token(*id));
                    rest = if is.rstrip { right.trim_start_matches(is_space) } else { right };
                }
                if !rest.is_empty() {
                    fragments.push(Fragment::Text(rest));
                }
            }
        }
        fragments
    }
}

/// C's isspace.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

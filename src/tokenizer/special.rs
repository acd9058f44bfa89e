//! Special tokens, which are looked for in a text before anything else, and the roles of tokens (BOS, EOS, EOT, ...).
//!
//! Files say which tokens are BOS and EOS, but not all tokens that end a chat's turn, and not which tokens strip the
//! whitespace beside them; llama.cpp knows those by their text, by the pre-tokenizer and by the model's name. Where
//! several tokens could have a role, the first in the order of its lists is taken. Source: llama-vocab.cpp.

use std::collections::{BTreeSet, HashMap};

use super::tokens::{Attributes, Tokens};
use super::trie::Trie;

/// Texts of tokens that end a turn (EOT).
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

/// The text of the token that ends a message (EOM).
const END_OF_MESSAGE: &str = "<|eom_id|>";

/// Texts of further tokens that end generation.
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

/// Fill-in-the-middle tokens: the name of the role in a file, whether the token ends generation, and its known texts.
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

/// Former names of roles.
const FORMER: &[(&str, &str)] = &[("fim_pre", "prefix"), ("fim_suf", "suffix"), ("fim_mid", "middle")];

/// Control tokens of gpt-oss that are always printed.
const SHOWN: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// The tokens with a role.
pub struct Roles {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub eot: Option<u32>,
    pub unknown: Option<u32>,
    /// All tokens that end generation.
    pub ends: BTreeSet<u32>,
}

impl Roles {
    /// Finds the roles, and marks tokens that are known by their text as control tokens. `given` gives the id that the
    /// file has for a role, such as "eot"; `bos`, `eos` and `unknown` are the defaults.
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
        // gpt-oss and Solar end a part of an answer with this, and the answer with another token.
        let part = end("<|end|>").filter(|_| calls && (has("<|return|>") || has("<|flush|>")));
        // Where other tokens end a text, this is the HTML tag.
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

/// A part of a text: a special token, or the text between them.
#[derive(Debug, PartialEq)]
pub enum Fragment<'t> {
    Token(u32),
    /// Never empty.
    Text(&'t str),
}

/// The special tokens, indexed by how they begin.
pub struct Specials {
    /// Longest first, then by id.
    all: Vec<Special>,
    /// The first [`START`] bytes of each token, with an index into `starts`.
    trie: Trie,
    /// Indices into `all` of the tokens that begin so.
    starts: Vec<Vec<usize>>,
    first_bytes: [bool; 256],
}

/// Bytes by which tokens are looked up, so that the time does not grow with their length.
const START: usize = 16;

struct Special {
    id: u32,
    text: String,
    is: Attributes,
}

impl Specials {
    /// Control tokens, the unknown token and user-defined tokens. `name`, `arch` and `pre` are the model's name, its
    /// architecture and its pre-tokenizer in the file: by these llama.cpp knows which tokens strip whitespace.
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
            // A token that is not UTF-8 is in no text.
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

    /// Splits a text at its special tokens: at the longest of them first, then the rest at the next one. Control tokens
    /// and the unknown token are only recognised with `special`.
    pub fn partition<'t>(&self, text: &'t str, special: bool) -> Vec<Fragment<'t>> {
        // A text has few of the hundreds of special tokens: candidates are found in one pass.
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

//! The roles of tokens (BOS, EOS, EOT, ...).
//!
//! Files say which tokens are BOS and EOS, but not all tokens that end a chat's turn; llama.cpp knows those by their
//! text. Where several tokens could have a role, the first in the order of its lists is taken. Source: llama-vocab.cpp.

use std::collections::BTreeSet;

use super::tokens::{Attributes, Tokens};

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
#[derive(PartialEq)]
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

//! The tokens themselves: their texts, scores and kinds, and the way from a text to its id.

use std::collections::HashMap;

/// What a token is, from `tokenizer.ggml.token_type` and what llama.cpp makes of texts that it knows. Several may
/// hold at once.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Attributes {
    pub normal: bool,
    pub unknown: bool,
    pub control: bool,
    pub user_defined: bool,
    pub byte: bool,
    pub unused: bool,
    /// Whitespace before it belongs to it.
    pub lstrip: bool,
    /// Whitespace after it belongs to it.
    pub rstrip: bool,
}

impl Attributes {
    /// Those of a value of `tokenizer.ggml.token_type`.
    pub fn of_type(kind: i128) -> Self {
        let none = Self::default();
        match kind {
            1 => Self { normal: true, ..none },
            2 => Self { unknown: true, ..none },
            3 => Self { control: true, ..none },
            4 => Self { user_defined: true, ..none },
            5 => Self { unused: true, ..none },
            6 => Self { byte: true, ..none },
            _ => none,
        }
    }
}

/// All tokens of a vocabulary. Texts are bytes, since files need not have UTF-8; such tokens match no text.
pub struct Tokens {
    texts: Vec<Box<[u8]>>,
    /// One for each token; finite or infinite, never NaN, and never minus zero.
    pub scores: Vec<f32>,
    /// One for each token.
    pub attributes: Vec<Attributes>,
    ids: HashMap<Box<[u8]>, u32>,
    longest: usize,
}

impl Tokens {
    /// Tokens with as many scores and attributes. Of tokens with one text, the last is the one that is found.
    pub fn new(texts: Vec<Box<[u8]>>, scores: Vec<f32>, attributes: Vec<Attributes>) -> Self {
        debug_assert!(texts.len() == scores.len() && texts.len() == attributes.len());
        let ids = texts.iter().cloned().zip(0..).collect();
        let longest = texts.iter().map(|t| t.len()).max().unwrap_or(0);
        Self { texts, scores, attributes, ids, longest }
    }

    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// The text of a token, or nothing for an id that is not there.
    pub fn text(&self, id: u32) -> &[u8] {
        self.texts.get(id as usize).map_or(&[], |t| t)
    }

    /// Ids with texts, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        (0..).zip(self.texts.iter().map(|t| &**t))
    }

    /// The token with this text.
    pub fn id(&self, text: &[u8]) -> Option<u32> {
        // The length first: the texts that are asked for can be as long as the input.
        if text.len() > self.longest { None } else { self.ids.get(text).copied() }
    }

    /// For each byte the token that stands for it where no other fits: `<0xNN>`, or the byte itself.
    pub fn bytes(&self) -> [Option<u32>; 256] {
        std::array::from_fn(|b| {
            let b = b as u8;
            self.id(format!("<0x{b:02X}>").as_bytes()).or_else(|| self.id(&[b]))
        })
    }

    pub fn same_as(&self, other: &Self) -> bool {
        self.texts == other.texts
    }

    /// FNV-1a over a first byte and the texts with their lengths.
    pub fn hash(&self, first: u8) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325;
        let mut add = |b: u8| hash = (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
        add(first);
        for text in &self.texts {
            (text.len() as u64).to_le_bytes().into_iter().for_each(&mut add);
            text.iter().copied().for_each(&mut add);
        }
        hash
    }
}

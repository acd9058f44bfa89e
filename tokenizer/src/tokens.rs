//! The tokens of a vocabulary: texts, scores and attributes, and the id of a text.

use std::collections::HashMap;

/// The attributes of a token, from `tokenizer.ggml.token_type` and from texts that llama.cpp knows. Several may be set.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Attributes {
    pub normal: bool,
    pub unknown: bool,
    pub control: bool,
    pub user_defined: bool,
    pub byte: bool,
    pub unused: bool,
    /// A user-defined symbol of a SentencePiece model: see [`super::symbols`].
    pub symbol: bool,
    /// Whitespace before it in a text is dropped.
    pub lstrip: bool,
    /// Whitespace after it in a text is dropped.
    pub rstrip: bool,
}

impl Attributes {
    /// The attribute of a value of `tokenizer.ggml.token_type`; none for unknown values.
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

/// All tokens of a vocabulary. Their texts are bytes: those that are not UTF-8 match no text.
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
    /// `scores` and `attributes` are as long as `texts`. Of several tokens with the same text, the last is found.
    pub fn new(texts: Vec<Box<[u8]>>, scores: Vec<f32>, attributes: Vec<Attributes>) -> Self {
        debug_assert!(texts.len() == scores.len() && texts.len() == attributes.len());
        let ids = texts.iter().cloned().zip(0..).collect();
        let longest = texts.iter().map(|t| t.len()).max().unwrap_or(0);
        Self { texts, scores, attributes, ids, longest }
    }

    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// The text of a token; empty for an id that is out of range.
    pub fn text(&self, id: u32) -> &[u8] {
        self.texts.get(id as usize).map_or(&[], |t| t)
    }

    /// Ids and texts, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        (0..).zip(self.texts.iter().map(|t| &**t))
    }

    /// The token with this text.
    pub fn id(&self, text: &[u8]) -> Option<u32> {
        // The length first: texts to look up can be as long as the input, and would have to be hashed.
        if text.len() > self.longest { None } else { self.ids.get(text).copied() }
    }

    /// The token of each byte: `<0xNN>`, or else the byte itself.
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

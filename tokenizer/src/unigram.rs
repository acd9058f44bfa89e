//! A unigram model: of all segmentations of a text into tokens, the one whose scores (log-probabilities) have the
//! highest sum, found by Viterbi's algorithm. Source: SentencePiece's unigram_model.cc, and llama.cpp's
//! llama-vocab.cpp.
//!
//! Characters without a token have the score of the least likely token minus ten. They become byte tokens if the
//! vocabulary has all 256 of them, as in SentencePiece, and else the unknown token, once for a run of such characters.

use std::borrow::Cow;

use super::normal::{Normalizer, Prefix};
use super::symbols;
use super::tokens::Tokens;
use super::trie::Trie;
use crate::error::{Error, Result};

/// How much lower than the least score the score of a character without a token is.
const PENALTY: f32 = 10.0;

/// The longest token that is accepted, in bytes: where many tokens begin one another, the time for a text grows with it.
const LONGEST: usize = 4096;

/// The model.
pub struct Viterbi {
    tokens: Trie,
    /// Log-probabilities by id; those of user-defined tokens are 0, or nearly so, to be preferred.
    scores: Vec<f64>,
    unknown: Option<u32>,
    unknown_score: f64,
    bytes: Option<[u32; 256]>,
    normalizer: Normalizer,
}

/// The last token of the best segmentation up to an offset, and its bytes.
#[derive(Clone, Copy)]
struct Last {
    /// [`NO_TOKEN`] for a character without one.
    token: u32,
    len: u32,
}

const NO_TOKEN: u32 = u32::MAX;

impl Viterbi {
    /// # Errors
    /// [`Error::InvalidVocabulary`] for a token of more than 4096 bytes.
    pub fn new(tokens: &Tokens, unknown: Option<u32>, normalizer: Normalizer) -> Result<Self> {
        if let Some((id, text)) = tokens.iter().find(|(_, text)| text.len() > LONGEST) {
            let n = text.len();
            let why = format!("token {id} must have at most {LONGEST} bytes (found {n})");
            return Err(Error::InvalidVocabulary { why });
        }
        // SentencePiece prefers a symbol to all that is likely: each of its bytes has the highest score, and never less than 0.
        let most =
            tokens.scores.iter().zip(&tokens.attributes).filter(|(_, is)| is.normal).map(|(score, _)| *score);
        let most = f64::from(most.fold(0.0, f32::max));
        let mut pieces: Vec<(Cow<[u8]>, u32)> = Vec::with_capacity(tokens.len());
        let mut scores = Vec::with_capacity(tokens.len());
        let mut least = f32::MAX;
        let mut byte = true;
        for ((id, text), (&score, is)) in tokens.iter().zip(tokens.scores.iter().zip(&tokens.attributes)) {
            if is.normal {
                least = least.min(score);
            }
            if is.symbol {
                pieces.push((symbols::escaped(&String::from_utf8_lossy(text)).into_bytes().into(), id));
            } else if is.normal || is.user_defined || is.unused {
                pieces.push((Cow::from(text), id));
            }
            scores.push(match () {
                () if is.symbol => text.len() as f64 * most - 0.1,
                () if is.user_defined => 0.0,
                () => score.into(),
            });
        }
        let bytes = tokens.bytes().map(|id| {
            let id = id.filter(|&id| tokens.attributes[id as usize].byte);
            byte &= id.is_some();
            id.unwrap_or(0)
        });
        let unknown_score = (least - PENALTY).into();
        let bytes = byte.then_some(bytes);
        let tokens = Trie::new(pieces.iter().map(|(text, id)| (&text[..], *id)));
        Ok(Self { tokens, scores, unknown, unknown_score, bytes, normalizer })
    }

    /// Appends the ids of a text; `prefix` says whether a space is put before it.
    pub fn encode(&self, text: &str, prefix: Prefix, out: &mut Vec<u32>) {
        let text = self.normalizer.escaped(text, prefix);
        let n = text.len();
        // Of the best segmentation up to each offset, the sum of scores and the last token. Offsets that no token ends
        // at keep the least score: the whole text before them is unknown.
        let mut best = vec![f64::MIN; n + 1];
        let mut last = vec![Last { token: NO_TOKEN, len: 0 }; n + 1];
        best[0] = 0.0;
        for (at, c) in text.char_indices() {
            let (before, mut whole) = (best[at], false);
            let mut offer = |len: usize, score: f64, token: u32| {
                let score = before + score;
                if score > best[at + len] {
                    best[at + len] = score;
                    last[at + len] = Last { token, len: len as u32 };
                }
            };
            for (len, id) in self.tokens.prefixes(&text.as_bytes()[at..]) {
                whole |= len == c.len_utf8();
                offer(len, self.scores[id as usize], id);
            }
            if !whole {
                offer(c.len_utf8(), self.unknown_score, NO_TOKEN);
            }
        }

        let first = out.len();
        let (mut end, mut after_unknown) = (n, false);
        while end > 0 {
            let Last { token, len } = last[end];
            // Where no token ends, all before it is unknown.
            let start = if len == 0 { 0 } else { end - len as usize };
            let is_unknown = token == NO_TOKEN;
            match &self.bytes {
                _ if !is_unknown => out.push(token),
                Some(bytes) => {
                    let unknown = &text.as_bytes()[start..end];
                    out.extend(unknown.iter().rev().map(|&b| bytes[usize::from(b)]));
                }
                None => out.extend(self.unknown.filter(|_| !after_unknown)),
            }
            after_unknown = is_unknown;
            end = start;
        }
        out[first..].reverse();
    }
}

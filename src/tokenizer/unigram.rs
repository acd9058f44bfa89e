//! A unigram model: of all segmentations of a text into tokens, the one whose scores (log-probabilities) have the
//! highest sum, found by Viterbi's algorithm. Source: SentencePiece's unigram_model.cc, and llama.cpp's
//! llama-vocab.cpp.
//!
//! Characters without a token have the score of the least likely token minus ten. They become byte tokens if the
//! vocabulary has all 256 of them, as in SentencePiece, and else the unknown token, once for a run of such characters.

use super::spm::SPACE;
use super::tokens::Tokens;
use super::trie::Trie;
use crate::error::{Error, Result};

/// How much lower than the least score the score of a character without a token is.
const PENALTY: f32 = 10.0;

/// The longest token that is accepted, in bytes: the time for a text grows with it.
const LONGEST: usize = 4096;

/// The model.
pub struct Viterbi {
    tokens: Trie,
    /// Log-probabilities by id; those of user-defined tokens are 0.
    scores: Vec<f64>,
    unknown: Option<u32>,
    unknown_score: f64,
    bytes: Option<[u32; 256]>,
    merge_spaces: bool,
}

/// The best segmentation up to an offset: the sum of scores, the last token (`None` if unknown) and its start.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    token: Option<u32>,
    start: usize,
}

impl Viterbi {
    /// With `merge_spaces`, several spaces become one and those at the end are dropped.
    ///
    /// # Errors
    /// [`Error::InvalidVocabulary`] for a token of more than 4096 bytes.
    pub fn new(tokens: &Tokens, unknown: Option<u32>, merge_spaces: bool) -> Result<Self> {
        if let Some((id, text)) = tokens.iter().find(|(_, text)| text.len() > LONGEST) {
            let n = text.len();
            let why = format!("token {id} must have at most {LONGEST} bytes (found {n})");
            return Err(Error::InvalidVocabulary { why });
        }
        let mut trie = Trie::new();
        let mut scores = Vec::with_capacity(tokens.len());
        let mut least = f32::MAX;
        let mut byte = true;
        for ((id, text), (&score, is)) in tokens.iter().zip(tokens.scores.iter().zip(&tokens.attributes)) {
            if is.normal {
                least = least.min(score);
            }
            if is.normal || is.user_defined || is.unused {
                trie.insert(text, id);
            }
            scores.push(if is.user_defined { 0.0 } else { score.into() });
        }
        let bytes = tokens.bytes().map(|id| {
            let id = id.filter(|&id| tokens.attributes[id as usize].byte);
            byte &= id.is_some();
            id.unwrap_or(0)
        });
        let unknown_score = (least - PENALTY).into();
        let bytes = byte.then_some(bytes);
        Ok(Self { tokens: trie, scores, unknown, unknown_score, bytes, merge_spaces })
    }

    /// Appends the ids of a text, with a space before its first word if `prefix`.
    pub fn encode(&self, text: &str, prefix: bool, out: &mut Vec<u32>) {
        let text = self.normalized(text, prefix);
        let n = text.len();
        // Offsets that no token ends at: the whole text before them is unknown.
        let mut best = vec![Best { score: f64::MIN, token: None, start: 0 }; n + 1];
        best[0].score = 0.0;
        let offer = |best: &mut [Best], start: usize, end: usize, score: f64, token: Option<u32>| {
            let score = best[start].score + score;
            if score > best[end].score {
                best[end] = Best { score, token, start };
            }
        };
        for (at, c) in text.char_indices() {
            let mut whole = false;
            for (len, id) in self.tokens.prefixes(&text.as_bytes()[at..]) {
                whole |= len == c.len_utf8();
                offer(&mut best, at, at + len, self.scores[id as usize], Some(id));
            }
            if !whole {
                offer(&mut best, at, at + c.len_utf8(), self.unknown_score, None);
            }
        }

        let first = out.len();
        let (mut end, mut after_unknown) = (n, false);
        while end > 0 {
            let Best { token, start, .. } = best[end];
            match (token, &self.bytes) {
                (Some(id), _) => out.push(id),
                (None, Some(bytes)) => {
                    let unknown = &text.as_bytes()[start..end];
                    out.extend(unknown.iter().rev().map(|&b| bytes[usize::from(b)]));
                }
                (None, None) => out.extend(self.unknown.filter(|_| !after_unknown)),
            }
            after_unknown = token.is_none();
            end = start;
        }
        out[first..].reverse();
    }

    /// The text with [`SPACE`] for its spaces.
    fn normalized(&self, text: &str, prefix: bool) -> String {
        let mut out = String::with_capacity(text.len() + text.len() / 2);
        let (mut prefixed, mut in_word) = (false, false);
        for c in text.chars() {
            if c == ' ' {
                in_word = false;
                out.extend((!self.merge_spaces).then_some(SPACE));
            } else {
                if !in_word && ((prefix && !prefixed) || self.merge_spaces) {
                    out.push(SPACE);
                    prefixed = true;
                }
                in_word = true;
                out.push(c);
            }
        }
        out
    }
}

//! User-defined symbols of a SentencePiece model: texts that stay whole, wherever they are.
//!
//! They belong to the model, so they are found within a text (the longest at each place, from left to right), before its
//! characters are replaced and again before they are merged, and the text goes on behind them without another space. Added
//! tokens, which have the score that convert_hf_to_gguf.py gives them, divide a text into texts instead. Source:
//! SentencePiece's model_interface.cc (`PrefixMatcher`) and normalizer.cc.

use super::spm::SPACE;
use super::tokens::Tokens;
use super::trie::Trie;

/// The score of tokens that were added to a vocabulary, in files of convert_hf_to_gguf.py.
pub const ADDED_SCORE: f32 = -1000.0;

/// The longest symbol that is looked for at every place of a text, in bytes. Longer ones are taken for added tokens.
const LONGEST: usize = 128;

/// The symbols of a vocabulary.
pub struct Symbols(Trie);

impl Symbols {
    /// Marks the user-defined symbols among the tokens, and gathers them; `None` if there are none.
    pub fn mark(tokens: &mut Tokens) -> Option<Self> {
        let mut found = Vec::new();
        for id in 0..tokens.len() as u32 {
            let added = tokens.scores[id as usize] == ADDED_SCORE;
            if !tokens.attributes[id as usize].user_defined || added || tokens.text(id).len() > LONGEST {
                continue;
            }
            let Ok(text) = str::from_utf8(tokens.text(id)) else { continue };
            found.push((escaped(text), id));
            tokens.attributes[id as usize].symbol = true;
        }
        let list = found.iter().map(|(text, id)| (text.as_bytes(), *id));
        (!found.is_empty()).then(|| Self(Trie::new(list)))
    }

    /// The longest symbol that a text begins with: its length in bytes and its id.
    pub fn longest(&self, text: &str) -> Option<(usize, u32)> {
        self.0.prefixes(text.as_bytes()).last()
    }
}

/// A symbol as it is in a text whose spaces are replaced. Files have plain spaces in them, for programs that look for
/// symbols before that.
pub fn escaped(text: &str) -> String {
    text.chars().map(|c| if c == ' ' { SPACE } else { c }).collect()
}

//! What the keys of a vocabulary leave open, or say wrongly, so that texts get other tokens than the model's own: notes for the
//! user of every command that shows, copies, measures or runs the model. llama.cpp reads such files, too, with a warning at most.

use formats::metadata::{Array, Metadata, Value};

use super::pre::missing_note;
use super::read::{Sort, sort};

const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const NORMAL: i128 = 1;
const CONTROL: i128 = 3;

/// The notes on a vocabulary; none for a model without one, and for one that cannot be read, which says so itself.
pub fn doubts(metadata: &Metadata) -> Vec<String> {
    let found = || {
        let sort = sort(metadata).ok()?;
        let tokens = metadata.get(TOKENS)?.as_array()?;
        Some([scores(metadata, &sort, tokens), begin(metadata, &sort, tokens), end(metadata, &sort, tokens)])
    };
    missing_note(metadata).into_iter().chain(found().into_iter().flatten().flatten()).collect()
}

/// A vocabulary whose tokens are chosen by their scores, and that has none, or one for all. Of tokens of one character each,
/// nothing is chosen.
fn scores(metadata: &Metadata, sort: &Sort, tokens: &Array) -> Option<String> {
    if sort.byte_level {
        return None;
    }
    let types = metadata.get(TYPES).and_then(Value::as_array);
    let mut types = types.into_iter().flat_map(Array::values);
    let mut of_next = || types.next().and_then(|kind| kind.as_i128()).unwrap_or(NORMAL);
    let is_piece = |text: &[u8], kind: i128| {
        let is_byte = text.len() == 6 && text.starts_with(b"<0x");
        kind == NORMAL
            && !is_byte
            && std::str::from_utf8(text).is_ok_and(|text| text.chars().nth(1).is_some())
    };
    let pieces: Vec<bool> = tokens.strings().map(|text| is_piece(text, of_next())).collect();
    if pieces.iter().filter(|is| **is).count() < 2 {
        return None;
    }
    let Some(scores) = metadata.get(SCORES) else {
        return Some(format!(
            "{SCORES} is missing: which pieces go together first is not known, so texts get other tokens than the model's own, \
             and figures are of those; make the file again from the model's checkpoint"
        ));
    };
    let scores = scores.as_array()?.values().zip(pieces).filter(|(_, is)| *is);
    let mut scores = scores.map(|(score, _)| score.as_f64().or_else(|| score.as_i128().map(|n| n as f64)));
    let first = scores.next()??;
    scores.all(|score| score == Some(first)).then(|| {
        format!(
            "all tokens have the same score ({first}, {SCORES}): texts are split as if no piece were better than another; unless \
             the model was trained so, its own tokens are others, and figures are not of those"
        )
    })
}

/// BOS, where it is put before texts and is none of the tokens, or is not named and is an odd one.
fn begin(metadata: &Metadata, sort: &Sort, tokens: &Array) -> Option<String> {
    if !sort.rules.add_bos {
        return None;
    }
    let of = Role { key: "tokenizer.ggml.bos_token_id", does: "begin", usual: sort.ids[0] };
    let note = of.note(metadata, tokens)?;
    Some(format!(
        "{note}, or that there is none: `ggufkit edit IN OUT --set tokenizer.ggml.add_bos_token=bool:false`"
    ))
}

/// EOS, where the file names what is none of the tokens.
fn end(metadata: &Metadata, sort: &Sort, tokens: &Array) -> Option<String> {
    let of = Role { key: "tokenizer.ggml.eos_token_id", does: "end", usual: sort.ids[1] };
    metadata.get(of.key)?;
    of.note(metadata, tokens)
}

/// A token at the begin or the end of texts.
struct Role {
    key: &'static str,
    /// What texts do with it.
    does: &'static str,
    /// The id where none is named.
    usual: Option<u32>,
}

impl Role {
    /// A note where the file names no token of the vocabulary.
    fn note(&self, metadata: &Metadata, tokens: &Array) -> Option<String> {
        let (key, does, n) = (self.key, self.does, tokens.len());
        let given = metadata.get(key);
        if given.and_then(Value::as_u64).is_some_and(|id| id < n as u64) {
            return None;
        }
        let usual = self.usual.filter(|id| (*id as usize) < n);
        let text = usual.map(|id| {
            let text = tokens.strings().nth(id as usize).unwrap_or_default();
            (id, String::from_utf8_lossy(text).trim().to_string())
        });
        let wrong = match given {
            Some(value) => {
                format!("{key} must be the u32 of one of the {n} tokens (found {})", value.describe())
            }
            // The usual one is meant where it looks like it.
            None if text.as_ref().is_some_and(|(id, text)| is_control(metadata, *id, text)) => return None,
            None => format!("{key} is missing"),
        };
        // llama.cpp reads no other type under such a key, and refuses the file.
        let peer = match given {
            None | Some(Value::U32(_)) => "as in llama.cpp",
            Some(_) => "and llama.cpp refuses the file",
        };
        let instead = match text {
            Some((id, text)) => format!("texts {does} with token {id} ({text:?}), {peer}"),
            None => format!("texts {does} without such a token, {peer}"),
        };
        Some(format!(
            "{wrong}: {instead}; say which one it is in a copy: `ggufkit edit IN OUT --set {key}=u32:ID`"
        ))
    }
}

/// Whether a token is a control token, by its type or, like `<s>`, by its text.
fn is_control(metadata: &Metadata, id: u32, text: &str) -> bool {
    let types = metadata.get(TYPES).and_then(Value::as_array);
    let kind = types.and_then(|types| types.values().nth(id as usize)).and_then(|kind| kind.as_i128());
    kind == Some(CONTROL) || text.starts_with('<') && text.ends_with('>')
}

#[cfg(test)]
mod tests {
    use super::super::pre::unusable_note;
    use super::super::tests::{NORMAL, array, byte_level, metadata, sentencepiece, with};
    use super::*;
    use formats::metadata::Kind;

    fn without(mut m: Metadata, key: &str) -> Metadata {
        m.remove(&format!("tokenizer.ggml.{key}"));
        m
    }

    /// The only note, or an empty text.
    fn note(m: &Metadata) -> String {
        let mut all = doubts(m);
        assert!(all.len() < 2, "{all:?}");
        all.pop().unwrap_or_default()
    }

    #[test]
    fn scores_that_choose_nothing_are_told() {
        let pieces = ["a", "b", "ab", "ba"];
        let whole = sentencepiece(&pieces);
        let n = 259 + pieces.len();
        let equal = |score: f32| {
            with(whole.clone(), "scores", array(Kind::F32, std::iter::repeat_n(Value::F32(score), n)))
        };
        assert_eq!(note(&whole), "");
        assert!(note(&without(whole.clone(), "scores")).contains("scores is missing"));
        assert!(note(&equal(0.0)).contains("the same score (0, "));
        assert!(note(&equal(-1000.0)).contains("the same score (-1000, "));
        let integers = array(Kind::I32, std::iter::repeat_n(Value::I32(3), n));
        assert!(note(&with(whole, "scores", integers)).contains("the same score (3, "));
        // A unigram model, too.
        let all: Vec<_> = ["<pad>", "</s>", "<unk>", "ab", "bc"].map(|t| (t.to_string(), 0.0, NORMAL)).into();
        assert!(note(&metadata("t5", &all)).contains("the same score (0, "));
        // Where no piece is longer than a character, and where merges decide.
        for m in [
            sentencepiece(&["a", "é"]),
            sentencepiece(&["a", "ab"]),
            byte_level("gpt-2", &["a b", "b c"], &[]),
        ] {
            assert_eq!(note(&without(m, "scores")), "");
        }
    }

    #[test]
    fn a_begin_of_texts_that_is_no_token_is_told() {
        let whole = byte_level("llama-bpe", &["a b"], &["<|begin|>"]);
        let bos = |value: Value| note(&with(whole.clone(), "bos_token_id", value));
        assert_eq!(bos(Value::U32(257)), "");
        assert_eq!(bos(Value::U64(257)), "");
        for (value, found) in
            [(Value::U32(258), "u32 258"), (Value::I32(-1), "i32 -1"), (Value::U64(u64::MAX), "u64")]
        {
            let text = bos(value);
            assert!(text.contains("one of the 258 tokens (found ") && text.contains(found), "{text}");
            assert!(text.contains("texts begin with token 11 "), "{text}");
        }
        assert!(note(&whole).contains("bos_token_id is missing: texts begin with token 11 "));
        // Where nothing is put before texts, and where the usual token is a begin of texts.
        for m in [
            with(whole.clone(), "add_bos_token", Value::Bool(false)),
            byte_level("qwen2", &["a b"], &[]),
            sentencepiece(&["a"]),
        ] {
            assert_eq!(note(&m), "");
        }
        let asked = with(byte_level("qwen2", &["a b"], &[]), "add_bos_token", Value::Bool(true));
        assert!(note(&asked).contains("bos_token_id is missing"));
        let few = metadata("llama", &[("a".into(), 0.0, NORMAL)]);
        assert!(note(&few).contains("texts begin without such a token"), "{}", note(&few));
        let end = with(byte_level("qwen2", &[], &[]), "eos_token_id", Value::U32(999));
        assert!(
            note(&end).contains("eos_token_id must be") && note(&end).contains("texts end with token 11")
        );
    }

    #[test]
    fn a_pre_tokenizer_of_another_type_or_name_is_not_a_missing_one() {
        let whole = byte_level("gpt-2", &[], &[]);
        assert_eq!(unusable_note(&whole), None);
        for (value, says) in [
            (Value::U32(1), "pre must be str (found u32 1)"),
            (Value::Bool(true), "pre must be str (found bool true)"),
            (Value::String(vec![0xff]), "pre must be str (found "),
            (Value::text("my-own"), "\"my-own\" (tokenizer.ggml.pre) is not known here"),
            (Value::text("LLAMA-BPE"), "\"LLAMA-BPE\""),
        ] {
            let m = with(whole.clone(), "pre", value);
            let text = unusable_note(&m).unwrap();
            assert!(text.contains(says), "{text}");
            assert!(doubts(&m).iter().all(|note| !note.contains("is missing")));
        }
        for m in [with(whole.clone(), "pre", Value::text("")), without(whole, "pre")] {
            assert_eq!(unusable_note(&m), None);
            assert!(note(&m).contains("tokenizer.ggml.pre is missing"));
        }
        // Another kind of vocabulary has none.
        assert_eq!(unusable_note(&with(sentencepiece(&["a"]), "pre", Value::text("my-own"))), None);
    }
}

//! The tokenizer of a llama2.c checkpoint, which is a file beside it: a tokenizer.bin, or the SentencePiece model that one
//! is made of.

use std::path::Path;

use formats::container::llama2c::tokenizer;
use formats::metadata::{Array, Kind, Metadata, Value};
use formats::model::{ByteOrder, Format, Model};

use crate::checkpoint::vocab::how;
use crate::checkpoint::vocab::sentencepiece::{Content, content, whole};
use crate::checkpoint::vocab::tokens::{MOST_TOKENS, Type};
use crate::disk::{InFile, RunFiles, instead};
use crate::error::{Error, Result};
use crate::kind::Wanted;

/// The longest SentencePiece model that is read, in bytes: pieces of usual length, as many as there may be.
const MOST: u64 = 32 * MOST_TOKENS;

/// Reads a tokenizer.bin or a SentencePiece model, by its content. What a model says of texts becomes what it becomes for
/// a checkpoint of Hugging Face: keys of a GGUF, and notes on what other programs make of them.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a damaged file; [`Error::Refused`] for other tokenizers, with what they are;
/// [`Error::Vocabulary`] for a damaged table of normalizations.
pub fn tokenizer_file(run: &RunFiles, path: &Path, map: bool) -> Result<Model> {
    read_file(run, path, map).map_err(|e| instead(path, Wanted::TOKENIZER, e))
}

fn read_file(run: &RunFiles, path: &Path, map: bool) -> Result<Model> {
    let file = run.open(path, map)?;
    let start = file.read(0, file.len.min(4096))?.into_owned();
    // The first piece: field 1, its length, and in it field 1 again. A tokenizer.bin begins with a small number.
    let is_model = matches!(start[..], [0x0a, len, 0x0a, ..] if len > 0);
    match content(&start) {
        Content::Model if is_model && file.len <= MOST => {
            let bytes = file.read(0, file.len)?;
            let (tokens, settings) = whole(file.name(), &bytes)?;
            let mut metadata = Metadata::new();
            metadata.set("tokenizer.ggml.model", Value::text(how::kind(&settings)));
            metadata.set(
                "tokenizer.ggml.tokens",
                Value::Array(Array::of_strings(tokens.iter().map(|t| &t.text))),
            );
            let scores = Array::new(Kind::F32, tokens.iter().map(|t| Value::F32(t.score)));
            let types = Array::new(Kind::I32, tokens.iter().map(|t| Value::I32(t.kind as i32)));
            metadata.set("tokenizer.ggml.scores", Value::Array(scores.expect("all are f32")));
            metadata.set("tokenizer.ggml.token_type", Value::Array(types.expect("all are i32")));
            // The model's own where it has them, and otherwise those that llama2.c has built in.
            let is = |id: &u32, kind| tokens.get(*id as usize).is_some_and(|t| t.kind == kind);
            let control = |id: Option<u32>| id.filter(|id| is(id, Type::Control));
            let unknown = tokens.iter().position(|t| t.kind == Type::Unknown).map(|id| id as u32);
            for (role, own, usual) in [
                ("bos", control(settings.bos), 1),
                ("eos", control(settings.eos), 2),
                ("unknown", unknown, 0),
            ] {
                metadata.set(&format!("tokenizer.ggml.{role}_token_id"), Value::U32(own.unwrap_or(usual)));
            }
            let mut notes = Vec::new();
            if let Some(prefix) = how::space_prefix(&settings) {
                metadata.set("tokenizer.ggml.add_space_prefix", Value::Bool(prefix));
            }
            how::write(&settings, &tokens, &mut metadata, &mut notes)?;
            let (format, order) = (Format::Llama2cTokenizer, ByteOrder::Little);
            Ok(Model { format, order, alignment: 1, metadata, tensors: Vec::new(), notes })
        }
        Content::Other(what, _) if !is_bin(&file) => {
            let why = format!("{}: this file {what}", file.name());
            Err(Error::refused(why).or(Wanted::TOKENIZER.hint))
        }
        _ => file.parse(tokenizer::read),
    }
}

fn is_bin(file: &InFile) -> bool {
    matches!(file.parse(tokenizer::looks_like), Ok(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::vocab::testing::{model_with, piece};
    use crate::tokenizer::Tokenizer;

    /// The tokenizer of a SentencePiece model with these fields of the trainer and the normalizer, and its notes.
    fn read(trainer: &[u8], normalizer: &[u8]) -> (Metadata, Vec<String>) {
        let list = [
            ("<unk>", 0.0, 2),
            ("<s>", 0.0, 3),
            ("</s>", 0.0, 3),
            ("\u{2581}", -3.0, 1),
            ("a", -4.0, 1),
            ("\u{2581}a", -1.0, 1),
            ("<begin>", 0.0, 3),
        ];
        let pieces: Vec<Vec<u8>> =
            list.iter().map(|(text, score, kind)| piece(text, *score, *kind)).collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.model");
        std::fs::write(&path, model_with(&pieces, trainer, normalizer)).unwrap();
        let model = tokenizer_file(&RunFiles::default(), &path, false).unwrap();
        (model.metadata, model.notes)
    }

    fn ids(metadata: &Metadata, text: &str) -> Vec<u32> {
        Tokenizer::from_metadata(metadata).unwrap().encode(text, true, false)
    }

    #[test]
    fn settings_of_a_model_trained_as_bpe_are_honoured() {
        // Texts as they are, with the space before them that programs put there.
        let (m, notes) = read(&[0x18, 2], &[0x20, 0]);
        assert_eq!((ids(&m, "a  a"), notes.len()), (vec![1, 5, 3, 5], 1));
        assert!(notes[0].contains("no tokens of bytes"), "{notes:?}");
        assert_eq!(m.get("tokenizer.ggml.add_space_prefix"), None);
        // No space before them (add_dummy_prefix).
        let (m, notes) = read(&[0x18, 2], &[0x18, 0, 0x20, 0]);
        assert_eq!((ids(&m, "a a"), notes.len()), (vec![1, 4, 5], 1));
        assert_eq!(m.get("tokenizer.ggml.add_space_prefix"), Some(&Value::Bool(false)));
        // Extra spaces are removed, which is the format's default.
        let (m, notes) = read(&[0x18, 2], &[]);
        assert_eq!(ids(&m, " a   a "), [1, 5, 5]);
        assert!(notes.iter().any(|n| n.contains("it does not remove extra spaces")), "{notes:?}");
        // A table of normalizations.
        let table = ::tokenizer::testing::table(&[(b'A', "a")]);
        let len = table.len() as u32;
        let field = [&[0x20, 0, 0x12, 0x80 | (len & 0x7f) as u8, (len >> 7) as u8][..], &table].concat();
        let (m, notes) = read(&[0x18, 2], &field);
        assert_eq!(ids(&m, "A"), [1, 5]);
        assert!(notes.iter().any(|n| n.contains("it does not replace characters")), "{notes:?}");
        // The ids that the trainer was given, where such tokens are there.
        let (m, _) = read(&[0x18, 2, 0xc8, 0x02, 6, 0xd0, 0x02, 4], &[0x20, 0]);
        assert_eq!(ids(&m, "a"), [6, 5]);
        assert_eq!(m.get("tokenizer.ggml.eos_token_id"), Some(&Value::U32(2)), "4 is no control token");
    }
}

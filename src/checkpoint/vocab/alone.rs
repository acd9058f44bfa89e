//! The tokenizer of a llama2.c checkpoint, which is a file beside it: a tokenizer.bin, or the SentencePiece model that one
//! is made of.

use std::path::Path;

use formats::container::llama2c::tokenizer;
use formats::metadata::{Array, Kind, Metadata, Value};
use formats::model::{ByteOrder, Format, Model};

use crate::checkpoint::vocab::how;
use crate::checkpoint::vocab::sentencepiece::{Content, content, whole};
use crate::checkpoint::vocab::tokens::MOST_TOKENS;
use crate::disk::{InFile, RunFiles};
use crate::error::{Error, Result};

/// The longest SentencePiece model that is read, in bytes: pieces of usual length, as many as there may be.
const MOST: u64 = 32 * MOST_TOKENS;

/// Reads a tokenizer.bin or a SentencePiece model, by its content. A model trained as BPE gives the keys of the
/// tokenizer.bin that llama2.c makes of it.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a damaged file; [`Error::Refused`] for other tokenizers, with what they are.
pub fn tokenizer_file(run: &RunFiles, path: &Path, map: bool) -> Result<Model> {
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
            for (role, id) in [("bos", 1), ("eos", 2), ("unknown", 0)] {
                metadata.set(&format!("tokenizer.ggml.{role}_token_id"), Value::U32(id));
            }
            let mut notes = Vec::new();
            if settings.unigram {
                metadata.set("tokenizer.ggml.add_space_prefix", Value::Bool(settings.space_prefix));
                how::write(&settings, &tokens, &mut metadata, &mut notes)?;
            }
            let (format, order) = (Format::Llama2cTokenizer, ByteOrder::Little);
            Ok(Model { format, order, alignment: 1, metadata, tensors: Vec::new(), notes })
        }
        Content::Other(what, _) if !is_bin(&file) => {
            let why = format!("{}: this file {what}", file.name());
            Err(Error::refused(why).or(
                "name the checkpoint's tokenizer.bin, or the SentencePiece tokenizer.model it was made of",
            ))
        }
        _ => file.parse(tokenizer::read),
    }
}

fn is_bin(file: &InFile) -> bool {
    matches!(file.parse(tokenizer::looks_like), Ok(true))
}

//! The three files of the Commodore 64 port, whose weights are an image for a RAM expansion unit. The port to the
//! PlayStation Portable reads the same files.
//!
//! | file | bytes |
//! |---|---|
//! | `config.bin` | version 0's seven numbers as i16, the vocabulary's without a sign, and an i16 that is 1 for a shared classifier |
//! | weights | "L264", version 0's file without its header, zeros up to 2, 4, 8 or 16 MiB, so that the state of a run fits too |
//! | `tokenizer.bin` | u16 tokens, f32 scores, u8 lengths with the zero at their ends, u16 ids in the order of their texts' bytes, texts that end in zeros |
//!
//! All are little-endian. Source: `generate-model-files.py` and `transformer64.c` of ytmytm/llama2.c64, and
//! caiomadeira/llama2-psp.

use super::config::{Config, FIELDS};
use super::{Options, layout, tokenizer};
use crate::container::Layout;
use crate::error::{Error, Fault, Result};
use crate::metadata::Metadata;
use crate::model::{ByteOrder, Tensor};

/// The first bytes of the weights.
const MAGIC: &[u8; 4] = b"L264";
/// The length of the header of version 0, which is in `config.bin` instead.
const HEADER: u64 = 28;
/// The size of the largest RAM expansion in bytes.
const MOST: u64 = 16 << 20;

/// The three files.
#[derive(Debug, Clone, PartialEq)]
pub struct Expansion {
    /// The image with the weights.
    pub layout: Layout,
    /// `config.bin`.
    pub config: Vec<u8>,
    /// `tokenizer.bin`.
    pub tokenizer: Vec<u8>,
}

/// Lays out the three files. Tensors are as for version 0 of [`layout`]; `name` is the target's, for errors.
///
/// # Errors
/// Those of [`layout`] and [`tokenizer::write`]; [`Fault::Unsupported`] for a separate classifier (which the program would
/// overwrite with keys), for numbers that do not fit an i16, for weights and a KV cache of more than 16 MiB, and for tokens
/// of more than 254 bytes.
pub fn expansion(name: &str, metadata: &Metadata, tensors: &[Tensor]) -> Result<Expansion> {
    let mut found = layout(name, metadata, tensors, Options::new(0, ByteOrder::Little))?;
    let bad = |why: String| Error::of(name, Fault::Unsupported(why));
    let file = &mut found.files[0];
    let header: Vec<i32> =
        file.fixed[0].1.as_chunks::<4>().0.iter().map(|w| i32::from_le_bytes(*w)).collect();
    let fields: [i32; 7] = header[..].try_into().expect("version 0's header is seven numbers");
    let c = Config::from_fields(fields).expect("the layout has checked them");
    if !c.shared {
        return Err(bad(
            "the program keeps its KV cache where a separate classifier would be; only models with tied embeddings \
                        run there"
                .into(),
        ));
    }
    let mut config = Vec::new();
    for (n, field) in c.numbers().into_iter().zip(FIELDS) {
        let n =
            i16::try_from(n).map_err(|_| bad(format!("{field} is {n}, expected at most {}", i16::MAX)))?;
        config.extend(n.to_le_bytes());
    }
    config.extend(1i16.to_le_bytes());

    // Queries, the KV cache and attention scores are kept after the weights.
    let (len, kv) = (file.len - HEADER + MAGIC.len() as u64, c.head * c.kv_heads);
    let state = 4 * (c.dim + 2 * c.layers * c.seq * kv + c.heads * c.seq);
    if len + state > MOST {
        let why = format!(
            "weights of {len} bytes, with {state} for a context of {}, are more than the 16 MiB of the largest RAM \
             expansion; take a smaller model, or lower llama.context_length",
            c.seq
        );
        return Err(bad(why));
    }
    let shift = HEADER - MAGIC.len() as u64;
    file.fixed[0] = (0, MAGIC.to_vec());
    file.fixed[1..].iter_mut().for_each(|(at, _)| *at -= shift);
    found.tensors.iter_mut().for_each(|t| t.location.offset -= shift);
    // The size of the image is that of the expansion, which has to hold the state too.
    file.len = [2u64, 4, 8, 16].map(|m| m << 20).into_iter().find(|m| *m >= len + state).unwrap_or(MOST);
    let tokenizer = vocabulary(name, metadata, c.vocab)?;
    Ok(Expansion { layout: found, config, tokenizer })
}

/// `tokenizer.bin` of the port, from the tokens of llama2.c's own.
fn vocabulary(name: &str, metadata: &Metadata, vocab: u64) -> Result<Vec<u8>> {
    let bad = |why: String| Error::of(name, Fault::Unsupported(why));
    let tokens = tokenizer::tokens(name, metadata)?;
    if tokens.len() as u64 != vocab {
        return Err(bad(format!("the vocabulary has {} tokens, but the model {vocab}", tokens.len())));
    }
    let mut out = (tokens.len() as u16).to_le_bytes().to_vec();
    tokens.iter().for_each(|(score, _)| out.extend(score.to_le_bytes()));
    for (id, (_, text)) in tokens.iter().enumerate() {
        let len = u8::try_from(text.len() + 1);
        out.push(len.map_err(|_| bad(format!("token {id} has {} bytes, expected at most 254", text.len())))?);
    }
    let mut ids: Vec<u16> = (0..tokens.len() as u16).collect();
    ids.sort_by_key(|&id| &tokens[usize::from(id)].1);
    ids.iter().for_each(|id| out.extend(id.to_le_bytes()));
    tokens.iter().for_each(|(_, text)| out.extend([&text[..], &[0]].concat()));
    Ok(out)
}

//! Calibration: importance matrices, and layer-by-layer quantization with GPTQ and AWQ.
//!
//! [`activations`] runs a calibration set through the model layer by layer: only one layer's weights and the hidden states
//! of the set are held, and the hidden states go to disk when memory is short. [`importance`] measures the mean squares of
//! every matrix's inputs, as llama-imatrix does. [`sequential`] quantizes layer by layer, each matrix with the Hessian of
//! the inputs that the already quantized layers produce.

pub mod activations;
pub mod awq;
pub mod buffer;
pub mod choose;
pub mod factor;
pub mod gptq;
pub mod gram;
pub mod importance;
mod layer;
mod output;
mod rescale;
pub mod sequential;
pub mod state;

use std::borrow::Cow;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use hmac_sha256::Hash;

use crate::disk::{RunFiles, instead};
use crate::error::{Error, Result};
use crate::kind::Wanted;
use crate::random::Random;
use crate::source::Source;
use crate::text;
use crate::tokenizer::{Text, text_file, tokenizer_of};

/// The usual number of tokens per chunk, as in llama-imatrix.
pub const DEFAULT_CONTEXT: usize = 512;

/// The fewest tokens of a chunk.
pub const LEAST_CONTEXT: usize = 16;

/// How calibration texts are cut, and the option that says so, for messages.
#[derive(Debug, Clone, Copy)]
pub struct ChunkLength {
    /// Tokens per chunk.
    pub tokens: usize,
    /// The option that sets them.
    pub option: &'static str,
}

/// The built-in calibration set, a mix of prose, dialogue and code; made by `scripts/make_calibration_text.py`.
pub const BUILTIN: &str = include_str!("builtin.txt");

/// The name that selects [`BUILTIN`] instead of a file, unless there is a file of that name.
pub const BUILTIN_NAME: &str = "builtin";

/// A tokenized calibration set, in chunks of equal length.
#[derive(Debug, Clone, Default)]
pub struct Chunks {
    /// The tokens of each chunk.
    pub tokens: Vec<Vec<u32>>,
    /// The texts' names.
    pub names: Vec<String>,
    /// Identifies the texts: `sha256:` and the hash of their bytes, one after another, as `cat TEXTS | sha256sum` prints
    /// it. Empty if they were not read from files.
    pub hash: String,
    /// Notes of reading the texts, for the user.
    pub notes: Vec<String>,
}

impl Chunks {
    /// Cuts a text into at most `limit` chunks of `context` tokens that do not overlap, as llama-imatrix does: `first`
    /// (the begin-of-text token) replaces the first token of each, and an incomplete last chunk is dropped.
    pub fn cut(tokens: &[u32], first: Option<u32>, context: usize, limit: Option<usize>, name: &str) -> Self {
        let chunk = |tokens: &[u32]| {
            let mut tokens = tokens.to_vec();
            tokens[0] = first.unwrap_or(tokens[0]);
            tokens
        };
        let tokens = tokens.chunks_exact(context).take(limit.unwrap_or(usize::MAX)).map(chunk).collect();
        Self { tokens, names: vec![name.to_string()], ..Self::default() }
    }

    /// Reads a text and cuts it into at most `limit` chunks: the first ones, or with a `seed` randomly chosen ones.
    ///
    /// # Errors
    /// Those of [`Chunks::read_all`].
    pub fn read(
        source: &Source,
        path: &Path,
        context: ChunkLength,
        limit: Option<usize>,
        seed: Option<u64>,
    ) -> Result<Self> {
        let Some(seed) = seed else { return Self::read_all(source, &[path], context, 0, limit) };
        let mut all = Self::read_all(source, &[path], context, 0, None)?;
        all.sample(limit.unwrap_or(usize::MAX), seed);
        Ok(all)
    }

    /// Keeps `count` randomly chosen chunks, in their order.
    fn sample(&mut self, count: usize, seed: u64) {
        let (mut random, found) = (Random::new(seed), self.tokens.len());
        let mut drawn: Vec<(u64, usize)> = (0..found).map(|i| (random.below(u64::MAX), i)).collect();
        drawn.sort_unstable();
        let mut taken: Vec<usize> = drawn.into_iter().take(count).map(|d| d.1).collect();
        taken.sort_unstable();
        self.tokens = taken.into_iter().map(|i| std::mem::take(&mut self.tokens[i])).collect();
    }

    /// Reads texts and cuts each on its own, so that no chunk spans two texts. Of all chunks, the first `skip` are dropped
    /// and at most `limit` after them are kept.
    ///
    /// # Errors
    /// Those of [`RunFiles::read_text`] and [`text_file::decode`]; [`Error::Refused`] if the model has no tokenizer that can be
    /// used;
    /// [`Error::TextTooShort`] if a text does not fill a chunk; [`Error::Usage`] if no chunk is left, or if two of the texts
    /// are the same.
    pub fn read_all(
        source: &Source,
        paths: &[impl AsRef<Path>],
        context: ChunkLength,
        skip: usize,
        limit: Option<usize>,
    ) -> Result<Self> {
        let tokenizer = tokenizer_of(source)?;
        let ChunkLength { tokens: context, option } = context;
        let (mut all, mut hash) = (Self::default(), Hash::new());
        let mut of_texts = Vec::new();
        let mut texts: Vec<(String, [u8; 32])> = Vec::new();
        for path in paths.iter().map(AsRef::as_ref) {
            let (name, bytes) = bytes(&source.run, path)?;
            hash.update(&bytes);
            let own = Hash::hash(&bytes);
            if let Some((other, _)) = texts.iter().find(|(_, hash)| *hash == own) {
                let why = match *other == name {
                    true => format!("{name} is given twice, and would count twice"),
                    false => format!("{other} and {name} are the same text, which would count twice"),
                };
                return Err(Error::usage(why).or("leave out one of them"));
            }
            texts.push((name.clone(), own));
            let file = text_file::decode(&name, &bytes)?;
            all.notes.extend(file.notes);
            let text = Text::new(&file.text, &tokenizer)?;
            let mut chunks = Self::cut(&text.tokens, text.first, context, None, &name);
            if chunks.tokens.is_empty() {
                return Err(Error::TextTooShort {
                    name,
                    found: text.tokens.len(),
                    context,
                    need: context,
                    shorter: Some(text.tokens.len()).filter(|n| *n >= LEAST_CONTEXT),
                    option,
                });
            }
            of_texts.push((name.clone(), all.tokens.len()..all.tokens.len() + chunks.tokens.len()));
            all.tokens.append(&mut chunks.tokens);
            all.names.push(name);
        }
        let found = all.tokens.len();
        // A text that no chunk is taken of would be named in the result, and counts for nothing.
        let taken = skip..skip.saturating_add(limit.unwrap_or(usize::MAX));
        for (name, chunks) in &of_texts {
            if found > skip && (chunks.end <= taken.start || chunks.start >= taken.end) {
                all.notes.push(format!(
                    "{name} is not used: its chunks are numbers {} to {} of {found}, and --chunks and --from-chunk choose others",
                    chunks.start,
                    chunks.end - 1
                ));
            }
        }
        all.tokens = all.tokens.into_iter().skip(skip).take(limit.unwrap_or(usize::MAX)).collect();
        if all.tokens.is_empty() {
            let names = text::listed(&all.names);
            let why = format!("--from-chunk {skip}: {names} has only {found} chunks of {context} tokens");
            return Err(Error::usage(why).or(format!("use --from-chunk {} or less", found.saturating_sub(1))));
        }
        all.hash = hash.finalize().iter().fold("sha256:".to_string(), |mut hash, byte| {
            let _ = write!(hash, "{byte:02x}");
            hash
        });
        Ok(all)
    }

    /// At most `limit` randomly chosen chunks, each cut to its first `context` tokens.
    #[must_use]
    pub fn subset(&self, limit: usize, context: usize) -> Self {
        let mut all = self.clone();
        all.sample(limit, 1);
        all.tokens.iter_mut().for_each(|t| t.truncate(context));
        all
    }

    /// Tokens of all chunks.
    pub fn token_count(&self) -> usize {
        self.tokens.len() * self.context()
    }

    /// Tokens per chunk; 0 if there are no chunks.
    pub fn context(&self) -> usize {
        self.tokens.first().map_or(0, Vec::len)
    }
}

/// The memory that activations may take, and the folder for those that do not fit.
#[derive(Debug, Clone)]
pub struct Scratch {
    /// Bytes of activations in memory at most; larger sets are kept in unnamed files.
    pub memory: u64,
    /// The folder for these files.
    pub folder: PathBuf,
}

/// The name and the bytes of a text file, or of the built-in calibration set.
fn bytes(run: &RunFiles, path: &Path) -> Result<(String, Cow<'static, [u8]>)> {
    let name = path.display().to_string();
    if name == BUILTIN_NAME && !path.is_file() {
        return Ok((name, Cow::Borrowed(BUILTIN.as_bytes())));
    }
    Ok((name, Cow::Owned(run.read_text(path).map_err(|e| instead(path, Wanted::TEXT, e))?)))
}

#[cfg(test)]
mod tests;

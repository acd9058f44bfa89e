//! What a text says about a model's weights: the importance of columns, whole Hessians, and matrices that are made with
//! them one after another.
//!
//! [`walk`] takes the chunks of a text through the model layer by layer, so that one layer's weights and the vectors of
//! the text are all that is held, and those go to the disk where memory is short. [`importance`] measures the mean
//! squares of every matrix's inputs, as llama-imatrix does; [`sequential`] quantizes layer by layer, each matrix under
//! the Hessian of the inputs that the quantized layers before it give.

pub mod choose;
mod ends;
pub mod factor;
pub mod fold;
pub mod gptq;
pub mod gram;
pub mod importance;
pub mod sequential;
pub mod state;
pub mod stream;
pub mod walk;

use std::borrow::Cow;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::random::Random;
use crate::source::Source;
use crate::tokenizer::{Text, Tokenizer};

/// A text of many kinds, for those who have none: `scripts/make_calibration_text.py` makes it.
pub const BUILTIN: &str = include_str!("builtin.txt");

/// What stands for [`BUILTIN`] where a text is asked for, unless there is a file of that name.
pub const BUILTIN_NAME: &str = "builtin";

/// Texts in a model's tokens, in chunks of equal length.
#[derive(Debug, Clone, Default)]
pub struct Chunks {
    /// The tokens of each.
    pub tokens: Vec<Vec<u32>>,
    /// The texts' names.
    pub names: Vec<String>,
    /// What tells the texts from others: `sha256:` and the hash of their bytes, one after another, as
    /// `cat TEXTS | sha256sum` shows it. Empty if they were not read from files.
    pub hash: String,
}

impl Chunks {
    /// Cuts a text into chunks of `context` tokens that do not overlap, `most` at most, as llama-imatrix does: `first`
    /// replaces the first token of each, and what is left over is not used.
    pub fn cut(tokens: &[u32], first: Option<u32>, context: usize, most: Option<usize>, name: &str) -> Self {
        let chunk = |tokens: &[u32]| {
            let mut tokens = tokens.to_vec();
            tokens[0] = first.unwrap_or(tokens[0]);
            tokens
        };
        let tokens = tokens.chunks_exact(context).take(most.unwrap_or(usize::MAX)).map(chunk).collect();
        Self { tokens, names: vec![name.to_string()], hash: String::new() }
    }

    /// Reads a text and cuts it; with a `seed`, takes chunks from all over it rather than the first.
    ///
    /// # Errors
    /// Those of [`Chunks::read_all`].
    pub fn read(
        source: &Source,
        path: &Path,
        context: usize,
        most: Option<usize>,
        seed: Option<u64>,
    ) -> Result<Self> {
        let Some(seed) = seed else { return Self::read_all(source, &[path], context, 0, most) };
        let mut all = Self::read_all(source, &[path], context, 0, None)?;
        all.sample(most.unwrap_or(usize::MAX), seed);
        Ok(all)
    }

    /// Keeps `count` chunks, chosen by `seed`, in their order.
    fn sample(&mut self, count: usize, seed: u64) {
        let (mut random, found) = (Random::new(seed), self.tokens.len());
        let mut drawn: Vec<(u64, usize)> = (0..found).map(|i| (random.below(u64::MAX), i)).collect();
        drawn.sort_unstable();
        let mut taken: Vec<usize> = drawn.into_iter().take(count).map(|d| d.1).collect();
        taken.sort_unstable();
        self.tokens = taken.into_iter().map(|i| std::mem::take(&mut self.tokens[i])).collect();
    }

    /// Reads texts and cuts each by itself, so that no chunk has parts of two; of all their chunks, the first `skip`
    /// are left out and `most` after them taken.
    ///
    /// # Errors
    /// The system's; a model without a tokenizer; a text that is shorter than a chunk; no chunk that is left.
    pub fn read_all(
        source: &Source,
        paths: &[impl AsRef<Path>],
        context: usize,
        skip: usize,
        most: Option<usize>,
    ) -> Result<Self> {
        let tokenizer = Tokenizer::of(source)?;
        let (mut all, mut hash) = (Self::default(), Sha256::new());
        for path in paths.iter().map(AsRef::as_ref) {
            let (name, bytes) = bytes(path)?;
            hash.update(&bytes);
            let text = Text::new(&String::from_utf8_lossy(&bytes), &tokenizer)?;
            let mut chunks = Self::cut(&text.tokens, text.first, context, None, &name);
            if chunks.tokens.is_empty() {
                let why = format!(
                    "{name}: has {} tokens, which do not fill a chunk of {context}",
                    text.tokens.len()
                );
                return Err(Error::refused(why).or(
                    "give a longer text or a shorter context (--context; of quantize --calibration-context)",
                ));
            }
            all.tokens.append(&mut chunks.tokens);
            if !all.names.contains(&name) {
                all.names.push(name);
            }
        }
        let found = all.tokens.len();
        all.tokens = all.tokens.into_iter().skip(skip).take(most.unwrap_or(usize::MAX)).collect();
        if all.tokens.is_empty() {
            let why = format!("no chunk is left of {found}, of which {skip} are skipped");
            return Err(Error::usage(why).or("take more chunks or skip fewer"));
        }
        all.hash = hash.finalize().iter().fold("sha256:".to_string(), |mut hash, byte| {
            let _ = write!(hash, "{byte:02x}");
            hash
        });
        Ok(all)
    }

    /// Chunks of `context` tokens, `most` at most, from all over the text; the first tokens of longer chunks.
    #[must_use]
    pub fn part(&self, most: usize, context: usize) -> Self {
        let mut all = self.clone();
        all.sample(most, 1);
        all.tokens.iter_mut().for_each(|t| t.truncate(context));
        all
    }

    /// All tokens.
    pub fn count(&self) -> usize {
        self.tokens.len() * self.context()
    }

    /// Tokens of a chunk.
    pub fn context(&self) -> usize {
        self.tokens.first().map_or(0, Vec::len)
    }
}

/// How much memory activations may take, and where those go that do not fit.
#[derive(Debug, Clone)]
pub struct Scratch {
    /// Bytes of activations that are held in memory; more are kept on the disk.
    pub memory: u64,
    /// The folder on the disk for them.
    pub folder: PathBuf,
}

/// A text's name and bytes.
fn bytes(path: &Path) -> Result<(String, Cow<'static, [u8]>)> {
    let name = path.display().to_string();
    if name == BUILTIN_NAME && !path.is_file() {
        return Ok((name, Cow::Borrowed(BUILTIN.as_bytes())));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
    Ok((name, Cow::Owned(bytes)))
}

#[cfg(test)]
mod tests;

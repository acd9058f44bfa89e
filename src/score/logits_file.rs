//! The logits file: the format in which llama-perplexity saves a reference's predictions (`--kl-divergence-base`).
//!
//! ```text
//! "_logits_"                        8 bytes
//! n_ctx, n_vocab, n_chunk           3 × i32
//! tokens                            n_chunk · n_ctx × i32
//! for every chunk, for every position n_ctx/2 .. n_ctx−1 (without the last):
//!     scale, min_log_prob           2 × f32
//!     steps                         n_vocab × u16, and one of padding if n_vocab is odd
//! ```
//!
//! The log-probability of a token is `scale`·step + `min_log_prob`: the range from the smallest logit (at least 16 below
//! the largest) to the largest is divided into 65535 steps. The positions are those of [`scored`]; the tokens are those of
//! the text (llama-perplexity replaces each chunk's first token by the begin-of-text token when it evaluates, but not in
//! the file). The format has no version, and does not name the model or the text. llama-perplexity writes numbers in the
//! machine's byte order; here they are always little-endian, and a big-endian file is refused. (Source:
//! `tools/perplexity/perplexity.cpp` of llama.cpp.)

use std::path::Path;

use formats::{Error as FileError, Fault};

use super::{ScoreError, scored};
use crate::disk::{InFile, NewFile, Output, RunFiles, finish, instead};
use crate::error::{Error, Result};
use crate::kind::Wanted;
use kernels::logits::{ln, peak, sum_exp};

/// Steps of a range: 16 bits.
const STEPS: f32 = 65535.0;
/// The largest range, in nats below the largest logit.
const RANGE: f32 = 16.0;
/// Tokens with a log-probability at or below this are left out when a model is compared with a file.
pub const FLOOR: f32 = -16.0;

const MAGIC: &[u8; 8] = b"_logits_";
/// Bytes of the magic and the three numbers.
const FIXED: u64 = 20;
/// Bytes that are buffered before they are written.
const BUFFER: usize = 1 << 20;

/// The header of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Tokens per chunk.
    pub context: usize,
    /// Tokens of the vocabulary: entries per row.
    pub vocab: usize,
    /// The text: `context` tokens for every chunk.
    pub tokens: Vec<u32>,
}

impl Header {
    /// The number of chunks.
    pub fn chunks(&self) -> usize {
        self.tokens.len() / self.context
    }

    /// Scored positions per chunk.
    pub fn rows_per_chunk(&self) -> usize {
        scored(self.context).len()
    }

    /// The offset of the first row.
    fn start(&self) -> u64 {
        FIXED + 4 * self.tokens.len() as u64
    }
}

/// Bytes per row.
fn row_bytes(vocab: u64) -> u64 {
    2 * (2 * vocab.div_ceil(2) + 4)
}

/// The position of a row in the text, and its scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowHead {
    /// The chunk.
    pub chunk: usize,
    /// The position in the chunk; the row predicts the token after it.
    pub position: usize,
    /// That token.
    pub target: u32,
    /// The difference of log-probability per step.
    pub scale: f32,
    /// The log-probability of step 0.
    pub min_log_prob: f32,
}

/// Reads a file row by row.
pub struct Reader {
    file: InFile,
    head: Header,
    next: usize,
}

impl Reader {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Refused`] if it is not a logits file; [`Error::Format`] if its header is
    /// not valid or its length is wrong.
    pub fn open(run: &RunFiles, path: &Path) -> Result<Self> {
        // Not mapped: rows are read once, in order, and a mapped file that is truncated meanwhile would crash the process.
        let open = || {
            let file = run.open(path, false)?;
            Ok((read_head(&file)?, file))
        };
        let (head, file) = open().map_err(|e| instead(path, Wanted::LOGITS, e))?;
        Ok(Self { file, head, next: 0 })
    }

    /// The header.
    pub fn head(&self) -> &Header {
        &self.head
    }

    /// Reads the next row as natural log-probabilities into `out`; `None` after the last. They are computed in f32, as in
    /// llama.cpp. The probabilities do not add up to exactly 1, since tokens below the range are at its lower end.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Format`] for a row that is not one of log-probabilities.
    ///
    /// # Panics
    /// If `out` is not as long as the vocabulary.
    pub fn next_row(&mut self, out: &mut [f32]) -> Result<Option<RowHead>> {
        assert_eq!(out.len(), self.head.vocab, "a row has an entry for every token of the vocabulary");
        let rows = self.head.rows_per_chunk();
        let (chunk, position) = (self.next / rows, self.head.context / 2 + self.next % rows);
        if chunk == self.head.chunks() {
            return Ok(None);
        }
        let size = row_bytes(self.head.vocab as u64);
        let at = self.head.start() + self.next as u64 * size;
        let bytes = self.file.read(at, size)?;
        let (scale, min_log_prob) = (f32_at(&bytes, 0), f32_at(&bytes, 4));
        let wrong = |why: String| {
            let why = format!("chunk {chunk}, position {position}: {why}");
            Error::from(FileError::at(self.file.name(), at, Fault::Unsupported(why)))
        };
        // Probabilities above 1 are invalid, but rounding can raise one that is nearly 1 slightly above it.
        let log_prob = |step: u16| scale * f32::from(step) + min_log_prob;
        if !(scale.is_finite() && min_log_prob.is_finite() && scale >= 0.0 && log_prob(0) <= 1e-3) {
            return Err(wrong(format!("invalid scale {scale} or lowest log-probability {min_log_prob}")));
        }
        let mut max_step = 0;
        for (out, step) in out.iter_mut().zip(bytes[8..].as_chunks::<2>().0) {
            let step = u16::from_le_bytes(*step);
            max_step = max_step.max(step);
            *out = log_prob(step);
        }
        if log_prob(max_step) > 1e-3 {
            return Err(wrong(format!("a log-probability is above 0: {}", log_prob(max_step))));
        }
        self.next += 1;
        let target = self.head.tokens[chunk * self.head.context + position + 1];
        Ok(Some(RowHead { chunk, position, target, scale, min_log_prob }))
    }
}

fn f32_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_bits(u32_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Reads and checks the header. Nothing is allocated before the file is known to be long enough.
fn read_head(file: &InFile) -> Result<Header> {
    let bad = |at: u64, fault: Fault| Error::from(FileError::at(file.name(), at, fault));
    let magic = file.read(0, file.len.min(8))?;
    if magic[..] != MAGIC[..] {
        let why = "not a logits file: it does not begin with \"_logits_\"";
        return Err(Error::refused(format!("{}: {why}", file.name())).or(Wanted::LOGITS.hint));
    }
    let ends = |what: String, end: u64| bad(file.len, Fault::Ends { what, end, len: file.len });
    if file.len < FIXED {
        return Err(ends("the header".into(), FIXED));
    }
    let fixed = file.read(8, 12)?;
    let numbers = [0, 4, 8].map(|at| u32_at(&fixed, at));
    let plausible = |n: [u32; 3]| n[0] < 1 << 24 && n[1] < 1 << 24;
    if !plausible(numbers) && plausible(numbers.map(u32::swap_bytes)) {
        return Err(bad(8, Fault::Header("it is big-endian; such files are little-endian here".into())));
    }
    let names = ["n_ctx", "n_vocab", "n_chunk"];
    for (i, (&n, name)) in numbers.iter().zip(names).enumerate() {
        // A chunk of fewer tokens has no scored position.
        let least = if i == 0 { 3 } else { 1 };
        if n < least || n > i32::MAX as u32 {
            return Err(bad(8 + 4 * i as u64, Fault::Header(format!("{name} is {}", n as i32))));
        }
    }
    let [context, vocab, chunks] = numbers.map(u64::from);

    let tokens = context * chunks;
    let start = FIXED + 4 * tokens;
    if start > file.len {
        return Err(ends(format!("the text of {chunks} chunks of {context} tokens"), start));
    }
    // 2^31 rows of 2^32 bytes: fits.
    let of_chunk = (context - 1 - context / 2) * row_bytes(vocab);
    let end = of_chunk.checked_mul(chunks).and_then(|n| n.checked_add(start));
    let whole = (file.len - start) / of_chunk;
    if end.is_none_or(|end| end > file.len) {
        let what = format!("the last of {chunks} chunks (the first {whole} are whole)");
        return Err(ends(what, end.unwrap_or(u64::MAX)));
    }
    if end != Some(file.len) {
        let why = format!("its header gives a length of {} bytes, but it has {}", end.unwrap_or(0), file.len);
        return Err(bad(8, Fault::Header(why)));
    }

    let sizes = usize::try_from(context).ok().zip(usize::try_from(vocab).ok());
    let Some((context, vocab)) = sizes.filter(|_| usize::try_from(4 * tokens).is_ok()) else {
        return Err(Error::refused(format!(
            "{}: {tokens} tokens are too many for this machine",
            file.name()
        )));
    };
    let bytes = file.read(FIXED, 4 * tokens)?;
    let tokens: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    if let Some(i) = tokens.iter().position(|&t| t as usize >= vocab) {
        let why = format!("token {i} of the text is {}, but the vocabulary has {vocab}", tokens[i] as i32);
        return Err(bad(FIXED + 4 * i as u64, Fault::Header(why)));
    }
    Ok(Header { context, vocab, tokens })
}

/// The file to write.
pub const SAVE: Output = Output::result("--save-logits", "a file of logits", "base.kld");

/// Writes a file row by row. It appears under its name when [`Writer::finish`] is called, or not at all.
pub struct Writer {
    file: NewFile,
    head: Header,
    /// Rows written so far, including those in `buffer`.
    rows: usize,
    /// The file offset of `buffer`.
    at: u64,
    buffer: Vec<u8>,
}

impl Writer {
    /// Begins a file. Space for all rows is reserved at once, where the system supports that.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be created; [`Error::Refused`] for a context below 3, a text that is not a whole number of
    /// chunks, a token beyond the vocabulary, or sizes that the format cannot store.
    pub fn create(run: &RunFiles, path: &Path, head: Header) -> Result<Self> {
        let refused = |why: String| Err(Error::refused(format!("{}: {why}", path.display())));
        let (context, vocab, len) = (head.context, head.vocab, head.tokens.len());
        if context < 3 || len == 0 || len % context != 0 {
            return refused(format!(
                "the text must be a whole number of chunks of at least 3 tokens (found {len} tokens, chunks of {context})"
            ));
        }
        if let Some(token) = head.tokens.iter().find(|&&t| t as usize >= vocab) {
            return refused(format!("token {token} of the text is not in the vocabulary of {vocab}"));
        }
        let numbers = [context, vocab, head.chunks()].map(|n| i32::try_from(n).ok());
        let [Some(_), Some(_), Some(_)] = numbers else {
            return refused(
                "the format stores context, vocabulary and chunks as numbers up to 2^31 − 1".into(),
            );
        };
        let rows = (head.rows_per_chunk() * head.chunks()) as u64;
        let Some(size) = rows.checked_mul(row_bytes(vocab as u64)).and_then(|n| n.checked_add(head.start()))
        else {
            return refused("the file would have more than 2^64 bytes".into());
        };
        let file = run.create(path, size, SAVE)?;
        let mut buffer = MAGIC.to_vec();
        for n in numbers.into_iter().flatten() {
            buffer.extend(n.to_le_bytes());
        }
        for token in &head.tokens {
            buffer.extend(token.to_le_bytes());
        }
        Ok(Self { file, head, rows: 0, at: 0, buffer })
    }

    /// The number of rows in the complete file.
    fn total_rows(&self) -> usize {
        self.head.rows_per_chunk() * self.head.chunks()
    }

    /// Adds the row of the next position, from logits.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written; [`Error::Refused`] for a logit that is NaN or infinite, a row of another
    /// length, or more rows than there are scored tokens.
    pub fn logits(&mut self, logits: &[f32]) -> Result<()> {
        self.check(logits)?;
        encode_logits(logits, &mut self.buffer)?;
        self.added()
    }

    /// Adds the row of the next position, from log-probabilities. Those of [`Reader::next_row`] give the same steps again.
    ///
    /// # Errors
    /// As for [`Writer::logits`].
    pub fn log_probs(&mut self, log_probs: &[f32]) -> Result<()> {
        self.check(log_probs)?;
        encode_log_probs(log_probs, &mut self.buffer)?;
        self.added()
    }

    fn check(&self, row: &[f32]) -> Result<()> {
        if self.rows == self.total_rows() {
            return Err(Error::refused(format!("too many rows: the text has {} scored tokens", self.rows)));
        }
        let (reference, candidate) = (self.head.vocab, row.len());
        if reference == candidate {
            Ok(())
        } else {
            Err(ScoreError::LengthMismatch { reference, candidate }.into())
        }
    }

    fn added(&mut self) -> Result<()> {
        self.rows += 1;
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write(self.at, &self.buffer)?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Completes the file, which gets its name only now.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written; [`Error::Refused`] if rows are missing.
    pub fn finish(mut self) -> Result<()> {
        if self.rows != self.total_rows() {
            let (rows, total) = (self.rows, self.total_rows());
            return Err(Error::refused(format!("rows are missing: expected {total}, found {rows}")));
        }
        self.flush()?;
        finish(vec![self.file])
    }
}

/// Encodes a row of logits, in f32 and with llama.cpp's order of operations, so that the bytes are the same (except for the
/// last bit of `min_log_prob`, which depends on the exponential function).
fn encode_logits(logits: &[f32], out: &mut Vec<u8>) -> std::result::Result<(), ScoreError> {
    let (max, _) = peak(logits)?;
    let min = lowest(logits, max).max(max - RANGE);
    let log_sum = ln(sum_exp(logits, max)) as f32;
    encode(logits, max, min, min - max - log_sum, out);
    Ok(())
}

/// Encodes a row of log-probabilities.
fn encode_log_probs(log_probs: &[f32], out: &mut Vec<u8>) -> std::result::Result<(), ScoreError> {
    let (max, _) = peak(log_probs)?;
    let lowest = lowest(log_probs, max);
    // A row from a file spans at most 16, apart from rounding; cutting that off would change every step.
    let min = if max - lowest < RANGE + 1e-4 { lowest } else { max - RANGE };
    encode(log_probs, max, min, min, out);
    Ok(())
}

fn lowest(row: &[f32], max: f32) -> f32 {
    row.iter().fold(max, |a, &b| if b < a { b } else { a })
}

/// Encodes a row with the range from `min` to `max` divided into steps; smaller values get step 0.
fn encode(row: &[f32], max: f32, min: f32, min_log_prob: f32, out: &mut Vec<u8>) {
    let scale = (max - min) / STEPS;
    let inverse = 1.0 / scale;
    // All logits are equal, or so nearly that the inverse overflows.
    let flat = !inverse.is_finite();
    out.extend(if flat { 0.0 } else { scale }.to_le_bytes());
    out.extend(min_log_prob.to_le_bytes());
    let start = out.len();
    out.resize(start + 2 * (2 * row.len().div_ceil(2)), 0);
    if !flat {
        for (out, &x) in out[start..].as_chunks_mut::<2>().0.iter_mut().zip(row) {
            if x > min {
                *out = nearest(inverse * (x - min)).to_le_bytes();
            }
        }
    }
}

/// Rounds to the nearest integer, ties to even: adding 1.5 · 2^23 leaves it in the low bits.
fn nearest(x: f32) -> u16 {
    let bits = (x.min(STEPS) + 12_582_912.0).to_bits();
    (bits & 0xffff) as u16
}

#[cfg(test)]
mod tests;

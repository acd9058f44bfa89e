//! The file in which llama-perplexity keeps a reference's predictions (`--kl-divergence-base`).
//!
//! ```text
//! "_logits_"                        8 bytes
//! n_ctx, n_vocab, n_chunk           3 × i32
//! tokens                            n_chunk · n_ctx × i32
//! for every chunk, for every position n_ctx/2 .. n_ctx−1 (without the last):
//!     scale, min_log_prob           2 × f32
//!     steps                         n_vocab × u16, and one more that means nothing if n_vocab is odd
//! ```
//!
//! The log-probability of a token is `scale`·step + `min_log_prob`: steps divide the range between the largest logit
//! and the smallest, or 16 below the largest if the smallest is lower still, into 65535. The positions are those of
//! [`scored`], the tokens those of the text (llama-perplexity puts a beginning-of-text in place of
//! each chunk's first when it evaluates, but not in the file). The format has no version and nothing that names the
//! model or the text. llama-perplexity writes numbers in its machine's byte order; here they are little-endian on
//! every machine, and a file from a big-endian one is refused. (Format: `tools/perplexity/perplexity.cpp`.)

use std::path::Path;

use formats::{Error as FileError, Fault};

use super::math::{ln, peak, sum_exp};
use super::{ScoreError, scored};
use crate::disk::{InFile, NewFile, finish};
use crate::error::{Error, Result};

/// Steps of a range: 16 bits.
const STEPS: f32 = 65535.0;
/// How far below the largest logit the range ends.
const RANGE: f32 = 16.0;
/// Entries of a log-probability at or below this are left out when a model is compared with a file.
pub const FLOOR: f32 = -16.0;

const MAGIC: &[u8; 8] = b"_logits_";
/// Magic and three numbers.
const FIXED: u64 = 20;
/// Bytes gathered before they are written.
const BUFFER: usize = 1 << 20;

/// What a file is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Tokens of a chunk.
    pub context: usize,
    /// Entries of a row.
    pub vocab: usize,
    /// The text: `context` tokens for every chunk.
    pub tokens: Vec<u32>,
}

impl Header {
    /// The number of chunks.
    pub fn chunks(&self) -> usize {
        self.tokens.len() / self.context
    }

    /// Scored positions of a chunk.
    pub fn rows_per_chunk(&self) -> usize {
        scored(self.context).len()
    }

    /// Where the rows begin.
    fn start(&self) -> u64 {
        FIXED + 4 * self.tokens.len() as u64
    }
}

/// Bytes of a row.
fn row_bytes(vocab: u64) -> u64 {
    2 * (2 * vocab.div_ceil(2) + 4)
}

/// The place of a row, and how it is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowHead {
    /// The chunk.
    pub chunk: usize,
    /// The position in the chunk; the row predicts the token after it.
    pub position: usize,
    /// That token.
    pub target: u32,
    /// The size of a step.
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
    /// Opens a file and reads everything before the rows.
    ///
    /// # Errors
    /// The system's; a file of another kind, of the wrong length, or with a token that its vocabulary does not have.
    pub fn open(path: &Path) -> Result<Self> {
        // Rows are read once, in order: there is nothing to gain from a map, which a shrinking file would break.
        let file = InFile::open(path, false)?;
        let head = read_head(&file)?;
        Ok(Self { file, head, next: 0 })
    }

    /// What the file is about.
    pub fn head(&self) -> &Header {
        &self.head
    }

    /// The next row, as natural log-probabilities; `None` after the last. They are what the file's numbers say, in
    /// f32 as llama.cpp computes them, and add up to 1 only nearly: all that was below the range is at its lower end.
    ///
    /// # Errors
    /// The system's; a row whose numbers are no log-probabilities.
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
        // A probability above 1 is a broken row; a little is what rounding does to one that is nearly 1.
        let log_prob = |step: u16| scale * f32::from(step) + min_log_prob;
        if !(scale.is_finite() && min_log_prob.is_finite() && scale >= 0.0 && log_prob(0) <= 1e-3) {
            return Err(wrong(format!(
                "scale {scale} and lowest log-probability {min_log_prob} make no sense"
            )));
        }
        let mut most = 0;
        for (out, step) in out.iter_mut().zip(bytes[8..].as_chunks::<2>().0) {
            let step = u16::from_le_bytes(*step);
            most = most.max(step);
            *out = log_prob(step);
        }
        if log_prob(most) > 1e-3 {
            return Err(wrong(format!("a log-probability is {}", log_prob(most))));
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

/// Reads and checks everything before the rows. Nothing is allocated before the file is known to be long enough.
fn read_head(file: &InFile) -> Result<Header> {
    let bad = |at: u64, fault: Fault| Error::from(FileError::at(file.name(), at, fault));
    let magic = file.read(0, file.len.min(8))?;
    if magic[..] != MAGIC[..] {
        let why =
            "it does not begin with \"_logits_\", as files of `llama-perplexity --kl-divergence-base` do";
        return Err(Error::refused(format!("{}: {why}", file.name())));
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
        let why = format!("the numbers in it ask for {} bytes, the file has {}", end.unwrap_or(0), file.len);
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
        let why = format!("token {i} of the text is {}, the vocabulary has {vocab}", tokens[i] as i32);
        return Err(bad(FIXED + 4 * i as u64, Fault::Header(why)));
    }
    Ok(Header { context, vocab, tokens })
}

/// Writes a file row by row. It appears under its name when [`Writer::finish`] is called, or not at all.
pub struct Writer {
    file: NewFile,
    head: Header,
    /// Rows given so far.
    rows: usize,
    /// Where `buffer` belongs.
    at: u64,
    buffer: Vec<u8>,
}

impl Writer {
    /// Begins a file. The space for all rows is reserved at once, where the system can.
    ///
    /// # Errors
    /// The system's; a context below 3, a text that is no whole number of chunks, a token that the vocabulary does
    /// not have, numbers that the format cannot hold.
    pub fn create(path: &Path, head: Header) -> Result<Self> {
        let refused = |why: String| Err(Error::refused(format!("{}: {why}", path.display())));
        let (context, vocab, len) = (head.context, head.vocab, head.tokens.len());
        if context < 3 || len == 0 || len % context != 0 {
            return refused(format!("{len} tokens are no whole number of chunks of {context}, at least 3"));
        }
        if let Some(token) = head.tokens.iter().find(|&&t| t as usize >= vocab) {
            return refused(format!("token {token} of the text is not in the vocabulary of {vocab}"));
        }
        let numbers = [context, vocab, head.chunks()].map(|n| i32::try_from(n).ok());
        let [Some(_), Some(_), Some(_)] = numbers else {
            return refused("the format holds no numbers above 2^31 − 1".into());
        };
        let rows = (head.rows_per_chunk() * head.chunks()) as u64;
        let Some(size) = rows.checked_mul(row_bytes(vocab as u64)).and_then(|n| n.checked_add(head.start()))
        else {
            return refused("the file would have more than 2^64 bytes".into());
        };
        let file = NewFile::create(path, size)?;
        let mut buffer = MAGIC.to_vec();
        for n in numbers.into_iter().flatten() {
            buffer.extend(n.to_le_bytes());
        }
        for token in &head.tokens {
            buffer.extend(token.to_le_bytes());
        }
        Ok(Self { file, head, rows: 0, at: 0, buffer })
    }

    /// The rows that the file is to have.
    fn wanted(&self) -> usize {
        self.head.rows_per_chunk() * self.head.chunks()
    }

    /// Adds the row of the next position, from logits.
    ///
    /// # Errors
    /// The system's; a logit that is no finite number, a row of another length, a row too many.
    pub fn logits(&mut self, logits: &[f32]) -> Result<()> {
        self.check(logits)?;
        encode_logits(logits, &mut self.buffer)?;
        self.added()
    }

    /// Adds the row of the next position, from log-probabilities as they are (those of [`Reader::next_row`]: the
    /// steps come out the same).
    ///
    /// # Errors
    /// As for [`Writer::logits`].
    pub fn log_probs(&mut self, log_probs: &[f32]) -> Result<()> {
        self.check(log_probs)?;
        encode_log_probs(log_probs, &mut self.buffer)?;
        self.added()
    }

    fn check(&self, row: &[f32]) -> Result<()> {
        if self.rows == self.wanted() {
            return Err(Error::refused(format!("a row too many: the text has {} scored tokens", self.rows)));
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

    /// Gives the file its name.
    ///
    /// # Errors
    /// The system's; rows that are missing.
    pub fn finish(mut self) -> Result<()> {
        if self.rows != self.wanted() {
            let (rows, wanted) = (self.rows, self.wanted());
            return Err(Error::refused(format!("{rows} of {wanted} scored tokens have a row")));
        }
        self.flush()?;
        finish(vec![self.file])
    }
}

/// A row of logits as the file has it. In f32 and in llama.cpp's order of operations, so that the bytes are its own
/// (but for the last bit of `min_log_prob`, which depends on the exponential).
fn encode_logits(logits: &[f32], out: &mut Vec<u8>) -> std::result::Result<(), ScoreError> {
    let (max, _) = peak(logits)?;
    let min = lowest(logits, max).max(max - RANGE);
    let log_sum = ln(sum_exp(logits, max)) as f32;
    encode(logits, max, min, min - max - log_sum, out);
    Ok(())
}

/// A row of log-probabilities as the file has it.
fn encode_log_probs(log_probs: &[f32], out: &mut Vec<u8>) -> std::result::Result<(), ScoreError> {
    let (max, _) = peak(log_probs)?;
    let lowest = lowest(log_probs, max);
    // A row from a file spans 16 at most, but for rounding: cutting that off would move every step.
    let min = if max - lowest < RANGE + 1e-4 { lowest } else { max - RANGE };
    encode(log_probs, max, min, min, out);
    Ok(())
}

fn lowest(row: &[f32], max: f32) -> f32 {
    row.iter().fold(max, |a, &b| if b < a { b } else { a })
}

/// Divides the range from `min` to `max` into steps; what lies below is at step 0.
fn encode(row: &[f32], max: f32, min: f32, min_log_prob: f32, out: &mut Vec<u8>) {
    let scale = (max - min) / STEPS;
    let inverse = 1.0 / scale;
    // Equal logits, or so nearly equal that the inverse overflows.
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

/// The nearest whole number, the even one of two: 1.5 · 2^23 leaves it in the low bits.
fn nearest(x: f32) -> u16 {
    let bits = (x.min(STEPS) + 12_582_912.0).to_bits();
    (bits & 0xffff) as u16
}

#[cfg(test)]
mod tests;

//! Evaluation of models on a text: the logits of every scored token, of one model or of several side by side.
//!
//! The protocol is that of llama.cpp's `tools/perplexity`: the text is cut into chunks of `context` tokens that do not
//! overlap, the first token of each is replaced by the begin-of-text token (if the vocabulary adds one), and the second
//! half of each chunk is scored. With a stride, windows overlap instead, and every token but the first is scored once, with
//! at least `context` − stride tokens before it.

pub mod compare;
pub mod comparison;
mod notes;

use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use crate::disk::RunFiles;
use crate::error::{Error, Result};
use crate::runner::{KvType, Network, Run, State, forward};
use crate::score::logits_file::{self, Header};
use crate::score::{self, ScoreError, Scores, TokenScore};
use crate::source::Source;
use crate::tokenizer::tokenizer_of;
use kernels::parallel;
pub use notes::{order_note, split_note};

/// The usual number of tokens per chunk, as in llama-perplexity.
pub const DEFAULT_CONTEXT: usize = 512;

/// How a text is cut into chunks.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// Tokens per chunk.
    pub context: usize,
    /// Chunks at most, from the first on; all unless given.
    pub chunks: Option<usize>,
    /// Tokens from the beginning of a window to that of the next; without it, windows do not overlap.
    pub stride: Option<usize>,
}

/// What a cut's text and settings are called, for messages.
#[derive(Debug, Clone, Copy)]
pub struct CutNames<'a> {
    /// The text's file.
    pub text: &'a str,
    /// The option for the tokens per chunk.
    pub context: &'static str,
    /// The option for the number of chunks.
    pub chunks: &'static str,
}

impl<'a> CutNames<'a> {
    /// Those of commands that measure on a text and nothing else.
    pub fn usual(text: &'a str) -> Self {
        Self { text, context: "--context", chunks: "--chunks" }
    }
}

/// The fewest tokens that a chunk may have.
pub const LEAST_CONTEXT: usize = 4;

/// A chunk of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// The model's input.
    pub tokens: Vec<u32>,
    /// The token after each position of `scored`.
    pub targets: Vec<u32>,
    /// The positions whose predictions are scored.
    pub scored: Range<usize>,
}

/// Cuts a tokenized text into chunks; `first` replaces the first token of each. `names` are for messages.
///
/// # Errors
/// [`Error::TextTooShort`] for fewer tokens than two chunks have (with a stride, fewer than one has); [`Error::Usage`] for
/// a context below 4, a stride outside 1 to context − 1, or no chunks.
pub fn cut(tokens: &[u32], first: Option<u32>, cut: Cut, names: CutNames) -> Result<Vec<Chunk>> {
    let (context, len) = (cut.context, tokens.len());
    let CutNames { text, context: option, chunks } = names;
    if context < LEAST_CONTEXT {
        let why = format!("{option} must be at least {LEAST_CONTEXT} tokens (found {context})");
        return Err(Error::usage(why).or(format!("use {option} {LEAST_CONTEXT} or more")));
    }
    if cut.chunks == Some(0) {
        let why = format!("{chunks} must be at least 1 (found 0)");
        return Err(Error::usage(why).or(format!("use {chunks} 1 or more; or leave out {chunks}")));
    }
    if let Some(stride) = cut.stride.filter(|stride| *stride == 0 || *stride >= context) {
        let most = context - 1;
        let why = format!(
            "--stride must be from 1 to {most}, shorter than the {context} tokens of {option} (found {stride})"
        );
        return Err(Error::usage(why).or(format!("use --stride {most} or less; or leave out --stride")));
    }
    let times = if cut.stride.is_some() { 1 } else { 2 };
    let need = context.saturating_mul(times);
    if len < need {
        let shorter = Some(len / times).filter(|n| *n >= LEAST_CONTEXT);
        return Err(Error::TextTooShort { name: text.into(), found: len, context, need, shorter, option });
    }
    let chunk = |start: usize, scored: Range<usize>| {
        let mut tokens = tokens[start..start + context].to_vec();
        let targets = scored.clone().map(|i| tokens[i + 1]).collect();
        tokens[0] = first.unwrap_or(tokens[0]);
        Chunk { tokens, targets, scored }
    };
    // With a stride, the chunks of a whole text are many times its length.
    let most = cut.chunks.unwrap_or(usize::MAX);
    Ok(match cut.stride {
        None => (0..len / context).take(most).map(|i| chunk(i * context, score::scored(context))).collect(),
        Some(stride) => {
            let starts = (0..=len - context).step_by(stride).take(most);
            starts
                .map(|s| chunk(s, if s == 0 { 0..context - 1 } else { context - 1 - stride..context - 1 }))
                .collect()
        }
    })
}

/// Checks that two models have the same vocabulary. Of a second model without a tokenizer, only the size is checked.
///
/// # Errors
/// [`Error::OtherVocabulary`] for vocabularies of different sizes or with different tokens; [`Error::Refused`] for a
/// tokenizer that cannot be used.
pub fn same_vocabulary(a: (&Source, &Network), b: (&Source, &Network)) -> Result<()> {
    let (va, vb) = (a.1.vocab(), b.1.vocab());
    let other = |why: String| {
        let (first, second) = (a.0.path.clone(), b.0.path.clone());
        Err(Error::OtherVocabulary { first, second, why })
    };
    if va != vb {
        return other(format!("{va} tokens and {vb} tokens"));
    }
    if b.0.model.metadata.get("tokenizer.ggml.model").is_some()
        && !tokenizer_of(a.0)?.same_vocabulary(&tokenizer_of(b.0)?)
    {
        return other("tokens differ".into());
    }
    Ok(())
}

/// What a model is compared with.
pub enum Reference<'a> {
    /// Nothing.
    None,
    /// Another model, run in the same pass.
    Model(&'a Network<'a>),
    /// A model's log-probabilities from a logits file.
    File(Box<logits_file::Reader>),
}

/// An evaluation of models on a text.
pub struct Evaluation<'a> {
    /// The models, each with the type of its KV cache.
    pub models: Vec<(&'a Network<'a>, KvType)>,
    /// What they are compared with.
    pub reference: Reference<'a>,
    /// The type of the reference's KV cache.
    pub kv: KvType,
    /// Tokens per batch.
    pub batch: usize,
    /// A logits file to which the first model's logits are written.
    pub record: Option<logits_file::Writer>,
}

/// The result of an evaluation.
pub struct Evaluated {
    /// The scores of every model.
    pub models: Vec<Scores>,
    /// The seconds that each model took, without scoring.
    pub seconds: Vec<f64>,
    /// The reference's own scores and seconds, if it is a model.
    pub reference: Option<(Scores, f64)>,
}

impl Evaluation<'_> {
    /// Runs the models; `on_batch` is given the scores so far after every batch of chunks.
    ///
    /// # Errors
    /// Those of [`State::new`] and [`forward`]; [`Error::Refused`] for logits that are NaN or infinite, or a logits file with
    /// too few rows; those of [`logits_file::Reader::next_row`] and [`logits_file::Writer::logits`].
    pub fn run(mut self, chunks: &[Chunk], on_batch: &mut dyn FnMut(&[Scores])) -> Result<Evaluated> {
        let context = chunks.iter().map(|c| c.tokens.len()).max().unwrap_or(0);
        let together = (self.batch / context.max(1)).max(1).min(chunks.len().max(1));
        let reference = if let Reference::Model(n) = self.reference { Some(n) } else { None };
        let all: Vec<_> =
            reference.map(|n| (n, self.kv)).into_iter().chain(self.models.iter().copied()).collect();
        let abreast = batches_abreast(&all, together * context).min(chunks.len().div_ceil(together).max(1));
        let mut states = Vec::new();
        for (network, kv) in all {
            let one = || State::new(network, kv, together, context);
            states.push((0..abreast).map(|_| one()).collect::<Result<Vec<_>>>()?);
        }
        let mut models = vec![Scores::new(); self.models.len()];
        let mut seconds = vec![0.0; self.models.len()];
        let mut own = reference.map(|_| (Scores::new(), 0.0));
        for group in chunks.chunks(together * abreast) {
            let mut states = states.iter_mut();
            let truth = match (&mut self.reference, states.len() > self.models.len()) {
                (Reference::Model(n), _) => {
                    let states = states.next().expect("one for each network");
                    let start = Instant::now();
                    let rows = logits_of_batches(n, states, group, together, self.batch)?;
                    if let Some((_, seconds)) = &mut own {
                        *seconds += start.elapsed().as_secs_f64();
                    }
                    Some(rows)
                }
                (Reference::File(file), _) => Some(rows_of(file, group)?),
                (Reference::None, _) => None,
            };
            let file = matches!(self.reference, Reference::File(_));
            if let (Some((own, _)), Some(truth), false) = (&mut own, &truth, file) {
                push(own, group, truth, None, false)?;
            }
            for (i, ((network, _), states)) in self.models.iter().zip(states).enumerate() {
                let start = Instant::now();
                let rows = logits_of_batches(network, states, group, together, self.batch)?;
                seconds[i] += start.elapsed().as_secs_f64();
                push(&mut models[i], group, &rows, truth.as_deref(), file)?;
                if let Some(record) = self.record.as_mut().filter(|_| i == 0) {
                    for row in rows.chunks_exact(network.vocab()) {
                        record.logits(row)?;
                    }
                }
            }
            on_batch(&models);
        }
        if let Some(record) = self.record {
            record.finish()?;
        }
        Ok(Evaluated { models, seconds, reference: own })
    }
}

/// The next chunks' rows of a logits file, `[scored tokens, vocab]`.
fn rows_of(file: &mut logits_file::Reader, chunks: &[Chunk]) -> Result<Vec<f32>> {
    let vocab = file.head().vocab;
    let rows: usize = chunks.iter().map(|c| c.scored.len()).sum();
    let mut all = vec![0f32; rows * vocab];
    for row in all.chunks_exact_mut(vocab) {
        file.next_row(row)?.ok_or_else(|| Error::refused("the logits file has fewer rows than the text"))?;
    }
    Ok(all)
}

/// Opens a logits file and checks that it was made from this text, cut the same way, with the same vocabulary.
///
/// # Errors
/// [`Error::Refused`] if it was not; those of [`logits_file::Reader::open`].
pub fn open_logits(
    run: &RunFiles,
    path: &Path,
    vocab: usize,
    cut: Cut,
    chunks: &[Chunk],
) -> Result<logits_file::Reader> {
    let reader = logits_file::Reader::open(run, path)?;
    let head = reader.head();
    let differ = |what: &str, theirs: usize, ours: usize| {
        Error::refused(format!("{}: {what}: expected {ours}, found {theirs}", path.display()))
    };
    if head.vocab != vocab {
        return Err(differ("vocabulary size", head.vocab, vocab).or("compare models that share a tokenizer"));
    }
    if head.context != cut.context {
        return Err(differ("context", head.context, cut.context).or(format!("--context {}", head.context)));
    }
    if head.chunks() < chunks.len() {
        return Err(
            differ("number of chunks", head.chunks(), chunks.len()).or(format!("--chunks {}", head.chunks()))
        );
    }
    for (i, (theirs, ours)) in head.tokens.chunks(cut.context).zip(chunks).enumerate() {
        // The first token may or may not have been replaced already.
        if theirs[1..] != ours.tokens[1..] {
            let why =
                format!("{}: was made from a different text: the tokens of chunk {i} differ", path.display());
            return Err(Error::refused(why).or("use the text and the tokenizer that the file was made with"));
        }
    }
    Ok(reader)
}

/// The header of a logits file for these chunks.
pub fn head(vocab: usize, cut: Cut, chunks: &[Chunk]) -> Header {
    Header { context: cut.context, vocab, tokens: chunks.iter().flat_map(|c| &c.tokens).copied().collect() }
}

/// The memory for batches that are computed side by side, in bytes. A batch alone may take more.
const ABREAST: usize = 128 << 20;

/// How many batches of so many tokens are computed side by side. A small model's products are too short to be shared by
/// threads: each thread is better given a batch of its own, as long as the batches take little memory.
fn batches_abreast(models: &[(&Network, KvType)], tokens: usize) -> usize {
    // As if everything were kept as f32.
    let bytes = |values: u64| tokens.saturating_mul(4).saturating_mul(values as usize);
    let cache = |n: &Network| bytes(2 * n.config.layers * n.config.kv_heads * n.config.head);
    let caches: usize = models.iter().map(|(n, _)| cache(n)).sum();
    // The logits of the reference are kept while those of another model are computed.
    let work = |n: &Network| {
        let c = &n.config;
        bytes(2 * c.vocab + 4 * c.hidden + 2 * c.intermediate + 2 * (c.heads + c.kv_heads) * c.head)
    };
    let one = caches.saturating_add(models.iter().map(|(n, _)| work(n)).max().unwrap_or(0));
    let threads = rayon::current_num_threads();
    match ABREAST / one.max(1) {
        most if threads > 1 && most >= threads => most.min(2 * threads),
        _ => 1,
    }
}

/// The logits of the scored positions of some chunks, `[scored tokens, vocab]`, `together` chunks for each state.
fn logits_of_batches(
    network: &Network,
    states: &mut [State],
    chunks: &[Chunk],
    together: usize,
    batch: usize,
) -> Result<Vec<f32>> {
    let batches: Vec<_> = chunks.chunks(together).zip(states).collect();
    let mut parts =
        parallel::try_map_items(batches, &|_, (chunks, state)| logits(network, state, chunks, batch))?;
    Ok(if parts.len() == 1 { parts.remove(0) } else { parts.concat() })
}

/// The logits of the scored positions of some chunks, `[scored tokens, vocab]`. Each chunk is a sequence of its own.
fn logits(network: &Network, state: &mut State, chunks: &[Chunk], batch: usize) -> Result<Vec<f32>> {
    state.clear();
    let context = chunks.iter().map(|c| c.tokens.len()).max().unwrap_or(0);
    let step = (batch / chunks.len()).max(1).min(context);
    if step == context {
        return part(network, state, chunks, 0, context);
    }
    // Chunks that are longer than a batch are computed in parts.
    let vocab = network.vocab();
    let mut parts = vec![Vec::new(); chunks.len()];
    for first in (0..context).step_by(step) {
        let last = (first + step).min(context);
        let rows = part(network, state, chunks, first, last)?;
        let mut rest = &rows[..];
        for (all, chunk) in parts.iter_mut().zip(chunks) {
            let (mine, after) = rest.split_at(scored_in(chunk, first, last).len() * vocab);
            all.extend_from_slice(mine);
            rest = after;
        }
    }
    Ok(parts.concat())
}

/// The scored positions among `first..last`.
fn scored_in(chunk: &Chunk, first: usize, last: usize) -> Range<usize> {
    let last = last.min(chunk.scored.end);
    chunk.scored.start.max(first).min(last)..last
}

/// The logits of the scored positions among `first..last` of each chunk.
fn part(
    network: &Network,
    state: &mut State,
    chunks: &[Chunk],
    first: usize,
    last: usize,
) -> Result<Vec<f32>> {
    let (mut runs, mut places, mut at) = (Vec::new(), Vec::new(), 0);
    for (sequence, chunk) in chunks.iter().enumerate() {
        let tokens = &chunk.tokens[first.min(chunk.tokens.len())..last.min(chunk.tokens.len())];
        runs.push(Run { sequence, tokens });
        places.extend(scored_in(chunk, first, last).map(|i| at + i - first));
        at += tokens.len();
    }
    forward(network, state, &runs, &places)
}

/// Scores the logits of some chunks and adds them to `scores`. `truth` are the reference's logits, or its log-probabilities
/// if `file` is set.
fn push(
    scores: &mut Scores,
    chunks: &[Chunk],
    rows: &[f32],
    truth: Option<&[f32]>,
    file: bool,
) -> Result<()> {
    let count: usize = chunks.iter().map(|c| c.targets.len()).sum();
    if count == 0 {
        return Ok(());
    }
    let vocab = rows.len() / count;
    let targets: Vec<u32> = chunks.iter().flat_map(|c| &c.targets).copied().collect();
    let found: std::result::Result<Vec<TokenScore>, ScoreError> = parallel::try_map(count, &|i| {
        let (row, target) = (&rows[i * vocab..(i + 1) * vocab], targets[i] as usize);
        match truth {
            None => score::alone(row, target),
            Some(truth) => {
                let size = truth.len() / count;
                let truth = &truth[i * size..(i + 1) * size];
                if file {
                    score::against_file(truth, row, target)
                } else {
                    score::against_logits(truth, row, target)
                }
            }
        }
    });
    let mut rows = found?.into_iter();
    for chunk in chunks {
        scores.push_chunk(rows.by_ref().take(chunk.targets.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: CutNames = CutNames { text: "a.txt", context: "--n", chunks: "--most" };

    #[test]
    fn what_cannot_be_cut_is_said_with_the_names_that_were_given() {
        let tokens: Vec<u32> = (0..21).collect();
        let says = |context, chunks, stride| {
            let error = cut(&tokens, None, Cut { context, chunks, stride }, NAMES).unwrap_err();
            format!("{error}; {}", error.hint().unwrap())
        };
        let short = says(16, None, None);
        assert!(
            short.starts_with("a.txt: has 21 tokens, but chunks of 16 tokens (--n) need at least 32;"),
            "{short}"
        );
        assert!(short.contains("use --n 10 or less"), "{short}");
        assert!(cut(&tokens, None, Cut { context: 10, chunks: None, stride: None }, NAMES).is_ok());
        assert!(says(50, None, Some(2)).contains("use --n 21 or less"), "{}", says(50, None, Some(2)));
        assert!(says(2, None, None).contains("--n 4 or more") && says(8, Some(0), None).contains("--most 1"));
        assert!(says(8, None, Some(9)).contains("--stride 7 or less"));
        let error =
            cut(&tokens[..7], None, Cut { context: 8, chunks: None, stride: None }, NAMES).unwrap_err();
        assert!(!error.hint().unwrap().contains("--n"), "{error}: no context is short enough");
    }

    #[test]
    fn chunks_are_those_of_the_protocol() {
        let tokens: Vec<u32> = (100..130).collect();
        let plain = Cut { context: 8, chunks: None, stride: None };
        let all = cut(&tokens, Some(1), plain, NAMES).unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!(all[1].tokens, [1, 109, 110, 111, 112, 113, 114, 115]);
        assert_eq!((all[1].scored.clone(), &all[1].targets[..]), (4..7, &[113, 114, 115][..]));
        assert_eq!(cut(&tokens, None, plain, NAMES).unwrap()[1].tokens[0], 108);
        assert_eq!(cut(&tokens, None, Cut { chunks: Some(2), ..plain }, NAMES).unwrap().len(), 2);
        assert!(cut(&tokens[..15], None, plain, NAMES).is_err());
        assert!(cut(&tokens, None, Cut { chunks: Some(0), ..plain }, NAMES).is_err());
    }

    #[test]
    fn a_stride_scores_every_token_once() {
        let tokens: Vec<u32> = (0..50).collect();
        for stride in [1, 3, 7] {
            let all =
                cut(&tokens, Some(0), Cut { context: 8, chunks: None, stride: Some(stride) }, NAMES).unwrap();
            let targets: Vec<u32> = all.iter().flat_map(|c| c.targets.clone()).collect();
            assert_eq!(targets, (1..=*targets.last().unwrap()).collect::<Vec<_>>());
            assert!(targets.len() >= 50 - stride);
        }
        assert!(cut(&tokens, None, Cut { context: 8, chunks: None, stride: Some(8) }, NAMES).is_err());
        assert!(cut(&tokens, None, Cut { context: 8, chunks: None, stride: Some(0) }, NAMES).is_err());
    }
}

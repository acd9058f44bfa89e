//! Models over a text: every scored token's logits, of one model or of several side by side.
//!
//! The protocol is llama.cpp's: the text is cut into chunks of `context` tokens that do not overlap, the first token
//! of each is replaced by the one that begins a text (where the vocabulary begins texts with one), and the second
//! half of each is scored. With a stride, windows overlap instead, and every token but the first is scored once,
//! with at least `context` − stride tokens before it.

pub mod compare;
pub mod comparison;

use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSlice;

use crate::error::{Error, Result};
use crate::runner::{KvType, Network, Run, State, forward};
use crate::score::logits_file::{self, Header};
use crate::score::{self, ScoreError, Scores, TokenScore};
use crate::source::Source;
use crate::tokenizer::Tokenizer;

/// How a text is cut.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// Tokens of a chunk.
    pub context: usize,
    /// Most chunks, from the first on.
    pub chunks: Option<usize>,
    /// Tokens between the beginnings of windows; without it, they do not overlap.
    pub stride: Option<usize>,
}

/// A piece of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// What the model is given.
    pub tokens: Vec<u32>,
    /// What follows each of `scored`.
    pub targets: Vec<u32>,
    /// The positions whose predictions are scored.
    pub scored: Range<usize>,
}

/// Cuts a text that has been read into tokens; `first` replaces the first of each chunk.
///
/// # Errors
/// Fewer than two chunks' tokens (with a stride: fewer than one's); a context or stride of impossible length.
pub fn cut(tokens: &[u32], first: Option<u32>, cut: Cut) -> Result<Vec<Chunk>> {
    let (context, len) = (cut.context, tokens.len());
    if context < 4 {
        return Err(Error::usage(format!("a context of {context} tokens is too short")));
    }
    if cut.chunks == Some(0) {
        return Err(Error::usage("no chunks: there is nothing to score"));
    }
    let least = if cut.stride.is_some() { context } else { 2 * context };
    if len < least {
        let why = format!("the text has {len} tokens, and a context of {context} needs at least {least}");
        return Err(Error::refused(why).or("give a longer text or a shorter --context"));
    }
    let chunk = |start: usize, scored: Range<usize>| {
        let mut tokens = tokens[start..start + context].to_vec();
        let targets = scored.clone().map(|i| tokens[i + 1]).collect();
        tokens[0] = first.unwrap_or(tokens[0]);
        Chunk { tokens, targets, scored }
    };
    let chunks: Vec<Chunk> = match cut.stride {
        None => (0..len / context).map(|i| chunk(i * context, score::scored(context))).collect(),
        Some(stride) if stride == 0 || stride >= context => {
            return Err(Error::usage(format!("a stride of {stride} does not lie between 1 and the context")));
        }
        Some(stride) => {
            let starts = (0..=len - context).step_by(stride);
            starts
                .map(|s| chunk(s, if s == 0 { 0..context - 1 } else { context - 1 - stride..context - 1 }))
                .collect()
        }
    };
    let most = cut.chunks.unwrap_or(usize::MAX);
    Ok(chunks.into_iter().take(most).collect())
}

/// Checks that two models' logits are about the same tokens. A model without a tokenizer is taken at its word.
///
/// # Errors
/// Vocabularies of different lengths or with different tokens.
pub fn same_vocabulary(a: (&Source, &Network), b: (&Source, &Network)) -> Result<()> {
    let (va, vb) = (a.1.vocab(), b.1.vocab());
    let (pa, pb) = (a.0.path.display(), b.0.path.display());
    let hint = "models are compared that share a tokenizer";
    if va != vb {
        return Err(Error::refused(format!("{pa} has {va} tokens, and {pb} has {vb}")).or(hint));
    }
    if b.0.model.metadata.get("tokenizer.ggml.model").is_some()
        && !Tokenizer::of(a.0)?.same_vocabulary(&Tokenizer::of(b.0)?)
    {
        return Err(Error::refused(format!("{pa} and {pb} have different vocabularies")).or(hint));
    }
    Ok(())
}

/// What a model is compared with.
pub enum Reference<'a> {
    /// Nothing.
    None,
    /// Another model, in the same pass.
    Model(&'a Network<'a>),
    /// The log-probabilities that a file keeps of one.
    File(logits_file::Reader),
}

/// What is run over a text.
pub struct Evaluation<'a> {
    /// The models, and how each keeps keys and values.
    pub models: Vec<(&'a Network<'a>, KvType)>,
    /// What they are compared with.
    pub reference: Reference<'a>,
    /// How the reference keeps keys and values.
    pub kv: KvType,
    /// Tokens that are computed together.
    pub batch: usize,
    /// Where the logits of the first model go, besides.
    pub record: Option<logits_file::Writer>,
}

/// What came of it.
pub struct Evaluated {
    /// The scores of every model.
    pub models: Vec<Scores>,
    /// The seconds that each took, scoring left out.
    pub seconds: Vec<f64>,
    /// The reference's own scores and seconds, where it is a model.
    pub reference: Option<(Scores, f64)>,
}

impl Evaluation<'_> {
    /// Runs everything; `tick` is told of every chunk.
    ///
    /// # Errors
    /// The runner's; logits that are not finite; what the logits files say.
    pub fn run(mut self, chunks: &[Chunk], mut tick: impl FnMut(&[Scores])) -> Result<Evaluated> {
        let context = chunks.iter().map(|c| c.tokens.len()).max().unwrap_or(0);
        let together = (self.batch / context.max(1)).max(1).min(chunks.len().max(1));
        let mut states = Vec::new();
        let reference = if let Reference::Model(n) = self.reference { Some(n) } else { None };
        for (network, kv) in reference.map(|n| (n, self.kv)).iter().chain(&self.models) {
            states.push(State::new(network, *kv, together, context)?);
        }
        let mut models = vec![Scores::new(); self.models.len()];
        let mut seconds = vec![0.0; self.models.len()];
        let mut own = reference.map(|_| (Scores::new(), 0.0));
        for group in chunks.chunks(together) {
            let mut states = states.iter_mut();
            let truth = match (&mut self.reference, states.len() > self.models.len()) {
                (Reference::Model(n), _) => {
                    let state = states.next().expect("one for each network");
                    let start = Instant::now();
                    let rows = logits(n, state, group, self.batch)?;
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
            for (i, ((network, _), state)) in self.models.iter().zip(states).enumerate() {
                let start = Instant::now();
                let rows = logits(network, state, group, self.batch)?;
                seconds[i] += start.elapsed().as_secs_f64();
                push(&mut models[i], group, &rows, truth.as_deref(), file)?;
                if let Some(record) = self.record.as_mut().filter(|_| i == 0) {
                    for row in rows.chunks_exact(network.vocab()) {
                        record.logits(row)?;
                    }
                }
            }
            tick(&models);
        }
        if let Some(record) = self.record {
            record.finish()?;
        }
        Ok(Evaluated { models, seconds, reference: own })
    }
}

/// The rows that a file has for some chunks.
fn rows_of(file: &mut logits_file::Reader, chunks: &[Chunk]) -> Result<Vec<f32>> {
    let vocab = file.head().vocab;
    let rows: usize = chunks.iter().map(|c| c.scored.len()).sum();
    let mut all = vec![0f32; rows * vocab];
    for row in all.chunks_exact_mut(vocab) {
        file.next_row(row)?.ok_or_else(|| Error::refused("the logits file has fewer rows than the text"))?;
    }
    Ok(all)
}

/// Opens a logits file for a text: what it was made of must be what is scored.
///
/// # Errors
/// Another vocabulary, another context, another text.
pub fn open_logits(path: &Path, vocab: usize, cut: Cut, chunks: &[Chunk]) -> Result<logits_file::Reader> {
    let reader = logits_file::Reader::open(path)?;
    let head = reader.head();
    let differ = |what: &str, theirs: usize, ours: usize| {
        Error::refused(format!("{}: is of a {what} of {theirs}, not {ours}", path.display()))
    };
    if head.vocab != vocab {
        return Err(differ("vocabulary", head.vocab, vocab).or("compare models that share a tokenizer"));
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
            let why = format!("{}: was made of another text: chunk {i} has other tokens", path.display());
            return Err(
                Error::refused(why).or("give the text, and the tokenizer, that the file was made with")
            );
        }
    }
    Ok(reader)
}

/// What a logits file of these chunks begins with.
pub fn head(vocab: usize, cut: Cut, chunks: &[Chunk]) -> Header {
    Header { context: cut.context, vocab, tokens: chunks.iter().flat_map(|c| &c.tokens).copied().collect() }
}

/// The logits behind the scored positions of some chunks, each a sequence of its own.
fn logits(network: &Network, state: &mut State, chunks: &[Chunk], batch: usize) -> Result<Vec<f32>> {
    state.clear();
    let context = chunks.iter().map(|c| c.tokens.len()).max().unwrap_or(0);
    let step = (batch / chunks.len()).max(1).min(context);
    if step == context {
        return part(network, state, chunks, 0, context);
    }
    // A chunk that is longer than a batch comes in several parts.
    let vocab = network.vocab();
    let mut parts = vec![Vec::new(); chunks.len()];
    for first in (0..context).step_by(step) {
        let last = (first + step).min(context);
        let rows = part(network, state, chunks, first, last)?;
        let mut rest = &rows[..];
        for (all, chunk) in parts.iter_mut().zip(chunks) {
            let (mine, after) = rest.split_at(wanted(chunk, first, last).len() * vocab);
            all.extend_from_slice(mine);
            rest = after;
        }
    }
    Ok(parts.concat())
}

/// Scored positions among `first..last`.
fn wanted(chunk: &Chunk, first: usize, last: usize) -> Range<usize> {
    let last = last.min(chunk.scored.end);
    chunk.scored.start.max(first).min(last)..last
}

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
        places.extend(wanted(chunk, first, last).map(|i| at + i - first));
        at += tokens.len();
    }
    forward(network, state, &runs, &places)
}

/// Scores the rows of some chunks.
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
    let found: std::result::Result<Vec<TokenScore>, ScoreError> = rows
        .par_chunks_exact(vocab)
        .enumerate()
        .map(|(i, row)| {
            let target = targets[i] as usize;
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
        })
        .collect();
    let mut rows = found?.into_iter();
    for chunk in chunks {
        scores.push_chunk(rows.by_ref().take(chunk.targets.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_those_of_the_protocol() {
        let tokens: Vec<u32> = (100..130).collect();
        let plain = Cut { context: 8, chunks: None, stride: None };
        let all = cut(&tokens, Some(1), plain).unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!(all[1].tokens, [1, 109, 110, 111, 112, 113, 114, 115]);
        assert_eq!((all[1].scored.clone(), &all[1].targets[..]), (4..7, &[113, 114, 115][..]));
        assert_eq!(cut(&tokens, None, plain).unwrap()[1].tokens[0], 108);
        assert_eq!(cut(&tokens, None, Cut { chunks: Some(2), ..plain }).unwrap().len(), 2);
        assert!(cut(&tokens[..15], None, plain).is_err());
        assert!(cut(&tokens, None, Cut { chunks: Some(0), ..plain }).is_err());
    }

    #[test]
    fn a_stride_scores_every_token_once() {
        let tokens: Vec<u32> = (0..50).collect();
        for stride in [1, 3, 7] {
            let all = cut(&tokens, Some(0), Cut { context: 8, chunks: None, stride: Some(stride) }).unwrap();
            let targets: Vec<u32> = all.iter().flat_map(|c| c.targets.clone()).collect();
            assert_eq!(targets, (1..=*targets.last().unwrap()).collect::<Vec<_>>());
            assert!(targets.len() >= 50 - stride);
        }
        assert!(cut(&tokens, None, Cut { context: 8, chunks: None, stride: Some(8) }).is_err());
        assert!(cut(&tokens, None, Cut { context: 8, chunks: None, stride: Some(0) }).is_err());
    }
}

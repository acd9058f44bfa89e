//! `ggufkit eval`: perplexity, and KL divergence from a reference model.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::args::{Input, Running, at_least_one};
use super::json::print_json;
use super::{claim, note, print};
use ggufkit::evaluate::{self, Cut, CutNames, DEFAULT_CONTEXT, Evaluation, Reference};
use ggufkit::runner::{Network, Options};
use ggufkit::score::bootstrap::{Bootstrap, Interval, Ratio};
use ggufkit::score::stats::Estimate;
use ggufkit::score::{Scores, Summary, logits_file};
use ggufkit::source::Source;
use ggufkit::text::Table;
use ggufkit::tokenizer::{Text, text_file, tokenizer_of};
use ggufkit::{Error, Result};

/// Measures a model's perplexity on a text with llama.cpp's protocol, and its KL divergence from a reference model.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ggufkit eval model-Q4_0.gguf text.txt
  ggufkit eval model-Q4_0.gguf text.txt --reference model-F16.gguf
  ggufkit eval model-F16.gguf text.txt --save-logits base.kld     (as llama-perplexity --kl-divergence-base)
  ggufkit eval model-Q4_0.gguf text.txt --logits base.kld         (as llama-perplexity --kl-divergence)")]
pub struct Eval {
    #[command(flatten)]
    input: Input,
    /// The text file to evaluate on
    #[arg(value_name = "TEXT")]
    text: PathBuf,
    /// Reference model: run it on the same text and report the KL divergence from it
    #[arg(long, value_name = "MODEL", conflicts_with = "logits")]
    reference: Option<PathBuf>,
    /// Reference logits: report the KL divergence from the model whose logits are in this file (of --save-logits, or of
    /// llama-perplexity --kl-divergence-base)
    #[arg(long, value_name = "FILE", conflicts_with = "stride")]
    logits: Option<PathBuf>,
    /// Save the model's logits to a file for --logits or for llama-perplexity --kl-divergence
    #[arg(long, value_name = "FILE", conflicts_with = "stride")]
    save_logits: Option<PathBuf>,
    #[command(flatten)]
    cutting: Cutting,
    /// Fail (exit code 3) if the mean KL divergence is above this, in nats per token (e.g. 0.05)
    #[arg(long, value_name = "NATS", value_parser = nats)]
    max_kld: Option<f64>,
    #[command(flatten)]
    running: Running,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// How a text is cut into chunks.
#[derive(Debug, Args)]
pub struct Cutting {
    /// Context length in tokens of each chunk; the second half of each chunk is scored [default: 512, or the model's
    /// context length if that is shorter]
    #[arg(long, value_name = "N")]
    pub context: Option<usize>,
    /// Use at most this many chunks from the beginning of the text [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub chunks: Option<usize>,
    /// Use overlapping chunks that start N tokens apart, and score every token once [default: no overlap]
    #[arg(long, value_name = "N")]
    pub stride: Option<usize>,
}

impl Cutting {
    /// The settings for [`evaluate::cut`] with this model; prints a note if its context length matters.
    pub fn cut(&self, source: &Source) -> Cut {
        let (context, about) = source.chunk_length(self.context, DEFAULT_CONTEXT, "--context");
        about.iter().for_each(|text| note(text));
        Cut { context, chunks: self.chunks, stride: self.stride }
    }
}

/// A progress bar on standard error that counts chunks.
fn bar(chunks: usize) -> ProgressBar {
    let bar = ProgressBar::new(chunks as u64);
    let style = "{bar:30} {pos}/{len} chunks  {eta} left  {msg}";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is valid"));
    bar
}

/// A number of nats that a divergence can be compared with.
pub fn nats(text: &str) -> std::result::Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0);
    number.ok_or_else(|| format!("{text:?} must be a number of at least 0"))
}

/// Compares a mean KL divergence with the limit of `--max-kld`, if there is one. What was not measured, or is no number, is not
/// within a limit. `more` ends the message.
///
/// # Errors
/// [`Error::LimitMissed`].
pub fn within(most: Option<f64>, kld: Option<f64>, more: &str) -> Result<()> {
    match (most, kld) {
        (Some(most), Some(kld)) if kld.is_nan() => Err(Error::LimitMissed(format!(
            "the mean KL divergence is not a number (NaN), so that it is not within --max-kld {most}{more}"
        ))),
        (Some(most), Some(kld)) if kld > most => Err(Error::LimitMissed(format!(
            "the mean KL divergence is {kld:.6}, above --max-kld {most}{more}"
        ))),
        (Some(most), None) => Err(Error::LimitMissed(format!(
            "the mean KL divergence was not measured, so that it may be above --max-kld {most}{more}"
        ))),
        _ => Ok(()),
    }
}

impl Eval {
    pub fn run(self) -> Result<()> {
        if self.max_kld.is_some() && self.reference.is_none() && self.logits.is_none() {
            return Err(
                Error::usage("--max-kld needs a reference").or("add --reference MODEL or --logits FILE")
            );
        }
        let source = self.input.open_to_run()?;
        let reference = self.reference.as_deref().map(|path| self.input.open_beside(path)).transpose()?;
        if let Some(path) = &self.save_logits {
            claim(&self.input.run, path, logits_file::SAVE)?;
        }
        let cut = self.cutting.cut(&source);
        let scores = &self.running.pool()?.install(|| self.measure(&source, reference.as_ref(), cut))?;
        self.input.run.unchanged()?;
        let summary = scores.summary().expect("there is at least one chunk");
        let bootstrap = Bootstrap::default();
        let (interval, ratio) = (bootstrap.kld(scores), bootstrap.perplexity_ratio(scores));
        if self.json {
            let value = json!({
                "model": source.path.display().to_string(),
                "text": self.text.display().to_string(),
                "context": cut.context,
                "stride": cut.stride,
                "kv": self.running.kv().name(),
                "activations": if self.running.exact { "float" } else { "int8" },
                "summary": summary,
                "kld_interval": interval,
                "perplexity_ratio": ratio,
            });
            print_json(&value)?;
        } else {
            print(&as_text(&summary, interval, ratio, cut))?;
        }
        within(self.max_kld, summary.against.as_ref().map(|a| a.kld.mean.value), "")
    }

    /// The model's scores.
    fn measure(&self, source: &Source, reference: Option<&Source>, cut: Cut) -> Result<Scores> {
        let (run, options) = (&self.input.run, Options { exact: self.running.exact, isa: None });
        let network = Network::new(source, options)?;
        let tokenizer = tokenizer_of(source)?;
        let file = text_file::read(run, &self.text)?;
        file.notes.iter().for_each(|text| note(text));
        let text = Text::new(&file.text, &tokenizer)?;
        let name = self.text.display().to_string();
        let chunks = evaluate::cut(&text.tokens, text.first, cut, CutNames::usual(&name))?;
        let other = reference.map(|r| Network::new(r, options)).transpose()?;
        if let (Some(reference), Some(other)) = (reference, &other) {
            evaluate::same_vocabulary((source, &network), (reference, other))?;
            let shown = reference.path.display().to_string();
            evaluate::split_note(&file.text, source, &shown, reference)?.iter().for_each(|text| note(text));
            let own = source.path.display().to_string();
            evaluate::order_note((&own, source), (&shown, reference)).iter().for_each(|text| note(text));
            let most = other.config.context as usize;
            if cut.context > most && Some(most) != source.context_length() {
                note(&format!(
                    "the chunks have {} tokens, but the reference's context length is {most}: use --context {most}",
                    cut.context
                ));
            }
        }
        let reference = match (&other, &self.logits) {
            (Some(n), _) => Reference::Model(n),
            (_, Some(path)) => {
                Reference::File(Box::new(evaluate::open_logits(run, path, network.vocab(), cut, &chunks)?))
            }
            _ => Reference::None,
        };
        let record = self.save_logits.as_deref().map(|path| {
            logits_file::Writer::create(run, path, evaluate::head(network.vocab(), cut, &chunks))
        });
        let evaluation = Evaluation {
            models: vec![(&network, self.running.kv())],
            reference,
            kv: self.running.kv(),
            batch: self.running.batch(),
            record: record.transpose()?,
        };
        let bar = bar(chunks.len());
        let mut all = evaluation.run(&chunks, &mut |scores| {
            bar.set_position(scores[0].chunks().len() as u64);
            if let Some(s) = scores[0].summary() {
                bar.set_message(format!("perplexity {:.4}", s.perplexity.value));
            }
        })?;
        bar.finish_and_clear();
        Ok(all.models.remove(0))
    }
}

fn estimate(e: &Estimate, digits: usize) -> String {
    match e.error {
        Some(error) => format!("{:.digits$} ± {error:.digits$}", e.value),
        None => format!("{:.digits$}", e.value),
    }
}

fn as_text(s: &Summary, interval: Option<Interval>, ratio: Option<Ratio>, cut: Cut) -> String {
    let mut text = format!("{} tokens scored in {} chunks of {}", s.tokens, s.chunks, cut.context);
    match cut.stride {
        Some(n) => text += &format!(", starting {n} tokens apart\n\n"),
        None => text += "\n\n",
    }
    let mut table = Table::new(&["figure", "value"]);
    let mut line = |name: &str, value: String| table.row([name.to_string(), value]);
    line("perplexity", estimate(&s.perplexity, 4));
    if let Some(a) = &s.against {
        line("perplexity of the reference", estimate(&a.reference_perplexity, 4));
        line("ratio of perplexities", estimate(&a.ratio, 6));
        if let Some(Interval { low, high }) = ratio.and_then(|r| r.interval) {
            line("  95 % interval (bootstrap)", format!("{low:.6} to {high:.6}"));
        }
        line("difference of perplexities", estimate(&a.difference, 6));
        if let Some(c) = a.correlation {
            line("correlation of log probabilities", format!("{:.2} %", 100.0 * c));
        }
        line("KL divergence, mean", estimate(&a.kld.mean, 6));
        if let Some(Interval { low, high }) = interval {
            line("  95 % interval (bootstrap)", format!("{low:.6} to {high:.6}"));
        }
        let k = &a.kld;
        for (name, x) in [
            ("  median", k.median),
            ("  90 %", k.p90),
            ("  95 %", k.p95),
            ("  99 %", k.p99),
            ("  99.9 %", k.p99_9),
            ("  largest", k.max),
        ] {
            line(name, format!("{x:.6}"));
        }
        let percent = |e: &Estimate| {
            estimate(&Estimate { value: 100.0 * e.value, error: e.error.map(|x| 100.0 * x) }, 3) + " %"
        };
        line("same top token", percent(&a.same_top));
        line("change of token probability, mean", percent(&a.dp.mean));
        line("  root mean square", percent(&a.dp.rms));
        for (name, x) in [
            ("  1 %", a.dp.p1),
            ("  5 %", a.dp.p5),
            ("  median", a.dp.median),
            ("  95 %", a.dp.p95),
            ("  99 %", a.dp.p99),
        ] {
            line(name, format!("{:.3} %", 100.0 * x));
        }
    }
    let _ = write!(text, "{table}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_missed_by_what_is_above_it_unmeasured_or_no_number() {
        for (most, kld, says) in [
            (None, Some(f64::NAN), None),
            (None, None, None),
            (Some(0.1), Some(0.1), None),
            (Some(0.1), Some(-1e-9), None),
            (Some(0.1), Some(0.25), Some("the mean KL divergence is 0.250000, above --max-kld 0.1; kept")),
            (
                Some(0.1),
                Some(f64::INFINITY),
                Some("the mean KL divergence is inf, above --max-kld 0.1; kept"),
            ),
            (
                Some(0.1),
                Some(f64::NAN),
                Some(
                    "the mean KL divergence is not a number (NaN), so that it is not within --max-kld 0.1; kept",
                ),
            ),
            (
                Some(0.1),
                None,
                Some("the mean KL divergence was not measured, so that it may be above --max-kld 0.1; kept"),
            ),
        ] {
            let found = within(most, kld, "; kept").err();
            assert_eq!(found.as_ref().map(ToString::to_string).as_deref(), says);
            assert!(found.is_none_or(|e| e.exit_code() == 3));
        }
    }
}

//! `ggufkit eval`: perplexity, and KL divergence from a reference model.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::args::{Input, Running};
use super::json::print_json;
use super::print;
use ggufkit::evaluate::{self, Cut, Evaluation, Reference};
use ggufkit::runner::{Network, Options};
use ggufkit::score::bootstrap::{Bootstrap, Interval, Ratio};
use ggufkit::score::stats::Estimate;
use ggufkit::score::{Scores, Summary, logits_file};
use ggufkit::source::Source;
use ggufkit::text::{Table, visible};
use ggufkit::tokenizer::{Text, Tokenizer};
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
    /// Fail (exit code 1) if the mean KL divergence is above this, in nats per token (e.g. 0.05)
    #[arg(long, value_name = "NATS")]
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
    /// Context length in tokens of each chunk; the second half of each chunk is scored
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub context: usize,
    /// Use at most this many chunks from the beginning of the text [default: all]
    #[arg(long, value_name = "N")]
    pub chunks: Option<usize>,
    /// Use overlapping chunks that start N tokens apart, and score every token once [default: no overlap]
    #[arg(long, value_name = "N")]
    pub stride: Option<usize>,
}

impl Cutting {
    /// The settings for [`evaluate::cut`].
    pub fn cut(&self) -> Cut {
        Cut { context: self.context, chunks: self.chunks, stride: self.stride }
    }
}

/// A progress bar on standard error that counts chunks.
fn bar(chunks: usize) -> ProgressBar {
    let bar = ProgressBar::new(chunks as u64);
    let style = "{bar:30} {pos}/{len} chunks  {eta} left  {msg}";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is valid"));
    bar
}

impl Eval {
    pub fn run(self) -> Result<()> {
        let source = self.input.open()?;
        let reference = self.reference.as_deref().map(|path| self.input.open_beside(path)).transpose()?;
        if let Some(path) = &self.save_logits {
            self.input.run.claim(path, logits_file::SAVE)?;
        }
        let found = self.running.pool()?.install(|| self.measure(&source, reference.as_ref()))?;
        self.input.run.unchanged()?;
        let scores = &found.0;
        let summary = scores.summary().expect("there is at least one chunk");
        let bootstrap = Bootstrap::default();
        let (interval, ratio) = (bootstrap.kld(scores), bootstrap.perplexity_ratio(scores));
        if self.json {
            let value = json!({
                "model": source.path.display().to_string(),
                "text": self.text.display().to_string(),
                "context": self.cutting.context,
                "stride": self.cutting.stride,
                "kv": self.running.kv().name(),
                "activations": if self.running.exact { "float" } else { "int8" },
                "summary": summary,
                "kld_interval": interval,
                "perplexity_ratio": ratio,
            });
            print_json(&value)?;
        } else {
            print(&as_text(&summary, interval, ratio, &self.cutting, found.1.as_deref()))?;
        }
        let kld = summary.against.as_ref().map(|a| a.kld.mean.value);
        match (self.max_kld, kld) {
            (Some(_), None) => {
                Err(Error::usage("--max-kld needs a reference").or("add --reference MODEL or --logits FILE"))
            }
            (Some(most), Some(kld)) if kld > most => {
                Err(Error::Failed(format!("the mean KL divergence is {kld:.6}, above --max-kld {most}")))
            }
            _ => Ok(()),
        }
    }

    /// The scores, and a note for the user if there is one.
    fn measure(&self, source: &Source, reference: Option<&Source>) -> Result<(Scores, Option<String>)> {
        let (run, options) = (&self.input.run, Options { exact: self.running.exact, isa: None });
        let network = Network::new(source, options)?;
        let tokenizer = Tokenizer::of(source)?;
        let text = Text::read(run, &self.text, &tokenizer)?;
        let cut = self.cutting.cut();
        let chunks = evaluate::cut(&text.tokens, text.first, cut)?;
        let mut note = None;
        let other = reference.map(|r| Network::new(r, options)).transpose()?;
        if let (Some(reference), Some(other)) = (reference, &other) {
            evaluate::same_vocabulary((source, &network), (reference, other))?;
            note = context_warning(other, cut);
        }
        let reference = match (&other, &self.logits) {
            (Some(n), _) => Reference::Model(n),
            (_, Some(path)) => {
                Reference::File(evaluate::open_logits(run, path, network.vocab(), cut, &chunks)?)
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
        let mut all = evaluation.run(&chunks, |scores| {
            bar.set_position(scores[0].chunks().len() as u64);
            if let Some(s) = scores[0].summary() {
                bar.set_message(format!("perplexity {:.4}", s.perplexity.value));
            }
        })?;
        bar.finish_and_clear();
        Ok((all.models.remove(0), note.or(context_warning(&network, cut))))
    }
}

/// A warning if the chunks are longer than the model's maximum context length.
pub fn context_warning(network: &Network, cut: Cut) -> Option<String> {
    let most = network.config.context as usize;
    (cut.context > most).then(|| {
        format!(
            "the chunks have {} tokens, but the model's context length is {most}: use --context {most}",
            cut.context
        )
    })
}

fn estimate(e: &Estimate, digits: usize) -> String {
    match e.error {
        Some(error) => format!("{:.digits$} ± {error:.digits$}", e.value),
        None => format!("{:.digits$}", e.value),
    }
}

fn as_text(
    s: &Summary,
    interval: Option<Interval>,
    ratio: Option<Ratio>,
    cutting: &Cutting,
    note: Option<&str>,
) -> String {
    let mut text = format!("{} tokens scored in {} chunks of {}", s.tokens, s.chunks, cutting.context);
    match cutting.stride {
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
    if let Some(note) = note {
        let _ = writeln!(text, "\nnote: {}", visible(note));
    }
    text
}

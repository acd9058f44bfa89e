//! `convert` and `quantize`: one command under two names. Without `--type`, `convert` keeps every tensor's type.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::{ArgMatches, Args, FromArgMatches};
use formats::container::gguf;
use ggufkit::evaluate::comparison::Comparison;
use ggufkit::machine::Machine;
use ggufkit::pipeline::{self, Check, Order};
use ggufkit::plan::{Choice, Plan, PlanOptions, Unreadable, edit};
use ggufkit::report::compare::table;
use ggufkit::resources::Limits;
use ggufkit::scheme::{self, Scheme, choice, recipe};
use ggufkit::source::Source;
use ggufkit::text::parse_bytes;
use ggufkit::{Options, Result};
use regex::Regex;

use super::allocation::allocation_text;
use super::args::{
    Edits, Endian, FormatName, Input, Output, Resources, Rounding, SizeBudget, at_least_one, find_scheme,
    machines, scheme_or_keep, tensor_rule,
};
use super::eval::{nats, within};
use super::outcome::{plan_table, plan_text, print_plan, report_text};
use super::print;
use super::progress::Progress;

/// `ggufkit convert`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ggufkit convert model.bin model.gguf --tokenizer tokenizer.bin
  ggufkit convert model.gguf model-be.gguf --endian big
  ggufkit convert model.gguf model.bin --for ullm
  ggufkit convert model.gguf out/ --split-max-size 4G --type f16")]
pub struct Convert {
    #[command(flatten)]
    common: Common,
    /// Quantization scheme, as listed by `ggufkit quantize --help`; `keep` keeps every tensor's type
    #[arg(
        long = "type",
        value_name = "SCHEME",
        default_value = "keep",
        value_parser = scheme_or_keep,
        conflicts_with = "recipe"
    )]
    scheme: SchemeOrKeep,
}

const EXAMPLES: &str = "Examples:
  ggufkit quantize model.safetensors model-q4_k_m.gguf --type q4_k_m
  ggufkit quantize model.gguf small.gguf --type int4 --tensor 'attn_v=q8_0' --dry-run
  ggufkit quantize --print-recipe q4_k_m > mine.toml
  ggufkit quantize model.gguf mine.gguf --recipe mine.toml
  ggufkit quantize model.bin model-int8.bin --type int8";

/// The end of `quantize --help`: the schemes by section, and examples.
fn quantize_help() -> String {
    let line = |(title, schemes): (String, Vec<String>)| format!("  {title}: {}\n", schemes.join(", "));
    let sections: String = scheme::table().into_iter().map(line).collect();
    format!("Schemes:\n{sections}\n{EXAMPLES}")
}

/// `ggufkit quantize`.
#[derive(Debug, Args)]
#[command(after_help = quantize_help())]
pub struct Quantizing {
    #[command(flatten)]
    common: Common,
    /// Quantization scheme, as listed below
    #[arg(
        long = "type",
        value_name = "SCHEME",
        value_parser = find_scheme,
        conflicts_with = "recipe",
        required_unless_present_any = ["recipe", "print_recipe", "fit", "size", "bits_per_weight", "machine"]
    )]
    scheme: Option<Arc<Scheme>>,
    #[command(flatten)]
    budget: SizeBudget,
    /// Print a scheme as a recipe for --recipe and exit
    #[arg(long, value_name = "SCHEME", value_parser = find_scheme, exclusive = true)]
    print_recipe: Option<Arc<Scheme>>,
}

/// `ggufkit quantize` in its two uses.
#[derive(Debug)]
pub enum Quantize {
    /// Quantize IN into OUT.
    Make(Box<Quantizing>),
    /// Print a scheme as a recipe.
    Print(Arc<Scheme>),
}

impl FromArgMatches for Quantize {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        match matches.get_one::<Arc<Scheme>>("print_recipe") {
            Some(scheme) => Ok(Self::Print(scheme.clone())),
            None => Quantizing::from_arg_matches(matches).map(|q| Self::Make(Box::new(q))),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Quantize {
    fn augment_args(command: clap::Command) -> clap::Command {
        Quantizing::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Quantizing::augment_args_for_update(command)
    }
}

/// A scheme, or `None` to keep every type. This needs a name of its own because clap treats a plain `Option` as an
/// argument that may be left out.
type SchemeOrKeep = Option<Arc<Scheme>>;

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    input: Input,
    /// The output: .gguf, .safetensors, a folder (safetensors checkpoint), or .bin (llama2.c)
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Format of OUT [default: from its file name extension]
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// Use a recipe, a scheme of your own in a file (docs/schemes.md), instead of --type
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Set the type of tensors whose name matches REGEX (e.g. attn_v=q8_0, ffn_down=keep); may be repeated, and the first
    /// match applies
    #[arg(long, value_name = "REGEX=TYPE", value_parser = tensor_rule)]
    tensor: Vec<(Regex, Choice)>,
    /// Type of the output matrix (e.g. q8_0)
    #[arg(long, value_name = "TYPE", value_parser = choice)]
    output_type: Option<Choice>,
    /// Type of the token embedding (e.g. q8_0)
    #[arg(long, value_name = "TYPE", value_parser = choice)]
    embedding_type: Option<Choice>,
    /// Use the scheme's base type for every matrix, including output and embedding
    #[arg(long)]
    pure: bool,
    /// Fail if a row length is not a multiple of the type's block size, instead of using another type
    #[arg(long)]
    strict: bool,
    /// Allow quantizing weights that are already quantized, which adds the errors of both
    #[arg(long)]
    allow_requantize: bool,
    /// Allow ternary types for weights that are not ternary, which destroys most models
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    output: Output,
    /// Target program or machine: sets the format, byte order, version and types that it reads, and refuses what it
    /// cannot run (docs/vintage.md)
    #[arg(long = "for", value_name = "MACHINE", value_parser = machines())]
    machine: Option<&'static Machine>,
    /// Byte order of OUT [default: that of IN]
    #[arg(long, value_enum)]
    endian: Option<Endian>,
    /// Alignment of tensor data in a GGUF, in bytes; a power of two [default: that of IN, or 32]
    #[arg(long, value_name = "BYTES")]
    align: Option<u32>,
    /// Split OUT into shards with at most this much tensor data each (e.g. 4G, 500M)
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    split_max_size: Option<u64>,
    /// Version of a llama2.c .bin: 0 or 1 (f32), or 2 (int8 groups) [default: from IN and --type]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=2))]
    bin_version: Option<u32>,
    /// Largest group size of a llama2.c version 2 .bin, in weights; halved until it divides every row [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(4..=65536))]
    group_size: Option<u32>,
    #[command(flatten)]
    edits: Edits,
    #[command(flatten)]
    rounding: Rounding,
    #[command(flatten)]
    resources: Resources,
    #[command(flatten)]
    check: CheckArgs,
    /// Show every tensor's new type, its size and the rule that chose it, without writing anything
    #[arg(long, conflicts_with = "check")]
    dry_run: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// The comparison of the result with the source.
#[derive(Debug, Args)]
struct CheckArgs {
    /// After writing, evaluate IN and OUT on this text file and report the KL divergence
    #[arg(long, value_name = "TEXT")]
    check: Option<PathBuf>,
    /// Context length in tokens of each chunk for --check [default: 512, or the model's context length if that is
    /// shorter]
    #[arg(long, value_name = "N", requires = "check")]
    check_context: Option<usize>,
    /// Use at most this many chunks for --check [default: all]
    #[arg(long, value_name = "N", requires = "check", value_parser = at_least_one)]
    check_chunks: Option<usize>,
    /// Fail (exit code 3) if --check finds a mean KL divergence above this, in nats per token (e.g. 0.05); OUT is kept
    #[arg(long, value_name = "NATS", value_parser = nats, requires = "check")]
    max_kld: Option<f64>,
}

impl CheckArgs {
    fn order(&self) -> Option<Check> {
        Some(Check { text: self.check.clone()?, context: self.check_context, chunks: self.check_chunks })
    }

    /// Whether what was found of the model that was written to `out` is within the limit.
    fn judge(&self, found: &Comparison, out: &Path) -> Result<()> {
        let kld = found.candidates[0].kld().map(|k| k.mean.value);
        within(self.max_kld, kld, &format!("; the file was written and kept: {}", out.display()))
    }
}

impl Convert {
    pub fn run(&self) -> Result<()> {
        self.common.run(self.scheme.clone(), None)
    }

    /// Checks that the options go together.
    #[cfg(test)]
    pub fn check(&self) -> Result<()> {
        self.common.rounding.check()
    }
}

impl Quantize {
    pub fn run(&self) -> Result<()> {
        match self {
            Self::Print(scheme) => print(&recipe::print(scheme)),
            Self::Make(q) => q.common.run(q.scheme.clone(), Some(&q.budget)),
        }
    }

    /// Checks that the options go together.
    #[cfg(test)]
    pub fn check(&self) -> Result<()> {
        let Self::Make(q) = self else { return Ok(()) };
        q.common.rounding.check()?;
        q.budget.request(&q.common.chosen(q.scheme.as_ref())).map(drop)
    }
}

impl Common {
    /// Runs the command; `scheme` is the value of `--type`.
    fn run(&self, scheme: Option<Arc<Scheme>>, budget: Option<&SizeBudget>) -> Result<()> {
        let order = self.order(scheme, budget)?;
        let progress = Progress::new();
        let prepared = pipeline::prepare(&order, &progress)?;
        let (source, plan, allocation) = (&prepared.source, &prepared.plan, prepared.allocation.as_ref());
        if let Some(allocation) = allocation.filter(|_| !self.json) {
            let recipe = order.fit.as_ref().and_then(|f| f.write_recipe.as_deref());
            print(&allocation_text(allocation, recipe))?;
        }
        if self.dry_run {
            prepared.write_recipe()?;
            return match self.json {
                true => print_plan(source, plan, None, (allocation, None)),
                false => {
                    print(&plan_table(source, plan))?;
                    print(&plan_text(source, plan))
                }
            };
        }
        let (outcomes, elapsed) = prepared.write(&progress)?;
        if !self.json {
            print(&report_text(source, plan, &outcomes, elapsed))?;
        }
        let checked = prepared.check(&progress);
        if self.json {
            // What was written is said even if it could not be checked.
            let comparison = checked.as_ref().ok().and_then(Option::as_ref);
            print_plan(source, plan, Some(&outcomes), (allocation, comparison))?;
        }
        let Some(comparison) = checked? else { return Ok(()) };
        if !self.json {
            print(&format!("\n{}", table(&comparison)))?;
        }
        self.check.judge(&comparison, plan.paths.first().unwrap_or(&self.out))
    }

    /// The options given that choose the types of the weights; `scheme` is the value of `--type`.
    fn chosen(&self, scheme: Option<&Arc<Scheme>>) -> Vec<&'static str> {
        let all = [("--type", scheme.is_some()), ("--recipe", self.recipe.is_some()), ("--pure", self.pure)];
        all.iter().filter(|option| option.1).map(|option| option.0).collect()
    }

    /// Turns the options into an order for the library.
    ///
    /// # Errors
    /// [`ggufkit::Error::Usage`] for options that contradict each other, and errors of reading the recipe.
    fn order(&self, scheme: Option<Arc<Scheme>>, budget: Option<&SizeBudget>) -> Result<Order> {
        self.rounding.check()?;
        let chosen = self.chosen(scheme.as_ref());
        let fit = budget.map(|budget| budget.request(&chosen)).transpose()?.flatten();
        let scheme = match &self.recipe {
            Some(path) => Some(Arc::new(recipe::read(&self.input.run, path)?)),
            None => scheme,
        };
        Ok(Order {
            input: self.input.input.clone(),
            open: Options { name: edit::name(&self.edits.list()), ..self.input.options(false) },
            read: self.recipe.iter().cloned().collect(),
            plan: PlanOptions {
                out: self.out.clone(),
                container: self.format.map(Into::into),
                scheme,
                tensors: self.tensor.clone(),
                output: self.output_type,
                embedding: self.embedding_type,
                pure: self.pure,
                strict: self.strict,
                allow_requantize: self.allow_requantize,
                force: self.force,
                overwrite: self.output.overwrite,
                dry_run: self.dry_run,
                importance: false,
                order: self.endian.map(Into::into),
                align: self.align,
                split: self.split_max_size.map_or(gguf::Split::None, gguf::Split::Bytes),
                edits: self.edits.list(),
                unreadable: Unreadable::Refused,
                bin_version: self.bin_version,
                group_size: self.group_size,
                machine: self.machine,
                rounding: self.rounding.options(),
            },
            quantize: budget.is_some(),
            fit,
            importance: self.rounding.importance(),
            method: self.rounding.layer_by_layer(),
            state: self.rounding.state(),
            check: self.check.order(),
            limits: self.resources.limits(),
        })
    }
}

/// Writes the files of a plan and prints the report.
pub fn write_and_report(source: &Source, plan: &Plan, limits: Limits, json: bool) -> Result<()> {
    let start = Instant::now();
    let outcomes = pipeline::write(source, plan, None, limits, &Progress::new())?;
    match json {
        true => print_plan(source, plan, Some(&outcomes), (None, None)),
        false => print(&report_text(source, plan, &outcomes, start.elapsed())),
    }
}

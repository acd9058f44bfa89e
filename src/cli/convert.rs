//! `convert` and `quantize`: one command under two names, which differ in what they do without a type.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::{ArgMatches, Args, FromArgMatches};
use formats::container::gguf;
use ggufkit::evaluate::Cut;
use ggufkit::evaluate::comparison::Comparison;
use ggufkit::machine::Machine;
use ggufkit::pipeline::{self, Check, Job};
use ggufkit::plan::{Choice, Container, Plan, PlanOptions};
use ggufkit::report::compare::table;
use ggufkit::resources::Limits;
use ggufkit::scheme::{self, Scheme, choice, recipe};
use ggufkit::source::Source;
use ggufkit::text::parse_bytes;
use ggufkit::{Error, Result};
use regex::Regex;

use super::allocation::allocation_text;
use super::args::{
    Edits, Endian, Fitting, FormatName, Input, Resources, Rounding, find_scheme, machines, scheme_or_keep,
    tensor_rule,
};
use super::outcome::{plan_json, plan_text, written};
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
    /// Scheme: keep (every tensor's own type), or any that quantize takes
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

/// The schemes by section, and examples.
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
    /// Scheme, as listed below
    #[arg(
        long = "type",
        value_name = "SCHEME",
        value_parser = find_scheme,
        conflicts_with = "recipe",
        required_unless_present_any = ["recipe", "print_recipe", "fit", "size", "bits_per_weight", "machine"]
    )]
    scheme: Option<Arc<Scheme>>,
    #[command(flatten)]
    fitting: Fitting,
    /// Print a scheme as a recipe, for --recipe, and do nothing else
    #[arg(long, value_name = "SCHEME", value_parser = find_scheme, exclusive = true)]
    print_recipe: Option<Arc<Scheme>>,
}

/// `ggufkit quantize`, or what it does without IN and OUT.
#[derive(Debug)]
pub enum Quantize {
    /// Quantizes.
    Make(Box<Quantizing>),
    /// Prints a scheme as a recipe.
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

/// A scheme, or none to keep every type. Under another name, since clap would take an `Option` for an argument that
/// may be left out.
type SchemeOrKeep = Option<Arc<Scheme>>;

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    input: Input,
    /// The result: .gguf, .safetensors, a folder (safetensors), or .bin (llama2.c)
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// The format of OUT, if not by its ending
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// A scheme of your own, as a file (docs/schemes.md)
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Give tensors whose name matches REGEX this type (or `keep`); the first match counts; may be repeated
    #[arg(long, value_name = "REGEX=TYPE", value_parser = tensor_rule)]
    tensor: Vec<(Regex, Choice)>,
    /// The type of the output matrix
    #[arg(long, value_name = "TYPE", value_parser = choice)]
    output_type: Option<Choice>,
    /// The type of the token embedding
    #[arg(long, value_name = "TYPE", value_parser = choice)]
    embedding_type: Option<Choice>,
    /// The scheme's main type for output and embedding too
    #[arg(long)]
    pure: bool,
    /// Fail if a row is no multiple of the type's block, instead of taking another type
    #[arg(long)]
    strict: bool,
    /// Quantize weights that are quantized already
    #[arg(long)]
    allow_requantize: bool,
    /// Make ternary types of weights that are not ternary
    #[arg(long)]
    force: bool,
    /// What the result is for: sets format, byte order, version and types, and refuses what is of no use there
    /// (docs/vintage.md)
    #[arg(long = "for", value_name = "MACHINE", value_parser = machines())]
    machine: Option<&'static Machine>,
    /// The byte order; the source's if not given
    #[arg(long, value_enum)]
    endian: Option<Endian>,
    /// Align tensor data in a GGUF to a power of two
    #[arg(long, value_name = "BYTES")]
    align: Option<u32>,
    /// Cut the result into files with at most so much tensor data: 4G, 500M
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    split_max_size: Option<u64>,
    /// The version of a llama2.c .bin: 0, 1 (f32) or 2 (int8 groups)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=2))]
    bin_version: Option<u32>,
    /// The largest group of a llama2.c version 2 .bin (64 if not given); halved until it divides every row
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
    /// Show every tensor's new type, size and rule, and write nothing
    #[arg(long, conflicts_with = "check")]
    dry_run: bool,
    /// Report in JSON
    #[arg(long)]
    json: bool,
}

/// What the result is compared with.
#[derive(Debug, Args)]
struct CheckArgs {
    /// Afterwards, run the source and the result over this text side by side, and report the KL divergence
    #[arg(long, value_name = "TEXT", conflicts_with = "json")]
    check: Option<PathBuf>,
    /// Tokens of a chunk of that text
    #[arg(long, value_name = "N", default_value_t = 512, requires = "check")]
    check_context: usize,
    /// Most chunks of that text
    #[arg(long, value_name = "N", requires = "check")]
    check_chunks: Option<usize>,
    /// Fail if the mean KL divergence is above this
    #[arg(long, value_name = "NATS", requires = "check")]
    max_kld: Option<f64>,
}

impl CheckArgs {
    fn order(&self) -> Option<Check> {
        let cut = Cut { context: self.check_context, chunks: self.check_chunks, stride: None };
        Some(Check { text: self.check.clone()?, cut })
    }

    fn report(&self, found: &Comparison) -> Result<()> {
        print(&format!("\n{}", table(found)))?;
        let kld = found.candidates[0].kld().map(|k| k.mean.value);
        match (self.max_kld, kld) {
            (Some(most), Some(kld)) if kld > most => Err(Error::Failed(format!(
                "the mean KL divergence of {kld:.6} is above {most}; the file is there"
            ))),
            _ => Ok(()),
        }
    }
}

impl Convert {
    pub fn run(&self) -> Result<()> {
        self.common.run(self.scheme.clone(), None)
    }
}

impl Quantize {
    pub fn run(&self) -> Result<()> {
        match self {
            Self::Print(scheme) => print(&recipe::print(scheme)),
            Self::Make(q) => q.common.run(q.scheme.clone(), Some(&q.fitting)),
        }
    }
}

impl Common {
    /// `scheme` is what `--type` says.
    fn run(&self, scheme: Option<Arc<Scheme>>, fitting: Option<&Fitting>) -> Result<()> {
        let job = self.job(scheme, fitting)?;
        let progress = Progress::new();
        let prepared = pipeline::prepare(&job, &progress)?;
        let (source, plan, allocation) = (&prepared.source, &prepared.plan, prepared.allocation.as_ref());
        if let Some(allocation) = allocation.filter(|_| !self.json) {
            let recipe = job.fit.as_ref().and_then(|f| f.write_recipe.as_deref());
            print(&allocation_text(allocation, recipe))?;
        }
        if self.dry_run {
            return print(&match self.json {
                true => plan_json(source, plan, None, allocation),
                false => plan_text(source, plan),
            });
        }
        let (outcomes, elapsed) = prepared.write(&progress)?;
        print(&match self.json {
            true => plan_json(source, plan, Some(&outcomes), allocation),
            false => written(source, plan, &outcomes, elapsed),
        })?;
        match prepared.check(&progress)? {
            Some(comparison) => self.check.report(&comparison),
            None => Ok(()),
        }
    }

    /// The options as a job.
    fn job(&self, scheme: Option<Arc<Scheme>>, fitting: Option<&Fitting>) -> Result<Job> {
        let fit = fitting.map(Fitting::request).transpose()?.flatten();
        if fit.is_some() && (scheme.is_some() || self.recipe.is_some() || self.pure) {
            return Err(Error::usage(
                "--fit, --size and --bits-per-weight choose the types themselves, without --type, --recipe and --pure",
            ));
        }
        if let Some(align) = self.align
            && !align.is_power_of_two()
        {
            return Err(Error::usage(format!("--align {align} is not a power of two")));
        }
        let scheme = match &self.recipe {
            Some(path) => Some(Arc::new(recipe::read(path)?)),
            None => scheme,
        };
        if self.check.check.is_some() && self.machine.is_some_and(|m| m.container() == Container::Expansion) {
            return Err(Error::usage("--check cannot run what --for makes of three files"));
        }
        self.rounding.check()?;
        Ok(Job {
            input: self.input.input.clone(),
            open: self.input.options(false),
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
                importance: false,
                order: self.endian.map(Into::into),
                align: self.align,
                split: self.split_max_size.map_or(gguf::Split::None, gguf::Split::Bytes),
                edits: self.edits.list(),
                bin_version: self.bin_version,
                group_size: self.group_size,
                machine: self.machine,
                rounding: self.rounding.options(),
            },
            quantize: fitting.is_some(),
            fit,
            importance: self.rounding.importance(),
            method: self.rounding.layer_by_layer(),
            state: self.rounding.state(),
            check: self.check.order(),
            limits: self.resources.limits(),
            dry_run: self.dry_run,
        })
    }
}

/// Writes the files of a plan and reports.
pub fn carry_out(source: &Source, plan: &Plan, limits: Limits, json: bool) -> Result<()> {
    let start = Instant::now();
    let outcomes = pipeline::write(source, plan, None, limits, &Progress::new())?;
    print(&match json {
        true => plan_json(source, plan, Some(&outcomes), None),
        false => written(source, plan, &outcomes, start.elapsed()),
    })
}

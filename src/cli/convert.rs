//! `convert` and `quantize`: one command under two names, which differ in what they do without a type.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use calibration::Statistics;
use clap::{ArgMatches, Args, FromArgMatches};
use formats::container::gguf;
use formats::model::{Encoding, Tensor};
use regex::Regex;

use super::compare::{shorter, side_by_side};
use super::fit::Fitting;
use super::options::{
    Edits, Endian, FormatName, Input, Progress, Resources, find_scheme, machines, scheme_or_keep,
    tensor_rule, usage,
};
use super::outcome::{
    by_type, few_chunks, few_tokens, importance, methods, not_ternary, plan_json, plan_text, remarks, there,
};
use super::print;
use super::rounding::Rounding;
use crate::calibrate::{self, Chunks, Room};
use crate::compare::Settings;
use crate::disk;
use crate::error::{Error, Result};
use crate::evaluate::{self, Cut, Text};
use crate::fit::Fitted;
use crate::hub;
use crate::machine::{Machine, Reads};
use crate::pipeline::{self, Limits};
use crate::plan::scheme::{self, Scheme, choice};
use crate::plan::{self, Choice, Plan, Target, Wishes, recipe};
use crate::quantize::Watcher;
use crate::report::compare::table;
use crate::report::{self, parse_bytes};
use crate::runner::{CacheKind, Network, Options};
use crate::source::Source;

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

/// `ggufkit quantize`.
#[derive(Debug, Args)]
#[command(after_help = "Schemes:
  f32 bf16 f16 (fp16)                      floats
  q8_0 (int8) q6_k                         hardly any loss
  q5_k_m (q5_k) q5_k_s q5_1 q5_0           five bits
  q4_k_m (q4_k) q4_k_s q4_1 q4_0 (int4)    four bits; q4_k_m for most purposes
  iq4_nl iq4_xs nvfp4 mxfp4 mxfp4_moe      four bits in other codes
  q3_k_l q3_k_m (q3_k) q3_k_s iq3_m iq3_s iq3_xs iq3_xxs
  q2_k q2_k_s q2_0 iq2_m iq2_s iq2_xs iq2_xxs iq1_m iq1_s q1_0
  tq2_0 (ternary) tq1_0                    for models trained with ternary weights
  i2_s                                     the same for bitnet.cpp

Examples:
  ggufkit quantize model.safetensors model-q4_k_m.gguf --type q4_k_m
  ggufkit quantize model.gguf small.gguf --type int4 --tensor 'attn_v=q8_0' --dry-run
  ggufkit quantize --print-recipe q4_k_m > mine.toml
  ggufkit quantize model.gguf mine.gguf --recipe mine.toml
  ggufkit quantize model.bin model-int8.bin --type int8")]
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
    check: Check,
    /// Show every tensor's new type, size and rule, and write nothing
    #[arg(long, conflicts_with = "check")]
    dry_run: bool,
    /// Report in JSON
    #[arg(long)]
    json: bool,
}

/// What the result is held against.
#[derive(Debug, Args)]
struct Check {
    /// Run the source and the result over this text afterwards, side by side, and show what was lost
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

impl Check {
    fn cut(&self) -> Cut {
        Cut { context: self.check_context, chunks: self.check_chunks, stride: None }
    }

    /// The text. What would make the check impossible is said before the work rather than after it.
    fn text(&self, source: &Source) -> Result<Option<String>> {
        let Some(path) = &self.check else { return Ok(None) };
        let text = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
        let text = String::from_utf8_lossy(&text).into_owned();
        Network::new(source, Options::default())?;
        let tokens = Text::new(&text, &evaluate::tokenizer(source)?)?;
        evaluate::cut(&tokens.tokens, tokens.first, self.cut())?;
        Ok(Some(text))
    }

    fn run(&self, source: &Source, text: &str, input: &Input, out: &Path, limits: Limits) -> Result<()> {
        let path = self.check.as_deref().unwrap_or(Path::new(""));
        let models = vec![(shorter(out, &source.path), input.open_other(out)?)];
        let settings = Settings {
            text: path.display().to_string(),
            cut: self.cut(),
            exact: false,
            kv: CacheKind::F16,
            batch: 512,
            floor: true,
            generate: 0,
            sensitivity: None,
        };
        let pool = limits.pool()?;
        let found = pool.install(|| side_by_side(source, &models, text, &settings))?;
        print(&format!("\n{}", table(&found)))?;
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
        let quantizes = fitting.is_some();
        let fitting = match fitting {
            Some(fitting) => {
                fitting.check()?;
                Some(fitting).filter(|f| f.is_asked())
            }
            None => None,
        };
        if fitting.is_some() && (scheme.is_some() || self.recipe.is_some() || self.pure) {
            let why = "--fit, --size and --bits-per-weight choose the types themselves, without --type, --recipe and --pure";
            return Err(usage(why));
        }
        if let Some(align) = self.align
            && !align.is_power_of_two()
        {
            return Err(usage(format!("--align {align} is not a power of two")));
        }
        let chosen = scheme.is_some() || self.recipe.is_some() || fitting.is_some();
        let scheme = match &self.recipe {
            Some(path) => Some(Arc::new(recipe::read(path)?)),
            None => scheme,
        };
        if self.check.check.is_some() && self.machine.is_some_and(|m| m.target() == Target::Expansion) {
            return Err(usage("--check cannot run what --for makes of three files"));
        }
        let mut source = self.input.open()?;
        let scheme = match self.machine {
            Some(machine) if !chosen && (quantizes || !keeps(machine, &source)) => {
                scheme::find(machine.scheme)
            }
            _ => scheme,
        };
        let chunks = self.rounding.chunks(&source)?;
        let mut wishes = Wishes {
            out: self.out.clone(),
            target: self.format.map(Into::into),
            scheme,
            tensors: self.tensor.clone(),
            output: self.output_type,
            embedding: self.embedding_type,
            pure: self.pure,
            strict: self.strict,
            allow_requantize: self.allow_requantize,
            force: self.force,
            importance: self.rounding.known(),
            order: self.endian.map(Into::into),
            align: self.align,
            split: self.split_max_size.map_or(gguf::Split::None, gguf::Split::Bytes),
            edits: self.edits.list(),
            bin_version: self.bin_version,
            group_size: self.group_size,
            machine: self.machine,
            rounding: self.rounding.wishes(self.input.no_mmap)?,
        };
        if chunks.is_some() && plan::target(&source.model, &wishes)? != Target::Gguf {
            return Err(Error::usage("--calibration is for GGUF only"));
        }
        if let (Some(chunks), false) = (&chunks, self.dry_run) {
            wishes.rounding.importance = Some(match self.rounding.is_sequential() {
                true => calibrate::importance::unmeasured(&source.model, chunks),
                false => self.measure(&source, chunks)?,
            });
        }
        source.beside.extend(self.rounding.imatrix.clone());
        let folder = plan::is_folder(&wishes.out);
        if plan::target(&source.model, &wishes)? == Target::Safetensors && (folder || source.hub.is_some()) {
            source = hub::export(source)?;
        }
        let (mut plan, fitted) = match fitting {
            Some(fitting) => {
                let mut read = vec![&*self.out];
                read.extend(
                    [&self.rounding.imatrix, &self.rounding.calibration, &self.check.check]
                        .into_iter()
                        .flatten()
                        .map(|p| &**p),
                );
                // What would spoil the end is said before the work.
                fitting.goal(&source)?;
                let limits = self.resources.limits();
                let known = fitting.known(&source, chunks.as_ref(), limits, (self.dry_run, &read))?;
                read.extend(fitting.sensitivity.as_deref());
                let (fitted, plan, text) = fitting.run(&source, &mut wishes, &known, &read)?;
                if !self.json {
                    print(&text)?;
                }
                (plan, Some(fitted))
            }
            None => (plan::plan(&source, &wishes)?, None),
        };
        plan.sequential = self.rounding.sequential(chunks);
        plan.notes.extend(few_tokens(&plan));
        plan.notes.extend(few_chunks(&plan));
        if self.dry_run {
            return print(&if self.json {
                plan_json(&source, &plan, None, fitted.as_ref())
            } else {
                plan_text(&source, &plan)
            });
        }
        let text = self.check.text(&source)?;
        carry_out_as(&source, &plan, self.resources.limits(), self.json, fitted.as_ref())?;
        let out = plan.paths.first().map_or(&*self.out, |p| p);
        match text {
            Some(text) => self.check.run(&source, &text, &self.input, out, self.resources.limits()),
            None => Ok(()),
        }
    }
}

/// Whether a machine can use weights as the source has them: one that reads int8 alone, if they are int8 already.
fn keeps(machine: &Machine, source: &Source) -> bool {
    let int8 = |t: &Tensor| matches!(t.encoding, Encoding::Int8Groups { .. });
    !matches!(machine.reads, Reads::Llama2c { version: 2, .. }) || source.model.tensors.iter().any(int8)
}

impl Common {
    /// The importance of the model's columns on a text.
    fn measure(&self, source: &Source, chunks: &Chunks) -> Result<Statistics> {
        let limits = self.resources.limits();
        let network = Network::new(source, Options { exact: true, isa: None })?;
        let folder = disk::folder(&self.out);
        let room = Room { memory: limits.memory, scratch: folder.to_path_buf() };
        let progress = Progress::new(0);
        let depth = network.depth();
        progress.layers(0, depth);
        limits.pool()?.install(|| {
            calibrate::importance::importance(&network, chunks, &room, |layer| {
                progress.layers(layer + 1, depth)
            })
        })
    }
}

/// Writes the files of a plan and reports.
pub fn carry_out(source: &Source, plan: &Plan, limits: Limits, json: bool) -> Result<()> {
    carry_out_as(source, plan, limits, json, None)
}

/// The same, of a plan that was fitted.
fn carry_out_as(
    source: &Source,
    plan: &Plan,
    limits: Limits,
    json: bool,
    fitted: Option<&Fitted>,
) -> Result<()> {
    let start = Instant::now();
    let progress = Progress::new(plan.layout.tensors.iter().map(|t| t.place.len).sum());
    let outcomes = pipeline::run(source, plan, limits, &progress)?;
    progress.done();
    if json {
        return print(&plan_json(source, plan, Some(&outcomes), fitted));
    }
    let mut text = String::new();
    for path in plan.paths.iter().chain(plan.extra.iter().map(|e| &e.0)) {
        let _ = writeln!(text, "{}", path.display());
    }
    if !plan.layout.tensors.is_empty() {
        text += &by_type(source, plan, &outcomes);
    }
    let (before, after) = (report::bytes(source.bytes()), report::bytes(plan.bytes()));
    let bits = match plan.layout.tensors.len() {
        0 => String::new(),
        _ => format!("{:.2} bits per weight, ", plan.bits_per_weight()),
    };
    let _ = writeln!(text, "{before} → {after}, {bits}{:.1} s", start.elapsed().as_secs_f64());
    text += &importance(plan);
    text += &methods(plan, &outcomes);
    text += &remarks(plan);
    text += &not_ternary(plan, &outcomes);
    text += &there(plan);
    print(&text)
}

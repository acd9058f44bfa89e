//! A whole order, from the input path to the output files: all stages in order. This is the main entry point of the library,
//! and what `convert` and `quantize` run.
//!
//! [`run`] is [`prepare`] (open, measure, plan), [`Prepared::write`] (quantize, write) and [`Prepared::check`] (compare
//! with the source). Callers that want to show something in between call the three themselves.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use calibration::Statistics;
use formats::container::gguf::Split;
use formats::model::{Encoding, Tensor};

use crate::allocate::{Allocation, Request, SENSITIVITY};
use crate::calibrate::sequential::{Method, Sequential};
use crate::calibrate::{self, ChunkLength, Chunks, Scratch, importance};
use crate::disk::{self, NewFile, Output, RunFiles};
use crate::error::{Error, Result};
use crate::evaluate::compare::{Settings, compare, name_of, short_name};
use crate::evaluate::comparison::Comparison;
use crate::evaluate::{self, Cut, CutNames};
use crate::machine::{Machine, Reads};
use crate::open::Options;
use crate::outcome::Outcome;
use crate::plan::{self, Container, Plan, PlanOptions};
use crate::quantize::quantize;
use crate::resources::{Limits, Watcher};
use crate::runner::{Network, Options as RunOptions};
use crate::scheme::{self, recipe};
use crate::source::Source;
use crate::text;
use crate::tokenizer::{Text, text_file, tokenizer_of};

/// The model that is written.
pub const OUT: Output = Output::model("OUT");
const WRITE_RECIPE: Output = Output::result("--write-recipe", "a recipe", "recipe.toml");

/// A conversion: the input, the options, and the output.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// The model: a Hugging Face folder, a GGUF (any part of a split), a safetensors file, a llama2.c checkpoint.
    pub input: PathBuf,
    /// How it is opened.
    pub open: Options,
    /// Files that were read for the order, a recipe for one: they are not written over.
    pub read: Vec<PathBuf>,
    /// The output and its types. The importance matrix is filled in from `importance`. With `plan.dry_run`, nothing is
    /// measured, and no model is written; a recipe that was asked for is.
    pub plan: PlanOptions,
    /// Whether the default scheme of `plan.machine` is used if no scheme is given, even if the machine could use the
    /// weights as they are.
    pub quantize: bool,
    /// A budget to choose types for, instead of a scheme.
    pub fit: Option<Request>,
    /// Where the importance matrix comes from.
    pub importance: Option<ImportanceSource>,
    /// How matrices are quantized layer by layer (GPTQ, AWQ, bias correction), if they are; needs a calibration set.
    pub method: Option<Method>,
    /// The folder that keeps finished layers of `method`, so that a run can be resumed.
    pub state: Option<PathBuf>,
    /// A text on which the result is compared with the source.
    pub check: Option<Check>,
    /// Threads and memory.
    pub limits: Limits,
}

/// Where the importance matrix comes from.
#[derive(Debug, Clone)]
pub enum ImportanceSource {
    /// A file, as llama-imatrix and `calibrate` write it.
    File(PathBuf),
    /// It is measured first, on this calibration set.
    Calibration(CalibrationSet),
}

/// A calibration set: a text like those that the model will be used on.
#[derive(Debug, Clone)]
pub struct CalibrationSet {
    /// The file, or `builtin`.
    pub text: PathBuf,
    /// Tokens per chunk; 512, or the model's context length if that is shorter, unless given.
    pub context: Option<usize>,
    /// Chunks at most; all unless given.
    pub chunks: Option<usize>,
    /// The seed for a random choice of chunks; the first ones are taken unless given.
    pub seed: Option<u64>,
}

/// A text on which the result is compared with the source.
#[derive(Debug, Clone)]
pub struct Check {
    /// The file.
    pub text: PathBuf,
    /// Tokens per chunk; 512, or the model's context length if that is shorter, unless given.
    pub context: Option<usize>,
    /// Chunks at most; all unless given.
    pub chunks: Option<usize>,
}

/// The result of a finished order.
#[derive(Debug)]
pub struct Report {
    /// The quantization error of each tensor of the plan's layout.
    pub outcomes: Vec<Outcome>,
    /// How long quantizing and writing took.
    pub elapsed: Duration,
    /// The comparison with the source, if [`Order::check`] asks for one.
    pub comparison: Option<Comparison>,
}

/// An order that is planned, but not written.
pub struct Prepared<'a> {
    order: &'a Order,
    /// The open model.
    pub source: Source,
    /// The type and the location of every tensor.
    pub plan: Plan,
    /// The chosen types, for an order with a budget.
    pub allocation: Option<Allocation>,
    /// The layer-by-layer run, if the order has a method.
    sequential: Option<Sequential>,
    check_text: Option<CheckText>,
    /// Whether the source has the tensor names of a checkpoint, under which it is not run.
    as_checkpoint: bool,
}

/// The text of a check, and how it is cut.
struct CheckText {
    text: String,
    cut: Cut,
    /// Notes for the user.
    notes: Vec<String>,
}

/// Does a whole order.
///
/// ```no_run
/// use ggufkit::pipeline::{Order, run};
/// use ggufkit::plan::PlanOptions;
/// use ggufkit::scheme;
///
/// let order = Order {
///     input: "model.safetensors".into(),
///     plan: PlanOptions { out: "model-q4_k_m.gguf".into(), scheme: scheme::find("q4_k_m"), ..Default::default() },
///     ..Default::default()
/// };
/// let report = run(&order, &())?;
/// # Ok::<(), ggufkit::Error>(())
/// ```
///
/// # Errors
/// Those of [`prepare`], [`Prepared::write`] and [`Prepared::check`]; with [`PlanOptions::dry_run`], only those of the first.
pub fn run(order: &Order, watcher: &dyn Watcher) -> Result<Report> {
    let prepared = prepare(order, watcher)?;
    if order.plan.dry_run {
        prepared.write_recipe()?;
        return Ok(Report { outcomes: Vec::new(), elapsed: Duration::ZERO, comparison: None });
    }
    let (outcomes, elapsed) = prepared.write(watcher)?;
    let comparison = prepared.check(watcher)?;
    Ok(Report { outcomes, elapsed, comparison })
}

/// Opens the model, measures the importance matrix and the sensitivity if they are needed, and plans.
///
/// # Errors
/// [`Error::Io`] and [`Error::Format`] for files that cannot be read; [`Error::Usage`] for options that contradict each
/// other; [`Error::Refused`] for an output that is not possible for this model; those of [`importance::importance`],
/// [`Request::sensitivity`], [`Request::choose`] and [`plan::plan`].
pub fn prepare<'a>(order: &'a Order, watcher: &dyn Watcher) -> Result<Prepared<'a>> {
    order.refuse_contradictions()?;
    let run = RunFiles::default();
    order.read.iter().try_for_each(|path| run.note(path))?;
    let mut source = crate::open_in(&run, &order.input, &order.open)?;
    let mut options = order.plan.clone();
    options.rounding.method = order.method.and_then(|m| m.name());
    options.rounding.bias = order.method.is_some_and(|m| m.bias_correction);
    if let (Some(machine), None, None) = (options.machine, &options.scheme, &order.fit)
        && (order.quantize || !can_keep(machine, &source))
    {
        options.scheme = scheme::find(machine.scheme);
    }
    // What cannot be meant is said before what cannot be written.
    let target = plan::container(&source.model, &options)?;
    order.refuse_gguf_options(target)?;
    let mut text_notes = order.claim(&run)?;
    let chunks = order.chunks(&source)?;
    text_notes.extend(chunks.iter().flat_map(|c| c.notes.iter().cloned()));
    options.importance = order.importance.is_some();
    options.rounding.importance = order.measure_importance(&source, chunks.as_ref(), watcher)?;
    // Unlike in a copy ([`plan::copy`]), weights under names of their own must be those of a known architecture.
    let folder = plan::is_folder(&options.out);
    let as_checkpoint = (folder || source.hub.is_some())
        && plan::container(&source.model, &options)? == Container::Safetensors;
    if as_checkpoint && !folder && order.check.is_some() {
        let out = options.out.display();
        return Err(Error::usage(format!(
            "--check runs the result, and {out} alone will have no settings (config.json) and no tokenizer"
        ))
        .or("name a folder as the output, which gets a whole checkpoint: OUT/; or leave out --check"));
    }
    // What would make the check impossible is found before the work rather than after it.
    let check_text = if order.plan.dry_run { None } else { order.check_text(&source)? };
    if as_checkpoint {
        source = plan::as_checkpoint(source, &options)?;
    }
    text_notes.extend(check_text.iter().flat_map(|check| check.notes.iter().cloned()));
    let (mut plan, allocation) = match &order.fit {
        Some(request) => {
            let (plan, allocation) =
                order.allocate(request, &source, &mut options, chunks.as_ref(), watcher)?;
            (plan, Some(allocation))
        }
        None => (plan::plan(&source, &options)?, None),
    };
    let sequential = order.method.zip(chunks).map(|(method, chunks)| Sequential {
        method,
        chunks,
        state: order.state.clone(),
    });
    let notes = sequential.as_ref().map_or_else(Vec::new, |s| s.notes(&plan));
    plan.notes.extend(text_notes.into_iter().chain(notes));
    Ok(Prepared { order, source, plan, allocation, sequential, check_text, as_checkpoint })
}

impl Order {
    /// Refuses what cannot be meant.
    fn refuse_contradictions(&self) -> Result<()> {
        let set = match &self.importance {
            Some(ImportanceSource::Calibration(set)) => Some(set),
            _ => None,
        };
        if self.method.is_some() && set.is_none() {
            return Err(Error::usage("this --method needs a calibration set").or("add --calibration TEXT"));
        }
        if self.method.is_none() && self.state.is_some() {
            return Err(Error::usage("--state needs a method that works layer by layer")
                .or("add --method gptq, or leave out --state"));
        }
        if self.fit.is_some() && (self.plan.scheme.is_some() || self.plan.pure) {
            return Err(Error::usage(
                "--fit, --size and --bits-per-weight choose the types themselves and cannot be combined with --type, \
                 --recipe or --pure",
            )
            .or("leave out --type, --recipe and --pure; --tensor still sets single tensors"));
        }
        // The format that a machine reads is known before the model is.
        if let Some(machine) = self.plan.machine {
            self.refuse_gguf_options(machine.container())?;
        }
        if let Some(align) = self.plan.align.filter(|align| !align.is_power_of_two()) {
            return Err(Error::usage(format!("--align must be a power of two (found {align})")));
        }
        if self.check.is_some() && self.plan.machine.is_some_and(|m| m.container() == Container::Expansion) {
            return Err(Error::usage("--check cannot run the three-file output of this --for"));
        }
        Ok(())
    }

    /// Refuses what only a GGUF can have in files of another format: types chosen for a budget, and weights that are rounded
    /// by their importance.
    ///
    /// # Errors
    /// [`Error::Usage`] with the options to leave out.
    fn refuse_gguf_options(&self, target: Container) -> Result<()> {
        let mut without: Vec<&str> = Vec::new();
        without.extend(self.fit.iter().flat_map(Request::options));
        match &self.importance {
            Some(ImportanceSource::File(_)) => without.push("--imatrix"),
            Some(ImportanceSource::Calibration(set)) => {
                without.extend(self.method.and_then(|m| m.name()).map(|_| "--method"));
                without.extend(self.method.filter(|m| m.bias_correction).map(|_| "--bias-correction"));
                without.extend(self.state.as_ref().map(|_| "--state"));
                without.push("--calibration");
                without.extend(set.context.map(|_| "--calibration-context"));
                without.extend(set.chunks.map(|_| "--calibration-chunks"));
                without.extend(set.seed.map(|_| "--calibration-seed"));
            }
            None => {}
        }
        if target == Container::Gguf || without.is_empty() {
            return Ok(());
        }
        let (is, without) = (if without.len() > 1 { "are" } else { "is" }, text::listed(&without));
        let why = format!("{without} {is} for GGUF only");
        if let Some(machine) = self.plan.machine {
            let why = format!("{why}, and --for {} reads {}", machine.name, target.files());
            return Err(Error::usage(why)
                .or(format!("leave out {without} (all matrices of such a file have the same type)")));
        }
        let types = if target == Container::Llama2c { "f32 or q8_0" } else { "f32, f16 or bf16" };
        let name = match self.plan.container {
            Some(_) => "leave out --format and use an output name that ends in .gguf",
            None => "use an output name that ends in .gguf",
        };
        let why = format!("{why}, and {} is to be {}", self.plan.out.display(), target.files());
        Err(Error::usage(why).or(match self.fit {
            Some(_) => {
                format!("{name}; or leave out {without} and add --type SCHEME ({types})")
            }
            None => format!("{name}; or leave out {without}"),
        }))
    }

    /// The tokenized calibration set, if there is one.
    fn chunks(&self, source: &Source) -> Result<Option<Chunks>> {
        let Some(ImportanceSource::Calibration(set)) = &self.importance else { return Ok(None) };
        let option = "--calibration-context";
        let (context, about) = source.chunk_length(set.context, calibrate::DEFAULT_CONTEXT, option);
        let context = ChunkLength { tokens: context, option };
        let mut chunks = Chunks::read(source, &set.text, context, set.chunks, set.seed)?;
        chunks.notes.extend(about);
        if set.seed.is_some() && set.chunks.is_some_and(|most| most > chunks.tokens.len()) {
            chunks.notes.push(format!(
                "--calibration-seed has no effect here: all {} chunks of the text are used",
                chunks.tokens.len()
            ));
        }
        Ok(Some(chunks))
    }

    /// The importance matrix: read, or measured on the calibration set.
    fn measure_importance(
        &self,
        source: &Source,
        chunks: Option<&Chunks>,
        watcher: &dyn Watcher,
    ) -> Result<Option<Statistics>> {
        if let Some(ImportanceSource::File(path)) = &self.importance {
            let mut found = importance::read(&source.run, path, !self.open.no_mmap)?;
            let note = importance::check(&found, source)?;
            found.notes.extend(note);
            return Ok(Some(found));
        }
        let Some(chunks) = chunks.filter(|_| !self.plan.dry_run) else { return Ok(None) };
        if self.method.is_some() {
            // The layer-by-layer run measures it itself.
            return Ok(Some(importance::placeholder(&source.model, chunks)));
        }
        let pool = self.limits.pool()?;
        let network = pool.install(|| Network::new(source, RunOptions { exact: true, isa: None }))?;
        let folder = disk::folder(&self.plan.out).to_path_buf();
        let scratch = Scratch { memory: self.limits.memory, folder };
        let depth = network.depth();
        watcher.layers(0, depth);
        let measured = pool.install(|| {
            calibrate::importance::importance(&network, chunks, &scratch, &mut |layer| {
                watcher.layers(layer + 1, depth)
            })
        })?;
        watcher.finished();
        Ok(Some(measured))
    }

    /// Claims the files that will be written, as far as they are known before the plan: what is wrong with their names
    /// is found before the work. Gives notes on what is replaced, but for the model, of which the plan tells it.
    fn claim(&self, run: &RunFiles) -> Result<Vec<String>> {
        let out = &self.plan.out;
        let name = out.file_name().unwrap_or_default();
        let several = self.plan.machine.is_some_and(|m| m.container() == Container::Expansion);
        let _ = match self.plan.split {
            _ if several || plan::is_folder(out) => None,
            _ if self.plan.dry_run => Some(run.pretend(out, OUT)?),
            Split::None => Some(run.claim(out, OUT)?),
            // How many parts there will be is not known yet, nor that there will be more than one.
            Split::Bytes(_) | Split::Tensors(_) => {
                let ending = out.extension().unwrap_or_default().to_string_lossy();
                Some(run.claim(&out.with_file_name(disk::part_name(name, 0, 99_999, &ending)), OUT)?)
            }
        };
        let Some(request) = &self.fit else { return Ok(Vec::new()) };
        if let Some(path) = request.sensitivity.as_deref().filter(|path| !path.exists())
            && matches!(self.importance, Some(ImportanceSource::Calibration(_)))
            && !self.plan.dry_run
        {
            let _ = run.claim(path, SENSITIVITY)?;
        }
        let recipe = request.write_recipe.as_deref().map(|path| run.claim(path, WRITE_RECIPE)).transpose()?;
        Ok(recipe.and_then(|claimed| claimed.note).into_iter().collect())
    }

    /// Chooses types for a budget, and plans with them.
    fn allocate(
        &self,
        request: &Request,
        source: &Source,
        options: &mut PlanOptions,
        chunks: Option<&Chunks>,
        watcher: &dyn Watcher,
    ) -> Result<(Plan, Allocation)> {
        // Impossible requests fail before anything is measured.
        request.goal(source)?;
        let (sensitivity, note) =
            request.sensitivity(source, chunks, self.plan.dry_run, self.limits, watcher)?;
        let (allocation, mut plan) = request.choose(source, options, &sensitivity)?;
        plan.notes.extend(note);
        Ok((plan, allocation))
    }

    /// The text of the check, if there is one. Checks that cannot work fail here, before the conversion.
    fn check_text(&self, source: &Source) -> Result<Option<CheckText>> {
        let Some(check) = &self.check else { return Ok(None) };
        let text_file::Decoded { text, mut notes, .. } = text_file::read(&source.run, &check.text)?;
        let file = check.text.display().to_string();
        let names = CutNames { text: &file, context: "--check-context", chunks: "--check-chunks" };
        let (context, about) = source.chunk_length(check.context, evaluate::DEFAULT_CONTEXT, names.context);
        notes.extend(about);
        let cut = Cut { context, chunks: check.chunks, stride: None };
        self.limits.pool()?.install(|| Network::new(source, RunOptions::default()).map(drop))?;
        let tokens = Text::new(&text, &tokenizer_of(source)?)?;
        evaluate::cut(&tokens.tokens, tokens.first, cut, names)?;
        Ok(Some(CheckText { text, cut, notes }))
    }
}

/// Whether a machine can use the source's weights as they are: false only if it reads int8 alone and none are int8.
fn can_keep(machine: &Machine, source: &Source) -> bool {
    let int8 = |t: &Tensor| matches!(t.encoding, Encoding::Int8Groups { .. });
    !matches!(machine.reads, Reads::Llama2c { version: 2, .. }) || source.model.tensors.iter().any(int8)
}

impl Prepared<'_> {
    /// Quantizes and writes, last the recipe if one was asked for. Gives the outcome of each tensor, and the time it took.
    ///
    /// # Errors
    /// Those of [`write()`] and [`Prepared::write_recipe`].
    pub fn write(&self, watcher: &dyn Watcher) -> Result<(Vec<Outcome>, Duration)> {
        let start = Instant::now();
        let outcomes = write(&self.source, &self.plan, self.sequential.as_ref(), self.order.limits, watcher)?;
        self.write_recipe()?;
        Ok((outcomes, start.elapsed()))
    }

    /// Writes the chosen types as a recipe, if the order asks for one. [`Prepared::write`] does so once the model is
    /// written, so that a failed run leaves no recipe; a dry run calls this alone.
    ///
    /// # Errors
    /// Those of [`RunFiles::write_whole`].
    pub fn write_recipe(&self) -> Result<()> {
        let path = self.order.fit.as_ref().and_then(|request| request.write_recipe.as_deref());
        let Some((path, allocation)) = path.zip(self.allocation.as_ref()) else { return Ok(()) };
        let text = recipe::print(&allocation.scheme);
        self.source.run.write_whole(path, text.as_bytes(), WRITE_RECIPE)
    }

    /// Compares the written model with the source, if the order asks for it.
    ///
    /// # Errors
    /// Those of [`crate::open`] for the result, [`Limits::pool`] and [`compare`].
    pub fn check(&self, watcher: &dyn Watcher) -> Result<Option<Comparison>> {
        let Some((check, text)) = self.order.check.as_ref().zip(self.check_text.as_ref()) else {
            return Ok(None);
        };
        let out = match self.as_checkpoint {
            true => &self.order.plan.out,
            false => self.plan.paths.first().unwrap_or(&self.order.plan.out),
        };
        let open = |path: &Path| crate::open_in(&self.source.run, path, &self.order.open);
        let again = self.as_checkpoint.then(|| open(&self.order.input)).transpose()?;
        let source = again.as_ref().unwrap_or(&self.source);
        let models = vec![(name_of(out, &source.path), open(out)?)];
        let settings = Settings::new(check.text.display().to_string(), text.cut);
        let reference = short_name(&source.path);
        let pool = self.order.limits.pool()?;
        let found = pool.install(|| {
            compare((&reference, source), &models, &text.text, &settings, &mut |done, of| {
                watcher.chunks(done, of)
            })
        })?;
        watcher.finished();
        self.source.run.unchanged()?;
        Ok(Some(found))
    }
}

/// Writes the files of a plan. They get their names only when all of them are complete. Gives the outcome of every tensor of
/// the layout.
///
/// # Errors
/// [`Error::NoSpace`] if the disk has too little free space; [`Error::UnsupportedType`] for a type that can be copied but not encoded; [`Error::Io`] if a
/// file cannot be written; those of [`quantize`].
pub fn write(
    source: &Source,
    plan: &Plan,
    layer_by_layer: Option<&Sequential>,
    limits: Limits,
    watcher: &dyn Watcher,
) -> Result<Vec<Outcome>> {
    source.need_weights()?;
    for (_, t) in plan.decisions.iter().zip(&plan.layout.tensors).filter(|(s, t)| s.from != t.encoding) {
        if let Encoding::Blocks(dtype) = t.encoding
            && kernels::codec(dtype).is_none()
        {
            let (tensor, dtype) = (t.name.clone(), dtype.name().into());
            return Err(Error::UnsupportedType { tensor, dtype, operation: "encoded, only copied" });
        }
    }
    if let Some(folder) = &plan.folder {
        std::fs::create_dir(folder).map_err(|e| Error::io(folder, "create", e))?;
    }
    let outcomes = write_files(source, plan, layer_by_layer, limits, watcher);
    if let (Err(_), Some(folder)) = (&outcomes, &plan.folder) {
        let _ = std::fs::remove_dir(folder); // only if nothing is in it
    }
    outcomes
}

fn write_files(
    source: &Source,
    plan: &Plan,
    layer_by_layer: Option<&Sequential>,
    limits: Limits,
    watcher: &dyn Watcher,
) -> Result<Vec<Outcome>> {
    let targets: Vec<_> = plan.paths.iter().zip(plan.layout.files.iter().map(|f| f.len)).collect();
    let extra: Vec<_> = plan.extra.iter().map(|(path, bytes)| (path, bytes.len() as u64)).collect();
    if let (Some((path, _)), need) = (targets.first().or(extra.first()), plan.bytes())
        && let Some(free) = disk::free_space(path)
        && need > free
    {
        return Err(Error::NoSpace { path: (*path).clone(), need, free });
    }
    let create = |(path, len): &(&PathBuf, u64)| -> Result<NewFile> {
        match **path == plan.out {
            true => source.run.create(path, *len, OUT),
            false => source.run.create_derived(path, *len, OUT),
        }
    };
    let mut files = targets.iter().map(create).collect::<Result<Vec<_>>>()?;
    let extra_files = extra.iter().map(create).collect::<Result<Vec<_>>>()?;
    for (file, layout) in files.iter().zip(&plan.layout.files) {
        for (offset, bytes) in &layout.fixed {
            file.write(*offset, bytes)?;
        }
    }
    for (file, (_, bytes)) in extra_files.iter().zip(&plan.extra) {
        file.write(0, bytes)?;
    }
    watcher.total(plan.layout.tensors.iter().map(|t| t.location.len).sum());
    let pool = limits.pool()?;
    let outcomes = quantize(source, plan, layer_by_layer, &files, &pool, limits.memory, watcher)?;
    watcher.finished();
    // Rename the first part of a split last, and an index after all parts: where it exists, the others do too.
    files.reverse();
    files.extend(extra_files);
    disk::finish_set(files, &plan.replaces)?;
    Ok(outcomes)
}

//! A budget as the user states it, and the choice of types for it.

use std::path::PathBuf;
use std::sync::LazyLock;

use formats::block::{DType, TYPES};

use super::{Allocation, Choices, Goal, SearchSpace, allocate};
use crate::calibrate::Chunks;
use crate::disk::{self, Output};
use crate::error::{Error, Result};
use crate::memory::{ModelShape, RunConfig, Runtime};
use crate::order;
use crate::plan::{Plan, PlanOptions};
use crate::resources::{Limits, Watcher};
use crate::runner::KvType;
use crate::sensitivity::{self, Measuring, Sensitivity, quick};
use crate::source::Source;
use crate::text::shell_word;

/// The file of sensitivities, where it is measured and written.
pub const SENSITIVITY: Output = Output::result("--sensitivity", "a sensitivity file", "sensitivity.json");

/// More bytes than the metadata about an importance matrix takes, but for unusual names.
const NAMED: u64 = 1024;

/// What the result has to fit into, as the user states it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// A machine with this many bytes of memory.
    Ram(u64),
    /// Files of at most this many bytes.
    Size(u64),
    /// At most this many bits of tensor data per weight.
    Bits(f64),
}

impl Budget {
    /// The option that states it.
    pub fn option(self) -> &'static str {
        match self {
            Self::Ram(_) => "--fit",
            Self::Size(_) => "--size",
            Self::Bits(_) => "--bits-per-weight",
        }
    }
}

/// A request for the types with the least predicted KL divergence within a budget.
#[derive(Debug, Clone)]
pub struct Request {
    /// What the result has to fit into.
    pub budget: Budget,
    /// Tokens of context that have to fit into the memory; [`default_context`] unless given.
    pub context: Option<u64>,
    /// The type of the KV cache; f16 or q8_0, whichever gives the smaller predicted KL divergence, unless given.
    pub kv: Option<KvType>,
    /// Bytes of memory left to the system; [`crate::memory::reserve`] unless given.
    pub reserve: Option<u64>,
    /// The programs that must be able to run the result.
    pub runtimes: Vec<Runtime>,
    /// The types to choose from; [`default_types`] unless given.
    pub types: Option<Vec<DType>>,
    /// Factors on a type's predicted KL divergence in the choice.
    pub prices: Vec<(DType, f64)>,
    /// A sensitivity file. If it does not exist and a calibration set is given, it is measured and written.
    pub sensitivity: Option<PathBuf>,
    /// The file to which the choice is written as a recipe.
    pub write_recipe: Option<PathBuf>,
}

impl Request {
    /// A request with all defaults.
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            context: None,
            kv: None,
            reserve: None,
            runtimes: vec![Runtime::LlamaCpp, Runtime::Ggufkit],
            types: None,
            prices: Vec::new(),
            sensitivity: None,
            write_recipe: None,
        }
    }

    /// The options that state it, but for that of the programs.
    pub fn options(&self) -> Vec<&'static str> {
        let mut all = vec![self.budget.option()];
        all.extend(self.context.map(|_| "--context"));
        all.extend(self.kv.map(|_| "--kv"));
        all.extend(self.reserve.map(|_| "--reserve"));
        all.extend(self.types.as_ref().map(|_| "--types"));
        all.extend((!self.prices.is_empty()).then_some("--price"));
        all.extend(self.sensitivity.as_ref().map(|_| SENSITIVITY.option));
        all.extend(self.write_recipe.as_ref().map(|_| "--write-recipe"));
        all
    }

    /// The goal for this model, with defaults filled in.
    ///
    /// # Errors
    /// [`Error::ContextTooLong`] for a longer context than the model's; [`Error::Usage`] for a KV cache type that its heads
    /// do not allow; those of [`ModelShape::read`].
    pub fn goal(&self, source: &Source) -> Result<Goal> {
        let ram = match self.budget {
            Budget::Size(size) => return Ok(Goal::Size(size)),
            Budget::Bits(bits) => return Ok(Goal::Bits(bits)),
            Budget::Ram(ram) => ram,
        };
        let context = self.context.unwrap_or_else(|| default_context(source));
        let shape = ModelShape::read(&source.model.metadata, 0)?;
        if shape.context > 0 && context > shape.context {
            return Err(Error::ContextTooLong { context, limit: shape.context });
        }
        let kv_types: Vec<KvType> = match self.kv {
            Some(kv) if !shape.supports(kv) => {
                let [key, value] = shape.head_dims;
                let why = format!(
                    "--kv q8_0: needs head dimensions that are multiples of 32 (keys have {key}, values {value})"
                );
                return Err(Error::usage(why).or("use --kv f16"));
            }
            Some(kv) => vec![kv],
            None => [KvType::F16, KvType::Q8_0].into_iter().filter(|k| shape.supports(*k)).collect(),
        };
        let run = |kv| self.runtimes.iter().map(move |&runtime| RunConfig { runtime, context, kv });
        Ok(Goal::Ram { ram, reserve: self.reserve, runs: kv_types.into_iter().flat_map(run).collect() })
    }

    /// The model's sensitivity: read from the file, measured and written to it, or estimated without one. With a note if it
    /// was measured on another version of the model.
    ///
    /// # Errors
    /// [`Error::Usage`] if it would have to be measured in a dry run; [`Error::Refused`] if without a text, or if the file is
    /// one of the inputs; [`Error::Io`] if it cannot be read or written; those of [`sensitivity::read`], [`Sensitivity::check`]
    /// and [`Measuring::run`].
    pub fn sensitivity(
        &self,
        source: &Source,
        chunks: Option<&Chunks>,
        dry_run: bool,
        limits: Limits,
        watcher: &dyn Watcher,
    ) -> Result<(Sensitivity, Option<String>)> {
        let Some(path) = &self.sensitivity else { return Ok((quick::estimate(source), None)) };
        let run = &source.run;
        let (file, model) = (shell_word(path.as_os_str()), shell_word(source.path.as_os_str()));
        let measure = || {
            format!(
                "measure it first: `ggufkit sensitivity {model} TEXT -o {file}`; or leave out {}",
                SENSITIVITY.option
            )
        };
        let chunks = match (path.exists(), chunks) {
            (true, _) => {
                let found = sensitivity::read(run, path)?;
                let note = found.check(source, path)?;
                return Ok((found, note));
            }
            (false, Some(_)) if dry_run => {
                let why = format!("{file}: does not exist, and a dry run does not measure it");
                return Err(Error::usage(why).or(measure()));
            }
            (false, None) => {
                let why = format!("{file}: does not exist, and is measured only with --calibration");
                return Err(Error::refused(why).or(measure()));
            }
            (false, Some(chunks)) => chunks,
        };
        // There is no such file, so none is replaced.
        let _ = run.claim(path, SENSITIVITY)?;
        let mut types = default_types();
        for dtype in self.types.iter().flatten() {
            types.extend((!types.contains(dtype)).then_some(*dtype));
        }
        let measuring = Measuring {
            types: &types,
            probes: &[sensitivity::DEFAULT_PROBE],
            limits,
            folder: disk::folder(path),
            importance: None,
        };
        let chunks = chunks.subset(sensitivity::default_chunks(source), sensitivity::DEFAULT_CONTEXT);
        let found = measuring.run(source, &chunks, watcher)?;
        watcher.finished();
        run.write_whole(path, sensitivity::print(&found).as_bytes(), SENSITIVITY)?;
        Ok((found, None))
    }

    /// Chooses the types and plans with them; `options` get the scheme.
    ///
    /// # Errors
    /// Those of [`Choices::find`] and [`allocate`]; [`Error::Usage`] if `--for` leaves none of the types.
    pub fn choose(
        &self,
        source: &Source,
        options: &mut PlanOptions,
        sensitivity: &Sensitivity,
    ) -> Result<(Allocation, Plan)> {
        let mut goal = self.goal(source)?;
        if let (Goal::Ram { runs, .. }, None) = (&mut goal, self.kv) {
            // A cache type can only be chosen if its cost is known.
            runs.retain(|r| r.kv == KvType::F16 || sensitivity.cache(r.kv).is_some());
        }
        let mut types = self.types.clone().unwrap_or_else(default_types);
        if let Some(machine) = options.machine {
            types.retain(|t| machine.takes(*t));
            if types.is_empty() {
                let why = format!("--for {}: supports none of the types in --types", machine.name);
                return Err(Error::usage(why).or("leave out --types"));
            }
        }
        let space =
            SearchSpace { types: &types, explicit: self.types.is_some(), sensitivity, prices: &self.prices };
        let choices = Choices::find(source, options, space)?;
        let lacks_importance = choices.lacks_importance;
        let mut error = match allocate(source, options, choices, &goal, sensitivity) {
            Err(error @ (Error::BudgetTooSmall { .. } | Error::TooLittleMemory(_))) => error,
            done => return done,
        };
        let found = self.ways_out(source, options, sensitivity, &goal, lacks_importance);
        match &mut error {
            Error::BudgetTooSmall { ways, .. } => *ways = found,
            Error::TooLittleMemory(e) => e.ways = found,
            _ => {}
        }
        Err(error)
    }

    /// The changes of the options that would meet a budget which cannot be met with these: each is tried.
    fn ways_out(
        &self,
        source: &Source,
        options: &PlanOptions,
        sensitivity: &Sensitivity,
        goal: &Goal,
        lacks_importance: bool,
    ) -> Vec<String> {
        let own = options.importance;
        let tried = |importance: bool, own_types: bool, allow_requantize: bool, goal: &Goal| {
            let mut options = PlanOptions { importance, allow_requantize, ..options.clone() };
            let mut types = self.types.clone().filter(|_| own_types).unwrap_or_else(default_types);
            types.retain(|t| options.machine.is_none_or(|machine| machine.takes(*t)));
            let explicit = own_types && self.types.is_some();
            let space = SearchSpace { types: &types, explicit, sensitivity, prices: &self.prices };
            // The importance matrix is named in the file, whose size is not known before there is one.
            let goal = match goal {
                Goal::Size(size) if importance && !own => &Goal::Size(size.saturating_sub(NAMED)),
                goal => goal,
            };
            let choices = Choices::find(source, &mut options, space);
            choices.and_then(|choices| choices.fit(goal, sensitivity)).is_ok()
        };
        let again = options.allow_requantize;
        let works = |importance, own_types, goal: &Goal| tried(importance, own_types, again, goal);
        let mut ways = Vec::new();
        if !again && source.model.tensors.iter().any(|t| !t.encoding.is_plain()) {
            const ORIGINAL: &str = "start from the original weights, or add --allow-requantize";
            if tried(own, true, true, goal) {
                ways.push(format!("{ORIGINAL}, which adds the errors of both"));
            } else if !own && tried(true, true, true, goal) {
                ways.push(format!("{ORIGINAL} and --imatrix FILE, which adds the errors of both"));
            }
        }
        // Types below 3 bits need an importance matrix.
        if lacks_importance && works(true, true, goal) {
            ways.push("add --imatrix FILE, which allows types below 3 bits".to_string());
            ways.push("add --calibration TEXT, which does so too".to_string());
        }
        if self.types.is_some() && works(own, false, goal) {
            ways.push("leave out --types".into());
        } else if self.types.is_some() && !own && works(true, false, goal) {
            ways.push("leave out --types and add --imatrix FILE".into());
        }
        if let (Goal::Ram { ram, reserve, runs }, Some(KvType::F16 | KvType::F32)) = (goal, self.kv)
            && sensitivity.cache(KvType::Q8_0).is_some()
        {
            let runs = runs.iter().map(|run| RunConfig { kv: KvType::Q8_0, ..*run }).collect();
            if works(own, true, &Goal::Ram { ram: *ram, reserve: *reserve, runs }) {
                ways.push("use --kv q8_0".into());
            }
        }
        ways
    }
}

/// The default context: 4096 tokens, or the model's context length if that is shorter.
pub fn default_context(source: &Source) -> u64 {
    const DEFAULT: u64 = 4096;
    match ModelShape::read(&source.model.metadata, 0).map_or(0, |s| s.context) {
        0 => DEFAULT,
        limit => limit.min(DEFAULT),
    }
}

/// The default types to choose from, by bits per weight: those that llama.cpp and programs built on it have supported for
/// long, as far as each is the best choice for some model and size.
pub fn default_types() -> Vec<DType> {
    let mut types: Vec<DType> = TYPES.iter().filter(|t| t.usual).map(|t| t.dtype).collect();
    order::by(&mut types, |a, b| a.bits_per_weight().total_cmp(&b.bits_per_weight()));
    types
}

/// The names of [`default_types`], separated by commas.
pub static DEFAULT_TYPES: LazyLock<String> =
    LazyLock::new(|| default_types().iter().map(|t| t.name()).collect::<Vec<_>>().join(","));

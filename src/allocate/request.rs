//! A size to fit into, as it is asked for, and the choice that is made for it.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use formats::block::{DType, TYPES};

use super::{Allocation, Choices, Goal, SearchSpace, settle};
use crate::calibrate::Chunks;
use crate::disk::{self, NewFile};
use crate::error::{Error, Result};
use crate::memory::{Runtime, Shape, Use};
use crate::plan::{Plan, PlanOptions};
use crate::resources::{Limits, Watcher};
use crate::runner::KvType;
use crate::scheme::recipe;
use crate::sensitivity::{self, Measuring, Sensitivity, quick};
use crate::source::Source;

/// What the result is to fit into, as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// A machine with so many bytes of memory.
    Ram(u64),
    /// Files of at most so many bytes.
    Size(u64),
    /// So many bits of tensor data for each weight.
    Bits(f64),
}

/// Asks for the types that lose least within a budget.
#[derive(Debug, Clone)]
pub struct Request {
    /// What the result is to fit into.
    pub budget: Budget,
    /// Tokens of context that are to fit into the memory: 4096, or the model's own if that is shorter, unless given.
    pub context: Option<u64>,
    /// The type of the KV cache; whichever of f16 and q8_0 loses least unless given.
    pub kv: Option<KvType>,
    /// Bytes of memory that are left to the system; [`crate::memory::reserve`] unless given.
    pub reserve: Option<u64>,
    /// The programs that are to be able to run the result.
    pub runtimes: Vec<Runtime>,
    /// The types to choose from; [`usual_types`] unless given.
    pub types: Option<Vec<DType>>,
    /// By how much a type's loss is multiplied before the choice.
    pub prices: Vec<(DType, f64)>,
    /// A file of sensitivities. Where it is missing and a calibration set is given, it is measured and written.
    pub sensitivity: Option<PathBuf>,
    /// Where the choice is written as a recipe.
    pub write_recipe: Option<PathBuf>,
}

impl Request {
    /// A request with every choice left open.
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

    /// What is to be reached, for this model.
    ///
    /// # Errors
    /// [`Error::Usage`] for a context that is longer than the model's, or a KV cache type that its heads cannot have;
    /// settings from which the memory cannot be computed.
    pub fn goal(&self, source: &Source) -> Result<Goal> {
        let ram = match self.budget {
            Budget::Size(size) => return Ok(Goal::Size(size)),
            Budget::Bits(bits) => return Ok(Goal::Bits(bits)),
            Budget::Ram(ram) => ram,
        };
        let context = self.context.unwrap_or_else(|| default_context(source));
        let shape = Shape::read(&source.model.metadata, 0)?;
        if shape.context > 0 && context > shape.context {
            let why = format!("--context {context}: the model was made for {} tokens", shape.context);
            return Err(Error::usage(why).or(format!("--context {}, or less", shape.context)));
        }
        let kinds: Vec<KvType> = match self.kv {
            Some(kv) if !shape.keeps(kv) => {
                let why = format!(
                    "a q8_0 KV cache needs heads of a multiple of 32 dimensions, and these have {:?}",
                    shape.head
                );
                return Err(Error::usage(why).or("--kv f16"));
            }
            Some(kv) => vec![kv],
            None => [KvType::F16, KvType::Q8_0].into_iter().filter(|k| shape.keeps(*k)).collect(),
        };
        let run = |kv| self.runtimes.iter().map(move |&runtime| Use { runtime, context, kv });
        Ok(Goal::Ram { ram, reserve: self.reserve, runs: kinds.into_iter().flat_map(run).collect() })
    }

    /// What errors in the model's matrices cost: read, measured and kept, or guessed. Nothing is written over the files in
    /// `read`.
    ///
    /// # Errors
    /// Those of measuring and of files; [`Error::Usage`] if something would have to be measured in a dry run.
    pub fn sensitivity(
        &self,
        source: &Source,
        chunks: Option<&Chunks>,
        (dry_run, read): (bool, &[&Path]),
        limits: Limits,
        watcher: &dyn Watcher,
    ) -> Result<Sensitivity> {
        let Some(path) = &self.sensitivity else { return quick::guess(source) };
        let Some(chunks) = chunks.filter(|_| !path.exists()) else { return sensitivity::read(path) };
        if dry_run {
            let why = format!("{} is not there, and a dry run measures nothing", path.display());
            return Err(Error::usage(why).or("ggufkit sensitivity MODEL TEXT -o FILE"));
        }
        disk::refuse_overwriting(path, source.paths().chain(read.iter().copied()))?;
        drop(NewFile::create(path, 0)?);
        let mut types = usual_types();
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
        let chunks = chunks.part(sensitivity::default_chunks(source), sensitivity::DEFAULT_CONTEXT);
        let found = measuring.run(source, &chunks, watcher)?;
        watcher.finished();
        disk::write_whole(path, sensitivity::print(&found).as_bytes())?;
        Ok(found)
    }

    /// Chooses the types and plans with them; `options` get the scheme. Nothing is written over the files in `read`.
    ///
    /// # Errors
    /// [`Error::Refused`] for a budget that nothing reaches; [`Error::Usage`] if no type is left; those of planning.
    pub fn choose(
        &self,
        source: &Source,
        options: &mut PlanOptions,
        known: &Sensitivity,
        read: &[&Path],
    ) -> Result<(Allocation, Plan)> {
        let mut goal = self.goal(source)?;
        if let (Goal::Ram { runs, .. }, None) = (&mut goal, self.kv) {
            // What it would cost must be known.
            runs.retain(|r| r.kv == KvType::F16 || known.cache(r.kv).is_some());
        }
        let mut types = self.types.clone().unwrap_or_else(usual_types);
        if let Some(machine) = options.machine {
            types.retain(|t| machine.takes(*t));
            if types.is_empty() {
                let why = format!("--for {} can use none of --types", machine.name);
                return Err(Error::usage(why).or("leave out --types"));
            }
        }
        let space = SearchSpace {
            types: &types,
            named: self.types.is_some(),
            sensitivity: known,
            prices: &self.prices,
        };
        let choices = Choices::find(source, options, space)?;
        let (allocation, plan) = settle(source, options, choices, &goal, known)?;
        if let Some(path) = &self.write_recipe {
            disk::refuse_overwriting(path, source.paths().chain(read.iter().copied()))?;
            disk::write_whole(path, recipe::print(&allocation.scheme).as_bytes())?;
        }
        Ok((allocation, plan))
    }
}

/// The context that is meant where none is given: 4096 tokens, or as many as the model was made for.
pub fn default_context(source: &Source) -> u64 {
    const USUAL: u64 = 4096;
    match Shape::read(&source.model.metadata, 0).map_or(0, |s| s.context) {
        0 => USUAL,
        most => most.min(USUAL),
    }
}

/// The types that are chosen from where none are named: those that llama.cpp and everything built on it have had for
/// long, as far as each is the best choice for some model and size.
pub fn usual_types() -> Vec<DType> {
    let mut types: Vec<DType> = TYPES.iter().filter(|t| t.usual).map(|t| t.dtype).collect();
    types.sort_by(|a, b| a.bits_per_weight().total_cmp(&b.bits_per_weight()));
    types
}

/// The names of [`usual_types`], between commas.
pub static USUAL: LazyLock<String> =
    LazyLock::new(|| usual_types().iter().map(|t| t.name()).collect::<Vec<_>>().join(","));

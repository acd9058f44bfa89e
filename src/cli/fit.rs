//! Options of `quantize` for sizes: what the result is to fit into.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use formats::block::DType;

use super::options::{Cache, apart, files};
use super::sensitivity::{self, Measuring};
use super::types::{self, Prices, Types, prices, types};
use crate::calibrate::Chunks;
use crate::disk::{self, NewFile};
use crate::error::{Error, Result};
use crate::fit::{Choices, Fitted, Freedom, Goal, settle};
use crate::memory::{self, Runtime, Shape, Use};
use crate::pipeline::Limits;
use crate::plan::{Plan, Wishes, recipe};
use crate::report::{self, parse_bytes, visible};
use crate::runner::CacheKind;
use crate::sensitivity::{Sensitivity, print as to_json, quick};
use crate::source::Source;

/// What the result is to fit into.
#[derive(Debug, Args)]
pub struct Fitting {
    /// Choose every tensor's type so that the model runs in a machine with so much memory, 8G for one, and loses least
    #[arg(long, value_name = "RAM", value_parser = parse_bytes, conflicts_with_all = ["size", "bits_per_weight"])]
    pub fit: Option<u64>,
    /// The same for a file of at most so many bytes
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, conflicts_with = "bits_per_weight")]
    pub size: Option<u64>,
    /// The same for so many bits of tensor data for each weight
    #[arg(long, value_name = "X", value_parser = bits)]
    pub bits_per_weight: Option<f64>,
    /// Tokens of the context that is to fit; 4096 if not given, or the model's own if that is shorter
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub context: Option<u64>,
    /// How keys and values are kept; whichever of f16 and q8_0 loses least if not given
    #[arg(long, value_name = "TYPE")]
    pub kv: Option<Cache>,
    /// What is left to the system; half a GiB and a sixteenth of the memory if not given
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub reserve: Option<u64>,
    /// What is to run the model; both if not given
    #[arg(long, value_enum)]
    pub runtime: Option<Runner>,
    /// Types to choose from
    #[arg(long, value_name = "TYPES", value_parser = types)]
    pub types: Option<Types>,
    /// What types' losses are multiplied by before the choice, iq2_s=1.5,iq3_s=1.5 for a machine that is slow with these
    #[arg(long, value_name = "TYPE=X", value_parser = prices)]
    pub price: Option<Prices>,
    /// What errors in each matrix cost, as `sensitivity` measured it; with --calibration it is measured and kept there, if
    /// there is no such file. Guessed if not given
    #[arg(long, value_name = "FILE")]
    pub sensitivity: Option<PathBuf>,
    /// Keep the choice as a recipe
    #[arg(long, value_name = "FILE")]
    pub write_recipe: Option<PathBuf>,
}

/// What runs models.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Runner {
    /// llama.cpp, Ollama and what else is built on it
    #[value(name = "llama.cpp")]
    LlamaCpp,
    /// ggufkit
    Ggufkit,
    /// Either
    Both,
}

impl Runner {
    fn runtimes(self) -> &'static [Runtime] {
        match self {
            Self::LlamaCpp => &[Runtime::LlamaCpp],
            Self::Ggufkit => &[Runtime::Ggufkit],
            Self::Both => &[Runtime::LlamaCpp, Runtime::Ggufkit],
        }
    }
}

fn bits(text: &str) -> std::result::Result<f64, String> {
    let bits = text.parse().ok().filter(|b: &f64| b.is_finite() && *b > 0.0 && *b <= 32.0);
    bits.ok_or_else(|| format!("{text:?} is not a number of bits"))
}

/// The context that is meant where none is said: 4096 tokens, or as many as the model was made for.
pub fn usual_context(source: &Source) -> u64 {
    const USUAL: u64 = 4096;
    match Shape::read(&source.model.metadata, 0).map_or(0, |s| s.context) {
        0 => USUAL,
        most => most.min(USUAL),
    }
}

impl Fitting {
    /// Whether anything is to be fitted.
    pub fn is_asked(&self) -> bool {
        self.fit.is_some() || self.size.is_some() || self.bits_per_weight.is_some()
    }

    /// Options that mean nothing alone.
    ///
    /// # Errors
    /// One of them.
    pub fn check(&self) -> Result<()> {
        let alone = [
            ("--types", self.types.is_some()),
            ("--price", self.price.is_some()),
            ("--sensitivity", self.sensitivity.is_some()),
            ("--write-recipe", self.write_recipe.is_some()),
        ];
        let of_memory = [
            ("--context", self.context.is_some()),
            ("--kv", self.kv.is_some()),
            ("--reserve", self.reserve.is_some()),
            ("--runtime", self.runtime.is_some()),
        ];
        if let Some((option, _)) = of_memory.iter().find(|o| o.1 && self.fit.is_none()) {
            return Err(Error::usage(format!("{option} is for fitting into memory")).or("--fit RAM"));
        }
        if let Some((option, _)) = alone.iter().find(|a| a.1 && !self.is_asked()) {
            return Err(Error::usage(format!("{option} is for fitting"))
                .or("say what to fit into: --fit RAM, --size BYTES or --bits-per-weight X"));
        }
        if self.types.as_ref().is_some_and(|Types(all)| all.contains(&DType::NVFP4)) {
            return Err(Error::usage("nvfp4 brings tensors of its own, and is not for fitting")
                .or("leave it out of --types; --type nvfp4 makes a model of it"));
        }
        Ok(())
    }

    /// What is to be reached.
    ///
    /// # Errors
    /// A context or a cache that the model does not have.
    pub fn goal(&self, source: &Source) -> Result<Goal> {
        if let Some(size) = self.size {
            return Ok(Goal::Size(size));
        }
        if let Some(bits) = self.bits_per_weight {
            return Ok(Goal::Bits(bits));
        }
        let ram = self.fit.expect("one of them is asked for");
        let context = self.context.unwrap_or_else(|| usual_context(source));
        let shape = Shape::read(&source.model.metadata, 0)?;
        if shape.context > 0 && context > shape.context {
            let why = format!("--context {context}: the model was made for {} tokens", shape.context);
            return Err(Error::usage(why).or(format!("--context {}, or less", shape.context)));
        }
        let kinds: Vec<CacheKind> = match self.kv {
            Some(kv) if !shape.keeps(kv.into()) => {
                let why = format!(
                    "a q8_0 cache needs heads of a multiple of 32, and these are of {:?}",
                    shape.head
                );
                return Err(Error::usage(why).or("--kv f16"));
            }
            Some(kv) => vec![kv.into()],
            None => [CacheKind::F16, CacheKind::Q8_0].into_iter().filter(|k| shape.keeps(*k)).collect(),
        };
        let runtimes = self.runtime.unwrap_or(Runner::Both).runtimes();
        let run = |kv| runtimes.iter().map(move |&runtime| Use { runtime, context, kv });
        Ok(Goal::Ram { ram, reserve: self.reserve, runs: kinds.into_iter().flat_map(run).collect() })
    }

    /// What is known of the model: read, measured and kept, or guessed. `read` are files that nothing is to be written over.
    ///
    /// # Errors
    /// Those of measuring, and of files; on a dry run nothing is measured.
    pub fn known(
        &self,
        source: &Source,
        chunks: Option<&Chunks>,
        limits: Limits,
        (dry, read): (bool, &[&Path]),
    ) -> Result<Sensitivity> {
        let Some(path) = &self.sensitivity else { return quick::guess(source) };
        let Some(chunks) = chunks.filter(|_| !path.exists()) else { return sensitivity::read(path) };
        if dry {
            let why = format!("{} is not there, and a dry run measures nothing", path.display());
            return Err(Error::usage(why).or("ggufkit sensitivity MODEL TEXT -o FILE"));
        }
        apart(path, files(source).chain(read.iter().copied()))?;
        drop(NewFile::create(path, 0)?);
        let (Types(mut all), Types(probes)) =
            (types::usual(), types(sensitivity::PROBES).expect("these are types"));
        let named = self.types.iter().flat_map(|t| &t.0);
        named.for_each(|t| all.extend((!all.contains(t)).then_some(*t)));
        let folder = disk::folder(path);
        let measuring = Measuring { types: &all, probes: &probes, limits, folder, importance: None };
        let found =
            measuring.run(source, &chunks.part(sensitivity::usual_chunks(source), sensitivity::CONTEXT))?;
        disk::write_whole(path, to_json(&found).as_bytes())?;
        Ok(found)
    }

    /// Chooses, plans, and says what was chosen. `read` are files that nothing is to be written over.
    ///
    /// # Errors
    /// A goal that nothing reaches.
    pub fn run(
        &self,
        source: &Source,
        wishes: &mut Wishes,
        known: &Sensitivity,
        read: &[&Path],
    ) -> Result<(Fitted, Plan, String)> {
        let mut goal = self.goal(source)?;
        if let (Goal::Ram { runs, .. }, None) = (&mut goal, self.kv) {
            // What it would cost must be known.
            runs.retain(|r| r.kv == CacheKind::F16 || known.cache(r.kv).is_some());
        }
        let Types(mut all) = self.types.clone().unwrap_or_else(types::usual);
        if let Some(machine) = wishes.machine {
            all.retain(|t| machine.takes(*t));
            if all.is_empty() {
                let why = format!("--for {} can use none of --types", machine.name);
                return Err(Error::usage(why).or("leave out --types"));
            }
        }
        let named = self.types.is_some();
        let prices = self.price.as_ref().map_or(&[][..], |p| &p.0);
        let freedom = Freedom { types: &all, named, sensitivity: known, prices };
        let choices = Choices::find(source, wishes, freedom)?;
        let (fitted, plan) = settle(source, wishes, choices, &goal, known)?;
        let mut text = tell(&goal, &fitted, known);
        if let Some(path) = &self.write_recipe {
            apart(path, files(source).chain(read.iter().copied()))?;
            disk::write_whole(path, recipe::print(&fitted.scheme).as_bytes())?;
            let _ = writeln!(text, "  recipe: {}", path.display());
        }
        Ok((fitted, plan, text))
    }
}

/// The choice for machines.
pub fn as_json(fitted: &Fitted) -> serde_json::Value {
    let memory = fitted.memory.as_ref().map(|(run, m)| {
        serde_json::json!({
            "runtime": run.runtime.name(), "context": run.context, "kv": run.kv.name(), "resident": m.resident(),
            "total": m.total(), "weights": m.weights, "cache": m.cache,
        })
    });
    serde_json::json!({
        "predicted_kld": fitted.kld, "cache_kld": fitted.cache_kld, "bound": fitted.bound, "bytes": fitted.bytes,
        "most_bytes": fitted.most, "memory": memory,
        "next_dearer": fitted.next[0], "next_cheaper": fitted.next[1],
    })
}

/// What was asked for and what comes of it, in words.
fn tell(goal: &Goal, fitted: &Fitted, known: &Sensitivity) -> String {
    let bytes = report::bytes;
    let mut text = String::new();
    if let (Goal::Ram { ram, reserve, .. }, Some((run, memory))) = (goal, &fitted.memory) {
        let reserve = reserve.unwrap_or_else(|| memory::reserve(*ram));
        let room = ram.saturating_sub(reserve);
        let _ = writeln!(
            text,
            "fit: {} of memory, {} of it for the system; {} with {} tokens of context as {}",
            bytes(*ram),
            bytes(reserve),
            run.runtime.name(),
            run.context,
            run.kv.name()
        );
        let _ = writeln!(
            text,
            "  weights {}, keys and values {}, a batch's vectors {}, vocabulary and program {}: {} resident; with addresses \
             that are not touched {} of {}, {} left",
            bytes(memory.weights),
            bytes(memory.cache),
            bytes(memory.compute),
            bytes(memory.vocabulary + memory.process),
            bytes(memory.resident()),
            bytes(memory.total()),
            bytes(room),
            bytes(room.saturating_sub(memory.total())),
        );
    } else {
        let left = fitted.most.saturating_sub(fitted.bytes);
        let _ =
            writeln!(text, "fit: {} of {}, {} left", bytes(fitted.bytes), bytes(fitted.most), bytes(left));
    }
    let cache = match fitted.cache_kld {
        x if x > 0.0 => format!(", {x:.6} of it by the cache"),
        _ => String::new(),
    };
    let bound = fitted.bound.unwrap_or(fitted.kld);
    let gap = match fitted.kld / bound.max(f64::MIN_POSITIVE) - 1.0 {
        gap if gap > 1e-6 => format!("; no choice is more than {:.3} % better", 100.0 * gap),
        _ => String::new(),
    };
    let _ = writeln!(text, "  predicted KL divergence {:.6}{cache}{gap} ({})", fitted.kld, known.summary());
    for (name, next) in ["the next dearer", "the next cheaper"].iter().zip(&fitted.next) {
        if let Some(next) = next {
            let _ = writeln!(text, "  {name}: {next}");
        }
    }
    text.lines().map(|line| visible(line).to_string() + "\n").collect()
}

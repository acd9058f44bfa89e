//! The choice of a type for every tensor, so that the model fits into a memory or file size with the least predicted KL
//! divergence from the original. docs/fitting.md describes the method.

mod request;
mod scheme;
mod too_little;

use std::collections::HashMap;

use calibration::budget::{self, Change, Item, Solution};
use formats::block::DType;
use formats::metadata::{Metadata, Value};
use formats::model::{Encoding, Tensor};

use crate::error::{Error, Result};
use crate::memory::{self, Memory, ModelShape, RunConfig};
use crate::plan::{self, Container, Plan, PlanOptions};

use crate::scheme::{Scheme, needs_importance};
use crate::sensitivity::{Matrix, Sensitivity};
use crate::source::Source;
use crate::text;

pub use request::{Budget, DEFAULT_TYPES, Request, SENSITIVITY, default_context, default_types};

/// The name of the schemes that are made here, and so of the plan's rule for tensors with a choice.
const NAME: &str = "fit";

/// What the result has to fit into.
#[derive(Debug, Clone, PartialEq)]
pub enum Goal {
    /// A machine's memory, less what is left to the system.
    Ram {
        /// The machine's memory, in bytes.
        ram: u64,
        /// Left to the system, in bytes; [`memory::reserve`] if not given.
        reserve: Option<u64>,
        /// How the model will be run: with one of these KV cache types, by every one of these programs.
        runs: Vec<RunConfig>,
    },
    /// Files of at most this many bytes.
    Size(u64),
    /// At most this many bits of tensor data per weight.
    Bits(f64),
}

/// The types to choose from, and their costs.
#[derive(Clone, Copy)]
pub struct SearchSpace<'a> {
    /// The types; a tensor may get those that divide its rows.
    pub types: &'a [DType],
    /// Whether the user named them. By default, types that need an importance matrix are left out where there is none.
    pub explicit: bool,
    /// The predicted KL divergence of each type in each tensor.
    pub sensitivity: &'a Sensitivity,
    /// Factors on a type's KL divergence in the choice, 1 if not listed; above 1 for types that a machine is slow with.
    pub prices: &'a [(DType, f64)],
}

/// The tensors whose types can be chosen, with the options for each: the items of a multiple-choice knapsack.
///
/// `types`, `items` and `losses` have an entry for each tensor of `names`, with the same options in the same order.
pub struct Choices {
    /// The tensors' names.
    pub names: Vec<String>,
    /// The types that each can get.
    pub types: Vec<Vec<DType>>,
    /// The bytes of each option, and its cost in the choice (predicted KL divergence times price).
    pub items: Vec<Vec<Item>>,
    /// The predicted KL divergence of each option, in nats.
    pub losses: Vec<Vec<f64>>,
    /// Whether types were left out for lack of an importance matrix.
    pub lacks_importance: bool,
    /// Whether types have prices.
    priced: bool,
    /// Bytes of the files apart from these tensors.
    pub fixed: u64,
    /// Bytes of the other tensors, contained in `fixed`.
    pub fixed_tensors: u64,
    /// Weights of all tensors.
    pub weights: u64,
    /// The predicted KL divergence of the other tensors, in nats.
    pub fixed_loss: f64,
    /// Tensors whose types the user set, for recipes.
    user_types: Vec<(String, DType)>,
    /// The metadata that memory depends on.
    metadata: Metadata,
    /// Rows of the token embedding.
    vocab: u64,
}

/// The chosen types.
#[derive(Debug)]
pub struct Allocation {
    /// What they had to fit into.
    pub goal: Goal,
    /// Where the costs come from, in words ([`Sensitivity::summary`]).
    pub cost_origin: String,
    /// The types as a scheme.
    pub scheme: Scheme,
    /// The types by tensor.
    pub types: Vec<(String, DType)>,
    /// Bytes of the files.
    pub bytes: u64,
    /// Bytes that the files may have.
    pub limit: u64,
    /// The predicted KL divergence, in nats, including that of the KV cache.
    pub kld: f64,
    /// The predicted KL divergence of the KV cache, in nats.
    pub cache_kld: f64,
    /// A lower bound on the predicted KL divergence of any choice, in nats; `None` where types have prices.
    pub bound: Option<f64>,
    /// The memory that a run needs, for [`Goal::Ram`].
    pub memory: Option<(RunConfig, Memory)>,
    /// The best single change to a larger and to a smaller type, in words.
    pub next: [Option<String>; 2],
}

impl Choices {
    /// Collects the choices in a model. The scheme in `options` is overwritten.
    ///
    /// # Errors
    /// [`Error::Usage`] if the result would not be a GGUF or a type that the user named is of no use;
    /// [`Error::UnknownSensitivity`] for a tensor without sensitivity; [`Error::NoTypeLeft`] for one that no type fits; those
    /// of [`plan::plan`].
    pub fn find(source: &Source, options: &mut PlanOptions, space: SearchSpace) -> Result<Self> {
        if plan::container(&source.model, options)? != Container::Gguf {
            return Err(Error::usage("only a GGUF can have a type for every tensor")
                .or("use an output name that ends in .gguf"));
        }
        let plain =
            |base| Scheme { name: NAME.into(), aliases: vec![], base, file_type: None, rules: vec![] };
        // Any quantized type will do: plans with one have metadata about quantization, which counts for the size.
        options.scheme = Some(plain(DType::Q8_0).into());
        // Checks of the types wait for the final plan.
        let (strict, again, machine) = (options.strict, options.allow_requantize, options.machine);
        (options.strict, options.allow_requantize, options.machine) = (false, true, None);
        options.container = Some(Container::Gguf);
        let start = plan::plan(source, options);
        (options.strict, options.allow_requantize, options.machine) = (strict, again, machine);
        let start = start?;
        let align = start.metadata.get("general.alignment").and_then(Value::as_u64).unwrap_or(32);
        let mut found = Self {
            names: Vec::new(),
            types: Vec::new(),
            items: Vec::new(),
            losses: Vec::new(),
            lacks_importance: false,
            priced: !space.prices.is_empty(),
            fixed: start.bytes(),
            fixed_tensors: start.layout.tensors.iter().map(|t| t.location.len).sum(),
            weights: start.layout.tensors.iter().map(Tensor::elements).sum(),
            fixed_loss: 0.0,
            user_types: Vec::new(),
            metadata: start.metadata.clone(),
            vocab: start
                .layout
                .tensors
                .iter()
                .find(|t| t.name == "token_embd.weight")
                .map_or(0, Tensor::rows),
        };
        let known = space.sensitivity.by_name();
        for (step, t) in start.decisions.iter().zip(&start.layout.tensors) {
            if step.rule != NAME {
                if let Encoding::Blocks(dtype) = t.encoding {
                    if step.from != t.encoding {
                        let loss = known.get(t.name.as_str()).and_then(|m| m.loss(dtype));
                        found.fixed_loss += loss.unwrap_or(0.0);
                    }
                    if step.rule.starts_with("--") {
                        found.user_types.push((t.name.clone(), dtype));
                    }
                }
                continue;
            }
            let matrix = known.get(t.name.as_str()).filter(|m| m.shape == t.shape);
            let matrix = matrix.ok_or_else(|| Error::UnknownSensitivity { tensor: t.name.clone() })?;
            found.add(t, matrix, step.from, options, space, align)?;
            found.fixed -= t.location.len.next_multiple_of(align);
            found.fixed_tensors -= t.location.len;
        }
        let usable = |d: &&DType| found.types.iter().any(|t| t.contains(d));
        if space.explicit
            && !found.types.is_empty()
            && let Some(unusable) = space.types.iter().find(|d| !usable(d))
        {
            let name = unusable.name();
            let why = format!(
                "--types {name}: no tensor can get it: its error was not measured, or no row is a multiple of its block size"
            );
            let quantized = source.model.tensors.iter().any(|t| !t.encoding.is_plain());
            if quantized && !options.allow_requantize {
                let why = format!(
                    "--types {name}: no tensor can get it, since those of the model are already quantized"
                );
                let hint = "start from the original weights, or add --allow-requantize, which adds the errors of both";
                return Err(Error::usage(why).or(hint));
            }
            return Err(Error::usage(why).or(format!(
                "leave it out of --types, or measure it: `ggufkit sensitivity MODEL TEXT -o FILE --types {name},...`"
            )));
        }
        Ok(found)
    }

    /// Adds the options of a tensor whose type can be chosen.
    fn add(
        &mut self,
        t: &Tensor,
        known: &Matrix,
        from: Encoding,
        options: &PlanOptions,
        space: SearchSpace,
        align: u64,
    ) -> Result<()> {
        let rows = t.elements() / t.cols().max(1);
        let lacks_importance = |d: DType| !options.importance && !space.explicit && needs_importance(d, None);
        let own = match from {
            Encoding::Blocks(d) if !from.is_plain() => Some(d),
            _ => None,
        };
        let again = |d: DType| {
            own.is_some() && !options.allow_requantize && !Encoding::Blocks(d).is_plain() && own != Some(d)
        };
        let (mut types, mut items, mut losses) = (Vec::new(), Vec::new(), Vec::new());
        let mine = own.filter(|d| !space.types.contains(d));
        for &dtype in space.types.iter().chain(&mine).filter(|d| !again(**d)) {
            // A tensor that is copied loses nothing.
            let loss = if from == Encoding::Blocks(dtype) {
                Some(0.0)
            } else if lacks_importance(dtype) {
                self.lacks_importance = true;
                None
            } else {
                known.loss(dtype)
            };
            let (Some(row), Some(loss)) = (dtype.bytes_for(t.cols()), loss) else { continue };
            types.push(dtype);
            losses.push(loss);
            let price = space.prices.iter().find(|p| p.0 == dtype).map_or(1.0, |p| p.1);
            items.push(Item { bytes: (row * rows).next_multiple_of(align), loss: loss * price });
        }
        // Rows that no block of the usual types divides stay floats, as with a scheme.
        if types.is_empty()
            && !space.explicit
            && let Some(row) = DType::F16.bytes_for(t.cols())
        {
            types.push(DType::F16);
            losses.push(0.0);
            items.push(Item { bytes: (row * rows).next_multiple_of(align), loss: 0.0 });
        }
        if types.is_empty() {
            return Err(Error::NoTypeLeft { tensor: t.name.clone(), cols: t.cols() });
        }
        self.names.push(t.name.clone());
        self.types.push(types);
        self.items.push(items);
        self.losses.push(losses);
        Ok(())
    }

    /// Bytes of the files that are not tensor data.
    fn header(&self) -> u64 {
        self.fixed - self.fixed_tensors
    }

    /// Bytes of the files with the smallest types.
    pub fn smallest(&self) -> u64 {
        self.fixed + budget::smallest(&self.items)
    }

    /// Bytes that a run needs in addition to the tensors.
    ///
    /// # Errors
    /// [`Error::ContextTooLong`] for a longer context than the model's; those of [`ModelShape::read`].
    pub fn memory_overhead(&self, run: RunConfig) -> Result<u64> {
        Ok(Memory::of(&self.shape(run)?, 0, run).needed())
    }

    fn shape(&self, run: RunConfig) -> Result<ModelShape> {
        let shape = ModelShape::read(&self.metadata, self.vocab)?;
        if run.context > shape.context && shape.context > 0 {
            return Err(Error::ContextTooLong { context: run.context, limit: shape.context });
        }
        Ok(shape)
    }

    /// The best choice for a goal.
    ///
    /// # Errors
    /// [`Error::BudgetTooSmall`] and [`Error::TooLittleMemory`] if even the smallest types do not fit; those of
    /// [`Choices::memory_overhead`].
    pub fn fit(&self, goal: &Goal, sensitivity: &Sensitivity) -> Result<Allocation> {
        let mut found = self.best_for(goal, sensitivity)?;
        (found.goal, found.cost_origin) = (goal.clone(), sensitivity.summary());
        Ok(found)
    }

    /// The same, but for what the choice was made for.
    fn best_for(&self, goal: &Goal, sensitivity: &Sensitivity) -> Result<Allocation> {
        match goal {
            Goal::Size(size) => self.best_within(*size, None, 0.0).ok_or_else(|| {
                let smallest = self.smallest();
                let exact = |n: u64| match n {
                    0..1024 => text::bytes(n),
                    _ => format!("{} ({n} bytes)", text::bytes(n)),
                };
                Error::BudgetTooSmall {
                    asked: exact(*size),
                    smallest: exact(smallest),
                    enough: format!("--size {smallest}"),
                    unit: text::unit_meant("--size", *size).map(String::into_boxed_str),
                    ways: Vec::new(),
                }
            }),
            Goal::Bits(bits) => {
                let data = (bits * self.weights as f64 / 8.0).max(0.0) as u64;
                let header = self.header();
                self.best_within(data.saturating_add(header), None, 0.0).ok_or_else(|| {
                    let least = (self.smallest() - header) as f64 * 8.0 / self.weights.max(1) as f64;
                    let least = (least * 1000.0).ceil() / 1000.0;
                    Error::BudgetTooSmall {
                        asked: format!("{bits} bits per weight"),
                        smallest: format!("{least:.3}"),
                        enough: format!("--bits-per-weight {least:.3}"),
                        unit: None,
                        ways: Vec::new(),
                    }
                })
            }
            Goal::Ram { ram, reserve, runs } => {
                let room = ram.saturating_sub(reserve.unwrap_or_else(|| memory::reserve(*ram)));
                let mut best: Option<Allocation> = None;
                for (run, overhead) in self.largest(runs)? {
                    let left = room.checked_sub(overhead);
                    let header = self.header();
                    let price = sensitivity.cache(run.kv).unwrap_or(0.0);
                    let found =
                        left.and_then(|left| self.best_within(left.saturating_add(header), Some(run), price));
                    // With equal predictions, the first: the more precise KV cache.
                    if let Some(found) = found
                        && best.as_ref().is_none_or(|b| found.kld < b.kld)
                    {
                        best = Some(found);
                    }
                }
                match best {
                    Some(best) => Ok(best),
                    None => Err(self.too_little_memory(*ram, *reserve, runs)?),
                }
            }
        }
    }

    /// For each KV cache type, the program that needs most, and the bytes that it needs in addition to the tensors: the
    /// model has to run in every program.
    fn largest(&self, runs: &[RunConfig]) -> Result<Vec<(RunConfig, u64)>> {
        let mut all: Vec<(RunConfig, u64)> = Vec::new();
        for &run in runs {
            let overhead = self.memory_overhead(run)?;
            match all.iter_mut().find(|r| r.0.kv == run.kv) {
                Some(most) if most.1 >= overhead => {}
                Some(most) => *most = (run, overhead),
                None => all.push((run, overhead)),
            }
        }
        Ok(all)
    }

    /// The memory of a run with `weights` bytes of tensors.
    ///
    /// # Errors
    /// Those of [`Choices::memory_overhead`].
    pub fn memory(&self, run: RunConfig, weights: u64) -> Result<Memory> {
        Ok(Memory::of(&self.shape(run)?, weights, run))
    }

    /// The best choice with at most `limit` bytes of files; `None` if there is none.
    fn best_within(&self, limit: u64, run: Option<RunConfig>, cache_kld: f64) -> Option<Allocation> {
        let found = budget::solve(&self.items, limit.checked_sub(self.fixed)?)?;
        let bytes = self.fixed + found.bytes;
        let header = self.header();
        let memory = run.and_then(|run| Some((run, self.memory(run, bytes - header).ok()?)));
        let losses = self.losses.iter().zip(&found.chosen).map(|(l, &i)| l[i]);
        let kld = losses.sum::<f64>() + cache_kld + self.fixed_loss;
        let next = budget::neighbours(&self.items, &found.chosen).map(|c| c.map(|c| self.describe(&c)));
        Some(Allocation {
            goal: Goal::Size(limit),
            cost_origin: String::new(),
            scheme: self.scheme(&found),
            types: self.types_of(&found).map(|(n, t)| (n.to_string(), t)).collect(),
            bytes,
            limit,
            kld,
            cache_kld,
            // With prices, the solver's bound is not one on the KL divergence.
            bound: (!self.priced).then_some(kld - (found.loss - found.bound)),
            memory,
            next,
        })
    }

    /// A change of one tensor's type, in words.
    fn describe(&self, change: &Change) -> String {
        let Change { class, from, to, bytes, .. } = *change;
        let (name, types, losses) = (&self.names[class], &self.types[class], &self.losses[class]);
        let loss = losses[to] - losses[from];
        let size = text::bytes(bytes.unsigned_abs());
        let sign = if bytes < 0 { '−' } else { '+' };
        let (from, to) = (types[from].name(), types[to].name());
        format!("{name} {from} → {to}: {sign}{size}, KL divergence {loss:+.6}")
    }

    /// The types of a solution by tensor.
    pub fn types_of<'a>(&'a self, found: &'a Solution) -> impl Iterator<Item = (&'a str, DType)> {
        self.names.iter().zip(&self.types).zip(&found.chosen).map(|((n, t), &i)| (n.as_str(), t[i]))
    }
}

/// Chooses types and plans with them; `options` get the scheme. The sizes of split headers, metadata and biases depend on
/// the types too, so the choice is repeated with the sizes of the last plan until they agree.
///
/// # Errors
/// Those of [`Choices::fit`] and [`plan::plan`]; [`Error::Refused`] if a tensor cannot get the type that was chosen, or the
/// sizes do not settle.
pub fn allocate(
    source: &Source,
    options: &mut PlanOptions,
    mut choices: Choices,
    goal: &Goal,
    sensitivity: &Sensitivity,
) -> Result<(Allocation, Plan)> {
    /// Far more than are needed: from one round to the next the choice hardly changes.
    const ROUNDS: usize = 8;
    for round in 0..ROUNDS {
        let mut allocation = choices.fit(goal, sensitivity)?;
        options.scheme = Some(allocation.scheme.clone().into());
        let plan = plan::plan(source, options)?;
        let encodings: HashMap<&str, Encoding> =
            plan.layout.tensors.iter().map(|t| (t.name.as_str(), t.encoding)).collect();
        for (name, dtype) in &allocation.types {
            if encodings.get(name.as_str()) != Some(&Encoding::Blocks(*dtype)) {
                return Err(Error::refused(format!("tensor {name}: cannot be stored as {}", dtype.name())));
            }
        }
        let free: u64 = allocation.bytes - choices.fixed;
        if plan.bytes() == allocation.bytes || round + 1 == ROUNDS && plan.bytes() <= allocation.limit {
            allocation.bytes = plan.bytes();
            return Ok((allocation, plan));
        }
        let tensors: u64 = plan.layout.tensors.iter().map(|t| t.location.len).sum();
        choices.fixed_tensors = tensors.saturating_sub(free);
        // In the last rounds the fixed part may only grow, so that the choice cannot alternate between two sizes.
        let fixed = plan.bytes().saturating_sub(free);
        choices.fixed = if round + 2 < ROUNDS { fixed } else { fixed.max(choices.fixed) };
    }
    Err(Error::refused("the file size did not settle: metadata and types depend on each other")
        .or("ask for a slightly smaller size"))
}

//! Types for every tensor, so that the model fits into a machine's memory, or into so many bytes, and loses least.

mod request;

use calibration::budget::{self, Change, Item, Solution};
use formats::block::DType;
use formats::metadata::{Metadata, Value};
use formats::model::{Encoding, Tensor};
use regex::Regex;

use crate::arch::Blk;
use crate::error::{Error, Result};
use crate::memory::{self, Memory, Shape, Use};
use crate::plan::{self, Choice, Container, Plan, PlanOptions};
use crate::runner::KvType;
use crate::scheme::rule::Rule;
use crate::scheme::{Scheme, needs_importance};
use crate::sensitivity::Sensitivity;
use crate::source::Source;
use crate::text;

pub use request::{Budget, Request, USUAL, default_context, usual_types};

/// The name of schemes that are made here.
const NAME: &str = "fit";

/// What the result is to fit into.
#[derive(Debug, Clone, PartialEq)]
pub enum Goal {
    /// A machine's memory, less what is left to the system.
    Ram {
        /// All of it, in bytes.
        ram: u64,
        /// For the system, in bytes; what [`memory::reserve`] says if not given.
        reserve: Option<u64>,
        /// How the model may be run there: with one of these caches, by all of these programs.
        runs: Vec<Use>,
    },
    /// A file of so many bytes.
    Size(u64),
    /// So many bits of tensor data for each weight.
    Bits(f64),
}

/// What may be chosen.
#[derive(Clone, Copy)]
pub struct SearchSpace<'a> {
    /// Types, for tensors whose rows they divide.
    pub types: &'a [DType],
    /// Whether they were named by the user: else those that need the importance of weights are left out where that is not
    /// known.
    pub named: bool,
    /// What they cost.
    pub sensitivity: &'a Sensitivity,
    /// How many times what it costs a type counts for in the choice, where that is not once: more for types that a machine
    /// is slow with.
    pub prices: &'a [(DType, f64)],
}

/// Tensors whose types are free, and what each of them may become.
pub struct Choices {
    /// Their names.
    pub names: Vec<String>,
    /// Their types.
    pub types: Vec<Vec<DType>>,
    /// What these take, and what they count for in the choice.
    pub items: Vec<Vec<Item>>,
    /// The KL divergence that they bring, in nats: the same where types have no prices.
    pub losses: Vec<Vec<f64>>,
    /// Whether types were left out because the importance of weights is not known.
    blind: bool,
    /// Whether types have prices.
    priced: bool,
    /// Bytes of the files that are none of theirs.
    pub fixed: u64,
    /// Of these, bytes of other tensors.
    pub fixed_tensors: u64,
    /// Weights of all tensors.
    pub weights: u64,
    /// KL divergence of tensors that are not free.
    pub fixed_loss: f64,
    /// Tensors whose types the user decided, for recipes.
    decided: Vec<(String, DType)>,
    /// The settings that memory depends on.
    metadata: Metadata,
    /// Rows of the embedding.
    vocab: u64,
}

/// A name of tensors in layers, and for each type the layers that have it.
type Kind<'a> = (&'a str, Vec<(DType, Vec<u64>)>);

/// A type for each tensor that has a choice.
#[derive(Debug)]
pub struct Allocation {
    /// What was to be reached.
    pub goal: Goal,
    /// Where the costs of errors are known from, in words.
    pub costs: String,
    /// As a scheme.
    pub scheme: Scheme,
    /// The same, tensor by tensor.
    pub types: Vec<(String, DType)>,
    /// The files' bytes.
    pub bytes: u64,
    /// What they could have been, if anything limits them but memory.
    pub most: u64,
    /// The KL divergence that is predicted, in nats.
    pub kld: f64,
    /// Of it, that of the cache.
    pub cache_kld: f64,
    /// What no choice is below; not known where types have prices.
    pub bound: Option<f64>,
    /// What it takes to run it, if that was asked for.
    pub memory: Option<(Use, Memory)>,
    /// What one change more would bring, and what one less would save, in words.
    pub next: [Option<String>; 2],
}

impl Choices {
    /// Finds out what is free in a model. The scheme of `options` is of no matter.
    ///
    /// # Errors
    /// What planning refuses; a tensor that nothing is known of; no type that is left for one.
    pub fn find(source: &Source, options: &mut PlanOptions, space: SearchSpace) -> Result<Self> {
        if plan::container(&source.model, options)? != Container::Gguf {
            return Err(Error::usage("only a GGUF can have a type for every tensor").or("name OUT .gguf"));
        }
        let plain =
            |base| Scheme { name: NAME.into(), aliases: vec![], base, file_type: None, rules: vec![] };
        // A type that quantizes: with it come settings that say how.
        options.scheme = Some(plain(DType::Q8_0).into());
        // What it would not be right for is no matter yet.
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
            blind: false,
            priced: !space.prices.is_empty(),
            fixed: start.bytes(),
            fixed_tensors: start.layout.tensors.iter().map(|t| t.location.len).sum(),
            weights: start.layout.tensors.iter().map(Tensor::elements).sum(),
            fixed_loss: 0.0,
            decided: Vec::new(),
            metadata: start.metadata.clone(),
            vocab: start
                .layout
                .tensors
                .iter()
                .find(|t| t.name == "token_embd.weight")
                .map_or(0, Tensor::rows),
        };
        for (step, t) in start.decisions.iter().zip(&start.layout.tensors) {
            if step.rule != NAME {
                if let Encoding::Blocks(dtype) = t.encoding {
                    if step.from != t.encoding {
                        found.fixed_loss +=
                            space.sensitivity.predict([(t.name.as_str(), dtype)]).unwrap_or(0.0);
                    }
                    if step.rule.starts_with("--") {
                        found.decided.push((t.name.clone(), dtype));
                    }
                }
                continue;
            }
            found.add(t, step.from, options, space, align)?;
            found.fixed -= t.location.len.next_multiple_of(align);
            found.fixed_tensors -= t.location.len;
        }
        let known = |d: &&DType| found.types.iter().any(|t| t.contains(d));
        if space.named
            && !found.types.is_empty()
            && let Some(unknown) = space.types.iter().find(|d| !known(d))
        {
            let name = unknown.name();
            return Err(Error::usage(format!("nothing is known of what {name} costs, or it divides no row"))
                .or(format!(
                    "leave it out of --types, or measure it: ggufkit sensitivity --types {name},..."
                )));
        }
        Ok(found)
    }

    fn add(
        &mut self,
        t: &Tensor,
        from: Encoding,
        options: &PlanOptions,
        space: SearchSpace,
        align: u64,
    ) -> Result<()> {
        let known = space.sensitivity.matrix(&t.name).filter(|m| m.shape == t.shape).ok_or_else(|| {
            Error::refused(format!("nothing is known of what errors in {} cost", t.name))
                .or("measure this very model: ggufkit sensitivity MODEL TEXT -o FILE")
        })?;
        let rows = t.elements() / t.cols().max(1);
        let blind = |d: DType| !options.importance && !space.named && needs_importance(d, None);
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
            // What stays as it is loses nothing.
            let loss = if from == Encoding::Blocks(dtype) {
                Some(0.0)
            } else if blind(dtype) {
                self.blind = true;
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
        if types.is_empty() {
            let (cols, name) = (t.cols(), &t.name);
            return Err(Error::refused(format!(
                "no type is left for {name}, whose rows have {cols} weights"
            ))
            .or("allow more with --types, f16 for one, or give it one with --tensor REGEX=TYPE"));
        }
        self.names.push(t.name.clone());
        self.types.push(types);
        self.items.push(items);
        self.losses.push(losses);
        Ok(())
    }

    /// Bytes of the files that are no tensors.
    fn header(&self) -> u64 {
        self.fixed - self.fixed_tensors
    }

    /// The least that the files can have.
    pub fn smallest(&self) -> u64 {
        self.fixed + budget::smallest(&self.items)
    }

    /// What a run needs beside the tensors.
    ///
    /// # Errors
    /// Settings that do not tell; a longer context than the model's.
    pub fn beside(&self, how: Use) -> Result<u64> {
        Ok(Memory::of(&self.shape(how)?, 0, how).total())
    }

    fn shape(&self, how: Use) -> Result<Shape> {
        let shape = Shape::read(&self.metadata, self.vocab)?;
        if how.context > shape.context && shape.context > 0 {
            let why = format!("--context {}: the model was made for {} tokens", how.context, shape.context);
            return Err(Error::usage(why).or(format!("--context {}, or less", shape.context)));
        }
        Ok(shape)
    }

    /// The best choice for a goal.
    ///
    /// # Errors
    /// A goal that nothing reaches, with what would.
    pub fn fit(&self, goal: &Goal, sensitivity: &Sensitivity) -> Result<Allocation> {
        match goal {
            Goal::Size(size) => self.within(*size, None, 0.0).ok_or_else(|| {
                let (asked, least) = (text::bytes(*size), self.smallest());
                let why = format!(
                    "{asked} is too little: the smallest file is {} ({least} bytes)",
                    text::bytes(least)
                );
                Error::refused(why).or(format!("ask for more; {}, or a smaller model", self.smaller()))
            }),
            Goal::Bits(bits) => {
                let data = (bits * self.weights as f64 / 8.0).max(0.0) as u64;
                let header = self.header();
                self.within(data.saturating_add(header), None, 0.0).ok_or_else(|| {
                    let least = (self.smallest() - header) as f64 * 8.0 / self.weights.max(1) as f64;
                    let least = (least * 1000.0).ceil() / 1000.0;
                    let why = format!("{bits} bits a weight are too few: the least is {least:.3}");
                    Error::refused(why).or(format!("ask for more, or {}", self.smaller()))
                })
            }
            Goal::Ram { ram, reserve, runs } => {
                let room = ram.saturating_sub(reserve.unwrap_or_else(|| memory::reserve(*ram)));
                let mut best: Option<Allocation> = None;
                for (run, beside) in self.largest(runs)? {
                    let left = room.checked_sub(beside);
                    let header = self.header();
                    let price = sensitivity.cache(run.kv).unwrap_or(0.0);
                    let found =
                        left.and_then(|left| self.within(left.saturating_add(header), Some(run), price));
                    // Of equal ones, the first: the finer cache.
                    if let Some(found) = found
                        && best.as_ref().is_none_or(|b| found.kld < b.kld)
                    {
                        best = Some(found);
                    }
                }
                match best {
                    Some(best) => Ok(best),
                    None => Err(self.too_little(*ram, *reserve, runs)?),
                }
            }
        }
    }

    /// For each kind of cache the run that takes most, and what it takes beside the tensors: the model is to run in all.
    fn largest(&self, runs: &[Use]) -> Result<Vec<(Use, u64)>> {
        let mut all: Vec<(Use, u64)> = Vec::new();
        for &run in runs {
            let beside = self.beside(run)?;
            match all.iter_mut().find(|r| r.0.kv == run.kv) {
                Some(most) if most.1 >= beside => {}
                Some(most) => *most = (run, beside),
                None => all.push((run, beside)),
            }
        }
        Ok(all)
    }

    /// How types could be smaller, for hints.
    fn smaller(&self) -> &'static str {
        match self.blind {
            true => "--imatrix FILE or --calibration TEXT, with which types below 3 bits may be chosen",
            false => "smaller types in --types",
        }
    }

    /// Why nothing fits into a machine, and what would.
    fn too_little(&self, ram: u64, given: Option<u64>, runs: &[Use]) -> Result<Error> {
        let weights = self.smallest() - self.header();
        let all = self.largest(runs)?.into_iter().map(|(run, beside)| (weights + beside, run));
        let need = all.min_by_key(|n| n.0);
        let reserve = given.unwrap_or_else(|| memory::reserve(ram));
        let Some((need, run)) = need else { return Ok(Error::usage("there is no way to run it")) };
        let bytes = text::bytes;
        let why = format!(
            "{} less {} for the system is too little: the smallest that can be run needs {} ({} of weights, {} of keys and \
             values for {} tokens as {}, {} for the rest)",
            bytes(ram),
            bytes(reserve),
            bytes(need),
            bytes(weights),
            bytes(self.memory(run, weights)?.cache),
            run.context,
            run.kv.name(),
            bytes(need - weights - self.memory(run, weights)?.cache),
        );
        // What is left to the system grows with the machine.
        let enough = given.map_or_else(|| memory::enough(need), |reserve| need + reserve);
        let mut ways = vec![format!("--fit {:.1}G or more", enough as f64 / f64::from(1 << 30) + 0.05)];
        // What a context that fits would be, if only that is too much.
        let room = ram.saturating_sub(reserve);
        let fits = |tokens: u64| -> Result<bool> {
            Ok(weights + self.beside(Use { context: tokens, ..run })? <= room)
        };
        let (mut least, mut most) = (0, run.context / 256);
        while least < most {
            let middle = (least + most).div_ceil(2);
            (least, most) = if fits(middle * 256)? { (middle, most) } else { (least, middle - 1) };
        }
        if least > 0 {
            ways.push(format!("a shorter context (--context {})", least * 256));
        }
        if runs.iter().all(|r| r.kv != KvType::Q8_0) {
            ways.push("--kv q8_0".into());
        }
        ways.push(format!("a smaller --reserve, {}, or a smaller model", self.smaller()));
        Ok(Error::refused(why).or(ways.join("; ")))
    }

    /// What a run takes with so many bytes of tensors.
    ///
    /// # Errors
    /// Settings that do not tell.
    pub fn memory(&self, how: Use, weights: u64) -> Result<Memory> {
        Ok(Memory::of(&self.shape(how)?, weights, how))
    }

    /// The best within so many bytes of files.
    fn within(&self, most: u64, run: Option<Use>, cache_kld: f64) -> Option<Allocation> {
        let found = budget::solve(&self.items, most.checked_sub(self.fixed)?)?;
        let bytes = self.fixed + found.bytes;
        let header = self.header();
        let memory = run.and_then(|run| Some((run, self.memory(run, bytes - header).ok()?)));
        let losses = self.losses.iter().zip(&found.chosen).map(|(l, &i)| l[i]);
        let kld = losses.sum::<f64>() + cache_kld + self.fixed_loss;
        let next = budget::neighbours(&self.items, &found.chosen).map(|c| c.map(|c| self.tell(&c)));
        Some(Allocation {
            goal: Goal::Size(most),
            costs: String::new(),
            scheme: self.scheme(&found),
            types: self.types_of(&found).map(|(n, t)| (n.to_string(), t)).collect(),
            bytes,
            most,
            kld,
            cache_kld,
            // With prices the least of what counts is not the least of what is lost.
            bound: (!self.priced).then_some(kld - (found.loss - found.bound)),
            memory,
            next,
        })
    }

    fn tell(&self, change: &Change) -> String {
        let Change { class, from, to, bytes, .. } = *change;
        let (name, types, losses) = (&self.names[class], &self.types[class], &self.losses[class]);
        let loss = losses[to] - losses[from];
        let size = text::bytes(bytes.unsigned_abs());
        let sign = if bytes < 0 { '−' } else { '+' };
        let (from, to) = (types[from].name(), types[to].name());
        format!("{name} {from} → {to}: {sign}{size}, KL divergence {loss:+.6}")
    }

    /// The types of a solution, by tensor.
    pub fn types_of<'a>(&'a self, found: &'a Solution) -> impl Iterator<Item = (&'a str, DType)> {
        self.names.iter().zip(&self.types).zip(&found.chosen).map(|((n, t), &i)| (n.as_str(), t[i]))
    }

    /// A solution as rules, by kinds of tensors: those of layers are named by their numbers.
    pub fn scheme(&self, found: &Solution) -> Scheme {
        let mut weights: Vec<(DType, u64)> = Vec::new();
        let mut kinds: Vec<Kind> = Vec::new();
        let mut single: Vec<(&str, DType)> = Vec::new();
        for (i, (name, dtype)) in self.types_of(found).enumerate() {
            let info = dtype.info();
            let size = self.items[i][found.chosen[i]].bytes / info.bytes as u64 * info.weights as u64;
            match weights.iter_mut().find(|w| w.0 == dtype) {
                Some(w) => w.1 += size,
                None => weights.push((dtype, size)),
            }
            let Some(Blk { layer, part }) = Blk::parse(name) else {
                single.push((name, dtype));
                continue;
            };
            let kind = match kinds.iter().position(|k| k.0 == part) {
                Some(k) => k,
                None => {
                    kinds.push((part, Vec::new()));
                    kinds.len() - 1
                }
            };
            let of = &mut kinds[kind].1;
            match of.iter_mut().find(|t| t.0 == dtype) {
                Some(t) => t.1.push(layer),
                None => of.push((dtype, vec![layer])),
            }
        }
        let base = weights.iter().max_by_key(|w| w.1).map_or(DType::F16, |w| w.0);
        let exact = |name: &str, dtype| rule(&format!("^{}$", regex::escape(name)), dtype);
        let mut rules: Vec<Rule> = self.decided.iter().map(|(name, dtype)| exact(name, *dtype)).collect();
        for (name, dtype) in single {
            rules.push(exact(name, dtype));
        }
        for (part, types) in kinds {
            let part = regex::escape(part);
            // The type that most layers have comes last, for all that are left.
            let most = (0..types.len()).max_by_key(|&i| types[i].1.len()).unwrap_or(0);
            for (i, (dtype, layers)) in types.iter().enumerate() {
                if i != most {
                    let all: Vec<String> = layers.iter().map(u64::to_string).collect();
                    let all = if let [one] = &all[..] { one.clone() } else { format!("({})", all.join("|")) };
                    rules.push(rule(&format!(r"^blk\.{all}\.{part}$"), *dtype));
                }
            }
            rules.push(rule(&format!(r"^blk\.\d+\.{part}$"), types[most].0));
        }
        Scheme { name: NAME.into(), aliases: Vec::new(), base, file_type: None, rules }
    }
}

fn rule(name: &str, dtype: DType) -> Rule {
    let name = Some(Regex::new(name).expect("an escaped name is a pattern"));
    Rule { roles: vec![], name, layers: None, count_tensors: false, when: vec![], to: Choice::To(dtype) }
}

/// Chooses, and plans with that; `options` get the scheme. What goes with weights (headers of splits, settings, biases)
/// depends on the types as well, so what it takes is looked up and the choice made again, until it holds.
///
/// # Errors
/// What planning refuses; a goal that nothing reaches.
pub fn settle(
    source: &Source,
    options: &mut PlanOptions,
    mut choices: Choices,
    goal: &Goal,
    sensitivity: &Sensitivity,
) -> Result<(Allocation, Plan)> {
    /// Far more often than it takes: each time the rest is what it was for nearly the same choice.
    const ROUNDS: usize = 8;
    for round in 0..ROUNDS {
        let mut allocation = choices.fit(goal, sensitivity)?;
        (allocation.goal, allocation.costs) = (goal.clone(), sensitivity.summary());
        options.scheme = Some(allocation.scheme.clone().into());
        let plan = plan::plan(source, options)?;
        let tensor = |name: &str| plan.layout.tensors.iter().find(|t| t.name == name);
        for (name, dtype) in &allocation.types {
            if tensor(name).is_none_or(|t| t.encoding != Encoding::Blocks(*dtype)) {
                return Err(Error::refused(format!("{name} does not become {}", dtype.name())));
            }
        }
        let free: u64 = allocation.bytes - choices.fixed;
        if plan.bytes() == allocation.bytes || round + 1 == ROUNDS && plan.bytes() <= allocation.most {
            allocation.bytes = plan.bytes();
            return Ok((allocation, plan));
        }
        let tensors: u64 = plan.layout.tensors.iter().map(|t| t.location.len).sum();
        choices.fixed_tensors = tensors.saturating_sub(free);
        // What is rounded up in a round before must not swing back and forth.
        let fixed = plan.bytes().saturating_sub(free);
        choices.fixed = if round + 2 < ROUNDS { fixed } else { fixed.max(choices.fixed) };
    }
    Err(Error::refused("no choice was found whose files are as large as they should be")
        .or("ask for a little less"))
}

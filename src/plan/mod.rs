//! The second stage: what every tensor becomes, why, and where it goes. All sizes are known here, before the
//! first weight is read.

pub(crate) mod bias;
mod container;
pub mod edit;
mod machine;
pub mod rounding;
pub mod scales;
#[cfg(test)]
mod snapshots;
mod steps;
pub mod ternary;

pub use crate::scheme::{Choice, Container};
pub use container::{container, is_folder};

use std::path::PathBuf;
use std::sync::Arc;

use formats::block::{DType, Encode};
use formats::container::gguf::{self, Split};
use formats::container::{Layout, llama2c, safetensors};
use formats::metadata::{Metadata, Value};
use formats::model::{ByteOrder, Encoding, Format, Location, Model, Tensor};
use regex::Regex;

use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::scheme::{Scheme, is_integer};
use crate::source::Source;
use edit::Edit;
use rounding::{Rounding, Search};
use scales::Scale;

/// What the user asks for.
#[derive(Debug, Clone, Default)]
pub struct PlanOptions {
    /// Where the result goes.
    pub out: PathBuf,
    /// The container, if not by the ending of `out`.
    pub container: Option<Container>,
    /// The scheme; `None` keeps every type that the container can hold.
    pub scheme: Option<Arc<Scheme>>,
    /// Rules that come before the scheme's, in order.
    pub tensors: Vec<(Regex, Choice)>,
    /// For the output matrix.
    pub output: Option<Choice>,
    /// For the embedding.
    pub embedding: Option<Choice>,
    /// The scheme's base type for output and embedding too.
    pub pure: bool,
    /// Fail where a row is no multiple of the block, rather than fall back.
    pub strict: bool,
    /// Quantize what is quantized already.
    pub allow_requantize: bool,
    /// Make ternary types of weights that are not ternary.
    pub force: bool,
    /// Whether the importance of weights is known: some rules ask.
    pub importance: bool,
    /// The byte order; the source's if not given.
    pub order: Option<ByteOrder>,
    /// The alignment of tensor data in a GGUF.
    pub align: Option<u32>,
    /// How to cut the result into files.
    pub split: Split,
    /// Changes of metadata, in order.
    pub edits: Vec<Edit>,
    /// The version of a llama2.c checkpoint, if not by its types.
    pub bin_version: Option<u32>,
    /// The largest group of a llama2.c version 2 checkpoint; 64 if not given.
    pub group_size: Option<u32>,
    /// How weights are rounded where they are quantized.
    pub rounding: Rounding,
    /// What the result is for.
    pub machine: Option<&'static Machine>,
}

/// What becomes of one tensor.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its index in the source.
    pub source: usize,
    /// The encoding that it had.
    pub from: Encoding,
    /// The rule that chose the new one.
    pub rule: String,
    /// The type that was wanted, where the block did not divide the row.
    pub wanted: Option<DType>,
}

/// Everything about the result but its weights.
pub struct Plan {
    /// The container.
    pub target: Container,
    /// A folder that is to be made for the files.
    pub folder: Option<PathBuf>,
    /// The byte order.
    pub order: ByteOrder,
    /// Settings as written.
    pub metadata: Metadata,
    /// One for each tensor of the layout.
    pub steps: Vec<Step>,
    /// What encoders are told.
    pub search: Search,
    /// Tensors that are divided by a number of their own before they are encoded.
    pub scales: Vec<Scale>,
    /// Where everything goes.
    pub layout: Layout,
    /// The files of the layout.
    pub paths: Vec<PathBuf>,
    /// Small files beside them.
    pub extra: Vec<(PathBuf, Vec<u8>)>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// What to do with the result on the machine that it is for.
    pub run_hint: Option<String>,
}

impl Plan {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        let layout: u64 = self.layout.files.iter().map(|f| f.len).sum();
        layout + self.extra.iter().map(|f| f.1.len() as u64).sum::<u64>()
    }

    /// Bits of tensor data for each weight.
    pub fn bits_per_weight(&self) -> f64 {
        let weights: u64 = self.layout.tensors.iter().map(Tensor::elements).sum();
        let bytes: u64 = self.layout.tensors.iter().map(|t| t.location.len).sum();
        if weights == 0 { 0.0 } else { 8.0 * bytes as f64 / weights as f64 }
    }
}

/// Makes the plan.
///
/// # Errors
/// What the target cannot hold, a quantized source without leave, with `strict` a row that no block divides, a
/// pattern that matches nothing.
pub fn plan(source: &Source, options: &PlanOptions) -> Result<Plan> {
    let model = &source.model;
    let target = container(model, options)?;
    let mut notes = model.notes.clone();
    let mut metadata = model.metadata.clone();
    if source.export.is_some() && !options.edits.is_empty() {
        return Err(Error::usage(
            "a checkpoint's settings are in its config.json, which --set does not reach",
        )
        .or("change config.json in the result, or set the value in a GGUF first and convert that"));
    }
    for edit in &options.edits {
        edit.apply(&mut metadata)?;
    }

    let (steps, tensors): (Vec<_>, Vec<_>) = match target {
        Container::Llama2c | Container::Expansion => {
            container::llama2c_steps(model, options, &metadata, &mut notes)?
        }
        _ => steps::steps(source, options, target, &metadata)?,
    }
    .into_iter()
    .unzip();
    let (steps, tensors) = match options.rounding.bias {
        true => bias::add(source, target, steps, tensors)?,
        false => (steps, tensors),
    };
    let (steps, tensors, scales) = scales::adjust(source, target, steps, tensors);
    if options.strict {
        refuse_fallbacks(&steps, &tensors)?;
    }
    check_sources(model, options, &steps, &tensors)?;
    if !source.weightless {
        ternary::refuse_others(source, options.force, &steps, &tensors)?;
    }
    notes.extend(steps::blind(options, &steps, &tensors));
    let search = rounding::search(&options.rounding, &steps, &tensors, &mut notes)?;

    if target == Container::Safetensors {
        container::refuse_packed(&tensors)?;
    }
    let order = match target {
        Container::Safetensors | Container::Expansion => ByteOrder::Little,
        _ => options.order.or(options.machine.map(|m| m.order)).unwrap_or(model.order),
    };
    if target == Container::Gguf {
        container::gguf_metadata(source, options, &steps, &tensors, &mut metadata, &mut notes)?;
        rounding::gguf_metadata(&search, &options.edits, &mut metadata);
    }
    let (mut layout, paths, extra) =
        container::place(source, options, target, order, &metadata, &tensors, &mut notes)?;
    container::keep_tables(source, order, &mut layout)?;
    container::refuse_own_source(source, paths.iter().chain(extra.iter().map(|f| &f.0)))?;
    if target == Container::Safetensors {
        container::refuse_old_index(&paths, &extra)?;
    }
    let folder =
        (options.out.to_string_lossy().ends_with('/') && !options.out.exists()).then(|| options.out.clone());
    let mut plan = Plan {
        target,
        folder,
        order,
        metadata,
        steps,
        search,
        scales,
        layout,
        paths,
        extra,
        notes,
        run_hint: None,
    };
    if let Some(machine) = options.machine {
        machine::check(machine, &mut plan)?;
        plan.run_hint = machine::run_hint(machine, &plan);
    }
    Ok(plan)
}

/// The type of a vector that is kept as it is, between worlds that want different types of it: GGUF's runtimes take
/// f32 only, and Hugging Face's checkpoints have one type for all, where that loses nothing.
fn keep_vector(source: &Source, i: usize, d: DType, target: Container, main: Option<DType>) -> Result<DType> {
    let float = matches!(d, DType::F16 | DType::BF16 | DType::F64);
    match (target, main) {
        (Container::Gguf, _) if source.hub.is_some() && float => Ok(DType::F32),
        (Container::Safetensors, Some(main @ (DType::F16 | DType::BF16)))
            if source.export.is_some() && d == DType::F32 =>
        {
            let n = source.model.tensors[i].elements();
            let (mut x, mut back) = (vec![0f32; n as usize], vec![0f32; n as usize]);
            source.fetch(i, 0..n)?.decode(&source.model.tensors[i].name, source.model.order, &mut x)?;
            let codec = kernels::codec(main).expect("floats have codecs");
            let mut bytes = vec![0u8; main.bytes_for(n).expect("floats of any number have a size") as usize];
            codec.encode(&x, &Encode::default(), &mut bytes);
            codec.decode(&bytes, &mut back);
            Ok(if x == back { main } else { d })
        }
        _ => Ok(d),
    }
}

fn refuse_fallbacks(steps: &[Step], tensors: &[Tensor]) -> Result<()> {
    let mut rows: Vec<(DType, u64, Vec<&str>)> = Vec::new();
    for (step, t) in steps.iter().zip(tensors) {
        let Some(wanted) = step.wanted else { continue };
        match rows.iter_mut().find(|r| (r.0, r.1) == (wanted, t.cols())) {
            Some(r) => r.2.push(&t.name),
            None => rows.push((wanted, t.cols(), vec![&t.name])),
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let lines = rows.iter().map(|(wanted, cols, names)| {
        let (block, first, more) = (wanted.info().weights, names[0], names.len() - 1);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!(
            "rows of {cols} are no multiple of {} weights, the block of {}: {first}{more}",
            block,
            wanted.name()
        )
    });
    Err(Error::refused(lines.collect::<Vec<_>>().join("; "))
        .or("leave out --strict to see what they become, or give them a type with --tensor"))
}

/// Whatever is to change must be decodable, and may be quantized again only with leave.
fn check_sources(model: &Model, options: &PlanOptions, steps: &[Step], tensors: &[Tensor]) -> Result<()> {
    for (step, t) in steps.iter().zip(tensors).filter(|(s, t)| s.from != t.encoding) {
        let (name, from, to) = (&model.tensors[step.source].name, step.from.name(), t.encoding.name());
        if let Encoding::Blocks(dtype) = step.from
            && (kernels::codec(dtype).is_none() || is_integer(dtype))
        {
            return Err(Error::refused(format!(
                "tensor {name} is {from}, which can be copied but not turned into {to}"
            ))
            .or("leave it as it is (--tensor REGEX=keep), or start from a file whose weights are floats"));
        }
        // From one ternary type to another the codes stay.
        let both_ternary = ternary::is_ternary(step.from) && ternary::is_ternary(t.encoding);
        let again = !step.from.is_plain() && !t.encoding.is_plain() && !both_ternary;
        if again && !options.allow_requantize {
            return Err(Error::refused(format!(
                "tensor {name} is quantized already ({from}); making {to} of it adds the errors of both"
            ))
            .or("start from the original weights, or say --allow-requantize"));
        }
    }
    Ok(())
}

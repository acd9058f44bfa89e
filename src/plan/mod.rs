//! The second stage: what every tensor becomes, why, and where it goes. All sizes are known here, before the
//! first weight is read.

pub mod edit;
pub mod rounding;
pub mod scales;
pub mod scheme;
mod target;

pub use target::{is_folder, target};

use std::path::PathBuf;

use formats::block::{DType, Encode};
use formats::container::gguf::{self, Split};
use formats::container::{Layout, llama2c, safetensors};
use formats::metadata::{Metadata, Value};
use formats::model::{ByteOrder, Encoding, Format, Model, Place, Tensor};
use regex::Regex;

use crate::error::{Error, Result};
use crate::kernels;
use crate::source::Source;
use edit::Edit;
use rounding::{Rounding, Search};
use scales::Scale;
use scheme::{Role, Scheme, role};

/// A type, or what the source has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The source's type.
    Keep,
    /// This type.
    To(DType),
}

/// The container that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `.gguf`.
    Gguf,
    /// `.safetensors`, or a folder of them with an index.
    Safetensors,
    /// llama2.c's `.bin`, with its tokenizer beside it.
    Llama2c,
}

/// What the user asks for.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Where the result goes.
    pub out: PathBuf,
    /// The container, if not by the ending of `out`.
    pub target: Option<Target>,
    /// The scheme; `None` keeps every type that the container can hold.
    pub scheme: Option<&'static Scheme>,
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
    pub target: Target,
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
        let bytes: u64 = self.layout.tensors.iter().map(|t| t.place.len).sum();
        if weights == 0 { 0.0 } else { 8.0 * bytes as f64 / weights as f64 }
    }
}

/// Makes the plan.
///
/// # Errors
/// What the target cannot hold, a quantized source without leave, with `strict` a row that no block divides, a
/// pattern that matches nothing.
pub fn plan(source: &Source, wishes: &Wishes) -> Result<Plan> {
    let model = &source.model;
    let target = target(model, wishes)?;
    let mut notes = model.notes.clone();
    let mut metadata = model.metadata.clone();
    if source.export.is_some() && !wishes.edits.is_empty() {
        return Err(Error::usage(
            "a checkpoint's settings are in its config.json, which --set does not reach",
        )
        .or("change config.json in the result, or set the value in a GGUF first and convert that"));
    }
    for edit in &wishes.edits {
        edit.apply(&mut metadata)?;
    }

    let (steps, tensors): (Vec<_>, Vec<_>) = match target {
        Target::Llama2c => target::llama2c_steps(model, wishes, &metadata, &mut notes)?,
        _ => steps(source, wishes, target)?,
    }
    .into_iter()
    .unzip();
    let (steps, tensors, scales) = scales::adjust(source, target, steps, tensors);
    if wishes.strict {
        refuse_fallbacks(&steps, &tensors)?;
    }
    check_sources(model, wishes, &steps, &tensors)?;
    let search = rounding::search(&wishes.rounding, &steps, &tensors, &mut notes)?;

    if target == Target::Safetensors {
        target::refuse_packed(&tensors)?;
    }
    let order = match target {
        Target::Safetensors => ByteOrder::Little,
        _ => wishes.order.unwrap_or(model.order),
    };
    if target == Target::Gguf {
        target::gguf_metadata(source, wishes, &steps, &tensors, &mut metadata, &mut notes)?;
        rounding::gguf_metadata(&search, &wishes.edits, &mut metadata);
    }
    let (mut layout, paths, extra) =
        target::place(source, wishes, target, order, &metadata, &tensors, &mut notes)?;
    target::keep_tables(source, order, &mut layout)?;
    target::refuse_own_source(source, paths.iter().chain(extra.iter().map(|f| &f.0)))?;
    if target == Target::Safetensors {
        target::refuse_old_index(&paths, &extra)?;
    }
    let folder =
        (wishes.out.to_string_lossy().ends_with('/') && !wishes.out.exists()).then(|| wishes.out.clone());
    Ok(Plan { target, folder, order, metadata, steps, search, scales, layout, paths, extra, notes })
}

/// The rules for what no scheme quantizes.
const VECTOR: &str = "vector";
const EXEMPT: &str = "never quantized";

const KEPT: &str = "kept";

/// The type of a vector that is kept as it is, between worlds that want different types of it: GGUF's runtimes take
/// f32 only, and Hugging Face's checkpoints have one type for all, where that loses nothing.
fn keep_vector(source: &Source, i: usize, d: DType, target: Target, main: Option<DType>) -> Result<DType> {
    let float = matches!(d, DType::F16 | DType::BF16 | DType::F64);
    match (target, main) {
        (Target::Gguf, _) if source.hub.is_some() && float => Ok(DType::F32),
        (Target::Safetensors, Some(main @ (DType::F16 | DType::BF16)))
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

/// Applies the rules, in order: `--tensor`, the exempt, output and embedding, the scheme's base.
fn steps(source: &Source, wishes: &Wishes, target: Target) -> Result<Vec<(Step, Tensor)>> {
    let model = &source.model;
    let main = target::main_type(&model.tensors);
    let tied = !model.tensors.iter().any(|t| role(&t.name) == Role::Output);
    let mut used = vec![false; wishes.tensors.len()];
    let mut out = Vec::with_capacity(model.tensors.len());
    for (i, t) in model.tensors.iter().enumerate() {
        let (choice, mut rule) = choose(t, wishes, tied, &mut used);
        let left_alone = choice == Choice::Keep && [VECTOR, EXEMPT].contains(&rule.as_str());
        let mut wanted = None;
        let encoding = match choice {
            Choice::Keep => match t.encoding {
                // Only llama2.c's own container has these groups; their values are exact in f32.
                Encoding::Int8Groups { .. } => Encoding::Blocks(DType::F32),
                e => e,
            },
            Choice::To(dtype) => {
                let fits = scheme::fallback(dtype, t.cols());
                wanted = (fits != dtype).then_some(dtype);
                Encoding::Blocks(fits)
            }
        };
        let encoding = match (encoding, wishes.scheme) {
            (Encoding::Blocks(DType::F16 | DType::BF16 | DType::F64), Some(s)) if left_alone => {
                match target {
                    // llama.cpp wants what is never quantized in f32, whatever the matrices are.
                    Target::Gguf => Encoding::Blocks(DType::F32),
                    _ => Encoding::Blocks(s.base),
                }
            }
            (Encoding::Blocks(DType::F32), Some(s)) if left_alone && target == Target::Safetensors => {
                Encoding::Blocks(s.base)
            }
            (Encoding::Blocks(d), None)
                if rule == KEPT && (t.shape.len() < 2 || role(&t.name) == Role::Exempt) =>
            {
                let kept = keep_vector(source, i, d, target, main)?;
                if kept != d {
                    rule = VECTOR.into();
                }
                Encoding::Blocks(kept)
            }
            (e, _) => e,
        };
        let tensor = Tensor { encoding, place: Place::default(), ..t.clone() };
        out.push((Step { source: i, from: t.encoding, rule, wanted }, tensor));
    }
    if let Some(i) = used.iter().position(|u| !u) {
        return Err(Error::usage(format!("--tensor {}: no tensor has such a name", wishes.tensors[i].0)));
    }
    Ok(out)
}

fn choose(t: &Tensor, wishes: &Wishes, tied: bool, used: &mut [bool]) -> (Choice, String) {
    for (i, (pattern, choice)) in wishes.tensors.iter().enumerate() {
        if pattern.is_match(&t.name) {
            used[i] = true;
            return (*choice, format!("--tensor {pattern}"));
        }
    }
    let r = role(&t.name);
    let asked = match r {
        Role::Output => wishes.output.map(|c| (c, "--output-type")),
        Role::Embedding => wishes.embedding.map(|c| (c, "--embedding-type")).or_else(|| {
            let output = wishes.output.filter(|_| tied);
            output.map(|c| (c, "--output-type (the embedding is the output)"))
        }),
        _ => None,
    };
    if let Some((choice, rule)) = asked {
        return (choice, rule.into());
    }
    match (r, wishes.scheme) {
        (_, None) => (Choice::Keep, KEPT.into()),
        _ if t.shape.len() < 2 => (Choice::Keep, VECTOR.into()),
        (Role::Exempt, _) => (Choice::Keep, EXEMPT.into()),
        _ if matches!(t.encoding, Encoding::Blocks(d) if is_integer(d)) => (Choice::Keep, "integers".into()),
        (_, Some(s)) if wishes.pure => (Choice::To(s.base), "pure".into()),
        (Role::Output, Some(s)) => (Choice::To(s.output), "output".into()),
        (Role::Embedding, Some(s)) if tied => (Choice::To(s.output), "embedding that is the output".into()),
        (Role::Embedding, Some(s)) => (Choice::To(s.embedding), "embedding".into()),
        (_, Some(s)) => (Choice::To(s.base), s.name.into()),
    }
}

/// Whether a type holds integers: indices and codes, no weights.
pub(crate) fn is_integer(d: DType) -> bool {
    use DType::{Bool, I8, I16, I32, I64, U8, U16, U32, U64};
    matches!(d, Bool | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64)
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
fn check_sources(model: &Model, wishes: &Wishes, steps: &[Step], tensors: &[Tensor]) -> Result<()> {
    for (step, t) in steps.iter().zip(tensors).filter(|(s, t)| s.from != t.encoding) {
        let (name, from, to) = (&model.tensors[step.source].name, step.from.name(), t.encoding.name());
        if let Encoding::Blocks(dtype) = step.from
            && (kernels::codec(dtype).is_none() || is_integer(dtype))
        {
            return Err(Error::refused(format!(
                "tensor {name} is {from}, which this version can copy but not turn into {to}"
            ))
            .or("start from a file in f32, f16, bf16 or one of q8_0, q5_1, q5_0, q4_1, q4_0, tq1_0, tq2_0"));
        }
        if !step.from.is_plain() && !t.encoding.is_plain() && !wishes.allow_requantize {
            return Err(Error::refused(format!(
                "tensor {name} is quantized already ({from}); making {to} of it adds the errors of both"
            ))
            .or("start from the original weights, or say --allow-requantize"));
        }
    }
    Ok(())
}

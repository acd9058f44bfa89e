//! The second stage: decides each tensor's new type and its place in the output files. All sizes are known here, before
//! the first weight is read.

mod beside;
pub(crate) mod bias;
mod container;
mod decide;
pub mod edit;
mod effect;
mod folder;
mod gone;
mod machine;
mod readable;
pub mod rounding;
pub mod scales;
#[cfg(test)]
mod snapshots;
mod stale;
pub mod ternary;
mod values;

pub use crate::scheme::{Choice, Container};
pub use container::{container, is_folder};

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use formats::block::{DType, Encode};
use formats::container::gguf::{self, Split};
use formats::container::{Layout, llama2c, safetensors};
use formats::metadata::{Metadata, Value};
use formats::model::{ByteOrder, Encoding, Format, Location, Model, Tensor};
use regex::Regex;

use crate::arch::{by_name, ignored_settings_note, rotated, unknown_tensors_note};
use crate::checkpoint;
use crate::disk::{Replaces, ends_in_slash};
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::scheme::{Scheme, is_integer};
use crate::source::Source;
use crate::tokenizer::{doubts, pre_tokenizer_note};
use edit::Edit;
use rounding::{Rounding, Search};
use scales::Scale;

/// What becomes of changes after which programs do not read the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unreadable {
    /// They are refused.
    #[default]
    Refused,
    /// They are refused, by a command that has `--force`.
    RefusedUnlessForced,
    /// They are made all the same.
    Written,
}

/// The options of a conversion.
#[derive(Debug, Clone, Default)]
pub struct PlanOptions {
    /// The output path.
    pub out: PathBuf,
    /// The container; by default it follows from the extension of `out`.
    pub container: Option<Container>,
    /// The scheme; `None` keeps every type that the container can hold.
    pub scheme: Option<Arc<Scheme>>,
    /// `--tensor` rules, which apply before the scheme's; the first match counts.
    pub tensors: Vec<(Regex, Choice)>,
    /// The type of the output matrix, if not the scheme's.
    pub output: Option<Choice>,
    /// The type of the token embedding, if not the scheme's.
    pub embedding: Option<Choice>,
    /// Use the scheme's base type for every matrix, including output and embedding.
    pub pure: bool,
    /// Fail if a row length is not a multiple of the block size, instead of using another type.
    pub strict: bool,
    /// Allow quantizing tensors that are already quantized.
    pub allow_requantize: bool,
    /// Allow ternary types for weights that are not ternary.
    pub force: bool,
    /// Allow replacing the checkpoint in a folder, with all files that belong to it. A single file is always replaced.
    pub overwrite: bool,
    /// Whether the plan is only shown: notes say what would be done.
    pub dry_run: bool,
    /// Whether an importance matrix is used; some rules depend on it.
    pub importance: bool,
    /// The byte order; by default that of the source.
    pub order: Option<ByteOrder>,
    /// The alignment of tensor data in a GGUF, in bytes.
    pub align: Option<u32>,
    /// How to split the result into shards.
    pub split: Split,
    /// Changes of metadata, applied in this order.
    pub edits: Vec<Edit>,
    /// What becomes of changes after which programs do not read the model.
    pub unreadable: Unreadable,
    /// The version of a llama2.c checkpoint; by default it follows from the types.
    pub bin_version: Option<u32>,
    /// The largest group size of a llama2.c version 2 checkpoint, in weights; 64 by default.
    pub group_size: Option<u32>,
    /// How quantized weights are rounded.
    pub rounding: Rounding,
    /// The target machine of `--for`.
    pub machine: Option<&'static Machine>,
}

/// What was decided about one tensor of the result.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The index of the source's tensor.
    pub source: usize,
    /// The source tensor's encoding.
    pub from: Encoding,
    /// The rule that chose the new encoding, in words.
    pub rule: Cow<'static, str>,
    /// The type that the rule chose, if the tensor got another because this type's block does not divide the rows.
    pub fallback_from: Option<DType>,
}

/// A complete description of the result, except for the bytes of its weights.
pub struct Plan {
    /// The path that the user named: a file, or the folder or the stem of several.
    pub out: PathBuf,
    /// The container.
    pub target: Container,
    /// A folder that must be created for the files.
    pub folder: Option<PathBuf>,
    /// The byte order.
    pub order: ByteOrder,
    /// The metadata as it will be written.
    pub metadata: Metadata,
    /// One decision for each tensor of the layout, in the same order.
    pub decisions: Vec<Decision>,
    /// The settings of the encoders.
    pub search: Search,
    /// Tensors with a scale of the whole tensor, by which they are divided before encoding.
    pub scales: Vec<Scale>,
    /// The place of every tensor in the output files.
    pub layout: Layout,
    /// The paths of the layout's files.
    pub paths: Vec<PathBuf>,
    /// Small additional files with their contents.
    pub extra: Vec<(PathBuf, Vec<u8>)>,
    /// What the files take the place of.
    pub replaces: Replaces,
    /// Notes for the user.
    pub notes: Vec<String>,
    /// How to run the result on the target machine.
    pub run_hint: Option<String>,
    /// Whether it is the same model with other metadata or in other pieces, whose weights are not looked at.
    pub copy: bool,
}

impl Plan {
    /// The size of all files in bytes.
    pub fn bytes(&self) -> u64 {
        let layout: u64 = self.layout.files.iter().map(|f| f.len).sum();
        layout + self.extra.iter().map(|f| f.1.len() as u64).sum::<u64>()
    }

    /// Bits per weight: the size of the tensor data over the number of weights.
    pub fn bits_per_weight(&self) -> f64 {
        let weights: u64 = self.layout.tensors.iter().map(Tensor::elements).sum();
        let bytes: u64 = self.layout.tensors.iter().map(|t| t.location.len).sum();
        if weights == 0 { 0.0 } else { 8.0 * bytes as f64 / weights as f64 }
    }
}

/// The plan of a copy, of a model that was opened with the names that its tensors have in its files. In a folder, what has
/// GGUF's names becomes a checkpoint under Hugging Face's, since nothing reads a folder of others; what has names of its own
/// is copied with the settings beside it. Gives the source as it is written.
///
/// # Errors
/// Those of [`plan`] and [`checkpoint::export`].
pub fn copy(mut source: Source, options: &PlanOptions) -> Result<(Source, Plan)> {
    let target = container(&source.model, options)?;
    if target == Container::Safetensors && is_folder(&options.out) && source.has_gguf_names() {
        source = as_checkpoint(source, options)?;
    }
    let mut plan = plan(&source, options)?;
    plan.copy = true;
    Ok((source, plan))
}

/// The source under Hugging Face's names, as a checkpoint that is to be written. Of changes of metadata, only the removal of
/// keys that are not there can be made in one.
///
/// # Errors
/// [`Error::Usage`] for other changes; those of [`checkpoint::export`].
pub fn as_checkpoint(source: Source, options: &PlanOptions) -> Result<Source> {
    let mut metadata = source.model.metadata.clone();
    let mut notes = Vec::new();
    for edit in &options.edits {
        match edit {
            Edit::Remove(key) if metadata.get(key).is_none() => {
                notes.extend(edit.apply(&mut metadata, &source.run)?);
            }
            _ => return Err(no_settings(edit, options)),
        }
    }
    let mut source = checkpoint::export(source)?;
    source.model.notes.extend(notes);
    Ok(source)
}

/// Why a change of metadata cannot be made in a checkpoint.
fn no_settings(edit: &Edit, options: &PlanOptions) -> Error {
    let (option, key) = (edit.option(), edit.keys().next().unwrap_or_default());
    let folder = match is_folder(&options.out) {
        true => format!("{} is a folder, which gets a checkpoint, and ", options.out.display()),
        false => String::new(),
    };
    Error::usage(format!("{option} {key}: {folder}a checkpoint has its settings in config.json")).or(
        "make the change in a GGUF (NEW.gguf), and convert that; or leave it out, and edit config.json in the finished \
         checkpoint",
    )
}

/// Makes the plan.
///
/// # Errors
/// [`Error::Usage`] for options that contradict each other or the model, or a pattern that matches no tensor.
/// [`Error::Refused`] if the target cannot hold the model, if the source is no model or the output folder holds one, if
/// the source is quantized and `allow_requantize` is not set,
/// or, with `strict`, if a block does not divide a row. [`Error::Io`] and [`Error::Format`] if the source cannot be read.
pub fn plan(source: &Source, options: &PlanOptions) -> Result<Plan> {
    let model = &source.model;
    // With edits, it is looked at again when these are made.
    if let Some(machine) = options.machine.filter(|_| options.edits.is_empty()) {
        machine::check_architecture(machine, &model.metadata)?;
    }
    let target = container(model, options)?;
    let mut notes = model.notes.clone();
    let mut metadata = model.metadata.clone();
    // Those that are left were told of when the checkpoint was made.
    let edits = if source.export.is_some() { &[][..] } else { &options.edits };
    let is_removal = |edit: &&Edit| matches!(edit, Edit::Remove(_));
    if let Some(edit) = options.edits.iter().find(|edit| source.export.is_some() && !is_removal(edit)) {
        return Err(no_settings(edit, options));
    }
    if target == Container::Safetensors && !source.filed.is_empty() {
        edit::refuse_settings(source, edits)?;
    }
    for edit in edits {
        notes.extend(edit.apply(&mut metadata, &source.run)?);
    }
    if !edits.is_empty() && options.unreadable != Unreadable::Written {
        notes.extend(readable::check(model, &metadata, edits, options.unreadable)?);
    }
    if target == Container::Gguf {
        notes.extend(rotated(&metadata).map(|key| {
            format!("the weights are stored rotated ({key}): only PrismML's programs compute with them")
        }));
    } else {
        source.refuse_rotated("converted")?;
    }
    if target != Container::Safetensors {
        let named = metadata.get("general.architecture").is_some();
        let same = target == Container::Gguf && options.scheme.is_none();
        source.need_model_to_write(named, same || model.format == Format::Llama2cTokenizer)?;
    }
    notes.extend(doubts(&metadata));
    // Of a change that names a pre-tokenizer, the change's own note speaks.
    let named = |edit: &Edit| edit.keys().any(|key| key == "tokenizer.ggml.pre");
    if !edits.iter().any(named) {
        notes.extend(pre_tokenizer_note(&metadata));
    }
    if target == Container::Gguf {
        notes.extend(unknown_tensors_note(&metadata, &model.tensors));
        notes.extend(ignored_settings_note(&metadata));
    }
    if target == Container::Safetensors && source.export.is_none() && source.has_gguf_names() {
        notes.push(gguf_names(&metadata));
    }

    let (decisions, tensors): (Vec<_>, Vec<_>) = match target {
        Container::Llama2c | Container::Expansion => {
            container::llama2c_decisions(source, options, &metadata, &mut notes)?.into_iter().unzip()
        }
        _ => decide::decisions(source, options, target, &metadata)?,
    };
    if options.pure && target == Container::Gguf {
        let mixed = PlanOptions { pure: false, ..options.clone() };
        let same = |(_, all): (Vec<Decision>, Vec<Tensor>)| {
            all.iter().map(|t| t.encoding).eq(tensors.iter().map(|t| t.encoding))
        };
        if decide::decisions(source, &mixed, target, &metadata).is_ok_and(same) {
            notes.push("--pure has no effect here: every tensor has the type that it has without".into());
        }
    }
    let (decisions, tensors) = match options.rounding.bias {
        true => bias::add(source, target, decisions, tensors)?,
        false => (decisions, tensors),
    };
    let (decisions, tensors, scales) = scales::adjust(source, target, decisions, tensors);
    if options.strict {
        refuse_fallbacks(&decisions, &tensors)?;
    }
    check_sources(model, options, &decisions, &tensors)?;
    if !source.weightless {
        ternary::refuse_others(source, options.force, options.machine, &decisions, &tensors)?;
    }
    notes.extend(decide::missing_importance_note(options, &decisions, &tensors));
    let search = rounding::search(&options.rounding, &decisions, &tensors, &mut notes)?;
    notes.extend(effect::unused_rounding(&options.rounding, &search, &decisions, &tensors));
    notes.extend(effect::unused_types(options, &decisions, &tensors));
    notes.extend(effect::unused_tokenizer(source, options, target));
    notes.extend(effect::misnamed(options, target));

    if target == Container::Safetensors {
        container::refuse_quantized(options, &tensors)?;
    }
    let order = match target {
        Container::Safetensors | Container::Expansion => ByteOrder::Little,
        _ => options.order.or(options.machine.map(|m| m.order)).unwrap_or(model.order),
    };
    stale::settle(options, target, &decisions, &tensors, &mut metadata, &mut notes);
    if target == Container::Gguf {
        container::gguf_metadata(source, options, &decisions, &tensors, &mut metadata, &mut notes)?;
        rounding::gguf_metadata(&search, &options.edits, &mut metadata);
        notes.extend(values::named_types(&options.edits, &metadata, &tensors));
    }
    let place = |metadata: &Metadata, tensors: Vec<Tensor>, notes: &mut Vec<String>| {
        container::place(source, options, target, order, metadata, tensors, notes)
    };
    // What loses no edits is not laid out again.
    let again = if effect::may_lose_edits(options, target) { tensors.clone() } else { Vec::new() };
    let (mut layout, paths, extra) = place(&metadata, tensors, &mut notes)?;
    effect::refuse_lost_edits(source, options, target, &metadata, |metadata| {
        let mut notes = Vec::new();
        let (layout, _, extra) = place(metadata, again.clone(), &mut notes)?;
        Ok(effect::Files::of(layout, extra, notes))
    })?;
    if options.split != Split::None && layout.files.len() == 1 {
        notes.push(
            "the tensors fit into one file of the size that was asked for: the result is not split".into(),
        );
    }
    container::copy_rotary_tables(source, order, &mut layout)?;
    if matches!(target, Container::Llama2c | Container::Expansion) {
        notes.extend(checkpoint::left_out::of_llama2c(&metadata));
    }
    // It would be safe, since files are renamed into their places, but it is never intended.
    paths.iter().chain(extra.iter().map(|f| &f.0)).try_for_each(|path| source.run.refuse_input(path))?;
    let replaces = folder::check(source, options, target, (&paths, &extra), &mut notes)?;
    // What stays in a checkpoint's folder is told with the rest of it.
    if target != Container::Safetensors || !is_folder(&options.out) {
        let gone = replaces.remove.iter().map(PathBuf::as_path);
        notes.extend(beside::note(&paths, source.paths().chain(gone)));
    }
    let folder = (ends_in_slash(&options.out) && !options.out.exists()).then(|| options.out.clone());
    let mut plan = Plan {
        out: options.out.clone(),
        target,
        folder,
        order,
        metadata,
        decisions,
        search,
        scales,
        layout,
        paths,
        extra,
        replaces,
        notes,
        run_hint: None,
        copy: false,
    };
    if let Some(machine) = options.machine {
        machine::check(machine, &mut plan)?;
        plan.run_hint = machine::run_hint(machine, &plan);
    }
    Ok(plan)
}

/// What it means that safetensors have GGUF's names.
fn gguf_names(metadata: &Metadata) -> String {
    let name = metadata.text("general.architecture").unwrap_or_default();
    let checkpoint =
        if by_name(name).is_some() { "; for a checkpoint that it loads, name a folder" } else { "" };
    format!(
        "the tensors keep GGUF's names, under which ggufkit reads them, and transformers does not{checkpoint}"
    )
}

/// The type of a vector that is not quantized. Programs that run GGUF files take f32 alone (llama.cpp's CPU code multiplies
/// norms and adds biases in no other type), so a GGUF gets it whatever the source has, unless that is a GGUF, which is copied
/// as it is. In a Hugging Face checkpoint, all tensors have one type, so the vector gets the main type if that changes no
/// value.
fn keep_vector(source: &Source, i: usize, d: DType, target: Container, main: Option<DType>) -> Result<DType> {
    // Of f64, f32 does not hold every number.
    let exact = matches!(d, DType::F16 | DType::BF16) || d == DType::F64 && source.hub.is_some();
    let copied = matches!(source.model.format, Format::Gguf { .. });
    match (target, main) {
        (Container::Gguf, _) if exact && !copied => Ok(DType::F32),
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

/// Fails if a tensor got another type than its rule's, for `--strict`.
fn refuse_fallbacks(decisions: &[Decision], tensors: &[Tensor]) -> Result<()> {
    let mut rows: Vec<(DType, u64, Vec<&str>)> = Vec::new();
    for (decision, t) in decisions.iter().zip(tensors) {
        let Some(intended) = decision.fallback_from else { continue };
        match rows.iter_mut().find(|r| (r.0, r.1) == (intended, t.cols())) {
            Some(r) => r.2.push(&t.name),
            None => rows.push((intended, t.cols(), vec![&t.name])),
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let lines = rows.iter().map(|(intended, cols, names)| {
        let (block, first, more) = (intended.info().weights, names[0], names.len() - 1);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!(
            "rows of {cols} weights are not a multiple of {block}, the block size of {}: {first}{more}",
            intended.name()
        )
    });
    Err(Error::refused(lines.collect::<Vec<_>>().join("; "))
        .or("leave out --strict to use another type for these tensors, or choose one with --tensor"))
}

/// Checks that tensors whose type changes can be decoded, and are not quantized twice unless that is allowed.
fn check_sources(
    model: &Model,
    options: &PlanOptions,
    decisions: &[Decision],
    tensors: &[Tensor],
) -> Result<()> {
    for (decision, t) in decisions.iter().zip(tensors).filter(|(s, t)| s.from != t.encoding) {
        let (name, from, to) =
            (&model.tensors[decision.source].name, decision.from.name(), t.encoding.name());
        if let Encoding::Blocks(dtype) = decision.from
            && (kernels::codec(dtype).is_none() || is_integer(dtype))
        {
            return Err(Error::refused(format!(
                "tensor {name} is {from}, which can be copied but not converted to {to}"
            ))
            .or("keep its type with --tensor REGEX=keep, or start from a file with float weights"));
        }
        // Conversion between ternary types keeps the codes.
        let both_ternary = ternary::is_ternary(decision.from) && ternary::is_ternary(t.encoding);
        let again = !decision.from.is_plain() && !t.encoding.is_plain() && !both_ternary;
        if again && !options.allow_requantize {
            return Err(Error::refused(format!(
                "tensor {name} is already quantized ({from}); quantizing it again to {to} adds the errors of both"
            ))
            .or("start from the original weights, or add --allow-requantize"));
        }
    }
    Ok(())
}

//! What each container requires of a plan: decisions, metadata, and the layout and names of its files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::stale::FILE_TYPE;
use super::{
    ByteOrder, Choice, Container, DType, Decision, Encoding, Error, Format, Layout, Location, Metadata,
    Model, PlanOptions, Result, Source, Tensor, Value, effect, gguf, llama2c, machine, safetensors,
};
use crate::arch::{self, Made};
use crate::checkpoint;
use crate::disk::{ends_in_slash, is_dash, no_standard_output, part_name, split_stem};
use crate::machine::{Machine, Reads};
use crate::plan::edit::Edit;
use crate::scheme;
use crate::source::view::Values;
use formats::block::{Family, TYPES, i2_s};
use formats::container::part_stem;

/// Whether an output path is a folder: an existing one, or a name that ends in `/`.
pub fn is_folder(out: &Path) -> bool {
    out.is_dir() || ends_in_slash(out)
}

/// Refuses a folder whose name is that of a file, of which the user may not know that it is a folder: `model.gguf/`.
///
/// # Errors
/// [`Error::Usage`].
fn refuse_folder_like_file(out: &Path) -> Result<()> {
    let ending = out.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
    if !["gguf", "safetensors", "bin"].contains(&&*ending) {
        return Ok(());
    }
    let (shown, file) = (out.display(), out.join(format!("model.{ending}")));
    let (why, instead) = match out.is_dir() {
        true => ("is a folder", format!("name a file in it ({})", file.display())),
        false => ("names a folder, by the / at its end", "leave out the / to name a file".into()),
    };
    Err(Error::usage(format!("{shown}: {why}, though it ends in .{ending} like a file"))
        .or(format!("{instead}; for a checkpoint, name a folder without such an ending")))
}

/// The container that the ending of a file's name says.
pub(super) fn by_ending(file: &Path) -> Option<Container> {
    match file.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase).as_deref() {
        Some("gguf") => Some(Container::Gguf),
        Some("safetensors") => Some(Container::Safetensors),
        Some("bin") => Some(Container::Llama2c),
        _ => None,
    }
}

/// The container that is asked for, or that follows from the output's file name extension.
///
/// # Errors
/// [`Error::Usage`] for an unknown extension, and for options that the container or the target machine does not support.
pub fn container(model: &Model, options: &PlanOptions) -> Result<Container> {
    let out = &options.out;
    let folder = is_folder(out);
    let by_extension = match folder {
        true if options.machine.is_some_and(|m| m.container() == Container::Expansion) => {
            Some(Container::Expansion)
        }
        true => Some(Container::Safetensors),
        false => by_ending(out),
    };
    if folder && options.container.is_none() && by_extension == Some(Container::Safetensors) {
        refuse_folder_like_file(out)?;
    }
    let requested = options.container.or(by_extension);
    if let Some(machine) = options.machine
        && requested.is_some_and(|t| t != machine.container())
    {
        let (name, description) = (machine.name, machine.description);
        let out = out.display();
        return Err(Error::usage(format!(
            "{out} is not in a format that --for {name} reads ({description})"
        ))
        .or(match machine.container() {
            Container::Gguf => "use an output name that ends in .gguf",
            Container::Expansion => "use a folder as output, for its three files: OUT/",
            _ => "use an output name that ends in .bin",
        }));
    }
    let target = requested.or(options.machine.map(Machine::container)).ok_or_else(|| {
        let shown = out.display();
        if is_dash(out) {
            return no_standard_output();
        }
        let name = match out.extension() {
            None => format!("an output name that ends in .gguf ({shown}.gguf), .safetensors or .bin"),
            Some(_) => "an output name that ends in .gguf, .safetensors or .bin".into(),
        };
        Error::usage(format!("{shown}: the format is not clear from the file name extension"))
            .or(format!("use {name}; or add --format FORMAT"))
    })?;
    if !folder && target == Container::Expansion {
        let why = format!("the output is three files, so {} must be a folder", out.display());
        return Err(Error::usage(why).or("add a / to the end of the name"));
    }
    if folder && !matches!(target, Container::Safetensors | Container::Expansion) {
        let file = out.join(if target == Container::Gguf { "model.gguf" } else { "model.bin" });
        return Err(Error::usage(format!("{}: is a folder", out.display()))
            .or(format!("name a file in it: {}", file.display())));
    }
    if model.format == Format::Llama2cTokenizer && target != Container::Llama2c {
        return Err(Error::usage("a tokenizer alone can only be converted to another tokenizer.bin")
            .or("to add it to a model, convert the model with --tokenizer FILE"));
    }
    effect::refuse_other_formats(model, options, target)?;
    if options.pure && options.scheme.as_ref().is_some_and(|s| s.rules.iter().any(|r| r.to == Choice::I2S)) {
        return Err(Error::usage(
            "--pure would use the base f16 for every matrix, so none would be i2_s",
        )
        .or("leave out --pure; set the types of output and embedding with --output-type and --embedding-type"));
    }
    if options.order == Some(ByteOrder::Big) && target == Container::Safetensors {
        let why = "--endian big is only for GGUF and llama2.c (safetensors are little-endian by definition)";
        return Err(Error::usage(why));
    }
    if let (Some(machine), Some(order)) = (options.machine, options.order)
        && machine.order != order
    {
        let (name, own, other) = (machine.name, machine.order.name(), order.name());
        return Err(Error::usage(format!(
            "--for {name} needs {own}-endian files, but --endian {other} was given"
        ))
        .or("leave out --endian"));
    }
    Ok(target)
}

/// The version of a llama2.c checkpoint: from the options, the type, or the source.
///
/// # Errors
/// [`Error::Usage`] if `--type`, `--bin-version` and the target machine contradict each other.
fn llama2c_version(model: &Model, options: &PlanOptions) -> Result<u32> {
    if let Some(machine) = options.machine {
        let version = match machine.reads {
            Reads::Llama2c { version, .. } => version,
            _ => 0,
        };
        let float = options.scheme.as_ref().is_none_or(|s| s.base == DType::F32);
        let whole = options.scheme.as_ref().is_none_or(|s| s.base == DType::Q8_0);
        if options.bin_version.is_some_and(|v| v != version) || !(if version == 2 { whole } else { float }) {
            let (name, holds) = (machine.name, if version == 2 { "q8_0" } else { "f32" });
            return Err(Error::usage(format!(
                "--for {name} reads llama2.c version {version}, which holds {holds}"
            ))
            .or("leave out --type, --recipe and --bin-version"));
        }
        return Ok(version);
    }
    let own = match model.format {
        Format::Llama2c { version } => version,
        _ => 0,
    };
    match (options.scheme.as_ref().map(|s| s.base), options.bin_version) {
        (None, version) => Ok(version.unwrap_or(own)),
        (Some(DType::F32), None) => Ok(if own == 1 { 1 } else { 0 }),
        (Some(DType::Q8_0), None | Some(2)) => Ok(2),
        (Some(DType::F32), Some(version @ (0 | 1))) => Ok(version),
        (Some(DType::F32 | DType::Q8_0), Some(_)) => Err(Error::usage(
            "llama2.c versions 0 and 1 hold f32 and version 2 holds q8_0; --type and --bin-version disagree",
        )),
        (Some(other), _) => Err(Error::usage(format!(
            "llama2.c files hold f32 (versions 0 and 1) or q8_0 (version 2), not {}",
            other.name()
        ))),
    }
}

/// The decisions for a llama2.c file, whose matrices all have one type: f32, or int8 groups (version 2, with f32 norms).
///
/// # Errors
/// [`Error::Usage`] for options that set types of single tensors; with `strict`, [`Error::Refused`] if the group size does
/// not divide every row.
pub(super) fn llama2c_decisions(
    source: &Source,
    options: &PlanOptions,
    metadata: &Metadata,
    notes: &mut Vec<String>,
) -> Result<Vec<(Decision, Tensor)>> {
    let model = &source.model;
    if model.format == Format::Llama2cTokenizer {
        return Ok(Vec::new());
    }
    if !options.tensors.is_empty() || options.output.is_some() || options.embedding.is_some() {
        return Err(Error::usage("llama2.c files have one type for all matrices")
            .or("leave out --tensor, --output-type and --embedding-type"));
    }
    let version = llama2c_version(model, options)?;
    let kept = model.tensors.iter().find_map(|t| match t.encoding {
        Encoding::Int8Groups { size } if options.scheme.is_none() => Some(size),
        _ => None,
    });
    effect::refuse_group_size(options, version, kept)?;
    let largest = options.group_size.unwrap_or(64);
    let size = match (version, kept) {
        (2, Some(size)) => size,
        (2, None) => llama2c::group_size(metadata, &model.tensors, largest)?,
        _ => 0,
    };
    if version == 2 && kept.is_none() && size < largest {
        let bits = |size: u32| 8.0 + 32.0 / f64::from(size);
        let (bits, cost) = (bits(size), bits(size) - bits(largest));
        let why = format!("a group size of {largest} does not divide every row");
        if options.strict {
            return Err(Error::refused(why).or(format!("leave out --strict, or add --group-size {size}")));
        }
        notes.push(format!("{why}, so the group size is {size}: {bits:.2} bits per weight ({cost:+.2})"));
    }
    let decision = |(i, t): (usize, &Tensor)| {
        let encoding = match t.shape.len() {
            2 if version == 2 => Encoding::Int8Groups { size },
            _ => Encoding::Blocks(DType::F32),
        };
        let decision = Decision {
            source: i,
            from: t.encoding,
            rule: format!("llama2.c v{version}").into(),
            fallback_from: None,
        };
        (decision, Tensor { encoding, location: Location::default(), ..t.clone() })
    };
    // Programs of old machines know tied embeddings alone, or save the memory of a second matrix.
    let twice = if options.machine.is_some() { source.output_is_embedding()? } else { None };
    if twice.is_some() {
        notes.push(
            "output.weight has the very weights of token_embd.weight: it is left out, and the embeddings are tied".into(),
        );
    }
    Ok(model.tensors.iter().enumerate().filter(|(i, _)| Some(*i) != twice).map(decision).collect())
}

/// Sets the metadata that readers of GGUF expect and that follow from the types. Keys set by the user are not changed.
pub(super) fn gguf_metadata(
    source: &Source,
    options: &PlanOptions,
    decisions: &[Decision],
    tensors: &[Tensor],
    metadata: &mut Metadata,
    notes: &mut Vec<String>,
) -> Result<()> {
    let model = &source.model;
    if let Some(why) = tensors.iter().find_map(gguf::beyond_ggml) {
        notes.push(format!(
            "{why}: llama.cpp and what is built on it do not load the GGUF; programs that such models are made for do"
        ));
    }
    // A copy runs where its source does, which whoever made that may not have said.
    let name = metadata.text("general.architecture").unwrap_or_default();
    if let Some(programs) = arch::by_name(name).and_then(|arch| arch.programs) {
        let mut types: Vec<String> = tensors.iter().map(|t| t.encoding.name()).collect();
        types.sort();
        types.dedup();
        let untied = tensors.iter().any(|t| t.name == "output.weight");
        notes.push(programs(&Made { name, untied, types: &types }));
    }
    // Under bitnet.cpp's own architectures, the architecture's note says so.
    if tensors.iter().any(|t| t.encoding == Encoding::I2S) && !i2_s::ARCHITECTURES.contains(&name) {
        notes.push(
            "i2_s is bitnet.cpp's type: llama.cpp does not load the GGUF; tq2_0 holds the same weights for it".into(),
        );
    }
    let by_user = |key: &str| options.edits.iter().any(|e| matches!(e, Edit::Set(k, _) if k == key));
    if let Some(align) = options.align {
        if by_user(gguf::ALIGNMENT_KEY) {
            return Err(Error::usage("--align and --set general.alignment set the same value")
                .or("leave out one of them"));
        }
        metadata.set(gguf::ALIGNMENT_KEY, Value::U32(align));
    }
    let from_gguf = matches!(model.format, Format::Gguf { .. });
    // Layouts of other programs become those of ggml even in a copy.
    let repacked = source.views.iter().flatten().any(|v| matches!(v.values, Values::Repacked(_)));
    let changed = repacked || decisions.iter().zip(tensors).any(|(s, t)| s.from != t.encoding);
    if from_gguf && !changed && options.scheme.is_none() {
        return Ok(()); // a plain copy stays identical byte by byte
    }
    if metadata.get("general.architecture").is_none() {
        notes.push(
            "the source does not name its architecture (general.architecture is missing), so tensors keep their names and \
             llama.cpp will not run the GGUF; --set general.architecture=NAME adds a name"
                .into(),
        );
    } else if metadata.get("tokenizer.ggml.model").is_none() && matches!(model.format, Format::Llama2c { .. })
    {
        metadata.set("tokenizer.ggml.model", Value::text("no_vocab"));
        notes.push(
            "the file has no vocabulary; add the checkpoint's tokenizer.bin or tokenizer.model with --tokenizer to include one"
                .into(),
        );
    }
    // What was f64 is told below, and integers are no norms or biases.
    let is_odd =
        |dtype: DType| !matches!(dtype, DType::F32 | DType::F64) && dtype.info().family != Family::Integer;
    let odd =
        |t: &&Tensor| t.shape.len() < 2 && matches!(t.encoding, Encoding::Blocks(dtype) if is_odd(dtype));
    let mut odd = tensors.iter().filter(odd);
    if let Some(first) = odd.next() {
        let others = match odd.count() {
            0 => String::new(),
            n => format!(" and {n} more norms or biases"),
        };
        notes.push(format!(
            "{}{others} are {}, and llama.cpp computes with these in f32 alone; --tensor NAME=f32 gives them f32",
            first.name,
            first.encoding.name()
        ));
    }
    if source.hub.is_some() && tensors.iter().any(|t| t.encoding == Encoding::Blocks(DType::F64)) {
        notes.push("the weights stay f64, with which llama.cpp cannot compute; use --type f32".into());
    }
    let quantized = tensors.iter().any(|t| !t.encoding.is_plain());
    if (quantized || source.hub.is_some()) && !by_user("general.quantization_version") {
        metadata.set("general.quantization_version", Value::U32(2));
    }
    let named = match &options.scheme {
        Some(scheme) => scheme.file_type(),
        None if mostly_i2_s(tensors) => scheme::by_name(scheme::I2_S).and_then(|s| s.file_type()),
        None => main_type(tensors).and_then(scheme::file_type),
    };
    match named {
        _ if by_user(FILE_TYPE) => {}
        Some(file_type) => metadata.set(FILE_TYPE, Value::U32(file_type)),
        // llama.cpp has no number for it, and the source's is that of other types.
        None => drop(metadata.remove(FILE_TYPE)),
    }
    Ok(())
}

/// Whether more weights are I2_S than all other types together.
fn mostly_i2_s(tensors: &[Tensor]) -> bool {
    let (own, others): (Vec<_>, Vec<_>) = tensors.iter().partition(|t| t.encoding == Encoding::I2S);
    let weights = |tensors: &[&Tensor]| tensors.iter().map(|t| t.elements()).sum::<u64>();
    weights(&own) > weights(&others)
}

/// The block type that most weights have.
pub(super) fn main_type(tensors: &[Tensor]) -> Option<DType> {
    let weights = |d: DType| -> u64 {
        tensors.iter().filter(|t| t.encoding == Encoding::Blocks(d)).map(Tensor::elements).sum()
    };
    TYPES.iter().map(|t| t.dtype).max_by_key(|&d| weights(d)).filter(|&d| weights(d) > 0)
}

type Placed = (Layout, Vec<PathBuf>, Vec<(PathBuf, Vec<u8>)>);

/// Lays out the output files and names them. The tensors are given away: there may be a million.
///
/// # Errors
/// [`Error::Format`] if the container cannot hold the model.
pub(super) fn place(
    source: &Source,
    options: &PlanOptions,
    target: Container,
    order: ByteOrder,
    metadata: &Metadata,
    tensors: Vec<Tensor>,
    notes: &mut Vec<String>,
) -> Result<Placed> {
    let model = &source.model;
    let out = &options.out;
    let name = out.display().to_string();
    match target {
        Container::Gguf => {
            let layout =
                gguf::layout_of(&name, metadata, tensors, gguf::Options { order, split: options.split })?;
            let count = layout.files.len();
            let paths = match count {
                1 => vec![out.clone()],
                _ => (0..count)
                    .map(|i| out.with_file_name(part_name(file_name(out), i, count, "gguf")))
                    .collect(),
            };
            Ok((layout, paths, Vec::new()))
        }
        Container::Safetensors => {
            let folder = is_folder(out);
            let (dir, stem) = match folder {
                true => (out.clone(), "model".to_string()),
                false => (out.parent().unwrap_or(Path::new("")).to_path_buf(), stem(out)),
            };
            if options.split != gguf::Split::None && stem.contains(char::REPLACEMENT_CHARACTER) {
                let why = format!("{name}: an index names its shards in UTF-8, which this name is not");
                return Err(Error::refused(why).or("name the shards in UTF-8, or write a .gguf"));
            }
            let names = |i: usize, count: usize| match count {
                1 if folder => "model.safetensors".to_string(),
                1 => out.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                _ => format!("{}.safetensors", part_stem(&stem, i, count)),
            };
            let options = safetensors::Options { split: options.split };
            let layout = safetensors::layout(&name, metadata, &tensors, options, &names)?;
            let count = layout.files.len();
            let names: Vec<_> = (0..count).map(|i| names(i, count)).collect();
            let mut extra = Vec::new();
            if count > 1 {
                let index = dir.join(format!("{stem}.safetensors.index.json"));
                extra.push((index, safetensors::index(&layout, &names)));
            }
            if let Some(export) = source.export.as_ref().filter(|_| folder) {
                let main = main_type(&tensors).unwrap_or(DType::F32);
                extra.extend(export.files.iter().map(|(name, bytes)| (dir.join(name), bytes.clone())));
                // Last, because config.json makes the folder a checkpoint: if the run is interrupted while the files
                // get their names, the incomplete folder is not one.
                extra.push((dir.join(checkpoint::CONFIG), export.config_json(main)));
            } else if folder {
                // The same checkpoint with its tensors in other files. The settings are the last of these, too.
                extra.extend(
                    checkpoint::copied(source, notes)?
                        .into_iter()
                        .map(|(name, bytes)| (dir.join(name), bytes)),
                );
            }
            let paths = match count {
                1 if !folder => vec![out.clone()],
                _ => names.iter().map(|n| dir.join(n)).collect(),
            };
            Ok((layout, paths, extra))
        }
        Container::Expansion => {
            notes.extend(tokenizer_notes(metadata));
            expansion(options, metadata, &tensors)
        }
        Container::Llama2c if model.format == Format::Llama2cTokenizer => {
            let bytes = llama2c::tokenizer::write(&name, metadata, order)?;
            notes.extend(tokenizer_notes(metadata));
            Ok((Layout { files: Vec::new(), tensors: Vec::new() }, Vec::new(), vec![(out.clone(), bytes)]))
        }
        Container::Llama2c => {
            let version = llama2c_version(model, options)?;
            let fork = options.machine.is_some_and(|m| matches!(m.reads, Reads::Llama2c { fork: true, .. }));
            let options = llama2c::Options { fork, ..llama2c::Options::new(version, order) };
            let layout = llama2c::layout(&name, metadata, &tensors, options).map_err(|e| {
                let shorter = if_shorter(metadata, |shorter| {
                    llama2c::layout(&name, shorter, &tensors, options).is_ok()
                });
                Error::refused(e.to_string()).or(format!(
                    "{shorter}use a model that llama2.c can hold, a plain Llama; a GGUF can hold others"
                ))
            })?;
            let mut extra = Vec::new();
            let has_tokens = metadata.get("tokenizer.ggml.tokens").is_some();
            match metadata.text("tokenizer.ggml.model").filter(|_| has_tokens) {
                None | Some("no_vocab") if matches!(model.format, Format::Llama2c { .. }) => {}
                None | Some("no_vocab") => {
                    notes.push("the source has no vocabulary, so there is no tokenizer.bin".into());
                }
                Some(_) => {
                    notes.extend(tokenizer_notes(metadata));
                    let mut tokenizer = split_stem(file_name(out));
                    tokenizer.push("-tokenizer.bin");
                    let path = out.with_file_name(tokenizer);
                    extra.push((path, llama2c::tokenizer::write(&name, metadata, order)?));
                }
            }
            Ok((layout, vec![out.clone()], extra))
        }
    }
}

/// Notes on what programs that read a tokenizer.bin make of a vocabulary.
fn tokenizer_notes(metadata: &Metadata) -> Vec<String> {
    let bytes = llama2c::tokenizer::without_bytes(metadata).then(|| {
        "the vocabulary has no tokens for bytes: llama2.c gives characters without a token wrong ids".into()
    });
    let said = [llama2c::tokenizer::unsaid(metadata), llama2c::tokenizer::special(metadata)];
    bytes.into_iter().chain(said.into_iter().flatten()).collect()
}

/// The beginning of a hint for a model that would fit with a shorter context; `fits` is given the metadata with one.
fn if_shorter(metadata: &Metadata, fits: impl Fn(&Metadata) -> bool) -> String {
    // Layouts have tables with a row for each token.
    const MOST: u64 = 1 << 20;
    let seq = metadata.get("llama.context_length").and_then(Value::as_u64).unwrap_or(0).min(MOST);
    let with = |context: u128| {
        let mut shorter = metadata.clone();
        shorter.set("llama.context_length", Value::U32(context.try_into().unwrap_or(u32::MAX)));
        fits(&shorter)
    };
    machine::shorter_context(machine::longest_context(seq.into(), with))
}

/// Lays out the three files for a memory expansion.
fn expansion(options: &PlanOptions, metadata: &Metadata, tensors: &[Tensor]) -> Result<Placed> {
    let out = &options.out;
    let weights = match options.machine.map(|m| m.reads) {
        Some(Reads::Expansion { weights }) => weights,
        _ => "weights.reu",
    };
    let name = out.display().to_string();
    let made = llama2c::expansion(&name, metadata, tensors).map_err(|e| {
        let hint = if metadata.get("tokenizer.ggml.tokens").is_none() {
            "add --tokenizer FILE with the model's tokenizer.bin: these machines get it converted".into()
        } else {
            let shorter = if_shorter(metadata, |m| llama2c::expansion(&name, m, tensors).is_ok());
            format!("{shorter}use a smaller model with tied embeddings, such as stories260K")
        };
        Error::refused(e.to_string()).or(hint)
    })?;
    let extra = vec![(out.join("config.bin"), made.config), (out.join("tokenizer.bin"), made.tokenizer)];
    Ok((made.layout, vec![out.join(weights)], extra))
}

/// Copies the tables of rotary frequencies from one llama2.c version 0 file to another instead of computing them again.
/// They are not tensors.
///
/// # Errors
/// [`Error::Io`] if the source cannot be read.
pub(super) fn copy_rotary_tables(source: &Source, order: ByteOrder, layout: &mut Layout) -> Result<()> {
    let model = &source.model;
    let (Format::Llama2c { version: 0 }, [file]) = (model.format, &mut layout.files[..]) else {
        return Ok(());
    };
    let same_places = model.tensors.iter().zip(&layout.tensors).all(|(a, b)| a.location == b.location);
    if file.len == source.files[0].len && same_places {
        for (offset, bytes) in file.fixed.iter_mut().filter(|(offset, _)| *offset > 0) {
            *bytes = source.files[0].read(*offset, bytes.len() as u64)?.into_owned();
            if order != model.order {
                DType::F32.swap(bytes);
            }
        }
    }
    Ok(())
}

/// The last part of a path.
fn file_name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

/// The file name without its extension and without a shard number, as text.
pub(super) fn stem(path: &Path) -> String {
    split_stem(file_name(path)).to_string_lossy().into_owned()
}

/// Refuses quantized types in safetensors, which has none.
pub(super) fn refuse_quantized(options: &PlanOptions, tensors: &[Tensor]) -> Result<()> {
    let supported = |e| matches!(e, Encoding::Blocks(d) if d.info().safetensors.is_some());
    let Some(t) = tensors.iter().find(|t| !supported(t.encoding)) else { return Ok(()) };
    let decodable = match t.encoding {
        Encoding::Blocks(d) => kernels::codec(d).is_some(),
        Encoding::Int8Groups { .. } | Encoding::I2S => true,
        Encoding::Foreign(_) => false,
    };
    let why = format!("tensor {} is {}, which safetensors cannot hold", t.name, t.encoding.name());
    let out = &options.out;
    // Who names a folder may not mean a checkpoint.
    if is_folder(out) {
        let e = Error::refused(format!(
            "{} is a folder, which gets a checkpoint of safetensors; {why}",
            out.display()
        ));
        // A folder that is not there is only made for a checkpoint.
        let file = if out.is_dir() { out.join("model.gguf") } else { out.with_extension("gguf") };
        let file = format!("name a file to keep the types: {}", file.display());
        return Err(match decodable {
            true => {
                e.or(format!("{file}; for a checkpoint, use `ggufkit convert` with --type f16, bf16 or f32"))
            }
            false => e.or(file),
        });
    }
    let e = Error::refused(why);
    let name = "use an output name that ends in .gguf";
    Err(e.or(if decodable { format!("{name}; or use --type f16, bf16 or f32") } else { name.into() }))
}

//! What each container asks of a plan.

use std::path::{Path, PathBuf};

use super::{
    ByteOrder, Choice, Container, DType, Encoding, Error, Format, Layout, Location, Metadata, Model,
    PlanOptions, Result, Source, Step, Tensor, Value, gguf, llama2c, safetensors,
};
use crate::checkpoint;
use crate::machine::{Machine, Reads};
use crate::plan::edit::Edit;
use crate::scheme;
use formats::block::TYPES;
use formats::container::{parse_part_stem, part_stem};

/// Whether a result is a folder of files.
pub fn is_folder(out: &Path) -> bool {
    out.is_dir() || out.to_string_lossy().ends_with('/')
}

/// The container, by wish or by the ending.
///
/// # Errors
/// An ending that tells nothing, and options that the container cannot fulfil.
pub fn container(model: &Model, options: &PlanOptions) -> Result<Container> {
    let out = &options.out;
    let folder = is_folder(out);
    let by_ending = match out.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
        _ if folder && options.machine.is_some_and(|m| m.container() == Container::Expansion) => {
            Some(Container::Expansion)
        }
        _ if folder => Some(Container::Safetensors),
        Some("gguf") => Some(Container::Gguf),
        Some("safetensors") => Some(Container::Safetensors),
        Some("bin") => Some(Container::Llama2c),
        _ => None,
    };
    let meant = options.container.or(by_ending);
    if let Some(machine) = options.machine
        && meant.is_some_and(|t| t != machine.container())
    {
        let (name, what) = (machine.name, machine.what);
        let out = out.display();
        return Err(Error::usage(format!("--for {name} ({what}) does not read what {out} would be")).or(
            match machine.container() {
                Container::Gguf => "end the name in .gguf",
                Container::Expansion => "name a folder for its three files: OUT/",
                _ => "end the name in .bin",
            },
        ));
    }
    let target = meant.or(options.machine.map(Machine::container)).ok_or_else(|| {
        let out = out.display();
        Error::usage(format!("{out}: the ending tells no format"))
            .or("end the name in .gguf, .safetensors or .bin, or say --format")
    })?;
    if !folder && target == Container::Expansion {
        let why = format!("{} is to be a folder, for three files", out.display());
        return Err(Error::usage(why).or("end the name in /"));
    }
    if folder && !matches!(target, Container::Safetensors | Container::Expansion) {
        return Err(Error::usage(format!("{} is a folder; name a file in it", out.display())));
    }
    if model.format == Format::Llama2cTokenizer && target != Container::Llama2c {
        return Err(Error::usage("a tokenizer alone can only become another tokenizer.bin")
            .or("give it with --tokenizer beside a checkpoint"));
    }
    let only = |wrong: bool, what: &str, whose: &str| match wrong {
        true => Err(Error::usage(format!("{what} is for {whose} only"))),
        false => Ok(()),
    };
    only(options.align.is_some() && target != Container::Gguf, "--align", "GGUF")?;
    only(options.bin_version.is_some() && target != Container::Llama2c, "--bin-version", "llama2.c files")?;
    only(
        options.split != gguf::Split::None && matches!(target, Container::Llama2c | Container::Expansion),
        "splitting",
        "GGUF and safetensors",
    )?;
    let grouped =
        target == Container::Llama2c && options.scheme.as_ref().is_none_or(|s| s.base == DType::Q8_0);
    only(options.group_size.is_some() && !grouped, "--group-size", "llama2.c files of --type q8_0")?;
    only(options.rounding.importance.is_some() && target != Container::Gguf, "--imatrix", "GGUF")?;
    only(options.pure && options.scheme.is_none(), "--pure", "a --type other than keep")?;
    if options.pure && options.scheme.as_ref().is_some_and(|s| s.rules.iter().any(|r| r.to == Choice::I2S)) {
        return Err(Error::usage(
            "--pure would leave no matrix in i2_s, which output and embedding cannot have",
        )
        .or("leave --pure out; --output-type and --embedding-type give these two another type than f16"));
    }
    let big = options.order == Some(ByteOrder::Big) && target == Container::Safetensors;
    only(big, "--endian big", "GGUF and llama2.c (safetensors are little-endian by definition)")?;
    if let (Some(machine), Some(order)) = (options.machine, options.order)
        && machine.order != order
    {
        let (name, own, other) = (machine.name, machine.order.name(), order.name());
        return Err(Error::usage(format!("--for {name} is {own}-endian, and --endian {other} is not"))
            .or("leave out --endian"));
    }
    Ok(target)
}

/// The version of a llama2.c checkpoint: by wish, by type, or the source's.
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

/// llama2.c has one type in a file: f32, or int8 groups with f32 norms (version 2).
pub(super) fn llama2c_steps(
    model: &Model,
    options: &PlanOptions,
    metadata: &Metadata,
    notes: &mut Vec<String>,
) -> Result<Vec<(Step, Tensor)>> {
    if model.format == Format::Llama2cTokenizer {
        return Ok(Vec::new());
    }
    if !options.tensors.is_empty() || options.output.is_some() || options.embedding.is_some() {
        return Err(Error::usage(
            "llama2.c files have one type for all tensors: no --tensor, --output-type, --embedding-type",
        ));
    }
    let version = llama2c_version(model, options)?;
    let kept = model.tensors.iter().find_map(|t| match t.encoding {
        Encoding::Int8Groups { size } if options.scheme.is_none() => Some(size),
        _ => None,
    });
    let wanted = options.group_size.unwrap_or(64);
    let size = match (version, kept) {
        (2, Some(size)) => size,
        (2, None) => llama2c::group_size(metadata, &model.tensors, wanted)?,
        _ => 0,
    };
    if version == 2 && kept.is_none() && size < wanted {
        let bits = |size: u32| 8.0 + 32.0 / f64::from(size);
        let (bits, cost) = (bits(size), bits(size) - bits(wanted));
        let why = format!("groups of {wanted} would not divide every row");
        if options.strict {
            return Err(Error::refused(why).or(format!("leave out --strict, or say --group-size {size}")));
        }
        notes.push(format!("{why}, so they have {size} weights: {bits:.2} bits per weight ({cost:+.2})"));
    }
    let step = |(i, t): (usize, &Tensor)| {
        let encoding = match t.shape.len() {
            2 if version == 2 => Encoding::Int8Groups { size },
            _ => Encoding::Blocks(DType::F32),
        };
        let step = Step { source: i, from: t.encoding, rule: format!("llama2.c v{version}"), wanted: None };
        (step, Tensor { encoding, location: Location::default(), ..t.clone() })
    };
    Ok(model.tensors.iter().enumerate().map(step).collect())
}

/// Settings that every reader of GGUF wants and that follow from the types; what the user has set stays.
pub(super) fn gguf_metadata(
    source: &Source,
    options: &PlanOptions,
    steps: &[Step],
    tensors: &[Tensor],
    metadata: &mut Metadata,
    notes: &mut Vec<String>,
) -> Result<()> {
    let model = &source.model;
    let by_user = |key: &str| options.edits.iter().any(|e| matches!(e, Edit::Set(k, _) if k == key));
    if let Some(align) = options.align {
        if by_user(gguf::ALIGNMENT_KEY) {
            return Err(Error::usage("--align and --set general.alignment are one thing; say one of them"));
        }
        metadata.set(gguf::ALIGNMENT_KEY, Value::U32(align));
    }
    let from_gguf = matches!(model.format, Format::Gguf { .. });
    let changed = steps.iter().zip(tensors).any(|(s, t)| s.from != t.encoding);
    if from_gguf && !changed && options.scheme.is_none() {
        return Ok(()); // kept as it is, byte by byte
    }
    if metadata.get("general.architecture").is_none() {
        notes.push(
            "the source names no architecture (a checkpoint has a config.json beside its weights), so neither does the \
             GGUF: tensors keep their names, and llama.cpp will not run it (--set general.architecture=NAME if it should \
             be named)"
                .into(),
        );
    } else if metadata.get("tokenizer.ggml.model").is_none() && matches!(model.format, Format::Llama2c { .. })
    {
        metadata.set("tokenizer.ggml.model", Value::text("no_vocab"));
        notes.push(
            "no vocabulary: give the checkpoint's tokenizer.bin with --tokenizer to have one in the file"
                .into(),
        );
    }
    if source.hub.is_some() && tensors.iter().any(|t| t.encoding == Encoding::Blocks(DType::F64)) {
        notes.push(
            "f64 weights are kept as they are, and llama.cpp computes with none; say --type f32".into(),
        );
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
    if let Some(file_type) = named
        && !by_user("general.file_type")
    {
        metadata.set("general.file_type", Value::U32(file_type));
    }
    Ok(())
}

/// Whether more weights are in bitnet.cpp's type than in all others.
fn mostly_i2_s(tensors: &[Tensor]) -> bool {
    let (own, others): (Vec<_>, Vec<_>) = tensors.iter().partition(|t| t.encoding == Encoding::I2S);
    let weights = |tensors: &[&Tensor]| tensors.iter().map(|t| t.elements()).sum::<u64>();
    weights(&own) > weights(&others)
}

/// The type of blocks that most weights have.
pub(super) fn main_type(tensors: &[Tensor]) -> Option<DType> {
    let weights = |d: DType| -> u64 {
        tensors.iter().filter(|t| t.encoding == Encoding::Blocks(d)).map(Tensor::elements).sum()
    };
    TYPES.iter().map(|t| t.dtype).max_by_key(|&d| weights(d)).filter(|&d| weights(d) > 0)
}

type Placed = (Layout, Vec<PathBuf>, Vec<(PathBuf, Vec<u8>)>);

/// Lays the files out and names them.
pub(super) fn place(
    source: &Source,
    options: &PlanOptions,
    target: Container,
    order: ByteOrder,
    metadata: &Metadata,
    tensors: &[Tensor],
    notes: &mut Vec<String>,
) -> Result<Placed> {
    let model = &source.model;
    let out = &options.out;
    let name = out.display().to_string();
    match target {
        Container::Gguf => {
            let layout =
                gguf::layout(&name, metadata, tensors, gguf::Options { order, split: options.split })?;
            let count = layout.files.len();
            let paths = match count {
                1 => vec![out.clone()],
                _ => (0..count)
                    .map(|i| out.with_file_name(format!("{}.gguf", part_stem(&stem(out), i, count))))
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
            let names = |i: usize, count: usize| match count {
                1 if folder => "model.safetensors".to_string(),
                1 => out.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                _ => format!("{}.safetensors", part_stem(&stem, i, count)),
            };
            let options = safetensors::Options { split: options.split };
            let layout = safetensors::layout(&name, metadata, tensors, options, &names)?;
            let count = layout.files.len();
            let names: Vec<_> = (0..count).map(|i| names(i, count)).collect();
            let mut extra = Vec::new();
            if count > 1 {
                let index = dir.join(format!("{stem}.safetensors.index.json"));
                extra.push((index, safetensors::index(&layout, &names)));
            }
            if let Some(export) = source.export.as_ref().filter(|_| folder) {
                let main = main_type(tensors).unwrap_or(DType::F32);
                extra.extend(export.files.iter().map(|(name, bytes)| (dir.join(name), bytes.clone())));
                // Last, since it is what makes the folder a checkpoint: one that lacks some of its files, because
                // the run was interrupted while they got their names, is none.
                extra.push((dir.join(checkpoint::CONFIG), export.config_json(main)));
            }
            Ok((layout, names.iter().map(|n| dir.join(n)).collect(), extra))
        }
        Container::Expansion => expansion(options, metadata, tensors),
        Container::Llama2c if model.format == Format::Llama2cTokenizer => {
            let bytes = llama2c::tokenizer::write(&name, metadata, order)?;
            Ok((Layout { files: Vec::new(), tensors: Vec::new() }, Vec::new(), vec![(out.clone(), bytes)]))
        }
        Container::Llama2c => {
            let version = llama2c_version(model, options)?;
            let fork = options.machine.is_some_and(|m| matches!(m.reads, Reads::Llama2c { fork: true, .. }));
            let options = llama2c::Options { fork, ..llama2c::Options::new(version, order) };
            let layout = llama2c::layout(&name, metadata, tensors, options)?;
            let mut extra = Vec::new();
            match metadata.text("tokenizer.ggml.model") {
                None | Some("no_vocab") if matches!(model.format, Format::Llama2c { .. }) => {}
                None | Some("no_vocab") => {
                    notes.push(
                        "no vocabulary in the source, so no tokenizer.bin beside the checkpoint".into(),
                    );
                }
                Some(_) => {
                    let path = out.with_file_name(format!("{}-tokenizer.bin", stem(out)));
                    extra.push((path, llama2c::tokenizer::write(&name, metadata, order)?));
                }
            }
            Ok((layout, vec![out.clone()], extra))
        }
    }
}

/// Lays out the three files for a memory expansion.
fn expansion(options: &PlanOptions, metadata: &Metadata, tensors: &[Tensor]) -> Result<Placed> {
    let out = &options.out;
    let weights = match options.machine.map(|m| m.reads) {
        Some(Reads::Expansion { weights }) => weights,
        _ => "weights.reu",
    };
    let made = llama2c::expansion(&out.display().to_string(), metadata, tensors)?;
    let extra = vec![(out.join("config.bin"), made.config), (out.join("tokenizer.bin"), made.tokenizer)];
    Ok((made.layout, vec![out.join(weights)], extra))
}

/// llama2.c version 0 to version 0: the frequency tables, which are no tensors, are copied as the weights are, and
/// not computed again.
pub(super) fn keep_tables(source: &Source, order: ByteOrder, layout: &mut Layout) -> Result<()> {
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

/// The file name without its ending, and without the number of a part.
fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    parse_part_stem(&stem).map(|(stem, ..)| stem.to_string()).unwrap_or(stem)
}

/// Writing over the source would be safe, but never meant.
pub(super) fn refuse_own_source<'a>(source: &Source, paths: impl Iterator<Item = &'a PathBuf>) -> Result<()> {
    let own: Vec<_> = source.files.iter().map(|f| &f.path).chain(&source.beside).collect();
    for path in paths {
        let Ok(real) = path.canonicalize() else { continue };
        if own.iter().any(|p| p.canonicalize().is_ok_and(|p| p == real)) {
            return Err(Error::WouldOverwrite { path: path.clone() });
        }
    }
    Ok(())
}

/// safetensors has no packed types.
pub(super) fn refuse_packed(tensors: &[Tensor]) -> Result<()> {
    let name = |e| matches!(e, Encoding::Blocks(d) if d.info().safetensors.is_some());
    let Some(t) = tensors.iter().find(|t| !name(t.encoding)) else { return Ok(()) };
    let decodable = match t.encoding {
        Encoding::Blocks(d) => kernels::codec(d).is_some(),
        Encoding::Int8Groups { .. } | Encoding::I2S => true,
    };
    let e =
        Error::refused(format!("tensor {} is {}, which safetensors cannot hold", t.name, t.encoding.name()));
    Err(if decodable { e.or("take --type f16, bf16 or f32, or write a .gguf") } else { e })
}

/// An index that stays behind would keep an older model in force, and so would a single file beside parts.
pub(super) fn refuse_old_index(paths: &[PathBuf], extra: &[(PathBuf, Vec<u8>)]) -> Result<()> {
    let Some(path) = paths.first() else { return Ok(()) };
    let single = path.with_file_name("model.safetensors");
    if paths.len() > 1 && stem(path) == "model" && single.exists() {
        return Err(Error::refused(format!("{} would be read instead of the new parts", single.display()))
            .or("remove it, or write to another folder"));
    }
    let index = path.with_file_name(format!("{}.safetensors.index.json", stem(path)));
    if index.exists() && extra.iter().all(|(p, _)| *p != index) {
        return Err(Error::refused(format!("{} belongs to another model in this place", index.display()))
            .or("remove it, or write to another folder"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_number_is_not_part_of_the_stem() {
        assert_eq!(stem(Path::new("a/model.gguf")), "model");
        assert_eq!(stem(Path::new("a/model-00001-of-00003.gguf")), "model");
        assert_eq!(stem(Path::new("model-00004-of-00003.gguf")), "model-00004-of-00003");
        assert_eq!(stem(Path::new("model-1-of-3.gguf")), "model-1-of-3");
    }
}

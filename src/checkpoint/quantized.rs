//! In which form a checkpoint's weights are stored. The tensors decide: config.json may still speak of a quantization that
//! is long undone (a merged adapter, dequantized weights), or not speak of the one that is there.

use std::collections::HashMap;
use std::path::Path;

use formats::block::DType;
use formats::model::{Encoding, Location, Tensor};
use serde_json::Value as Json;

use super::bitnet::{self, Scale};
use super::names::Names;
use crate::arch::settings::Reader;
use crate::arch::{Arch, Expected};
use crate::error::{Error, Result};
use crate::scheme::is_integer;
use crate::source::view::{RowOrder, Values, View};

/// The form of a checkpoint's matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Floats that are the weights.
    Plain,
    /// BitNet: tensors are two-bit codes with a scale. Floats among them are master weights, which are rounded to three
    /// values, if `masters`; otherwise they are weights.
    Ternary { scale: Scale, masters: bool },
    /// MLX: some tensors are integer codes with a scale and an offset for each group.
    Mlx,
}

/// Where config.json speaks of quantization.
const KEYS: [&str; 3] = ["quantization_config", "compression_config", "quantization"];

/// Ends of the names of tensors that only quantized weights have, and who writes them. A longer end comes before its
/// own end.
const SIGNS: [(&str, &str); 25] = [
    (".qweight", "GPTQ or AWQ"),
    (".qzeros", "GPTQ or AWQ"),
    (".g_idx", "GPTQ"),
    (".q_weight", "EXL2"),
    (".q_invperm", "EXL2"),
    (".trellis", "EXL3"),
    (".suh", "EXL3"),
    (".svh", "EXL3"),
    (".Qidxs", "QuIP#"),
    (".SU", "QuIP#"),
    (".vptq_indices", "VPTQ"),
    (".absmax", "bitsandbytes"),
    (".quant_map", "bitsandbytes"),
    (".SCB", "bitsandbytes"),
    (".weight_packed", "compressed-tensors"),
    (".weight_scale_inv", "FP8 with a scale for each block"),
    (".weight_scale_2", "NVFP4"),
    (".weight_scale", "FP8, NVFP4 or integers with scales"),
    (".input_scale", "FP8 or NVFP4"),
    (".W_q", "HQQ"),
    (".codebooks", "AQLM"),
    ("_blocks", "MXFP4"),
    ("_scales", "MXFP4"),
    (".scales", MLX),
    (".biases", MLX),
];

/// The name of MLX, whose config.json has no name of a method.
pub const MLX: &str = "MLX";

/// Who quantized the weights, by config.json; `None` if it does not speak of that, or says nothing.
pub fn said(config: &Json) -> Option<String> {
    let found = KEYS.iter().filter_map(|key| config[key].as_object().filter(|map| !map.is_empty()));
    found
        .map(|map| {
            let text = |key: &str| map.get(key).and_then(Json::as_str).map(str::to_string);
            let mlx = map.contains_key("group_size") && map.contains_key("bits");
            text("quant_method")
                .or_else(|| text("quant_algo"))
                .or_else(|| mlx.then(|| MLX.to_string()))
                .unwrap_or_else(|| "an unnamed method".into())
        })
        .next()
}

/// Whether a value stands for none, as some programs write it.
fn is_none(value: &Json) -> bool {
    value.is_null() || *value == false || *value == ""
}

/// Checks the types of what config.json says of quantization.
///
/// # Errors
/// The key of a value that is not of its type, and what was expected.
pub fn check_types(config: &Json) -> std::result::Result<(), String> {
    let read = Reader(config);
    for key in KEYS.into_iter().filter(|key| !is_none(&config[*key])) {
        if read.object(key)?.is_some() {
            let inner = Reader(&config[key]);
            for text in ["quant_method", "quant_algo"] {
                inner.text(text).map_err(|why| format!("{key}: {why}"))?;
            }
        }
    }
    Ok(())
}

/// Removes what a config.json says of quantization.
pub fn forget(config: &mut Json) {
    if let Some(map) = config.as_object_mut() {
        KEYS.iter().for_each(|key| {
            map.remove(*key);
        });
    }
}

/// Whether a tensor has floats, which need no scale to be weights.
pub fn is_float(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::Blocks(d) if kernels::codec(d).is_some() && !is_integer(d))
}

/// The form of the stored tensors of a model of an architecture, and a note for the user. `file` is config.json, for
/// messages.
///
/// # Errors
/// [`Error::UnsupportedQuantization`] for a method, or an option of it, that is not supported; [`Error::Refused`] for
/// scales beside floats.
pub fn form(
    file: &Path,
    config: &Json,
    arch: &Arch,
    stored: &[Tensor],
    names: &Names,
) -> Result<(Form, Option<String>)> {
    let unsupported = |why: String| Error::UnsupportedQuantization { file: file.to_path_buf(), why };
    let by_name: HashMap<&str, &Tensor> = stored.iter().map(|t| (t.name.as_str(), t)).collect();
    let is_bytes = |t: &Tensor| t.encoding == Encoding::Blocks(DType::U8);
    let codes = stored.iter().zip(&names.place).any(|(t, place)| place.is_some() && is_bytes(t));
    let masters = bitnet::has_masters(config, arch);
    if (codes || masters)
        && let Some(scale) = bitnet::scale(config).map_err(unsupported)?
    {
        let note = (masters && !codes && !arch.int8_activations).then(|| {
            "config.json asks for ternary weights (BitNet with quantization_mode \"online\"): the floats of the layers' \
             matrices are rounded to three values, as transformers does"
                .into()
        });
        return Ok((Form::Ternary { scale, masters }, note));
    }
    let said = said(config);
    // What is not the model's own is no sign of how that is stored, as long as it has no scales.
    let packed = stored.iter().zip(&names.place).find(|(t, place)| place.is_some() && !is_float(t.encoding));
    let mut own = stored.iter().enumerate().filter(|(i, _)| names.idle.binary_search(i).is_err());
    let sign = own.find_map(|(_, t)| Some((t, SIGNS.iter().find(|(end, _)| t.name.ends_with(end))?)));
    if let Some((t, _)) = packed
        && let Some(mode) = mlx_mode(config, t, &by_name)
    {
        return Err(mlx(
            file,
            format!("weights quantized by MLX in its mode {mode:?} are not supported (tensor {})", t.name),
        ));
    }
    match (packed, sign) {
        (None, None) => {
            let note = said.map(|method| {
                let kinds = kinds(stored, names);
                format!(
                    "config.json says that the weights are quantized ({method}), but all of them are {kinds}, without scales: \
                     they are read as what they are"
                )
            });
            return Ok((Form::Plain, note));
        }
        (Some((t, _)), _)
            if t.encoding == Encoding::Blocks(DType::U32) && mlx_parts(t, &by_name).is_some() =>
        {
            return Ok((Form::Mlx, None));
        }
        (Some((t, _)), _) if is_bytes(t) && is_bitnet(t, &by_name) => {
            let note =
                "config.json does not say so, but the weights are two-bit codes with a scale (BitNet)".into();
            return Ok((Form::Ternary { scale: Scale::Unsaid, masters }, Some(note)));
        }
        (None, Some((t, (_, MLX)))) => {
            return Err(mlx(
                file,
                format!(
                    "tensor {} looks like what MLX's quantization left beside weights that are floats",
                    t.name
                ),
            ));
        }
        (None, Some((t, (end, by_tensor)))) if scales_floats(t, end, &by_name) => {
            let method = said.map_or_else(|| by_tensor.to_string(), |said| format!("{said:?}"));
            return Err(Error::refused(format!(
                "{}: tensor {} looks like what quantization ({method}) left beside weights that are floats, which may have \
                 been multiplied with it or not",
                file.display(),
                t.name
            ))
            .or("start from the original weights; if these were multiplied with their scales, save the model again without \
                 the scales (transformers' from_pretrained and save_pretrained leave them out)"));
        }
        _ => {}
    }
    let (t, by_tensor) = match (packed, sign) {
        (_, Some((t, (_, method)))) => (t, Some(*method)),
        (Some((t, _)), None) => (t, None),
        (None, None) => unreachable!("floats without scales are plain"),
    };
    let method = match (said, by_tensor) {
        (Some(said), _) => format!("{said:?}"),
        (None, Some(method)) => method.to_string(),
        (None, None) => return Ok((Form::Plain, None)), // refused with the tensor's name, type and shape
    };
    let (name, kind) = (&t.name, t.encoding.name());
    Err(unsupported(format!("weights quantized by {method} are not supported (tensor {name} is {kind})")))
}

/// The types of the model's floats, for a note.
fn kinds(stored: &[Tensor], names: &Names) -> String {
    let own = stored.iter().zip(&names.place).filter(|(t, place)| place.is_some() && is_float(t.encoding));
    let mut kinds: Vec<String> = own.map(|(t, _)| t.encoding.name()).collect();
    kinds.sort();
    kinds.dedup();
    kinds.join(" or ")
}

/// An error about MLX's quantization, with the way out.
fn mlx(file: &Path, why: String) -> Error {
    Error::refused(format!("{}: {why}", file.display())).or(
        "write the weights as floats with MLX: mlx_lm.convert --dequantize, or mlx_lm.fuse --dequantize for a finetune \
         (--de-quantize in older versions)",
    )
}

/// Whether a tensor whose name ends so belongs to floats, which need no such thing.
fn scales_floats(t: &Tensor, end: &str, by_name: &HashMap<&str, &Tensor>) -> bool {
    let module = t.name.strip_suffix(end).unwrap_or_default();
    by_name.get(format!("{module}.weight").as_str()).is_some_and(|weight| is_float(weight.encoding))
}

/// The mode in which MLX packed a tensor, by config.json, or by the types of its scales, if it is another than "affine",
/// which has an offset for each group.
fn mlx_mode(config: &Json, t: &Tensor, by_name: &HashMap<&str, &Tensor>) -> Option<String> {
    let scales = by_name.get(mlx_names(&t.name)?.0.as_str())?;
    if t.encoding != Encoding::Blocks(DType::U32) {
        return None;
    }
    let said = KEYS.iter().find_map(|key| config[key]["mode"].as_str()).filter(|mode| *mode != "affine");
    let packed = scales.encoding == Encoding::Blocks(DType::U8);
    said.map(str::to_string).or_else(|| packed.then(|| "mxfp4 or nvfp4".into()))
}

/// Whether a tensor has one scale as packed BitNet weights do.
fn is_bitnet(t: &Tensor, by_name: &HashMap<&str, &Tensor>) -> bool {
    by_name
        .get(format!("{}_scale", t.name).as_str())
        .is_some_and(|s| s.elements() == 1 && is_float(s.encoding))
}

/// The names of the scales and offsets of a tensor that MLX packed.
fn mlx_names(weight: &str) -> Option<(String, String)> {
    let module = weight.strip_suffix(".weight")?;
    Some((format!("{module}.scales"), format!("{module}.biases")))
}

/// The scales and the offsets of a tensor that MLX packed.
fn mlx_parts<'a>(t: &Tensor, by_name: &HashMap<&str, &'a Tensor>) -> Option<(&'a Tensor, &'a Tensor)> {
    let (scales, biases) = mlx_names(&t.name)?;
    Some((*by_name.get(scales.as_str())?, *by_name.get(biases.as_str())?))
}

/// A tensor of a checkpoint that MLX quantized: codes of 2 to 8 bits in words of 32, from the lowest bit up, with a scale
/// and an offset ("bias") for each group of a row: weight = scale · code + offset. Bits and groups follow from the
/// shapes, since some checkpoints mix them. Source: MLX's `quantize`.
pub fn affine(
    t: &Tensor,
    e: &Expected,
    rows: RowOrder,
    by_name: &HashMap<&str, &Tensor>,
) -> Result<(Tensor, Option<View>)> {
    let Some((scales, biases)) = mlx_parts(t, by_name) else {
        let (tensor, dtype) = (t.name.clone(), t.encoding.name());
        return Err(Error::UnsupportedType { tensor, dtype, operation: crate::error::FROM_CHECKPOINT });
    };
    let wrong = |t: &Tensor, expected: Vec<u64>| Error::WrongShape {
        tensor: t.name.clone(),
        expected,
        found: t.shape.clone(),
    };
    let ([n, cols], [packed_rows, words]) = (&e.shape[..], &t.shape[..]) else {
        return Err(wrong(t, e.shape.clone()));
    };
    let (n, cols) = (*n, *cols);
    let bits = (words * 32).checked_div(cols).unwrap_or(0);
    if *packed_rows != n || !(1..=8).contains(&bits) || bits * cols != words * 32 {
        return Err(wrong(t, vec![n, cols * bits.clamp(1, 8) / 32]));
    }
    let groups = scales.cols();
    if scales.shape != [n, groups]
        || groups == 0
        || !cols.is_multiple_of(groups)
        || !is_float(scales.encoding)
    {
        return Err(wrong(scales, vec![n, cols / 64]));
    }
    if biases.shape != scales.shape || !is_float(biases.encoding) {
        return Err(wrong(biases, scales.shape.clone()));
    }
    let values = Values::Affine {
        bits: bits as u32,
        group: cols / groups,
        scales: Box::new(scales.clone()),
        biases: Box::new(biases.clone()),
    };
    let mut tensor = Tensor {
        name: e.gguf.clone(),
        shape: e.shape.clone(),
        encoding: Encoding::Blocks(DType::F32),
        location: Location { ..t.location },
    };
    tensor.location.len = 4 * tensor.elements();
    Ok((tensor, Some(View { stored: t.clone(), rows, values })))
}

/// Whether a tensor has the scales or the offsets of one that MLX packed.
pub fn is_mlx_part(name: &str, by_name: &HashMap<&str, &Tensor>) -> bool {
    let module = name.strip_suffix(".scales").or(name.strip_suffix(".biases"));
    let weight = module.and_then(|module| by_name.get(format!("{module}.weight").as_str()));
    weight.is_some_and(|t| t.encoding == Encoding::Blocks(DType::U32))
}

/// A note about weights that MLX quantized.
pub fn mlx_note(views: &[Option<View>]) -> Option<String> {
    let mut kinds: Vec<String> = views
        .iter()
        .flatten()
        .filter_map(|view| match view.values {
            Values::Affine { bits, group, .. } => Some(format!("{bits} bits in groups of {group}")),
            _ => None,
        })
        .collect();
    kinds.sort();
    kinds.dedup();
    (!kinds.is_empty()).then(|| {
        format!(
            "the weights were quantized by MLX ({}): they are read as the floats that their codes stand for, and quantizing \
             them again adds another error",
            kinds.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::metadata::Metadata;
    use serde_json::json;

    fn tensor(name: &str, dtype: DType, shape: &[u64]) -> Tensor {
        let (encoding, location) = (Encoding::Blocks(dtype), Location::default());
        Tensor { name: name.into(), shape: shape.to_vec(), encoding, location }
    }

    fn found(config: Json, stored: &[Tensor]) -> std::result::Result<(Form, bool), String> {
        let arch = json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 2, "vocab_size": 8,
        });
        let llama = crate::arch::Config::from_hub(&arch).unwrap();
        let names = Names::new(stored, &Metadata::new(), &llama.arch.expected(&llama));
        let arch =
            if config["own"] == true { crate::arch::by_name("bitnet-b1.58").unwrap() } else { llama.arch };
        let form = form(Path::new("m/config.json"), &config, arch, stored, &names);
        form.map(|(form, note)| (form, note.is_some())).map_err(|e| format!("{e} | {:?}", e.hint()))
    }

    const UP: &str = "model.layers.0.mlp.up_proj.weight";

    #[test]
    fn floats_without_scales_are_weights_whatever_the_settings_say() {
        let floats = [tensor(UP, DType::BF16, &[64, 64]), tensor("model.norm.weight", DType::F32, &[64])];
        for (config, note) in [
            (json!({}), false),
            (json!({"quantization_config": {}}), false),
            (json!({"quantization_config": null}), false),
            (json!({"quantization_config": {"quant_method": "bitsandbytes"}}), true),
            (json!({"quantization_config": {"quant_method": "gptq", "bits": 4}}), true),
            (json!({"compression_config": {"quant_method": "compressed-tensors"}}), true),
            (json!({"quantization": {"group_size": 64, "bits": 4}}), true),
        ] {
            assert_eq!(found(config.clone(), &floats), Ok((Form::Plain, note)), "{config}");
        }
    }

    #[test]
    fn floats_are_master_weights_where_they_are_trained_as_such() {
        let floats = [tensor(UP, DType::BF16, &[64, 64]), tensor("model.norm.weight", DType::F32, &[64])];
        let masters = |scale| Form::Ternary { scale, masters: true };
        let of = |more: Json| {
            let mut settings = json!({"quant_method": "bitnet"});
            settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"quantization_config": settings})
        };
        // Left from before the weights were written as floats.
        for stale in [
            json!({}),
            json!({"quantization_mode": "offline", "linear_class": "autobitlinear"}),
            json!({"linear_class": "bitlinear", "quantization_mode": null}),
            json!({"linear_class": "x", "use_rms_norm": true}),
        ] {
            assert_eq!(found(of(stale.clone()), &floats), Ok((Form::Plain, true)), "{stale}");
        }
        let online = json!({"quantization_mode": "online", "linear_class": "autobitlinear"});
        assert_eq!(found(of(online.clone()), &floats), Ok((masters(Scale::Magnitude), true)));
        // BitNet's own architecture is trained so.
        let mut own = of(json!({}));
        own["own"] = true.into();
        assert_eq!(found(own, &floats), Ok((masters(Scale::Unsaid), false)));
        assert_eq!(found(json!({"own": true}), &floats), Ok((Form::Plain, false)));
        // Of a mixture, the codes are ternary.
        let down = "model.layers.0.mlp.down_proj.weight";
        let mut mixed = floats.to_vec();
        mixed.push(tensor(down, DType::U8, &[16, 64]));
        mixed.push(tensor(&format!("{down}_scale"), DType::BF16, &[1]));
        let packed = Form::Ternary { scale: Scale::Unsaid, masters: false };
        assert_eq!(found(of(json!({})), &mixed), Ok((packed, false)));
        assert_eq!(found(json!({}), &mixed), Ok((packed, true)));
        assert_eq!(found(of(online), &mixed), Ok((masters(Scale::Magnitude), false)));
    }

    #[test]
    fn values_of_a_wrong_type_are_not_missing_ones() {
        for fine in [
            json!({}),
            json!({"quantization_config": null}),
            json!({"quantization_config": false}),
            json!({"compression_config": ""}),
            json!({"quantization": {"bits": 4}}),
        ] {
            assert_eq!(check_types(&fine), Ok(()), "{fine}");
        }
        for (config, says) in [
            (
                json!({"quantization_config": ["gptq"]}),
                "quantization_config must be an object (found [\"gptq\"])",
            ),
            (json!({"quantization_config": "awq"}), "quantization_config must be an object (found \"awq\")"),
            (json!({"compression_config": 4}), "compression_config must be an object (found 4)"),
            (json!({"quantization": {"__float__": "NaN"}}), "quantization must be an object (found NaN)"),
            (json!({"quantization_config": {"quant_method": 7}}), "quant_method must be a string (found 7)"),
        ] {
            assert!(check_types(&config).unwrap_err().contains(says), "{config}");
        }
    }

    #[test]
    fn quantized_tensors_are_named_with_their_method() {
        for (config, more, says) in [
            (json!({"quantization_config": {"quant_method": "gptq"}}), (".qweight", DType::I32), "\"gptq\""),
            (json!({}), (".qweight", DType::I32), "GPTQ or AWQ"),
            (json!({}), (".weight.absmax", DType::F32), "bitsandbytes"),
            (json!({}), (".weight_scale_inv", DType::F32), "FP8"),
            (json!({"quantization_config": {"quant_method": "fp8"}}), (".weight", DType::F8_E4M3), "\"fp8\""),
            (json!({}), (".scales", DType::F32), "MLX's quantization left"),
            (json!({"quantization_config": {"quant_method": "exl2"}}), (".q_weight", DType::I32), "\"exl2\""),
            (json!({}), (".trellis", DType::I16), "EXL3"),
            (json!({}), (".Qidxs", DType::I64), "QuIP#"),
        ] {
            let name = format!("model.layers.0.mlp.down_proj{}", more.0);
            let stored = [tensor(UP, DType::BF16, &[64, 64]), tensor(&name, more.1, &[64, 64])];
            let why = found(config, &stored).unwrap_err();
            assert!(why.contains(says) && why.contains(&name), "{says}: {why}");
        }
    }

    #[test]
    fn scales_beside_floats_are_idle_or_named() {
        let floats = tensor(UP, DType::BF16, &[64, 64]);
        let said = json!({"quantization_config": {"quant_method": "fp8"}});
        for idle in ["mlp.up_proj.input_scale", "self_attn.k_scale", "self_attn.k_proj.output_scale"] {
            let scale = tensor(&format!("model.layers.0.{idle}"), DType::F32, &[1]);
            assert_eq!(found(said.clone(), &[floats.clone(), scale]), Ok((Form::Plain, true)), "{idle}");
        }
        let scale = tensor(&format!("{UP}_scale"), DType::F32, &[1]);
        let why = found(said, &[floats, scale]).unwrap_err();
        assert!(why.contains("left beside weights that are floats") && why.contains("\"fp8\""), "{why}");
    }

    #[test]
    fn packed_tensors_are_known_by_their_scales() {
        let mlx = [
            tensor(UP, DType::U32, &[64, 8]),
            tensor("model.layers.0.mlp.up_proj.scales", DType::F16, &[64, 1]),
            tensor("model.layers.0.mlp.up_proj.biases", DType::F16, &[64, 1]),
        ];
        assert_eq!(found(json!({}), &mlx), Ok((Form::Mlx, false)));
        let why =
            found(json!({"quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"}}), &mlx).unwrap_err();
        assert!(why.contains("mxfp4") && why.contains("mlx_lm"), "{why}");
        // Its other modes have scales of eight bits and no offsets, which config.json may leave unsaid.
        let mxfp4 = [mlx[0].clone(), tensor("model.layers.0.mlp.up_proj.scales", DType::U8, &[64, 2])];
        let mode = json!({"quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"}});
        for (config, says) in [(mode, "mode \"mxfp4\""), (json!({}), "mxfp4 or nvfp4")] {
            let why = found(config, &mxfp4).unwrap_err();
            assert!(why.contains(says) && why.contains("--dequantize"), "{why}");
        }
        let bitnet = [tensor(UP, DType::U8, &[16, 64]), tensor(&format!("{UP}_scale"), DType::BF16, &[1])];
        let packed = Form::Ternary { scale: Scale::Unsaid, masters: false };
        assert_eq!(found(json!({}), &bitnet), Ok((packed, true)));
        // Without scales it is refused with the tensor's name and type.
        assert_eq!(found(json!({}), &bitnet[..1]), Ok((Form::Plain, false)));
    }
}

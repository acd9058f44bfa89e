//! Projections that other programs store as one tensor: `qkv_proj`, the rows of the query, key and value projections one after
//! another, and `gate_up_proj`, those of the gate and the up projection, as vLLM, SGLang and transformers' Phi-3 have them.

use formats::model::{Location, Tensor};

use super::quantized::is_float;
use crate::arch::Expected;

/// A module that stands for several, whose rows follow one another, and these, with the block that all are in.
const FUSED: [(&str, &str, &[&str]); 2] = [
    ("qkv_proj", "self_attn", &["q_proj", "k_proj", "v_proj"]),
    ("gate_up_proj", "mlp", &["gate_proj", "up_proj"]),
];

/// The name of the module of one of [`FUSED`] in the name of a tensor, and the modules that it stands for.
fn module(name: &str) -> Option<(&'static str, &'static str, &'static [&'static str])> {
    let own = |part: &str| name.split('.').any(|p| p == part);
    FUSED.into_iter().find(|(fused, ..)| own(fused))
}

/// Whether the name of a tensor is that of such a projection.
pub fn is_fused(name: &str) -> bool {
    module(name).is_some()
}

/// Takes such tensors apart, where they have the rows that the model's own have together, and gives a note. Only floats: the
/// rows of packed weights are not always their own.
pub fn split(stored: Vec<Tensor>, expected: &[Expected]) -> (Vec<Tensor>, Option<String>) {
    let mut note = None;
    // Every layer is as the first.
    let first: Vec<&Expected> = expected.iter().filter(|e| e.hub.contains(".0.")).collect();
    let mut all = Vec::new();
    for t in stored {
        match parts(&t, &first) {
            Some((fused, modules, parts)) => {
                let of = modules.join(", ");
                note.get_or_insert_with(|| {
                    format!("{} has the rows of {of} one after another ({fused}), which become tensors of their own", t.name)
                });
                all.extend(parts);
            }
            None => all.push(t),
        }
    }
    (all, note)
}

/// The tensors in a fused one: that one's name, their names, and they. `first` is what the first layer has.
fn parts(t: &Tensor, first: &[&Expected]) -> Option<(&'static str, &'static [&'static str], Vec<Tensor>)> {
    let (fused, block, modules) = module(&t.name)?;
    let (before, tensor) = t.name.split_once(&format!(".{fused}."))?;
    if !is_float(t.encoding) || !matches!(tensor, "weight" | "bias") || !before.ends_with(block) {
        return None;
    }
    let wanted = |module: &str| {
        let end = format!(".0.{block}.{module}.{tensor}");
        first.iter().find(|e| e.hub.ends_with(&end)).map(|e| &e.shape)
    };
    let shapes: Vec<&Vec<u64>> = modules.iter().map(|&module| wanted(module)).collect::<Option<_>>()?;
    let rows: u64 = shapes.iter().map(|shape| shape[0]).sum();
    if rows == 0 || t.shape.first() != Some(&rows) || shapes.iter().any(|shape| shape[1..] != t.shape[1..]) {
        return None;
    }
    let row = t.location.len / rows;
    let mut offset = t.location.offset;
    let of = |(module, shape): (&&str, &Vec<u64>)| {
        let location = Location { offset, len: row * shape[0], ..t.location };
        offset += location.len;
        Tensor {
            name: format!("{before}.{module}.{tensor}"),
            shape: shape.clone(),
            encoding: t.encoding,
            location,
        }
    };
    Some((fused, modules, modules.iter().zip(shapes).map(of).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Config;
    use formats::block::DType;
    use formats::model::Encoding;
    use serde_json::json;

    #[test]
    fn rows_of_fused_projections_are_told_apart() {
        let config = Config::from_hub(&json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 8,
        }))
        .unwrap();
        let expected = config.arch.expected(&config);
        let tensor = |name: &str, dtype: DType, shape: &[u64]| {
            let location =
                Location { file: 1, offset: 100, len: dtype.bytes_for(shape.iter().product()).unwrap() };
            Tensor { name: name.into(), shape: shape.to_vec(), encoding: Encoding::Blocks(dtype), location }
        };
        let qkv = "m.layers.1.self_attn.qkv_proj";
        let all = vec![
            tensor(&format!("{qkv}.weight"), DType::BF16, &[16, 8]),
            tensor(&format!("{qkv}.bias"), DType::F32, &[16]),
            tensor("m.layers.0.mlp.gate_up_proj.weight", DType::F16, &[24, 8]),
            tensor("m.norm.weight", DType::F32, &[8]),
        ];
        let (found, note) = split(all, &expected);
        let found: Vec<_> =
            found.iter().map(|t| (&t.name[2..], &t.shape[..], t.location.offset, t.location.len)).collect();
        assert_eq!(
            found,
            [
                ("layers.1.self_attn.q_proj.weight", &[8, 8][..], 100, 128),
                ("layers.1.self_attn.k_proj.weight", &[4, 8], 228, 64),
                ("layers.1.self_attn.v_proj.weight", &[4, 8], 292, 64),
                ("layers.1.self_attn.q_proj.bias", &[8], 100, 32),
                ("layers.1.self_attn.k_proj.bias", &[4], 132, 16),
                ("layers.1.self_attn.v_proj.bias", &[4], 148, 16),
                ("layers.0.mlp.gate_proj.weight", &[12, 8], 100, 192),
                ("layers.0.mlp.up_proj.weight", &[12, 8], 292, 192),
                ("norm.weight", &[8], 100, 32),
            ]
        );
        assert!(note.unwrap().contains("q_proj, k_proj, v_proj"));
        // Of another size, packed, or a part of an adapter, they stay as they are.
        for t in [
            tensor(&format!("{qkv}.weight"), DType::BF16, &[15, 8]),
            tensor(&format!("{qkv}.weight"), DType::U8, &[16, 8]),
            tensor(&format!("{qkv}.lora_B.weight"), DType::BF16, &[16, 8]),
        ] {
            assert!(is_fused(&t.name));
            assert_eq!(split(vec![t.clone()], &expected), (vec![t], None));
        }
    }
}

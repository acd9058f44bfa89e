//! Ternary weights (BitNet) in Hugging Face checkpoints: which tensors are ternary, and whether the stored scales
//! multiply or divide. Source: transformers' `integrations/bitnet`.

use regex::Regex;
use serde_json::Value as Json;

use crate::arch::Arch;
use crate::arch::settings::Reader;

/// The meaning of a stored scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// The magnitude of the weights (`AutoBitLinear`).
    Magnitude,
    /// One over the magnitude (`BitLinear`).
    Inverse,
    /// Not given: `BitLinear` by default, but the values of the scales decide.
    Unsaid,
}

/// What config.json says about the scales of a ternary model; `None` if its `quantization_config` is not BitNet's.
///
/// # Errors
/// An option of the method that is not supported, or is of a wrong type.
pub fn scale(config: &Json) -> Result<Option<Scale>, String> {
    let quantized = &config["quantization_config"];
    if quantized["quant_method"] != "bitnet" {
        return Ok(None);
    }
    let read = Reader(quantized);
    read.list("modules_to_not_convert")?;
    if read.flag("use_rms_norm")? == Some(true) {
        return Err("linear layers with RMS norms (use_rms_norm) are not supported by GGUF runtimes".into());
    }
    Ok(Some(match read.text("linear_class")? {
        Some("autobitlinear") => Scale::Magnitude,
        Some("bitlinear") => Scale::Inverse,
        Some(other) => {
            return Err(format!("linear_class must be bitlinear or autobitlinear (found {other:?})"));
        }
        // The first release of the 2B-4T model.
        None if read.flag("offline_quantization")? == Some(true) => Scale::Magnitude,
        None => Scale::Unsaid,
    }))
}

/// Whether floats in the layers are master weights, which are rounded to three values whenever they are used: those of
/// BitNet's own architecture, and those that transformers rounds as it reads them. In other checkpoints that speak of
/// BitNet, floats are what somebody has made of the codes.
pub fn has_masters(config: &Json, arch: &Arch) -> bool {
    arch.int8_activations || config["quantization_config"]["quantization_mode"] == "online"
}

/// Whether `quantization_config` excludes the module of a tensor, so that its weights are plain floats.
pub fn left_out(config: &Json, tensor: &str) -> bool {
    let module = tensor.strip_suffix(".weight").unwrap_or(tensor);
    let list = config["quantization_config"]["modules_to_not_convert"].as_array();
    // As in transformers: an entry is the end of a name, or a pattern for its beginning up to a dot.
    let begins = |name: &str| Regex::new(&format!("^(?:{name})(?:\\.|$)")).is_ok_and(|r| r.is_match(module));
    let names = list.into_iter().flatten().filter_map(Json::as_str).filter(|name| !name.is_empty());
    names.into_iter().any(|name| module.ends_with(name) || begins(name))
}

/// Magnitudes of trained weights are below this, and their inverses above.
const UNIT: f32 = 1.0;
/// A magnitude above this contradicts the settings: no model has such large weights.
const FAR: f32 = 8.0;

/// Whether codes are divided by the stored scales, and a note for the user. The settings decide. If they do not say,
/// the values of the scales do; if the values contradict them, the note says so.
pub fn divide(scale: Scale, stored: &[f32]) -> (bool, Option<String>) {
    let mut sorted = stored.to_vec();
    sorted.sort_by(f32::total_cmp);
    let Some(&median) = sorted.get(sorted.len() / 2) else { return (false, None) };
    match scale {
        Scale::Unsaid if median < UNIT => {
            let note = format!(
                "config.json does not say whether scales multiply or divide; their median is {median:.3}, so they multiply"
            );
            (false, Some(note))
        }
        Scale::Unsaid => (true, None),
        Scale::Magnitude | Scale::Inverse => {
            let divides = scale == Scale::Inverse;
            let magnitude = if divides { 1.0 / median } else { median };
            let note = (magnitude > FAR).then(|| {
                let (does, would) = if divides { ("divide", "multiply") } else { ("multiply", "divide") };
                format!(
                    "by config.json scales {does}, which gives weights of magnitude {magnitude:.1}; check whether they {would}"
                )
            });
            (divides, note)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_settings_decide() {
        let of = |q: Json| scale(&json!({ "quantization_config": q }));
        assert_eq!(scale(&json!({})), Ok(None));
        for other in [json!({}), json!({"quant_method": "fp8"}), json!({"quant_algo": "FP8"})] {
            assert_eq!(of(other.clone()), Ok(None), "{other}");
        }
        assert_eq!(of(json!({"quant_method": "bitnet"})), Ok(Some(Scale::Unsaid)));
        assert_eq!(
            of(json!({"quant_method": "bitnet", "offline_quantization": true})),
            Ok(Some(Scale::Magnitude))
        );
        assert_eq!(
            of(json!({"quant_method": "bitnet", "linear_class": "bitlinear"})),
            Ok(Some(Scale::Inverse))
        );
        for bad in [
            json!({"quant_method": "bitnet", "linear_class": "x"}),
            json!({"quant_method": "bitnet", "use_rms_norm": true}),
            json!({"quant_method": "bitnet", "use_rms_norm": "true"}),
            json!({"quant_method": "bitnet", "linear_class": 7}),
            json!({"quant_method": "bitnet", "offline_quantization": 1}),
            json!({"quant_method": "bitnet", "modules_to_not_convert": "lm_head"}),
        ] {
            assert!(of(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn modules_are_left_out_by_whole_names() {
        let config = json!({"quantization_config": {"modules_to_not_convert": ["lm_head", "model.layers.1", "v_proj", r"model\.layers\.3\..*gate_proj", "(", "", 7]}});
        for (tensor, out) in [
            ("lm_head.weight", true),
            ("model.layers.1.mlp.up_proj.weight", true),
            ("model.layers.11.mlp.up_proj.weight", false),
            ("model.layers.0.mlp.up_proj.weight", false),
            ("model.layers.0.self_attn.v_proj.weight", true),
            ("model.layers.3.mlp.gate_proj.weight", true),
            ("model.layers.3.mlp.down_proj.weight", false),
        ] {
            assert_eq!(left_out(&config, tensor), out, "{tensor}");
        }
        assert!(!left_out(&json!({}), "lm_head.weight"));
    }

    #[test]
    fn the_numbers_are_looked_at() {
        assert_eq!(divide(Scale::Unsaid, &[48.0, 52.0, 50.0]), (true, None));
        assert!(matches!(divide(Scale::Unsaid, &[0.02, 0.03]), (false, Some(_))));
        assert_eq!(divide(Scale::Magnitude, &[0.02, 1.2]), (false, None));
        assert_eq!(divide(Scale::Inverse, &[50.0]), (true, None));
        assert!(matches!(divide(Scale::Magnitude, &[50.0]), (false, Some(_))));
        assert!(matches!(divide(Scale::Inverse, &[0.02]), (true, Some(_))));
    }
}

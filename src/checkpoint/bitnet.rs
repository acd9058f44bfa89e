//! Ternary weights (BitNet) in Hugging Face checkpoints: which tensors are ternary, and whether the stored scales
//! multiply or divide. Source: transformers' `integrations/bitnet`.

use regex::{RegexBuilder, RegexSet, RegexSetBuilder};
use serde_json::Value as Json;

use crate::arch::Arch;
use crate::arch::settings::Reader;
use crate::text::cut;

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

/// The modules that `quantization_config` excludes: their weights are plain floats.
#[derive(Debug)]
pub struct LeftOut {
    /// As in transformers, an entry is the end of a name, or a pattern for its beginning up to a dot.
    ends: Vec<String>,
    begins: RegexSet,
}

impl LeftOut {
    /// The most entries. Published models have a few, and lists of every module have some hundreds.
    const MOST: usize = 4096;
    /// The memory that all patterns may take together when they are compiled, and one of them, in bytes. A few characters
    /// can stand for megabytes.
    const PATTERNS: usize = 8 << 20;
    const PATTERN: usize = 64 << 10;

    /// The entries of `modules_to_not_convert`. What is no pattern counts as the end of a name only.
    ///
    /// # Errors
    /// What is too much: more entries, or larger patterns, than any model has.
    pub fn of(config: &Json) -> Result<Self, String> {
        let list = config["quantization_config"]["modules_to_not_convert"].as_array();
        let names = list.into_iter().flatten().filter_map(Json::as_str).filter(|name| !name.is_empty());
        let ends: Vec<String> = names.map(str::to_string).collect();
        if ends.len() > Self::MOST {
            let (n, most) = (ends.len(), Self::MOST);
            return Err(format!("modules_to_not_convert has {n} entries (at most {most} are read)"));
        }
        let mut patterns = Vec::new();
        for name in &ends {
            let pattern = format!("^(?:{name})(?:\\.|$)");
            match RegexBuilder::new(&pattern).size_limit(Self::PATTERN).build() {
                Ok(_) => patterns.push(pattern),
                Err(regex::Error::CompiledTooBig(_)) => {
                    let shown = cut(name, 60);
                    return Err(format!("the pattern {shown:?} in modules_to_not_convert is too large"));
                }
                Err(_) => {}
            }
        }
        let begins = RegexSetBuilder::new(patterns).size_limit(Self::PATTERNS).build();
        let begins = begins.map_err(|_| "the patterns in modules_to_not_convert are too large together")?;
        Ok(Self { ends, begins })
    }

    /// Whether the module of a tensor is one of them.
    pub fn has(&self, tensor: &str) -> bool {
        let module = tensor.strip_suffix(".weight").unwrap_or(tensor);
        self.ends.iter().any(|name| module.ends_with(name.as_str())) || self.begins.is_match(module)
    }
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
            assert_eq!(LeftOut::of(&config).unwrap().has(tensor), out, "{tensor}");
        }
        assert!(!LeftOut::of(&json!({})).unwrap().has("lm_head.weight"));
    }

    #[test]
    fn lists_of_modules_have_bounds() {
        let of = |list: Vec<String>| {
            LeftOut::of(&json!({"quantization_config": {"modules_to_not_convert": list}}))
        };
        let usual = (0..500).map(|i| format!("model.layers.{i}.self_attn.q_proj")).collect();
        assert!(of(usual).unwrap().has("model.layers.499.self_attn.q_proj.weight"));
        for (list, why) in [
            (vec!["a".to_string(); 5000], "5000 entries"),
            (vec![r"\p{L}{500}".into()], "is too large"),
            ((0..2000).map(|i| format!(r"{i}\p{{L}}")).collect(), "too large together"),
        ] {
            let said = of(list).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
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

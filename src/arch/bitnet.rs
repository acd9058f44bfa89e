//! BitNet b1.58 as in Microsoft's 2B-4T model: ternary projections, squared ReLU, and sub-norms. GGUF files have
//! bitnet.cpp's name for it, since llama.cpp's own "bitnet" computes SiLU.

use super::layers::{DECODER, SUB_NORMS};
use super::{Arch, Class, Made, Rotary};

const CLASS: Class = Class {
    name: "BitNetForCausalLM",
    model_type: "bitnet",
    context: 2048,
    epsilon: 1e-5,
    theta: 500_000.0,
    kv_heads: Some(5),
    head: None,
    sliding_window: false,
    sliding_layers: false,
};

pub(super) const BITNET: Arch = Arch {
    name: "bitnet-b1.58",
    // What bitnet.cpp's converter for the master weights of 2B-4T writes; bitnet.cpp computes the same for both names.
    aliases: &["bitnet-25"],
    classes: &[CLASS, Class { name: "BitnetForCausalLM", ..CLASS }],
    rotary: Rotary::Halves,
    activation: &["relu2"],
    int8_activations: true,
    writes_head_length: false,
    writes_vocab_size: true,
    rope_freqs: false,
    qkv_biases: false,
    any_bias: false,
    programs: Some(programs),
    tensors: &[DECODER, SUB_NORMS],
};

/// Which programs run a file, as bitnet.cpp (January 2026) and ik_llama.cpp (August 2026) did. bitnet.cpp's graph multiplies
/// with the token embedding whether or not there is an `output.weight`; ik_llama.cpp has no kernel for I2_S, which is
/// only what it makes IQ2_BN of, and no ternary types of llama.cpp.
fn programs(made: &Made) -> String {
    let named = |names: &[&str]| made.types.iter().find(|t| names.contains(&t.as_str()));
    let i2_s = named(&["i2_s"]).is_some();
    // Their numbers mean other types in bitnet.cpp, which left llama.cpp before these came.
    let new = named(&["mxfp4", "nvfp4", "q1_0", "q2_0"]);
    let ternary = named(&["tq1_0", "tq2_0"]);
    let not_bitnet_cpp = match (made.untied, new) {
        (true, _) => Some(
            "bitnet.cpp ignores the output matrix (output.weight) and computes wrong logits with the token embedding".into(),
        ),
        (false, Some(new)) => Some(format!("bitnet.cpp has no {new}")),
        (false, None) => None,
    };
    let not_ik = ternary.or(new).map(|t| format!("ik_llama.cpp is not known to run {t}"));
    let runs = match (not_bitnet_cpp, not_ik, i2_s) {
        (None, None, false) => "runs in bitnet.cpp and ik_llama.cpp".into(),
        (None, None, true) => {
            "runs in bitnet.cpp; ik_llama.cpp loads i2_s but computes garbage, unless its llama-quantize \
                               makes iq2_bn of it first"
                .into()
        }
        (None, Some(why), _) => format!("runs in bitnet.cpp only ({why})"),
        (Some(why), None, false) => format!("runs in ik_llama.cpp only ({why})"),
        (Some(why), None, true) => {
            format!("runs in ik_llama.cpp only, after its llama-quantize has made iq2_bn of it ({why})")
        }
        (Some(first), Some(second), _) => format!("runs in no other program ({first}; {second})"),
    };
    format!("{} {runs}; llama.cpp refuses it (its own bitnet computes SiLU)", made.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_depend_on_the_head_and_the_types() {
        let says = |untied, types: &[&str]| {
            let types: Vec<String> = types.iter().map(|t| t.to_string()).collect();
            programs(&Made { name: "bitnet-25", untied, types: &types })
        };
        assert!(says(false, &["bf16", "f32"]).starts_with("bitnet-25 runs in bitnet.cpp and ik_llama.cpp;"));
        let packed = says(false, &["i2_s", "f16", "f32"]);
        assert!(packed.contains("runs in bitnet.cpp;") && packed.contains("iq2_bn"), "{packed}");
        for ternary in ["tq1_0", "tq2_0"] {
            assert!(says(false, &["f32", ternary]).contains("runs in bitnet.cpp only"), "{ternary}");
        }
        let untied = says(true, &["bf16", "f32"]);
        assert!(
            untied.contains("runs in ik_llama.cpp only (bitnet.cpp ignores the output matrix"),
            "{untied}"
        );
        let both = says(true, &["i2_s", "f32"]);
        assert!(both.contains("iq2_bn") && both.contains("ignores"), "{both}");
        assert!(says(true, &["tq2_0"]).contains("no other program"));
        assert!(says(false, &["mxfp4"]).contains("no other program"));
    }
}

//! Decides each tensor's new type by applying the rules in order.

use std::borrow::Cow;

use formats::block::DType;
use formats::container::gguf;
use formats::metadata::Metadata;
use formats::model::{Encoding, Location, Tensor};

use super::{Choice, Container, Decision, PlanOptions, container, keep_vector};
use crate::error::{Error, Result};
use crate::scheme::facts::{RuleInputs, is_vector};
use crate::scheme::role::{Role, role};
use crate::scheme::{self, is_integer};
use crate::source::Source;

/// The rules for tensors that no scheme quantizes.
const VECTOR: &str = "vector";
const EXEMPT: &str = "never quantized";

/// The rule for tensors that keep their type because no scheme is given.
const KEPT: &str = "kept";

/// The rule for tensors that no scheme is for: those of image models, which programs of their own read.
const WIDE: &str = "more than four dimensions";

/// Applies the rules in this order: `--tensor`, `--embedding-type` and `--output-type`, vectors and exempt tensors, the
/// scheme.
///
/// # Errors
/// [`Error::Usage`] if a `--tensor` pattern decides about no tensor; [`Error::Refused`] if the rows of an I2_S tensor do not fit;
/// [`Error::InvalidConfig`] for settings of a wrong type.
pub(super) fn decisions(
    source: &Source,
    options: &PlanOptions,
    target: Container,
    metadata: &Metadata,
) -> Result<(Vec<Decision>, Vec<Tensor>)> {
    let model = &source.model;
    let main = container::main_type(&model.tensors);
    let inputs = RuleInputs::new(model, metadata, options.importance)
        .map_err(|e| Error::InvalidConfig { file: source.path.clone(), why: e.to_string() })?;
    let mut used = vec![false; options.tensors.len()];
    // Not pairs, which would have to be taken apart: there may be a million.
    let mut decisions = Vec::with_capacity(model.tensors.len());
    let mut tensors = Vec::with_capacity(model.tensors.len());
    for (i, t) in model.tensors.iter().enumerate() {
        let (choice, mut rule) = choose(&inputs, i, t, options, &mut used);
        let left_alone = choice == Choice::Keep && [VECTOR, EXEMPT].contains(&&*rule);
        let mut fallback_from = None;
        let encoding = match choice {
            Choice::Keep => match t.encoding {
                // Only llama2.c's container has these groups; f32 holds their values exactly.
                Encoding::Int8Groups { .. } => Encoding::Blocks(DType::F32),
                e => e,
            },
            Choice::I2S => {
                refuse_rows(t)?;
                Encoding::I2S
            }
            Choice::To(dtype) => {
                let fits = scheme::fallback(dtype, t.cols());
                fallback_from = (fits != dtype).then_some(dtype);
                Encoding::Blocks(fits)
            }
        };
        let encoding = match (encoding, &options.scheme) {
            (Encoding::Blocks(DType::F16 | DType::BF16 | DType::F64), Some(s)) if left_alone => {
                match target {
                    // llama.cpp requires tensors that are never quantized in f32.
                    Container::Gguf => Encoding::Blocks(DType::F32),
                    _ => Encoding::Blocks(s.base),
                }
            }
            (Encoding::Blocks(DType::F32), Some(s)) if left_alone && target == Container::Safetensors => {
                Encoding::Blocks(s.base)
            }
            (Encoding::Blocks(d), None)
                if rule == KEPT && (is_vector(t) || inputs.role(i) == Role::Exempt) =>
            {
                let kept = keep_vector(source, i, d, target, main)?;
                if kept != d {
                    rule = VECTOR.into();
                }
                Encoding::Blocks(kept)
            }
            (e, _) => e,
        };
        tensors.push(Tensor { encoding, location: Location::default(), ..t.clone() });
        decisions.push(Decision { source: i, from: t.encoding, rule, fallback_from });
    }
    if let Some(i) = used.iter().position(|u| !u) {
        let pattern = &options.tensors[i].0;
        if model.tensors.iter().any(|t| pattern.is_match(&t.name)) {
            let why = format!(
                "--tensor {pattern}: every tensor that matches has its type from an earlier --tensor"
            );
            return Err(Error::usage(why).or("leave it out, or put it before the other"));
        }
        return Err(Error::usage(format!("--tensor {pattern}: no tensor name matches"))
            .or("list the names with `ggufkit inspect MODEL --tensors`"));
    }
    Ok((decisions, tensors))
}

/// Checks that I2_S's block divides the rows: bitnet.cpp has no type with smaller blocks to fall back to.
fn refuse_rows(t: &Tensor) -> Result<()> {
    if t.cols().is_multiple_of(Encoding::I2S.unit()) {
        return Ok(());
    }
    let why = format!(
        "tensor {}: rows of {} weights are not a multiple of 128, the block size of i2_s",
        t.name,
        t.cols()
    );
    Err(Error::refused(why)
        .or("use --type f16 for the model; or choose another type for this tensor with --tensor REGEX=TYPE"))
}

/// The type of tensor `i`, and the rule that chose it. Marks the `--tensor` pattern as used.
fn choose(
    inputs: &RuleInputs,
    i: usize,
    t: &Tensor,
    options: &PlanOptions,
    used: &mut [bool],
) -> (Choice, Cow<'static, str>) {
    for (i, (pattern, choice)) in options.tensors.iter().enumerate() {
        if pattern.is_match(&t.name) {
            used[i] = true;
            return (*choice, format!("--tensor {pattern}").into());
        }
    }
    let subject = inputs.subject(i, t);
    let by_option = match (inputs.is_embedding(i), subject.role) {
        (true, role) => options.embedding.map(|c| (c, "--embedding-type")).or_else(|| {
            let output = options.output.filter(|_| role == Role::Output);
            output.map(|c| (c, "--output-type (tied embeddings)"))
        }),
        (false, Role::Output) => options.output.map(|c| (c, "--output-type")),
        _ => None,
    };
    if let Some((choice, rule)) = by_option {
        return (choice, rule.into());
    }
    match &options.scheme {
        None => (Choice::Keep, KEPT.into()),
        _ if is_vector(t) => (Choice::Keep, VECTOR.into()),
        _ if t.shape.len() > gguf::GGML_DIMS => (Choice::Keep, WIDE.into()),
        _ if subject.role == Role::Exempt => (Choice::Keep, EXEMPT.into()),
        _ if matches!(t.encoding, Encoding::Blocks(d) if is_integer(d)) => (Choice::Keep, "integers".into()),
        Some(s) if options.pure => (Choice::To(s.base), "pure".into()),
        Some(s) => {
            let (choice, rule) = s.choose(&subject);
            (choice, rule.into())
        }
    }
}

/// A note if tensors get a type with so few bits that it needs an importance matrix, and there is none.
pub(super) fn missing_importance_note(
    options: &PlanOptions,
    decisions: &[Decision],
    tensors: &[Tensor],
) -> Option<String> {
    if options.importance {
        return None;
    }
    let scheme = options.scheme.as_ref().map(|s| s.name.as_str());
    let mut types: Vec<&str> = Vec::new();
    let mut count = 0;
    for (_, t) in decisions.iter().zip(tensors).filter(|(s, t)| s.from != t.encoding) {
        let Encoding::Blocks(dtype) = t.encoding else { continue };
        let needed = scheme::needs_importance(dtype, scheme);
        if !needed || matches!(role(&t.name), Role::Embedding | Role::Output) {
            continue;
        }
        count += 1;
        if !types.contains(&dtype.name()) {
            types.push(dtype.name());
        }
    }
    let types = types.join(", ");
    let becomes = if count == 1 { "tensor becomes" } else { "tensors become" };
    (count > 0).then(|| {
        format!(
            "{count} {becomes} {types} without an importance matrix, which costs these types most of their quality \
             (llama-quantize refuses it): add --imatrix FILE or --calibration TEXT, or use q3_k_s or larger"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Plan, plan};
    use crate::scheme::facts::tests::model;
    use formats::metadata::Value;
    use regex::Regex;

    /// The plan for a GGUF of these tensors, with four heads for each key/value head.
    fn planned(tensors: &[(&str, &[u64])], options: PlanOptions) -> Result<Plan> {
        let settings = [
            ("general.architecture", Value::text("llama")),
            ("llama.block_count", Value::U32(16)),
            ("llama.attention.head_count", Value::U32(8)),
            ("llama.attention.head_count_kv", Value::U32(2)),
        ];
        let mut source = Source::new("x.gguf".as_ref(), model(tensors, &settings), Vec::new());
        source.weightless = true;
        plan(&source, &PlanOptions { out: "out.gguf".into(), ..options })
    }

    /// Type and rule of each tensor.
    fn chosen(tensors: &[(&str, &[u64])], options: PlanOptions) -> Vec<(String, String)> {
        let plan = planned(tensors, options).unwrap();
        let types = plan.layout.tensors.iter().map(|t| t.encoding.name());
        types.zip(plan.decisions).map(|(t, s)| (t, s.rule.into_owned())).collect()
    }

    fn is(found: &[(String, String)], expected: &[(&str, &str)]) {
        let found: Vec<_> = found.iter().map(|(t, r)| (t.as_str(), r.as_str())).collect();
        assert_eq!(found, expected);
    }

    const SOME: &[(&str, &[u64])] = &[
        ("output.weight", &[512, 256]),
        ("token_embd.weight", &[512, 256]),
        ("blk.0.attn_v.weight", &[64, 256]),
        ("blk.0.attn_norm.weight", &[256]),
        ("blk.0.ffn_down.weight", &[256, 768]),
        ("blk.0.ffn_gate_inp.weight", &[8, 256]),
        ("blk.9.ffn_down.weight", &[256, 768]),
        ("blk.9.attn_q.weight", &[256, 256]),
    ];

    #[test]
    fn every_decision_names_its_rule() {
        let options = PlanOptions { scheme: scheme::find("q4_k_m"), ..PlanOptions::default() };
        is(
            &chosen(SOME, options),
            &[
                ("q6_k", "q4_k_m: output"),
                ("q4_k", "q4_k_m"),
                ("q6_k", "q4_k_m: attn_v, layers more"),
                ("f32", "vector"),
                ("q6_k", "q4_k_m: ffn_down, layers more, arch != falcon"),
                ("f32", "never quantized"),
                ("q6_k", "q4_k_m: ffn_down, layers more, arch != falcon"),
                ("q4_k", "q4_k_m"),
            ],
        );
    }

    #[test]
    fn hugging_faces_names_mean_the_same() {
        let hub: &[(&str, &[u64])] = &[
            ("lm_head.weight", &[512, 256]),
            ("model.embed_tokens.weight", &[512, 256]),
            ("model.layers.0.self_attn.v_proj.weight", &[64, 256]),
            ("model.layers.0.input_layernorm.weight", &[256]),
            ("model.layers.0.mlp.down_proj.weight", &[256, 768]),
            ("model.layers.0.block_sparse_moe.gate.weight", &[8, 256]),
            ("model.layers.9.mlp.down_proj.weight", &[256, 768]),
            ("model.layers.9.self_attn.q_proj.weight", &[256, 256]),
        ];
        for s in scheme::all() {
            let options = || PlanOptions { scheme: scheme::find(&s.name), ..PlanOptions::default() };
            // Only tensors with llama.cpp's names get scales of the whole tensor.
            let mut ours = chosen(SOME, options());
            ours.retain(|decision| decision.1 != "scale of a tensor");
            assert_eq!(chosen(hub, options()), ours, "{}", s.name);
        }
    }

    #[test]
    fn options_apply_before_the_scheme() {
        let tensor = |pattern: &str, choice| (Regex::new(pattern).unwrap(), choice);
        let options = || PlanOptions {
            scheme: scheme::find("q4_k_m"),
            tensors: vec![
                tensor("blk.0.ffn", Choice::To(DType::Q8_0)),
                tensor("blk", Choice::Keep),
                tensor("token", Choice::To(DType::Q5_0)),
            ],
            ..PlanOptions::default()
        };
        is(
            &chosen(SOME, PlanOptions { output: Some(Choice::To(DType::BF16)), pure: true, ..options() })
                [..3],
            &[("bf16", "--output-type"), ("q5_0", "--tensor token"), ("f16", "--tensor blk")],
        );
        let found = chosen(SOME, PlanOptions { embedding: Some(Choice::Keep), ..options() });
        is(&found[4..6], &[("q8_0", "--tensor blk.0.ffn"), ("q8_0", "--tensor blk.0.ffn")]);
        assert_eq!(found[1].1, "--tensor token");
        let unused = PlanOptions { tensors: vec![tensor("nothing", Choice::Keep)], ..options() };
        assert!(planned(SOME, unused).is_err_and(|e| e.to_string().contains("--tensor nothing")));
        // Tied embeddings.
        let tied = PlanOptions {
            output: Some(Choice::To(DType::BF16)),
            scheme: scheme::find("q4_k_m"),
            ..PlanOptions::default()
        };
        is(&chosen(&SOME[1..2], tied), &[("bf16", "--output-type (tied embeddings)")]);
        let tied = PlanOptions { scheme: scheme::find("q4_k_m"), ..PlanOptions::default() };
        is(&chosen(&SOME[1..2], tied), &[("q6_k", "q4_k_m: output")]);
    }

    #[test]
    fn a_block_that_does_not_divide_the_row_is_reported_or_refused() {
        let odd: &[(&str, &[u64])] = &[
            ("output.weight", &[512, 256]),
            ("blk.0.attn_q.weight", &[256, 896]),
            ("blk.0.attn_k.weight", &[256, 100]),
        ];
        let options =
            |strict| PlanOptions { scheme: scheme::find("q4_k_m"), strict, ..PlanOptions::default() };
        let plan = planned(odd, options(false)).unwrap();
        let types: Vec<_> = plan.layout.tensors.iter().map(|t| t.encoding.name()).collect();
        assert_eq!(types, ["q6_k", "q5_0", "f16"]);
        let fallbacks: Vec<_> = plan.decisions.iter().map(|s| s.fallback_from).collect();
        assert_eq!(fallbacks, [None, Some(DType::Q4_K), Some(DType::Q4_K)]);
        let why = planned(odd, options(true)).err().unwrap().to_string();
        assert!(why.contains("896") && why.contains("q4_k") && why.contains("blk.0.attn_k.weight"), "{why}");
    }

    #[test]
    fn rules_depend_on_importance_and_a_note_says_if_it_is_missing() {
        let options = |name, importance| PlanOptions {
            scheme: scheme::find(name),
            importance,
            ..PlanOptions::default()
        };
        let down = |importance| chosen(SOME, options("q4_0", importance))[4].0.clone();
        assert_eq!([down(false), down(true)], ["q4_0", "q4_1"]);
        let notes = |name, importance| planned(SOME, options(name, importance)).unwrap().notes;
        assert!(
            notes("iq2_xs", false).iter().any(|n| n.starts_with("1 tensor becomes iq2_xs without")),
            "{:?}",
            notes("iq2_xs", false)
        );
        assert!(notes("q2_k_s", false).iter().any(|n| n.contains(" q2_k without an importance matrix")));
        for (name, importance) in [("iq2_xs", true), ("q2_k", false), ("q4_k_m", false)] {
            assert!(
                !notes(name, importance).iter().any(|n| n.contains("without an importance matrix")),
                "{name}"
            );
        }
    }

    #[test]
    fn file_types_are_named_in_the_result() {
        for (name, number) in [("q4_k_m", 15), ("iq3_xs", 22), ("mxfp4_moe", 38)] {
            let plan =
                planned(SOME, PlanOptions { scheme: scheme::find(name), ..PlanOptions::default() }).unwrap();
            assert_eq!(plan.metadata.get("general.file_type"), Some(&Value::U32(number)), "{name}");
        }
    }
}

//! What the values of a GGUF's keys must be, beyond their types ([`super::keys`]): a program that finds another one
//! stops, or computes with numbers that are none.
//!
//! Source: llama.cpp's loader (`llama-model.cpp`), which stops at kinds of RoPE scaling that it does not know, and its
//! kernels, which take a power of the RoPE base and the root of a sum with the epsilon of a norm.

use std::fmt;

use formats::metadata::Value;

use super::by_name;
use super::keys::{self, Form};

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Must {
    /// An integer of at least 1.
    Count,
    /// A finite number above 0.
    Positive,
    /// A finite number of at least 0.
    NotNegative,
    /// A finite number.
    Finite,
    /// One of these names.
    OneOf(&'static [&'static str]),
    /// A text that is not empty.
    Named,
}

/// As the rest of a sentence that begins with "must be".
impl fmt::Display for Must {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Count => f.write_str("an integer of at least 1"),
            Self::Positive => f.write_str("a finite number above 0"),
            Self::NotNegative => f.write_str("a finite number of at least 0"),
            Self::Finite => f.write_str("a finite number"),
            Self::OneOf(names) => write!(f, "one of {}", names.join(", ")),
            Self::Named => f.write_str("a name, which is not empty"),
        }
    }
}

impl Must {
    /// Whether a value is that, or all values of a list are.
    pub fn holds(self, value: &Value) -> bool {
        if let Value::Array(list) = value {
            return list.values().all(|value| self.holds(&value));
        }
        let number = |is: fn(f64) -> bool| value.as_f64().is_some_and(|x| x.is_finite() && is(x));
        match self {
            Self::Count => value.as_u64().is_some_and(|n| n > 0),
            Self::Positive => number(|x| x > 0.0),
            Self::NotNegative => number(|x| x >= 0.0),
            Self::Finite => number(|_| true),
            Self::OneOf(names) => value.as_str().is_some_and(|text| names.contains(&text)),
            Self::Named => value.as_str().is_some_and(|text| !text.is_empty()),
        }
    }
}

/// The kinds of RoPE scaling that programs know.
const SCALINGS: &[&str] = &["none", "linear", "yarn", "longrope"];

/// Ends of keys that begin with the name of an architecture, with what their values must be.
#[rustfmt::skip]
const SETTINGS: &[(Must, &[&str])] = &[
    (Must::Count, &["context_length", "embedding_length", "block_count", "vocab_size"]),
    (Must::Positive, &[
        "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "rope.freq_base", "rope.freq_base_swa",
        "rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow",
    ]),
    // 0 stands for none.
    (Must::NotNegative, &[
        "rope.scaling.factor", "rope.scale_linear", "attention.scale", "attention.clamp_kqv", "attention.max_alibi_bias",
        "attn_logit_softcapping", "final_logit_softcapping", "expert_weights_scale", "embedding_scale", "residual_scale",
        "logit_scale",
    ]),
    (Must::OneOf(SCALINGS), &["rope.scaling.type"]),
];

/// Other keys.
const OTHERS: &[(Must, &[&str])] = &[(Must::Named, &["general.architecture", "tokenizer.ggml.model"])];

/// What the value of a key must be, beyond its type; `None` if any is right. `arch` is the file's architecture.
pub fn must(key: &str, arch: &str) -> Option<Must> {
    let find = |table: &[(Must, &[&str])], end: &str| {
        table.iter().find(|(_, ends)| ends.contains(&end)).map(|(must, _)| *must)
    };
    let forms = keys::forms(key, arch)?;
    let end = key
        .strip_prefix(arch)
        .and_then(|end| end.strip_prefix('.'))
        .or_else(|| key.split_once('.').filter(|(first, _)| by_name(first).is_some()).map(|(_, end)| end));
    let float = formats::metadata::Kind::F32;
    let finite = matches!(forms, [Form::One(kind) | Form::List(kind)] if *kind == float);
    find(OTHERS, key).or_else(|| find(SETTINGS, end?)).or(finite.then_some(Must::Finite))
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::metadata::{Array, Kind};

    #[test]
    fn values_are_what_they_must_be() {
        for (key, right, wrong) in [
            ("mamba.block_count", vec![Value::U32(1)], vec![Value::U32(0)]),
            (
                "mamba.attention.layer_norm_epsilon",
                vec![Value::F32(1e-12)],
                vec![Value::F32(0.0), Value::F32(-1e-5), Value::F32(f32::NAN), Value::F32(f32::INFINITY)],
            ),
            ("llama.rope.freq_base", vec![Value::F32(1.0)], vec![Value::F32(-0.0), Value::F32(-1.0)]),
            (
                "qwen2.rope.scaling.factor",
                vec![Value::F32(0.0)],
                vec![Value::F32(-2.0), Value::F32(f32::NAN)],
            ),
            ("mamba.rope.scaling.yarn_ext_factor", vec![Value::F32(-1.0)], vec![Value::F32(f32::NAN)]),
            (
                "mamba.rope.scaling.type",
                vec![Value::text("longrope")],
                vec![Value::text("ntk"), Value::text("")],
            ),
            ("general.architecture", vec![Value::text("x")], vec![Value::text("")]),
            ("general.sampling.temp", vec![Value::F32(0.0)], vec![Value::F32(f32::NEG_INFINITY)]),
        ] {
            let must = must(key, "mamba").unwrap();
            assert!(right.iter().all(|value| must.holds(value)), "{key}: {must}");
            assert!(!wrong.iter().any(|value| must.holds(value)), "{key}: {must}");
        }
        let scores = must("tokenizer.ggml.scores", "mamba").unwrap();
        let list = |x| Value::Array(Array::new(Kind::F32, [Value::F32(0.0), Value::F32(x)]).unwrap());
        assert!(scores.holds(&list(-1.0)) && !scores.holds(&list(f32::NAN)));
        for key in ["general.name", "mamba.attention.head_count", "mamba.own", "own.block_count", ""] {
            assert_eq!(must(key, "mamba"), None, "{key}");
        }
    }

    #[test]
    fn keys_of_which_something_is_said_have_types() {
        for (_, ends) in SETTINGS {
            assert!(
                ends.iter().all(|end| keys::forms(&format!("mamba.{end}"), "mamba").is_some()),
                "{ends:?}"
            );
        }
    }
}

//! Quantization schemes: named sets of rules that give every tensor of a model a type. `schemes.toml` lists them all.

mod choice;
pub mod facts;
pub mod recipe;
pub mod role;
pub mod rule;

use crate::order;
use std::sync::{Arc, LazyLock};

use formats::block::{DType, Family, Section};

pub use choice::{Choice, Container, is_integer};
pub use role::{Role, role};
use rule::{Rule, Subject};

/// A named set of rules that give every tensor of a model a type.
#[derive(Debug, Clone)]
pub struct Scheme {
    /// The name: for built-in schemes llama.cpp's in lower case, for recipes their own.
    pub name: String,
    /// Other names, such as `int4`.
    pub aliases: Vec<String>,
    /// The base: the type of every tensor that no rule matches. It is never I2_S, which suits only ternary matrices.
    pub base: DType,
    /// `general.file_type` in GGUF. In a recipe it is optional and follows from the base.
    pub file_type: Option<u32>,
    /// The rules; the first one that matches a tensor applies.
    pub rules: Vec<Rule>,
}

static SCHEMES: LazyLock<Vec<Arc<Scheme>>> = LazyLock::new(|| {
    recipe::built_in(include_str!("schemes.toml")).unwrap_or_else(|e| panic!("schemes.toml: {e}"))
});

/// All built-in schemes.
pub fn all() -> &'static [Arc<Scheme>] {
    &SCHEMES
}

/// The scheme with this name or alias, ignoring case.
pub fn by_name(name: &str) -> Option<&'static Arc<Scheme>> {
    let is = |n: &String| n.eq_ignore_ascii_case(name);
    all().iter().find(|s| is(&s.name) || s.aliases.iter().any(is))
}

/// The scheme with this name or alias as an owned reference.
pub fn find(name: &str) -> Option<Arc<Scheme>> {
    by_name(name).cloned()
}

impl Scheme {
    /// The type of a tensor, and in words the rule that chose it.
    pub fn choose(&self, subject: &Subject) -> (Choice, String) {
        match self.rules.iter().find(|r| r.matches(subject)) {
            Some(rule) => (rule.to, format!("{}: {rule}", self.name)),
            None => (Choice::To(self.base), self.name.clone()),
        }
    }

    /// Its `general.file_type` in GGUF.
    pub fn file_type(&self) -> Option<u32> {
        self.file_type.or_else(|| file_type(self.base))
    }
}

/// The `general.file_type` of a tensor type: that of the scheme with its name, or else of the first scheme with this base.
pub fn file_type(dtype: DType) -> Option<u32> {
    by_name(dtype.name()).or_else(|| all().iter().find(|s| s.base == dtype))?.file_type
}

/// Parses type names separated by commas, and removes duplicates.
///
/// # Errors
/// A message for an unknown type, or for an empty list.
pub fn types(text: &str) -> Result<Vec<DType>, String> {
    let mut all = Vec::new();
    for name in text.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        let Choice::To(dtype) = choice(name)? else {
            return Err(format!("{name:?} cannot be used in this list of types"));
        };
        if !all.contains(&dtype) {
            all.push(dtype);
        }
    }
    if all.is_empty() { Err("the list of types is empty".into()) } else { Ok(all) }
}

/// The name of bitnet.cpp's type and of the scheme that uses it.
pub const I2_S: &str = "i2_s";

/// The type with this name, or the base of the scheme with this name, or `keep`.
///
/// # Errors
/// A message if there is no such type, or if weights cannot be written in it.
pub fn choice(name: &str) -> Result<Choice, String> {
    if name.eq_ignore_ascii_case("keep") {
        return Ok(Choice::Keep);
    }
    if name.eq_ignore_ascii_case(I2_S) {
        return Ok(Choice::I2S);
    }
    let dtype = DType::from_name(name).or_else(|| by_name(name).map(|s| s.base));
    dtype.filter(|&d| holds_weights(d)).map(Choice::To).ok_or_else(|| {
        if let Some(why) = for_activations(name) {
            return why;
        }
        let types = formats::block::TYPES.iter().filter(|t| holds_weights(t.dtype)).map(|t| t.name);
        format!("unknown type {name:?}; the types are keep, {I2_S}, {}", types.collect::<Vec<_>>().join(", "))
    })
}

/// Whether a type can hold weights. Integer types and ggml's two activation types cannot.
pub fn holds_weights(dtype: DType) -> bool {
    dtype.info().holds_weights()
}

/// If this is the name of an activation type, a message that says why it cannot hold weights.
pub fn for_activations(name: &str) -> Option<String> {
    let dtype = DType::from_name(name).filter(|d| d.info().family == Family::Activations)?;
    Some(format!(
        "{} is a type for activations, and no program that runs models accepts it for weights; use q8_0, which is as precise",
        dtype.name()
    ))
}

/// The type to use if a type's block does not divide rows of `cols` weights: as in llama-quantize, a type with smaller blocks
/// and at least as many bits, and f16 as the last resort. For types that llama-quantize gives up on (q1_0, nvfp4), the most
/// similar type with smaller blocks. The type itself if its block divides the rows.
pub fn fallback(dtype: DType, cols: u64) -> DType {
    dtype.fitting(cols)
}

/// Whether a type has so few bits that it needs an importance matrix: llama-quantize refuses to make these types without
/// one. q2_k needs one only in the scheme `q2_k_s`.
pub fn needs_importance(dtype: DType, scheme: Option<&str>) -> bool {
    dtype.info().needs_importance || (dtype == DType::Q2_K && scheme == Some("q2_k_s"))
}

/// The schemes for help texts: for each section of the list of types, its title and the names of the schemes whose base is
/// in that section, with aliases in brackets. Schemes with more bits per weight come first. bitnet.cpp's scheme is in the
/// section of ternary types.
pub fn table() -> Vec<(String, Vec<String>)> {
    let row = |(section, title): &(Section, &str)| {
        let ternary = *section == Section::Ternary;
        let listed = |s: &&Arc<Scheme>| match s.name == I2_S {
            true => ternary,
            false => s.base.info().section == Some(*section),
        };
        let mut schemes: Vec<_> = all().iter().filter(listed).collect();
        order::by(&mut schemes, |a, b| b.base.bits_per_weight().total_cmp(&a.base.bits_per_weight()));
        let name = |s: &Arc<Scheme>| match s.aliases.is_empty() {
            true => s.name.clone(),
            false => format!("{} ({})", s.name, s.aliases.join(", ")),
        };
        (title.to_string(), schemes.into_iter().map(name).collect())
    };
    Section::ALL.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_types_can_be_written() {
        let mut seen = std::collections::HashSet::new();
        for s in all() {
            for name in s.aliases.iter().chain([&s.name]) {
                assert!(seen.insert(name.clone()), "{name}");
                assert!(Arc::ptr_eq(by_name(&name.to_uppercase()).unwrap(), s));
            }
            for to in s.rules.iter().map(|r| r.to).chain([Choice::To(s.base)]) {
                let written = matches!(to, Choice::To(d) if holds_weights(d));
                assert!(written || to == Choice::I2S && s.name == I2_S, "{}", s.name);
            }
        }
        for name in ["int4", "int8", "ternary", "fp16", "q3_k", "Q4_K", "q5_k"] {
            assert!(find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn file_types_are_llama_cpps() {
        for (name, number) in [
            ("f32", 0),
            ("f16", 1),
            ("q4_0", 2),
            ("q4_1", 3),
            ("q8_0", 7),
            ("q5_0", 8),
            ("q5_1", 9),
            ("q2_k", 10),
            ("q3_k_s", 11),
            ("q3_k_m", 12),
            ("q3_k_l", 13),
            ("q4_k_s", 14),
            ("q4_k_m", 15),
            ("q5_k_s", 16),
            ("q5_k_m", 17),
            ("q6_k", 18),
            ("iq2_xxs", 19),
            ("iq2_xs", 20),
            ("q2_k_s", 21),
            ("iq3_xs", 22),
            ("iq3_xxs", 23),
            ("iq1_s", 24),
            ("iq4_nl", 25),
            ("iq3_s", 26),
            ("iq3_m", 27),
            ("iq2_s", 28),
            ("iq2_m", 29),
            ("iq4_xs", 30),
            ("iq1_m", 31),
            ("bf16", 32),
            ("tq1_0", 36),
            ("tq2_0", 37),
            ("mxfp4_moe", 38),
            ("nvfp4", 39),
            ("q1_0", 40),
            ("q2_0", 41),
            ("i2_s", 40),
        ] {
            assert_eq!(find(name).unwrap().file_type(), Some(number), "{name}");
        }
        // The file type of a file with one tensor type, as llama.cpp guesses it.
        for (dtype, number) in
            [(DType::Q4_K, 15), (DType::Q3_K, 12), (DType::Q5_K, 17), (DType::IQ2_S, 28), (DType::IQ3_S, 26)]
        {
            assert_eq!(file_type(dtype), Some(number), "{}", dtype.name());
        }
        assert_eq!(file_type(DType::F64), None);
    }

    #[test]
    fn a_fallback_always_fits() {
        for t in formats::block::TYPES.iter().filter(|t| holds_weights(t.dtype)) {
            for cols in [1, 31, 32, 64, 128, 172, 256, 288, 512] {
                let found = fallback(t.dtype, cols);
                assert!(cols.is_multiple_of(found.info().weights as u64));
                assert_eq!(found == t.dtype, cols.is_multiple_of(t.weights as u64));
                assert!(found == t.dtype || found.bits_per_weight() >= t.dtype.bits_per_weight());
            }
        }
        for (dtype, cols, expected) in [
            (DType::TQ2_0, 288, DType::Q4_0),
            (DType::Q4_0, 172, DType::F16),
            (DType::Q4_K, 896, DType::Q5_0),
            (DType::Q5_K, 896, DType::Q5_1),
            (DType::Q6_K, 896, DType::Q8_0),
            (DType::IQ3_S, 896, DType::IQ4_NL),
            (DType::IQ4_XS, 100, DType::F16),
            (DType::Q1_0, 64, DType::Q2_0),
            (DType::Q1_0, 32, DType::Q4_0),
            (DType::NVFP4, 32, DType::IQ4_NL),
        ] {
            assert_eq!(fallback(dtype, cols), expected, "{} {cols}", dtype.name());
        }
    }

    #[test]
    fn every_scheme_and_every_type_for_weights_is_in_the_table() {
        let table = table();
        assert!(table.iter().all(|(_, schemes)| !schemes.is_empty()));
        let listed: Vec<&String> = table.iter().flat_map(|(_, schemes)| schemes).collect();
        assert_eq!(listed.len(), all().len());
        for s in all() {
            assert!(listed.iter().any(|l| l.split(' ').next() == Some(&s.name)), "{}", s.name);
        }
        // f64 can be read and copied, but nobody needs a scheme for it.
        for t in formats::block::TYPES.iter().filter(|t| t.holds_weights() && t.dtype != DType::F64) {
            assert!(
                all()
                    .iter()
                    .any(|s| s.base == t.dtype || s.rules.iter().any(|r| r.to == Choice::To(t.dtype))),
                "no scheme makes {}",
                t.name
            );
        }
    }

    #[test]
    fn few_bits_need_importance() {
        assert!(needs_importance(DType::IQ2_XS, None));
        assert!(
            needs_importance(DType::Q2_K, Some("q2_k_s")) && !needs_importance(DType::Q2_K, Some("q2_k"))
        );
        assert!(!needs_importance(DType::IQ3_S, None));
    }
}

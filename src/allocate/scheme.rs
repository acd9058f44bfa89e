//! The chosen types as a scheme: rules by tensor name, so that the choice can be written as a recipe and planned like any
//! other scheme.

use calibration::budget::Solution;
use formats::block::DType;
use regex::Regex;

use super::{Choices, NAME};
use crate::arch::Blk;
use crate::plan::Choice;
use crate::scheme::Scheme;
use crate::scheme::rule::Rule;

/// The name of a tensor within its layer, and for each type the layers in which the tensor has it.
type LayerTypes<'a> = (&'a str, Vec<(DType, Vec<u64>)>);

impl Choices {
    /// A solution as a scheme: a rule for each tensor outside of layers, and for each tensor of a layer and each type a rule
    /// that lists the layers.
    pub fn scheme(&self, found: &Solution) -> Scheme {
        let mut weights: Vec<(DType, u64)> = Vec::new();
        let mut parts: Vec<LayerTypes> = Vec::new();
        let mut single: Vec<(&str, DType)> = Vec::new();
        for (i, (name, dtype)) in self.types_of(found).enumerate() {
            let info = dtype.info();
            let size = self.items[i][found.chosen[i]].bytes / info.bytes as u64 * info.weights as u64;
            match weights.iter_mut().find(|w| w.0 == dtype) {
                Some(w) => w.1 += size,
                None => weights.push((dtype, size)),
            }
            let Some(Blk { layer, part }) = Blk::parse(name) else {
                single.push((name, dtype));
                continue;
            };
            let at = match parts.iter().position(|k| k.0 == part) {
                Some(k) => k,
                None => {
                    parts.push((part, Vec::new()));
                    parts.len() - 1
                }
            };
            let of = &mut parts[at].1;
            match of.iter_mut().find(|t| t.0 == dtype) {
                Some(t) => t.1.push(layer),
                None => of.push((dtype, vec![layer])),
            }
        }
        let base = weights.iter().max_by_key(|w| w.1).map_or(DType::F16, |w| w.0);
        let exact = |name: &str, dtype| rule(&format!("^{}$", regex::escape(name)), dtype);
        let mut rules: Vec<Rule> = self.user_types.iter().map(|(name, dtype)| exact(name, *dtype)).collect();
        for (name, dtype) in single {
            rules.push(exact(name, dtype));
        }
        for (part, types) in parts {
            let part = regex::escape(part);
            // The most frequent type comes last, as the rule for all remaining layers.
            let main = (0..types.len()).max_by_key(|&i| types[i].1.len()).unwrap_or(0);
            for (i, (dtype, layers)) in types.iter().enumerate() {
                if i != main {
                    let all: Vec<String> = layers.iter().map(u64::to_string).collect();
                    let all = if let [one] = &all[..] { one.clone() } else { format!("({})", all.join("|")) };
                    rules.push(rule(&format!(r"^blk\.{all}\.{part}$"), *dtype));
                }
            }
            rules.push(rule(&format!(r"^blk\.\d+\.{part}$"), types[main].0));
        }
        Scheme { name: NAME.into(), aliases: Vec::new(), base, file_type: None, rules }
    }
}

/// A rule that gives the tensors whose names match a pattern a type.
fn rule(name: &str, dtype: DType) -> Rule {
    let name = Some(Regex::new(name).expect("an escaped name is a pattern"));
    Rule { roles: vec![], name, layers: None, count_tensors: false, when: vec![], to: Choice::To(dtype) }
}

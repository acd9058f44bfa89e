//! The facts about a model that rules depend on. They come from the metadata, or from tensor names and shapes if it is
//! missing.

use std::collections::HashMap;

use formats::metadata::{Metadata, Value, WrongValue};
use formats::model::{Model, Tensor};

use super::role::{Role, layer, role_in};
use super::rule::{Facts, Subject};
use crate::arch::Blk;

/// The facts about a model and its tensors that rules depend on.
pub struct RuleInputs {
    /// The facts about the model.
    pub facts: Facts,
    tensors: Vec<Position>,
}

/// A tensor's role and its position in the model: as in [`Subject`].
struct Position {
    role: Role,
    layer: Option<(u64, u64)>,
    nth: Option<(u64, u64)>,
}

/// Whether a tensor is a vector rather than a matrix: all of its outer dimensions are 1.
pub fn is_vector(t: &Tensor) -> bool {
    t.shape.len() < 2 || t.rows() <= 1
}

/// Whether a tensor is a stack of matrices, as those of experts are.
fn is_stacked(t: &Tensor) -> bool {
    t.shape.len() > 2 && t.shape[t.shape.len() - 3] > 1
}

impl RuleInputs {
    /// Gathers the facts. `metadata` is the model's, with the user's changes applied.
    ///
    /// # Errors
    /// [`WrongValue`] for a value of another type than its key has.
    pub fn new(model: &Model, metadata: &Metadata, importance: bool) -> Result<Self, WrongValue> {
        let arch = metadata.read_text("general.architecture")?.unwrap_or_default().to_string();
        // Of a layer's tensor, only what follows the layer's number counts: a model has a dozen of these.
        let mut parts: HashMap<&str, Role> = HashMap::new();
        let roles = model.tensors.iter().map(|t| match Blk::parse(&t.name) {
            Some(blk) => *parts.entry(blk.part).or_insert_with(|| role_in(&t.name, &arch)),
            None => role_in(&t.name, &arch),
        });
        let roles: Vec<Role> = roles.collect();
        let number = |key: &str| {
            metadata.read(&format!("{arch}.{key}"), "an integer, or an array of them", first_number)
        };
        let named = model.tensors.iter().filter_map(|t| layer(&t.name)).max();
        let facts = Facts {
            layers: number("block_count")?.or(named.map(|n| n.saturating_add(1))).unwrap_or(0),
            gqa: match number("attention.head_count")? {
                Some(heads) => match number("attention.head_count_kv")? {
                    Some(0) => 0,
                    Some(keys) => heads / keys,
                    None => 1,
                },
                None => gqa_by_shape(&model.tensors, &roles),
            },
            experts: number("expert_count")?.unwrap_or_else(|| experts_by_name(&model.tensors, &roles)),
            tied: !roles.contains(&Role::Output),
            importance,
            arch,
        };
        let tensors = positions(&model.tensors, &roles, &facts);
        Ok(Self { facts, tensors })
    }

    /// The role of tensor `i`; a tied embedding counts as output matrix.
    pub fn role(&self, i: usize) -> Role {
        match self.tensors[i].role {
            Role::Embedding if self.facts.tied => Role::Output,
            role => role,
        }
    }

    /// Whether tensor `i` is the token embedding, tied or not.
    pub fn is_embedding(&self, i: usize) -> bool {
        self.tensors[i].role == Role::Embedding
    }

    /// The facts about tensor `i`, which is `t`.
    pub fn subject<'a>(&'a self, i: usize, t: &'a Tensor) -> Subject<'a> {
        let Position { layer, nth, .. } = self.tensors[i];
        let stacked = is_stacked(t);
        Subject { name: &t.name, role: self.role(i), layer, nth, cols: t.cols(), stacked, facts: &self.facts }
    }
}

/// A number, or the first number of an array with one for each layer.
fn first_number(value: &Value) -> Option<u64> {
    match value.as_array() {
        Some(array) => array.values().next()?.as_u64(),
        None => value.as_u64(),
    }
}

/// Query heads per key head, from the shapes of the first query and key matrices.
fn gqa_by_shape(tensors: &[Tensor], roles: &[Role]) -> u64 {
    let rows = |role: Role| {
        let mut of = tensors.iter().zip(roles).filter(|(t, r)| **r == role && !is_vector(t));
        of.next().map(|(t, _)| t.rows())
    };
    match (rows(Role::AttnQ), rows(Role::AttnK)) {
        (Some(q), Some(k)) => q / k.max(1),
        _ => 1,
    }
}

/// The number of experts, from stacked matrices or from numbers in tensor names.
fn experts_by_name(tensors: &[Tensor], roles: &[Role]) -> u64 {
    let ffn = |r: &Role| matches!(r, Role::FfnGate | Role::FfnUp | Role::FfnDown);
    let stacked = tensors.iter().zip(roles).find(|(t, r)| ffn(r) && is_stacked(t));
    if let Some((t, _)) = stacked {
        return t.shape[t.shape.len() - 3];
    }
    let number = |t: &Tensor| {
        let (_, rest) = t.name.split_once(".experts.")?;
        rest.split('.').next()?.parse::<u64>().ok()
    };
    tensors.iter().filter_map(number).max().map_or(0, |n| n.saturating_add(1))
}

/// The positions of all tensors, counted as llama-quantize counts them. Tensors that hold values (attn_v and fused ones) are
/// numbered among themselves. Tensors of the feed-forward layer are numbered too, relative to the number of layers; in a
/// model with experts, the layer number in their name counts instead.
fn positions(tensors: &[Tensor], roles: &[Role], facts: &Facts) -> Vec<Position> {
    let group = |role: Role| if role.holds_values() { Role::AttnV } else { role };
    let mut order: Vec<usize> =
        (0..tensors.len()).filter(|&i| roles[i] != Role::Exempt && !is_vector(&tensors[i])).collect();
    order.sort_by_cached_key(|&i| (layer(&tensors[i].name), &tensors[i].name));
    let mut counts: Vec<(Role, u64)> = Vec::new();
    let mut ranks = vec![None; tensors.len()];
    for &i in &order {
        let role = group(roles[i]);
        if !counts.iter().any(|c| c.0 == role) {
            counts.push((role, 0));
        }
        let count = counts.iter_mut().find(|c| c.0 == role).expect("just added");
        ranks[i] = Some(count.1);
        count.1 += 1;
    }
    let position = |i: usize| {
        let (role, named) = (roles[i], layer(&tensors[i].name));
        let of = |n: u64| ranks[i].map(|rank| (rank, n));
        let count = counts.iter().find(|c| c.0 == group(role)).map_or(0, |c| c.1);
        let (layer, nth) = match group(role) {
            Role::AttnV => (of(count), of(count)),
            Role::FfnGate | Role::FfnUp | Role::FfnDown => {
                let by_name = named.filter(|_| facts.experts > 1).map(|n| (n, facts.layers));
                (by_name.or(of(facts.layers)), of(facts.layers))
            }
            _ => (named.map(|n| (n, facts.layers)), of(count)),
        };
        Position { role, layer, nth }
    };
    (0..tensors.len()).map(position).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use formats::block::DType;
    use formats::model::{ByteOrder, Encoding, Format, Location as At};

    /// A model of f16 tensors without bytes.
    pub fn model(tensors: &[(&str, &[u64])], settings: &[(&str, Value)]) -> Model {
        let mut metadata = Metadata::new();
        settings.iter().for_each(|(k, v)| metadata.set(k, v.clone()));
        let tensor = |(name, shape): &(&str, &[u64])| Tensor {
            name: (*name).to_string(),
            shape: shape.to_vec(),
            encoding: Encoding::Blocks(DType::F16),
            location: At::default(),
        };
        Model {
            format: Format::Gguf { version: 3 },
            order: ByteOrder::Little,
            alignment: 32,
            metadata,
            tensors: tensors.iter().map(tensor).collect(),
            notes: Vec::new(),
        }
    }

    fn inputs(m: &Model) -> RuleInputs {
        RuleInputs::new(m, &m.metadata, false).unwrap()
    }

    #[test]
    fn settings_come_before_shapes() {
        let tensors: &[(&str, &[u64])] = &[
            ("blk.0.attn_q.weight", &[512, 256]),
            ("blk.0.attn_k.weight", &[128, 256]),
            ("blk.5.attn_k.bias", &[9]),
        ];
        let bare = inputs(&model(tensors, &[])).facts;
        assert_eq!((bare.layers, bare.gqa, bare.experts, bare.tied, &*bare.arch), (6, 4, 0, true, ""));
        let said = |heads, keys| {
            let settings = [
                ("general.architecture", Value::text("x")),
                ("x.block_count", Value::U32(7)),
                ("x.attention.head_count", heads),
                ("x.attention.head_count_kv", keys),
                ("x.expert_count", Value::U32(8)),
            ];
            inputs(&model(tensors, &settings)).facts
        };
        let full = said(Value::U32(8), Value::U32(4));
        assert_eq!((full.layers, full.gqa, full.experts, &*full.arch), (7, 2, 8, "x"));
        let kinds = |values: &[u32]| {
            let values: Vec<_> = values.iter().map(|&n| Value::U32(n)).collect();
            Value::Array(formats::metadata::Array::new(formats::metadata::Kind::U32, &values).unwrap())
        };
        assert_eq!(said(kinds(&[32, 32]), kinds(&[0, 2])).gqa, 0, "the first layer has no keys");
        assert_eq!(said(kinds(&[32, 32]), kinds(&[8, 2])).gqa, 4);
    }

    #[test]
    fn experts_are_counted_where_nothing_says_how_many() {
        let stacked: &[(&str, &[u64])] = &[("blk.0.ffn_up_exps.weight", &[16, 256, 256])];
        assert_eq!(inputs(&model(stacked, &[])).facts.experts, 16);
        let listed: &[(&str, &[u64])] = &[
            ("model.layers.0.mlp.experts.0.up_proj.weight", &[256, 256]),
            ("model.layers.0.mlp.experts.7.up_proj.weight", &[256, 256]),
        ];
        assert_eq!(inputs(&model(listed, &[])).facts.experts, 8);
    }

    #[test]
    fn places_are_counted_in_the_order_of_layers() {
        let matrix: &[u64] = &[256, 256];
        let tensors: &[(&str, &[u64])] = &[
            ("blk.10.attn_v.weight", matrix),
            ("blk.2.attn_v.weight", matrix),
            ("blk.1.attn_qkv.weight", matrix),
            ("blk.2.ffn_down.weight", matrix),
            ("blk.4.ffn_down.weight", matrix),
            ("blk.4.attn_q.weight", matrix),
            ("blk.0.attn_v.bias", &[256]),
            ("token_embd.weight", matrix),
        ];
        let mut m = model(tensors, &[]);
        let at = |s: &RuleInputs, i: usize, m: &Model| s.subject(i, &m.tensors[i]).layer;
        let s = inputs(&m);
        assert_eq!([at(&s, 0, &m), at(&s, 1, &m), at(&s, 2, &m)], [Some((2, 3)), Some((1, 3)), Some((0, 3))]);
        assert_eq!([at(&s, 3, &m), at(&s, 4, &m)], [Some((0, 11)), Some((1, 11))], "in order of appearance");
        assert_eq!([at(&s, 5, &m), at(&s, 6, &m), at(&s, 7, &m)], [Some((4, 11)), Some((0, 11)), None]);
        assert_eq!(s.role(7), Role::Output, "tied");
        m.metadata.set("general.architecture", Value::text("x"));
        m.metadata.set("x.expert_count", Value::U32(2));
        let s = inputs(&m);
        assert_eq!([at(&s, 3, &m), at(&s, 4, &m)], [Some((2, 11)), Some((4, 11))], "by name, with experts");
        assert_eq!(s.subject(4, &m.tensors[4]).nth, Some((1, 11)));
    }
}

//! The functions that PyTorch's pickles call to make tensors, and what these return.

use super::pickle::{Id, Node};
use crate::block::DType;

/// A storage: numbers in a member of the archive.
#[derive(Debug, Clone, Copy)]
pub struct Storage<'a> {
    /// Its key: the end of the member's name.
    pub key: &'a str,
    /// The type of its numbers: `None` if a tensor says it; the name of one that is not known.
    pub dtype: Option<Result<DType, &'a str>>,
}

/// A tensor: a part of a storage.
#[derive(Debug)]
pub struct View<'a> {
    /// Where its numbers are.
    pub storage: Storage<'a>,
    /// Their type, or the name of one that is not known.
    pub dtype: Result<DType, &'a str>,
    /// The number of elements before its first in the storage.
    pub offset: u64,
    /// Outermost dimension first.
    pub shape: Vec<u64>,
    /// For each dimension, the number of elements from one index to the next.
    pub strides: Vec<u64>,
}

/// What a call returns.
pub enum Call<'a> {
    /// A new value.
    Value(Node<'a>),
    /// A value that is there.
    Same(Id),
}

/// Names of types in PyTorch: of the classes of storages, without `Storage`, and of `torch.dtype`.
const TYPES: [(&str, &str, DType); 20] = [
    ("Float", "float32", DType::F32),
    ("Half", "float16", DType::F16),
    ("BFloat16", "bfloat16", DType::BF16),
    ("Double", "float64", DType::F64),
    ("Long", "int64", DType::I64),
    ("Int", "int32", DType::I32),
    ("Short", "int16", DType::I16),
    ("Char", "int8", DType::I8),
    ("Byte", "uint8", DType::U8),
    ("Bool", "bool", DType::Bool),
    ("ComplexFloat", "complex64", DType::C64),
    ("", "uint16", DType::U16),
    ("", "uint32", DType::U32),
    ("", "uint64", DType::U64),
    ("", "float8_e4m3fn", DType::F8_E4M3),
    ("", "float8_e5m2", DType::F8_E5M2),
    ("", "float8_e4m3fnuz", DType::F8_E4M3FNUZ),
    ("", "float8_e5m2fnuz", DType::F8_E5M2FNUZ),
    ("", "float8_e8m0fnu", DType::F8_E8M0),
    ("", "float", DType::F32),
];

/// The most dimensions of a tensor: more than any model has.
const MOST_DIMENSIONS: usize = 8;

type Made<T> = Result<T, String>;

fn items<'n>(nodes: &'n [Node], id: Id) -> Made<&'n [Id]> {
    match &nodes[id as usize] {
        Node::Tuple(items) | Node::List(items) => Ok(items),
        _ => Err("arguments are no tuple".into()),
    }
}

/// A shape or strides.
fn numbers(nodes: &[Node], id: Id) -> Made<Vec<u64>> {
    let items = items(nodes, id)?;
    if items.len() > MOST_DIMENSIONS {
        return Err(format!("a tensor has more than {MOST_DIMENSIONS} dimensions"));
    }
    items.iter().map(|&id| number(nodes, id)).collect()
}

fn number(nodes: &[Node], id: Id) -> Made<u64> {
    match nodes[id as usize] {
        Node::Int(n) => u64::try_from(n).map_err(|_| format!("{n} is no length")),
        _ => Err("a length is no number".into()),
    }
}

/// The storage that a persistent id names: `("storage", class, key, device, number of elements)`.
pub fn storage<'a>(nodes: &[Node<'a>], id: Id) -> Made<Storage<'a>> {
    let at = |id: &Id| &nodes[*id as usize];
    let fields = items(nodes, id)?;
    let [kind, class, key, _, _] = fields else { return Err("a storage has not five fields".into()) };
    let (Node::Text("storage"), Node::Global(class), Node::Text(key)) = (at(kind), at(class), at(key)) else {
        return Err("a storage has no class or no key".into());
    };
    let class = class[1];
    let name = class.strip_suffix("Storage").unwrap_or(class);
    let dtype = match name {
        "Untyped" | "" => None,
        _ => Some(TYPES.iter().find(|(storage, ..)| *storage == name).map(|(.., dtype)| *dtype).ok_or(class)),
    };
    Ok(Storage { key, dtype })
}

/// What `function` returns for `arguments`, as far as it is known.
pub fn call<'a>(nodes: &[Node<'a>], function: Id, arguments: Id) -> Made<Call<'a>> {
    let Node::Global(full) = &nodes[function as usize] else {
        return Err("what is called is no function".into());
    };
    let [module, name] = **full;
    let arguments = items(nodes, arguments)?;
    Ok(match (module, name, arguments) {
        ("collections", "OrderedDict", []) => Call::Value(Node::Dict(Vec::new())),
        ("collections", "OrderedDict", [pairs]) => {
            let pair = |&id: &Id| match items(nodes, id)? {
                [key, value] => Ok((*key, *value)),
                _ => Err("an entry of a dictionary is no pair".to_string()),
            };
            Call::Value(Node::Dict(items(nodes, *pairs)?.iter().map(pair).collect::<Made<_>>()?))
        }
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2", [storage, offset, shape, strides, ..]) => {
            view(nodes, [*storage, *offset, *shape, *strides], None)?
        }
        ("torch._utils", "_rebuild_tensor_v3", [storage, offset, shape, strides, _, _, dtype, ..]) => {
            view(nodes, [*storage, *offset, *shape, *strides], Some(*dtype))?
        }
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state", [tensor, ..]) => {
            Call::Same(*tensor)
        }
        // A tensor with attributes: the function that makes it, its class, the function's arguments, the attributes.
        ("torch._tensor", "_rebuild_from_type_v2", [function, class, arguments, _]) => {
            let name_of = |id: Id| match &nodes[id as usize] {
                Node::Global(name) => name[1],
                _ => "",
            };
            let plain = ["Tensor", "Parameter", "Buffer"].contains(&name_of(*class));
            match plain && name_of(*function) != name {
                true => call(nodes, *function, *arguments)?,
                false => Call::Value(Node::Made(full.clone())),
            }
        }
        ("torch", "Size", [shape]) => Call::Same(*shape),
        _ => Call::Value(Node::Made(full.clone())),
    })
}

/// A tensor from its storage, offset, shape and strides, of the storage's type or a given one.
fn view<'a>(
    nodes: &[Node<'a>],
    [storage, offset, shape, strides]: [Id; 4],
    dtype: Option<Id>,
) -> Made<Call<'a>> {
    let Node::Storage(storage) = &nodes[storage as usize] else {
        return Err("a tensor has no storage".into());
    };
    let dtype = match dtype.map(|id| &nodes[id as usize]) {
        Some(Node::Global(full)) if full[0] == "torch" => {
            let name = &full[1];
            TYPES.iter().find(|(_, dtype, _)| dtype == name).map(|(.., dtype)| *dtype).ok_or(*name)
        }
        Some(_) => return Err("the type of a tensor has no name".into()),
        None => storage.dtype.ok_or("the type of a tensor is missing")?,
    };
    let (shape, strides) = (numbers(nodes, shape)?, numbers(nodes, strides)?);
    if shape.len() != strides.len() {
        return Err("a tensor has another number of strides than of dimensions".into());
    }
    let (storage, offset) = (**storage, number(nodes, offset)?);
    Ok(Call::Value(Node::Tensor(Box::new(View { storage, dtype, offset, shape, strides }))))
}

//! Tensors in layouts of other programs (`formats::block::Foreign`). Each gets a view with the blocks of the type whose values
//! it holds, so that all that follows sees that type.

use formats::block::Foreign;
use formats::model::Encoding;

use super::Source;
use super::view::{RowOrder, Values, View};

/// Gives such tensors their views, and says so in the notes.
pub(crate) fn apply(source: &mut Source) {
    let mut found: Vec<(Foreign, usize)> = Vec::new();
    for i in 0..source.model.tensors.len() {
        let t = &mut source.model.tensors[i];
        let Encoding::Foreign(f) = t.encoding else { continue };
        let stored = t.clone();
        t.encoding = Encoding::Blocks(f.dtype());
        t.location.len = t.encoding.bytes(t.elements()).expect("a layout has whole blocks of its type");
        source.views.resize_with(source.model.tensors.len(), || None);
        source.views[i] = Some(View { stored, rows: RowOrder::Same, values: Values::Repacked(f) });
        match found.iter_mut().find(|o| o.0 == f) {
            Some((_, count)) => *count += 1,
            None => found.push((f, 1)),
        }
    }
    for (f, count) in found {
        let (own, is) = (f.name(), f.dtype().name());
        let holds = match f {
            Foreign::PQ2_0 => "PrismML's q2_0 with one scale for 128 weights",
            _ => "q4_0 with interleaved rows, as llama.cpp had it in 2024",
        };
        let tensors = if count == 1 { "tensor is" } else { "tensors are" };
        source.model.notes.push(format!(
            "{count} {tensors} {own} ({holds}) and read as {is}, which has the same values and which llama.cpp loads"
        ));
    }
}

//! What the numbers of tensor types mean. Forks of llama.cpp have types of their own under numbers to which ggml gave other
//! meanings, before or after. Nothing in a file names the fork, but tensors lie back to back, so the bytes that a tensor
//! has room for say which of two types it is.

use std::collections::HashSet;

use super::split;
use crate::block::{BITNET_CPP, DType, FOREIGN, Foreign, REMOVED, i2_s};
use crate::metadata::Metadata;
use crate::model::{Encoding, elements};

/// The number under which PrismML's fork wrote [`Foreign::PQ2_0`] before ggml took it for Q2_0.
const LEGACY_Q2_0: u32 = 42;
/// MXFP4 in ggml, TL2 in bitnet.cpp.
const MXFP4: u32 = 39;

/// A tensor info, with the places of its parts in the file.
pub(super) struct Info {
    pub at: u64,
    pub dims_at: u64,
    pub id_at: u64,
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<u64>,
    /// The number of the type.
    pub id: u32,
    /// Relative to the start of the tensor data.
    pub offset: u64,
}

/// The meaning of the type numbers in one file.
pub(super) struct Numbers {
    /// The numbers that bitnet.cpp uses are those of its own types.
    bitnet: bool,
    i2_s: bool,
    /// Layouts that were recognised, with their numbers.
    foreign: Vec<(u32, Foreign)>,
}

impl Numbers {
    /// `data` is the number of bytes between the start of the tensor data and the end of the file.
    pub fn of(metadata: &Metadata, infos: &[Info], alignment: u64, data: u64) -> Self {
        let architecture = metadata.text("general.architecture");
        let places = Places { infos, alignment, data };
        let own = |id: u32| (36..=MXFP4).contains(&id);
        // bitnet.cpp's converter writes the scale of a tensor's packed weights behind it.
        let names: HashSet<&str> = if infos.iter().any(|t| own(t.id)) {
            infos.iter().map(|t| t.name.as_str()).collect()
        } else {
            HashSet::new()
        };
        let scaled = |t: &Info| own(t.id) && names.contains(&*format!("{}_scale", t.name));
        let bitnet = architecture.is_some_and(|a| a.starts_with("bitnet"))
            || infos.iter().any(scaled) && !places.fit(MXFP4, |n| DType::MXFP4.bytes_for(n));
        // Only the first part of a split has the architecture.
        let later = architecture.is_none() && matches!(split::split_of(metadata), Ok(Some((1.., _))));
        let i2_s = later
            || architecture.is_some_and(|a| i2_s::ARCHITECTURES.contains(&a))
            || places.fit(i2_s::GGUF, i2_s::tensor_bytes);
        let mut foreign: Vec<_> =
            FOREIGN.into_iter().filter(|&(id, f)| places.fit(id, |n| f.bytes_for(n))).collect();
        let long = Foreign::PQ2_0;
        if !places.fit(LEGACY_Q2_0, |n| DType::Q2_0.bytes_for(n))
            && places.fit(LEGACY_Q2_0, |n| long.bytes_for(n))
        {
            foreign.push((LEGACY_Q2_0, long));
        }
        Self { bitnet, i2_s, foreign }
    }

    /// The encoding of a tensor.
    ///
    /// # Errors
    /// For a number without a meaning: what is known of it.
    pub fn encoding(&self, t: &Info) -> Result<Encoding, String> {
        if let Some((_, f)) = self.foreign.iter().find(|f| f.0 == t.id) {
            let (outer, cols) = t.shape.split_at(t.shape.len().saturating_sub(1));
            // A shape that overflows is refused as that of any type.
            let rows = elements(outer).unwrap_or(0);
            let together = f.rows(cols.first().copied().unwrap_or(1));
            return match rows.is_multiple_of(together as u64) {
                true => Ok(Encoding::Foreign(*f)),
                false => Err(format!("{}, of which {rows} rows are not a multiple of {together}", f.name())),
            };
        }
        match DType::from_gguf(t.id).filter(|_| !(self.bitnet && t.id == MXFP4)) {
            Some(dtype) => Ok(Encoding::Blocks(dtype)),
            None if self.i2_s && t.id == i2_s::GGUF => Ok(Encoding::I2S),
            None => Err(unknown(t.id, self.bitnet)),
        }
    }
}

/// Where the tensors of a file are.
struct Places<'a> {
    infos: &'a [Info],
    alignment: u64,
    data: u64,
}

impl Places<'_> {
    /// Whether the file has tensors with this type number and each has exactly the room for so many bytes. The last
    /// tensor of the file counts only if it is alone, since what follows it is not known.
    fn fit(&self, id: u32, bytes: impl Fn(u64) -> Option<u64>) -> bool {
        let of = || self.infos.iter().enumerate().filter(|(_, t)| t.id == id);
        let need = |t: &Info| elements(&t.shape).and_then(&bytes);
        let padded = |t: &Info| need(t).and_then(|n| n.checked_next_multiple_of(self.alignment));
        let mut inner = of().filter_map(|(i, t)| Some((t, self.infos.get(i + 1)?.offset))).peekable();
        if inner.peek().is_some() {
            return inner
                .all(|(t, next)| next.checked_sub(t.offset).is_some_and(|room| padded(t) == Some(room)));
        }
        of().any(|(_, t)| {
            let room = self.data.checked_sub(t.offset);
            room.is_some_and(|room| {
                need(t).is_some_and(|n| n <= room) && padded(t).is_some_and(|n| room <= n)
            })
        })
    }
}

fn unknown(id: u32, bitnet: bool) -> String {
    let named = |list: &[(u32, &'static str)]| list.iter().find(|t| t.0 == id).map(|t| t.1);
    match (named(&BITNET_CPP), named(&REMOVED)) {
        (Some(own), _) if bitnet => format!(
            "bitnet.cpp's {own}, whose layout is not supported; take the model's i2_s or its original checkpoint"
        ),
        (Some(own), Some(old)) => format!("{old}, removed from ggml (bitnet.cpp uses the number for {own})"),
        (_, Some(old @ ("q4_0_4_4" | "q4_0_4_8" | "q4_0_8_8"))) => format!(
            "{old}, removed from ggml; such a tensor has the length of a q4_0, and this one has not: take the model's q4_0, \
             which has the same values"
        ),
        (_, Some(old)) => format!("{old}, removed from ggml; take another type of the same model"),
        _ => match id {
            142 => "PrismML's pq2_0 or ik_llama.cpp's iq2_tn, and the tensor has the length of neither a pq2_0 nor \
                    any type that is known; take the model's q2_0"
                .into(),
            143 => "PrismML's ptq1_0, which only its programs read (or ik_llama.cpp's iq1_tn); take the model's q2_0".into(),
            97..400 => "unknown to ggml; ik_llama.cpp has types of its own in this range".into(),
            _ => "unknown".into(),
        },
    }
}

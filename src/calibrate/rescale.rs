//! AWQ's column scales in one layer: whether they can be moved there, the search for them, and the division of the tensor
//! that produces the input.

use formats::block::{DType, Encode, Family};
use kernels::parallel;

use super::awq::{self, Consumer, Producer};
use super::gram::Gram;
use super::layer::{BlockTensor, Layer};
use super::sequential::ColumnScales;
use crate::outcome::{Outcome, QuantizedTensor};
use crate::runner::layerwise::{Dense, Tap};

impl Layer<'_> {
    /// AWQ's scales for a tap's columns, if they can be moved into the producer and reduce the loss.
    pub fn scales(
        &self,
        tap: Tap,
        matrices: &[Dense],
        stored: &[Option<BlockTensor>],
        importance: &[f32],
        grams: (&Gram, &Gram),
        how: &Encode,
    ) -> Option<Vec<f32>> {
        if self.method.column_scales == ColumnScales::None || self.network.has_sub_norm(self.layer, tap) {
            return None;
        }
        let (name, bias) = self.names(tap);
        self.blocks(&name).filter(|p| match awq::producer(tap) {
            Producer::Norm(_) => !p.quantized,
            Producer::Rows(_) => awq::is_scalable(p.dtype),
        })?;
        if let Some(bias) = bias {
            self.blocks(&bias).filter(|p| !p.quantized)?;
        }
        let mut consumers = Vec::new();
        for (m, w) in matrices.iter().zip(stored) {
            let BlockTensor { tensor, dtype, quantized, scale } = (*w)?;
            // Scaling would change a matrix that is to be kept as it is, unless it is stored as floats.
            let kept = !quantized && !self.plan.layout.tensors[tensor].encoding.is_plain();
            if dtype.info().family == Family::Ternary || scale.is_some() || kept {
                return None;
            }
            if quantized {
                consumers.push(Consumer { weights: &m.weights, dtype, importance });
            }
        }
        let config = &self.network.config;
        match self.method.column_scales {
            ColumnScales::Random(seed) => {
                Some(awq::random(config, tap, grams.0.width, seed + self.layer as u64))
            }
            _ => awq::search(self.network.isa, config, tap, grams, &consumers, how),
        }
    }

    /// The names of a tap's producer and of its bias, if it has one.
    fn names(&self, tap: Tap) -> (String, Option<String>) {
        let name = |part: &str, kind: &str| format!("blk.{}.{part}.{kind}", self.layer);
        match awq::producer(tap) {
            Producer::Norm(part) => (name(part, "weight"), None),
            Producer::Rows(part) => {
                let bias = name(part, "bias");
                let exists = self.plan.layout.tensors.iter().any(|t| t.name == bias);
                (name(part, "weight"), exists.then_some(bias))
            }
        }
    }

    /// The index in the layout, the type and the current bytes of a producer or its bias: as quantized before, or encoded
    /// from the source.
    fn current_bytes(&self, name: &str, finished: &[QuantizedTensor]) -> (usize, DType, Vec<u8>) {
        let BlockTensor { tensor, dtype, .. } = self.blocks(name).expect("scales() has found it");
        if let Some(earlier) = finished.iter().find(|m| m.tensor == tensor) {
            return (tensor, dtype, earlier.bytes.clone());
        }
        let weights = self.network.weights_of(self.layer, name);
        let mut bytes = vec![0u8; dtype.bytes_for(weights.len() as u64).expect("whole blocks") as usize];
        let codec = kernels::codec(dtype).expect("plans encode into types that have a codec");
        codec.encode(&weights, &Encode::default(), &mut bytes);
        (tensor, dtype, bytes)
    }

    /// Limits scales so that the rows of a tap's producer can be divided by them exactly.
    pub fn limit_to_exact(&self, tap: Tap, mut s: Vec<f32>, finished: &[QuantizedTensor]) -> Vec<f32> {
        if let Producer::Rows(_) = awq::producer(tap) {
            let (_, dtype, bytes) = self.current_bytes(&self.names(tap).0, finished);
            let config = &self.network.config;
            let row = bytes.len() / awq::producer_scales(config, tap, &s).len();
            awq::limit_scales(config, tap, &mut s, |c, by| {
                awq::divides_exactly(dtype, &bytes[c * row..][..row], by)
            });
        }
        s
    }

    /// Divides a tap's producer by its columns' scales.
    pub fn divide_producer(&self, tap: Tap, s: &[f32], finished: &mut Vec<QuantizedTensor>) {
        let (name, bias) = self.names(tap);
        let s = awq::producer_scales(&self.network.config, tap, s);
        for name in [Some(name), bias].into_iter().flatten() {
            let (tensor, dtype, mut bytes) = self.current_bytes(&name, finished);
            let row = bytes.len() / s.len();
            let rows = bytes.chunks_exact_mut(row).zip(&s).collect();
            parallel::items(rows, &|_, (row, s)| awq::divide(dtype, row, *s));
            match finished.iter_mut().find(|m| m.tensor == tensor) {
                Some(earlier) => earlier.bytes = bytes,
                None => finished.push(QuantizedTensor { tensor, bytes, outcome: Outcome::default() }),
            }
        }
    }
}

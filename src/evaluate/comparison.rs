//! A comparison of models with a reference, as numbers.

use std::path::PathBuf;

use serde::Serialize;

use crate::score::bootstrap::Bootstrap;
use crate::score::stats::Estimate;
use crate::score::summary::{Against, Kld};
use crate::score::{Interval, Ratio, Summary};

/// Models beside a reference over one text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The text's name.
    pub text: String,
    /// Tokens of a chunk.
    pub context: usize,
    /// Chunks of the text.
    pub chunks: usize,
    /// Scored tokens.
    pub tokens: u64,
    /// What keys and values were kept as: "f16", "f32", ...
    pub kv: String,
    /// What activations were rounded to before the products: "int8", "exact".
    pub activations: String,
    /// How intervals were made.
    pub bootstrap: Bootstrap,
    /// Whatever else is needed to do it again.
    pub settings: Vec<Setting>,
    /// What the models are compared with.
    pub reference: Reference,
    /// The reference beside itself in another arithmetic: differences as small as this mean nothing.
    pub floor: Option<Summary>,
    /// What errors in each matrix cost, where that is known.
    pub sensitivity: Option<SensitivitySummary>,
    /// The models.
    pub candidates: Vec<Candidate>,
}

/// What errors in the reference's matrices cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SensitivitySummary {
    /// Where that is from.
    pub origin: String,
    /// The type that matrices were made in.
    pub probe: String,
    /// The matrices.
    pub matrices: Vec<MatrixCost>,
}

/// What errors in a matrix cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MatrixCost {
    /// The layer, if it is of one.
    pub layer: Option<u32>,
    /// Its name without the layer.
    pub role: String,
    /// The KL divergence that the probe brought, in nats.
    pub kld: f64,
}

/// A setting of the measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// What it is called.
    pub name: String,
    /// What it was.
    pub value: String,
}

/// The model that the others are compared with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reference {
    /// What it is called in tables.
    pub name: String,
    /// The file; `None` if only its predictions were there.
    pub path: Option<PathBuf>,
    /// The file's size.
    pub bytes: Option<u64>,
    /// Bits of the file's tensors over their weights.
    pub bits_per_weight: Option<f64>,
    /// Its perplexity.
    pub perplexity: Estimate,
    /// Tokens a second while reading a text.
    pub prompt_tps: Option<f64>,
    /// Tokens a second while writing one.
    pub generate_tps: Option<f64>,
}

/// A model that is compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// What it is called in tables.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Bits of the file's tensors over their weights.
    pub bits_per_weight: f64,
    /// What the text says about it.
    pub summary: Summary,
    /// The interval of the mean KLD.
    pub kld_interval: Option<Interval>,
    /// Its mean KLD over that of the first candidate, chunk by chunk; `None` for the first.
    pub ratio_to_first: Option<Ratio>,
    /// The mean KLD that was predicted by its types, in nats.
    pub predicted_kld: Option<f64>,
    /// The errors of its tensors.
    pub tensors: Vec<TensorError>,
    /// Tokens by KLD: log10 of each bucket's lower edge in nats, and how many there are.
    pub histogram: Vec<(f64, u64)>,
    /// Tokens a second while reading a text.
    pub prompt_tps: Option<f64>,
    /// Tokens a second while writing one.
    pub generate_tps: Option<f64>,
}

/// How far a tensor is from the reference's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorError {
    /// The tensor's name in the file.
    pub name: String,
    /// The layer, if it is of one.
    pub layer: Option<u32>,
    /// What it does: its name without the layer ("attn_q", "token_embd").
    pub role: String,
    /// The type that it is stored in.
    pub dtype: String,
    /// Its size in the file.
    pub bytes: u64,
    /// Root mean square of the error over that of the weights.
    pub relative_error: f64,
}

impl Candidate {
    /// The comparison with the reference.
    pub fn against(&self) -> Option<&Against> {
        self.summary.against.as_ref()
    }

    /// The divergence from the reference.
    pub fn kld(&self) -> Option<&Kld> {
        self.against().map(|a| &a.kld)
    }
}

impl Comparison {
    /// The mean KLD of the reference beside itself.
    pub fn floor_kld(&self) -> Option<f64> {
        Some(self.floor.as_ref()?.against.as_ref()?.kld.mean.value)
    }
}

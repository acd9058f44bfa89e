//! The results of a comparison of models with a reference. Their JSON form is that of `compare --json`.

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::score::bootstrap::Bootstrap;
use crate::score::stats::Estimate;
use crate::score::summary::{Against, Kld};
use crate::score::{Interval, Ratio, Summary};

/// The comparison of models with a reference on one text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The text's name.
    pub text: String,
    /// Tokens per chunk.
    pub context: usize,
    /// Chunks of the text.
    pub chunks: usize,
    /// Scored tokens.
    pub tokens: u64,
    /// The type of the KV cache: "f16", "f32", ...
    pub kv: String,
    /// How activations were rounded before matrix products: "int8", or "exact" for not at all.
    pub activations: String,
    /// How confidence intervals were computed.
    pub bootstrap: Bootstrap,
    /// Other settings needed to reproduce the comparison.
    pub settings: Vec<Setting>,
    /// What the models are compared with.
    pub reference: Reference,
    /// The reference compared with itself in the other arithmetic (8-bit or float activations): the noise floor, below
    /// which differences are not meaningful.
    pub floor: Option<Summary>,
    /// The reference's sensitivity, if it was given.
    pub sensitivity: Option<SensitivitySummary>,
    /// The models.
    pub candidates: Vec<Candidate>,
}

/// The sensitivity of the reference's matrices.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SensitivitySummary {
    /// How it was obtained.
    pub origin: String,
    /// The type that matrices were quantized to in order to measure it.
    pub probe: String,
    /// The matrices.
    pub matrices: Vec<MatrixCost>,
}

/// The sensitivity of a matrix.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MatrixCost {
    /// The layer, if it is of one.
    pub layer: Option<u32>,
    /// Its name without the layer.
    pub role: String,
    /// The KL divergence with only this matrix quantized, in nats per token.
    pub kld: f64,
}

/// A setting of the measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// The model that the others are compared with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reference {
    /// Its name in tables.
    pub name: String,
    /// The file; `None` if only a logits file of it was given.
    #[serde(serialize_with = "shown_if_known")]
    pub path: Option<PathBuf>,
    /// The file's size.
    pub bytes: Option<u64>,
    /// Bits per weight of all tensors together.
    pub bits_per_weight: Option<f64>,
    /// Its perplexity.
    pub perplexity: Estimate,
    /// Tokens per second while evaluating the text.
    pub prompt_tps: Option<f64>,
    /// Tokens per second while generating.
    pub generate_tps: Option<f64>,
}

/// A path as text: its bytes need not be UTF-8, which JSON is.
fn shown<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

fn shown_if_known<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.display().to_string()).serialize(serializer)
}

/// A model that is compared with the reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// Its name in tables.
    pub name: String,
    /// The file.
    #[serde(serialize_with = "shown")]
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Bits per weight of all tensors together.
    pub bits_per_weight: f64,
    /// Its perplexity and its divergence from the reference.
    pub summary: Summary,
    /// The confidence interval of the mean KLD.
    pub kld_interval: Option<Interval>,
    /// Its mean KLD over that of the first candidate, chunk by chunk; `None` for the first.
    pub ratio_to_first: Option<Ratio>,
    /// The mean KLD that is predicted from its types, in nats per token.
    pub predicted_kld: Option<f64>,
    /// The errors of its tensors.
    pub tensors: Vec<TensorError>,
    /// Histogram of the tokens' KLD: log10 of each bucket's lower edge in nats, and the number of tokens.
    pub histogram: Vec<(f64, u64)>,
    /// Tokens per second while evaluating the text.
    pub prompt_tps: Option<f64>,
    /// Tokens per second while generating.
    pub generate_tps: Option<f64>,
}

/// The error of a tensor relative to the reference's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorError {
    /// The tensor's name in the file.
    pub name: String,
    /// The layer, if it is of one.
    pub layer: Option<u32>,
    /// Its name without the layer and `.weight` ("attn_q", "token_embd").
    pub role: String,
    /// Its type.
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
    /// The mean KLD of the reference from itself in the other arithmetic.
    pub fn floor_kld(&self) -> Option<f64> {
        Some(self.floor.as_ref()?.against.as_ref()?.kld.mean.value)
    }
}

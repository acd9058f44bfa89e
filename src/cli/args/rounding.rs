//! Options for how weights are rounded: importance matrix, calibration set, algorithm and search.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use formats::block::{Effort, Objective};

use ggufkit::calibrate::gptq::Regularization;
use ggufkit::calibrate::sequential::{self, ColumnScales};
use ggufkit::pipeline::{CalibrationSet, ImportanceSource};
use ggufkit::plan::rounding;

/// How weights are rounded.
#[derive(Debug, Args)]
pub struct Rounding {
    /// Importance matrix (.gguf or .dat) from `ggufkit calibrate` or llama-imatrix: errors count more in columns with
    /// larger inputs
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// Calibration set: a text file like the texts that the model will see, or `builtin`. The importance matrix is
    /// measured on it before quantizing
    #[arg(long, value_name = "TEXT", conflicts_with = "imatrix")]
    pub calibration: Option<PathBuf>,
    /// Context length in tokens of each calibration chunk [default: 512, or the model's context length if that is
    /// shorter]
    #[arg(long, value_name = "N", requires = "calibration", value_parser = context)]
    calibration_context: Option<usize>,
    /// Use at most this many calibration chunks [default: all]
    #[arg(long, value_name = "N", requires = "calibration")]
    calibration_chunks: Option<usize>,
    /// Sample the chunks from the whole calibration text with this random seed, instead of taking the first ones
    #[arg(long, value_name = "SEED", requires = "calibration_chunks")]
    calibration_seed: Option<u64>,
    /// Quantization algorithm; all except `search` process the model layer by layer and need --calibration
    #[arg(long, value_enum, default_value = "search")]
    method: Method,
    /// Save each finished layer in this folder, and resume from it if an earlier run was interrupted
    #[arg(long, value_name = "DIR", requires = "calibration")]
    state: Option<PathBuf>,
    /// Add a bias to each quantized matrix that cancels its mean output error; for llama models only, and some
    /// programs that load GGUF files ignore these biases
    #[arg(long, requires = "calibration")]
    bias_correction: bool,
    /// Symmetric GPTQ: reproduce the outputs of the original weights on the quantized model's own inputs, ignoring the
    /// error of earlier layers
    #[arg(long, hide = true)]
    symmetric: bool,
    /// Sweeps of coordinate descent after GPTQ's error feedback
    #[arg(long, hide = true, value_name = "N")]
    sweeps: Option<usize>,
    /// Damping added to the Hessian's diagonal, as a fraction of the diagonal's mean
    #[arg(long, hide = true, value_name = "X", default_value_t = Regularization::default().damping)]
    damping: f32,
    /// Shrinkage of the Hessian's off-diagonal: the tokens per column at which it is scaled by one half
    #[arg(long, hide = true, value_name = "X", default_value_t = Regularization::default().shrinkage)]
    shrinkage: f32,
    /// How thoroughly to search for the best scales: fast, normal or thorough (several times slower)
    #[arg(long, value_name = "EFFORT", value_parser = effort, default_value = "normal")]
    effort: Effort,
    /// What the scale search minimises [default: per type]
    #[arg(long, value_enum)]
    objective: Option<Minimised>,
}

/// Quantization algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Search the best scales of each block independently
    Search,
    /// AWQ: search as above, after moving scale factors between the columns of a matrix and the layer before it
    Awq,
    /// GPTQ: each column's rounding error is fed back into the columns not yet rounded
    Gptq,
    /// AWQ's scaling followed by GPTQ
    #[value(name = "awq+gptq")]
    AwqGptq,
    /// For each matrix, whichever of these gives the smallest output error on held-out tokens
    Auto,
}

fn context(text: &str) -> std::result::Result<usize, String> {
    let n = text.parse().ok().filter(|n| (16..=1 << 20).contains(n));
    n.ok_or_else(|| format!("{text:?} must be an integer from 16 to 1048576"))
}

/// What the scale search minimises.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Minimised {
    /// The squared error of the weights
    Error,
    /// The squared error, with errors of larger weights counting more
    Prior,
}

fn effort(name: &str) -> std::result::Result<Effort, String> {
    Effort::ALL.iter().find(|e| e.1 == name).map(|e| e.0).ok_or_else(|| {
        let names: Vec<_> = Effort::ALL.iter().map(|e| e.1).collect();
        format!("{name:?} must be one of {}", names.join(", "))
    })
}

impl Rounding {
    /// Where the importance matrix comes from, if one was asked for.
    pub fn importance(&self) -> Option<ImportanceSource> {
        let file = self.imatrix.clone().map(ImportanceSource::File);
        file.or_else(|| {
            Some(ImportanceSource::Calibration(CalibrationSet {
                text: self.calibration.clone()?,
                context: self.calibration_context,
                chunks: self.calibration_chunks,
                seed: self.calibration_seed,
            }))
        })
    }

    /// The folder for finished layers.
    pub fn state(&self) -> Option<PathBuf> {
        self.state.clone()
    }

    /// The layer-by-layer method, if one was asked for.
    pub fn layer_by_layer(&self) -> Option<sequential::Method> {
        let method = sequential::Method {
            regularization: Regularization { damping: self.damping, shrinkage: self.shrinkage },
            asymmetric: !self.symmetric,
            sweeps: self.sweeps.unwrap_or(match self.effort {
                Effort::Fast => 1,
                Effort::Normal => sequential::Method::default().sweeps,
                Effort::Thorough => 8,
            }),
            feedback: !matches!(self.method, Method::Awq | Method::Search),
            column_scales: match self.method {
                Method::Gptq | Method::Search => ColumnScales::None,
                Method::Awq | Method::AwqGptq | Method::Auto => ColumnScales::Searched,
            },
            bias_correction: self.bias_correction,
            also_unscaled: self.method == Method::Auto,
            ..Default::default()
        };
        (self.method != Method::Search || self.bias_correction).then_some(method)
    }

    /// The settings of the encoders. The importance matrix is not yet read or measured.
    pub fn options(&self) -> rounding::Rounding {
        rounding::Rounding {
            importance: None,
            objective: self.objective.map(|minimised| match minimised {
                Minimised::Error => Objective::Error,
                Minimised::Prior => Objective::Prior,
            }),
            effort: self.effort,
            // The pipeline fills these in from the method.
            method: None,
            bias: false,
        }
    }
}

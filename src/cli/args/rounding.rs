//! How weights are rounded, as the command line says it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use formats::block::{Effort, Objective};

use ggufkit::calibrate::gptq::Regularization;
use ggufkit::calibrate::sequential::{self, ColumnScales};
use ggufkit::pipeline::{CalibrationSet, ImportanceSource};
use ggufkit::plan::rounding;
use ggufkit::{Error, Result};

/// How weights are rounded.
#[derive(Debug, Args)]
pub struct Rounding {
    /// How large the inputs of matrices are, as `calibrate` or llama-imatrix measured it (a .gguf or .dat): errors count
    /// more in columns whose inputs are
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// A text like those that the model will see, or `builtin`: it is measured on that first
    #[arg(long, value_name = "TEXT", conflicts_with = "imatrix")]
    pub calibration: Option<PathBuf>,
    /// Tokens of a chunk of that text
    #[arg(long, value_name = "N", default_value_t = 512, requires = "calibration", value_parser = context)]
    calibration_context: usize,
    /// Most chunks of that text
    #[arg(long, value_name = "N", requires = "calibration")]
    calibration_chunks: Option<usize>,
    /// Take chunks from all over the text, by this number, rather than the first ones
    #[arg(long, value_name = "SEED", requires = "calibration_chunks")]
    calibration_seed: Option<u64>,
    /// How weights find their codes; all but search go through the model layer by layer, and need --calibration
    #[arg(long, value_enum, default_value = "search")]
    method: Method,
    /// Keep what is done in this folder, layer by layer, and go on from there if it has something
    #[arg(long, value_name = "DIR", requires = "calibration")]
    state: Option<PathBuf>,
    /// Give each matrix a bias that makes up for its mean error: llama models only, and not every program that loads
    /// GGUF files looks at biases
    #[arg(long, requires = "calibration")]
    bias_correction: bool,
    /// Error feedback alone: targets are the weights themselves, whatever the layers before have lost
    #[arg(long, hide = true)]
    symmetric: bool,
    /// Sweeps of descent after error feedback
    #[arg(long, hide = true, value_name = "N")]
    sweeps: Option<usize>,
    /// What is added to a Hessian's diagonal, in parts of its mean
    #[arg(long, hide = true, value_name = "X", default_value_t = Regularization::default().damping)]
    damping: f32,
    /// Tokens for each column with which half of what is off a Hessian's diagonal is believed
    #[arg(long, hide = true, value_name = "X", default_value_t = Regularization::default().shrinkage)]
    shrinkage: f32,
    /// How hard to look for the best scales of a block
    #[arg(long, value_name = "EFFORT", value_parser = effort, default_value = "normal")]
    effort: Effort,
    /// What scales make least; each type's own choice if not given
    #[arg(long, value_enum)]
    objective: Option<Least>,
}

/// How weights find their codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Each block by itself
    Search,
    /// Each block by itself, with scales moved between columns and what makes them
    Awq,
    /// Codes that make up for each other's errors
    Gptq,
    /// Both
    #[value(name = "awq+gptq")]
    AwqGptq,
    /// Whatever of these loses least, matrix by matrix
    Auto,
}

fn context(text: &str) -> std::result::Result<usize, String> {
    let n = text.parse().ok().filter(|n| (16..=1 << 20).contains(n));
    n.ok_or_else(|| format!("{text:?} is not a number from 16 to 1048576"))
}

/// What is made least.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Least {
    /// The squared error
    Error,
    /// The squared error, with larger weights counting more
    Prior,
}

fn effort(name: &str) -> std::result::Result<Effort, String> {
    Effort::ALL.iter().find(|e| e.1 == name).map(|e| e.0).ok_or_else(|| {
        let names: Vec<_> = Effort::ALL.iter().map(|e| e.1).collect();
        format!("{name:?} is not one of {}", names.join(", "))
    })
}

impl Rounding {
    /// Where the importance of weights is known from.
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

    /// Options that contradict each other.
    ///
    /// # Errors
    /// [`Error::Usage`] with the first contradiction.
    pub fn check(&self) -> Result<()> {
        if self.method != Method::Search && self.calibration.is_none() {
            return Err(Error::usage("this --method needs a calibration set").or("--calibration TEXT"));
        }
        if self.calibration_chunks == Some(0) {
            return Err(Error::usage("--calibration-chunks must be a positive integer (found 0)"));
        }
        if self.layer_by_layer().is_none() && self.state.is_some() {
            return Err(Error::usage("--state is for methods that go layer by layer").or("--method gptq"));
        }
        Ok(())
    }

    /// The folder that keeps finished layers.
    pub fn state(&self) -> Option<PathBuf> {
        self.state.clone()
    }

    /// How matrices are quantized layer by layer, if they are.
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

    /// What encoders are told; the importance of weights is not yet known.
    pub fn options(&self) -> rounding::Rounding {
        rounding::Rounding {
            importance: None,
            objective: self.objective.map(|least| match least {
                Least::Error => Objective::Error,
                Least::Prior => Objective::Prior,
            }),
            effort: self.effort,
            method: match self.method {
                Method::Search => None,
                Method::Awq => Some("awq"),
                Method::Gptq => Some("gptq"),
                Method::AwqGptq => Some("awq+gptq"),
                Method::Auto => Some("auto"),
            },
            bias: self.bias_correction,
        }
    }
}
